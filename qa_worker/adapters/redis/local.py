"""The circuit breaker of one process: pybreaker, kept to what it does well.

pybreaker holds the state, and hears of outcomes through `calling()` only: `call()` and the decorator hold a lock for the
whole call. A request here is admitted and reported at different moments, which `calling()` can't span: a context left
open for a cancelled request would count as a failure, and an outcome that says nothing as a success (it counts excluded
exceptions so, and every BaseException against). So what counts is given to it at the moment of the report. Its own
counter starts again at each success, and opens by luck at 20 % errors; `domain/breaker.py` counts instead, and pybreaker
is told of the failure that decides (`fail_max=1`). Time, doubling and the one probe are ours too: its half-open state
lets everybody through.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pybreaker

from qa_worker.application.limits import Verdict
from qa_worker.domain import breaker as rules_of
from qa_worker.domain.breaker import BreakerRules

RELEASED_S = 1.0
"""A probe that came back without an answer (nothing was sent, or a 429) makes room for the next after this."""


class _DownError(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Pass:
    """What is answered to a request that asks; `epoch` comes back with its report."""

    open_for_s: float
    probe: str
    share: float
    epoch: int


class LocalBreaker:
    """One service. Behaves as `gate.lua` does, step by step; `now` is seconds of any clock that doesn't go back."""

    def __init__(self, name: str, rules: BreakerRules) -> None:
        self._rules = rules
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=1, reset_timeout=rules.recovery_s, name=name, throw_new_error_on_trip=False
        )
        self._epoch = 0
        self._trips = 0
        self._until = 0.0
        self._probe = ""
        self._since: float | None = None
        self._history = ""
        self._heard_at = 0.0

    def admit(self, now: float, lease: str) -> Pass:
        """Whether a request may leave. The first that asks when the time is up is given `lease` as the one probe."""
        self._recover(now)
        if self._breaker.current_state == pybreaker.STATE_CLOSED:
            return Pass(0.0, "", self.share(now), self._epoch)
        if now >= self._until:
            self._breaker.half_open()
            self._probe, self._until = lease, now + self._rules.probe_lease_s
            return Pass(0.0, lease, 1.0, self._epoch)
        left = self._until - now
        return Pass(min(left, self._rules.ask_again_s) if self._probe else left, "", 1.0, self._epoch)

    def report(self, now: float, verdict: Verdict, *, epoch: int, probe: str, outcomes: str) -> None:
        """What came of it. Whatever left before the last opening, or lost its lease, says nothing any more."""
        self._recover(now)
        if probe:
            if probe == self._probe:
                self._probed(now, verdict)
        elif self._breaker.current_state == pybreaker.STATE_CLOSED and epoch == self._epoch:
            self._heard(now, outcomes)

    def hold(self, until: float) -> None:
        """Open until then, because others say so."""
        self._breaker.open()
        self._epoch += 1
        self._probe, self._since, self._until = "", None, until

    def state(self, now: float) -> str:
        """closed, open, probing or recovering."""
        self._recover(now)
        if self._breaker.current_state == pybreaker.STATE_CLOSED:
            return "closed" if self._since is None else "recovering"
        return "probing" if self._probe else "open"

    def open_for_s(self, now: float) -> float:
        """How long it stays as it is."""
        return max(0.0, self._until - now)

    def share(self, now: float) -> float:
        """The part of the rate that is let through."""
        if self._breaker.current_state != pybreaker.STATE_CLOSED:
            return 0.0
        return 1.0 if self._since is None else rules_of.share_at(now - self._since, self._rules)

    @property
    def failures(self) -> int:
        """Among the outcomes that are looked at."""
        return self._history.count(rules_of.DOWN)

    def _recover(self, now: float) -> None:
        if self._since is not None and rules_of.share_at(now - self._since, self._rules) >= 1.0:
            self._since, self._trips = None, 0

    def _probed(self, now: float, verdict: Verdict) -> None:
        self._probe = ""
        match verdict:
            case Verdict.UP:
                with self._breaker.calling():
                    pass
                self._since, self._history, self._until = now, "", 0.0
            case Verdict.DOWN:
                self._trip(now)
            case Verdict.SILENT:
                self._breaker.open()
                self._until = now + RELEASED_S

    def _heard(self, now: float, outcomes: str) -> None:
        if now - self._heard_at > rules_of.FORGOTTEN_AFTER_S:
            self._history = ""
        self._heard_at = now
        self._history = rules_of.remembered(self._history, outcomes, self._rules)
        if rules_of.is_down(self._history, self._rules):
            self._trip(now)

    def _trip(self, now: float) -> None:
        with suppress(_DownError), self._breaker.calling():
            raise _DownError
        self._epoch += 1
        self._trips += 1
        self._history, self._since = "", None
        self._until = now + rules_of.open_s(self._trips, self._rules)
