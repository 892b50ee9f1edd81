"""What stands in a caller's line besides speech: markers, and what models write instead of them.

Models forget the brackets, use those of another script, or describe the caller as a play does: `(long pause)`,
`*sighs*`. None of that is ever read out. What is meant by it is taken where that is plain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from qa_worker.domain.folding import words


class Kind(StrEnum):
    """What a piece of a line is."""

    SPEECH = "speech"
    MARKER = "marker"
    """In square brackets, or with one of them."""
    DIRECTION = "direction"
    """Looks like a marker, or like a direction to an actor, and has other brackets or none."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One piece of a line. `text` is copied from it; `inner` is what the brackets of a marker or direction enclose."""

    kind: Kind
    text: str
    inner: str = ""

    @property
    def in_brackets(self) -> bool:
        """Whether it has both square brackets."""
        return self.text.startswith("[") and self.text.endswith("]")


_LONGEST_DIRECTION = 8
"""In words: who says more in brackets than that is speaking."""
_GESTURE_BEGINS = 3

# Other pairs that stand for square brackets; each becomes one character, so that places in the line stay the same.
_BRACKETS = {
    **dict.fromkeys(map(ord, "［【〔〖〘〚⟦⁅﹝"), "["),
    **dict.fromkeys(map(ord, "］】〕〗〙〛⟧⁆﹞"), "]"),
}
_ENTITIES = (
    (re.compile(r"&(?:#91|#x5b|lbrack|lsqb);", re.IGNORECASE), "["),
    (re.compile(r"&(?:#93|#x5d|rbrack|rsqb);", re.IGNORECASE), "]"),
)
_TOKEN = re.compile(r"\[[^\[\]]*\]|\[[^\[\]]*|\]")
_SENTENCE_START = re.compile(r"[^.!?]*\Z")
_LONGEST = "{1,100}"
_ENCLOSED = re.compile(
    rf"\([^()]{_LONGEST}\)|\{{[^{{}}]{_LONGEST}\}}|<[^<>]{_LONGEST}>|「[^「」]{_LONGEST}」|『[^『』]{_LONGEST}』"
    rf"|(?<!\w)\*{{1,3}}[^*]{_LONGEST}\*{{1,3}}(?!\w)|(?<!\w)_{{1,3}}[^_]{_LONGEST}_{{1,3}}(?!\w)"
    rf"|~[^~]{_LONGEST}~|(?<!\w)[—–]{{1,2}}[^—–]{_LONGEST}[—–]{{1,2}}(?!\w)"
)
_EDGES = "(){}<>「」『』*_~—–"
_HANGS_UP = r"(?:hangs?|hung|hanging)[\s-]*up"
_ENDS_CALL = r"(?:(?:ends?|ending|ended) (?:of )?(?:the |this )?(?:call|conversation)|disconnects?|call ends)"
_OF_MARKERS = re.compile(
    rf"\b(?:silence|silent|paus(?:e|es|ed|ing)|interrupt(?:s|ed|ing)?|{_HANGS_UP}|{_ENDS_CALL}|dtmf|noises?)\b",
    re.IGNORECASE,
)
# As an actor is told to: in the third person, or while something else is done.
_SOUNDS = re.compile(
    r"\b(?:sigh|laugh|chuckl|giggl|cough|sneez|sniff|sniffl|sob|groan|gasp|yawn|mutter|mumbl|shuffl|rustl|breath|nod|shrug"
    r"|smil|frown)(?:es|s|ing)\b",
    re.IGNORECASE,
)
_DEEDS = re.compile(
    r"\b(?:typ|wait|hesitat|whisper|cri|cry|shout|yell|clear|look|search|think|rummag)(?:es|s|ing)\b"
    r"|\b(?:long|short|brief) beat\b|\bbackground\b|\binaudible\b",
    re.IGNORECASE,
)
_UNIT = r"(?:s|secs?|seconds?|mins?|minutes?)\b"
# Without any brackets; said by nobody.
_BARE = re.compile(
    rf"(?<!\w)silence\s*[-–—:]\s*\d+(?:\.\d+)?\s*{_UNIT}|(?<!\w)dtmf\s*:?\s*[0-9*#]+"
    r"|(?<!\w)interrupts\s+after\s+(?:\d+\s+words?\b|[\"“][^\"”]{1,100}[\"”])"
    rf"|(?:\A|(?<=[.!?…]))\s*(?:(?:the )?caller )?{_HANGS_UP}\s*[.!]*\s*\Z",
    re.IGNORECASE,
)
# The stress that was put on a marker beside it.
_LEFT_OVER = re.compile(r"\A[*_]+(?!\S)|(?<!\S)[*_]+\Z")

