"""All evidence of one call, in one pass over its checks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from qa_worker.domain.call import Agent, Expected
from qa_worker.domain.evidence import dialogue, endings, identifiers, outcomes, phrases, timing, tools
from qa_worker.domain.evidence.facts import Check, Evidence, Fact
from qa_worker.domain.evidence.outcomes import Tried
from qa_worker.domain.evidence.segments import segments_of
from qa_worker.domain.evidence.speech import speech_of
from qa_worker.domain.evidence.spoken import english
from qa_worker.domain.rubric import Checks
from qa_worker.domain.transcript import Role, Transcript

_TIMED = (Check.SLOW_RESPONSE, Check.DEAD_AIR, Check.AGENT_INTERRUPTS)
_WITH_TOOLS = (Check.REPEATED_TOOL_CALL, Check.MALFORMED_TOOL_CALL)
# These read English words; a call in another language is left to the judge.
_ENGLISH = (
    *(Check.UNSAID_IDENTIFIER, Check.CLAIM_AFTER_FAILED_TOOL),
    *(Check.REPEATED_PROMPT, Check.UNANSWERED_CALLER, Check.ABRUPT_END),
)


def collect(transcript: Transcript, *, agent: Agent, expected: Expected, checks: Checks) -> Evidence:
    """Every fact that the checks find, in the order of their turns, omissions last; and the timing, where turns carry times.

    `applied` names the checks that had something to look at: timing where all speech is timed, tool checks where tools
    were called (failures where results are known, claims where one failed, identifiers where an argument looks like
    one), required and forbidden ones where they are configured and the agent spoke, checks of dialogue where someone
    spoke. Checks that read English are left out of calls in other languages. Takes time in proportion to the text.
    """
    uses = outcomes.tried(transcript.tool_uses())
    speech = speech_of(transcript)
    segments = segments_of(transcript)
    unsaid, looked_up = identifiers.unsaid(transcript, agent)
    found = [
        *unsaid,
        *tools.all_facts(uses, transcript, agent),
        *tools.missing_required(uses, expected),
        *tools.forbidden(uses, expected),
        *phrases.missing(speech, phrases.required(expected, checks)),
        *phrases.said(speech, phrases.forbidden(expected, checks)),
        *dialogue.loops(speech),
        *dialogue.repeated_prompts(speech, uses),
        *endings.unanswered(transcript, speech),
        *endings.abrupt_end(transcript, speech, uses),
        *(timing.facts(transcript, segments, checks) if segments else ()),
    ]
    applied = {
        *_applied_to_tools(uses, expected, looked_up=looked_up),
        *_applied_to_speech({turn.role for turn in speech}, expected, checks),
        *(_TIMED if segments else ()),
    }
    if not english(turn.text for turn in speech):
        applied -= set(_ENGLISH)
    facts = sorted((fact for fact in found if fact.check in applied), key=_place)
    measured = timing.measure(segments, dead_air_s=checks.dead_air_s) if segments else None
    return Evidence(facts=tuple(facts), applied=frozenset(applied), timing=measured)


def _place(fact: Fact) -> tuple[bool, int]:
    return fact.turn is None, fact.turn or 0


def _applied_to_tools(uses: Sequence[Tried], expected: Expected, *, looked_up: bool) -> Iterator[Check]:
    if uses:
        yield from _WITH_TOOLS
    if any(use.result for use in uses):
        yield Check.FAILED_TOOL_CALL
    if any(use.failed for use in uses):
        yield Check.CLAIM_AFTER_FAILED_TOOL
    if looked_up:
        yield Check.UNSAID_IDENTIFIER
    if expected.required_tools:
        yield Check.MISSING_REQUIRED_TOOL
    if expected.forbidden_tools:
        yield Check.FORBIDDEN_TOOL


def _applied_to_speech(speakers: Collection[Role], expected: Expected, checks: Checks) -> Iterator[Check]:
    if Role.AGENT in speakers:
        yield Check.AGENT_LOOP
        if phrases.required(expected, checks):
            yield Check.MISSING_REQUIRED_PHRASE
        if phrases.forbidden(expected, checks):
            yield Check.FORBIDDEN_PHRASE
    if Role.CALLER in speakers:
        yield Check.REPEATED_PROMPT
        yield Check.UNANSWERED_CALLER
    if speakers:
        yield Check.ABRUPT_END
