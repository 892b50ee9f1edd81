"""Grading a conversation that is over: the same judge as for any call, and what the scenario expects on top of it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import assert_never

from qa_worker.application._grading import attempt_record, charge, evidence_of, no_judge, request_for, tried_before
from qa_worker.application._run_record import (
    RunTools,
    allowed_s,
    end_run,
    tell,
    told,
    wait_or_end,
    waits_beyond,
    write_end,
    write_wait,
)
from qa_worker.application.judging import JudgeAnswer
from qa_worker.application.ports import Added, Claimed, NamedRubric, UnitOfWork
from qa_worker.application.running import ClaimedRun
from qa_worker.domain import caller_validity, expectations, rules
from qa_worker.domain.call import Call
from qa_worker.domain.errors import LeaseLost, StoreUnavailable
from qa_worker.domain.evaluation import Assessment, Evaluation, Usage
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.expectations import Unmet
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Done, Parked, RetryAt
from qa_worker.domain.playback import Rows, transcript_of, unheard_of
from qa_worker.domain.retry import next_step
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.run import NOT_GRADED, Completion, Ended, RunState, settle
from qa_worker.domain.run_evidence import as_played
from qa_worker.domain.transcript import Role
from qa_worker.domain.verdict import could_not_read, decide
from qa_worker.domain.work import Lane, WorkState

SOURCE = "scenario"
"""Under `source` in the metadata of a run's call: it is no production call, and counts in none of their figures."""
_HELD = Failure(FailureKind.HELD, "evaluation_held", "Another worker is grading this run.")
_LOOK_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class _Graded:
    """All that is known of a conversation when the judge has to be asked."""

    run: ClaimedRun
    rows: Rows
    completion: Completion
    claimed: Claimed
    evidence: Evidence
    missed: Sequence[Unmet]


def grade_run(run: ClaimedRun, rows: Rows, completion: Completion, tools: RunTools) -> Done | RetryAt | Parked | Dead:
    """Caller validity first, then the verdict, then the run's state. Raises LeaseLost, StoreUnavailable."""
    scenario, transcript = run.context.scenario, transcript_of(rows)
    faults = () if completion in NOT_GRADED else caller_validity.check(scenario, transcript, completion).reasons
    if completion in NOT_GRADED or faults:
        return end_run(run, rows, settle(completion, faults=faults), tools)
    claimed = _evaluation_of(run, rows, completion, tools)
    if isinstance(claimed, Ended):
        return end_run(run, rows, claimed, tools)
    if not isinstance(claimed, Claimed):
        return _not_graded(run, rows, claimed, tools)
    graded = _Graded(
        run,
        rows,
        completion,
        claimed,
        as_played(expectations.of_run(evidence_of(claimed), completion, answered=_answered(rows)), rows),
        expectations.check(transcript, scenario.expected, unheard=unheard_of(rows)),
    )
    with tools.grading.leases.hold([claimed.lease]):
        return _judged(graded, tools)


def _answered(rows: Rows) -> bool:
    return bool(rows) and rows[-1].turn.role is not Role.CALLER


def _evaluation_of(run: ClaimedRun, rows: Rows, completion: Completion, tools: RunTools) -> Claimed | Ended | Failure:
    """The evaluation of the run's call, stored with it and claimed; the failure where it isn't free, or was given up on."""
    found: list[Claimed | Ended | Failure] = []

    def write(work: UnitOfWork) -> None:
        found.append(_stored(work, run, rows, completion, tools))

    tools.settling.write(write)
    return found[-1]


