from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.markers import (
    AfterPhrase,
    AfterWords,
    CallerLine,
    Keys,
    Noise,
    Silence,
    Speech,
    parse_freely,
    parse_line,
)


def refused(line: str) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_line(line)
    return caught.value


def test_a_line_without_markers_is_what_is_said() -> None:
    assert parse_line("  Hello,   is anybody\nthere? ") == CallerLine(parts=(Speech("Hello, is anybody there?"),))


@pytest.mark.parametrize(
    ("marker", "seconds"),
    [
        ("[silence - 15 seconds]", 15),
        ("[silence - 1 second]", 1),
        ("[silence - 2.5 s]", 2.5),
        ("[silence 15 sec]", 15),
        ("[silence: 15s]", 15),
        ("[Silence – 2 minutes]", 120),
        ("[silence - 1 minute]", 60),
        ("[silence - 1.5 min]", 90),
        ("[  silence   -   3   secs  ]", 3),
        ("[silence - 10 minutes]", 600),
    ],
)
def test_silence_has_a_number_and_a_unit(marker: str, seconds: float) -> None:
    assert parse_line(marker).parts == (Silence(seconds),)


def test_several_silences_and_words_keep_their_order() -> None:
    line = parse_line("Wait. [silence - 2 s] I have it. [silence - 1 minute] Here.")

    assert line.parts == (Speech("Wait."), Silence(2), Speech("I have it."), Silence(60), Speech("Here."))
    assert line.text == "Wait. I have it. Here."


@pytest.mark.parametrize(
    ("marker", "interruption"),
    [
        ("[interrupts after 8 words]", AfterWords(8)),
        ("[interrupts after 1 word]", AfterWords(1)),
        ('[interrupts after "your total is"]', AfterPhrase("your total is")),
        ("[interrupts after “your total is”]", AfterPhrase("your total is")),
        ("[Interrupts  after 'that's it']", AfterPhrase("that's it")),
    ],
)
def test_an_interruption_names_its_place(marker: str, interruption: AfterWords | AfterPhrase) -> None:
    assert parse_line(f"{marker} No, wait!") == CallerLine(interruption, (Speech("No, wait!"),))


def test_keys_noise_and_hanging_up() -> None:
    line = parse_line("[noise: traffic] My number is [dtmf 12 34#]. [dtmf: *a] Bye. [hangs up]")

    assert line.parts == (Noise("traffic"), Speech("My number is"), Keys("1234#"), Keys("*A"), Speech("Bye."))
    assert line.hangs_up


def test_noise_may_stand_before_an_interruption() -> None:
    line = parse_line("[noise: a horn] [interrupts after 3 words] Careful!")

    assert line == CallerLine(AfterWords(3), (Noise("a horn"), Speech("Careful!")))


def test_an_interruption_may_be_a_mere_hanging_up() -> None:
    assert parse_line("[interrupts after 5 words] [hangs up]") == CallerLine(AfterWords(5), (), hangs_up=True)


