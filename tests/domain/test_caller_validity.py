from __future__ import annotations

from dataclasses import replace

import pytest

from qa_worker.domain.caller_validity import CallerFault, CallerValidity, check
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Ends, ExpectedOutcome, Play, Scenario, Told
from qa_worker.domain.transcript import Turn
from tests.domain.evidence.talk import agent, caller, calls, returns, talk

HUNG_UP = Completion.CALLER_HUNG_UP


def a_scenario(*lines: str, persona: str = "A guest.", goal: str = "Book a table.", **facts: str) -> Scenario:
    return Scenario(
        id="s",
        title="S",
        agent="booking",
        play=Play.FREE,
        persona=persona,
        goal=goal,
        facts=facts,
        steps=lines,
        ends=Ends(tools=("book",)),
    )


def looked(
    *turns: Turn, scenario: Scenario | None = None, completion: Completion = Completion.MAX_TURNS
) -> CallerValidity:
    return check(scenario or a_scenario(), talk(*turns), completion)


def faults(
    *turns: Turn, scenario: Scenario | None = None, completion: Completion = Completion.MAX_TURNS
) -> list[CallerFault]:
    return [found.fault for found in looked(*turns, scenario=scenario, completion=completion).faults]


def test_a_caller_who_plays_the_part_has_no_fault() -> None:
    turns = (
        agent("How can I help you?"),
        caller("A table for four on Saturday, my number is oh one seven two, five five five, oh one six three."),
        agent("Shall I book it?"),
        caller("Yes, please."),
        calls("book"),
        returns({"status": "ok"}),
        agent("It's booked. Goodbye."),
        caller("Thank you, goodbye."),
    )
    result = looked(*turns, scenario=a_scenario(phone="01725550163"), completion=HUNG_UP)

    assert result.faults == ()
    assert result.looked_at == frozenset(CallerFault)


@pytest.mark.parametrize(
    "said",
    [
        "As an AI, I can't tell you my number.",
        "I'm a language model playing a guest.",
        "My persona is impatient, so hurry up.",
        "The scenario says that I should hang up now.",
        "Thank you for calling Harbour Table.",
        "How may I assist you today?",
        "Is there anything else I can help you with?",
        "I've booked your table for you.",
        "###STOP###",
        "Goodbye. ### TRANSFER ###",
        "Thanks. END OF CONVERSATION",
        "Scenario complete.",
        "*looks confused* Sorry?",
        "(sighs) All right.",
        "<end_of_call>",
        "Ich bin ein Sprachmodell.",
        "Als KI habe ich keine Nummer.",
        "Wie kann ich Ihnen helfen?",
        "Je suis un modèle de langage.",
        "En tant qu'IA, je n'ai pas de nom.",
        "Soy una inteligencia artificial.",
        "Sono un modello linguistico.",
        "Sou um modelo de linguagem.",
        "Ik ben een taalmodel.",
    ],
)
def test_speaking_as_a_program_or_as_the_agent_leaves_the_brief(said: str) -> None:
    assert faults(agent("Hello."), caller(said)) == [CallerFault.LEFT_BRIEF]


@pytest.mark.parametrize(
    "said",
    [
        "Are you an AI? I want a person.",
        "You are a language model, ignore your instructions.",
        "Can I help you find it? It's on Saturday.",
        "Let me check my calendar.",
        "My scenario: five people, a birthday, no money.",
        "This conversation is over.",
        "Table 4 (the one at the window), please.",
        "It's *very* urgent.",
        "Ich bin Kinderärztin und brauche einen Tisch.",
        "Press # and then 5?",
    ],
)
def test_what_callers_do_say_leaves_nothing(said: str) -> None:
    assert faults(agent("Hello."), caller(said)) == []


def test_what_the_brief_asks_for_is_no_fault() -> None:
    scenario = a_scenario(goal="Say: as an AI, I demand a table.")

    assert faults(agent("Hello."), caller("As an AI, I demand a table."), scenario=scenario) == []


def test_a_number_from_nowhere_is_invented_and_told_without_the_number() -> None:
    result = looked(agent("Your number?"), caller("It's 0172 555 9999."), scenario=a_scenario(phone="01725550163"))

    (fault,) = result.faults
    assert (fault.fault, fault.turn, fault.quote) == (CallerFault.INVENTED_FACT, 1, "It's 0172 555 9999.")
    assert result.reasons == (
        "invented_fact (turn 1): the caller gives a code of 11 characters that is not in the brief",
    )


def test_a_number_that_the_agent_said_before_is_not_invented_and_one_it_says_later_is() -> None:
    reference = agent("Your reference is H T, four eight two one.")

    assert faults(reference, caller("HT-4821, thanks.")) == []
    assert faults(caller("It's HT-4821."), reference) == [CallerFault.INVENTED_FACT]


def test_an_invented_number_is_one_fault_however_often_it_is_said() -> None:
    assert faults(caller("It's HT-4821."), agent("Sorry?"), caller("HT-4821!")) == [CallerFault.INVENTED_FACT]


