from __future__ import annotations

import pytest

from qa_worker.domain.call import Agent, Call, Expected
from qa_worker.domain.drafting import draft
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.markers import parse_line
from qa_worker.domain.scenario import Play
from qa_worker.domain.transcript import Turn
from tests.domain.evidence.talk import agent, caller, calls, returns, talk


def a_call(*turns: Turn, ref: str = "Call 47/11", expected: Expected | None = None) -> Call:
    return Call(ref, Agent("booking"), talk(*turns), expected=expected or Expected(outcome="A table is booked."))


def test_the_callers_lines_become_the_script_and_what_was_expected_stays() -> None:
    expected = Expected(outcome="A table is booked.", required_tools=("book",))
    drafted = draft(
        a_call(
            agent("Hello."),
            caller("A table, please."),
            agent("When?"),
            caller("Now."),
            agent("Fine."),
            expected=expected,
        )
    )

    assert (drafted.id, drafted.title, drafted.agent) == ("from-call-47-11", "A table is booked.", "booking")
    assert (drafted.play, drafted.lines) == (Play.SCRIPT, ("A table, please.", "Now."))
    assert (drafted.expected.call, drafted.tags) == (expected, ("from-call",))


def test_silence_and_interruption_become_markers() -> None:
    drafted = draft(
        a_call(
            agent("one two three four five six seven eight", 0.0, 4.0),
            caller("Stop!", 2.0, 2.5),
            agent("Yes?", 4.5, 5.0),
            caller("Let me look.", 5.3, 6.3),
            caller("Here it is.", 14.0, 15.0),
            agent("Good.", 15.5, 16.0),
            caller("Thanks.", 28.0, 29.0),
        )
    )

    assert drafted.lines == (
        "[interrupts after 4 words] Stop!",
        "Let me look. [silence - 8 seconds] Here it is.",
        "[silence - 12 seconds] Thanks. [hangs up]",
    )


def test_only_codes_that_the_caller_gave_become_facts() -> None:
    drafted = draft(
        a_call(
            caller("My number is two oh five one, eight eight oh six."),
            calls("verify", customer_number="20518806"),
            returns({"account_id": "ACC-77812"}),
            calls("load", account_id="ACC-77812", customer_number="20518806"),
            agent("Thank you."),
        )
    )

    assert drafted.facts == {"customer_number": "20518806"}


@pytest.mark.parametrize(
    "text",
    [
        *("I [cough] see", "hello (silence - 3 s) there", "{pause} *hangs up* so", "a < b", "I 【cough】 see"),
        *("Yes. silence - 3 seconds", "So — hangs up — well", "Right. [hangs up]"),
    ],
)
def test_what_looks_like_a_marker_in_what_was_said_is_no_marker(text: str) -> None:
    (line,) = draft(a_call(caller(text), agent("Yes?"))).lines

    assert parse_line(line).text == line


def test_a_call_without_a_word_of_the_caller_can_not_be_drafted() -> None:
    with pytest.raises(InvalidInput, match="hold no word of the caller"):
        draft(a_call(agent("Hello?")))


def test_an_id_can_be_made_of_any_reference() -> None:
    assert draft(a_call(caller("Hi"), ref="äöü")).id == "from-call"
    assert len(draft(a_call(caller("Hi"), ref="x" * 300)).id) <= 80


@pytest.mark.parametrize(
    ("asked", "said", "facts"),
    [
        ("How can I help?", "Hi, my name is Walter Hobbs.", {"name": "Walter Hobbs"}),
        ("How can I help?", "This is Ann O'Neill speaking.", {"name": "Ann O'Neill"}),
        ("How can I help?", "It's booked under Okafor, I think.", {"name": "Okafor"}),
        ("What name is it under? Your full name?", "Mary-Jane Watson.", {"name": "Mary-Jane Watson"}),
        ("Your name, please?", "Sure, why do you ask?", {}),
        ("How can I help?", "This is Ridiculous.", {}),
        ("For when?", "For two on Friday, please.", {"date": "Friday"}),
        ("For when?", "The third of May, or on May 4th.", {"date": "third of May", "date_2": "May 4th"}),
        ("Your date of birth?", "It's March 3rd, 1984.", {"date of birth": "March 3rd, 1984"}),
        ("When were you born?", "The twelfth of June nineteen fifty-two.", {"date of birth": "twelfth of June nineteen fifty-two"}),
        ("For when?", "I may come the second time.", {}),
        ("A phone number?", "Oh one seven two, five five five, oh one six three.", {"phone": "01725550163"}),
        ("Anything else?", "Call me back on 0172 555 0163.", {"phone": "01725550163"}),
        ("Your order number?", "0172 555 0163.", {}),
        ("How can I help?", "My phone line is dead, customer number 20811946.", {}),
        ("Your email?", "It's jo.ray@mail.com.", {"email": "jo.ray@mail.com"}),
        ("Your email?", "It's jo dot ray at mail dot co dot uk, thanks.", {"email": "jo.ray@mail.co.uk"}),
        ("Your email?", "J, O at mail dot com.", {}),
    ],
)  # fmt: skip
def test_what_callers_say_about_themselves_becomes_facts(asked: str, said: str, facts: dict[str, str]) -> None:
    assert draft(a_call(agent(asked), caller(said), agent("Thank you."))).facts == facts


def test_a_fact_that_went_into_a_tool_is_there_once_under_the_tools_name_for_it() -> None:
    drafted = draft(
        a_call(
            agent("Your phone number?"),
            caller("0172 555 0163, and it's for Friday. I said Friday."),
            calls("book", callback_phone="01725550163"),
            returns({"ok": True}),
            agent("Done."),
        )
    )

    assert drafted.facts == {"callback_phone": "01725550163", "date": "Friday"}
