"""How fast requests may leave: three token buckets, and a pace that grows into them.

This is the model of `adapters/redis/limiter.lua`, operation by operation and in the same order of arithmetic: a property
test drives both with the same stream. It runs by itself where Redis is away.

*Levels.* Each meter refills continuously at `use` x limit and holds at most `burst_s` of that. A request leaves when the
level covers its need, or when the bucket is full: then it goes below zero, so that a need greater than the bucket is a
long wait and never a deadlock. Granted in any time t: at most max(bucket, need) + rate x t.

*Booking ahead.* A request whose turn comes within `book_ahead_s` takes its room now and is told how long to wait. That
keeps the order, costs one question for each request, and lets nobody big starve; only those behind are refused. Each
refusal moves `queue` on by that request's share of the rate, so that 500 refused ones come back one after the other.

*Pace.* `lead` is a fourth bucket, in seconds of the tightest rate, of `slack_s`. It refills at `pace` x `share`. The pace
starts at the assumed limits, doubles every `double_s` while it is what holds requests back, up to `peak` (a burst is
spent at twice the rate, not in one instant), and starts again after `idle_s` without traffic: providers refuse traffic
that grows too fast (`ramp_limit_exceeded`). A pause cuts it as TCP does: to half at once, quickly back to 85 %, then
slowly, so that others who use the same limits find room.

*Live first.* What can wait (a backlog, a tenant's flood) leaves the last `kept_s` of lead and levels alone. So a live
call finds room while a backlog takes all that comes in, and it costs nothing: what is kept is filled once, and stays.

*Load.* A service that says it is overloaded (529) gets half of the rate from everybody at once, and half of that where it
still says so a second later; every `LOAD_STEP_S` without it doubles the rate again. So a single refusal costs about a second
of the rate, and a service that is slow to recover is not pushed over by what waits.

*Spend limit.* When the provider's own spend limit is reached nobody leaves for minutes, and then one alone: only its answer
can tell whether the limit was raised. It holds a lease, so that another asks if it dies. Once it is answered, all may.

*Room.* What a request usually needs is remembered, so that a dispatcher can ask how many more of them would leave soon,
and sends no more than those to the workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

Amounts = tuple[float, float, float]
"""Of requests, input tokens, output tokens."""
Known = tuple[float | None, float | None, float | None]

METERS = ("requests", "input_tokens", "output_tokens")
LONGEST_WAIT_S = 60.0
"""Nobody is told to come back later than that, a pause aside: estimates of a longer queue are worth nothing."""
_UNLEARNT_WAIT_S = 5.0
_CUT = 0.85
_LOWEST_CEILING = 0.2
_GROWTH_STEP_S = 1.0
_LEAST = 1e-9
_FIRST: Amounts = (1.0, 10_000.0, 1_000.0)
"""What a request is taken to need before there was one: a few of them tell soon enough."""
_NEWEST = 0.1
"""The weight of the latest request in what is usual."""
LOAD_STEP_S = 2.5
"""As long as a step of the gate's recovery."""
LEAST_LOAD = 0.125
"""An eighth of the rate always leaves: what is worse than that is for the gate to stop."""
_EASE_EVERY_S = 1.0
"""The refusals of requests that were under way together are one."""
_STANDING_BY = 2.0
"""Sent when it is time to ask whether the spend limit still holds: one asks, the other is there for a lost message."""


