from __future__ import annotations

from qa_worker.application.purse import Left, Purse
from qa_worker.domain.call import workspace_id

POOR, RICH, OTHER = (workspace_id(name) for name in ("poor", "rich", "other"))


def test_without_caps_everything_is_given() -> None:
    purse = Purse(Left())
    assert all(purse.take(RICH, 10**9) for _ in range(3))
    assert (purse.refused, purse.empty) == (set(), False)


def test_a_workspace_gets_what_is_left_of_its_own_cap_and_then_nothing() -> None:
    purse = Purse(Left(of={POOR: 10}))
    assert purse.take(POOR, 7)
    assert not purse.take(POOR, 4)
    assert not purse.take(POOR, 1), "it has been refused once"
    assert purse.take(RICH, 10**9)
    assert purse.refused == {POOR}


def test_a_workspace_that_has_spent_its_cap_is_refused_from_the_beginning() -> None:
    assert Purse(Left(of={POOR: 0, RICH: None})).refused == {POOR}
    assert Purse(Left(of={POOR: -5})).refused == {POOR}


def test_the_cap_of_each_holds_for_workspaces_that_have_spent_nothing_yet() -> None:
    purse = Purse(Left(each=10, of={RICH: None}))
    assert purse.take(RICH, 11)
    assert not purse.take(OTHER, 11)
    assert purse.refused == {OTHER}


def test_what_is_left_for_all_is_shared() -> None:
    purse = Purse(Left(overall=10))
    assert purse.take(RICH, 6)
    assert not purse.empty
    assert not purse.take(OTHER, 6)
    assert purse.empty


def test_nothing_left_is_nothing_given_whatever_it_costs() -> None:
    for left in (Left(overall=0), Left(each=0)):
        assert not Purse(left).take(RICH, 0)
        assert not Purse(left).take(RICH, None)


def test_an_unknown_price_counts_as_nothing() -> None:
    purse = Purse(Left(overall=10, of={RICH: 10}))
    assert purse.take(RICH, None)
    assert purse.take(RICH, 10)
