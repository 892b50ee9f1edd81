"""The table and the queue tell the same, whatever was lost, doubled or away meanwhile."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qa_worker.adapters.postgres.tables import dead_letters
from qa_worker.application.bury_message import Kept, bury_message
from qa_worker.application.dead_letters import Notice, Settlement
from qa_worker.application.reconcile_dead_letters import Reconciled, reconcile_dead_letters
from qa_worker.domain.dead_letter import LetterState
from qa_worker.domain.errors import StoreUnavailable
from tests.conftest import UnitsOfWork
from tests.fakes import FrozenClock
from tests.letters import MemoryQueue, a_message, add_letter, letters, no_database
from tests.post import REFUSED, Post

pytestmark = pytest.mark.services
KEEP_DAYS = 90


@pytest.fixture
def queue() -> MemoryQueue:
    """An empty queue."""
    return MemoryQueue()


def _reconcile(uow: UnitsOfWork, queue: MemoryQueue) -> Reconciled:
    clock = FrozenClock(datetime.now(UTC))
    return reconcile_dead_letters(uow=uow, queue=queue, clock=clock, keep_days=KEEP_DAYS)


def _discard(uow: UnitsOfWork, letter_id: uuid.UUID) -> None:
    with uow() as work:
        work.dead_letters.settle(letter_id, Settlement(LetterState.DISCARDED, "ops"))
        work.commit()


def _notices(queue: MemoryQueue) -> list[Notice]:
    return [item for item in queue.lying if isinstance(item, Notice)]


def _shown(queue: MemoryQueue) -> list[uuid.UUID]:
    return sorted(notice.letter_id for notice in _notices(queue))


def _open(uow: UnitsOfWork) -> list[uuid.UUID]:
    return sorted(row.id for row in letters(uow) if row.state == "open")


def test_open_letters_are_announced_once(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    add_letter(uow, kind="evaluation", reason="http_400", queue="backlog")
    assert letters(uow)[0].announced_at is None

    assert _reconcile(uow, queue).announced == 1

    (notice,) = queue.lying
    assert isinstance(notice, Notice)
    assert (notice.kind.value, notice.reason, notice.queue) == ("evaluation", "http_400", "backlog")
    assert letters(uow)[0].announced_at is not None
    _reconcile(uow, queue)
    assert _shown(queue) == _open(uow)


def test_a_settled_letter_leaves_the_queue(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    ids = [add_letter(uow) for _ in range(30)]
    _reconcile(uow, queue)

    _discard(uow, ids[17])

    assert _reconcile(uow, queue).removed == 1
    assert _shown(queue) == _open(uow)
    assert len(queue.lying) == 29


def test_a_letter_that_was_settled_before_it_was_announced_never_comes_there(
    uow: UnitsOfWork, queue: MemoryQueue
) -> None:
    _discard(uow, add_letter(uow))

    assert (_reconcile(uow, queue), queue.lying) == (Reconciled(), [])


def test_a_broker_that_was_emptied_gets_everything_again(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    for _ in range(5):
        add_letter(uow)
    _reconcile(uow, queue)
    queue.lying.clear()

    assert _reconcile(uow, queue).lost == 5
    assert _shown(queue) == _open(uow)


def test_a_broker_that_is_away_loses_no_letter(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    add_letter(uow)
    queue.away = True
    with pytest.raises(StoreUnavailable):
        _reconcile(uow, queue)
    assert letters(uow)[0].announced_at is None

    queue.away = False
    assert _reconcile(uow, queue).announced == 1


def test_a_message_that_came_without_a_database_gets_its_letter_later(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    message = a_message(call_id="x")
    assert bury_message(message=message, uow=no_database, queue=queue) is Kept.QUEUE
    assert queue.lying == [message]

    done = _reconcile(uow, queue)

    assert (done.found, done.announced) == (1, 1)
    (letter,) = letters(uow)
    assert (letter.kind, letter.ref_id, letter.task, letter.reason) == (
        "message",
        message.ref_id,
        "no-such-task",
        "unknown_task",
    )
    assert (letter.payload["head"], letter.payload["whole"], letter.died_at) == (message.head, True, message.died_at)
    assert _shown(queue) == [letter.id]


def test_a_message_is_not_taken_where_neither_store_can_be_reached(queue: MemoryQueue) -> None:
    queue.away = True

    with pytest.raises(StoreUnavailable):
        bury_message(message=a_message(), uow=no_database, queue=queue)


def test_a_message_with_a_database_goes_into_the_table(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    assert bury_message(message=a_message(), uow=uow, queue=queue) is Kept.TABLE
    assert (len(letters(uow)), queue.lying) == (1, [])


def test_a_crash_between_publishing_and_recording_leaves_one_message(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    add_letter(uow)
    with uow() as work:
        notices = work.dead_letters.to_announce(limit=9)
        work.commit()
    queue.publish(notices)

    for _ in range(3):
        _reconcile(uow, queue)

    assert _shown(queue) == _open(uow)


def test_something_that_hides_behind_a_right_count_is_found(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    """One announcement was lost while one message came: as many lie there as there should be."""
    for _ in range(3):
        add_letter(uow)
    _reconcile(uow, queue)
    queue.lying[1] = a_message()

    for _ in range(3):
        _reconcile(uow, queue)

    assert len(letters(uow)) == 4
    assert _shown(queue) == _open(uow)


def _forget(uow: UnitsOfWork, *letter_ids: uuid.UUID) -> None:
    """As if an older copy of the database had been restored, which knows nothing of these."""
    with uow.engine.begin() as connection:
        connection.execute(dead_letters.delete().where(dead_letters.c.id.in_(letter_ids)))


def _as_stored(uow: UnitsOfWork) -> list[object]:
    changing = ("announced_at", "announcement")
    return [{**row._mapping, **dict.fromkeys(changing)} for row in letters(uow)]


def test_letters_that_the_database_has_lost_come_back_whole(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    post = Post(uow)
    (delivery,) = post.alert(post.endpoint())
    post.send(delivery, REFUSED)
    message = a_message(call_id="x")
    with uow() as work:
        work.dead_letters.add_message(message)
        work.commit()
    add_letter(uow, kind="run", attempts=3, deaths=2, again_of=uuid.uuid4(), first_error="one", last_error="two")
    _reconcile(uow, queue)
    before = _as_stored(uow)
    _forget(uow, *_open(uow))

    done = _reconcile(uow, queue)

    assert (done.found, done.removed, done.announced) == (3, 0, 3)
    assert _as_stored(uow) == before
    assert _shown(queue) == _open(uow)
    assert _reconcile(uow, queue) == Reconciled(announced=3)


def test_a_letter_comes_back_without_the_workspace_that_is_lost_too(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    add_letter(uow)
    _reconcile(uow, queue)
    queue.lying = [replace(one, workspace_id=uuid.uuid4(), endpoint_id=uuid.uuid4()) for one in _notices(queue)]
    _forget(uow, *_open(uow))

    assert _reconcile(uow, queue).found == 1

    (letter,) = letters(uow)
    assert (letter.workspace_id, letter.endpoint_id, letter.state) == (None, None, "open")


def test_what_was_announced_longer_ago_than_letters_are_kept_was_settled_and_forgotten(
    uow: UnitsOfWork, queue: MemoryQueue
) -> None:
    add_letter(uow)
    _reconcile(uow, queue)
    long_ago = datetime.now(UTC) - timedelta(days=KEEP_DAYS, seconds=1)
    queue.lying = [replace(one, said_at=long_ago) for one in _notices(queue)]
    _forget(uow, *_open(uow))

    assert _reconcile(uow, queue) == Reconciled(removed=1)
    assert (letters(uow), queue.lying) == ([], [])


def test_work_that_has_died_again_meanwhile_gets_no_second_letter(uow: UnitsOfWork, queue: MemoryQueue) -> None:
    work_id = uuid.uuid4()
    lost = add_letter(uow, kind="run", ref_id=work_id)
    _reconcile(uow, queue)
    _forget(uow, lost)
    newer = add_letter(uow, kind="run", ref_id=work_id)

    for _ in range(2):
        _reconcile(uow, queue)

    assert _shown(queue) == _open(uow) == [newer]


class World:
    """Deaths, losses and people; `orphans` counts the messages that came while the database was away."""

    def __init__(self, uow: UnitsOfWork) -> None:
        self.uow = uow
        self.queue = MemoryQueue()
        self.orphans = 0

    def die(self) -> None:
        add_letter(self.uow)

    def settle(self) -> None:
        for letter_id in _open(self.uow)[:1]:
            _discard(self.uow, letter_id)

    def lose_one(self) -> None:
        known = self._known()
        self.queue.lying = [item for item in self.queue.lying if item not in known[:1]]

    def lose_all(self) -> None:
        known = self._known()
        self.queue.lying = [item for item in self.queue.lying if item not in known]

    def _known(self) -> list[Notice]:
        """What the table has, too: of what lies on the queue alone nobody has a second copy."""
        rows = {row.id for row in letters(self.uow)}
        return [notice for notice in _notices(self.queue) if notice.letter_id in rows]

    def lose_row(self) -> None:
        """The table loses a letter that lies on the queue."""
        for notice in _notices(self.queue)[:1]:
            _forget(self.uow, notice.letter_id)

    def double_one(self) -> None:
        self.queue.lying += [item for item in self.queue.lying if isinstance(item, Notice)][:1]

    def orphan(self) -> None:
        self.orphans += 1
        bury_message(message=a_message(number=self.orphans), uow=no_database, queue=self.queue)

    def crash(self) -> None:
        """Published, and killed before that was written down."""
        with self.uow() as work:
            notices = work.dead_letters.to_announce(limit=2)
            work.commit()
        self.queue.publish(notices)

    def reconcile(self) -> None:
        _reconcile(self.uow, self.queue)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.sampled_from(
            ("die", "settle", "lose_one", "lose_all", "lose_row", "double_one", "orphan", "crash", "reconcile")
        ),
        max_size=12,
    )
)
def test_whatever_happened_they_agree_in_the_end(uow: UnitsOfWork, steps: list[str]) -> None:
    with uow.engine.begin() as connection:
        connection.execute(dead_letters.delete())
    world = World(uow)
    for step in steps:
        getattr(world, step)()

    for _ in range(4):
        world.reconcile()

    assert _shown(world.queue) == _open(uow)
    assert sum(row.task == "no-such-task" for row in letters(uow)) == world.orphans
