"""`qa-worker show` of a call that was asked about more than once."""

from __future__ import annotations

import pytest

from qa_worker.adapters.postgres.records import DirectRecords
from qa_worker.application._grading import Tools
from qa_worker.application.evaluate_call import evaluate_call
from qa_worker.application.submit_call import Accepted, submit_calls
from qa_worker.domain.retry import RetryPolicy
from qa_worker.domain.rubric import JudgeKind, Severity
from qa_worker.domain.votes import majority
from tests.builders import a_call, a_finding, a_grading, an_assessment
from tests.cli.conftest import Cli
from tests.conftest import UnitsOfWork
from tests.fakes import FixedJitter, FrozenClock, NoContext, NoLeases, ScriptedJudge

pytestmark = pytest.mark.services


def test_a_median_is_shown_as_one(cli: Cli, uow: UnitsOfWork) -> None:
    (accepted,) = submit_calls(
        [a_call("close")], workspace_name="default", uow=uow, grading=a_grading(), in_flight_limit=9
    )
    assert isinstance(accepted, Accepted)
    critical = an_assessment(a_finding("compliance", Severity.CRITICAL))
    tools = Tools(
        uow=uow,
        records=DirectRecords(uow),
        leases=NoLeases(),
        context=NoContext(),
        judges={JudgeKind.CLAUDE: ScriptedJudge([majority([an_assessment(), critical, an_assessment()])])},
        clock=FrozenClock(),
        jitter=FixedJitter(),
        policy=RetryPolicy(schedule_s=(10,), max_attempts=3),
        grading=a_grading(),
        lease_s=60,
    )
    evaluate_call(call_id=accepted.call_id, evaluation_id=accepted.evaluation_id, tools=tools)

    shown = " ".join(cli("show", "close").out.split())
    (as_json,) = cli("show", "close", "--json").lines

    assert "needs review 100 of 100 (median of 3 answers)" in shown
    assert "critical_disputed:compliance" in shown
    assert as_json["evaluations"][0]["answers"] == 3
