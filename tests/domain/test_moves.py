from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.evidence.segments import segments_of
from qa_worker.domain.evidence.timing import measure
from qa_worker.domain.interruption import Cut
from qa_worker.domain.markers import AfterWords, Keys, Silence, Speech, parse_line
from qa_worker.domain.moves import (
    REACTION_S,
    WORDS_PER_MINUTE,
    Move,
    Span,
    agent_span,
    caller_turn,
    interrupted,
    live_pause_s,
    live_wait_s,
    moves,
    script,
    speech_s,
)
from qa_worker.domain.transcript import Role, Transcript, Turn


def of(line: str) -> tuple[Move, ...]:
    return moves(parse_line(line))


def says(text: str, *, wait_s: float = 0.0) -> Move:
    return Move(wait_s=wait_s, did=(Speech(text),))


def test_a_plain_line_is_one_move() -> None:
    assert of("Hello there.") == (says("Hello there."),)


def test_silence_before_speech_is_waited_for() -> None:
    assert of("[silence - 15 seconds] Hello?") == (says("Hello?", wait_s=15),)


def test_silence_after_speech_gives_the_agent_the_floor_first() -> None:
    assert of("One moment. [silence - 15 seconds] Here it is.") == (
        says("One moment."),
        says("Here it is.", wait_s=15),
    )


def test_silence_at_the_end_is_a_move_of_its_own() -> None:
    assert of("One moment. [silence - 15 seconds]") == (says("One moment."), Move(wait_s=15))


def test_a_short_silence_is_a_hesitation_and_told_where_it_is() -> None:
    (move,) = of("My number is [silence - 2 s] five [silence - 1 s] oh.")

    assert (move.text, move.hesitation_s) == ("My number is five oh.", 3)
    assert move.heard == "My number is five oh."
    assert move.told == (
        "My number is [the caller was silent for 2 seconds] five [the caller was silent for 1 seconds] oh."
    )


def test_silences_in_a_row_count_as_one() -> None:
    assert of("Wait. [silence - 2 s] [silence - 2 s] Here.") == (says("Wait."), says("Here.", wait_s=4))


@pytest.mark.parametrize("end", ["", " [hangs up]"])
def test_a_short_silence_at_the_end_is_time_too(end: str) -> None:
    (move,) = of(f"Yes. [silence - 2 s]{end}")

    assert (move.text, move.hesitation_s, move.hangs_up) == ("Yes.", 2, bool(end))
    assert move.told == "Yes. [the caller was silent for 2 seconds]"
    turn = caller_turn(move, after_s=10.0)
    assert turn.end_s == pytest.approx(10.0 + REACTION_S + speech_s("Yes.") + 2.0)


def test_a_line_that_is_silent_is_silent() -> None:
    assert of("[silence - 2 s]") == (Move(wait_s=2),)


def test_hanging_up_belongs_to_the_last_move_and_the_interruption_to_the_first() -> None:
    assert of("[interrupts after 3 words] Stop. [silence - 9 s] [hangs up]") == (
        Move(interruption=AfterWords(3), did=(Speech("Stop."),)),
        Move(wait_s=9, hangs_up=True),
    )


def test_noise_goes_on_through_the_line() -> None:
    first, second = of("[noise: traffic] Hello. [silence - 5 s] [noise: a horn] Hello?")

    assert (first.noises, second.noises) == (("traffic",), ("traffic", "a horn"))


def test_an_agent_that_reads_is_told_what_it_would_hear() -> None:
    (move,) = of("[noise: traffic] [silence - 15 seconds] My code: [dtmf 12#]")

    assert move.told == (
        "[the caller was silent for 15 seconds] [heard in the background: traffic] My code: [pressed 1 2 #]"
    )
    assert move.heard == "My code: [pressed 1 2 #]"


def test_keys_stand_where_they_are_pressed() -> None:
    (move,) = of("It is [dtmf 1] [silence - 2 s] [dtmf 2] I think. [dtmf #]")

    assert move.heard == "It is [pressed 1 2] I think. [pressed #]"
    assert move.told == "It is [pressed 1] [the caller was silent for 2 seconds] [pressed 2] I think. [pressed #]"


