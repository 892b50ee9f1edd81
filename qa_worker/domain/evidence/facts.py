"""What evidence consists of: facts that can be pointed at in the transcript, and timing figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Check(StrEnum):
    """A check that needs no model. Its value is the name that reports and findings show."""

    REPEATED_TOOL_CALL = "repeated_tool_call"
    UNSAID_IDENTIFIER = "unsaid_identifier"
    MALFORMED_TOOL_CALL = "malformed_tool_call"
    FAILED_TOOL_CALL = "failed_tool_call"
    CLAIM_AFTER_FAILED_TOOL = "claim_after_failed_tool"
    MISSING_REQUIRED_TOOL = "missing_required_tool"
    FORBIDDEN_TOOL = "forbidden_tool"
    MISSING_REQUIRED_PHRASE = "missing_required_phrase"
    FORBIDDEN_PHRASE = "forbidden_phrase"
    AGENT_LOOP = "agent_loop"
    REPEATED_PROMPT = "repeated_prompt"
    UNANSWERED_CALLER = "unanswered_caller"
    ABRUPT_END = "abrupt_end"
    SLOW_RESPONSE = "slow_response"
    DEAD_AIR = "dead_air"
    AGENT_INTERRUPTS = "agent_interrupts"


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that a check found. `quote` is copied from the turn (or the tool call) that `turn` numbers.

    `turn` is None for an omission, which no turn shows. `detail` explains the fact in one sentence. `subject` is what
    the fact is about where more than its check matters: the phrase, the tool's name.
    """

    check: Check
    detail: str
    turn: int | None = None
    quote: str = ""
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds from the end of a caller turn to the agent's first word after it; `n` answers were measured."""

    n: int
    mean_s: float
    p50_s: float
    p95_s: float
    max_s: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Figures of a call whose turns carry times; None where there was nothing to measure.

    response_rate: caller turns that the agent answered before the caller spoke again / caller turns that expect one.
    agent_interruptions / caller_interruptions: turns that start while the other party speaks.
    yield_mean_s: from the start of a caller's interruption to the agent's silence; yield_rate: share within 2.0 s.
    talk_share: the agent's speech time / all speech time. dead_air_s: sum of the silences longer than the threshold.
    """

    response_latency: Latency | None
    response_rate: float | None
    caller_turns: int
    agent_interruptions: int
    caller_interruptions: int
    yield_mean_s: float | None
    yield_rate: float | None
    overlap_s: float
    talk_share: float | None
    dead_air_s: float
    longest_silence_s: float
    agent_words_per_minute: float | None
    caller_words_per_minute: float | None
    duration_s: float


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that could be established without a model.

    `applied` names the checks that had something to look at: a check that is missing from it found nothing because
    there was nothing to find it in, which is not the same as passing it. `notes` tell a judge what it has to know and
    can't see in the transcript; they are findings of nobody.
    """

    facts: tuple[Fact, ...] = ()
    applied: frozenset[Check] = field(default_factory=frozenset)
    timing: Timing | None = None
    notes: tuple[str, ...] = ()

    def of(self, *checks: Check) -> tuple[Fact, ...]:
        """The facts that these checks found."""
        return tuple(fact for fact in self.facts if fact.check in checks)
