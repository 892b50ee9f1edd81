"""One execution of a scenario: its states, how its conversation ended, and which state that makes.

pending --claimed--> running --graded--> passed | failed
   ^  |                | | |
   |  |                | | +--the caller's own fault--> invalid   (another attempt is another run)
   |  +--cancelled     | +--cancelled--> cancelled
   |                   +--could not be played or graded--> error
   +----- worker died, or parked; goes on at the turn where it stood
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from qa_worker.domain.errors import QaError
from qa_worker.domain.evaluation import Verdict


class RunState(StrEnum):
    """Where a run stands. Only PASSED and FAILED say something of the agent.

    All but PENDING and RUNNING are final; the replay of an ERROR that was given up on is a new, manual start.
    """

    PENDING = "pending"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    INVALID = "invalid"
    CANCELLED = "cancelled"


MEASURED = frozenset({RunState.PASSED, RunState.FAILED})
UNMEASURED = frozenset({RunState.ERROR, RunState.INVALID})
"""Meant to say something of the agent, and do not."""
FINAL = frozenset(RunState) - {RunState.PENDING, RunState.RUNNING}
TRANSITIONS: frozenset[tuple[RunState, RunState]] = frozenset(
    {
        (RunState.PENDING, RunState.RUNNING),
        (RunState.PENDING, RunState.CANCELLED),
        (RunState.RUNNING, RunState.PENDING),
        *((RunState.RUNNING, state) for state in FINAL),
    }
)


class Completion(StrEnum):
    """How the conversation ended. All but CANCELLED and ERROR are graded on what happened so far."""

    CALLER_HUNG_UP = "caller_hung_up"
    AGENT_ENDED = "agent_ended"
    TRANSFERRED = "transferred"
    """The agent handed the caller over to somebody else."""
    GOAL_REACHED = "goal_reached"
    """The scenario's end conditions were met and confirmed."""
    SCRIPT_ENDED = "script_ended"
    """The last fixed line was said and answered."""
    MAX_TURNS = "max_turns"
    TIMEOUT = "timeout"
    """The deadline of the run, or the longest duration of the conversation."""
    CANCELLED = "cancelled"
    ERROR = "error"
    """The caller or the agent could not be reached, or gave no usable reply."""


NOT_GRADED = frozenset({Completion.CANCELLED, Completion.ERROR})


@dataclass
class IllegalTransition(QaError):
    """A run can't go from this state to that one."""

    before: RunState
    after: RunState

    def __str__(self) -> str:
        return f"a run that is {self.before} can't become {self.after}"


@dataclass(frozen=True, slots=True)
class Ended:
    """What is recorded of a run that is over. `message` says why, where the state alone doesn't."""

    state: RunState
    completion: Completion
    message: str = ""


def move(before: RunState, after: RunState) -> RunState:
    """`after`, where a run may go there. Raises IllegalTransition."""
    if (before, after) not in TRANSITIONS:
        raise IllegalTransition(before, after)
    return after


def settle(
    completion: Completion, *, verdict: Verdict | None = None, faults: tuple[str, ...] = (), message: str = ""
) -> Ended:
    """The state in which a run ends: the one place that decides it, also when a cancel meets a completion.

    The conversation that came to its end before the cancel was seen is graded, and its verdict stays; the one that was
    cut short is `cancelled` whatever else is known. `faults` are the simulated caller's own: such a run is `invalid`,
    whatever the verdict, and never the agent's. A verdict that measured nothing makes an `error`, not a failure.
    """
    if completion is Completion.CANCELLED:
        return Ended(RunState.CANCELLED, completion, message)
    if completion is Completion.ERROR:
        return Ended(RunState.ERROR, completion, message or "the conversation could not be held")
    if faults:
        return Ended(RunState.INVALID, completion, "; ".join(faults))
    if verdict is Verdict.PASS:
        return Ended(RunState.PASSED, completion, message)
    if verdict is Verdict.FAIL:
        return Ended(RunState.FAILED, completion, message)
    return Ended(RunState.ERROR, completion, message or _unmeasured(verdict))


def _unmeasured(verdict: Verdict | None) -> str:
    if verdict is Verdict.NEEDS_REVIEW:
        return "the judge could not decide: a person must look"
    return "the conversation was held and could not be graded"