_WHO = r"(?:(?:the )?(?:caller|customer|user) |(?:he|she|they|i) )?(?:then )?(?:\w+ly )?"
_SAYS_NOTHING = r"(?:silence|(?:is |was )?silent|paus(?:e|es|ed|ing)|waits?)"
_NEAR = tuple(
    (re.compile(form, re.IGNORECASE), meant)
    for form, meant in (
        (rf"{_WHO}{_HANGS_UP}(?: \w+ly)?(?: (?:the )?(?:phone|call|line))?", "hangs up"),
        (rf"{_WHO}{_ENDS_CALL}", "hangs up"),
        (rf"{_WHO}{_SAYS_NOTHING}(?: for| of)?\s*[-–—:,]?\s*(\d+(?:\.\d+)?)[\s-]*({_UNIT})", r"silence - \1 \2"),
        (rf"(\d+(?:\.\d+)?)[\s-]*({_UNIT})\s*(?:of |long )?(?:silence|pause)", r"silence - \1 \2"),
        (r"interrupt(?:ing|ed)?(?: the agent)? after (.+)", r"interrupts after \1"),
        (r"(?:press(?:es|ed)?|dials?|keys?)\s*:?\s*([0-9*#][0-9*# ]*)", r"dtmf \1"),
        (r"(?:background )?(?:noises?|sounds?)(?: in the background)?\s*[-–—:]\s*(.+)", r"noise: \1"),
    )
)


def pieces(line: str) -> Iterator[Piece]:
    """The line in order, without what is blank. A bracket without its partner takes with it what it may have enclosed."""
    for form, bracket in _ENTITIES:
        line = form.sub(bracket, line)
    folded = line.translate(_BRACKETS)
    place = 0
    for token in _TOKEN.finditer(folded):
        before, start = folded[place : token.start()], token.start()
        if token.group() == "]":
            enclosed = _SENTENCE_START.search(before)
            start -= len(before) - (enclosed.start() if enclosed else 0)
        yield from _spoken(line[place:start])
        text = line[start : token.end()].strip()
        yield Piece(Kind.MARKER, text, _inside(text.translate(_BRACKETS), "[]"))
        place = token.end()
    yield from _spoken(line[place:])


def near(inner: str) -> str:
    """What a marker between its brackets means that isn't in its exact form: that form, where it is plain.

    Anything else comes back as it is, without the punctuation around it.
    """
    plain = " ".join(inner.split()).strip(" .,;:!?…")
    for form, meant in _NEAR:
        found = form.fullmatch(plain)
        if found is not None:
            return found.expand(meant)
    return plain


def _inside(text: str, brackets: str) -> str:
    return " ".join(text.strip(f"{brackets} ").split())


def _spoken(text: str) -> Iterator[Piece]:
    """Speech, and the directions in it."""
    place = 0
    for start, end in sorted(_directions(text)):
        if start < place:
            continue
        yield from _speech(text[place:start])
        found = text[start:end].strip()
        yield Piece(Kind.DIRECTION, found, _inside(found, _EDGES))
        place = end
    yield from _speech(text[place:])


def _directions(text: str) -> Iterator[tuple[int, int]]:
    yield from (found.span() for found in _ENCLOSED.finditer(text) if _is_direction(found.group()))
    yield from (found.span() for found in _BARE.finditer(text))


def _is_direction(enclosed: str) -> bool:
    said = words(enclosed).split()
    if len(said) > _LONGEST_DIRECTION:
        return False
    begins, whole = " ".join(said[:_GESTURE_BEGINS]), " ".join(said)
    # One word between stars may be stressed: "I've been *waiting* for an hour".
    stressed = len(said) == 1 and enclosed[0] in "*_"
    gesture = _SOUNDS.search(begins) or (None if stressed else _DEEDS.search(begins))
    return gesture is not None or _OF_MARKERS.search(whole) is not None


def _speech(text: str) -> Iterator[Piece]:
    said = " ".join(_LEFT_OVER.sub("", text.strip()).split())
    if said:
        yield Piece(Kind.SPEECH, said)
