"""The gate in front of the batch service: while Claude is down nothing is sent, and what fails here opens it for all.

Sending a batch and reading its results may take minutes, longer than a probe's lease: then another would leave beside it.
So where one of these is given the probe, a page of the list of batches is asked for in its place, and tells for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TypeVar

from qa_worker.application.batching import BatchService, BlockingGate, Draft, ItemResult
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.limits import Admission, Verdict
from qa_worker.application.model_calls import SERVICE, verdict_of
from qa_worker.domain.batch import ProviderBatch
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import Rubric

_T = TypeVar("_T")
_NEVER = datetime.max.replace(tzinfo=UTC)
"""No batch was made after that: the newest page of them is all that is read."""


class GatedBatches:
    """Implements `BatchService` in front of another one. Batches have limits of their own, so no limiter is asked."""

    def __init__(self, service: BatchService, gate: BlockingGate) -> None:
        self._service = service
        self._gate = gate

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """See the port."""
        with self._service.draft() as draft:
            yield _GatedDraft(draft, self._through_slowly)

    def since(self, at: datetime) -> Sequence[ProviderBatch] | Failure:
        """See the port."""
        return self._through_slowly(lambda: self._service.since(at))

    def status(self, provider_id: str) -> ProviderBatch | Failure:
        """See the port."""
        return self._through(lambda: self._service.status(provider_id))

    def cancel(self, provider_id: str) -> Failure | None:
        """See the port."""
        return self._through(lambda: self._service.cancel(provider_id))

    def results(self, provider_id: str) -> Generator[ItemResult | Failure, None, None]:
        """See the port."""
        admission = self._admit_slow()
        if admission.open_for_s > 0:
            yield _held(admission)
            return
        verdict = Verdict.SILENT
        try:
            for result in self._service.results(provider_id):
                verdict = verdict_of(result, probe=bool(admission.probe))
                yield result
        finally:
            self._gate.report(SERVICE, verdict, admission)

    def read(self, result: ItemResult, *, rubric: Rubric, model: str, provider_id: str) -> JudgeAnswer:
        """See the port."""
        return self._service.read(result, rubric=rubric, model=model, provider_id=provider_id)

    def _through(self, ask: Callable[[], _T]) -> _T | Failure:
        return self._admitted(self._gate.admit(SERVICE), ask)

    def _through_slowly(self, ask: Callable[[], _T]) -> _T | Failure:
        return self._admitted(self._admit_slow(), ask)

    def _admit_slow(self) -> Admission:
        admission = self._gate.admit(SERVICE)
        if not admission.probe:
            return admission
        self._admitted(admission, lambda: self._service.since(_NEVER))
        return self._gate.admit(SERVICE)

    def _admitted(self, admission: Admission, ask: Callable[[], _T]) -> _T | Failure:
        if admission.open_for_s > 0:
            return _held(admission)
        verdict = Verdict.SILENT  # of a fault of ours, for which the service is not to blame
        try:
            answer = ask()
            verdict = verdict_of(answer, probe=bool(admission.probe))
        finally:
            self._gate.report(SERVICE, verdict, admission)
        return answer


class _GatedDraft:
    def __init__(
        self, draft: Draft, through: Callable[[Callable[[], ProviderBatch | Failure]], ProviderBatch | Failure]
    ) -> None:
        self._draft = draft
        self._through = through

    @property
    def count(self) -> int:
        return self._draft.count

    def add(self, custom_id: str, request: JudgeRequest) -> bool:
        return self._draft.add(custom_id, request)

    def send(self) -> ProviderBatch | Failure:
        return self._through(self._draft.send)


def _held(admission: Admission) -> Failure:
    message = "The service is down; batches wait until it answers again."
    return Failure(FailureKind.HELD, "breaker_open", message, retry_after_s=admission.open_for_s)
