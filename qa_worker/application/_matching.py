"""What is appended in the transaction that records an evaluation: its matches, for others to make alerts of."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import datetime

from qa_worker import messages
from qa_worker.application.alerting import Owner
from qa_worker.application.ports import CallKey, UnitOfWork
from qa_worker.domain.alert_rule import Event, Graded, Match, matching, matching_event
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.evaluation import Evaluation


def note_graded(
    work: UnitOfWork, key: CallKey, evaluation_id: uuid.UUID, evaluation: Evaluation, *, at: datetime
) -> None:
    """Append what this evaluation matches. For a workspace without rules a look into a dictionary."""
    rules = work.alert_rules.of_workspace(key.workspace)
    if rules:
        _append(work, key.workspace, matching(rules, Graded(evaluation_id, key.agent_id, at, evaluation)))


def note_buried(work: UnitOfWork, evaluation_id: uuid.UUID) -> None:
    """Append what an evaluation matches that this transaction has given up on."""
    owner = work.alerts.owner(evaluation_id)
    if owner is not None:
        _note(work, owner)


def note_abandoned(work: UnitOfWork) -> None:
    """As `note_buried`, of all evaluations that this transaction gave up on because their workers died."""
    for owner in work.alerts.just_abandoned():
        _note(work, owner)


def note_event(work: UnitOfWork, workspace: WorkspaceId, event: Event) -> None:
    """Append what a run or a suite that failed matches."""
    _append(work, workspace, matching_event(work.alert_rules.of_workspace(workspace), event))


def _note(work: UnitOfWork, owner: Owner) -> None:
    graded = Graded(owner.evaluation_id, owner.agent_id, owner.at, None, owner.reason)
    _append(work, owner.workspace, matching(work.alert_rules.of_workspace(owner.workspace), graded))


def _append(work: UnitOfWork, workspace: WorkspaceId, matches: Sequence[Match]) -> None:
    for rule_id, agent_id in work.alerts.append(workspace, matches):
        work.nudge(messages.raise_alerts(rule_id, agent_id))
