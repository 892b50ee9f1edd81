"""The rules of workspaces, and the book in which a process keeps them for a few seconds."""

from __future__ import annotations

import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import structlog
from sqlalchemy import Connection, Row, Select, delete, func, select
from sqlalchemy import insert as plain_insert
from sqlalchemy.dialects.postgresql import insert

from qa_worker.adapters.postgres.calls import ensure_workspace
from qa_worker.adapters.postgres.tables import agents, alert_rule_endpoints, alert_rules, endpoints, workspaces
from qa_worker.application.alerting import Concern, KnownRule
from qa_worker.domain.alert_rule import CONDITIONS, AlertRule, AlertSeverity, RuleKind
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.errors import InvalidInput

log = structlog.get_logger(__name__)

_HURRY_S = 5.0
_CONCERNS_KEPT = 10_000


class RuleBook:
    """The enabled rules of all workspaces that look at evaluations, runs and suites; one for each process.

    Read at most every `fresh_s`: a new rule holds, and a removed one stops, that much later. In between a lookup in a
    dictionary is all that a workspace without rules costs.
    """

    def __init__(self, *, fresh_s: float = 5.0, now: Callable[[], float] = time.monotonic) -> None:
        self._fresh_s = fresh_s
        self._now = now
        self._reading = threading.Lock()
        # None until they were read once: "no rules" must not be taken for "none known yet".
        self._rules: dict[uuid.UUID, tuple[AlertRule, ...]] | None = None
        self._looked_at = float("-inf")
        self._nudged: dict[Concern, float] = {}
        self._strange: set[uuid.UUID] = set()

    def of(self, connection: Connection, workspace: WorkspaceId) -> tuple[AlertRule, ...]:
        """The rules of a workspace. Who comes before they were read once waits for them.

        Raises what the reading raised. That has spoilt this transaction; the next one goes on with the rules that were
        known before, where there were any.
        """
        known = self._rules
        if known is None or self._is_stale():
            known = self._read_again(connection)
        return known.get(workspace, ())

    def _is_stale(self) -> bool:
        return self._now() - self._looked_at >= self._fresh_s

    def _read_again(self, connection: Connection) -> dict[uuid.UUID, tuple[AlertRule, ...]]:
        with self._reading:
            known = self._rules
            if known is not None and not self._is_stale():
                return known  # another thread has read them meanwhile
            began = self._now()
            if known is not None:
                # Also where the reading fails: the rules that are known will do until the next one.
                self._looked_at = began
            self._rules = known = self._read(connection)
            self._looked_at = began
            return known

    def _read(self, connection: Connection) -> dict[uuid.UUID, tuple[AlertRule, ...]]:
        grouped: dict[uuid.UUID, list[AlertRule]] = defaultdict(list)
        for row in connection.execute(_HOT.order_by(alert_rules.c.created_at, alert_rules.c.id)):
            rule = _to_rule(row)
            if rule is not None:
                grouped[row.workspace_id].append(rule)
            elif row.id not in self._strange:
                self._strange.add(row.id)
                _log_strange(row)
        return {workspace: tuple(rules) for workspace, rules in grouped.items()}

    def worth_a_nudge(self, concern: Concern, *, cooldown_s: float) -> bool:
        """False where this process asked for the same a moment ago: within the cooldown nothing more would be sent.

        What isn't nudged about is folded by the next sweep.
        """
        now = self._now()
        if now - self._nudged.get(concern, float("-inf")) < min(cooldown_s, _HURRY_S):
            return False
        if len(self._nudged) >= _CONCERNS_KEPT:
            self._nudged.clear()
        self._nudged[concern] = now
        return True


