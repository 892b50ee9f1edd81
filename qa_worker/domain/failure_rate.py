"""Does an agent fail too often? Against a fixed level, or against what is usual for this agent.

A rate is failed / judged, where judged is pass + fail: `needs_review` and `not_evaluated` were not measured, so they are
in neither number and are told beside them. The parts (a level, a relative rise over the baseline, minimum samples,
minimum failures, minimum history) are those of ElevenLabs' alerting (its SDK, `alerting_monitor_config.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

from qa_worker.domain.alert_rule import AlertRule

BASELINE_WINDOWS = 7
"""The baseline is the rate over so many windows before the one that is looked at."""
MIN_FAILURES = 3
"""Against a baseline: two failures where there were none before are chance."""


@dataclass(frozen=True, slots=True)
class Tally:
    """The current verdicts of one agent in a stretch of time."""

    passed: int = 0
    failed: int = 0
    needs_review: int = 0
    not_evaluated: int = 0

    @property
    def judged(self) -> int:
        """What was measured: the denominator."""
        return self.passed + self.failed

    @property
    def rate(self) -> float | None:
        """Failed / judged, None where nothing was judged."""
        return self.failed / self.judged if self.judged else None


def too_high(rule: AlertRule, now: Tally, before: Tally) -> str | None:
    """What to say about an agent that fails too often; None where it doesn't, or too little is known.

    With a fixed level: rate >= threshold. With a baseline: rate > rate before x (1 + rise), and at least `MIN_FAILURES`
    failed. Both numbers need `min_samples` judged calls.
    """
    enough = rule.min_samples or 1
    rate = now.rate
    if rate is None or now.judged < enough:
        return None
    if rule.baseline:
        usual = before.rate
        if usual is None or before.judged < enough or now.failed < MIN_FAILURES:
            return None
        if rate <= usual * (1 + (rule.rise or 0)):
            return None
        limit = f"usual are {usual:.1%} ({before.failed} of {before.judged})"
    else:
        if rule.threshold is None or rate < rule.threshold:
            return None
        limit = f"the limit is {rule.threshold:.1%}"
    unmeasured = f"{now.needs_review} need review and {now.not_evaluated} were not evaluated"
    return f"{now.failed} of {now.judged} judged calls failed ({rate:.1%}) in {rule.window_s} s; {limit}; {unmeasured}"
