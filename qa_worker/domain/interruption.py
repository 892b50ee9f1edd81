"""An agent's turn that the caller cuts: what was heard, what never was, and whether the agent gave way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from qa_worker.domain.folding import words
from qa_worker.domain.markers import AfterWords, Interruption

CUT_NOTE = "[cut off by the caller]"
"""Stands at the end of a cut turn in the history that agent and judge see. EVA's judges read such a tag, too."""
_SHORTEST_REST = 2
_TALKS_ON_WORDS = 4
_TALKS_ON_TO_QUESTION = 8
_SENTENCE_END = re.compile(r"[.!?]\s+")
_LEADS_BACK = re.compile(
    r"((im |so )?sorry( about that| for that)?|(my )?apologies|excuse me|pardon me|(so )?(as|like) i (was saying|said|mentioned)"
    r"|(please )?(let me|allow me to) (finish|continue)|where was i|to continue|anyway|anyhow|so|well|right|ok|okay|alright"
    r"|yes|yeah|sure|of course|certainly|i see|um|uh|and)\b"
)
_GO_ON = re.compile(
    r"\b(go on|go ahead|carry on|continue|keep going|repeat|again|pardon|come again|say that|what (did you say|was that)"
    r"|didnt (catch|hear|get)|finish)\b"
)
_ASSENT = re.compile(
    r"(mhm|mm|mm hmm|uh huh|aha|ah|oh|i see|yeah|yep|yes|okay|ok|right|sure|got it|alright|all right|great)"
)


@dataclass(frozen=True, slots=True)
class Cut:
    """A turn in two: up to the caller's first word, and the rest, which is empty where the turn was over by then."""

    heard: str
    unheard: str

    @property
    def interrupts(self) -> bool:
        """True where something was left unsaid."""
        return bool(self.unheard)

    @property
    def history(self) -> str:
        """The turn as it goes into the history: the heard part, with a note that it was cut."""
        return f"{self.heard} {CUT_NOTE}" if self.interrupts else self.heard


def cut(turn: str, at: Interruption) -> Cut:
    """The agent's turn, cut where the caller interrupts it.

    Words are what blanks part, and hold a letter or digit; phrases are found without regard to case and punctuation, at
    their first place. A turn that is shorter, or doesn't hold the phrase, is heard to its end: nobody was interrupted.
    """
    tokens = _tokens(turn)
    last = _nth_word(tokens, at.count) if isinstance(at, AfterWords) else _phrase_end(tokens, words(at.phrase).split())
    if last is None:
        return Cut(turn.strip(), "")
    end = tokens[last].end
    rest = turn[end:].strip()
    return Cut(turn[:end].strip(), rest) if words(rest) else Cut(turn.strip(), "")


def cut_among(turns: Sequence[str], at: Interruption) -> tuple[int, Cut]:
    """What an agent said in one go, in several pieces, cut as if it were one turn: which piece, and that piece's cut.

    Words are counted from the first one on. `unheard` holds all that came after the place, of the later pieces too.
    Where nobody was interrupted it is the last piece, heard to its end. There must be a piece.
    """
    found = cut(" ".join(turn.strip() for turn in turns), at)
    left = len(found.heard)
    for number, turn in enumerate(turns):
        length = len(turn.strip())
        if left <= length:
            return number, replace(found, heard=turn.strip()[:left])
        left -= length + 1
    return len(turns) - 1, found


def talks_on(unheard: str, answer: str, *, heard: str = "", asked: str = "") -> bool:
    """Whether the agent's next turn goes on with what was cut off, or says it again, as if nobody had spoken.

    heard: the cut turn as far as it was heard. asked: what the caller said then. That is measured by how the answer
    begins, after words such as "sorry" and "as I was saying": with four words of the rest (or all of them, where there
    are two or three), or with the unfinished sentence from its beginning and two words of the rest.

    Shorter rests tell nothing. A caller who says "go on", "pardon?" or only "mhm" wants to hear the rest. And to a question
    the rest may be the answer: only eight words of it, in the middle of a sentence, are talking on then. Whether the
    answer fits what the caller said is the judge's to say.
    """
    rest = words(unheard).split()
    wanted = words(asked)
    if len(rest) < _SHORTEST_REST or _GO_ON.search(wanted) or _ASSENT.fullmatch(wanted):
        return False
    begins = tuple(_beginnings(words(answer)))
    if "?" in asked:
        return len(rest) >= _TALKS_ON_TO_QUESTION and _begins_with(begins, rest[:_TALKS_ON_TO_QUESTION])
    return _begins_with(begins, rest[:_TALKS_ON_WORDS]) or any(
        _begins_with(begins, [*start, *rest[: max(_SHORTEST_REST, _TALKS_ON_WORDS - len(start))]])
        for start in _starts(heard)
    )


def _beginnings(answer: str) -> Iterator[list[str]]:
    """The answer, and what is left of it without each of the phrases that lead back to what one was saying."""
    yield answer.split()
    while (found := _LEADS_BACK.match(answer)) is not None:
        answer = answer[found.end() :].strip()
        yield answer.split()


def _begins_with(texts: Iterable[Sequence[str]], beginning: Sequence[str]) -> bool:
    return any(list(text[: len(beginning)]) == list(beginning) for text in texts)


def _starts(heard: str) -> Iterator[list[str]]:
    """What stands before the cut: of its sentence, and of the whole turn. Nothing where the cut was between sentences."""
    text = heard.removesuffix(CUT_NOTE).strip()
    if text and text[-1] not in ".!?":
        yield from (words(part).split() for part in (_SENTENCE_END.split(text)[-1], text))


@dataclass(frozen=True, slots=True)
class _Token:
    """One word of a turn as it stands there: where it ends, and the folded words in it ("well-known" holds two)."""

    end: int
    folded: tuple[str, ...]


def _tokens(turn: str) -> list[_Token]:
    tokens, place = [], 0
    for word in turn.split():
        end = turn.index(word, place) + len(word)
        tokens.append(_Token(end, tuple(words(word).split())))
        place = end
    return tokens


def _nth_word(tokens: Sequence[_Token], count: int) -> int | None:
    spoken = [number for number, token in enumerate(tokens) if token.folded]
    return spoken[count - 1] if count <= len(spoken) else None


def _phrase_end(tokens: Sequence[_Token], phrase: Sequence[str]) -> int | None:
    flat = [(word, number) for number, token in enumerate(tokens) for word in token.folded]
    for start in range(len(flat) - len(phrase) + 1):
        if all(flat[start + offset][0] == word for offset, word in enumerate(phrase)):
            return flat[start + len(phrase) - 1][1]
    return None