def _stored(
    work: UnitOfWork, run: ClaimedRun, rows: Rows, completion: Completion, tools: RunTools
) -> Claimed | Ended | Failure:
    (added,) = work.calls.add_all([_call(run, rows, completion)], workspace_name=run.workspace_name)
    if not isinstance(added, Added):
        return Ended(RunState.ERROR, completion, "a call with this run's id is stored with another content")
    rubric = _rubric(work, run, added, tools)
    if rubric is None:
        message = f"the workspace has no rubric {run.context.scenario.rubric!r} any more"
        return Ended(RunState.ERROR, completion, message)
    grading = tools.grading.grading
    version = work.rubrics.version(added.key.workspace, rubric, grading.spec(rubric, run.judge))
    wanted = [(added.key, version)]
    (evaluation_id,) = work.evaluations.ensure_all(wanted, lane=Lane.RUN, max_attempts=grading.max_attempts)
    work.runs.close(run.lease, completion, call_id=added.key.id, evaluation_id=evaluation_id)
    claimed = work.evaluations.claim([evaluation_id], lease_s=tools.grading.lease_s)
    return next((one for one in claimed if isinstance(one, Claimed)), None) or _why_not(work, evaluation_id)


def _why_not(work: UnitOfWork, evaluation_id: uuid.UUID) -> Failure:
    status = work.evaluations.status(evaluation_id)
    if status is None or status.state is not WorkState.DEAD:
        return _HELD
    # The sweep has given up on it: its workers died over it. Nobody would ever give it back.
    return Failure(status.error_kind or FailureKind.ABANDONED, status.error_code, status.error_message)


def _call(run: ClaimedRun, rows: Rows, completion: Completion) -> Call:
    scenario = run.context.scenario
    return Call(
        ref=f"run/{run.ref.id}",
        agent=run.context.agent.agent,
        transcript=transcript_of(rows),
        started_at=run.begun_at,
        expected=scenario.expected.call,
        metadata={
            "source": SOURCE,
            "run_id": str(run.ref.id),
            "scenario": scenario.id,
            "completion": completion.value,
        },
    )


def _rubric(work: UnitOfWork, run: ClaimedRun, added: Added, tools: RunTools) -> NamedRubric | None:
    name = run.context.scenario.rubric
    if name is not None:
        own = tools.grading.grading.rubric
        return own if own.rubric.name == name else work.rubrics.named(added.key.workspace, name)
    return work.rubrics.default_for(added.key.workspace, added.key.agent_id) or tools.grading.grading.rubric


def _not_graded(run: ClaimedRun, rows: Rows, failure: Failure, tools: RunTools) -> Done | RetryAt | Parked | Dead:
    again_at = tools.grading.clock.now() + timedelta(seconds=_LOOK_AGAIN_S)
    step = Parked(again_at, failure.code) if failure == _HELD else Dead(failure.code)
    return wait_or_end(run, rows, step, failure, tools)


def _judged(graded: _Graded, tools: RunTools) -> Done | RetryAt | Parked | Dead:
    answer: JudgeAnswer | None = None
    try:
        judge = tools.grading.judges.get(graded.claimed.version.judge.kind)
        answer = judge.grade(request_for(graded.claimed, graded.evidence)) if judge else no_judge(graded.claimed)
        return _record(graded, answer, tools)
    except StoreUnavailable:
        raise
    except LeaseLost:
        if answer is not None:
            charge(graded.claimed.lease, answer, tools.grading)
        raise
    except Exception as error:
        # A fault of ours is written down before it is raised: the attempt counts, with what it has cost.
        message = f"Unexpected {type(error).__name__} while grading; the worker's log has the place."
        failure = Failure(FailureKind.TRANSIENT, "internal_error", message)
        spent = answer or JudgeAnswer(failure, Usage(), "", None, "")
        _postpone(graded, failure, replace(spent, result=failure, raw=""), tools)
        raise


def _record(graded: _Graded, answer: JudgeAnswer, tools: RunTools) -> Done | RetryAt | Parked | Dead:
    match answer.result:
        case Assessment():
            return _finish(graded, _decided(graded, answer.result), answer, tools)
        case Failure():
            return _failed(graded, answer.result, answer, tools)
        case _:
            assert_never(answer.result)


