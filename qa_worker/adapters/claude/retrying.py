"""Quick retries in place, for faults that are over in a moment. Everything longer waits in the row."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, stop_before_delay
from tenacity.wait import wait_random_exponential

from qa_worker.application.model_calls import Answered
from qa_worker.domain.failure import Failure, FailureKind

MAX_TRIES = 3
WITHIN_S = 5.0
"""No try begins later than this after the first one."""

_PATIENCE_S = 2.0
"""A fault that asks for a longer pause is not tried again here."""

Sleep = Callable[[float], Awaitable[None]]
_Answer = TypeVar("_Answer", bound=Answered)


async def with_quick_retries(attempt: Callable[[], Awaitable[_Answer]], *, sleep: Sleep) -> _Answer:
    """The answer of the last of at most three tries. Those before it had no answer, and so nothing was billed."""
    retrying = AsyncRetrying(
        stop=stop_after_attempt(MAX_TRIES) | stop_before_delay(WITHIN_S),
        wait=wait_random_exponential(multiplier=0.25, max=1.0),
        retry=retry_if_result(is_quick),
        retry_error_callback=_last,
        sleep=sleep,
    )

    # tenacity awaits nothing but what is declared so: not the coroutine that a lambda returns
    async def attempted() -> _Answer:
        return await attempt()

    return await retrying(attempted)


def is_quick(answer: Answered) -> bool:
    """Whether trying again at once may help: connection faults and 5xx, but not 529, where it would add to the load."""
    failure = answer.result
    if not isinstance(failure, Failure) or failure.kind is not FailureKind.TRANSIENT:
        return False
    if failure.retry_after_s is not None and failure.retry_after_s > _PATIENCE_S:
        return False
    return failure.code in ("connection", "connect_timeout") or failure.code.startswith("http_5")


def _last(state: RetryCallState) -> Any:
    if state.outcome is None:
        raise AssertionError("tenacity ends a call without a try")
    return state.outcome.result()
