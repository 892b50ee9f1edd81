"""How the call ended: with a caller left without an answer, or in the middle. English only, but for question marks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from qa_worker.domain.evidence.excerpts import cut, of_call, sentences
from qa_worker.domain.evidence.facts import Check, Fact
from qa_worker.domain.evidence.speech import Said
from qa_worker.domain.folding import words
from qa_worker.domain.transcript import Role, ToolCall, ToolUse, Transcript

_MORE_HELP = re.compile(
    r"\b(anything|something|else|any other|other (questions|orders|requests)|more (questions|help))\b"
    r"|\b(help|assist) you (with )?(today|further)\b"
)
_FAREWELL = re.compile(
    r"\b(bye|goodbye|thats (all|it|everything)|nothing else|all set|no (further|other|more)|thats what i needed|"
    r"(good|great|nice|lovely) (day|one|night|evening|weekend|rest)|take care|covers (it|everything|what)|im good|"
    r"no (thanks|thank you)|dont (need|have) any(thing)?|talk to you (later|soon)|have a (good|great|nice))\b"
)
_THANKS = re.compile(
    r"\b(thanks?|thank you|appreciate|got it|understood|(sounds|looks) (good|great|fine)|"
    r"ill (watch|keep|wait|hold|follow|reach|call|hang|look))\b"
)
_NOD = re.compile(r"(no|nope|ok|okay|alright|perfect|great|wonderful|awesome|fine|good|cool)( \w+)?")
_ASSENT = re.compile(r"(yes|yeah|yep|sure|correct|right|go ahead|please do|yes please)( please| thanks)?")
_REQUEST = re.compile(r"\b(please|transfer me|can you|could you|i need|i want)\b")
_CONDITION = re.compile(r"\b(if|when|let me know)\b")
_HOLD = re.compile(
    r"\b((one|just a|a) (moment|second|minute)|please hold|hold on|bear with me|give me a|let me (check|look|pull|see|find)|"
    r"(ill|im going to|i will) (now )?(check|look|pull|find|see)|im (checking|looking|pulling))\b"
)
_HANDS_OVER = re.compile(r"transfer|hand_?off|handover|escalat|end_?call|hang_?up|terminate|voicemail", re.IGNORECASE)
_SAYS_TRANSFER = re.compile(r"\b(transfer|connect|put(ting)? you through|escalat|live agent|representative)\w*")


def offers_more(folded: str) -> bool:
    """Whether the agent only asks if there is anything else, which needs no answer and may be asked often."""
    return _MORE_HELP.search(folded) is not None


def unanswered(transcript: Transcript, speech: Sequence[Said]) -> Iterator[Fact]:
    """The caller has the last word, and it is no goodbye, thanks or nod: nobody answered."""
    if not speech or speech[-1].role is not Role.CALLER:
        return
    last = speech[-1]
    asked = next((turn.text for turn in reversed(speech) if turn.role is Role.AGENT), "")
    wants = _wanted(last.text, asked)
    if wants and not _handed_over(transcript, last.turn):
        yield Fact(Check.UNANSWERED_CALLER, "the call ends before the agent answers", last.turn, cut(wants))


def _wanted(text: str, asked: str) -> str:
    """The sentence of the caller's last turn that wants an answer, or nothing. `asked` is the agent's turn before."""
    parts = list(sentences(text))
    *_, before, last = ("", "", *parts)
    final = words(last)
    if not final or _FAREWELL.search(final) or (_FAREWELL.search(words(before)) and not _REQUEST.search(final)):
        return ""
    questions = [sentence for sentence in parts if "?" in sentence]
    if questions:
        return questions[-1]
    if _ASSENT.fullmatch(final):
        return last if _questions(asked) else ""
    return "" if _THANKS.search(final) or _NOD.fullmatch(final) else last


def _questions(text: str) -> list[str]:
    return [sentence for sentence in sentences(text) if sentence.endswith("?") and not offers_more(words(sentence))]


def abrupt_end(transcript: Transcript, speech: Sequence[Said], uses: Sequence[ToolUse]) -> Iterator[Fact]:
    """The call stops in the middle: after a tool call without result, a promise to look, or an unanswered question.

    Not where the call was handed over, and not after "anything else?". Where the caller spoke last it is
    `unanswered` instead.
    """
    last = speech[-1] if speech else None
    if _handed_over(transcript, last.turn if last else 0) or (last and last.role is Role.CALLER):
        return
    call = _waiting_call(transcript, uses)
    if call is not None:
        detail = "the call ends before the tool answered"
        yield Fact(Check.ABRUPT_END, detail, len(transcript) - 1, of_call(call), call.name)
    elif last is not None:
        final = [*sentences(last.text)][-1]
        if why := _broken_off(last.words, final):
            yield Fact(Check.ABRUPT_END, why, last.turn, cut(final))


def _waiting_call(transcript: Transcript, uses: Sequence[ToolUse]) -> ToolCall | None:
    """The call that the last turn makes; none where the platform seems to record no results at all."""
    if not uses or uses[-1].turn != len(transcript) - 1 or uses[-1].result is not None:
        return None
    recorded = any(use.result for use in uses) or not transcript.turns[-1].text.strip()
    return uses[-1].call if recorded else None


def _broken_off(turn: str, final: str) -> str:
    """Why the call can't end here; `turn` is folded, `final` its last sentence as it stands there."""
    if _SAYS_TRANSFER.search(turn) and "?" not in final:
        return ""
    if _questions(final):
        return "the call ends with the agent's question unanswered"
    folded = words(final)
    promised = _HOLD.search(folded) and not _CONDITION.search(folded)
    return "the call ends where the agent promised to look" if promised else ""


def _handed_over(transcript: Transcript, start: int) -> bool:
    """Whether the agent passed the call on, or hung up, from this turn on."""
    return any(_HANDS_OVER.search(call.name) for turn in transcript.turns[start:] for call in turn.tool_calls)
