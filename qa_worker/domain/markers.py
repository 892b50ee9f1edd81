"""Markers in a caller's line: what the caller does besides speaking. docs/scenarios.md lists them.

    [interrupts after 8 words] No, wait. [silence - 15 seconds] I have it. [dtmf 1234#] [hangs up]

Square brackets always hold a marker, never speech: what stands in them and can't be understood is a fault that names
the marker and the fix. So nothing that a caller says can pass for one of our own notes, which stand in brackets too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qa_worker.domain.errors import InvalidInput, QaError
from qa_worker.domain.folding import words
from qa_worker.domain.stage_directions import Kind, Piece, near, pieces

LONGEST_SILENCE_S = 600.0
"""Nobody holds the line longer than ten minutes without a word; more is a slip of the pen."""
_MOST_WORDS = 500
_MOST_KEYS = 32


@dataclass(frozen=True, slots=True)
class Speech:
    """Something said aloud."""

    text: str


@dataclass(frozen=True, slots=True)
class Silence:
    """The caller says nothing for so long."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys pressed on the telephone, of 0-9, *, # and A-D (the events of RFC 4733)."""

    keys: str


@dataclass(frozen=True, slots=True)
class Noise:
    """What is heard behind the caller while they have the floor."""

    kind: str


@dataclass(frozen=True, slots=True)
class AfterWords:
    """The caller begins to speak when the agent has said so many words of its turn."""

    count: int


@dataclass(frozen=True, slots=True)
class AfterPhrase:
    """The caller begins to speak when the agent has said this."""

    phrase: str


Interruption = AfterWords | AfterPhrase
Part = Speech | Silence | Keys | Noise


@dataclass(frozen=True, slots=True)
class CallerLine:
    """A caller's line, understood. The parts are in order; `interruption` cuts the agent's turn before the line."""

    interruption: Interruption | None = None
    parts: tuple[Part, ...] = ()
    hangs_up: bool = False

    @property
    def text(self) -> str:
        """What is said aloud."""
        return " ".join(part.text for part in self.parts if isinstance(part, Speech))


@dataclass(frozen=True, slots=True)
class MarkerFault:
    """A marker that can't be understood, or stands where it means nothing. `marker` is copied from the line.

    `understood`: it isn't written as it should be, and was played as what it plainly means.
    """

    marker: str
    problem: str
    fix: str
    understood: bool = False


@dataclass
class _Unclear(QaError):
    problem: str
    fix: str