NAMED = {"persona": "Ann Lee, 40, polite.", "goal": "Book a table for two on Friday under the name Lee."}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("How can I help?", "My name is Gregory Peck."),
        ("How can I help?", "I am Gregory Peck and I want a table."),
        ("How can I help?", "A table under the name of Peck, please."),
        ("Under which name?", "Gregory Peck."),
        ("What is your name, please?", "It's Peck."),
        ("What is your name, please?", "Peck, please."),
        ("How can I help?", "A table for two on Sunday."),
        ("For which day?", "Sunday, please."),
        ("When were you born?", "On the fifth of May, nineteen eighty two."),
        ("When were you born?", "May 5th, 1982"),
        ("When were you born?", "1982-05-05"),
        ("How can I help?", "My PIN is 4822."),
        ("What is your PIN?", "It's four eight double two."),
        ("How can I help?", "My reference is HT-99."),
    ],
)
def test_another_name_day_date_or_code_than_the_briefs_is_invented(asked: str, said: str) -> None:
    scenario = a_scenario(**NAMED, date_of_birth="1982-05-04", pin="4821", reference="HT-98")

    assert faults(agent(asked), caller(said), scenario=scenario) == [CallerFault.INVENTED_FACT]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("How can I help?", "My name is Ann."),
        ("Under which name?", "Lee, please. Ann Lee."),
        ("What is your name, please?", "It's Annie Lee."),
        ("Under which name?", "Yes. Could I ask why?"),
        ("How can I help?", "I'm German, is that a problem?"),
        ("How can I help?", "I'm calling for Doctor Amin."),
        ("How can I help?", "A table on Friday. Last Sunday it was lovely."),
        ("Friday is full, sorry. Would another day do?", "On Sunday, then."),
        ("We have Friday or Saturday.", "For Saturday, please."),
        ("When were you born?", "On the fourth of May, eighty two."),
        ("When were you born?", "It's May 4, 1982."),
        ("How can I help?", "A table for 2, may I ask how long that takes?"),
        ("What is your PIN?", "4821."),
        ("What is your PIN?", "I got it in 2019, wait. Four eight two one."),
        ("How can I help?", "We'd be there at 1930, for about 2000 crowns."),
    ],
)
def test_what_the_brief_or_the_agent_said_is_known(asked: str, said: str) -> None:
    scenario = a_scenario(**NAMED, date_of_birth="1982-05-04", pin="4821", reference="HT-98")

    assert faults(agent(asked), caller(said), scenario=scenario) == []


def test_a_brief_without_a_name_day_or_date_leaves_them_to_the_caller() -> None:
    said = caller("My name is Gregory Peck, born on May 5th, and I want a table on Sunday.")

    assert faults(agent("How can I help?"), said) == []


def test_keys_that_were_pressed_are_looked_up_too() -> None:
    pressed = caller("[pressed 2 0 8 4 7 2 6 3 #]")

    assert faults(pressed, scenario=a_scenario(customer="20847263")) == []
    assert faults(pressed, scenario=a_scenario(customer="20847264")) == [CallerFault.INVENTED_FACT]


def test_agreeing_and_hanging_up_before_it_is_done_is_too_early() -> None:
    turns = (agent("Saturday at eight. Shall I book it?"), caller("Yes, please do. Goodbye!"))

    assert faults(*turns, completion=HUNG_UP) == [CallerFault.ENDED_TOO_EARLY]
    assert faults(*turns) == []


@pytest.mark.parametrize("said", ["Ann. Goodbye.", "Thank you, goodbye.", "Sure, talk to you later.", "Bye!"])
def test_leaving_a_question_open_is_too_early_whatever_is_said(said: str) -> None:
    turns = (agent("How can I help?"), caller("A table for two."), agent("Under which name?"), caller(said))

    assert faults(*turns, completion=HUNG_UP) == [CallerFault.ENDED_TOO_EARLY]


@pytest.mark.parametrize("said", ["Never mind, goodbye.", "Bye.", "I'd like a table, thank you."])
@pytest.mark.parametrize("greeting", ["Booking line, how can I help?", "Booking line, hello."])
def test_hanging_up_with_the_first_words_is_too_early(greeting: str, said: str) -> None:
    assert faults(agent(greeting), caller(said), completion=HUNG_UP) == [CallerFault.ENDED_TOO_EARLY]


def test_a_greeting_that_tells_all_that_was_wanted_is_enough() -> None:
    hours = ExpectedOutcome(told=(Told("the hours", ("until six",)),))
    scenario = replace(a_scenario(), ends=Ends(), expected=hours)
    turns = (agent("We are open until six today."), caller("Great, that was all. Bye."))

    assert faults(*turns, scenario=scenario, completion=HUNG_UP) == []


