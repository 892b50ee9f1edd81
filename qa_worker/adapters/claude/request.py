"""A request to grade as the parameters of the Messages API, for single requests and for batches."""

from __future__ import annotations

from typing import Any, NamedTuple

from qa_worker.application.judging import JudgeRequest
from qa_worker.domain.call import Agent
from qa_worker.domain.prompt import system_text, user_text
from qa_worker.domain.reading import answer_schema
from qa_worker.domain.rubric import JudgeKind, JudgeSpec, Rubric

DEFAULT_SPEC = JudgeSpec(JudgeKind.CLAUDE, model="claude-haiku-5-5", effort="low", max_tokens=3000)
"""What is used for the parts that a request's own spec leaves empty. The answer and its thinking share `max_tokens`."""

CHARS_PER_TOKEN = 2.5
"""The current tokenizer: 1M tokens = about 2.5M characters of English (models/haiku-5-5/overview)."""

_MIN_CACHED_TOKENS = 512
"""A shorter prefix is silently not cached (build-with-claude/prompt-caching, all 5.5 models)."""

_MAX_REMEMBERED = 256


class Prefix(NamedTuple):
    """What a cache entry of the provider belongs to. The answer's schema follows from the rubric in `text`."""

    model: str
    effort: str
    text: str


class _StaticTexts:
    """The latest static text of each rubric and agent: making it costs more CPU than all the rest of a request."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, str, str], tuple[Rubric, Agent, str]] = {}

    def of(self, rubric: Rubric, agent: Agent) -> str:
        name = (rubric.name, agent.id, agent.version)
        made = self._made.get(name)
        # compared by content: a policy can change under the same name
        if made is not None and made[0] == rubric and made[1] == agent:
            return made[2]
        text = system_text(rubric, agent)
        if len(self._made) >= _MAX_REMEMBERED:
            self._made.clear()
        self._made[name] = (rubric, agent, text)
        return text


_static_texts = _StaticTexts()


def body(request: JudgeRequest) -> dict[str, Any]:
    """The request to the Messages API. Neither sampling parameters nor thinking: the models refuse the one and need
    no field for the other.
    """
    call = request.call
    per_call = user_text(call.transcript, expected=call.expected, evidence=request.evidence, started_at=call.started_at)
    return {
        "model": model(request),
        "max_tokens": max_tokens(request),
        # marked here and not automatically: the last block, the transcript, is never read from the cache
        "system": [{"type": "text", "text": static_text(request), "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": per_call}],
        "output_config": {
            "effort": request.spec.effort or DEFAULT_SPEC.effort,
            "format": {"type": "json_schema", "schema": answer_schema(request.rubric)},
        },
    }


def model(request: JudgeRequest) -> str:
    """The model that is asked."""
    return request.spec.model or DEFAULT_SPEC.model


def max_tokens(request: JudgeRequest) -> int:
    """The most that the answer and its thinking may take."""
    return request.spec.max_tokens or DEFAULT_SPEC.max_tokens


def static_text(request: JudgeRequest) -> str:
    """The part that all calls of an agent under a rubric share: the same object as long as neither changes."""
    return _static_texts.of(request.rubric, request.call.agent)


def cached_prefix(request: JudgeRequest) -> Prefix | None:
    """What the provider's cache will hold of the request, or None where that is too short to be held."""
    text = static_text(request)
    if len(text) / CHARS_PER_TOKEN < _MIN_CACHED_TOKENS:
        return None
    return Prefix(model(request), request.spec.effort or DEFAULT_SPEC.effort, text)
