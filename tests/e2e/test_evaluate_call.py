"""A call goes in, a verdict comes out: real workers, real broker, real database, the real SDK against a local server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import delete, func, select

from qa_worker import bootstrap
from qa_worker.adapters.postgres.migrate import upgrade
from qa_worker.adapters.postgres.tables import attempts, calls, evaluations, findings
from qa_worker.application.ports import Wanted
from qa_worker.application.queries import EvaluationView
from qa_worker.application.submit_call import Accepted
from qa_worker.domain.errors import StoreUnavailable
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn
from qa_worker.domain.work import WorkState
from qa_worker.embedded.files import make_home
from qa_worker.embedded.postgres import PostgresServer
from qa_worker.messages import Queue
from qa_worker.producer import Producer
from tests.builders import a_call, a_transcript
from tests.e2e.conftest import System
from tests.e2e.workers import LEASE_S, eventually, workers
from tests.servers.behaviours import Answer, Fault, Hang, overloaded, rate_limited
from tests.servers.messages_api import MessagesServer

pytestmark = [pytest.mark.services, pytest.mark.e2e]

CANARY = "Wilhelmina Quackenbush 555-0142-7788"


def _saying(ref: str, text: str) -> Transcript:
    return a_transcript(
        ("agent", f"Hello, this is the clinic, call {ref}."), ("caller", text), ("agent", "Goodbye now.")
    )


def test_a_call_is_graded_by_claude_with_usage_cost_and_findings(system: System) -> None:
    system.workers.start(Queue.EVALUATE_CALL)

    (view,) = system.done(system.submit(a_call("one")))

    assert (view.verdict, view.judge, view.model) == ("pass", "claude", "claude-haiku-5-5")
    assert view.usage.prompt_tokens > 0
    assert view.cost_micro_usd
    assert view.attempts[0].request_id
    (received,) = system.api.requests
    assert received.headers["authorization"] == "Bearer sk-test"


def test_a_backend_that_wrote_its_own_row_only_says_call_finished(system: System, broker_url: str) -> None:
    """The row is there, no evaluation was asked for; the message names the call alone."""
    (accepted,) = system.submit(a_call("one"))
    with system.engine.begin() as connection:
        connection.execute(delete(evaluations))
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    system.workers.start(Queue.EVALUATE_CALL)

    # judge `auto`: the worker has a key
    with Producer(broker_url) as producer:
        producer.call_finished(accepted.call_id)

    (view,) = system.done([accepted])
    assert view.verdict == "pass"


def test_a_row_whose_message_never_came_is_found(system: System, broker_url: str) -> None:
    (accepted,) = system.submit(a_call("one"))
    with system.engine.begin() as connection:
        connection.execute(delete(evaluations))
        connection.execute(calls.update().values(admitted_at=None))
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()

    (view,) = system.done([accepted])
    assert view.verdict == "pass"


def test_a_killed_worker_loses_and_doubles_nothing(system: System) -> None:
    """kill -9 in the middle of 200 calls with a slow judge: another worker ends up with 200 evaluations, none twice."""
    system.api.default = Answer(latency_s=0.4)
    first = system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()
    accepted = system.submit(*(a_call(f"call-{number}") for number in range(200)))
    eventually(lambda: system.states().count("done") >= 40, what="40 of 200 are done")
    eventually(lambda: system.states().count("running") >= 4, what="some are at the judge")

    system.workers.kill(first)
    killed_at, killed_on = time.monotonic(), datetime.now(UTC)
    held = system.states().count("running")
    system.workers.start(Queue.EVALUATE_CALL)
    views = system.done(accepted)

    assert held > 0
    assert Counter(view.verdict for view in views) == {"pass": 200}
    results = Counter(attempt.result for view in views for attempt in view.attempts if attempt.result != "parked")
    assert results == {"done": 200, "abandoned": held}
    with system.engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(evaluations)).scalar_one() == 200
        ended = connection.execute(select(attempts.c.evaluation_id).where(attempts.c.result == "done")).scalars().all()
        quotes = select(findings.c.evaluation_id, findings.c.position).group_by(
            findings.c.evaluation_id, findings.c.position
        )
        assert len(set(ended)) == 200
        assert connection.execute(select(func.count()).select_from(quotes.subquery())).scalar_one() == sum(
            len(view.findings) for view in views
        )
    print(f"200 calls, {held} held by the killed worker, all done {time.monotonic() - killed_at:.1f} s after the kill")  # noqa: T201
    abandoned = [attempt for view in views for attempt in view.attempts if attempt.result == "abandoned"]
    within_one_lease = killed_on + timedelta(seconds=LEASE_S + 1)
    assert all(attempt.ended_at <= within_one_lease for attempt in abandoned)


def test_a_flushed_broker_costs_seconds_and_no_call(system: System, broker_url: str) -> None:
    system.api.default = Answer(latency_s=0.3)
    accepted = system.submit(*(a_call(f"call-{number}") for number in range(60)))
    with redis.Redis.from_url(broker_url) as client:
        client.flushdb()
    system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()

    assert {view.verdict for view in system.done(accepted)} == {"pass"}


def test_faults_of_the_service_are_survived_by_the_row(system: System) -> None:
    system.api.when("overloaded please", overloaded(), times=1)
    system.api.when("limit please", rate_limited("0.5"), times=2)
    system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()

    views = system.done(
        system.submit(
            a_call("overloaded", transcript=_saying("1", "overloaded please")),
            a_call("limited", transcript=_saying("2", "limit please")),
        )
    )

    assert [view.verdict for view in views] == ["pass", "pass"]
    assert [[attempt.result for attempt in view.attempts] for view in views] == [
        ["retry", "done"],
        ["parked", "parked", "done"],
    ]
    assert [view.attempts[0].error_code for view in views] == ["http_529", "http_429"]


def test_a_database_that_restarts_costs_no_answer_that_was_paid_for(
    tmp_path: Path, broker_url: str, api: MessagesServer
) -> None:
    """PostgreSQL is killed while answers are on their way: each is recorded when it is back, none is asked for twice."""
    home = tmp_path / "home"
    make_home(home)
    postgres = PostgresServer(home)
    postgres.start(lambda _text: None)
    folder = tmp_path / "logs"
    folder.mkdir()
    try:
        upgrade(postgres.url)
        api.default = Answer(latency_s=1.5)
        extra = {"ANTHROPIC_API_KEY": "sk-test", "ANTHROPIC_BASE_URL": api.url, "QA_LEASE_S": "30"}
        client = bootstrap.Client(database_url=postgres.url, broker_url=broker_url)
        with workers(database_url=postgres.url, broker_url=broker_url, folder=folder, extra=extra) as fleet:
            fleet.start(Queue.EVALUATE_CALL)
            fleet.start(Queue.MAINTENANCE)
            fleet.start_beat()
            made = [a_call(f"call-{number}") for number in range(30)]
            accepted = client.submit(made, workspace="default", wanted=Wanted(judge=JudgeKind.CLAUDE))
            ids = [one.evaluation_id for one in accepted if isinstance(one, Accepted)]
            eventually(lambda: api.in_flight > 8, what="some are at the judge")
            _kill_and_start_again(postgres)
            eventually(lambda: _all_done(client, ids), what="all are done")
        client.close()
    finally:
        postgres.stop()
        postgres.remove()

    assert len(api.requests) == 30


def _kill_and_start_again(postgres: PostgresServer) -> None:
    assert postgres.process is not None
    postgres.process.kill()
    postgres.process.wait(10)
    time.sleep(2)
    postgres.prepare(lambda _text: None)
    started = postgres.process = postgres.spawn()
    eventually(lambda: postgres.answers(started), what="PostgreSQL is back")


def _all_done(client: bootstrap.Client, ids: list[uuid.UUID]) -> bool:
    try:
        states = client.queries.progress(ids)
    except StoreUnavailable:
        return False
    return len(states) == len(ids) and all(one.state is WorkState.DONE for one in states)


def test_a_silent_service_is_given_up_visibly(
    system: System,
) -> None:
    system.workers.env |= {"QA_JUDGE_DEADLINE_S": "0.5", "QA_MAX_ATTEMPTS": "2"}
    system.api.default = Hang()
    system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()

    (accepted,) = system.submit(a_call("one"))
    with system.engine.begin() as connection:
        connection.execute(evaluations.update().values(max_attempts=2))
    (view,) = system.done([accepted])

    assert (view.state.value, view.verdict, view.overall) == ("dead", "not_evaluated", None)
    assert view.error_kind == "transient"
    assert len(view.attempts) == 2


def test_batch_evaluate_partial_failure(system: System) -> None:
    """Of a batch, a part fails for good: the others come back with results, the failed ones with their reasons."""
    system.api.when("reject me", Fault("bad_request", 400, "invalid_request_error", "messages.0: bad"))
    system.api.when("confuse me", Answer(text="I would say it was fine."))
    system.workers.start(Queue.EVALUATE_CALL)
    system.workers.start(Queue.MAINTENANCE)
    system.workers.start_beat()
    good = [a_call(f"good-{number}") for number in range(5)]
    bad = [a_call(f"bad-{number}", transcript=_saying(str(number), "reject me")) for number in range(2)]
    odd = a_call("odd", transcript=_saying("odd", "confuse me"))

    views = {view.ref: view for view in system.done(system.submit(*good, *bad, odd))}

    assert {ref: view.verdict for ref, view in views.items()} == {
        **{f"good-{number}": "pass" for number in range(5)},
        "bad-0": "not_evaluated",
        "bad-1": "not_evaluated",
        "odd": "needs_review",
    }
    assert all(view.overall is not None for ref, view in views.items() if ref.startswith("good"))
    rejected: EvaluationView = views["bad-0"]
    assert (rejected.error_kind, rejected.overall, len(rejected.attempts)) == ("rejected", None, 1)
    assert rejected.attempts[0].request_id
    assert views["odd"].reasons[0].startswith("unreadable:")
    assert views["odd"].attempts[-1].raw == "I would say it was fine."


def test_no_log_line_holds_what_was_said(system: System) -> None:
    """A name and a number that occur in the transcript, in tool calls, in the model's answer and in the API's error."""
    tool = ToolCall("find_patient", {"name": CANARY}, id="t1")
    transcript = Transcript(
        (
            Turn(Role.AGENT, "Who is calling?"),
            Turn(Role.CALLER, f"This is {CANARY}."),
            Turn(Role.AGENT, "One moment.", tool_calls=(tool,)),
            Turn(Role.TOOL, json.dumps({"error": f"no such patient {CANARY}"}), tool_call_id="t1"),
            Turn(Role.AGENT, f"Sorry {CANARY}, I can't find you."),
        )
    )
    system.api.enqueue(
        Fault("echo", 400, "invalid_request_error", f"messages.0: bad text {CANARY}"),
        Answer(text=f"I can't grade {CANARY}."),
    )
    system.workers.env["QA_LOG_LEVEL"] = "DEBUG"
    system.workers.start(Queue.EVALUATE_CALL)

    system.done(system.submit(a_call("one", transcript=transcript)))
    (unreadable,) = system.submit(a_call("two", transcript=transcript))
    eventually(lambda: system.states().count("pending") == 1, what="the second call waits for its next attempt")

    logs = system.workers.logs()
    assert str(unreadable.call_id) in logs
    for secret in (CANARY, "Quackenbush", "0142", "sk-test"):
        assert secret not in logs


def test_logs_are_json_lines_with_their_ids_bound(system: System) -> None:
    system.workers.start(Queue.EVALUATE_CALL)
    (accepted,) = system.submit(a_call("one"))
    system.done([accepted])

    lines = [json.loads(line) for line in system.workers.logs().splitlines() if line.startswith("{")]

    (done,) = [line for line in lines if line["event"] == "done"]
    assert done["call_id"] == str(accepted.call_id)
    assert done["evaluation_id"] == str(accepted.evaluation_id)
    assert done["workspace"] == "default"
    assert (done["task"], done["attempt"], done["detail"]) == ("evaluate-call", 1, "pass")
    assert str(uuid.UUID(done["task_id"])) == done["task_id"]


def test_an_old_worker_survives_a_newer_message(system: System, broker_url: str) -> None:
    """A keyword that this version doesn't know is ignored, as two versions run side by side during a deployment."""
    system.workers.start(Queue.EVALUATE_CALL)
    (accepted,) = system.submit(a_call("one"))
    system.done([accepted])
    code = (
        "import sys, celery\n"
        "app = celery.Celery(broker=sys.argv[1])\n"
        "app.send_task('evaluate-call', kwargs={'call_id': sys.argv[2], 'priority': 3}, queue='evaluate-call',"
        " exchange='', routing_key='evaluate-call')\n"
    )

    subprocess.run([sys.executable, "-c", code, broker_url, str(accepted.call_id)], check=True, env=dict(os.environ))

    eventually(lambda: "already evaluated" in system.workers.logs(), what="the message was understood")
    assert "task_failed" not in system.workers.logs()