class PostgresAlertRules:
    """Implements the port `AlertRules` on one connection."""

    def __init__(self, connection: Connection, *, book: RuleBook) -> None:
        self._connection = connection
        self._book = book

    def of_workspace(self, workspace: WorkspaceId) -> Sequence[AlertRule]:
        """See the port."""
        return self._book.of(self._connection, workspace)

    def get(self, rule_id: uuid.UUID) -> KnownRule | None:
        """See the port."""
        found = self._known(_KNOWN.where(alert_rules.c.id == rule_id))
        return found[0] if found else None

    def conditions(self) -> Sequence[KnownRule]:
        """See the port."""
        kinds = [kind.value for kind in CONDITIONS]
        return self._known(_KNOWN.where(alert_rules.c.enabled, alert_rules.c.kind.in_(kinds)))

    def all_of(self, workspace: WorkspaceId) -> Sequence[KnownRule]:
        """See the port."""
        return self._known(_KNOWN.where(alert_rules.c.workspace_id == workspace).order_by(alert_rules.c.name))

    def add(self, rule: AlertRule, endpoints: Sequence[uuid.UUID]) -> None:
        """See the port."""
        self._check_owned(rule, endpoints)
        values = asdict(rule)
        values["workspace_id"] = values.pop("workspace")
        added = self._connection.execute(
            insert(alert_rules).values(values).on_conflict_do_nothing().returning(alert_rules.c.id)
        )
        if added.one_or_none() is None:
            raise InvalidInput(
                "name", f"there is a rule {rule.name!r} already", "Choose another name, or remove it first."
            )
        if endpoints:
            rows = [{"rule_id": rule.id, "endpoint_id": endpoint} for endpoint in dict.fromkeys(endpoints)]
            self._connection.execute(plain_insert(alert_rule_endpoints), rows)

    def workspace(self, name: str) -> WorkspaceId:
        """See the port."""
        return ensure_workspace(self._connection, name)

    def agent(self, workspace: WorkspaceId, ref: str) -> uuid.UUID | None:
        """See the port."""
        named = (agents.c.workspace_id == workspace) & (agents.c.ref == ref)
        return self._connection.execute(select(agents.c.id).where(named)).scalar_one_or_none()

    def agent_refs(self, workspace: WorkspaceId) -> Mapping[uuid.UUID, str]:
        """See the port."""
        rows = self._connection.execute(select(agents.c.id, agents.c.ref).where(agents.c.workspace_id == workspace))
        return {row.id: row.ref for row in rows}

    def remove(self, workspace: WorkspaceId, name: str) -> bool:
        """See the port."""
        named = (alert_rules.c.workspace_id == workspace) & (alert_rules.c.name == name)
        return self._connection.execute(delete(alert_rules).where(named)).rowcount == 1

    def _check_owned(self, rule: AlertRule, chosen: Sequence[uuid.UUID]) -> None:
        """What belongs to another workspace is as unknown as what doesn't exist."""
        if rule.agent_id is not None:
            own = select(agents.c.id).where(agents.c.id == rule.agent_id, agents.c.workspace_id == rule.workspace)
            if self._connection.execute(own).one_or_none() is None:
                raise InvalidInput(
                    "agent", "the workspace has no such agent", "Use the id of an agent that has had calls."
                )
        known = select(endpoints.c.id).where(
            endpoints.c.id == func.any(list(chosen)), endpoints.c.workspace_id == rule.workspace
        )
        if len(self._connection.execute(known).all()) != len(set(chosen)):
            raise InvalidInput("endpoints", "the workspace has no such endpoint", "See `qa-worker endpoints list`.")

    def _known(self, query: Select[Any]) -> list[KnownRule]:
        found = []
        for row in self._connection.execute(query):
            rule = _to_rule(row)
            if rule is None:
                _log_strange(row)
            else:
                found.append(KnownRule(rule, row.workspace_name, tuple(row.endpoint_ids or ())))
        return found


_KINDS = frozenset(kind.value for kind in RuleKind)
_ENDPOINT_IDS = (
    select(func.array_agg(alert_rule_endpoints.c.endpoint_id))
    .where(alert_rule_endpoints.c.rule_id == alert_rules.c.id)
    .scalar_subquery()
)
_KNOWN = select(alert_rules, workspaces.c.name.label("workspace_name"), _ENDPOINT_IDS.label("endpoint_ids")).join(
    workspaces, workspaces.c.id == alert_rules.c.workspace_id
)
_HOT = select(alert_rules).where(alert_rules.c.enabled, alert_rules.c.kind.not_in([kind.value for kind in CONDITIONS]))


def _log_strange(row: Row[Any]) -> None:
    log.error("rule_of_unknown_kind", rule_id=str(row.id), rule=row.name, kind=row.kind)


def _to_rule(row: Row[Any]) -> AlertRule | None:
    """The rule; None where it is of a kind that this version doesn't know: a later one wrote it, and was rolled back."""
    if row.kind not in _KINDS:
        return None
    return AlertRule(
        id=row.id,
        workspace=WorkspaceId(row.workspace_id),
        name=row.name,
        kind=RuleKind(row.kind),
        severity=AlertSeverity(row.severity),
        agent_id=row.agent_id,
        criterion=row.criterion,
        threshold=row.threshold,
        window_s=row.window_s,
        min_samples=row.min_samples,
        baseline=row.baseline,
        rise=row.rise,
        cooldown_s=row.cooldown_s,
        enabled=row.enabled,
    )
