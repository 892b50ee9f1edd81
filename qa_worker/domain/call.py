"""A finished call: who answered it, what was said, what was expected of it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NewType

from qa_worker.domain.transcript import JsonObject, Transcript, canonical, to_json

WorkspaceId = NewType("WorkspaceId", uuid.UUID)
CallId = NewType("CallId", uuid.UUID)

_NAMESPACE = uuid.UUID("6f7c2a58-7d0e-5a0e-9c55-2f6f3f1c7b11")


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool that the agent may call. `parameters` is a JSON schema, empty where unknown."""

    name: str
    description: str = ""
    parameters: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent that answered. `id` is the sender's; `instructions` is the policy that the judge holds it to."""

    id: str
    name: str = ""
    version: str = ""
    instructions: str = ""
    tools: tuple[ToolSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """What the sender expects of this one call; each part may be empty."""

    outcome: str = ""
    required_tools: tuple[str, ...] = ()
    forbidden_tools: tuple[str, ...] = ()
    required_phrases: tuple[str, ...] = ()
    forbidden_phrases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A finished call as it was handed over.

    `ref` is the sender's id of the call, unique in its workspace: handing over the same `ref` twice is one call.
    `external_id` is the voice platform's id, for people to find it again. `started_at` is aware UTC.
    """

    ref: str
    agent: Agent
    transcript: Transcript
    external_id: str | None = None
    started_at: datetime | None = None
    expected: Expected = field(default_factory=Expected)
    metadata: Mapping[str, Any] = field(default_factory=dict)


def workspace_id(name: str) -> WorkspaceId:
    """The id of the workspace with this name: the same name gives the same id everywhere."""
    return WorkspaceId(uuid.uuid5(_NAMESPACE, f"workspace/{name}"))


def call_id(workspace: WorkspaceId, ref: str) -> CallId:
    """The id of a call: the same `ref` in the same workspace gives the same id everywhere."""
    return CallId(uuid.uuid5(workspace, f"call/{ref}"))


def fingerprint(call: Call) -> str:
    """64 hex digits that change when what was said or expected changes, and not when metadata does."""
    content = {
        "agent": [call.agent.id, call.agent.version],
        "turns": to_json(call.transcript),
        "expected": [
            call.expected.outcome,
            call.expected.required_tools,
            call.expected.forbidden_tools,
            call.expected.required_phrases,
            call.expected.forbidden_phrases,
        ],
    }
    return hashlib.sha256(canonical(content).encode()).hexdigest()
