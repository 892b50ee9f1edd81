"""What a run of a scenario is checked for beyond every call: arguments of tools, facts told, behaviour when interrupted.

A judge's assessment of a run goes through `filled` (rules only) and `capped`; `findings` are established, and the evidence
is taken as `of_run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from qa_worker.domain.evaluation import Assessment, CriterionLevel, Finding, Source
from qa_worker.domain.evidence.excerpts import cut as excerpt
from qa_worker.domain.evidence.excerpts import of_call
from qa_worker.domain.evidence.facts import Check, Evidence
from qa_worker.domain.evidence.outcomes import tried
from qa_worker.domain.evidence.spoken import Heard, fold, fold_spoken
from qa_worker.domain.folding import contains, words
from qa_worker.domain.interruption import talks_on
from qa_worker.domain.matching import unmet
from qa_worker.domain.rubric import Rubric, Severity
from qa_worker.domain.rules import COMPLIANCE, INTENT, QUALITY, TOOLS
from qa_worker.domain.run import Completion
from qa_worker.domain.scenario import Ends, ExpectedOutcome, Told, ToolRule
from qa_worker.domain.transcript import Role, ToolUse, Transcript

_SHORTEST_CODE = 4


class Breach(StrEnum):
    """What was expected and did not come. Its value is the name of the check that findings show."""

    WRONG_ARGUMENTS = "wrong_tool_arguments"
    FORBIDDEN_ARGUMENTS = "forbidden_tool_arguments"
    NOT_TOLD = "fact_not_told"
    TALKED_ON = "talked_on_when_interrupted"


@dataclass(frozen=True, slots=True)
class _Weighs:
    """What a breach counts for, how bad it is, and the highest level that it leaves."""

    criterion: str
    severity: Severity
    highest: int


# What a scenario's author wrote down is its point: without it the run fails. Talking on is bad manners.
_WEIGHS = {
    Breach.WRONG_ARGUMENTS: _Weighs(INTENT, Severity.CRITICAL, 1),
    Breach.FORBIDDEN_ARGUMENTS: _Weighs(COMPLIANCE, Severity.CRITICAL, 1),
    Breach.NOT_TOLD: _Weighs(INTENT, Severity.CRITICAL, 1),
    Breach.TALKED_ON: _Weighs(QUALITY, Severity.MAJOR, 2),
}
_MET = 5
_BY_THE_AGENT = frozenset({Completion.AGENT_ENDED, Completion.TRANSFERRED})
_ENDINGS = {
    Completion.CALLER_HUNG_UP: "this is a test call, and the caller hung up at this point",
    Completion.AGENT_ENDED: "this is a test call, and the agent hung up at this point",
    Completion.TRANSFERRED: "this is a test call, and the agent handed the caller over at this point",
    Completion.GOAL_REACHED: "this is a test call, ended by the test because the caller had what they called for",
    Completion.SCRIPT_ENDED: "this is a test call, ended by the test because all of the caller's lines were said",
    Completion.MAX_TURNS: "this is a test call, ended by the test at its limit of turns; nobody hung up",
    Completion.TIMEOUT: "this is a test call, ended by the test at its limit of time; nobody hung up",
}


@dataclass(frozen=True, slots=True)
class Unmet:
    """One expectation that was not met; `turn` and `quote` point at the call, an omission has neither."""

    breach: Breach
    detail: str
    turn: int | None = None
    quote: str = ""


def check(
    transcript: Transcript, expected: ExpectedOutcome, *, unheard: Mapping[int, str] | None = None
) -> tuple[Unmet, ...]:
    """Every expectation that this conversation doesn't meet.

    `unheard` is the rest of each agent turn that was cut, by the turn's number. A required call that was never made at
    all is left to the check of required tools, which names it already.
    """
    uses = transcript.tool_uses()
    return (
        *_wrong(uses, expected.required),
        *_forbidden(uses, expected.forbidden),
        *_untold(transcript, expected.told),
        *_talked_on(transcript, unheard or {}),
    )


def _wrong(uses: Sequence[ToolUse], rules: Iterable[ToolRule]) -> Iterator[Unmet]:
    for rule in rules:
        calls = [use for use in uses if _is_of(use, rule)]
        broken = [unmet(rule.arguments, use.call.arguments) for use in calls]
        if calls and all(broken):
            # The call that comes nearest is the one to look at; of equals the last, which stood in the end.
            nearest = min(range(len(calls)), key=lambda number: (len(broken[number]), -number))
            use, missing = calls[nearest], ", ".join(map(str, broken[nearest]))
            detail = f"no call of {rule.tool} had {missing}"
            yield Unmet(Breach.WRONG_ARGUMENTS, detail, use.turn, of_call(use.call))


def _forbidden(uses: Sequence[ToolUse], rules: Iterable[ToolRule]) -> Iterator[Unmet]:
    for rule in rules:
        for use in uses:
            if rule.arguments and _is_of(use, rule) and not unmet(rule.arguments, use.call.arguments):
                banned = ", ".join(map(str, rule.arguments))
                detail = f"{rule.tool} must not be called with {banned}"
                yield Unmet(Breach.FORBIDDEN_ARGUMENTS, detail, use.turn, of_call(use.call))


def _is_of(use: ToolUse, rule: ToolRule) -> bool:
    return use.call.name.casefold() == rule.tool.casefold()


def _untold(transcript: Transcript, facts: Iterable[Told]) -> Iterator[Unmet]:
    spoken = [turn.text for turn in transcript if turn.role is Role.AGENT]
    for fact in facts:
        if not any(_said(spoken, form) for form in fact.forms):
            forms = " or ".join(map(repr, fact.forms))
            yield Unmet(Breach.NOT_TOLD, f"the agent never said {fact.name}: {forms}")


def _said(spoken: Sequence[str], form: str) -> bool:
    """As whole words; codes also spelled aloud, and over several turns."""
    if any(contains(words(text), words(form)) for text in spoken):
        return True
    is_code = any(map(str.isdigit, form)) and len(fold(form)) >= _SHORTEST_CODE
    return is_code and any(Heard(spoken).first(code) is not None for code in {fold(form), fold_spoken(form)})


def _talked_on(transcript: Transcript, unheard: Mapping[int, str]) -> Iterator[Unmet]:
    for number, rest in unheard.items():
        later = enumerate(transcript.turns[number + 1 :], start=number + 1)
        answer = next(((at, turn) for at, turn in later if turn.role is Role.AGENT and turn.text.strip()), None)
        between = transcript.turns[number + 1 : answer[0]] if answer else ()
        asked = " ".join(turn.text for turn in between if turn.role is Role.CALLER)
        if answer and talks_on(rest, answer[1].text, heard=transcript.turns[number].text, asked=asked):
            detail = f"the agent goes on with what the caller cut off in turn {number}"
            yield Unmet(Breach.TALKED_ON, detail, answer[0], excerpt(answer[1].text))


def findings(missed: Iterable[Unmet], *, rubric: Rubric) -> tuple[Finding, ...]:
    """The same as findings that hold whatever a judge says."""
    return tuple(
        Finding(
            criterion=_criterion(miss, rubric),
            severity=_WEIGHS[miss.breach].severity,
            explanation=miss.detail,
            turn=miss.turn,
            quote=miss.quote,
            source=Source.EVIDENCE,
            check=miss.breach.value,
        )
        for miss in missed
    )


def _criterion(miss: Unmet, rubric: Rubric) -> str:
    wanted = _WEIGHS[miss.breach].criterion
    return wanted if rubric.criterion(wanted) is not None else rubric.criteria[0].id


def capped(assessment: Assessment, missed: Sequence[Unmet], *, rubric: Rubric) -> Assessment:
    """A judge's assessment, no criterion higher than the unmet expectations leave it."""
    highest: dict[str, int] = {}
    for miss in missed:
        criterion = _criterion(miss, rubric)
        highest[criterion] = min(highest.get(criterion, _MET), _WEIGHS[miss.breach].highest)
    return replace(
        assessment, levels=tuple(_capped(level, highest.get(level.criterion)) for level in assessment.levels)
    )