WRONG = [
    ("[silence]", "doesn't say how long"),
    ("[silence - a while]", "doesn't say how long"),
    ("[silence - 15]", "has no unit"),
    ("[silence - 15 hours]", "has the unit 'hours'"),
    ("[silence - 0 seconds]", "is out of range"),
    ("[silence - 11 minutes]", "is out of range"),
    ("[silence - -3 seconds]", "doesn't say how long"),
    ("[silence - 1,5 seconds]", "doesn't say how long"),
    ("[interrupts]", "doesn't say after what"),
    ("[interrupts after words]", "doesn't say after what"),
    ('[interrupts after ""]', "doesn't say after what"),
    ('[interrupts after "..."]', "doesn't say after what"),
    ("[interrupts after 0 words]", "is out of range"),
    ("[interrupts after 99999999999 words]", "is out of range"),
    ("[hangs]", "is not a marker"),
    ("[dtmf]", "doesn't name 1 to 32 keys"),
    ("[dtmf 12x4]", "doesn't name 1 to 32 keys"),
    (f"[dtmf {'1' * 33}]", "doesn't name 1 to 32 keys"),
    ("[noise]", "doesn't say which noise"),
    ("[noise: ]", "doesn't say which noise"),
    ("[silence for a while]", "doesn't say how long"),
    ("[sighs]", "is not a marker"),
    ("[]", "is not a marker"),
    ("[silence - 3 s", "has only one of its two brackets"),
    ("silence - 3 s]", "has only one of its two brackets"),
    ("{pause}", "looks like a marker"),
    ("(long pause)", "looks like a marker"),
    ("*a long silence*", "looks like a marker"),
    ("{interrupting}", "looks like a marker"),
    ("*sighs*", "looks like a marker"),
    ("(she coughs)", "looks like a marker"),
    ("<looking for her papers>", "looks like a marker"),
    ("【sighs】", "has other brackets"),
    ("「pauses」", "looks like a marker"),
]
NEAR = [
    ("[hangup]", CallerLine(hangs_up=True)),
    ("[hang up]", CallerLine(hangs_up=True)),
    ("[Hangs up.]", CallerLine(hangs_up=True)),
    ("[end call]", CallerLine(hangs_up=True)),
    ("[ends the call]", CallerLine(hangs_up=True)),
    ("[disconnects]", CallerLine(hangs_up=True)),
    ("(the caller hangs up)", CallerLine(hangs_up=True)),
    ("*hangs up*", CallerLine(hangs_up=True)),
    ("_hangs up_", CallerLine(hangs_up=True)),
    ("— hangs up —", CallerLine(hangs_up=True)),
    ("［hangs up］", CallerLine(hangs_up=True)),
    ("「hangs up」", CallerLine(hangs_up=True)),
    ("The caller hangs up.", CallerLine(hangs_up=True)),
    ("[hangs up", CallerLine(hangs_up=True)),
    ("[silence - 5 seconds.]", CallerLine(parts=(Silence(5),))),
    ("【silence - 5 seconds】", CallerLine(parts=(Silence(5),))),
    ("(silence - 3 s)", CallerLine(parts=(Silence(3),))),
    ("(15 seconds of silence)", CallerLine(parts=(Silence(15),))),
    ("<silence 5s>", CallerLine(parts=(Silence(5),))),
    ("silence - 15 seconds", CallerLine(parts=(Silence(15),))),
    ("[pause 3 s]", CallerLine(parts=(Silence(3),))),
    ("[the caller was silent for 4 seconds]", CallerLine(parts=(Silence(4),))),
    ("[press 1]", CallerLine(parts=(Keys("1"),))),
    ("dtmf 12#", CallerLine(parts=(Keys("12#"),))),
    ("[background noise: a tram]", CallerLine(parts=(Noise("a tram"),))),
]


@pytest.mark.parametrize(("marker", "meant"), NEAR)
def test_what_is_nearly_a_marker_is_played_as_one_and_refused_in_a_file(marker: str, meant: CallerLine) -> None:
    line, faults = parse_freely(f"Right. {marker}")

    assert line == CallerLine(parts=(Speech("Right."), *meant.parts), hangs_up=meant.hangs_up)
    assert [(fault.marker, fault.understood) for fault in faults] == [(marker, True)]
    assert refused(marker).fix


@pytest.mark.parametrize(
    "marker", ["[interrupt after 3 words]", "(interrupts after 3 words)", "interrupts after 3 words"]
)
def test_an_interruption_may_be_written_otherwise_too(marker: str) -> None:
    assert parse_freely(f"{marker} No!")[0] == CallerLine(AfterWords(3), (Speech("No!"),))


@pytest.mark.parametrize(
    "said",
    [
        *(
            "She always hangs up on me.",
            "There was silence for 5 seconds.",
            "I'm *really* in a hurry.",
            "It is 5 * 3 * 2.",
        ),
        *(
            "I've been *waiting* for an hour.",
            "For two (or three), please.",
            "My mail is jo_hangs_up@mail.com",
            "a < b > c",
        ),
        *(
            "Er sagte 「はい」.",
            "I need a table – for two – on Friday.",
            "The noise was terrible (my neighbour again).",
        ),
    ],
)
def test_what_only_resembles_a_marker_is_spoken(said: str) -> None:
    assert parse_line(said) == CallerLine(parts=(Speech(said),))


