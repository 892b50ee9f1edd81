"""The wire contract: queues, task names and payloads. No logic, and nothing but the standard library.

Messages carry ids only and mean "look at this row". A message that comes twice, late or never changes nothing but time.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Queue(StrEnum):
    """One queue for each kind of work, each with workers of its own."""

    EVALUATE_CALL = "evaluate-call"
    BACKLOG = "backlog"
    """What can wait: taken by the workers of `evaluate-call` when that queue is empty."""
    SEND_ALERT = "send-alert"
    RUN_SCENARIO = "run-scenario"
    MAINTENANCE = "maintenance"
    DEAD_LETTER = "dead-letter"
    """What was given up on, for people and monitors to see. Nobody consumes it."""


class TaskName(StrEnum):
    """Names as ops read them in Flower and in logs."""

    EVALUATE_CALL = "evaluate-call"
    EVALUATE_CALLS = "evaluate-calls"
    DISPATCH_WORK = "dispatch-work"
    RESCUE_STALLED = "rescue-stalled"
    RAISE_ALERTS = "raise-alerts"
    SEND_ALERT = "send-alert"
    DISPATCH_DELIVERIES = "dispatch-deliveries"
    RESCUE_DELIVERIES = "rescue-deliveries"
    RAISE_DUE_ALERTS = "raise-due-alerts"
    WATCH_HEALTH = "watch-health"
    FORGET_OLD_ALERTS = "forget-old-alerts"
    RECONCILE_DEAD_LETTERS = "reconcile-dead-letters"
    ADVANCE_BATCHES = "advance-batches"
    GRADE_BACKLOG = "grade-backlog"
    RUN_SCENARIO = "run-scenario"
    DISPATCH_RUNS = "dispatch-runs"
    RESCUE_RUNS = "rescue-runs"


@dataclass(frozen=True, slots=True)
class Message:
    """One message: the task it starts, the queue it goes to, keyword arguments: ids, or lists of ids."""

    task: TaskName
    queue: Queue
    kwargs: dict[str, str | list[str]]


REQUIRED: dict[TaskName, frozenset[str]] = {
    TaskName.EVALUATE_CALL: frozenset({"call_id"}),
    TaskName.RAISE_ALERTS: frozenset({"rule_id"}),
    TaskName.SEND_ALERT: frozenset({"delivery_id"}),
    TaskName.RUN_SCENARIO: frozenset({"run_id"}),
}
"""What a task must be told. Every argument whose name ends in `_id` is a UUID, in `_ids` a list of them."""

BULK = 50
"""How many ids one message of the bulk lane carries at most."""


def evaluate_call(
    call_id: uuid.UUID, evaluation_id: uuid.UUID | None = None, *, queue: Queue = Queue.EVALUATE_CALL
) -> Message:
    """Look at this call. Without `evaluation_id`: at its evaluation under the rubric that holds for its agent."""
    kwargs: dict[str, str | list[str]] = {"call_id": str(call_id)}
    if evaluation_id is not None:
        kwargs["evaluation_id"] = str(evaluation_id)
    return Message(TaskName.EVALUATE_CALL, queue, kwargs)


def evaluate_calls(evaluation_ids: Sequence[uuid.UUID]) -> Message:
    """Look at these evaluations, all at the same time; at most `BULK` of them."""
    ids = [str(evaluation_id) for evaluation_id in evaluation_ids]
    return Message(TaskName.EVALUATE_CALLS, Queue.BACKLOG, {"evaluation_ids": ids})


def finished_calls(call_ids: Sequence[uuid.UUID]) -> Message:
    """Look at these calls, at each one's evaluation under the rubric that holds for its agent; at most `BULK` of them."""
    return Message(TaskName.EVALUATE_CALLS, Queue.BACKLOG, {"call_ids": [str(call_id) for call_id in call_ids]})


def raise_alerts(rule_id: uuid.UUID, agent_id: uuid.UUID | None) -> Message:
    """Look at what matched this rule for this agent; None is what concerns no agent."""
    kwargs: dict[str, str | list[str]] = {"rule_id": str(rule_id)}
    if agent_id is not None:
        kwargs["agent_id"] = str(agent_id)
    return Message(TaskName.RAISE_ALERTS, Queue.SEND_ALERT, kwargs)


def send_alert(delivery_id: uuid.UUID) -> Message:
    """Look at this delivery."""
    return Message(TaskName.SEND_ALERT, Queue.SEND_ALERT, {"delivery_id": str(delivery_id)})


def grade_backlog() -> Message:
    """Go on choosing calls that have no verdict under the rubric version that holds for them."""
    return Message(TaskName.GRADE_BACKLOG, Queue.MAINTENANCE, {})


def run_scenario(run_id: uuid.UUID) -> Message:
    """Look at this run."""
    return Message(TaskName.RUN_SCENARIO, Queue.RUN_SCENARIO, {"run_id": str(run_id)})
