"""Whether the simulated caller played its part, so that a run can be held against the agent at all.

A false alarm here hides a failure of the agent, so each check asks for more than a sign, and fixed lines of the
scenario are never at fault. What is looked at is said with the result; what isn't, nobody should believe checked:
whether the caller pursued the goal, kept the persona's mood, or told the truth about names, dates, times and amounts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from qa_worker.domain.evidence import dialogue
from qa_worker.domain.evidence.excerpts import cut, sentences
from qa_worker.domain.evidence.outcomes import tried
from qa_worker.domain.evidence.speech import Said, speech_of
from qa_worker.domain.evidence.spoken import english
from qa_worker.domain.folding import words
from qa_worker.domain.markers import parse_freely
from qa_worker.domain.moves import script
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Scenario, known_to_caller
from qa_worker.domain.spoken_codes import Known, codes_in
from qa_worker.domain.transcript import Role, Transcript


class CallerFault(StrEnum):
    """What a simulated caller can do wrong."""

    LEFT_BRIEF = "left_brief"
    """Spoke as the agent, or as the program that plays the caller."""
    INVENTED_FACT = "invented_fact"
    """Gave a number or code that is neither in the brief nor was said by the agent."""
    ENDED_TOO_EARLY = "ended_too_early"
    """Agreed, or answered, and hung up before the agent could act on it."""
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
    r"\b(as an ai|im an ai|i am an ai|(im|i am|as) a (large )?language model|(im|i am) (just )?(simulating|role ?playing)"
    r"|(my|the) (persona|scenario|simulation) (is|says|ends|requires)|(im|i am) playing the (role|part) of"
    r"|as the (simulated )?(caller|user) in this)\b"
)
# Only people who answer a service line say these; "how can I help" alone is said by callers too.
_IS_THE_AGENT = re.compile(
    r"\b(thank you for (calling|your call)|how (can|may) i (help|assist) you( today)?"
    r"|is there anything else i can (help|assist|do)|(anything else|what else) i can (help|assist) you with"
    r"|let me (check|pull up|look up) your (account|booking|record|file|reservation)"
    r"|ive (booked|scheduled|cancelled|rescheduled) (your|the) (appointment|booking|table|visit) for you)\b"
)
_ASSENT = re.compile(
    r"\b(yes|yeah|yep|sure|ok|okay|correct|thats right|thats correct|go ahead|please do|sounds good|that works|perfect)\b"
)
_REFUSAL = re.compile(r"\b(no|nope|not|dont|wont|cant|never|stop|forget it|enough)\b")
_GOODBYE = re.compile(r"\b(bye|goodbye|take care|have a (good|great|nice|lovely)|thanks?( you)?|see you|cheers)\b")
_LEAVES = re.compile(r"\b(hangs? up|hung up|hanging up|leaves?|impatient|gives? up|loses patience)\b")
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
    looked_at = set(_looked_at(speech, own, completion))
    found = (
        *(_left_brief(own, scenario) if CallerFault.LEFT_BRIEF in looked_at else ()),
        *_invented(own, speech, scenario),
        *(_ended_early(own, speech, scenario, transcript) if CallerFault.ENDED_TOO_EARLY in looked_at else ()),
        *_looped(own, speech),
    )
    return CallerValidity(tuple(sorted(found, key=lambda fault: fault.turn)), frozenset(looked_at))


def _looked_at(speech: Sequence[Said], own: Sequence[Said], completion: Completion) -> Iterator[CallerFault]:
    if not own:
        return
    yield from (CallerFault.INVENTED_FACT, CallerFault.LOOPED)
    if english(said.text for said in speech):
        yield CallerFault.LEFT_BRIEF
        if completion is Completion.CALLER_HUNG_UP:
            yield CallerFault.ENDED_TOO_EARLY


def _left_brief(own: Iterable[Said], scenario: Scenario) -> Iterator[Fault]:
    brief = words(" ".join(known_to_caller(scenario)))
    for said in own:
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
        known = Known((*brief, *(text for turn, text in agent if turn < said.turn)))
        for code in codes_in(said.text):
            if code not in seen and code not in known:
                seen.add(code)
                detail = f"the caller gives a code of {len(code)} characters that is not in the brief"
                yield _fault(CallerFault.INVENTED_FACT, detail, said)


def _ended_early(
    own: Sequence[Said], speech: Sequence[Said], scenario: Scenario, transcript: Transcript
) -> Iterator[Fault]:
    """The known fault of simulators: "yes, please", and the line is dead before the agent has done it."""
    last = speech[-1]
    if last is not own[-1] or len(speech) < 2 or _LEAVES.search(words(f"{scenario.persona} {scenario.goal}")):  # noqa: PLR2004 - the agent's turn, the answer
        return
    wanted = {*scenario.ends.tools, *scenario.expected.call.required_tools}
    done = {use.call.name for use in tried(transcript.tool_uses()) if use.succeeded}
    asked = speech[-2].role is Role.AGENT and "?" in [*sentences(speech[-2].text)][-1]
    agrees = _ASSENT.search(last.words) and not _REFUSAL.search(last.words)
    if asked and agrees and wanted - done:
        missing = ", ".join(sorted(wanted - done))
        yield _fault(
            CallerFault.ENDED_TOO_EARLY, f"the caller agrees and hangs up before {missing} could be done", last
        )


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
