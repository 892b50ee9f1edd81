"""Whether the simulated caller played its part, so that a run can be held against the agent at all.

A false alarm here hides a failure of the agent, so each check asks for more than a sign, and fixed lines of the
scenario are never at fault. What is looked at is said with the result; what isn't, nobody should believe checked:
whether the caller pursued the goal, kept the persona's mood, or told the truth about times, amounts and whatever else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from qa_worker.domain import caller_facts, expectations
from qa_worker.domain.caller_facts import Before
from qa_worker.domain.evidence import dialogue
from qa_worker.domain.evidence.endings import offers_more
from qa_worker.domain.evidence.excerpts import cut, sentences
from qa_worker.domain.evidence.outcomes import tried
from qa_worker.domain.evidence.speech import Said, speech_of
from qa_worker.domain.evidence.spoken import english
from qa_worker.domain.expectations import Breach, goal_reached
from qa_worker.domain.folding import words
from qa_worker.domain.markers import parse_freely
from qa_worker.domain.moves import script
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Play, Scenario, known_to_caller
from qa_worker.domain.spoken_codes import Known, codes_in
from qa_worker.domain.transcript import Role, Transcript


class CallerFault(StrEnum):
    """What a simulated caller can do wrong."""

    LEFT_BRIEF = "left_brief"
    """Spoke as the agent, or as the program that plays the caller, or wrote what can't be spoken."""
    INVENTED_FACT = "invented_fact"
    """Gave a number, code, name or date that is neither in the brief nor was said by the agent."""
    ENDED_TOO_EARLY = "ended_too_early"
    """Hung up before the agent could act: with the first line, or with a question of the agent's open."""
    LOOPED = "looped"
    """Said the same three times without being asked to, or could not stop saying goodbye."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, at the caller's turn that shows it."""

    fault: CallerFault
    detail: str
    turn: int
    quote: str


@dataclass(frozen=True, slots=True)
class CallerValidity:
    """The faults found, and the checks that had something to look at. No fault under no check proves nothing."""

    faults: tuple[Fault, ...]
    looked_at: frozenset[CallerFault]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The faults in words, for a run's message. They hold no number or code that was said."""
        return tuple(f"{found.fault.value} (turn {found.turn}): {found.detail}" for found in self.faults)


_IS_A_PROGRAM = re.compile(
    r"\b(as an ai|im (just )?an ai|i am an ai|(im|i am|as) a (large )?language model|(im|i am) (just )?(simulating|role ?playing)"
    r"|(my|the) (persona|scenario|simulation) (is|says|ends|requires)|(im|i am) playing the (role|part) of"
    r"|as the (simulated )?(caller|user) in this"
    r"|(ich bin|als) (nur )?(ein |eine |das |die )?(ki|ki modell|sprachmodell|künstliche intelligenz|simulation)"
    r"|ich (spiele|simuliere) (hier )?(nur )?(die rolle|einen anrufer|den anrufer)"
    r"|(je suis|en tant qu|en tant que) ?(une |un |qu)?(ia|modèle de langage|intelligence artificielle)"
    r"|je (joue le rôle|simule)"
    r"|(soy|como) (una |un )?(ia|modelo de lenguaje|inteligencia artificial)|(hago|interpreto) el papel"
    r"|(sono|in quanto) (una? ?)?(unia|ia|modello linguistico|intelligenza artificiale|unintelligenza artificiale)"
    r"|(sou|como) (uma |um )?(ia|modelo de linguagem|inteligência artificial)"
    r"|(ik ben|als) (een )?(taalmodel|ai model|kunstmatige intelligentie))\b"
)
# Only people who answer a service line say these; "how can I help" alone is said by callers too.
_IS_THE_AGENT = re.compile(
    r"\b(thank you for (calling|your call)|how (can|may) i (help|assist) you( today)?"
    r"|is there anything else i can (help|assist|do)|(anything else|what else) i can (help|assist) you with"
    r"|let me (check|pull up|look up) your (account|booking|record|file|reservation)"
    r"|ive (booked|scheduled|cancelled|rescheduled) (your|the) (appointment|booking|table|visit) for you"
    r"|wie kann ich ihnen (heute )?(weiter)?helfen|was kann ich für sie tun|(vielen )?dank für ihren anruf"
    r"|comment puis je vous aider|merci de votre appel|en qué puedo (ayudarle|ayudarte|servirle)|gracias por (llamar|su llamada)"
    r"|come posso aiutarla|hoe kan ik u helpen)\b"
)
# What programs that play callers write when they mean to stop (`###STOP###` is tau2's), or describe instead of saying it.
_CANT_BE_SPOKEN = re.compile(
    r"#{2,} *[A-Z][A-Z _-]* *#{2,}|</?[a-z_]+>|\bEND OF (?:CONVERSATION|CALL|SCENARIO|SIMULATION)\b"
    r"|\b(?i:scenario|simulation|role ?play) (?i:is |has )?(?i:complete|completed|over|ended|finished)\b"
    r"|[*(_](?i:the caller |caller )?(?i:\w+ly )?(?i:looks?|sighs?|pauses?|pausing|hangs? up|waits?|laughs?|smiles?|nods?"
    r"|hesitates?|clears? (?:his|her|their|my) throat|coughs?|grumbles?|whispers?|shouts?|mutters?|frowns?|shrugs?"
    r"|long pause|short pause|silence)\b[^*()_]*[*)_]"
)
_REFUSAL = re.compile(r"\b(no|nope|not|nothing|dont|wont|cant|isnt|never|stop|forget it|leave it|enough)\b")
_COMPLAINT = re.compile(
    r"\b(ridiculous|useless|hopeless|unbelievable|unacceptable|terrible|awful|worst|pointless|rude|joke|waste|wasting"
    r"|frustrat\w*|annoy\w*|angry|upset|disappoint\w*|fed up|sick of|had it|give up|giving up|too (long|slow|complicated|much)"
    r"|already|again|keep asking|listen\w*|elsewhere|someone else|somebody else|somewhere else|another (place|company|restaurant)"
    r"|call (back|later)|complain\w*|manager|human|person|lawyer|seriously|wrong number|wont work|doesnt work)\b"
)
# Why a caller may leave an open question: there is nothing to be had, it seems done, or only more help is offered.
_BAD_NEWS = re.compile(
    r"\b(sorry|unfortunately|afraid|apologi[sz]e|cant|cannot|couldnt|unable|unavailable|not (available|possible|able|allowed)"
    r"|fully booked|closed|no (tables?|slots?|appointments?|rooms?|way)|dont|doesnt|isnt|only|instead|refused?|denied|failed"
    r"|error|problem)\b"
)
_SEEMS_DONE = re.compile(
    r"\b(booked|reserved|scheduled|rescheduled|confirmed|cancelled|canceled|moved|changed|updated|completed|processed"
    r"|refunded|registered|ordered|placed|sent|transferred|transferring|connecting|all set|done)\b"
)
_GOODBYE = re.compile(r"\b(bye|goodbye|take care|have a (good|great|nice|lovely)|thanks?( you)?|see you|cheers)\b")
_LEAVES = re.compile(
    r"\b(wrong number|misdial\w*|hangs? up|hung up|hanging up|leaves?|impatient|gives? up|loses patience)\b"
)
_LONGEST_GOODBYE = 12
_GOODBYES = 3


