"""Alert rules as ops manage them: by the names of workspaces, agents and endpoints."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from qa_worker.application.ports import UnitOfWork, UnitOfWorkFactory
from qa_worker.domain.alert_rule import AlertRule, AlertSeverity, RuleKind
from qa_worker.domain.alert_rule_check import checked
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class RuleDraft:
    """A rule in the words of a person: `agent` is its id as calls name it, `endpoints` are names."""

    name: str
    kind: RuleKind
    severity: AlertSeverity
    endpoints: tuple[str, ...] = ()
    agent: str | None = None
    criterion: str = ""
    threshold: float | None = None
    window_s: int | None = None
    min_samples: int | None = None
    baseline: bool = False
    rise: float | None = None
    cooldown_s: int = 900


@dataclass(frozen=True, slots=True)
class RuleView:
    """A rule as people see it: with names."""

    rule: AlertRule
    agent: str | None
    endpoints: tuple[str, ...]


def add_rule(*, workspace: str, draft: RuleDraft, uow: UnitOfWorkFactory) -> AlertRule:
    """Store a rule. It holds within seconds: each worker reads the rules once in that time.

    Raises:
        InvalidInput: a field is missing, impossible or unused, or names what the workspace doesn't have.
        StoreUnavailable: the database is out of reach.

    """
    with uow() as work:
        owner = work.alert_rules.workspace(workspace)
        rule = AlertRule(
            id=uuid.uuid4(),
            workspace=owner,
            name=draft.name,
            kind=draft.kind,
            severity=draft.severity,
            agent_id=None if draft.agent is None else _agent(work, owner, draft.agent),
            criterion=draft.criterion,
            threshold=draft.threshold,
            window_s=draft.window_s,
            min_samples=draft.min_samples,
            baseline=draft.baseline,
            rise=draft.rise,
            cooldown_s=draft.cooldown_s,
        )
        work.alert_rules.add(checked(rule), [_endpoint(work, workspace, name) for name in draft.endpoints])
        work.commit()
    return rule


def list_rules(*, workspace: str, uow: UnitOfWorkFactory) -> Sequence[RuleView]:
    """The rules of a workspace, by name. Raises StoreUnavailable."""
    with uow() as work:
        owner = work.alert_rules.workspace(workspace)
        agents = work.alert_rules.agent_refs(owner)
        names = {one.ref.id: one.ref.name for one in work.endpoints.all(workspace)}
        return [
            RuleView(
                known.rule,
                None if known.rule.agent_id is None else agents.get(known.rule.agent_id),
                tuple(sorted(names[one] for one in known.endpoints)),
            )
            for known in work.alert_rules.all_of(owner)
        ]


def remove_rule(*, workspace: str, name: str, uow: UnitOfWorkFactory) -> None:
    """Delete a rule with its incidents; the alerts that it raised stay.

    Raises InvalidInput (no such rule) and StoreUnavailable.
    """
    with uow() as work:
        removed = work.alert_rules.remove(work.alert_rules.workspace(workspace), name)
        if not removed:
            raise InvalidInput("name", f"there is no rule {name!r} in this workspace", "See `qa-worker rules list`")
        work.commit()


def _agent(work: UnitOfWork, workspace: WorkspaceId, ref: str) -> uuid.UUID:
    found = work.alert_rules.agent(workspace, ref)
    if found is None:
        raise InvalidInput(
            "agent", f"the workspace has had no call of an agent {ref!r} yet", "Hand one of its calls over first"
        )
    return found


def _endpoint(work: UnitOfWork, workspace: str, name: str) -> uuid.UUID:
    found = work.endpoints.named(workspace, name)
    if found is None:
        raise InvalidInput("endpoint", f"the workspace has no endpoint {name!r}", "See `qa-worker endpoints list`")
    return found.ref.id
