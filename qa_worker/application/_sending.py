"""Which message sends which work: the express queue for live calls, the bulk lane for what can wait.

A workspace that has a lot under way gets its further live calls sent through the bulk lane, too, which workers take only
when the express queue is empty: so one tenant's flood never stands before another's live call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from qa_worker import messages
from qa_worker.application.ports import WorkRef
from qa_worker.domain.call import WorkspaceId
from qa_worker.domain.work import Lane

_SHARE = 8
_AT_LEAST = 8


def share_of(in_flight_limit: int) -> int:
    """What one workspace may have under way before its further live calls stand behind those of others."""
    return max(_AT_LEAST, in_flight_limit // _SHARE)


def share_of_nudges(in_flight_limit: int, slots: int) -> int:
    """The same for calls that other programs announce with messages of their own, which nobody counts beforehand.

    Never more than half of the slots of one process: the others read a flood, put it aside, and find who came after it.
    """
    return max(1, min(share_of(in_flight_limit), slots // 2))


def messages_for(
    work: Iterable[WorkRef], *, under_way: Mapping[WorkspaceId, int], in_flight_limit: int
) -> list[messages.Message]:
    """One message for each live call of a workspace within its share of the limit (an eighth); bulk messages for the rest.

    What may have killed its worker has a message of its own, so that it takes no other call with it again.
    `under_way` is what each workspace has queued or running besides `work`.
    """
    share = share_of(in_flight_limit)
    counts = Counter(under_way)
    single: list[messages.Message] = []
    bulk: list[WorkRef] = []
    for ref in work:
        if ref.lane is Lane.LIVE and counts[ref.workspace] < share:
            single.append(messages.evaluate_call(ref.call_id, ref.evaluation_id))
        elif ref.alone:
            single.append(messages.evaluate_call(ref.call_id, ref.evaluation_id, queue=messages.Queue.BACKLOG))
        else:
            bulk.append(ref)
        counts[ref.workspace] += 1
    ids = [ref.evaluation_id for ref in bulk]
    batches = [ids[start : start + messages.BULK] for start in range(0, len(ids), messages.BULK)]
    return single + [messages.evaluate_calls(batch) for batch in batches]