def check(scenario: Scenario, transcript: Transcript, completion: Completion) -> CallerValidity:
    """The caller's faults in a finished conversation.

    Turns whose words are a fixed line of the scenario are taken as they are; a caller that says nothing else is not
    looked at.
    """
    speech = speech_of(transcript)
    fixed = {words(move.heard) for move in script(parse_freely(line)[0] for line in scenario.lines)}
    own = [said for said in speech if said.role is Role.CALLER and said.words not in fixed]
    looked_at = {CallerFault.LEFT_BRIEF, CallerFault.INVENTED_FACT, CallerFault.LOOPED} if own else set()
    if completion is Completion.CALLER_HUNG_UP and _hung_up_itself(own, speech, scenario):
        looked_at.add(CallerFault.ENDED_TOO_EARLY)
    found = (
        *_left_brief(own, scenario),
        *_invented(own, speech, scenario),
        *(_ended_early(speech, scenario, transcript) if CallerFault.ENDED_TOO_EARLY in looked_at else ()),
        *_looped(own, speech),
    )
    return CallerValidity(tuple(sorted(found, key=lambda fault: fault.turn)), frozenset(looked_at))


def _hung_up_itself(own: Sequence[Said], speech: Sequence[Said], scenario: Scenario) -> bool:
    """Whether it was no fixed line that ended the call, in a language that can be read here."""
    if not speech or not english(said.text for said in speech):
        return False
    if speech[-1].role is Role.CALLER:
        return bool(own) and speech[-1] is own[-1]
    # It left without a word. Where only fixed lines are played, the call ends so after the last of them.
    moves = [*script(parse_freely(line)[0] for line in scenario.lines)]
    if any(move.hangs_up and not move.heard for move in moves):
        return False
    said = {one.words for one in speech if one.role is Role.CALLER}
    unsaid = any(words(move.heard) not in said for move in moves if move.heard)
    return bool(own) or (scenario.play is Play.FREE and (unsaid or not moves))


def _left_brief(own: Iterable[Said], scenario: Scenario) -> Iterator[Fault]:
    brief = words(" ".join(known_to_caller(scenario)))
    for said in own:
        if _CANT_BE_SPOKEN.search(said.text):
            yield _fault(CallerFault.LEFT_BRIEF, "the caller writes what can't be spoken, or ends the scenario", said)
            continue
        for pattern, detail in (
            (_IS_A_PROGRAM, "the caller speaks of itself as a program or of its part as a part"),
            (_IS_THE_AGENT, "the caller speaks as the agent does"),
        ):
            found = pattern.search(said.words)
            if found and found.group() not in brief:
                yield _fault(CallerFault.LEFT_BRIEF, detail, said)
                break


