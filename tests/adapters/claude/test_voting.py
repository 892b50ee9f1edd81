"""Asking again where it is close, as a worker does it: the judges that it builds, the real SDK, a real database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis
from sqlalchemy import func, update

from qa_worker import rubrics
from qa_worker.adapters.postgres.queries import PostgresQueries
from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.adapters.postgres.tables import evaluations
from qa_worker.application._grading import Tools
from qa_worker.application.evaluate_call import evaluate_call
from qa_worker.application.queries import EvaluationView
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.bootstrap.gateway import judges
from qa_worker.bootstrap.grading import grading, named_rubric, retry_policy
from qa_worker.cli.render import answers
from qa_worker.domain.outcome import Dead, Done, Outcome, RetryAt
from qa_worker.domain.rubric import JudgeKind
from qa_worker.settings import Settings
from tests.builders import a_call
from tests.conftest import UnitsOfWork
from tests.fakes import FixedJitter, FrozenClock, NoContext, NoLeases
from tests.servers.behaviours import graded, rate_limited
from tests.servers.messages_api import MessagesServer

pytestmark = pytest.mark.services


@pytest.fixture
def server() -> Iterator[MessagesServer]:
    with MessagesServer() as server:
        yield server


def _settings(server: MessagesServer, broker_url: str, votes: int) -> Settings:
    return Settings.model_validate(
        {
            "ANTHROPIC_API_KEY": "sk-test",
            "ANTHROPIC_BASE_URL": server.url,
            "QA_REDIS_URL": broker_url,
            "QA_JUDGE_VOTES": votes,
        }
    )


def _graded(uow: UnitsOfWork, chosen: Settings) -> tuple[Outcome, EvaluationView]:
    """One call, graded once by what a worker with these settings has."""
    (accepted,) = submit_calls([a_call()], workspace_name="w", uow=uow, grading=grading(chosen), in_flight_limit=9)
    assert isinstance(accepted, Accepted)
    available, close = judges(chosen, uow.engine)
    try:
        tools = Tools(
            uow=uow,
            records=DirectRecords(uow),
            leases=NoLeases(),
            context=NoContext(),
            judges=available,
            clock=FrozenClock(),
            jitter=FixedJitter(),
            policy=retry_policy(chosen),
            grading=grading(chosen),
            lease_s=60,
        )
        outcome = evaluate_call(call_id=accepted.call_id, evaluation_id=accepted.evaluation_id, tools=tools)
    finally:
        close()
    (view,) = PostgresQueries(uow.engine).evaluations([accepted.evaluation_id])
    return outcome, view


def test_of_three_different_answers_the_median_is_stored_with_the_bill_of_all(
    uow: UnitsOfWork, broker_url: str, server: MessagesServer
) -> None:
    # 4 everywhere is 75, next to the threshold of 70
    server.enqueue(graded(4), graded(1), graded(3))

    outcome, view = _graded(uow, _settings(server, broker_url, votes=3))

    assert outcome == Done("fail")
    assert [score.level for score in view.scores] == [3, 3, 3, 3]
    assert (view.overall, view.reasons, answers(view)) == (50, ("below_threshold", "median_of:3"), 3)
    assert len(view.findings) == 1
    assert len(server.requests) == 3
    assert len({received.text for received in server.requests}) == 1
    (attempt,) = view.attempts
    assert attempt.usage == view.usage
    # the first wrote the static part into the cache, the two others read it
    assert view.usage.cache_read_tokens == 2 * view.usage.cache_write_5m_tokens > 1024
    assert view.cost_micro_usd


def test_one_answer_is_asked_for_where_votes_are_off_or_the_score_is_clear(
    uow: UnitsOfWork, broker_url: str, server: MessagesServer
) -> None:
    server.enqueue(graded(4))
    _, off = _graded(uow, _settings(server, broker_url, votes=1))
    server.enqueue(graded(5))
    _, clear = _graded(uow, _settings(server, broker_url, votes=3))

    assert off.rubric_version != clear.rubric_version
    assert ((off.overall, answers(off)), (clear.overall, answers(clear))) == ((75, 1), (100, 1))
    assert len(server.requests) == 2


def test_votes_that_fail_send_the_call_back_keep_the_bill_and_use_up_the_attempt(
    uow: UnitsOfWork, broker_url: str, server: MessagesServer
) -> None:
    server.enqueue(graded(4), rate_limited("30"), rate_limited("30"))

    outcome, view = _graded(uow, _settings(server, broker_url, votes=3))

    assert isinstance(outcome, RetryAt)
    assert (view.state.value, view.attempt) == ("pending", 1)
    assert (view.attempts[0].result, view.attempts[0].error_code) == ("retry", "http_429")
    assert view.attempts[0].cost_micro_usd == view.cost_micro_usd != 0
    assert view.attempts[0].model == "claude-haiku-5-5"


def test_votes_that_find_no_room_again_and_again_cost_no_more_than_the_attempts_allow(
    uow: UnitsOfWork, broker_url: str, server: MessagesServer
) -> None:
    """The first answer is paid for each time, and the provider's limit stops the others each time."""
    chosen = _settings(server, broker_url, votes=3).model_copy(update={"max_attempts": 2})
    with redis.Redis.from_url(broker_url) as client:
        outcomes = []
        for _ in range(2):
            server.enqueue(graded(4), rate_limited("300"), rate_limited("300"))
            outcome, view = _graded(uow, chosen)
            outcomes.append(outcome)
            client.flushdb()
            _due(uow)

    assert isinstance(outcomes[0], RetryAt)
    assert outcomes[1] == Dead("http_429")
    assert (view.state.value, view.verdict, len(view.attempts)) == ("dead", "not_evaluated", 2)


def _due(uow: UnitsOfWork) -> None:
    with uow.engine.begin() as connection:
        connection.execute(update(evaluations).values(not_before=func.now()))


@pytest.mark.parametrize("votes", [0, 2, 10])
def test_a_number_of_votes_without_a_majority_is_refused(votes: int) -> None:
    with pytest.raises(ValueError, match="QA_JUDGE_VOTES"):
        Settings.model_validate({"QA_JUDGE_VOTES": votes})


def test_the_settings_say_how_many_votes_there_are() -> None:
    chosen = Settings.model_validate({"QA_JUDGE": "claude", "QA_JUDGE_VOTES": 5, "QA_JUDGE_BORDERLINE": 8})
    default = named_rubric(rubrics.default_rubric_text(), source="the default rubric")

    spec = grading(chosen).spec(default, JudgeKind.CLAUDE)

    assert (spec.votes, spec.borderline) == (5, 8)
    assert grading(Settings()).spec(default, JudgeKind.CLAUDE) == replace(spec, votes=1, borderline=0)