@dataclass(frozen=True, slots=True)
class Pacing:
    """The constants. `start` are the limits a minute that are assumed before any are learnt.

    `use` leaves 1 % to the provider, so that its bucket is always a little fuller than ours and jitter on the way makes
    no 429. `regrow` is the part of the rate that the pace gains in a second after a cut. `kept_s` seconds of the rate are
    kept from what can wait: half of the slack, so that the pace grows just when such work is held back. `probe_lease_s` is
    longer than any request takes.
    """

    start: Amounts
    burst_s: float = 10.0
    double_s: float = 1.5
    book_ahead_s: float = 2.0
    use: float = 0.99
    slack_s: float = 2.0
    kept_s: float = 1.0
    peak: float = 2.0
    regrow: float = 0.02
    idle_s: float = 60.0
    probe_lease_s: float = 65.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """The state of one model's limits. Times are seconds of one clock; `limits` are a minute; `learnt` is 0 or 1.

    `usual` is what a request needs, on a moving average; zeros before the first. `capped_until`: nobody leaves before,
    because of the provider's spend limit, and one alone then; 0 while that is not reached. `eased` is the part of the
    rate that was left by the last overload, at `eased_at`.
    """

    limits: Amounts
    levels: Amounts
    learnt: Amounts
    at: float
    paced_at: float
    pace: float
    ceiling: float
    lead: float
    queue: float = 0.0
    paused_until: float = 0.0
    usual: Amounts = (0.0, 0.0, 0.0)
    capped_until: float = 0.0
    eased: float = 1.0
    eased_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Turn:
    """Whether room was taken, and how long to wait: before leaving, or before asking again.

    `capped`: it was not, because of the provider's spend limit. `probe`: it was, to ask whether that still holds.
    """

    granted: bool
    wait_s: float
    capped: bool = False
    probe: bool = False


def opened(pacing: Pacing, now: float) -> Bucket:
    """A full bucket of the assumed limits."""
    full = _each(lambda limit: pacing.burst_s * (pacing.use * limit / 60), pacing.start)
    return Bucket(
        limits=pacing.start,
        levels=full,
        learnt=(0.0, 0.0, 0.0),
        at=now,
        paced_at=now,
        pace=1.0,
        ceiling=pacing.peak,
        lead=pacing.slack_s,
    )


def reserve(
    bucket: Bucket, now: float, need: Amounts, *, share: float, pacing: Pacing, kept_s: float = 0.0
) -> tuple[Bucket, Turn]:
    """Take `need` of all meters now or ahead of time, or nothing. `share` (over 0, up to 1) slows the pace.

    `kept_s` seconds of the rate are left for others: what can wait leaves them to what can't.
    """
    share *= load_at(bucket, now)
    rates = _rates(bucket.limits, pacing)
    cost = max(need[0] / rates[0], need[1] / rates[1], need[2] / rates[2])
    bucket = _paced(filled(bucket, now, pacing), now, share, pacing)
    if bucket.capped_until > now:
        return bucket, Turn(granted=False, wait_s=bucket.capped_until - now, capped=True)
    if bucket.paused_until > now:
        return _refused(bucket, bucket.paused_until - now, cost)
    speed = bucket.pace * share
    lead, levels = _free(bucket, share, kept_s, pacing)
    ahead = max(0.0, -lead / speed, *_each(lambda level, rate: -level / rate, levels, rates))
    if ahead > pacing.book_ahead_s:
        return _refused(bucket, ahead - pacing.book_ahead_s / 2, cost)
    wait = max(
        0.0,
        (min(cost, _top(bucket.pace, share, pacing, kept_s)) - lead) / speed,
        *_each(
            lambda amount, level, rate: (min(amount, (pacing.burst_s - kept_s) * rate) - level) / rate,
            need,
            levels,
            rates,
        ),
    )
    # Spent when it leaves: a level that is full by then has not gone on filling meanwhile.
    levels = _each(
        lambda level, amount, rate: min(level, (pacing.burst_s - wait) * rate) - amount, bucket.levels, need, rates
    )
    usual = _each(lambda was, amount: was + _NEWEST * (amount - was), bucket.usual, need) if any(bucket.usual) else need
    probe = bucket.capped_until > 0
    capped_until = now + wait + pacing.probe_lease_s if probe else 0.0
    taken = replace(bucket, levels=levels, lead=bucket.lead - cost, usual=usual, capped_until=capped_until)
    return taken, Turn(granted=True, wait_s=wait, probe=probe)


