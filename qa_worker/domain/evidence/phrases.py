"""Phrases that the agent had to say, or must not say. Only what the agent says counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from qa_worker.domain.call import Expected
from qa_worker.domain.evidence.excerpts import cut, sentences
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.speech import Said
from qa_worker.domain.folding import contains, words
from qa_worker.domain.rubric import Checks
from qa_worker.domain.transcript import Role


def required(expected: Expected, checks: Checks) -> tuple[str, ...]:
    """What must be said in this call: the rubric's phrases and its own, each once."""
    return _distinct((*(rule.phrase for rule in checks.required_phrases), *expected.required_phrases))


def forbidden(expected: Expected, checks: Checks) -> tuple[str, ...]:
    """What must not be said in this call: the rubric's phrases and its own, each once."""
    return _distinct((*(rule.phrase for rule in checks.forbidden_phrases), *expected.forbidden_phrases))


def _distinct(phrases: Iterable[str]) -> tuple[str, ...]:
    # The first spelling stays: facts are matched to the rubric's rules by it. No words at all can't be said or missed.
    spellings: dict[str, str] = {}
    for phrase in phrases:
        spellings.setdefault(words(phrase), phrase)
    spellings.pop("", None)
    return tuple(spellings.values())


def missing(speech: Iterable[Said], phrases: Sequence[str]) -> Iterator[Fact]:
    """Phrases that no agent turn contains, compared word by word without case and punctuation.

    Consecutive agent turns are read as one, because a platform may cut a sentence in two.
    """
    stretches = list(_agent_stretches(speech)) if phrases else []
    for phrase in phrases:
        folded = words(phrase)
        if not any(contains(stretch, folded) for stretch in stretches):
            yield Fact(Check.MISSING_REQUIRED_PHRASE, f"the agent never said {phrase!r}", subject=phrase)


def _agent_stretches(speech: Iterable[Said]) -> Iterator[str]:
    stretch: list[str] = []
    for turn in speech:
        if turn.role is Role.AGENT:
            stretch.append(turn.words)
        elif stretch:
            yield " ".join(stretch)
            stretch = []
    if stretch:
        yield " ".join(stretch)


def said(speech: Iterable[Said], phrases: Iterable[str]) -> Iterator[Fact]:
    """Each agent turn that contains a forbidden phrase."""
    banned = [(phrase, words(phrase)) for phrase in phrases]
    for turn in speech if banned else ():
        if turn.role is not Role.AGENT:
            continue
        for phrase, folded in banned:
            if contains(turn.words, folded):
                quote = _sentence(turn.text, folded)
                yield Fact(Check.FORBIDDEN_PHRASE, f"the agent said {phrase!r}", turn.turn, quote, subject=phrase)


def _sentence(text: str, folded: str) -> str:
    return cut(next((sentence for sentence in sentences(text) if contains(words(sentence), folded)), text))
