"""Close letters that nobody wants replayed, with the reason."""

from __future__ import annotations

from qa_worker.application.dead_letters import Settlement
from qa_worker.application.ports import UnitOfWorkFactory
from qa_worker.domain.dead_letter import Choice, LetterState
from qa_worker.domain.errors import InvalidInput

_BATCH = 500


def discard_dead_letters(*, choice: Choice, limit: int, by: str, reason: str, uow: UnitOfWorkFactory) -> int:
    """Discard at most `limit` open letters, the oldest first; returns how many. They stay visible until they are too old.

    Raises:
        InvalidInput: no reason was given.
        StoreUnavailable: the database is out of reach; what was discarded by then is.

    """
    if not reason.strip():
        raise InvalidInput("reason", "nothing says why", "Say it in a few words: others will read it")
    settlement = Settlement(LetterState.DISCARDED, by, reason.strip())
    with uow() as work:
        chosen = work.dead_letters.choose(choice, limit=limit)
    discarded = 0
    for start in range(0, len(chosen), _BATCH):
        with uow() as work:
            settled = [work.dead_letters.settle(one, settlement) for one in chosen[start : start + _BATCH]]
            work.commit()
        discarded += sum(letter is not None for letter in settled)
    return discarded
