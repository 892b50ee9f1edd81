"""How the talk went: the agent in a loop, and what had to be asked or said twice."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from qa_worker.domain.evidence import outcomes
from qa_worker.domain.evidence.endings import offers_more
from qa_worker.domain.evidence.excerpts import cut, sentences
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.sameness import Statement, statement
from qa_worker.domain.folding import contains, words
from qa_worker.domain.transcript import Role, ToolUse, Transcript

_LOOP = 3
"""The agent may say a thing twice; the third time is a loop."""
_LONGEST_CYCLE = 4
_NEAR = 12
"""How many turns of one side back a repetition is looked for: loops are close together, and this keeps it linear."""
_FEWEST_WORDS = 5

_ASKED_TO_REPEAT = re.compile(
    r"\b(repeat|again|pardon|say that|what did you say|what was that|didnt (catch|hear|get)|come again|one more time)\b"
)
_REQUEST = re.compile(
    r"\b(whats|what is|what are|can you|could you|may i|can i|please|tell me|give me|provide|spell|confirm|i need|ill need)\b"
)
_SAYS_SO = re.compile(
    r"\bi(ve| have)? (already|just) (\w+ )?(told|said|gave|given|mentioned|asked|explained|answered)\b"
    r"|\b(as|like) i (\w+ )?said\b|\bhow many times\b|\bi keep (telling|saying|repeating)\b"
)


@dataclass(frozen=True, slots=True)
class _Said:
    turn: int
    text: str
    means: Statement


def loops(transcript: Transcript) -> Iterator[Fact]:
    """The agent says nearly the same thing three times, or goes round a cycle of two to four statements twice.

    Very short turns don't count ("one moment"), nor what the caller asked to have repeated. One fact for each thing said.
    """
    history: deque[tuple[_Said, int]] = deque(maxlen=_NEAR)
    labels: list[int] = []
    times: dict[int, int] = {}
    reported: set[int] = set()
    for said in _agent_statements(transcript):
        label = next((known for earlier, known in reversed(history) if said.means.nearly(earlier.means)), len(labels))
        history.append((said, label))
        labels.append(label)
        times[label] = times.get(label, 0) + 1
        looping = {label} if times[label] >= _LOOP else _cycle(labels)
        if looping and not looping & reported:
            detail = "the agent says nearly the same thing over and over"
            yield Fact(Check.AGENT_LOOP, detail, turn=said.turn, quote=cut(said.text))
        reported |= looping


def _agent_statements(transcript: Transcript) -> Iterator[_Said]:
    asked = False
    for number, turn in transcript.spoken():
        if turn.role is Role.CALLER:
            asked = _ASKED_TO_REPEAT.search(words(turn.text)) is not None
            continue
        means = statement(turn.text)
        if means.length >= _FEWEST_WORDS and not asked:
            yield _Said(number, turn.text, means)
        asked = False


def _cycle(labels: Sequence[int]) -> set[int]:
    """The last two to four labels, where they are the ones before them once more and not all the same; else nothing."""
    for length in range(2, _LONGEST_CYCLE + 1):
        if labels[-length:] == labels[-2 * length : -length] and len(set(labels[-length:])) > 1:
            return set(labels[-length:])
    return set()


def repeated_prompts(transcript: Transcript, uses: Sequence[ToolUse]) -> Iterator[Fact]:
    """The agent asks for the same data again after an answer, or the caller says a thing again, or complains of it.

    Saying and asking again after a lookup failed is what policies demand, and no fact.
    """
    failures = [use.result_turn for use in uses if use.result_turn is not None and outcomes.failed(use)]
    asked: deque[_Said] = deque(maxlen=_NEAR)
    told: deque[_Said] = deque(maxlen=_NEAR)
    answer: _Said | None = None
    for number, turn in transcript.spoken():
        if turn.role is Role.AGENT:
            questions = [_Said(number, s, statement(s)) for s in sentences(turn.text) if _asks_for_data(s)]
            again = _again(questions, asked, failures)
            if again and answer and answer.turn > again[1].turn and not _ASKED_TO_REPEAT.search(words(answer.text)):
                yield _repeat(again[0], f"the agent asks again what it asked in turn {again[1].turn}")
        else:
            said = _Said(number, turn.text, statement(turn.text))
            again = _again([said], told, failures)
            complaint = next((s for s in sentences(turn.text) if answer and _SAYS_SO.search(words(s))), None)
            if complaint is not None:
                yield _repeat(replace(said, text=complaint), "the caller says that they said it already")
            elif again:
                yield _repeat(said, f"the caller has to say again what they said in turn {again[1].turn}")
            answer = said


def _again(now: Iterable[_Said], history: deque[_Said], failures: Sequence[int]) -> tuple[_Said, _Said] | None:
    """The first statement that nearly equals an earlier one, with that one, and no failure between them.

    The history then holds the new statements too.
    """
    fresh = [said for said in now if said.means.length >= _FEWEST_WORDS]
    pairs = [(said, old) for said in fresh for old in reversed(history) if said.means.nearly(old.means)]
    history.extend(fresh)
    excused = (any(old.turn < failure < said.turn for failure in failures) for said, old in pairs)
    return next((pair for pair, excuse in zip(pairs, excused, strict=True) if not excuse), None)


def _repeat(said: _Said, detail: str) -> Fact:
    return Fact(Check.REPEATED_PROMPT, detail, turn=said.turn, quote=cut(said.text))


def _asks_for_data(sentence: str) -> bool:
    folded = words(sentence)
    asks = ("?" in sentence or folded.startswith("please ")) and _REQUEST.search(folded) is not None
    return asks and contains(folded, "your") and not offers_more(sentence)