def room(bucket: Bucket, now: float, *, within_s: float, share: float, pacing: Pacing) -> float:
    """How many more requests of the usual size, that can wait, leave within `within_s`, after all that are booked."""
    share *= load_at(bucket, now)
    bucket = _paced(filled(bucket, now, pacing), now, share, pacing)
    open_s = within_s - max(0.0, bucket.paused_until - now)
    if open_s <= 0 or bucket.capped_until > now:
        return 0.0
    need = bucket.usual if any(bucket.usual) else _FIRST
    rates = _rates(bucket.limits, pacing)
    cost = max(need[0] / rates[0], need[1] / rates[1], need[2] / rates[2])
    grown = _grown(bucket, bucket.pace, open_s / 2, pacing)
    lead, levels = _free(bucket, share, pacing.kept_s, pacing)
    paced = (lead + grown * share * open_s) / cost
    held = _each(lambda level, rate, amount: (level + rate * open_s) / max(amount, _LEAST), levels, rates, need)
    return max(0.0, min(paced, _STANDING_BY if bucket.capped_until > 0 else math.inf, *held))


def settle(bucket: Bucket, now: float, change: Amounts, pacing: Pacing) -> Bucket:
    """Give back `change` (reserved less used) of each meter; below zero it takes. Never above a full bucket."""
    bucket = filled(bucket, now, pacing)
    full = _full(bucket.limits, pacing)
    return replace(bucket, levels=_each(lambda level, more, most: min(most, level + more), bucket.levels, change, full))


def pause(bucket: Bucket, now: float, seconds: float) -> Bucket:
    """Nobody leaves for so long. The pace is cut once for each pause, not for each of the refusals it came with."""
    if bucket.paused_until <= now:
        ceiling = max(_LOWEST_CEILING, _CUT * min(1.0, bucket.pace))
        bucket = replace(bucket, ceiling=ceiling, pace=min(bucket.pace, ceiling / 2))
    return replace(bucket, paused_until=max(bucket.paused_until, now + seconds))


def ease(bucket: Bucket, now: float) -> Bucket:
    """Half of the rate for everybody: the service is overloaded. Once for each burst of refusals."""
    if 0.0 <= now - bucket.eased_at < _EASE_EVERY_S:
        return bucket
    return replace(bucket, eased=max(LEAST_LOAD, load_at(bucket, now) / 2), eased_at=now)


