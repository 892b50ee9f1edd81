"""How the talk went: the agent in a loop, and what had to be asked or said twice."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from qa_worker.domain.evidence.endings import offers_more
from qa_worker.domain.evidence.excerpts import cut, sentences
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.outcomes import Tried
from qa_worker.domain.evidence.speech import Said, said
from qa_worker.domain.folding import contains, words
from qa_worker.domain.transcript import Role

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


def loops(speech: Iterable[Said]) -> Iterator[Fact]:
    """The agent says nearly the same thing three times, or goes round a cycle of two to four statements twice.

    Very short turns don't count ("one moment"), nor what the caller asked to have repeated. One fact for each thing said.
    """
    history: deque[tuple[Said, int]] = deque(maxlen=_NEAR)
    labels: list[int] = []
    times: dict[int, int] = {}
    reported: set[int] = set()
    for turn in _agent_statements(speech):
        label = next((known for earlier, known in reversed(history) if turn.means.nearly(earlier.means)), len(labels))
        history.append((turn, label))
        labels.append(label)
        times[label] = times.get(label, 0) + 1
        looping = {label} if times[label] >= _LOOP else _cycle(labels)
        if looping and not looping & reported:
            detail = "the agent says nearly the same thing over and over"
            yield Fact(Check.AGENT_LOOP, detail, turn=turn.turn, quote=cut(turn.text))
        reported |= looping


def _agent_statements(speech: Iterable[Said]) -> Iterator[Said]:
    asked = False
    for turn in speech:
        if turn.role is Role.CALLER:
            asked = _ASKED_TO_REPEAT.search(turn.words) is not None
            continue
        if turn.means.length >= _FEWEST_WORDS and not asked:
            yield turn
        asked = False


def _cycle(labels: Sequence[int]) -> set[int]:
    """The last two to four labels, where they are the ones before them once more and not all the same; else nothing."""
    for length in range(2, _LONGEST_CYCLE + 1):
        if labels[-length:] == labels[-2 * length : -length] and len(set(labels[-length:])) > 1:
            return set(labels[-length:])
    return set()


def repeated_prompts(speech: Iterable[Said], uses: Iterable[Tried]) -> Iterator[Fact]:
    """The agent asks for the same data again after an answer, or the caller says a thing again, or complains of it.

    Saying and asking again after a lookup failed is what policies demand, and no fact.
    """
    failures = [use.result_turn for use in uses if use.result_turn is not None and use.failed]
    asked: deque[Said] = deque(maxlen=_NEAR)
    told: deque[Said] = deque(maxlen=_NEAR)
    answer: Said | None = None
    for turn in speech:
        if turn.role is Role.AGENT:
            again = _again(_questions(turn), asked, failures)
            if again and answer and answer.turn > again[1].turn and not _ASKED_TO_REPEAT.search(answer.words):
                yield _repeat(again[0], f"the agent asks again what it asked in turn {again[1].turn}")
        else:
            again = _again((turn,), told, failures)
            complaint = _complaint(turn) if answer else None
            if complaint is not None:
                yield _repeat(replace(turn, text=complaint), "the caller says that they said it already")
            elif again:
                yield _repeat(turn, f"the caller has to say again what they said in turn {again[1].turn}")
            answer = turn


def _again(now: Iterable[Said], history: deque[Said], failures: Sequence[int]) -> tuple[Said, Said] | None:
    """The first statement that nearly equals an earlier one, with that one, and no failure between them.

    The history then holds the new statements too.
    """
    fresh = [turn for turn in now if turn.means.length >= _FEWEST_WORDS]
    pairs = ((turn, old) for turn in fresh for old in reversed(history) if turn.means.nearly(old.means))
    found = next((pair for pair in pairs if not _fails_between(failures, pair[1].turn, pair[0].turn)), None)
    history.extend(fresh)
    return found


def _fails_between(failures: Iterable[int], after: int, before: int) -> bool:
    return any(after < failure < before for failure in failures)


def _repeat(again: Said, detail: str) -> Fact:
    return Fact(Check.REPEATED_PROMPT, detail, turn=again.turn, quote=cut(again.text))


def _complaint(turn: Said) -> str | None:
    # What no sentence of a turn could hold isn't looked for in its sentences; the same below.
    parts = sentences(turn.text) if _SAYS_SO.search(turn.words) else ()
    return next((sentence for sentence in parts if _SAYS_SO.search(words(sentence))), None)


def _questions(turn: Said) -> Iterator[Said]:
    """The sentences in which the agent asks the caller for their data."""
    heard = turn.means.said
    if "your" not in heard or not ("?" in turn.text or "please" in heard):
        return
    for sentence in sentences(turn.text):
        if "?" in sentence or "please" in heard:
            folded = words(sentence)
            if ("?" in sentence or folded.startswith("please ")) and _asks_for_data(folded):
                yield said(turn.turn, turn.role, sentence)


def _asks_for_data(folded: str) -> bool:
    return contains(folded, "your") and _REQUEST.search(folded) is not None and not offers_more(folded)
