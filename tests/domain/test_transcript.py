from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn, from_json, to_json

IDS = st.sampled_from([None, "a", "b"])
CALLING = st.builds(
    lambda ids: Turn(Role.AGENT, "", tool_calls=tuple(ToolCall("find", {}, id=call_id) for call_id in ids)),
    st.lists(IDS, min_size=1, max_size=3),
)
RESULT = st.builds(lambda call_id: Turn(Role.TOOL, "ok", tool_call_id=call_id), IDS)


def result_turns(*turns: Turn) -> list[int | None]:
    return [use.result_turn for use in Transcript(turns).tool_uses()]


def calling(*ids: str | None) -> Turn:
    return Turn(Role.AGENT, "", tool_calls=tuple(ToolCall("find", {}, id=call_id) for call_id in ids))


def result(call_id: str | None = None) -> Turn:
    return Turn(Role.TOOL, "ok", tool_call_id=call_id)


def test_results_find_their_calls_by_id_in_any_order() -> None:
    assert result_turns(calling("a", "b"), result("b"), result("a")) == [2, 1]


def test_without_ids_the_oldest_call_that_waits_gets_the_result() -> None:
    assert result_turns(calling(None, None), result(), result()) == [1, 2]
    assert result_turns(calling("a", "b"), result("a"), result()) == [1, 2]
    assert result_turns(calling("a", None), result("z")) == [None, 1]


def test_a_result_that_no_call_waits_for_belongs_to_none() -> None:
    assert result_turns(calling("a"), result("z")) == [None]
    assert result_turns(calling("a"), result("a"), result("a")) == [1]
    assert result_turns(result("a"), calling("a")) == [None]


@given(st.lists(CALLING | RESULT, max_size=9))
def test_results_are_matched_as_if_all_waiting_calls_were_searched(turns: list[Turn]) -> None:
    assert result_turns(*turns) == searched(turns)


def searched(turns: list[Turn]) -> list[int | None]:
    """The rule, word by word."""
    ids: list[str | None] = []
    found: list[int | None] = []
    for number, turn in enumerate(turns):
        ids.extend(call.id for call in turn.tool_calls)
        found.extend(None for _ in turn.tool_calls)
        if turn.role is Role.TOOL:
            waiting = [place for place, answer in enumerate(found) if answer is None]
            own = [place for place in waiting if turn.tool_call_id is not None and ids[place] == turn.tool_call_id]
            other = [place for place in waiting if ids[place] is None or turn.tool_call_id is None]
            for place in (own or other)[:1]:
                found[place] = number
    return found


@given(st.lists(CALLING | RESULT, max_size=4))
def test_the_stored_form_gives_the_same_transcript_back(turns: list[Turn]) -> None:
    assert from_json(to_json(Transcript(tuple(turns)))) == Transcript(tuple(turns))