_FORMS = {
    "silence": "Write [silence - 15 seconds]; units are s, sec, seconds and minutes",
    "interrupts": 'Write [interrupts after 8 words] or [interrupts after "your total is"]',
    "hangs up": "Write [hangs up]",
    "dtmf": "Write [dtmf 1234#], with the keys 0-9, *, # and A-D",
    "noise": "Write [noise: traffic]",
}
_MEANT = {
    **dict.fromkeys(("silent", "pause", "pauses", "paused", "wait", "waits", "quiet"), "silence"),
    **dict.fromkeys(("interrupt", "interrupting", "interruption", "barge", "cuts"), "interrupts"),
    **dict.fromkeys(("hang", "hangs", "hangup", "ends", "end"), "hangs up"),
    **dict.fromkeys(("keys", "press", "presses", "key"), "dtmf"),
    **dict.fromkeys(("noises", "sound", "background"), "noise"),
}
_KNOWN = (
    'Known are [silence - 15 seconds], [interrupts after 8 words], [interrupts after "..."], [hangs up], [dtmf 1234#] '
    "and [noise: traffic]; anything else goes without square brackets"
)
_UNITS = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60.0),
}
_SILENCE = re.compile(r"silence\s*[-–—:]?\s*(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE)
_INTERRUPTS_WORDS = re.compile(r"interrupts\s+after\s+(\d+)\s+words?", re.IGNORECASE)
_INTERRUPTS_PHRASE = re.compile(r"""interrupts\s+after\s+["“”'‘](.+)["“”'’]""", re.IGNORECASE)
_HANGS_UP = re.compile(r"hangs\s+up", re.IGNORECASE)
_DTMF = re.compile(r"dtmf\s*:?\s*([0-9*#a-d][0-9*#a-d ]*)", re.IGNORECASE)
_NOISE = re.compile(r"noise\s*[-–—:]\s*(\w[\w ,'’-]{0,39})", re.IGNORECASE)
_FIRST_WORD = re.compile(r"[a-z]+", re.IGNORECASE)


def parse_line(line: str) -> CallerLine:
    """A line that a person wrote. Raises InvalidInput, which names the first marker that is wrong, and the fix."""
    parsed, faults = parse_freely(line)
    if faults:
        first = faults[0]
        raise InvalidInput(field="line", problem=f"{first.marker or 'the line'} {first.problem}", fix=first.fix)
    return parsed


def parse_freely(line: str) -> tuple[CallerLine, tuple[MarkerFault, ...]]:
    """A line that a model made up: what can be understood of it, and what can't, which is left out and never spoken.

    What isn't written as it should be and is `understood` all the same is played, and is a fault only in a file.
    """
    reader = _Reader()
    for piece in pieces(line):
        if piece.kind is Kind.SPEECH:
            reader.speech(piece.text)
        else:
            reader.marker(piece)
    return reader.line(), tuple(reader.faults)


class _Reader:
    """Builds one line, piece by piece, and notes what it can't use."""

    def __init__(self) -> None:
        self.faults: list[MarkerFault] = []
        self._interruption: Interruption | None = None
        self._parts: list[Part] = []
        self._hung_up = False

    def speech(self, text: str) -> None:
        said = text.lstrip(",;.:!? ") if self._parts else text
        if not words(said):
            return
        if self._hung_up:
            self._fault(said, "stands after [hangs up]", "End the line with [hangs up]")
        else:
            self._parts.append(Speech(said))

    def marker(self, piece: Piece) -> None:
        try:
            if not piece.in_brackets:
                raise _misplaced(piece)
            self._take(_read(piece.inner))
        except _Unclear as unclear:
            self._fault(piece.text, unclear.problem, unclear.fix, understood=self._understood(piece))

    def _understood(self, piece: Piece) -> bool:
        """Take what was meant, where that is plain."""
        try:
            self._take(_read(near(piece.inner)))
        except _Unclear:
            return False
        return True

    def line(self) -> CallerLine:
        first = next((part for part in self._parts if not isinstance(part, Noise)), None)
        if self._interruption and (isinstance(first, Silence) or (first is None and not self._hung_up)):
            self._fault("", "interrupts without saying anything", "Write what the caller says right after the marker")
            self._interruption = None
        elif not self._parts and not self._hung_up and not self.faults:
            self._fault("", "says and does nothing", "Write what the caller says, or [silence - 5 seconds]")
        return CallerLine(self._interruption, tuple(self._parts), self._hung_up)

    def _take(self, found: Interruption | Part | None) -> None:
        if self._hung_up:
            raise _Unclear("stands after [hangs up]", "End the line with [hangs up]")
        if found is None:
            self._hung_up = True
        elif not isinstance(found, AfterWords | AfterPhrase):
            self._parts.append(found)
        elif self._interruption or any(not isinstance(part, Noise) for part in self._parts):
            raise _Unclear("doesn't begin the line", "Begin the line with it: it cuts what the agent said before")
        else:
            self._interruption = found

    def _fault(self, marker: str, problem: str, fix: str, *, understood: bool = False) -> None:
        self.faults.append(MarkerFault(marker, problem, fix, understood))


def _misplaced(piece: Piece) -> _Unclear:
    if piece.kind is Kind.DIRECTION:
        return _Unclear("looks like a marker", "Write it in square brackets, or in other words")
    one_sided = "has only one of its two brackets" if {"[", "]"} & set(piece.text) else "has other brackets"
    return _Unclear(one_sided, "Write markers as [hangs up], and no other brackets")


def _read(inner: str) -> Interruption | Part | None:
    """What stands between the brackets of a marker; None for hanging up. Raises _Unclear."""
    first = _FIRST_WORD.match(inner)
    name = first.group().casefold() if first else ""
    reader = _READERS.get(name)
    if reader is None:
        meant = _MEANT.get(name)
        raise _Unclear("is not a marker", _FORMS[meant] if meant else _KNOWN)
    return reader(inner)


def _silence(inner: str) -> Silence:
    found = _SILENCE.fullmatch(inner)
    if found is None:
        raise _Unclear("doesn't say how long", _FORMS["silence"])
    number, unit = found.groups()
    if unit.casefold() not in _UNITS:
        problem = f"has the unit {unit!r}" if unit else "has no unit"
        raise _Unclear(problem, _FORMS["silence"])
    seconds = float(number) * _UNITS[unit.casefold()]
    if not 0 < seconds <= LONGEST_SILENCE_S:
        raise _Unclear("is out of range", "Write more than 0 seconds and at most 10 minutes")
    return Silence(seconds)


def _interrupts(inner: str) -> Interruption:
    if counted := _INTERRUPTS_WORDS.fullmatch(inner):
        count = int(counted.group(1)[:9])
        if not 1 <= count <= _MOST_WORDS:
            raise _Unclear("is out of range", f"Write 1 to {_MOST_WORDS} words")
        return AfterWords(count)
    quoted = _INTERRUPTS_PHRASE.fullmatch(inner)
    if quoted is None or not words(quoted.group(1)):
        raise _Unclear("doesn't say after what", _FORMS["interrupts"])
    return AfterPhrase(quoted.group(1).strip())


def _hangs_up(inner: str) -> None:
    if not _HANGS_UP.fullmatch(inner):
        raise _Unclear("is not a marker", _FORMS["hangs up"])


def _dtmf(inner: str) -> Keys:
    found = _DTMF.fullmatch(inner)
    keys = found.group(1).replace(" ", "").upper() if found else ""
    if not 1 <= len(keys) <= _MOST_KEYS:
        raise _Unclear(f"doesn't name 1 to {_MOST_KEYS} keys", _FORMS["dtmf"])
    return Keys(keys)


def _noise(inner: str) -> Noise:
    found = _NOISE.fullmatch(inner)
    if found is None:
        raise _Unclear("doesn't say which noise, in a few words", _FORMS["noise"])
    return Noise(found.group(1).strip())


_READERS: Mapping[str, Callable[[str], Interruption | Part | None]] = {
    "silence": _silence,
    "interrupts": _interrupts,
    "hangs": _hangs_up,
    "dtmf": _dtmf,
    "noise": _noise,
}
