"""What a rule must say, and must not: each error names the field and the fix."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qa_worker.domain.alert_rule import OF_SYSTEM, AlertRule, RuleKind
from qa_worker.domain.errors import InvalidInput

NAME_CHARS = 100
MIN_WINDOW_S, MAX_WINDOW_S = 60, 86_400
MAX_COOLDOWN_S = 7 * 86_400
MAX_SAMPLES = 100_000
MAX_LETTER_AGE_S = 365 * 86_400

# Which fields a kind reads; `criterion` of a kind that may have one is checked by nobody: rubrics differ by call.
_READS: Mapping[RuleKind, frozenset[str]] = {
    RuleKind.SCORE_BELOW: frozenset({"threshold", "criterion"}),
    RuleKind.CRITICAL_FINDING: frozenset({"criterion"}),
    RuleKind.FAILURE_RATE: frozenset({"threshold", "window_s", "min_samples", "baseline", "rise"}),
    RuleKind.BUDGET_REACHED: frozenset({"threshold"}),
    RuleKind.DEAD_LETTERS_GROWING: frozenset({"threshold", "window_s"}),
    RuleKind.DEAD_LETTERS_DEPTH: frozenset({"threshold"}),
    RuleKind.DEAD_LETTERS_AGE: frozenset({"threshold"}),
    RuleKind.QUEUE_TOO_OLD: frozenset({"threshold"}),
}
_OPTIONAL = ("threshold", "criterion", "window_s", "min_samples", "baseline", "rise")


def checked(rule: AlertRule) -> AlertRule:
    """The same rule.

    Raises:
        InvalidInput: a field is missing, out of its range, or set where the rule's kind doesn't read it.

    """
    if not 1 <= len(rule.name.strip()) <= NAME_CHARS:
        raise InvalidInput("name", "it is empty or too long", f"Write 1 to {NAME_CHARS} characters.")
    if not 0 <= rule.cooldown_s <= MAX_COOLDOWN_S:
        raise InvalidInput(
            "cooldown_s", f"{rule.cooldown_s} is out of range", f"Write 0 (none) to {MAX_COOLDOWN_S} seconds."
        )
    if rule.agent_id is not None and rule.kind in OF_SYSTEM:
        raise InvalidInput("agent", f"a rule '{rule.kind.value}' is about no single agent", "Leave the agent out.")
    reads = _READS.get(rule.kind, frozenset())
    for name in _OPTIONAL:
        if getattr(rule, name) and name not in reads:
            raise InvalidInput(name, f"a rule '{rule.kind.value}' doesn't use it", "Leave it out.")
    check = _CHECKS.get(rule.kind)
    if check is not None:
        check(rule)
    return rule


def _score(rule: AlertRule) -> None:
    """A floor under which nothing can fall would be silent for ever: the sign of a threshold that was meant upside down."""
    if rule.threshold is None or not 0 < rule.threshold <= 100:  # noqa: PLR2004 - scores are 0-100
        fix = "Write a floor from 1 to 100: scores lower than it match. There is no alert for high scores."
        raise InvalidInput("threshold", f"{_shown(rule.threshold)} is no floor for a score", fix)


def _rate(rule: AlertRule) -> None:
    _in_range("window_s", rule.window_s, MIN_WINDOW_S, MAX_WINDOW_S, "seconds to look back over")
    _in_range("min_samples", rule.min_samples, 1, MAX_SAMPLES, "judged calls below which nothing is said")
    if rule.baseline:
        if rule.threshold is not None:
            raise InvalidInput(
                "threshold", "a fixed level and the agent's own baseline exclude each other", "Drop one."
            )
        if rule.rise is None or not 0 < rule.rise <= 100:  # noqa: PLR2004 - a hundredfold is beyond any sense
            fix = "Write the relative rise over the baseline: 0.2 is 20 % more."
            raise InvalidInput("rise", f"{_shown(rule.rise)} is no relative rise", fix)
        return
    if rule.rise is not None:
        raise InvalidInput("rise", "it is about a baseline", "Set baseline too, or leave it out.")
    _share(rule)


def _share(rule: AlertRule) -> None:
    if rule.threshold is None or not 0 < rule.threshold <= 1:
        fix = "Write a share above 0, at most 1: 0.2 is 20 %."
        raise InvalidInput("threshold", f"{_shown(rule.threshold)} is no share", fix)


def _letters(rule: AlertRule) -> None:
    _in_range("threshold", rule.threshold, 1, MAX_SAMPLES, "new dead letters within the window")
    _in_range("window_s", rule.window_s, MIN_WINDOW_S, MAX_WINDOW_S, "seconds to look back over")


def _depth(rule: AlertRule) -> None:
    _in_range("threshold", rule.threshold, 1, MAX_SAMPLES, "open dead letters")


def _letters_age(rule: AlertRule) -> None:
    _in_range("threshold", rule.threshold, 1, MAX_LETTER_AGE_S, "seconds that a dead letter may stay open")


def _age(rule: AlertRule) -> None:
    _in_range("threshold", rule.threshold, 1, MAX_WINDOW_S, "seconds that a call may wait")


def _in_range(field: str, value: float | None, low: float, high: float, meaning: str) -> None:
    if value is None or not low <= value <= high:
        raise InvalidInput(field, f"{_shown(value)} is out of range", f"Write {low:g} to {high:g}: {meaning}.")


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:g}"


_CHECKS: Mapping[RuleKind, Callable[[AlertRule], None]] = {
    RuleKind.SCORE_BELOW: _score,
    RuleKind.FAILURE_RATE: _rate,
    RuleKind.BUDGET_REACHED: _share,
    RuleKind.DEAD_LETTERS_GROWING: _letters,
    RuleKind.DEAD_LETTERS_DEPTH: _depth,
    RuleKind.DEAD_LETTERS_AGE: _letters_age,
    RuleKind.QUEUE_TOO_OLD: _age,
}
