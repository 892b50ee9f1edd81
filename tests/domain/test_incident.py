"""Incidents as a state machine: what is told when, and that nothing is dropped."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from qa_worker.domain.incident import CALM_S, Incident, Say, begin, calm_at, fold

AT = datetime(2026, 1, 31, 9, tzinfo=UTC)
COOLDOWN_S = 900


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def an_open_incident(*, gathered: int = 0) -> Incident:
    """Opened at AT with one match that was told of; `gathered` more since then."""
    opened = fold(begin(AT), matches=1, now=AT, cooldown_s=COOLDOWN_S).incident
    return fold(opened, matches=gathered, now=AT, cooldown_s=COOLDOWN_S).incident


def test_the_first_match_is_told_at_once() -> None:
    step = fold(begin(AT), matches=1, now=AT, cooldown_s=COOLDOWN_S)

    assert step.say is Say.OPENED
    assert step.incident == Incident(AT, AT, quiet_until=after(COOLDOWN_S), match_count=1, gathered=0)


def test_matches_within_the_cooldown_are_gathered() -> None:
    step = fold(an_open_incident(), matches=3, now=after(COOLDOWN_S - 1), cooldown_s=COOLDOWN_S)

    assert step.say is Say.NOTHING
    assert (step.incident.gathered, step.incident.match_count) == (3, 4)


def test_what_was_gathered_goes_out_as_one_digest_when_the_cooldown_ends() -> None:
    step = fold(an_open_incident(gathered=3), matches=2, now=after(COOLDOWN_S), cooldown_s=COOLDOWN_S)

    assert step.say is Say.DIGEST
    assert (step.incident.gathered, step.incident.match_count) == (0, 6)
    assert step.incident.quiet_until == after(2 * COOLDOWN_S)


def test_an_incident_is_over_after_its_cooldown_when_nothing_matched() -> None:
    step = fold(an_open_incident(), matches=0, now=after(COOLDOWN_S), cooldown_s=COOLDOWN_S)

    assert step.say is Say.RESOLVED
    assert step.incident.resolved_at == after(COOLDOWN_S)


def test_what_was_gathered_is_told_before_an_incident_is_over() -> None:
    late = after(10 * COOLDOWN_S)
    digest = fold(an_open_incident(gathered=1), matches=0, now=late, cooldown_s=COOLDOWN_S)
    end = fold(digest.incident, matches=0, now=late + timedelta(seconds=COOLDOWN_S), cooldown_s=COOLDOWN_S)

    assert (digest.say, end.say) == (Say.DIGEST, Say.RESOLVED)


def test_without_a_cooldown_every_match_is_told_and_the_end_still_waits_for_calm() -> None:
    opened = fold(begin(AT), matches=1, now=AT, cooldown_s=0).incident
    second = fold(opened, matches=1, now=after(1), cooldown_s=0)

    assert second.say is Say.DIGEST
    assert fold(second.incident, matches=0, now=after(CALM_S), cooldown_s=0).say is Say.NOTHING
    assert fold(second.incident, matches=0, now=after(CALM_S + 1), cooldown_s=0).say is Say.RESOLVED


@given(matches=st.integers(0, 5), seconds=st.floats(0, 10_000), cooldown_s=st.integers(0, 5000))
def test_the_same_question_has_the_same_answer(matches: int, seconds: float, cooldown_s: int) -> None:
    first, second = (
        fold(an_open_incident(), matches=matches, now=after(seconds), cooldown_s=cooldown_s) for _ in range(2)
    )

    assert first == second


class IncidentMachine(RuleBasedStateMachine):
    """Matches come, time passes, sweeps look; `told` counts the matches that an alert has told of."""

    def __init__(self) -> None:
        super().__init__()
        self.now = AT
        self.incident: Incident | None = None
        self.came = 0
        self.told = 0
        self.last_told_at: datetime | None = None

    @rule(seconds=st.sampled_from([0.0, 1.0, 100.0, 300.0, 900.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(matches=st.integers(1, 3))
    def something_matches(self, matches: int) -> None:
        self.came += matches
        self._fold(matches)

    @precondition(lambda self: self.incident is not None)
    @rule()
    def a_sweep_looks(self) -> None:
        self._fold(0)

    def _fold(self, matches: int) -> None:
        before = self.incident or begin(self.now)
        step = fold(before, matches=matches, now=self.now, cooldown_s=COOLDOWN_S)
        if step.say in (Say.OPENED, Say.DIGEST):
            assert (step.say is Say.OPENED) == (before.match_count == 0)
            if step.say is Say.DIGEST:
                assert self.last_told_at is not None
                assert self.now >= self.last_told_at + timedelta(seconds=COOLDOWN_S)
            self.told += before.gathered + matches
            self.last_told_at = self.now
        if step.say is Say.RESOLVED:
            assert step.incident.gathered == 0
            assert self.now >= calm_at(before, cooldown_s=COOLDOWN_S)
        self.incident = None if step.say is Say.RESOLVED else step.incident

    @invariant()
    def every_match_was_told_once_or_is_gathered(self) -> None:
        gathered = self.incident.gathered if self.incident else 0
        assert self.came == self.told + gathered


TestIncidents = IncidentMachine.TestCase
