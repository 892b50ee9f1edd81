"""Hand-made calls whose figures were computed by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.evidence import timing
from qa_worker.domain.evidence.facts import Check, Latency
from qa_worker.domain.evidence.segments import Kind, Segment, segments_of
from qa_worker.domain.evidence.timing import measure, percentile
from qa_worker.domain.rubric import Checks
from qa_worker.domain.transcript import Role, Transcript, Turn
from tests.domain.evidence.talk import agent, caller, calls, returns, talk


def says(speaker: Role, start_s: float, end_s: float, kind: Kind = Kind.SPEECH, words: int = 0) -> Segment:
    return Segment(speaker, start_s, end_s, kind, words)


A, C = Role.AGENT, Role.CALLER

CALL = (
    says(A, 0.0, 3.0, words=8),  # the greeting answers nobody
    says(C, 3.5, 6.0, words=5),
    says(A, 7.5, 10.0, words=6),  # 1.5 s later
    says(C, 9.0, 11.0, words=4),  # interrupts; the agent stops after 1.0 s
    says(A, 10.8, 14.0, words=8),  # interrupts, 0.2 s before the caller's end
    says(C, 15.0, 16.0, words=2),  # gets no answer
    says(C, 21.0, 22.0, words=2),  # 5.0 s later asks again
    says(A, 24.5, 25.5, words=2),  # 2.5 s later
    says(C, 26.0, 26.5, words=1),  # the last word
)


def test_the_figures_of_a_call() -> None:
    figures = measure(CALL, dead_air_s=4.0)
    assert figures.response_latency == Latency(n=2, mean_s=2.0, p50_s=2.0, p95_s=2.45, max_s=2.5)
    assert figures.response_rate == pytest.approx(2 / 3)
    assert figures.caller_turns == 3
    assert figures.agent_interruptions == 1
    assert (figures.caller_interruptions, figures.yield_mean_s, figures.yield_rate) == (1, 1.0, 1.0)
    assert figures.overlap_s == pytest.approx(1.2)
    assert figures.talk_share == pytest.approx(9.7 / 16.7)
    assert (figures.dead_air_s, figures.longest_silence_s) == (5.0, 5.0)
    assert figures.agent_words_per_minute == pytest.approx(24 * 60 / 9.7)
    assert figures.caller_words_per_minute == pytest.approx(14 * 60 / 7.0)
    assert figures.duration_s == 26.5


def test_the_order_of_segments_does_not_matter() -> None:
    assert measure(CALL[::-1], dead_air_s=4.0) == measure(CALL, dead_air_s=4.0)


def test_a_call_in_which_only_the_greeting_is_heard_has_no_latency_and_no_rates() -> None:
    figures = measure([says(A, 1.0, 3.0)], dead_air_s=4.0)
    assert figures.response_latency is None
    assert (figures.response_rate, figures.yield_rate, figures.yield_mean_s) == (None, None, None)
    assert (figures.talk_share, figures.duration_s, figures.longest_silence_s) == (1.0, 2.0, 0.0)


def test_nothing_at_all_gives_nothing() -> None:
    figures = measure([], dead_air_s=4.0)
    assert (figures.talk_share, figures.agent_words_per_minute, figures.duration_s) == (None, None, 0.0)


def test_an_answer_at_the_very_end_of_the_turn_has_latency_zero_and_is_no_interruption() -> None:
    for start in (2.0, 1.95):
        figures = measure([says(C, 0.0, 2.0), says(A, start, 4.0)], dead_air_s=4.0)
        assert figures.response_latency == Latency(1, 0.0, 0.0, 0.0, 0.0)
        assert figures.agent_interruptions == 0


def test_starting_both_at_once_counts_both_ways() -> None:
    figures = measure([says(A, 1.0, 3.0), says(C, 1.0, 4.0), says(A, 5.0, 6.0)], dead_air_s=4.0)
    assert (figures.agent_interruptions, figures.caller_interruptions) == (1, 1)


def test_backchannels_and_asides_are_no_interruption_and_only_backchannels_want_no_answer() -> None:
    talks = says(A, 0.0, 10.0)
    for kind, turns in ((Kind.BACKCHANNEL, 0), (Kind.ASIDE, 1)):
        figures = measure([talks, says(C, 9.0, 10.5, kind), says(A, 12.0, 13.0)], dead_air_s=4.0)
        assert figures.caller_interruptions == 0
        assert figures.caller_turns == turns


def test_an_agent_that_talks_on_yields_late() -> None:
    figures = measure([says(A, 0.0, 10.0), says(C, 5.0, 6.0), says(C, 8.0, 9.0)], dead_air_s=4.0)
    assert figures.yield_mean_s == 3.5
    assert figures.yield_rate == 0.5  # exactly 2.0 s is in time
    assert figures.caller_turns == 0


def test_a_silence_of_exactly_the_threshold_is_no_dead_air() -> None:
    exactly = [says(A, 0.0, 12.3), says(C, 16.3, 17.0)]
    assert measure(exactly, dead_air_s=4.0).dead_air_s == 0.0
    assert measure(exactly, dead_air_s=3.9).dead_air_s == 4.0


def test_percentiles_interpolate_between_closest_ranks() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.95) == pytest.approx(3.85)
    assert percentile([7.0], 0.95) == 7.0


SPANS = st.tuples(st.integers(0, 300), st.integers(1, 100)).map(lambda s: (s[0] / 10, (s[0] + s[1]) / 10))
SEGMENTS = st.lists(
    st.tuples(st.sampled_from((A, C)), SPANS, st.sampled_from(Kind), st.integers(0, 30)).map(
        lambda drawn: says(drawn[0], *drawn[1], drawn[2], drawn[3])
    ),
    max_size=25,
)


@given(SEGMENTS)
def test_figures_keep_within_their_bounds(segments: list[Segment]) -> None:
    figures = measure(segments, dead_air_s=1.0)
    for share in (figures.talk_share, figures.response_rate, figures.yield_rate):
        assert share is None or 0.0 <= share <= 1.0
    assert 0.0 <= figures.longest_silence_s <= figures.duration_s
    assert 0.0 <= figures.dead_air_s <= figures.duration_s + 1e-6
    assert 0.0 <= figures.overlap_s <= figures.duration_s + 1e-6
    if figures.response_latency:
        latency = figures.response_latency
        assert 0.0 <= latency.p50_s <= latency.p95_s + 1e-9 <= latency.max_s + 2e-9
        assert 0 < latency.n <= figures.caller_turns


@given(SEGMENTS, st.integers(0, 10_000))
def test_figures_do_not_depend_on_when_the_call_begins(segments: list[Segment], shift_s: int) -> None:
    moved = [Segment(s.speaker, s.start_s + shift_s, s.end_s + shift_s, s.kind, s.word_count) for s in segments]
    here, there = measure(segments, dead_air_s=1.0), measure(moved, dead_air_s=1.0)
    assert there.duration_s == pytest.approx(here.duration_s)
    assert there.dead_air_s == pytest.approx(here.dead_air_s)
    assert (there.talk_share is None) == (here.talk_share is None)


# ------------------------------------------------------------ from transcripts


def spoken(transcript: Transcript) -> list[tuple[Role, float, float, Kind, int, int]]:
    segments = segments_of(transcript)
    assert segments is not None
    return [(s.speaker, s.start_s, s.end_s, s.kind, s.word_count, s.turn) for s in segments]


def test_turns_become_segments_and_tools_do_not_speak() -> None:
    transcript = talk(agent("Hi there.", 0.0, 1.0), calls("find"), returns("ok"), caller("Hello!", 2.0, 2.5))
    assert spoken(transcript) == [(A, 0.0, 1.0, Kind.SPEECH, 2, 0), (C, 2.0, 2.5, Kind.SPEECH, 1, 3)]


def test_pieces_of_one_sides_speech_are_one_segment_up_to_a_second_apart() -> None:
    transcript = talk(caller("My code", 0.0, 1.0), caller("is five.", 1.9, 2.5), caller("Hello?", 3.5, 4.0))
    assert spoken(transcript) == [(C, 0.0, 2.5, Kind.SPEECH, 4, 0), (C, 3.5, 4.0, Kind.SPEECH, 1, 2)]


def test_a_word_of_assent_is_a_backchannel_only_while_the_agent_goes_on() -> None:
    def kinds(start_s: float, end_s: float, text: str = "Mm-hmm.") -> list[Kind]:
        transcript = talk(agent("A long story.", 0.0, 5.0), caller(text, start_s, end_s))
        return [segment.kind for segment in segments_of(transcript) or () if segment.speaker is C]

    assert kinds(2.0, 2.5) == [Kind.BACKCHANNEL]
    assert kinds(2.0, 2.5, "Stop it.") == [Kind.SPEECH]
    assert kinds(4.8, 5.4, "Yes.") == [Kind.SPEECH]
    assert kinds(6.0, 6.5) == [Kind.SPEECH]


@pytest.mark.parametrize(
    "transcript",
    [
        talk(),
        talk(caller("Hi.")),
        talk(caller("Hi.", 0.0, 1.0), agent("Hello.")),
        talk(caller("Hi.", 0.0, 1.0), Turn(Role.AGENT, "Hello.", start_s=2.0)),
        talk(caller("Hi.", 3.0, 1.0)),
        talk(caller("Hi.", 0.0, 0.0), agent("Hello.", 0.0, 0.0)),
    ],
    ids=["empty", "untimed", "partly timed", "no end", "end before start", "all at once"],
)
def test_without_usable_times_of_all_speech_nothing_is_measured(transcript: Transcript) -> None:
    assert segments_of(transcript) is None


# ------------------------------------------------------------------------ facts


def test_slow_answers_dead_air_and_interruptions_are_facts_at_the_agents_turn() -> None:
    transcript = talk(
        agent("Hello.", 0.0, 1.0),
        caller("Hi, my order?", 9.0, 10.0),  # the caller's own silence is no fact
        agent("It comes on Monday.", 13.6, 15.0),  # 3.6 s: slow
        caller("On which Monday exactly do you mean?", 16.0, 19.0),
        agent("The next.", 18.0, 20.0),  # interrupts
        caller("Good.", 20.5, 21.0),
        agent("Sorry, here I am.", 25.5, 26.0),  # 4.5 s: slow, and dead air
    )
    segments = segments_of(transcript)
    assert segments is not None
    found = [(f.check, f.turn, f.quote) for f in timing.facts(transcript, segments, Checks())]
    assert found == [
        (Check.SLOW_RESPONSE, 2, "It comes on Monday."),
        (Check.SLOW_RESPONSE, 6, "Sorry, here I am."),
        (Check.DEAD_AIR, 6, "Sorry, here I am."),
        (Check.AGENT_INTERRUPTS, 4, "The next."),
    ]


def test_thresholds_come_from_the_rubric() -> None:
    transcript = talk(caller("Hi.", 0.0, 1.0), agent("Hello.", 3.0, 4.0))
    segments = segments_of(transcript)
    assert segments is not None
    strict = Checks(slow_response_s=1.9, dead_air_s=1.9)
    assert not list(timing.facts(transcript, segments, Checks(slow_response_s=2.0, dead_air_s=2.0)))
    assert {f.check for f in timing.facts(transcript, segments, strict)} == {Check.SLOW_RESPONSE, Check.DEAD_AIR}


def test_what_stands_in_brackets_was_said_by_nobody() -> None:
    segments = segments_of(
        talk(
            agent("one two three [cut off by the caller]", 0.0, 1.0),
            caller("[silent for 15 seconds]", 16.0, 16.0),
            agent("four five", 17.0, 18.0),
        )
    )

    assert segments is not None
    assert [segment.word_count for segment in segments] == [3, 0, 2]