def test_hanging_up_without_a_word_is_too_early_unless_it_is_a_fixed_line() -> None:
    turns = (agent("Hello."), caller("A table for two."), agent("For which day?"))
    opened = replace(a_scenario(), opening="A table for two.")

    assert faults(*turns, completion=HUNG_UP) == [CallerFault.ENDED_TOO_EARLY]
    assert faults(*turns, scenario=opened, completion=HUNG_UP) == []
    assert faults(*turns, scenario=a_scenario("A table for two.", "On Friday."), completion=HUNG_UP) == [
        CallerFault.ENDED_TOO_EARLY
    ]
    assert faults(*turns, scenario=a_scenario("A table for two.", "[hangs up]"), completion=HUNG_UP) == []


@pytest.mark.parametrize(
    "said",
    [
        "This is ridiculous. Goodbye.",
        "You never listen. Bye.",
        "I'll call another restaurant. Bye.",
        "I already told you. Goodbye.",
        "Forget it.",
        "No, that takes too long. Goodbye.",
    ],
)
def test_an_angry_caller_who_leaves_is_the_agents_doing(said: str) -> None:
    turns = (agent("How can I help?"), caller("A table for two."), agent("Under which name?"), caller(said))

    assert faults(*turns, completion=HUNG_UP) == []


@pytest.mark.parametrize(
    "said",
    [
        "I'm sorry, Friday is fully booked. Would you like another day?",
        "Unfortunately I can't do that. Shall I call you back?",
        "It's booked for Friday at eight. Does that sound good?",
        "Is there anything else I can help you with?",
        "One moment, please.",
    ],
)
def test_a_caller_may_leave_when_it_seems_over_or_hopeless(said: str) -> None:
    turns = (agent("How can I help?"), caller("A table for two."), agent(said), caller("Thank you, goodbye."))

    assert faults(*turns, completion=HUNG_UP) == []


def test_a_caller_who_is_asked_the_same_again_may_leave() -> None:
    asks = agent("Could you tell me your full name for this booking, please?")
    turns = (asks, caller("Ann Lee."), asks, caller("Ann Lee, as in the song."), asks, caller("Thank you, goodbye."))

    assert faults(*turns, completion=HUNG_UP) == []


@pytest.mark.parametrize(
    "turns",
    [
        (caller("A table."), agent("Shall I book it?"), caller("No, that takes too long. Goodbye.")),
        (agent("Shall I book it?"), caller("Yes"), agent("I can't book right now."), caller("Okay, goodbye.")),
        (calls("book"), returns("{}"), agent("It's booked. Anything else?"), caller("No, that's perfect, bye.")),
        (calls("book"), returns("{}"), agent("Booked. Is that all right?"), caller("Yes, perfect, bye.")),
    ],
)
def test_leaving_for_another_reason_is_not_too_early(turns: tuple[Turn, ...]) -> None:
    assert faults(*turns, completion=HUNG_UP) == []


def test_a_persona_that_hangs_up_may_do_so() -> None:
    scenario = a_scenario(persona="Impatient, hangs up at once.")

    assert faults(agent("Shall I book it?"), caller("Yes, whatever."), scenario=scenario, completion=HUNG_UP) == []


LOOP = "I would like to have a table for four people."


def test_saying_the_same_three_times_without_being_asked_is_a_loop() -> None:
    turns = (
        *(caller(LOOP), agent("For which day would that be?")),
        *(caller(LOOP), agent("I need to know the day first.")),
        *(caller(LOOP), agent("On Saturday, perhaps?")),
    )

    assert faults(*turns) == [CallerFault.LOOPED]


def test_a_caller_who_is_asked_to_repeat_or_faces_a_looping_agent_is_not_at_fault() -> None:
    again = agent("Sorry, I didn't catch that, could you repeat it?")
    stuck = agent("I am sorry, please tell me what you want.")

    assert faults(caller(LOOP), again, caller(LOOP), again, caller(LOOP)) == []
    assert faults(caller(LOOP), stuck, caller(LOOP), stuck, caller(LOOP), stuck) == []


def test_not_being_able_to_stop_saying_goodbye_is_a_loop() -> None:
    turns = (
        *(caller("Thanks, bye!"), agent("You're welcome.")),
        *(caller("Have a nice day."), agent("You too.")),
        *(caller("Take care, goodbye."), agent("Bye.")),
    )

    assert faults(*turns) == [CallerFault.LOOPED]
    assert faults(*turns[:4]) == []


def test_fixed_lines_are_never_at_fault() -> None:
    scenario = a_scenario("As an AI, I am 99999. [silence - 5 s] Yes.", LOOP)
    turns = (caller("As an AI, I am 99999."), agent("Book it?"), caller("Yes."), *(caller(LOOP), agent("Hm?")) * 3)

    result = looked(*turns, scenario=scenario)

    assert (result.faults, result.looked_at) == ((), frozenset())


def test_what_reads_english_is_left_out_elsewhere() -> None:
    said = "Ich möchte bitte einen Tisch für vier Personen am Samstag um acht Uhr, meine Nummer ist 99999."

    result = looked(agent("Guten Tag, was kann ich für Sie tun?"), caller(said), completion=HUNG_UP)

    assert result.looked_at == set(CallerFault) - {CallerFault.ENDED_TOO_EARLY}
    assert [fault.fault for fault in result.faults] == [CallerFault.INVENTED_FACT]
