"""Let what was given up on begin anew: each letter in a transaction of its own, at a rate, whoever else does the same."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qa_worker import messages
from qa_worker.application.dead_letters import OpenLetter, Refused, Replay, Replayed, Settlement
from qa_worker.application.ports import UnitOfWork, UnitOfWorkFactory
from qa_worker.application.unread_messages import Fault, readable
from qa_worker.domain.dead_letter import Choice, LetterKind, LetterState
from qa_worker.domain.endpoint import HealthRules
from qa_worker.domain.errors import StoreUnavailable

SETTLED = "somebody else has settled it meanwhile"
_OFF = "its endpoint is switched off: `qa-worker endpoints enable` first"
_GONE = "its alert is gone, or it was replayed before"
_ALIVE = "it isn't dead any more, or graded a run: that is replayed by the run's own letter"
_RUN_ALIVE = "it isn't dead any more, or somebody cancelled it"
_SUITE_CANCELLED = "its suite run was cancelled: start another one"
_NO_BROKER = "it could not be sent, so it stays open"


@dataclass(frozen=True, slots=True)
class Replaying:
    """What replays need. `max_attempts` is the fresh budget of a delivery.

    `delivery_limit`, `in_flight_limit` and `run_limit` are how many deliveries, evaluations and runs may be under way at
    once; `pause` waits for so many seconds. `send_now` puts messages on their queues, or raises StoreUnavailable.
    """

    uow: UnitOfWorkFactory
    rules: HealthRules
    max_attempts: int
    delivery_limit: int
    in_flight_limit: int
    run_limit: int
    pause: Callable[[float], None]
    send_now: Callable[[Sequence[messages.Message]], object]


def replay_dead_letters(*, choice: Choice, limit: int, rate: float, by: str, replaying: Replaying) -> Iterator[Replay]:
    """Replay at most `limit` open letters, the oldest first, at most `rate` of them a second; yields what became of each.

    A delivery begins anew as another one with the same `webhook-id` and the same bytes; an evaluation is revived; a run
    goes on at the turn where it stood, and its suite run ends anew with it; a message is sent again if it can be read
    by now and the broker takes it. What can't be replayed stays open, with the reason in the answer. Two who replay the
    same letter make one delivery: the second one is refused.

    Raises:
        StoreUnavailable: the database is out of reach. What was replayed by then is, what wasn't is still open.

    """
    with replaying.uow() as work:
        chosen = work.dead_letters.choose(choice, limit=limit)
    for number, letter_id in enumerate(chosen):
        if number:
            replaying.pause(1 / rate)
        yield _replay(letter_id, by, replaying)


def _replay(letter_id: uuid.UUID, by: str, replaying: Replaying) -> Replay:
    with replaying.uow() as work:
        # The compare-and-set comes first: whoever gets the letter does the rest, and nobody else does.
        letter = work.dead_letters.settle(letter_id, Settlement(LetterState.REPLAYED, by))
        if letter is None:
            return Refused(letter_id, SETTLED)
        started = _REPLAYS[letter.kind](work, letter, replaying)
        if isinstance(started, str):
            # Without the commit the letter is open again.
            return Refused(letter_id, started)
        work.dead_letters.started(letter_id, started)
        work.commit()
    return Replayed(letter_id, letter.kind, started)


def _alert(work: UnitOfWork, letter: OpenLetter, replaying: Replaying) -> uuid.UUID | str:
    gate = work.deliveries.gate(letter.ref_id)
    if gate is None:
        return _GONE
    if not gate.active:
        return _OFF
    delivery_id = work.dead_letters.redeliver(letter.ref_id, max_attempts=replaying.max_attempts)
    if delivery_id is None:
        return _GONE
    for one in work.deliveries.queue_new([delivery_id], replaying.rules, limit=replaying.delivery_limit):
        work.nudge(messages.send_alert(one))
    return delivery_id


def _evaluation(work: UnitOfWork, letter: OpenLetter, replaying: Replaying) -> uuid.UUID | str:
    revived = work.evaluations.revive_one(letter.ref_id)
    if revived is None:
        return _ALIVE
    if work.evaluations.queue_new([revived.evaluation_id], in_flight_limit=replaying.in_flight_limit):
        # Behind live calls: this one has waited for a person already.
        work.nudge(messages.evaluate_calls([revived.evaluation_id]))
    return revived.evaluation_id


def _message(_work: UnitOfWork, letter: OpenLetter, replaying: Replaying) -> uuid.UUID | str:
    message = readable(letter)
    if isinstance(message, Fault):
        return message.problem
    try:
        # Before the commit: no row stands behind a message, so what is settled and not sent would be lost for good.
        # Where the commit fails the message comes twice, which changes nothing.
        replaying.send_now([message])
    except StoreUnavailable as away:
        return f"{_NO_BROKER}: {away}"
    return letter.ref_id


def _run(work: UnitOfWork, letter: OpenLetter, replaying: Replaying) -> uuid.UUID | str:
    revived = work.runs.revive(letter.ref_id)
    if revived is None:
        return _RUN_ALIVE
    if not work.suites.reopen(revived.suite_run_id):
        return _SUITE_CANCELLED
    for one in work.suites.queue_due(limit=replaying.run_limit, batch=replaying.run_limit, left=None):
        work.nudge(messages.run_scenario(one))
    return revived.id


_REPLAYS: dict[LetterKind, Callable[[UnitOfWork, OpenLetter, Replaying], uuid.UUID | str]] = {
    LetterKind.ALERT: _alert,
    LetterKind.EVALUATION: _evaluation,
    LetterKind.RUN: _run,
    LetterKind.MESSAGE: _message,
}
