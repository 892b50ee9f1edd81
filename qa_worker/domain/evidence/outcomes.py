"""Whether a tool's result says that the call failed. Platforms seldom say; results mostly do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from qa_worker.domain.transcript import ToolUse, Turn

_FAILED_STATUS = frozenset(("error", "errored"))
# These may as well be data ("the payment's status is failed"), unless the object explains itself or says nothing else.
_FAILED_IF_EXPLAINED = frozenset(("failed", "failure", "fail", "invalid", "denied", "rejected", "timeout", "timed_out"))
_EXPLANATIONS = ("message", "reason", "detail", "details")
_OUTCOME_KEYS = ("status", "result", "outcome")
_FALSE_MEANS_FAILED = ("success", "ok", "successful", "is_success")
_TRUE_MEANS_FAILED = ("is_error", "iserror", "failed", "has_error")
_ERROR_KEYS = ("error", "errors", "error_message", "error_code", "error_type", "exception")
_NO_ERROR = frozenset(("", "none", "null", "no", "false", "0", "ok"))
_HTTP_KEYS = ("status", "status_code", "statuscode", "http_status")
_ENVELOPES = ("result", "response", "data", "output", "body")
_ERROR_TEXT = re.compile(
    r"\W{0,3}("
    r"(error|exception|traceback|failed|failure|timed out|timeout)\b"
    r"|\w{0,60}(error|exception)\s?[:(]"
    r"|(http|status)(/[\d.]{1,3})?[ _]?(status|code)?[\W_]{0,3}[45]\d\d\b"
    r"|[45]\d\d (bad|unauthori[sz]ed|forbidden|not found|conflict|too many|internal|service|gateway)\b"
    r")",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Tried(ToolUse):
    """A tool use and whether its result says that it failed: results can be long, and many checks ask."""

    failed: bool

    @property
    def succeeded(self) -> bool:
        """True where a result came and is no failure. A call without a result is neither."""
        return self.result is not None and not self.failed


def tried(uses: Iterable[ToolUse]) -> tuple[Tried, ...]:
    """Each use with its outcome."""
    return tuple(Tried(use.turn, use.call, use.result_turn, use.result, failed(use)) for use in uses)


def failed(use: ToolUse) -> bool:
    """True where the platform marked the result as an error, or the result itself says so."""
    return use.result is not None and (use.result.is_error is True or says_failed(use.result))


def says_failed(result: Turn) -> bool:
    """Judges a result by its own words: JSON fields such as status, success and error, or a text that opens with an error."""
    value = _decoded(result.text)
    if isinstance(value, Mapping):
        inner = (part for key, part in value.items() if key.casefold() in _ENVELOPES and isinstance(part, Mapping))
        return _object_failed(value) or any(map(_object_failed, inner))
    return isinstance(value, str) and _ERROR_TEXT.match(value) is not None


def _decoded(text: str) -> Any:
    """JSON as what it says, also when it was encoded twice; anything else as the text itself."""
    value: Any = text
    for _ in range(2):
        if not isinstance(value, str):
            return value
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def _object_failed(fields: Mapping[str, Any]) -> bool:
    plain = {key.casefold(): value for key, value in fields.items()}
    return any(_SIGNS[key](plain[key], plain) for key in plain if key in _SIGNS)


def _status_failed(status: object, fields: Mapping[str, Any]) -> bool:
    word = status.casefold() if isinstance(status, str) else ""
    explained = len(fields) == 1 or any(key in fields for key in _EXPLANATIONS)
    return word in _FAILED_STATUS or (explained and word in _FAILED_IF_EXPLAINED)


def _http_failed(value: object, _: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599  # noqa: PLR2004  # HTTP's own


def _names_error(value: object, _: object) -> bool:
    return bool(value) and str(value).strip().casefold() not in _NO_ERROR


_SIGNS: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    **dict.fromkeys(_FALSE_MEANS_FAILED, lambda value, _: value is False),
    **dict.fromkeys(_TRUE_MEANS_FAILED, lambda value, _: value is True),
    **dict.fromkeys(_OUTCOME_KEYS, _status_failed),
    **dict.fromkeys(_HTTP_KEYS, _http_failed),
    **dict.fromkeys(_ERROR_KEYS, _names_error),
    "status": lambda value, fields: _status_failed(value, fields) or _http_failed(value, fields),
}
"""By key: whether its value, among all fields of the object, says that the call failed."""