def _decided(graded: _Graded, assessment: Assessment) -> Evaluation:
    """As for any call, with the scenario's expectations as established facts."""
    version, transcript = graded.claimed.version, graded.claimed.call.transcript
    rubric, evidence, missed = version.rubric, graded.evidence, graded.missed
    found = expectations.findings(missed, rubric=rubric)
    if version.judge.kind is JudgeKind.RULES:
        # It has reported every fact as a finding already.
        assessed = expectations.filled(assessment, graded.run.context.scenario.expected)
    else:
        assessed = rules.capped(assessment, evidence, rubric=rubric)
        found = (*rules.established(evidence, rubric=rubric), *found)
    bounded = expectations.capped(assessed, missed, rubric=rubric)
    return decide(bounded, rubric=rubric, transcript=transcript, established=found)


def _failed(graded: _Graded, failure: Failure, answer: JudgeAnswer, tools: RunTools) -> Done | RetryAt | Parked | Dead:
    step = _next_after(graded, failure, answer, tools)
    if isinstance(step, Dead) and failure.kind is FailureKind.UNREADABLE:
        rubric = graded.claimed.version.rubric
        proven = rules.established(graded.evidence, rubric=rubric)
        found = (*proven, *expectations.findings(graded.missed, rubric=rubric))
        return _finish(graded, could_not_read(rubric=rubric, code=failure.code, established=found), answer, tools)
    return _postpone(graded, failure, answer, tools, step=step)


def _next_after(graded: _Graded, failure: Failure, answer: JudgeAnswer, tools: RunTools) -> RetryAt | Parked | Dead:
    lease, grading = graded.claimed.lease, tools.grading
    tried = tried_before(lease, answer, failure, grading)
    now, jitter = grading.clock.now(), grading.jitter.fraction()
    return next_step(grading.policy, failure, tried=tried, now=now, jitter=jitter)


def _bounded(
    step: RetryAt | Parked | Dead, run: ClaimedRun, failure: Failure, tools: RunTools
) -> RetryAt | Parked | Dead:
    """The judge is waited for as long as the run was allowed to take, and no longer: its suite has to end some day."""
    until = None if run.until is None else run.until + timedelta(seconds=allowed_s(run, tools))
    return Dead(failure.code) if waits_beyond(step, until) else step


def _finish(graded: _Graded, evaluation: Evaluation, answer: JudgeAnswer, tools: RunTools) -> Done:
    claimed, run = graded.claimed, graded.run
    attempt = attempt_record("done", answer, tools.grading.clock.now())
    ended = settle(graded.completion, verdict=evaluation.verdict)

    def write(work: UnitOfWork) -> None:
        work.evaluations.finish(claimed.lease, claimed.key, evaluation, graded.evidence, attempt)
        write_end(work, run, ended, tools, agent_id=claimed.key.agent_id)

    tools.settling.write(write, lease=claimed.lease)
    tell(run, graded.rows, ended.state, tools)
    return Done(ended.state.value)


def _postpone(
    graded: _Graded,
    failure: Failure,
    answer: JudgeAnswer,
    tools: RunTools,
    *,
    step: RetryAt | Parked | Dead | None = None,
) -> Done | RetryAt | Parked | Dead:
    """The evaluation and its run wait together, or are given up together."""
    now, lease = tools.grading.clock.now(), graded.claimed.lease
    chosen = _bounded(step or _next_after(graded, failure, answer, tools), graded.run, failure, tools)
    states: list[RunState] = []

    def write(work: UnitOfWork) -> None:
        match chosen:
            case RetryAt(when, reason):
                record = attempt_record("retry", answer, now)
                wait_s = (when - now).total_seconds()
                work.evaluations.wait(lease, wait_s=wait_s, reason=reason, counts=True, record=record)
            case Parked(until, reason):
                record = attempt_record("parked", answer, now)
                wait_s = (until - now).total_seconds()
                work.evaluations.wait(lease, wait_s=wait_s, reason=reason, counts=False, record=record)
            case Dead():
                record = attempt_record("dead", answer, now)
                work.evaluations.bury(lease, evidence=graded.evidence, record=record)
            case _:
                assert_never(chosen)
        states.append(write_wait(work, graded.run, chosen, failure, tools))

    tools.settling.write(write, lease=lease)
    return told(graded.run, graded.rows, chosen, states[-1], tools)
