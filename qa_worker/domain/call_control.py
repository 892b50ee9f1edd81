"""Tools by which an agent ends a call or hands it over, told by their names: voice platforms have them under these."""

from __future__ import annotations

import re
from collections.abc import Iterable

from qa_worker.domain.transcript import ToolUse

_ENDS = re.compile(r"(end|terminate)_?call|hang_?up", re.IGNORECASE)
_TRANSFERS = re.compile(r"(warm_?|cold_?|live_?)?transfer(_\w+|call)?", re.IGNORECASE)


def controls(tool: str) -> bool:
    """Whether a tool of this name ends a call or hands it over."""
    return bool(_ENDS.fullmatch(tool) or _TRANSFERS.fullmatch(tool))


def ends_call(uses: Iterable[ToolUse]) -> bool:
    """Whether one of these calls ended the conversation, and did not fail."""
    return any(_ENDS.fullmatch(use.call.name) and _worked(use) for use in uses)


def transfers(uses: Iterable[ToolUse]) -> bool:
    """Whether one of these calls handed the caller over to somebody else, and did not fail."""
    return any(_TRANSFERS.fullmatch(use.call.name) and _worked(use) for use in uses)


def _worked(use: ToolUse) -> bool:
    return use.result is not None and use.result.is_error is not True
