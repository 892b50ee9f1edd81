"""Fields that every input format shares, as pydantic models; nothing of pydantic leaves this package."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationInfo, model_validator

from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.problems import kind_of, refuse, shown
from qa_worker.domain.call import Agent, Expected, ToolSpec

# A typo this close to a field that is absent is an error instead of an ignored field. At 0.8 `turn`, `expcted`,
# `startedAt` and `agent_id` are caught, while `ended_at`, `name` and `duration` pass.
_NEAR = 0.8
_MOST_NAMES_COMPARED = 50
_LONGEST_NAME_COMPARED = 40
# Longer than any call; milliseconds and clock times written as seconds land far beyond.
_LONGEST_CALL_S = 48 * 3600

FIXES: Mapping[str, str] = {
    "id": "Give the call a text id of your own, unique in the workspace",
    "external_id": "Write the voice platform's id as a text",
    "agent": 'Write an object such as {"id": "booking"}',
    "started_at": 'Write an ISO 8601 time with a zone, such as "2026-11-02T14:05:00Z"',
    "expected": "Write an object with outcome, required_tools, forbidden_tools, required_phrases, forbidden_phrases",
    "metadata": "Write an object",
    "tools": 'Write a list of objects such as {"name": "find_booking", "description": "...", "parameters": {...}}',
    "name": "Write the name as a text",
    "parameters": "Write the tool's JSON schema as an object",
    "instructions": "Write the agent's instructions as one text",
    "version": 'Write the version as a text, in quotes, such as "7"',
    "tool_calls": "Write a list of tool calls, or leave it out",
    "tool_call_id": "Write the id of the tool call that this answers, as a text",
    "function": 'Write an object such as {"name": "find_booking", "arguments": "{}"}',
}


def limits_of(info: ValidationInfo) -> Limits:
    """The limits that the record is checked against."""
    return info.context if isinstance(info.context, Limits) else Limits()


class Door(BaseModel):
    """A model of outside data: strict types, unknown fields ignored, near misses of a field named.

    `mistaken` maps names that other formats use (folded: lower case, no `_` or `-`) to the field that is meant.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    mistaken: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _help_with_names(cls, data: Any) -> Any:
        if isinstance(data, dict):
            fields = cls.model_fields
            absent = tuple(name for name in fields if name not in data)
            unknown = [key for key in data if isinstance(key, str) and key not in fields]
            for key in unknown[:_MOST_NAMES_COMPARED]:
                meant = cls.mistaken.get(_folded(key)) or _near(key, absent)
                if meant is not None:
                    raise refuse("is not a field of this format", f"Did you mean `{meant}`?", at=(key,))
        return data


def _folded(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


@lru_cache(maxsize=1024)
def _near(name: str, absent: tuple[str, ...]) -> str | None:
    if len(name) > _LONGEST_NAME_COMPARED:
        return None
    by_folded = {_folded(field): field for field in absent}
    close = difflib.get_close_matches(_folded(name), by_folded, n=1, cutoff=_NEAR)
    return by_folded[close[0]] if close else None


def _within_text_limit(value: str, info: ValidationInfo) -> str:
    limit = limits_of(info).max_text_chars
    if len(value) > limit:
        raise refuse(f"has {len(value):,} characters; at most {limit:,} are accepted", "Shorten it")
    return value


def _usable_id(value: str, info: ValidationInfo) -> str:
    limit = limits_of(info).max_id_chars
    if not value.strip():
        raise refuse("is empty", "Write a text that isn't blank, or leave the field out where it is optional")
    if len(value) > limit:
        raise refuse(f"has {len(value):,} characters; at most {limit:,} are accepted", "Shorten it")
    if not value.isprintable():
        raise refuse(
            f"holds characters that can't be printed: {shown(value)}", "Remove line breaks and control characters"
        )
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise refuse("is blank", "Write the phrase, or remove the entry")
    return value


def _seconds(value: float) -> float:
    if value < 0:
        raise refuse(f"is negative ({shown(value)})", "Count seconds from the start of the call")
    if value > _LONGEST_CALL_S:
        raise refuse(
            f"is {shown(value)}, more than 48 hours",
            "Count seconds from the start of the call; is it in milliseconds, or a time of day?",
        )
    return value


def _moment(value: object) -> datetime | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise refuse(f"is {kind_of(value)}, and must be a text", FIXES["started_at"])
    try:
        moment = datetime.fromisoformat(value.strip())
        in_utc = moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        raise refuse(f"is no ISO 8601 time: {shown(value)}", FIXES["started_at"]) from None
    if in_utc is None:
        raise refuse(f"has no time zone: {shown(value)}", "Add it, such as Z or +01:00")
    return in_utc


def at_most(limit_name: str, noun: str) -> Callable[[object, ValidationInfo], object]:
    """A validator that refuses a longer list before its entries are looked at."""

    def check(value: object, info: ValidationInfo) -> object:
        limit: int = getattr(limits_of(info), limit_name)
        if isinstance(value, list) and len(value) > limit:
            raise refuse(f"has {len(value):,} {noun}; at most {limit:,} are accepted", "Split or shorten it")
        return value

    return check


Text = Annotated[str, AfterValidator(_within_text_limit)]
Id = Annotated[str, AfterValidator(_usable_id)]
Phrase = Annotated[str, AfterValidator(_within_text_limit), AfterValidator(_not_blank)]
Seconds = Annotated[float, AfterValidator(_seconds)]
Moment = Annotated[datetime | None, BeforeValidator(_moment)]


class ToolIn(Door):
    """A tool, flat or in OpenAI's form {"type": "function", "function": {...}}."""

    mistaken: ClassVar[Mapping[str, str]] = {"inputschema": "parameters", "schema": "parameters"}

    name: Id
    description: Text | None = None
    parameters: dict[str, Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _unwrap(cls, data: Any) -> Any:
        wrapped = isinstance(data, dict) and isinstance(data.get("function"), dict)
        return data["function"] if wrapped else data

    def spec(self) -> ToolSpec:
        return ToolSpec(name=self.name, description=self.description or "", parameters=self.parameters or {})


Tools = Annotated[list[ToolIn], BeforeValidator(at_most("max_tools", "tools"))]


class AgentIn(Door):
    mistaken: ClassVar[Mapping[str, str]] = {"systemprompt": "instructions", "prompt": "instructions"}

    id: Id
    name: Text | None = None
    version: Text | None = None
    instructions: Text | None = None
    tools: Tools | None = None

    def agent(self) -> Agent:
        return Agent(
            id=self.id,
            name=self.name or "",
            version=self.version or "",
            instructions=self.instructions or "",
            tools=tuple(tool.spec() for tool in self.tools or ()),
        )


class ExpectedIn(Door):
    outcome: Text | None = None
    required_tools: list[Id] | None = None
    forbidden_tools: list[Id] | None = None
    required_phrases: list[Phrase] | None = None
    forbidden_phrases: list[Phrase] | None = None

    def expected(self) -> Expected:
        return Expected(
            outcome=self.outcome or "",
            required_tools=tuple(self.required_tools or ()),
            forbidden_tools=tuple(self.forbidden_tools or ()),
            required_phrases=tuple(self.required_phrases or ()),
            forbidden_phrases=tuple(self.forbidden_phrases or ()),
        )


class HeaderIn(Door):
    """What stands beside the turns or messages of a call."""

    external_id: Id | None = None
    agent: AgentIn | None = None
    started_at: Moment = None
    expected: ExpectedIn | None = None
    metadata: dict[str, Any] | None = None