def test_stars_around_a_marker_are_no_speech() -> None:
    assert parse_line("Bye. **[hangs up]**") == CallerLine(parts=(Speech("Bye."),), hangs_up=True)


@pytest.mark.parametrize(("marker", "problem"), WRONG)
def test_a_marker_that_is_wrong_is_named_with_its_fix(marker: str, problem: str) -> None:
    error = refused(f"Hello. {marker} Are you there?")

    # A bracket that never closes may have been meant to enclose all that follows.
    assert error.problem.startswith(marker)
    assert problem in error.problem
    assert error.fix


@pytest.mark.parametrize(("marker", "_"), WRONG)
def test_a_marker_that_is_wrong_is_never_spoken_in_free_play(marker: str, _: str) -> None:
    line, faults = parse_freely(f"Hello. {marker} Are you there?")

    assert len(faults) == 1
    assert line.text in {"Hello. Are you there?", "Hello."}


@pytest.mark.parametrize("marker", ["[pause 3 s]", "[silent]", "[interrupt after 3 words]", "[hangup]", "[press 1]"])
def test_a_near_miss_gets_the_form_that_was_meant(marker: str) -> None:
    assert refused(marker).fix.startswith("Write [")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("Well. [interrupts after 3 words] No!", "[interrupts after 3 words] doesn't begin the line"),
        ("[silence - 3 s] [interrupts after 3 words] No!", "doesn't begin the line"),
        ("[interrupts after 3 words] [interrupts after 4 words] No!", "[interrupts after 4 words] doesn't begin"),
        ("[interrupts after 3 words]", "interrupts without saying anything"),
        ("[interrupts after 3 words] [noise: a dog]", "interrupts without saying anything"),
        ("[interrupts after 3 words] [silence - 5 s] No!", "interrupts without saying anything"),
        ("Bye. [hangs up] One more thing.", "One more thing. stands after [hangs up]"),
        ("Bye. [hangs up] [silence - 3 s]", "[silence - 3 s] stands after [hangs up]"),
        ("", "the line says and does nothing"),
        (" ... ", "the line says and does nothing"),
    ],
)
def test_a_marker_in_the_wrong_place_is_refused(line: str, problem: str) -> None:
    assert problem in refused(line).problem


def test_free_play_keeps_what_can_be_understood() -> None:
    line, faults = parse_freely("[interrupts after 3 words] No. [sighs] Really, [pause] no. [hangs up] Or wait.")

    assert line == CallerLine(AfterWords(3), (Speech("No."), Speech("Really,"), Speech("no.")), hangs_up=True)
    assert [fault.marker for fault in faults] == ["[sighs]", "[pause]", "Or wait."]


def test_in_free_play_a_line_of_nothing_but_faults_is_empty() -> None:
    line, faults = parse_freely("[sighs]")

    assert (line, len(faults)) == (CallerLine(), 1)


def test_punctuation_that_a_marker_leaves_behind_is_not_spoken() -> None:
    assert parse_line("Yes [silence - 2 s], I am here [silence - 2 s].").text == "Yes I am here"


@given(st.text(alphabet="[](){}［】*silencehangs updtmfnoise:-0123456789 \"'.\n", max_size=60))
def test_whatever_a_model_writes_no_bracket_is_spoken(text: str) -> None:
    line, _ = parse_freely(text)

    assert not set("[]［】") & set(line.text)


@given(st.text(max_size=60))
def test_every_text_is_read_or_refused_and_never_breaks(text: str) -> None:
    line, faults = parse_freely(text)

    if faults:
        assert all(fault.problem and fault.fix for fault in faults)
        assert refused(text).fix
    else:
        assert parse_line(text) == line
