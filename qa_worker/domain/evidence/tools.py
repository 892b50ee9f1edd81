"""Checks of tool calls: repeated, malformed, failed, claimed although failed, required, forbidden."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from qa_worker.domain.call import Agent, Expected, ToolSpec
from qa_worker.domain.evidence.excerpts import cut, of_call, sentences
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.outcomes import Tried
from qa_worker.domain.folding import contains, words
from qa_worker.domain.transcript import Role, ToolUse, Transcript, canonical

_ADVERBS = r"( (just|now|also|already|all|successfully|gone ahead and))*"
_PARTICIPLE = r"(?!need|proceed|exceed|checked|looked|tried|attempted|asked|noted|heard)"
_SUCCESS = re.compile(
    rf"\b(ive|weve|(i|we)( have)?){_ADVERBS} {_PARTICIPLE}(\w+ed|sent|made|put|set|done|found|taken|paid|given)\b"
    rf"|\b(is|are|was|were|has been|have been|youre|theyre|its|thats)( all)?{_ADVERBS} {_PARTICIPLE}(\w+ed|sent|made|set|done|complete|paid)\b"
    r"|\b(all set|done|successful|successfully|complete)\b"
)
_ADMISSION = re.compile(
    r"\b(unable|cannot|cant|couldnt|could|not|no|wasnt|werent|didnt|doesnt|isnt|hasnt|havent|wont|failed|fails|rejected|"
    r"declined|denied|unfortunately|error|issue|problem|trouble|sorry|apologi[sz]e|will|would|if|once|before|after|when|"
    r"until|try|trying|tried|attempt|attempted|let|need|needs|first|still)\b"
)
_ALL_DONE = re.compile(r"\b(youre all set|you are all set|all set|all done|done|completed|successfully)\b")
_OF_ARGUMENTS = re.compile(r"\b(missing|required|invalid|empty|argument|arguments|parameter|parameters|field)\b")
_STEM = 5
_ENDING = re.compile(r"(?<=\w{3})(ings?|ed|ions?|es|s|e)$")
_DEEPEST = 32  # arguments nested deeper than any tool needs are compared as they are
_COMMON = frozenset(("with", "from", "this", "that", "tool", "agent", "user", "customer", "caller", "details", "info"))


def repeated(uses: Sequence[Tried], transcript: Transcript) -> Iterator[Fact]:
    """The same tool with the same arguments again, keys in any order, letters in any case, nulls as if absent.

    A retry is no repeat: after a call that failed, one more of the same is fair, and any number once the caller has
    spoken in between. A change of state in between excuses nothing: measured on EVA's labels, people call it
    unnecessary to read the same thing again after a change (excusing it halves recall and costs precision).
    """
    last: dict[tuple[str, str], tuple[Tried, int]] = {}
    names = Counter(use.call.name.casefold() for use in uses)
    for use in uses:
        name = use.call.name.casefold()
        if names[name] == 1 or use.call.malformed is not None:
            continue
        key = (name, canonical(_plain(use.call.arguments)))
        earlier, retries = last.get(key, (None, 0))
        if earlier is None:
            last[key] = (use, 0)
            continue
        fair = earlier.failed and (not retries or _caller_spoke(transcript, earlier.turn, use.turn))
        last[key] = (use, retries + 1 if fair else 0)
        if not fair:
            detail = f"{use.call.name} was called with the same arguments in turn {earlier.turn} already"
            yield _fact(Check.REPEATED_TOOL_CALL, use, detail)


def _plain(value: Any, depth: int = 0) -> Any:
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {str(key): _plain(inner, depth + 1) for key, inner in value.items() if inner is not None}
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [_plain(inner, depth + 1) for inner in value]
    return value.strip().casefold() if isinstance(value, str) else value


def _caller_spoke(transcript: Transcript, after: int, before: int) -> bool:
    return any(turn.role is Role.CALLER and turn.text.strip() for turn in transcript.turns[after + 1 : before])


def malformed(uses: Sequence[Tried], agent: Agent) -> Iterator[Fact]:
    """Arguments that are no JSON object, and required ones left out or empty in a call that did not succeed.

    What came with the agent as the tools' schemas may be out of date. So a call that the tool accepted is never
    malformed, and an argument that is absent altogether only where the tool's own answer names it.
    """
    specs = {tool.name.casefold(): tool for tool in agent.tools}
    for use in uses:
        if use.call.malformed is not None:
            yield _fact(Check.MALFORMED_TOOL_CALL, use, f"the arguments of {use.call.name} are no JSON object")
        elif use.failed and (missing := _missing(use, specs.get(use.call.name.casefold()))):
            detail = f"{use.call.name} was called without a value for {', '.join(missing)}"
            yield _fact(Check.MALFORMED_TOOL_CALL, use, detail)


def _missing(use: Tried, spec: ToolSpec | None) -> list[str]:
    listed = spec.parameters.get("required") if spec else None
    required = [str(name) for name in listed] if isinstance(listed, list | tuple) else []
    answer = words(use.result.text) if use.result else ""
    named = answer if _OF_ARGUMENTS.search(answer) else ""
    arguments = use.call.arguments
    empty = (name for name in dict.fromkeys((*required, *arguments)) if _is_empty(arguments.get(name)))
    return [name for name in empty if (name in required and name in arguments) or contains(named, words(name))]


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def failed(uses: Sequence[Tried]) -> Iterator[Fact]:
    """Calls whose result is an error."""
    for use in uses:
        if use.failed and use.result is not None:
            detail = f"{use.call.name} failed: {cut(use.result.text)}"
            yield _fact(Check.FAILED_TOOL_CALL, use, detail)


def claimed(uses: Sequence[Tried], transcript: Transcript) -> Iterator[Fact]:
    """The agent says that something is done although the tool for it failed and never succeeded before the claim.

    The claim must be in one sentence: a success in words, no admission or condition, and either words of the tool's name
    that no successful tool shares (`issue_travel_credit`: "I've issued your credit"), or a bare "you're all set" right
    after the failure.
    """
    done = {use.call.name for use in uses if use.succeeded}
    for name in dict.fromkeys(use.call.name for use in uses if use.failed):
        own = [use for use in uses if use.call.name == name]
        start = min(use.result_turn or 0 for use in own if use.failed)
        end = min((use.result_turn or 0 for use in own if use.succeeded), default=len(transcript))
        stems = _stems(name).difference(*(_stems(other) for other in done - {name}))
        claim = _first_claim(transcript, stems, start, end)
        if claim is not None:
            turn, sentence = claim
            detail = f"the agent says it is done, but {name} failed in turn {start} and had not succeeded"
            yield Fact(Check.CLAIM_AFTER_FAILED_TOOL, detail, turn=turn, quote=cut(sentence), subject=name)


def _stems(name: str) -> set[str]:
    return {_stem(word) for word in words(name).split() if len(word) >= _STEM - 1 and word not in _COMMON}


def _stem(word: str) -> str:
    """`booking`, `booked` and `book` are one word here; so are `cancel` and `cancellation`."""
    return _ENDING.sub("", word)[:_STEM]


def _first_claim(transcript: Transcript, stems: set[str], start: int, end: int) -> tuple[int, str] | None:
    right_after = True
    for number in range(start + 1, end):
        turn = transcript.turns[number]
        if turn.role is not Role.AGENT:
            continue
        right_after = right_after and not turn.tool_calls
        for sentence in sentences(turn.text):
            if _claims(sentence, stems, right_after=right_after):
                return number, sentence
        right_after = right_after and not turn.text.strip()
    return None


def _claims(sentence: str, stems: set[str], *, right_after: bool) -> bool:
    said = words(sentence)
    if "?" in sentence or _ADMISSION.search(said) or not _SUCCESS.search(said):
        return False
    about = any(_stem(word) in stems for word in said.split())
    return about or (right_after and _ALL_DONE.search(said) is not None)


def missing_required(uses: Sequence[ToolUse], expected: Expected) -> Iterator[Fact]:
    """Tools that this call should have used and didn't. A call that failed was a use: that is a fact of its own."""
    used = {use.call.name.casefold() for use in uses}
    for name in dict.fromkeys(expected.required_tools):
        if name.strip().casefold() not in used:
            yield Fact(Check.MISSING_REQUIRED_TOOL, f"{name} was never called", subject=name)


def forbidden(uses: Sequence[ToolUse], expected: Expected) -> Iterator[Fact]:
    """Each call of a tool that this call must not use."""
    banned = {name.strip().casefold() for name in expected.forbidden_tools}
    for use in uses:
        if use.call.name.casefold() in banned:
            yield _fact(Check.FORBIDDEN_TOOL, use, f"{use.call.name} must not be called here")


def all_facts(uses: Sequence[Tried], transcript: Transcript, agent: Agent) -> tuple[Fact, ...]:
    """The checks that every call with tools gets."""
    return tuple(chain(repeated(uses, transcript), malformed(uses, agent), failed(uses), claimed(uses, transcript)))


def _fact(check: Check, use: ToolUse, detail: str) -> Fact:
    return Fact(check, detail, turn=use.turn, quote=of_call(use.call), subject=use.call.name)