def _invented(own: Iterable[Said], speech: Sequence[Said], scenario: Scenario) -> Iterator[Fault]:
    brief = (*known_to_caller(scenario), *scenario.facts)
    agent = [(said.turn, said.text) for said in speech if said.role is Role.AGENT]
    seen: set[str] = set()
    for said in own:
        before = [text for turn, text in agent if turn < said.turn]
        for detail in caller_facts.invented(said.text, Before(before[-1] if before else "", before), scenario):
            if detail not in seen:
                seen.add(detail)
                yield _fault(CallerFault.INVENTED_FACT, detail, said)
        known = Known((*brief, *before))
        for code in codes_in(said.text):
            if code not in seen and code not in known:
                seen.add(code)
                detail = f"the caller gives a code of {len(code)} characters that is not in the brief"
                yield _fault(CallerFault.INVENTED_FACT, detail, said)


def _ended_early(speech: Sequence[Said], scenario: Scenario, transcript: Transcript) -> Iterator[Fault]:
    """The known fault of simulators: "yes, please" or "thank you", and the line is dead before the agent has done it.

    Who refuses, complains, or has heard that there is nothing to be had leaves for a reason, and so does whoever is asked
    the same again: these calls are the agent's.
    """
    callers = [said for said in speech if said.role is Role.CALLER]
    final = callers[-1].words if callers else ""
    if _LEAVES.search(words(f"{scenario.persona} {scenario.goal}")) or _COMPLAINT.search(final):
        return
    last = speech[-1]
    if not [said for said in callers if said is not last]:
        if not _has_all(scenario, transcript):
            detail = "the caller hangs up with its first words, before anything could come of the call"
            yield _fault(CallerFault.ENDED_TOO_EARLY, detail, last)
        return
    asked = speech[-2] if last.role is Role.CALLER else last
    missing = _missing(scenario, transcript)
    if missing and _asks(asked) and not _REFUSAL.search(final) and not _asked_again(speech, transcript):
        detail = f"the caller leaves a question open and hangs up before {missing}"
        yield _fault(CallerFault.ENDED_TOO_EARLY, detail, last)


def _asked_again(speech: Sequence[Said], transcript: Transcript) -> bool:
    prompts = dialogue.repeated_prompts(speech, tried(transcript.tool_uses()))
    return any(True for _ in prompts) or any(True for _ in dialogue.loops(speech))


def _has_all(scenario: Scenario, transcript: Transcript) -> bool:
    """Whether the agent's greeting was all that the caller needed."""
    told = scenario.expected.told
    untold = any(miss.breach is Breach.NOT_TOLD for miss in expectations.check(transcript, scenario.expected))
    return goal_reached(transcript, scenario.ends) or (bool(told) and not untold)


def _missing(scenario: Scenario, transcript: Transcript) -> str:
    """What was to come of the call and has not; empty where nothing can be told."""
    wanted = {*scenario.ends.tools, *scenario.expected.call.required_tools}
    done = {use.call.name for use in tried(transcript.tool_uses()) if use.succeeded}
    if wanted:
        return f"{', '.join(sorted(wanted - done))} could be done" if wanted - done else ""
    reached = not scenario.ends.said or goal_reached(transcript, scenario.ends)
    return "" if reached else "it was told what it called for"


def _asks(said: Said) -> bool:
    """Whether the agent wants to know something in order to go on."""
    if said.role is not Role.AGENT or _BAD_NEWS.search(said.words) or _SEEMS_DONE.search(said.words):
        return False
    questions = [words(sentence) for sentence in sentences(said.text) if "?" in sentence]
    return bool(questions) and not offers_more(questions[-1])


def _looped(own: Sequence[Said], speech: Sequence[Said]) -> Iterator[Fault]:
    numbers = {said.turn for said in own}
    # The agent's own loop, or its asking again, is what makes callers repeat themselves.
    if not any(dialogue.loops(speech)):
        swapped = (replace(said, role=_other(said.role)) for said in speech)
        for fact in dialogue.loops(swapped):
            if fact.turn in numbers:
                detail = (
                    "the caller says nearly the same thing three times, or goes in a circle, without being asked to"
                )
                yield Fault(CallerFault.LOOPED, detail, fact.turn or 0, fact.quote)
    last = own[-_GOODBYES:]
    final = [said for said in speech if said.role is Role.CALLER][-_GOODBYES:]
    if len(last) == _GOODBYES and last == final and all(map(_is_goodbye, last)):
        yield _fault(CallerFault.LOOPED, "the caller says goodbye three times in a row and stays on the line", last[-1])


def _is_goodbye(said: Said) -> bool:
    return "?" not in said.text and len(said.words.split()) <= _LONGEST_GOODBYE and bool(_GOODBYE.search(said.words))


def _other(role: Role) -> Role:
    return {Role.CALLER: Role.AGENT, Role.AGENT: Role.CALLER}.get(role, role)


def _fault(fault: CallerFault, detail: str, said: Said) -> Fault:
    return Fault(fault, detail, said.turn, cut(said.text))