def load_at(bucket: Bucket, now: float) -> float:
    """The part of the rate that an overloaded service is sent; 1 when that is over. A clock that was set back ends it."""
    passed = now - bucket.eased_at
    return min(1.0, bucket.eased * 2.0 ** min(passed // LOAD_STEP_S, 30.0)) if passed >= 0 else 1.0


def cap(bucket: Bucket, now: float, seconds: float, *, probe: bool) -> tuple[Bucket, bool]:
    """Nobody leaves for so long, and then one alone; 0 seconds: the spend limit doesn't hold any more.

    While nobody leaves, only the `probe` has anything new to say. Returns whether this was new.
    """
    if bucket.capped_until > now and not probe:
        return bucket, False
    return replace(bucket, capped_until=now + seconds if seconds > 0 else 0.0), True


def learn(bucket: Bucket, now: float, limits: Known, left: Known, pacing: Pacing) -> Bucket:
    """Take over limits (already capped), and lower the levels to what is `left`.

    What was spent of the old bucket stays spent of the new one. `left` is as old as the answer that told it, and doesn't
    know of requests that have not arrived; so it only ever lowers, and what is in flight is not taken off it again: with
    hundreds in flight that would stop everything, while our own level has all of them in it already.
    """
    bucket = filled(bucket, now, pacing)
    known = _each(lambda new, old: old if new is None else new, limits, bucket.limits)
    full, was_full = _full(known, pacing), _full(bucket.limits, pacing)
    levels = _each(lambda level, new, old: level + (new - old), bucket.levels, full, was_full)
    booked = _booked_s(bucket, now, pacing)
    room = _each(
        lambda level, rest, rate: level if rest is None else min(level, rest - booked * rate),
        levels,
        left,
        _rates(known, pacing),
    )
    # The same requests a second as before: the pace is relative to the limits, and grows from there.
    grown = _slowed(bucket, bucket.limits, known)
    return replace(
        bucket,
        limits=known,
        levels=room,
        learnt=_each(lambda new, was: was if new is None else 1.0, limits, bucket.learnt),
        pace=bucket.pace * grown,
        queue=bucket.queue * grown,
    )


def filled(bucket: Bucket, now: float, pacing: Pacing) -> Bucket:
    """The levels as they are now. A clock that was set back refills nothing and goes on from there."""
    passed = max(0.0, now - bucket.at)
    rates = _rates(bucket.limits, pacing)
    levels = _each(lambda level, rate: min(pacing.burst_s * rate, level + rate * passed), bucket.levels, rates)
    return replace(bucket, levels=levels, at=now)


def _paced(bucket: Bucket, now: float, share: float, pacing: Pacing) -> Bucket:
    passed = max(0.0, now - bucket.paced_at)
    pace = bucket.pace
    if passed >= pacing.idle_s:
        pace = min(pace, _slowed(bucket, pacing.start, bucket.limits))
    # What was booked at a higher speed must not bind a slower one for long. Twice: one booking may go over the edge.
    lead = max(bucket.lead, -2 * pacing.book_ahead_s * pace * share) + passed * pace * share
    lead = min(lead, _top(pace, share, pacing))
    if lead < _top(pace, share, pacing) / 2:
        pace = _grown(bucket, pace, min(passed, _GROWTH_STEP_S), pacing)
    drained = max(0.0, now - max(bucket.paced_at, bucket.paused_until)) * share
    return replace(bucket, paced_at=now, pace=pace, lead=lead, queue=max(0.0, bucket.queue - drained))


def _grown(bucket: Bucket, pace: float, passed: float, pacing: Pacing) -> float:
    if pace < bucket.ceiling:
        pace = min(bucket.ceiling, pace * 2 ** (passed / pacing.double_s))
    else:
        pace = pace + pacing.regrow * passed
    return min(pace, pacing.peak if max(bucket.learnt) > 0 else 1.0)


def _slowed(bucket: Bucket, before: Amounts, after: Amounts) -> float:
    """The pace relative to limits `after` that is what 1 was relative to `before`, by what requests usually need."""
    if not any(bucket.usual):
        return min(1.0, *_each(lambda old, new: old / new, before, after))
    was, now_is = (max(_each(lambda amount, limit: amount / limit, bucket.usual, limits)) for limits in (before, after))
    return min(1.0, now_is / was)


def _booked_s(bucket: Bucket, now: float, pacing: Pacing) -> float:
    """Seconds of the full rate that are in our levels already, for requests that wait for their turn."""
    lead = bucket.lead + max(0.0, now - bucket.paced_at) * bucket.pace
    behind = _each(lambda level, rate: -level / rate, bucket.levels, _rates(bucket.limits, pacing))
    return max(0.0, -lead / bucket.pace, *behind) * min(1.0, bucket.pace)


def _refused(bucket: Bucket, wait_s: float, cost: float) -> tuple[Bucket, Turn]:
    turn = Turn(granted=False, wait_s=wait_s + bucket.queue)
    longest = LONGEST_WAIT_S if max(bucket.learnt) > 0 else _UNLEARNT_WAIT_S
    return replace(bucket, queue=min(longest, bucket.queue + cost)), turn


def _free(bucket: Bucket, share: float, kept_s: float, pacing: Pacing) -> tuple[float, Amounts]:
    """What of lead and levels is there for a request that leaves `kept_s` of them to others."""
    levels = _each(lambda level, rate: level - kept_s * rate, bucket.levels, _rates(bucket.limits, pacing))
    return bucket.lead - kept_s * min(1.0, bucket.pace) * share, levels


def _top(pace: float, share: float, pacing: Pacing, kept_s: float = 0.0) -> float:
    return (pacing.slack_s - kept_s) * min(1.0, pace) * share


def _rates(limits: Amounts, pacing: Pacing) -> Amounts:
    return _each(lambda limit: pacing.use * limit / 60, limits)


def _full(limits: Amounts, pacing: Pacing) -> Amounts:
    return _each(lambda rate: pacing.burst_s * rate, _rates(limits, pacing))


def _each(function: Callable[..., float], *columns: tuple[float | None, ...]) -> Amounts:
    requests, input_tokens, output_tokens = map(function, *columns)
    return requests, input_tokens, output_tokens
