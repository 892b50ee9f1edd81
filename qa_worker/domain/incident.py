"""Repeated matches of one rule and agent are one incident: told at once, then in digests, then that it is over.

none --first match--> open: an alert at once
open --match within the cooldown--> open: gathered, never dropped
open --cooldown ended, something gathered--> open: one digest of it, and a new cooldown
open --cooldown ended, nothing gathered, calm for long enough--> resolved: told too
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

CALM_S = 300
"""An incident is over after its cooldown, and not before it was calm for so many seconds."""


class Say(StrEnum):
    """What is told of an incident."""

    NOTHING = "nothing"
    OPENED = "opened"
    DIGEST = "digest"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Incident:
    """`gathered` counts the matches that no alert has told of yet; until `quiet_until` they stay so."""

    opened_at: datetime
    last_match_at: datetime
    quiet_until: datetime
    match_count: int = 0
    gathered: int = 0
    resolved_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What an incident becomes, and what is told: an OPENED or DIGEST alert takes all that was gathered."""

    incident: Incident
    say: Say


def begin(now: datetime) -> Incident:
    """An incident that nothing was told of yet: its cooldown has not begun."""
    return Incident(opened_at=now, last_match_at=now, quiet_until=now)


def fold(incident: Incident, *, matches: int, now: datetime, cooldown_s: int) -> Step:
    """Take so many new matches in (0: only time has passed), and decide what is told."""
    known = replace(
        incident,
        match_count=incident.match_count + matches,
        gathered=incident.gathered + matches,
        last_match_at=max(incident.last_match_at, now) if matches else incident.last_match_at,
    )
    if now < known.quiet_until:
        return Step(known, Say.NOTHING)
    if known.gathered:
        told = replace(known, gathered=0, quiet_until=now + timedelta(seconds=cooldown_s))
        return Step(told, Say.OPENED if incident.match_count == 0 else Say.DIGEST)
    if now >= calm_at(known, cooldown_s=cooldown_s):
        return Step(replace(known, resolved_at=now), Say.RESOLVED)
    return Step(known, Say.NOTHING)


def calm_at(incident: Incident, *, cooldown_s: int) -> datetime:
    """When an incident that nothing more matches is over."""
    return incident.last_match_at + timedelta(seconds=max(cooldown_s, CALM_S))
