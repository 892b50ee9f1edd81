"""The wire contract: queues, task names and payloads. No logic, and nothing but the standard library.

Messages carry ids only and mean "look at this row". A message that comes twice, late or never changes nothing but time.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum


class Queue(StrEnum):
    """One queue for each kind of work, each with workers of its own."""

    EVALUATE_CALL = "evaluate-call"
    MAINTENANCE = "maintenance"


class TaskName(StrEnum):
    """Names as ops read them in Flower and in logs."""

    EVALUATE_CALL = "evaluate-call"
    DISPATCH_WORK = "dispatch-work"
    RESCUE_STALLED = "rescue-stalled"


@dataclass(frozen=True, slots=True)
class Message:
    """One message: the task it starts, the queue it goes to, keyword arguments of JSON scalars."""

    task: TaskName
    queue: Queue
    kwargs: dict[str, str]


def evaluate_call(call_id: uuid.UUID, evaluation_id: uuid.UUID | None = None) -> Message:
    """Look at this call. Without `evaluation_id`: at its evaluation under the rubric that holds for its agent."""
    kwargs = {"call_id": str(call_id)}
    if evaluation_id is not None:
        kwargs["evaluation_id"] = str(evaluation_id)
    return Message(TaskName.EVALUATE_CALL, Queue.EVALUATE_CALL, kwargs)
