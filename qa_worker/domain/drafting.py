"""A scenario drafted from a call that really happened, for a person to edit and keep.

It holds what the caller said and did, word for word, and so whatever they said about themselves: names and numbers of
real people are to be replaced before it is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress

from qa_worker.domain.call import Call
from qa_worker.domain.drafted_facts import said_facts
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.evidence.identifiers import identifiers
from qa_worker.domain.evidence.segments import JITTER_S
from qa_worker.domain.evidence.spoken import Heard, fold, fold_spoken
from qa_worker.domain.folding import words
from qa_worker.domain.markers import LONGEST_SILENCE_S, parse_line
from qa_worker.domain.moves import END_OF_TURN_S
from qa_worker.domain.scenario import ExpectedOutcome, Play, Scenario
from qa_worker.domain.stage_directions import Kind, pieces
from qa_worker.domain.transcript import Role, Transcript, Turn

TAG = "from-call"
_NOT_IN_IDS = re.compile(r"[^a-z0-9]+")
_BRACKETS = str.maketrans("[]{}<>*_~", "()()()   ")
_ROUND = str.maketrans("()", "  ")
_LONGEST_ID = 60
_LONGEST_TITLE = 100


def draft(call: Call) -> Scenario:
    """A scripted scenario with the caller's lines, the facts that they told, and what was expected of the call.

    Where turns carry times, long silences and interruptions become markers. Raises InvalidInput where the caller said
    nothing.
    """
    lines = tuple(filter(None, _lines(call.transcript)))
    if not lines:
        raise InvalidInput("turns", "hold no word of the caller", "Choose a call in which the caller speaks")
    slug = _NOT_IN_IDS.sub("-", call.ref.casefold()).strip("-")[:_LONGEST_ID]
    title = " ".join(f"{call.expected.outcome or f'Call {call.ref}'}".split())
    return Scenario(
        id=f"from-{slug or 'call'}",
        title=title[:_LONGEST_TITLE],
        agent=call.agent.id,
        play=Play.SCRIPT,
        goal=call.expected.outcome.strip(),
        facts=_facts(call.transcript),
        opening=lines[0],
        steps=lines[1:],
        expected=ExpectedOutcome(call=call.expected),
        tags=(TAG,),
    )


def _lines(transcript: Transcript) -> Iterator[str]:
    """One line for each stretch of the caller's turns; the last hangs up where the caller had the last word."""
    spoken = [turn for _, turn in transcript.spoken()]
    line: list[str] = []
    before: Turn | None = None
    for number, turn in enumerate(spoken):
        if turn.role is Role.CALLER:
            marker = _marker(before, turn, begins=not line)
            line += [part for part in (marker, _plain(turn.text)) if part]
            if number == len(spoken) - 1:
                line.append("[hangs up]")
        elif line:
            yield _checked(line)
            line = []
        before = turn
    if line:
        yield _checked(line)


def _marker(before: Turn | None, turn: Turn, *, begins: bool) -> str:
    if before is None or before.end_s is None or turn.start_s is None:
        return ""
    gap = turn.start_s - before.end_s
    if gap >= END_OF_TURN_S:
        return f"[silence - {min(round(gap), LONGEST_SILENCE_S):g} seconds]"
    if begins and gap < -JITTER_S and before.start_s is not None and before.start_s < turn.start_s:
        share = (turn.start_s - before.start_s) / (before.end_s - before.start_s)
        count = max(1, round(share * len(before.text.split())))
        return f"[interrupts after {count} words]"
    return ""


def _plain(text: str) -> str:
    """What was said, without the signs that stand for markers."""
    return " ".join(text.translate(_BRACKETS).split())


def _checked(parts: Sequence[str]) -> str:
    """The line, which can be played. What still looks like a marker loses its round brackets, or else is left out."""
    ours = [part if part.startswith("[") else "" for part in parts]
    said = [part.translate(_ROUND) for part in parts]
    spoken = [" ".join(piece.text for piece in pieces(part) if piece.kind is Kind.SPEECH) for part in said]
    for texts in (parts, said, spoken):
        line = " ".join(" ".join(mark or text for mark, text in zip(ours, texts, strict=True)).split())
        with suppress(InvalidInput):
            parse_line(line)
            return line
    return ""


def _facts(transcript: Transcript) -> dict[str, str]:
    """The codes that went into tools and that the caller had said, and what else they said about themselves."""
    found: dict[str, str] = {}
    for name, value in (*_codes(transcript), *said_facts(transcript)):
        if fold(value) not in map(fold, found.values()):
            number = sum(known == name or known.startswith(f"{name}_") for known in found) + 1
            found[name if number == 1 else f"{name}_{number}"] = value
    return found


def _codes(transcript: Transcript) -> Iterator[tuple[str, str]]:
    heard = Heard(turn.text if turn.role is Role.CALLER else "" for turn in transcript)
    for use in transcript.tool_uses():
        for path, value in identifiers(use.call):
            forms = filter(None, (fold(value), fold_spoken(value)))
            if words(path) and any(heard.first(form) is not None for form in forms):
                yield path, value
