"""When a service counts as down, how long it is left alone, and how the rate comes back: the rules, without the state.

*Down.* With hundreds of requests in flight, outcomes come mixed: late successes among the first failures of an outage,
single failures on a good day. So a service is down when the last `threshold` outcomes all failed and at least 60 % of
the last 4 x `threshold` did. After success only that is 12 failures at a threshold of 5: a tenth of a second at 120 a
second; where little is known (a start, a quiet hour) it is the 5. At 20 % errors both come together once in 170,000
outcomes, 5 failures in a row alone once in 4,000 (binomial; independent errors).
"""

from __future__ import annotations

from dataclasses import dataclass

from qa_worker.domain.failure import Failure, FailureKind

SEEN = 4
"""How many times the threshold is looked back."""
SHARE_OF_FAILURES = 0.6
FORGOTTEN_AFTER_S = 30.0
"""A gap between outcomes after which the older ones say nothing of the service as it is now."""
UP, DOWN = "s", "f"
_NOT_OFFERED = "http_501"
"""This server doesn't do that at all (some have no batches): it is well for all that."""
_NO_ANSWER = frozenset({"connection", "connect_timeout", "read_timeout", "timeout", "deadline", "cut_answer"})


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """`threshold` outcomes; the first opening lasts `recovery_s`, each one after a failed probe twice the last.

    A probe that isn't heard of for `probe_lease_s` is replaced: it must be longer than a request may take. Others are
    told to ask again after `ask_again_s` while it is out. `steps` are the shares of the rate after its success, for
    `step_s` each; then all.
    """

    threshold: int = 5
    recovery_s: float = 60.0
    max_recovery_s: float = 600.0
    probe_lease_s: float = 65.0
    ask_again_s: float = 5.0
    steps: tuple[float, ...] = (0.1, 0.25, 0.5)
    step_s: float = 2.5


def is_outage(failure: Failure) -> bool:
    """Whether this failure counts as one of the service: 5xx, 529, timeouts, connection faults.

    Nothing else does: not a 429 or another 4xx (408, 409 and 499, which pass by themselves, included), which are about
    us; not a success that isn't the service's (`bad_response`: a proxy's page), which says nothing of it; not that we had
    no connection free.
    """
    if failure.kind is FailureKind.OVERLOADED:
        return True
    no_answer = failure.code in _NO_ANSWER or (failure.code.startswith("http_5") and failure.code != _NOT_OFFERED)
    return failure.kind is FailureKind.TRANSIENT and no_answer


def remembered(history: str, outcomes: str, rules: BreakerRules) -> str:
    """The outcomes that are still looked at, oldest first."""
    return (history + outcomes)[-SEEN * rules.threshold :]


def is_down(history: str, rules: BreakerRules) -> bool:
    """Whether these outcomes are those of a service that is down."""
    failures = history.count(DOWN)
    return history.endswith(DOWN * rules.threshold) and failures >= SHARE_OF_FAILURES * len(history)


def open_s(trips: int, rules: BreakerRules) -> float:
    """How long the n-th opening without a full recovery in between lasts, from 1."""
    return min(rules.max_recovery_s, rules.recovery_s * 2.0 ** min(trips - 1, 30))


def share_at(since_s: float, rules: BreakerRules) -> float:
    """The part of the rate so long after a probe's success; 1 when recovery is over."""
    step = int(max(since_s, 0.0) // rules.step_s)
    return rules.steps[step] if step < len(rules.steps) else 1.0
