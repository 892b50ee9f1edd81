from __future__ import annotations

from qa_worker.domain.changes import Changes, Graded, Pair
from qa_worker.domain.evaluation import Verdict

PASS, FAIL, REVIEW = Verdict.PASS, Verdict.FAIL, Verdict.NEEDS_REVIEW


def pair(call: str, before: tuple[Verdict, int | None] | None, after: tuple[Verdict, int | None]) -> Pair:
    older = None if before is None else Graded(*before, "ours", "v1")
    return Pair(call, "w", "booking", older, Graded(*after, "ours", "v2"))


def test_verdicts_are_counted_by_what_they_were_and_are() -> None:
    changes = Changes()
    changes.add([pair("a", (PASS, 90), (FAIL, 40)), pair("b", (PASS, 80), (PASS, 90))], keep=9)
    changes.add([pair("c", (FAIL, 10), (PASS, 70)), pair("d", None, (PASS, 100))], keep=9)

    assert (changes.graded, changes.compared, changes.changed_count) == (4, 3, 2)
    assert changes.rows() == {PASS: {PASS: 1, FAIL: 1}, FAIL: {PASS: 1, FAIL: 0}}
    assert [one.call for one in changes.changed] == ["a", "c"]


def test_scores_are_compared_only_where_both_were_measured() -> None:
    changes = Changes()
    changes.add([pair("a", (PASS, 90), (PASS, 80)), pair("b", (REVIEW, None), (PASS, 90))], keep=0)
    changes.add([pair("c", (PASS, 70), (PASS, 75)), pair("d", (PASS, 70), (REVIEW, None))], keep=0)

    assert (changes.both_measured, changes.mean_change) == (2, -2.5)


def test_without_anything_to_compare_there_is_no_mean() -> None:
    changes = Changes()
    changes.add([pair("a", None, (PASS, 90))], keep=9)

    assert (changes.mean_change, changes.compared, changes.rows()) == (None, 0, {})


def test_a_score_that_changed_without_its_verdict_is_no_changed_call() -> None:
    changes = Changes()
    changes.add([pair("a", (PASS, 90), (PASS, 75))], keep=9)

    assert (changes.changed_count, changes.changed) == (0, [])


def test_no_more_changed_calls_are_kept_than_asked_for_and_all_are_counted() -> None:
    changes = Changes()
    changes.add([pair(str(number), (PASS, 90), (FAIL, 10)) for number in range(9)], keep=4)

    assert (len(changes.changed), changes.changed_count) == (4, 9)
