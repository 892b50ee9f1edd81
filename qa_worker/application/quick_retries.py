"""Quick retries in the slot, for faults that are over in a moment. Everything longer waits in the row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_result
from tenacity.wait import wait_random_exponential

from qa_worker.domain.failure import Failure, FailureKind

MAX_TRIES = 3
WITHIN_S = 5.0
"""No try begins later than this after the first one."""

_PATIENCE_S = 2.0
"""A fault that asks for a longer pause is not tried again here."""

Sleep = Callable[[float], Awaitable[None]]


class Tried(Protocol):
    """What a try came to."""

    @property
    def again(self) -> bool:
        """Whether another one at once may help."""
        ...


_Tried = TypeVar("_Tried", bound=Tried)


async def more_tries(
    first: _Tried, attempt: Callable[[_Tried], Awaitable[_Tried]], *, since_s: Callable[[], float], sleep: Sleep
) -> _Tried:
    """What came of at most two tries after the `first` one; `attempt` is given what the try before it came to.

    `since_s` is how long ago the first one began. Call this only where it is to be tried `again`: most requests get
    their answer at once, and should not pay for what they don't need.
    """
    last, begun = first, False

    # tenacity awaits nothing but what is declared so: not the coroutine that a lambda returns
    async def attempted() -> _Tried:
        nonlocal last, begun
        # Its first attempt was made before it was there.
        last, begun = (await attempt(last) if begun else last), True
        return last

    def is_enough(state: RetryCallState) -> bool:
        return state.attempt_number >= MAX_TRIES or since_s() + state.upcoming_sleep >= WITHIN_S

    retrying = AsyncRetrying(
        stop=is_enough,
        wait=wait_random_exponential(multiplier=0.25, max=1.0),
        retry=retry_if_result(lambda tried: tried.again),
        retry_error_callback=_last,
        sleep=sleep,
    )
    return await retrying(attempted)


def is_quick(result: object) -> bool:
    """Whether trying again at once may help: connection faults and 5xx, but not 529, where it would add to the load.

    Where an answer had begun, or may have been made, it isn't asked for a second time here: it may be billed.
    """
    if not isinstance(result, Failure) or result.kind is not FailureKind.TRANSIENT:
        return False
    if result.retry_after_s is not None and result.retry_after_s > _PATIENCE_S:
        return False
    return result.code in ("connection", "connect_timeout") or result.code.startswith("http_5")


def _last(state: RetryCallState) -> Any:
    if state.outcome is None:
        raise AssertionError("tenacity ends a call without a try")
    return state.outcome.result()