def _capped(level: CriterionLevel, highest: int | None) -> CriterionLevel:
    if highest is None:
        return level
    return replace(level, applicable=True, level=highest if level.level is None else min(level.level, highest))


def filled(assessment: Assessment, expected: ExpectedOutcome) -> Assessment:
    """For the judge that needs no model: what the scenario's own expectations measure counts as measured.

    The outcome where facts had to be told, compliance where arguments were forbidden; and where no tool was called and
    none was required, the use of tools doesn't apply. Use it before `capped`. Without it a scenario in which no tool may
    be called could never be passed by rules, though what the agent had to say was written down and looked for.
    """
    measured = {INTENT: bool(expected.told), COMPLIANCE: any(rule.arguments for rule in expected.forbidden)}
    no_tools = not expected.call.required_tools
    return replace(assessment, levels=tuple(_filled(level, measured, no_tools=no_tools) for level in assessment.levels))


def _filled(level: CriterionLevel, measured: Mapping[str, bool], *, no_tools: bool) -> CriterionLevel:
    if level.level is not None or not level.applicable:
        return level
    if measured.get(level.criterion):
        return replace(level, level=_MET, explanation="From what the scenario expects.")
    if level.criterion == TOOLS and no_tools:
        return replace(level, applicable=False, explanation="No tool was called, and none had to be.")
    return level


def of_run(evidence: Evidence, completion: Completion, *, answered: bool) -> Evidence:
    """The evidence of a run, without what only its ending makes: the agent isn't blamed for where others stopped.

    A call that the agent did not end itself breaks off somewhere. `answered`: the agent had the floor after the caller's
    last line, be it for a silence; a line that was never put to it, or with which the caller hung up, got no answer from
    anybody. A note tells the judge how it ended.
    """
    noted = replace(evidence, notes=(*evidence.notes, f"{_ENDINGS[completion]} ({completion.value})"))
    if completion in _BY_THE_AGENT:
        return noted
    dropped = {Check.ABRUPT_END} if answered else {Check.ABRUPT_END, Check.UNANSWERED_CALLER}
    facts = tuple(fact for fact in evidence.facts if fact.check not in dropped)
    return replace(noted, facts=facts, applied=evidence.applied - dropped)


def goal_reached(transcript: Transcript, ends: Ends) -> bool:
    """Whether the caller has what they called for, and has been told so.

    Agreeing to an action is not its completion: every tool of `ends` must have succeeded, and the agent must have said
    one of `ends.said` (anything at all, where none is given) after the last of them. Without tools and phrases nothing
    can be told from the transcript: False.
    """
    if not ends.tools and not ends.said:
        return False
    uses = tried(transcript.tool_uses())
    done = [
        next((use.result_turn for use in uses if use.succeeded and use.call.name == name), None) for name in ends.tools
    ]
    if any(turn is None for turn in done):
        return False
    last = max((turn for turn in done if turn is not None), default=-1)
    after = [turn.text for turn in transcript.turns[last + 1 :] if turn.role is Role.AGENT and turn.text.strip()]
    phrases = [words(phrase) for phrase in ends.said]
    return any(not phrases or any(contains(words(text), phrase) for phrase in phrases) for text in after)
