from __future__ import annotations

from collections.abc import Iterable

import pytest

from qa_worker.domain.evidence import dialogue
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.outcomes import tried
from qa_worker.domain.evidence.speech import speech_of
from qa_worker.domain.transcript import Turn
from tests.domain.evidence.talk import agent, caller, calls, returns, talk

ASK = "What is your six-digit order number?"
BAD = returns("Error: not found")


def loops(*turns: Turn) -> list[Fact]:
    return list(dialogue.loops(speech_of(talk(*turns))))


def prompts(*turns: Turn) -> list[Fact]:
    transcript = talk(*turns)
    return list(dialogue.repeated_prompts(speech_of(transcript), tried(transcript.tool_uses())))


def numbers(facts: Iterable[Fact]) -> list[int | None]:
    return [fact.turn for fact in facts]


# ---------------------------------------------------------------------- loops


def test_saying_the_same_three_times_is_a_loop_reported_once() -> None:
    line = "I can only help with orders and returns today."
    (fact,) = loops(*(turn for _ in range(5) for turn in (agent(line), caller("But my flight"))))
    assert (fact.check, fact.turn, fact.quote) == (Check.AGENT_LOOP, 4, line)


def test_twice_is_no_loop() -> None:
    line = "I can only help with orders and returns today."
    assert not loops(agent(line), caller("What?"), agent(line))


def test_nearly_the_same_words_count_and_other_figures_do_not() -> None:
    nearly = ["I can only help you with orders and returns.", "So I can only help you with orders and returns."]
    options = [f"There is a flight at {hour} with two seats left" for hour in ("nine", "ten", "eleven")]
    assert loops(*map(agent, [nearly[0], nearly[1], nearly[0]]))
    assert not loops(*map(agent, options))


def test_short_turns_are_no_loop() -> None:
    assert not loops(*(agent("One moment, please.") for _ in range(6)))


def test_what_the_caller_wants_to_hear_again_is_no_loop() -> None:
    line = "Your order arrives on Monday before noon."
    again = (caller("Sorry, could you repeat that?"), agent(line))
    assert not loops(agent(line), *again, *again, *again)


def test_going_round_in_a_cycle_is_a_loop() -> None:
    first, second = "Please hold while I look for that.", "I could not find your order, shall I look again?"
    (fact,) = loops(agent(first), agent(second), caller("Yes."), agent(first), agent(second))
    assert fact.turn == 4


def test_repetitions_far_apart_are_no_loop() -> None:
    line = "I can only help with orders and returns today."
    between = [agent(f"Now we talk about a wholly other matter {name} here") for name in "bcdefghjklmnpq"]
    assert not loops(agent(line), *between, agent(line), *between, agent(line))


# ---------------------------------------------------------- repeated prompts


def test_asking_again_for_what_was_given_is_a_fact() -> None:
    (fact,) = prompts(agent(f"Hello. {ASK}"), caller("It is 123456."), agent(f"Thanks. {ASK} I need it."))
    assert (fact.check, fact.turn, fact.quote) == (Check.REPEATED_PROMPT, 2, ASK)


@pytest.mark.parametrize(
    "between",
    [
        (),
        (caller("It is 123456."), calls("find", number="123456"), BAD),
        (caller("Sorry, can you say that again?"),),
    ],
    ids=["no answer yet", "lookup failed", "caller wants to hear it again"],
)
def test_asking_again_for_a_reason_is_no_fact(between: tuple[Turn, ...]) -> None:
    assert not prompts(agent(ASK), *between, agent(ASK))


def test_asking_for_something_else_or_for_more_is_no_fact() -> None:
    assert not prompts(agent("What is your first name?"), caller("Jo."), agent("What is your last name?"))
    more = "Can I help you with anything else on your account?"
    assert not prompts(agent(more), caller("Yes, a refund."), agent(more))


def test_a_caller_who_says_the_same_again_is_a_fact() -> None:
    line = "I want to cancel my order from Monday"
    (fact,) = prompts(caller(line), agent("Which colour?"), caller(f"{line}!"))
    assert (fact.turn, fact.quote) == (2, f"{line}!")


def test_short_answers_and_other_figures_may_come_again() -> None:
    assert not prompts(caller("Yes, please."), agent("Sure?"), caller("Yes, please."))
    assert not prompts(caller("My order number is 1 2 3."), agent("And?"), caller("My order number is 4 5 6."))


def test_saying_it_again_after_a_failed_lookup_is_no_fact() -> None:
    line = "My order number is 1 2 3."
    assert not prompts(caller(line), calls("find"), BAD, agent("Please say it again."), caller(line))


@pytest.mark.parametrize(
    "complaint", ["I already told you.", "I’ve already given you that!", "I just said it.", "As I said, it's blue."]
)
def test_a_caller_who_complains_of_saying_it_again_is_a_fact(complaint: str) -> None:
    (fact,) = prompts(caller("It's blue."), agent("Which colour?"), caller(f"Listen. {complaint} Come on."))
    assert (fact.turn, fact.quote) == (2, complaint)


def test_the_first_turn_of_a_caller_complains_of_nobody_here() -> None:
    assert not prompts(agent("Hello."), caller("I already told your colleague about this."))
