"""What comes next in a run follows from its rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.evaluation import Usage
from qa_worker.domain.evidence.segments import segments_of
from qa_worker.domain.evidence.timing import measure
from qa_worker.domain.playback import (
    AskAgent,
    AskCaller,
    Greet,
    Line,
    MakeMove,
    Over,
    PlayedTurn,
    greeted,
    history_of_agent,
    lost,
    merged,
    moved,
    next_step,
    now_s,
    playable,
    played_from_json,
    played_to_json,
    replied,
    transcript_of,
    unheard_of,
)
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Ends, Limits, Play, Scenario
from qa_worker.domain.transcript import Role, ToolCall, Turn

LIMITS = Limits(max_turns=3)


def a_scenario(*lines: str, play: Play = Play.SCRIPT, ends: Ends | None = None) -> Scenario:
    return Scenario("s", "S", "booking", play, steps=lines, ends=ends or Ends())


def said(
    rows: Sequence[PlayedTurn], text: str, *, number: int = 0, move: int = 0, done: bool = False
) -> list[PlayedTurn]:
    line = Line(text, number, done)
    return merged(rows, moved(rows, line, move, live=False, usage=Usage(), cost_micro_usd=0))


def answered(
    rows: Sequence[PlayedTurn], *texts: str, ends: bool = False, transferred: bool = False
) -> list[PlayedTurn]:
    turns = [Turn(Role.AGENT, text) for text in texts]
    last = PlayedTurn(Turn(Role.AGENT, ""), ends=ends, transferred=transferred)
    return merged(rows, replied(rows, turns, latency_s=0.5, last=last))


def step(rows: Sequence[PlayedTurn], scenario: Scenario | None = None, *, greeting: str = "Hello.") -> object:
    return next_step(rows, scenario or a_scenario(), greeting=greeting, limits=LIMITS)


def test_the_agent_greets_where_it_has_a_greeting() -> None:
    assert step([]) == Greet("Hello.")
    assert step([], greeting="") == AskCaller(0)


def test_the_two_sides_take_turns() -> None:
    rows = merged([], greeted("Hello."))
    assert step(rows) == AskCaller(0)
    rows = said(rows, "I need a table.")
    assert step(rows) == AskAgent((rows[0].turn,), "I need a table.")
    assert step(answered(rows, "Yes.")) == AskCaller(1)


def test_a_line_of_several_moves_gives_the_agent_the_floor_between_them() -> None:
    text = "Hello. [silence - 10 seconds] Anyone?"
    rows = answered(said([], text), "Yes?")

    assert step(rows) == MakeMove(Line(text, 0), 1)
    again = said(rows, text, move=1)
    assert isinstance(step(again), AskAgent)
    assert step(answered(again, "I'm here.")) == AskCaller(1)


@pytest.mark.parametrize(
    ("rows", "completion"),
    [
        (answered(said([], "Hi."), "Bye.", ends=True), Completion.AGENT_ENDED),
        (answered(said([], "Hi."), "One moment.", transferred=True), Completion.TRANSFERRED),
        (said([], "Bye. [hangs up]"), Completion.CALLER_HUNG_UP),
        (answered(said([], "Hi.", done=True), "Yes."), Completion.SCRIPT_ENDED),
        (said(answered(said([], "Hi."), "Yes."), "[silence - 10 minutes] [silence - 10 minutes]"), Completion.TIMEOUT),
    ],
)
def test_a_conversation_ends(rows: list[PlayedTurn], completion: Completion) -> None:
    assert step(rows) == Over(completion)


def test_the_cap_counts_how_often_the_caller_had_the_floor() -> None:
    rows: list[PlayedTurn] = []
    for number in range(3):
        assert step(rows, greeting="") == AskCaller(number)
        rows = answered(said(rows, f"Line {number}.", number=number), "Yes.")
    assert step(rows) == Over(Completion.MAX_TURNS)


def test_a_last_line_that_was_answered_is_no_cap() -> None:
    rows: list[PlayedTurn] = []
    for number in range(3):
        rows = answered(said(rows, f"Line {number}.", number=number, done=number == 2), "Yes.")
    assert step(rows) == Over(Completion.SCRIPT_ENDED)


def test_the_goal_ends_what_is_played_freely_but_no_fixed_lines() -> None:
    free = a_scenario("Fixed.", play=Play.FREE, ends=Ends(said=("booked",)))
    assert step(answered(said([], "Mine."), "It is booked."), free) == Over(Completion.GOAL_REACHED)
    assert step(answered(said([], "Fixed."), "It is booked."), free) == AskCaller(1)


def test_a_free_scenario_that_is_played_by_its_lines_ends_with_the_last_of_them() -> None:
    free = a_scenario("Fixed.", play=Play.FREE)

    assert step(answered(said([], "Fixed.", done=True), "Yes."), free) == Over(Completion.SCRIPT_ENDED)
    assert step(answered(said([], "Mine.", done=True), "Yes."), free) == Over(Completion.CALLER_HUNG_UP)


def test_an_agent_that_says_nothing_had_its_floor() -> None:
    rows = answered(said([], "Hello?"))

    assert step(rows) == AskCaller(1)
    assert len(transcript_of(rows)) == 1


def test_a_noise_is_told_to_the_agent_and_stands_in_no_transcript() -> None:
    rows = said([], "[noise: traffic]")

    assert step(rows) == AskAgent((), "[heard in the background: traffic]")
    assert len(transcript_of(rows)) == 0
    assert history_of_agent(rows)[0].text == "[heard in the background: traffic]"


def test_an_interruption_cuts_the_words_before_it_and_numbers_the_rest_as_the_transcript_does() -> None:
    rows = answered(said([], "[noise: traffic]"), "One two three four five.")
    cut = said(rows, "[interrupts after 2 words] Stop.", number=1)

    assert [row.turn.text for row in cut] == ["", "One two [cut off by the caller]", "Stop."]
    assert unheard_of(cut) == {0: "three four five."}
    assert now_s(cut) < now_s(rows)


def test_a_tool_call_has_no_times_and_the_words_after_it_have() -> None:
    rows = said([], "Book it.")
    turns = [
        Turn(Role.AGENT, "", tool_calls=(ToolCall("book", {}),)),
        Turn(Role.TOOL, "{}"),
        Turn(Role.AGENT, "Done."),
    ]
    after = merged(rows, replied(rows, turns, latency_s=2.0, last=PlayedTurn(Turn(Role.AGENT, ""), ends=True)))

    assert [row.turn.timed for row in after] == [True, False, False, True]
    assert after[-1].turn.start_s == pytest.approx(now_s(rows) + 2.0)
    assert [row.ends for row in after] == [False, False, False, True]


@pytest.mark.parametrize(
    ("text", "is_playable"), [("Hi.", True), ("[hangs up]", True), ("[blows up]", False), ("", False)]
)
def test_a_line_in_which_nothing_happens_is_not_played(text: str, *, is_playable: bool) -> None:
    assert playable(Line(text, 0)) is is_playable


@given(
    st.builds(
        PlayedTurn,
        turn=st.builds(Turn, role=st.sampled_from(Role), text=st.text(), start_s=st.none() | st.floats(0, 9)),
        told=st.text(),
        unheard=st.text(),
        line=st.none() | st.builds(Line, text=st.text(), number=st.integers(0, 9), done=st.booleans()),
        move=st.integers(0, 9),
        ends=st.booleans(),
        transferred=st.booleans(),
        lost=st.booleans(),
        faults=st.lists(st.text()).map(tuple),
    )
)
def test_a_stored_turn_is_the_same_turn(row: PlayedTurn) -> None:
    assert played_from_json(played_to_json(row)) == row


def test_what_a_caller_wrote_and_nobody_could_play_is_kept_with_the_turn_once() -> None:
    text = "Well [sighs], (long pause) wait. [silence - 5 seconds] Goodbye! [hang up]"
    first = said([], text)
    second = said(answered(first, "Yes?"), text, move=1)

    assert first[-1].turn.text == "Well wait."
    assert first[-1].faults == ("[sighs] is not a marker", "(long pause) looks like a marker")
    assert (second[-1].turn.text, second[-1].faults) == ("Goodbye!", ())


WITH_TOOL = (
    Turn(Role.AGENT, "One moment, please.", tool_calls=(ToolCall("book", {}, "a"),)),
    Turn(Role.TOOL, "{}", tool_call_id="a"),
    Turn(Role.AGENT, "It is booked."),
)


def test_words_after_a_slow_tool_come_when_it_was_there_and_the_gap_is_dead_air() -> None:
    rows = said([], "Book it.")
    floor_s = now_s(rows)
    after = merged(
        rows, replied(rows, WITH_TOOL, latency_s=1.0, ready_s=(1.0, 9.0, 9.5), last=PlayedTurn(Turn(Role.AGENT, "")))
    )

    assert [row.turn.start_s for row in after[1:]] == [floor_s + 1.0, None, floor_s + 9.5]
    segments = segments_of(transcript_of(after))
    assert segments is not None
    assert measure(segments, dead_air_s=4.0).dead_air_s == pytest.approx(7.3)


def test_a_quick_tool_is_over_before_the_words_are_said() -> None:
    rows = said([], "Book it.")
    after = merged(
        rows, replied(rows, WITH_TOOL, latency_s=1.0, ready_s=(1.0, 1.2, 1.4), last=PlayedTurn(Turn(Role.AGENT, "")))
    )

    assert after[3].turn.start_s == after[1].turn.end_s


@pytest.mark.parametrize("ready_s", [(), (0.5, 30.9)])
def test_a_reply_of_tools_alone_takes_its_time(ready_s: tuple[float, ...]) -> None:
    rows = said([], "Book it.")
    turns = (replace(WITH_TOOL[0], text=""), WITH_TOOL[1])
    after = merged(rows, replied(rows, turns, latency_s=30.9, ready_s=ready_s, last=PlayedTurn(Turn(Role.AGENT, ""))))

    assert now_s(after) == pytest.approx(now_s(rows) + 30.9)
    assert [row.turn.timed for row in after] == [True, False, True]


def test_a_tool_that_goes_on_after_the_last_word_takes_its_time_too() -> None:
    rows = said([], "Book it.")
    after = merged(
        rows, replied(rows, WITH_TOOL[:2], latency_s=1.0, ready_s=(1.0, 9.0), last=PlayedTurn(Turn(Role.AGENT, "")))
    )

    assert now_s(after) == pytest.approx(now_s(rows) + 9.0)


def with_a_tool(rows: Sequence[PlayedTurn]) -> list[PlayedTurn]:
    """The agent says something, looks it up, and says what it found."""
    turns = (
        Turn(Role.AGENT, "Please hold the line while I look that up.", tool_calls=(ToolCall("find", {}, "a"),)),
        Turn(Role.TOOL, "{}", tool_call_id="a"),
        Turn(Role.AGENT, "Your total is forty pounds."),
    )
    last = PlayedTurn(Turn(Role.AGENT, ""))
    return merged(rows, replied(rows, turns, latency_s=1.0, ready_s=(1.0, 20.0, 21.0), last=last))


def test_words_before_a_tool_call_can_be_interrupted_and_what_came_later_was_never_heard() -> None:
    rows = with_a_tool(said([], "How much is it?"))
    cut = said(rows, '[interrupts after "hold the line"] Wait!', number=1)

    assert [turn.text for turn in transcript_of(cut)] == [
        "How much is it?",
        "Please hold the line [cut off by the caller]",
        "{}",
        "Wait!",
    ]
    assert [call.name for call in transcript_of(cut).turns[1].tool_calls] == ["find"]
    assert unheard_of(cut) == {1: "while I look that up. Your total is forty pounds."}
    assert cut[-1].turn.start_s == pytest.approx((rows[1].turn.start_s or 0.0) + 4 * 0.4)
    assert now_s(cut) == (cut[1].turn.end_s or 0.0) < (rows[3].turn.start_s or 0.0)


@pytest.mark.parametrize(
    ("at", "heard"),
    [
        ("after 11 words", ["Please hold the line while I look that up.", "Your total [cut off by the caller]"]),
        ('after "your total"', ["Please hold the line while I look that up.", "Your total [cut off by the caller]"]),
        ("after 9 words", ["Please hold the line while I look that up. [cut off by the caller]"]),
    ],
)
def test_words_count_from_the_first_one_that_the_agent_says_in_its_turn(at: str, heard: list[str]) -> None:
    cut = said(with_a_tool(said([], "How much is it?")), f"[interrupts {at}] Wait!", number=1)

    assert [turn.text for _, turn in transcript_of(cut).spoken() if turn.role is Role.AGENT] == heard


def test_an_interruption_after_the_last_word_cuts_nothing() -> None:
    rows = with_a_tool(said([], "How much is it?"))

    assert said(rows, "[interrupts after 14 words] Wait!", number=1)[:-1] == rows


@pytest.mark.parametrize(
    ("at", "why"),
    [
        ("after 14 words", "nobody was interrupted: the agent's turn was over before 14 words and more"),
        ('after "refund"', 'nobody was interrupted: the agent did not say "refund" with more to come'),
    ],
)
def test_an_interruption_that_did_not_happen_is_a_fault_of_the_test(at: str, why: str) -> None:
    rows = with_a_tool(said([], "How much is it?"))

    assert said(rows, f"[interrupts {at}] Wait!", number=1)[-1].faults == (why,)
    assert said(rows, "[interrupts after 2 words] Wait!", number=1)[-1].faults == ()


def test_a_reply_that_failed_stands_in_the_books_and_in_no_conversation() -> None:
    rows = said(answered(said([], "A table."), "Yes?"), "For two.", number=1)
    billed = merged(rows, lost(rows, usage=Usage(output_tokens=7), cost_micro_usd=9))

    assert step(billed) == step(rows)
    assert (transcript_of(billed), now_s(billed)) == (transcript_of(rows), now_s(rows))
    assert [row.cost_micro_usd for row in billed] == [0, 0, 0, 9]
    again = answered(billed, "At nine.")
    assert step(again) == AskCaller(2)
    cut = said(again, "[interrupts after 1 word] No.", number=2)
    assert unheard_of(cut) == {3: "nine."}
