from __future__ import annotations

import pytest

from qa_worker.domain.call_control import ends_call, transfers
from qa_worker.domain.transcript import Role, ToolCall, ToolUse, Transcript, Turn


def _used(name: str, *, is_error: bool | None = None) -> tuple[ToolUse, ...]:
    turns = (Turn(Role.AGENT, "", tool_calls=(ToolCall(name, {}),)), Turn(Role.TOOL, "ok", is_error=is_error))
    return Transcript(turns).tool_uses()


@pytest.mark.parametrize(
    ("name", "ends", "transferred"),
    [
        ("end_call", True, False),
        ("endCall", True, False),
        ("hang_up", True, False),
        ("transfer_to_human", False, True),
        ("transferCall", False, True),
        ("warm_transfer", False, True),
        ("transfer", False, True),
        ("create_booking", False, False),
        ("transferred_calls", False, False),
        ("check_call_end", False, False),
        ("escalate_to_nurse", False, False),
    ],
)
def test_tools_are_known_by_their_names(name: str, ends: bool, transferred: bool) -> None:  # noqa: FBT001 - a table
    assert (ends_call(_used(name)), transfers(_used(name))) == (ends, transferred)


def test_a_transfer_that_failed_hands_nobody_over() -> None:
    assert not transfers(_used("transfer_to_human", is_error=True))
    assert transfers(_used("transfer_to_human", is_error=False))


def test_a_call_without_a_result_ended_nothing() -> None:
    assert not ends_call(Transcript((Turn(Role.AGENT, "", tool_calls=(ToolCall("end_call", {}),)),)).tool_uses())
