"""The gate in front of batches: what is asked while it is open, and what it is told."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from qa_worker.application.batch_gateway import GatedBatches
from qa_worker.application.batching import Draft, ItemResult
from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.application.limits import Admission, Verdict
from qa_worker.domain.batch import ProviderBatch, ResultKind
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import Rubric

NOW = datetime(2026, 11, 23, tzinfo=UTC)
GOOD = ProviderBatch("msgbatch_1", NOW, 1, ended=True)
RESULT = ItemResult("a", ResultKind.EXPIRED)
OVERLOADED = Failure(FailureKind.OVERLOADED, "http_529", "Overloaded.")
REFUSED = Failure(FailureKind.BLOCKED, "http_401", "The key is wrong.")


@dataclass
class Gate:
    """Implements `BlockingGate`."""

    admission: Admission = field(default_factory=Admission)
    after_probe: Admission | None = None
    told: list[Verdict] = field(default_factory=list)

    def admit(self, service: str) -> Admission:
        assert service == "claude"
        return self.admission

    def report(self, service: str, verdict: Verdict, admission: Admission) -> None:
        assert admission is self.admission
        self.told.append(verdict)
        if admission.probe and self.after_probe is not None:
            self.admission = self.after_probe


@dataclass
class Service:
    """Implements `BatchService`: gives one answer to everything, and counts."""

    answer: ProviderBatch | Failure | BaseException = GOOD
    asked: int = 0
    listed_from: list[datetime] = field(default_factory=list)

    @property
    def count(self) -> int:
        return 1

    def add(self, custom_id: str, request: JudgeRequest) -> bool:
        raise NotImplementedError

    def send(self) -> ProviderBatch | Failure:
        return self._answer()

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        yield self

    def since(self, at: datetime) -> Sequence[ProviderBatch] | Failure:
        self.listed_from.append(at)
        found = self._answer()
        return found if isinstance(found, Failure) else [found]

    def status(self, provider_id: str) -> ProviderBatch | Failure:
        return self._answer()

    def cancel(self, provider_id: str) -> Failure | None:
        found = self._answer()
        return found if isinstance(found, Failure) else None

    def results(self, provider_id: str) -> Generator[ItemResult | Failure, None, None]:
        found = self._answer()
        yield RESULT
        yield found if isinstance(found, Failure) else RESULT

    def read(self, result: ItemResult, *, rubric: Rubric, model: str, provider_id: str) -> JudgeAnswer:
        raise NotImplementedError

    def _answer(self) -> ProviderBatch | Failure:
        self.asked += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def everything(batches: GatedBatches) -> list[object]:
    """The answers of all operations."""
    with batches.draft() as draft:
        sent = draft.send()
    return [sent, batches.since(NOW), batches.status("a"), batches.cancel("a"), list(batches.results("a"))[-1]]


def test_while_the_service_is_down_nothing_is_asked() -> None:
    gate, service = Gate(Admission(open_for_s=40.0)), Service()

    answers = everything(GatedBatches(service, gate))

    assert [(one.kind, one.code, one.retry_after_s) for one in answers if isinstance(one, Failure)] == [
        (FailureKind.HELD, "breaker_open", 40.0)
    ] * 5
    assert (service.asked, gate.told) == (0, [])


@pytest.mark.parametrize(
    ("answer", "verdict", "of_a_probe"),
    [
        (GOOD, Verdict.UP, Verdict.UP),
        (OVERLOADED, Verdict.DOWN, Verdict.DOWN),
        (Failure(FailureKind.TRANSIENT, "timeout", ""), Verdict.DOWN, Verdict.DOWN),
        (Failure(FailureKind.TRANSIENT, "bad_response", ""), Verdict.SILENT, Verdict.DOWN),
        (Failure(FailureKind.TRANSIENT, "http_409", ""), Verdict.SILENT, Verdict.UP),
        (Failure(FailureKind.TRANSIENT, "http_501", ""), Verdict.SILENT, Verdict.UP),
        (REFUSED, Verdict.SILENT, Verdict.UP),
    ],
)
def test_the_gate_is_told_how_the_service_is(
    answer: ProviderBatch | Failure, verdict: Verdict, of_a_probe: Verdict
) -> None:
    gate, probing = Gate(), Gate(Admission(probe="probe-1"))

    everything(GatedBatches(Service(answer), gate))
    GatedBatches(Service(answer), probing).status("a")

    assert gate.told == [verdict] * 5
    assert probing.told == [of_a_probe]


def _send(batches: GatedBatches) -> object:
    with batches.draft() as draft:
        return draft.send()


SLOW = pytest.mark.parametrize(
    "operation",
    [_send, lambda batches: batches.since(NOW), lambda batches: list(batches.results("a"))[-1]],
    ids=["send", "since", "results"],
)


@SLOW
def test_what_may_take_longer_than_a_lease_is_no_probe(operation: Callable[[GatedBatches], object]) -> None:
    gate = Gate(Admission(probe="probe-1"), after_probe=Admission(share=0.1))
    service = Service()

    assert not isinstance(operation(GatedBatches(service, gate)), Failure)

    assert service.listed_from[0] > NOW + timedelta(days=365), "one page, of nothing"
    assert (service.asked, gate.told) == (2, [Verdict.UP, Verdict.UP])


@SLOW
def test_a_list_that_finds_the_service_down_holds_it_back(operation: Callable[[GatedBatches], object]) -> None:
    gate = Gate(Admission(probe="probe-1"), after_probe=Admission(open_for_s=120.0))
    service = Service(OVERLOADED)

    answer = operation(GatedBatches(service, gate))

    assert isinstance(answer, Failure)
    assert (answer.code, service.asked, gate.told) == ("breaker_open", 1, [Verdict.DOWN])


def test_a_fault_of_ours_says_nothing_of_the_service() -> None:
    gate = Gate()

    with pytest.raises(ZeroDivisionError):
        GatedBatches(Service(ZeroDivisionError()), gate).status("a")

    assert gate.told == [Verdict.SILENT]


def test_results_that_are_left_in_the_middle_were_good_so_far() -> None:
    gate = Gate()
    reading = GatedBatches(Service(), gate).results("a")

    next(reading)
    reading.close()

    assert gate.told == [Verdict.UP]
