"""What a model would plausibly answer, derived from nothing but the request: the text, the usage, the shape."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from tests.servers.behaviours import Answer

CHARS_PER_TOKEN = 2.5
MIN_CACHEABLE_TOKENS = 512
_TURN = re.compile(r"\[(\d+)\] agent[^:\n]*: (.+)")
_FORBIDDEN_KEYWORDS = frozenset({"minimum", "maximum", "multipleOf", "minLength", "maxLength", "maxItems"})


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sentence of the transcript that can be quoted."""

    turn: int
    text: str


def tokens(text: str) -> int:
    """About as many tokens as a text has."""
    return math.ceil(len(text) / CHARS_PER_TOKEN)


def user_text(body: Mapping[str, Any]) -> str:
    """The text of all user messages."""
    return "\n".join(_texts(message["content"]) for message in body["messages"] if message["role"] == "user")


def _texts(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def cached_prefix(body: Mapping[str, Any]) -> str:
    """The system text up to its last cache mark; empty where nothing is marked."""
    system = body.get("system") or []
    if isinstance(system, str):
        return ""
    marked = [number for number, block in enumerate(system) if "cache_control" in block]
    return "".join(block["text"] for block in system[: marked[-1] + 1]) if marked else ""


def cache_key(body: Mapping[str, Any]) -> str | None:
    """What a cache entry belongs to; None where the prefix is unmarked or too short."""
    prefix = cached_prefix(body)
    if tokens(prefix) < MIN_CACHEABLE_TOKENS:
        return None
    # another effort or format invalidates the entry
    return f"{body['model']} {body.get('output_config')} {prefix}"


def answer_text(body: Mapping[str, Any], *, level: int) -> str:
    """A value of the schema that the request asks for, as JSON; without a schema, a sentence."""
    schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
    if schema is None:
        return "Very well."
    return json.dumps(_value("", schema, _spoken(user_text(body)), level))


def _spoken(text: str) -> Spoken:
    """The agent's last turn, looked for from the end: a transcript is long."""
    end = len(text)
    while (at := text.rfind("] agent", 0, end)) >= 0:
        end = text.rfind("\n", 0, at) + 1
        turn = _TURN.match(text, end)
        if turn is not None:
            return Spoken(int(turn[1]), turn[2])
    return Spoken(0, "")


def _value(name: str, schema: Mapping[str, Any], spoken: Spoken, level: int) -> Any:
    if "enum" in schema:
        return level if level in schema["enum"] else schema["enum"][0]
    match schema["type"]:
        case "object":
            return {key: _value(key, part, spoken, level) for key, part in schema["properties"].items()}
        case "array":
            return [_value(name, schema["items"], spoken, level)]
        case "integer" | "number":
            return spoken.turn
        case "boolean":
            return True
        case _:
            return spoken.text[:120] if name == "quote" else f"The agent answered in turn {spoken.turn}."


def message(body: Mapping[str, Any], answer: Answer, *, message_id: str, cache: str) -> dict[str, Any]:
    """The body of a successful response. `cache` is `read`, `written` or `none`."""
    text = answer_text(body, level=answer.level) if answer.text is None else answer.text
    details = None
    if answer.stop_reason == "refusal":
        details = {"type": "refusal", "category": answer.refusal_category, "explanation": None}
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": _content(text, answer.thinking_tokens),
        "stop_reason": answer.stop_reason,
        "stop_sequence": None,
        "stop_details": details,
        "usage": _usage(body, text, answer, cache),
    }


def _content(text: str, thinking_tokens: int) -> list[dict[str, str]]:
    thinking = [{"type": "thinking", "thinking": "", "signature": "EqQBCgIYAhIM"}] if thinking_tokens else []
    return [*thinking, *([{"type": "text", "text": text}] if text else [])]


def _usage(body: Mapping[str, Any], text: str, answer: Answer, cache: str) -> dict[str, Any]:
    prefix = tokens(cached_prefix(body))
    written = prefix if cache == "written" else 0
    return {
        "input_tokens": tokens(user_text(body)) + (prefix if cache == "none" else 0),
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": prefix if cache == "read" else 0,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": tokens(text) + answer.thinking_tokens,
        "output_tokens_details": {"thinking_tokens": answer.thinking_tokens},
        "service_tier": "standard",
        "inference_geo": "global",
    }


def input_tokens(body: Mapping[str, Any], *, cached: bool) -> int:
    """What counts for the input limit: everything that isn't read from the cache."""
    return tokens(user_text(body)) + (0 if cached else tokens(cached_prefix(body)))


def problem(body: Mapping[str, Any]) -> str | None:
    """Why the real API would refuse the request with a 400, in the cases that are easily got wrong."""
    sampling = [name for name in ("temperature", "top_p", "top_k") if name in body]
    if sampling:
        return f"{sampling[0]}: not supported by this API version"
    if body["messages"][-1]["role"] == "assistant":
        return "messages: this model does not support prefilling the last assistant message"
    if (body.get("thinking") or {}).get("type") == "enabled":
        return "thinking.type: enabled is not supported by this model"
    schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
    return None if schema is None else _known_schema_problem(json.dumps(schema))


@lru_cache(maxsize=64)
def _known_schema_problem(schema: str) -> str | None:
    return _schema_problem(json.loads(schema))


def _schema_problem(schema: Mapping[str, Any]) -> str | None:
    refused = _FORBIDDEN_KEYWORDS & schema.keys()
    if refused:
        return f"output_config.format.schema: {min(refused)} is not supported"
    if schema.get("type") != "object":
        return _schema_problem(schema["items"]) if "items" in schema else None
    if schema.get("additionalProperties") is not False:
        return "output_config.format.schema: additionalProperties must be false"
    problems = (_schema_problem(part) for part in schema["properties"].values())
    return next((found for found in problems if found is not None), None)