def test_a_silent_move_says_so_in_the_transcript() -> None:
    assert Move(wait_s=15).heard == "[silent for 15 seconds]"
    assert Move(wait_s=15).told == "[the caller was silent for 15 seconds]"


@given(
    st.lists(st.sampled_from(["Yes.", "[silence - 2 s]", "[silence - 9 s]", "[dtmf 1]", "[noise: a dog]"]), min_size=1)
)
def test_no_second_of_silence_is_lost(parts: list[str]) -> None:
    line = parse_line(" ".join(parts))

    silent_s = sum(part.seconds for part in line.parts if isinstance(part, Silence))
    assert sum(move.wait_s + move.hesitation_s for move in moves(line)) == silent_s


def test_speech_takes_as_long_as_people_take() -> None:
    assert speech_s(" ".join(["word"] * int(WORDS_PER_MINUTE))) == 60.0
    assert speech_s("") == 0.0


def test_the_clock_goes_on_by_what_is_waited_said_and_typed() -> None:
    said = caller_turn(says("one two three four five"), after_s=10.0)
    typed = caller_turn(Move(wait_s=5, did=(Keys("12"), Silence(1), Keys("34#"))), after_s=10.0)

    assert (said.role, said.start_s, said.end_s) == (Role.CALLER, 10.0 + REACTION_S, 12.2)
    assert (typed.start_s, typed.end_s) == (15.0, 17.0)


def test_a_caller_who_interrupts_needs_no_time_to_react() -> None:
    assert caller_turn(says("Stop!"), after_s=4.0, reaction_s=0.0).start_s == 4.0


def test_an_interrupted_turn_ends_shortly_after_the_caller_begins() -> None:
    agent = agent_span("one two three four five six seven eight", after_s=1.0, latency_s=0.8)

    assert agent == Span(1.8, 5.0)
    assert interrupted(agent, Cut("one two three four", "five six seven eight")) == (Span(1.8, 3.9), 3.4)
    assert interrupted(agent, Cut("one two three four five six seven", "eight")) == (Span(1.8, 5.0), 4.6)


def test_silence_overlap_and_response_times_show_in_the_timing_metrics() -> None:
    greeting = agent_span("hello this is the booking line how can I help", after_s=0.0, latency_s=1.0)
    cut_span, begins = interrupted(greeting, Cut("hello this is the booking", "line how can I help"))
    barge_in = caller_turn(says("A table please"), after_s=begins, reaction_s=0.0)
    answer = agent_span("for how many people", after_s=barge_in.end_s or 0.0, latency_s=1.5)
    silent = caller_turn(Move(wait_s=15), after_s=answer.end_s)
    again = agent_span("are you there", after_s=silent.end_s or 0.0, latency_s=1.5)
    turns = (
        Turn(Role.AGENT, "hello this is the booking", cut_span.start_s, cut_span.end_s),
        barge_in,
        Turn(Role.AGENT, "for how many people", answer.start_s, answer.end_s),
        silent,
        Turn(Role.AGENT, "are you there", again.start_s, again.end_s),
    )

    segments = segments_of(Transcript(turns))
    assert segments is not None
    timing = measure(segments, dead_air_s=4.0)
    assert timing.caller_interruptions == 1
    assert timing.overlap_s == pytest.approx(0.5)
    assert timing.longest_silence_s == timing.dead_air_s == pytest.approx(15.0)
    assert timing.response_latency is not None
    assert timing.response_latency.max_s == pytest.approx(1.5)
    assert timing.response_rate == 1.0


def test_towards_a_live_agent_silence_is_capped() -> None:
    assert (live_wait_s(Move(wait_s=12)), live_wait_s(Move(wait_s=120))) == (12, 30)
    assert live_pause_s(Move(wait_s=120, did=(Speech("Well"), Silence(2)))) == 30


def test_towards_a_live_agent_a_hesitation_is_waited_for_too() -> None:
    (move,) = of("[silence - 4 s] My number is [silence - 2 s] five. [silence - 1 s]")

    assert (live_wait_s(move), live_pause_s(move)) == (4, 7)


def test_a_script_is_all_moves_in_order() -> None:
    lines = [parse_line("Hello."), parse_line("Wait. [silence - 5 s] Yes.")]

    assert [move.text for move in script(lines)] == ["Hello.", "Wait.", "Yes."]
