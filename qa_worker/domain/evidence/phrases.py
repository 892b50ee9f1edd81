"""Phrases that the agent had to say, or must not say. Only what the agent says counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qa_worker.domain.call import Expected
from qa_worker.domain.evidence.excerpts import cut, sentences
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.folding import contains, words
from qa_worker.domain.rubric import Checks
from qa_worker.domain.transcript import Role, Transcript


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


def missing(transcript: Transcript, phrases: Iterable[str]) -> Iterator[Fact]:
    """Phrases that no agent turn contains, compared word by word without case and punctuation.

    Consecutive agent turns are read as one, because a platform may cut a sentence in two.
    """
    said = list(_agent_speech(transcript))
    for phrase in phrases:
        if not any(contains(speech, words(phrase)) for speech in said):
            yield Fact(Check.MISSING_REQUIRED_PHRASE, f"the agent never said {phrase!r}", subject=phrase)


def _agent_speech(transcript: Transcript) -> Iterator[str]:
    stretch: list[str] = []
    for _, turn in transcript.spoken():
        if turn.role is Role.AGENT:
            stretch.append(words(turn.text))
        elif stretch:
            yield " ".join(stretch)
            stretch = []
    if stretch:
        yield " ".join(stretch)


def said(transcript: Transcript, phrases: Iterable[str]) -> Iterator[Fact]:
    """Each agent turn that contains a forbidden phrase."""
    banned = [(phrase, words(phrase)) for phrase in phrases]
    for number, turn in transcript.spoken():
        if turn.role is not Role.AGENT:
            continue
        speech = words(turn.text)
        for phrase, folded in banned:
            if contains(speech, folded):
                quote = _sentence(turn.text, folded)
                yield Fact(Check.FORBIDDEN_PHRASE, f"the agent said {phrase!r}", number, quote, subject=phrase)


def _sentence(text: str, folded: str) -> str:
    return cut(next((sentence for sentence in sentences(text) if contains(words(sentence), folded)), text))
