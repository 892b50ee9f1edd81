"""Play one run: claim it, go on at the turn where it stood, step by step until its end, then grade and settle it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from qa_worker.application._run_grading import grade_run
from qa_worker.application._run_record import (
    RunTools,
    allowed_s,
    end_run,
    next_after,
    postpone,
    tell,
    wait_or_end,
    waits_beyond,
)
from qa_worker.application.playing import SIMULATED, AgentPlayer, AgentReply, CallerPlayer, CallerReply
from qa_worker.application.running import ClaimedRun, Played, totals
from qa_worker.domain.errors import LeaseLost, QaError, StoreUnavailable
from qa_worker.domain.evaluation import Usage
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.outcome import Dead, Outcome, Skipped
from qa_worker.domain.playback import (
    AskAgent,
    AskCaller,
    Greet,
    Line,
    MakeMove,
    Over,
    PlayedTurn,
    Written,
    ended_without_a_word,
    greeted,
    history_of_caller,
    lost,
    merged,
    moved,
    next_step,
    now_s,
    pause_s,
    playable,
    replied,
)
from qa_worker.domain.run import Completion, RunState, settle
from qa_worker.domain.transcript import Role, Turn
from qa_worker.domain.work import WorkState, WorkStatus

LEASE_LOST = "lease lost: another worker has this run by now"
_LOOK_EVERY_S = 1.0
_UNANSWERED = Failure(
    FailureKind.TRANSIENT, "run_deadline", "The run's time was up before the agent had answered once."
)
_MUTE = Failure(FailureKind.UNREADABLE, "caller_said_nothing", "The simulated caller's line holds nothing to play.")


def run_scenario(*, run_id: uuid.UUID, tools: RunTools) -> Outcome:
    """Play and grade a run. Two messages, two workers or a late zombie change nothing: no turn twice, none lost.

    Returns:
        `Done(state)`; `Skipped` where there was nothing to do; `RetryAt`, `Parked` or `Dead` as recorded in the row.

    Raises:
        StoreUnavailable: the database is out of reach. What was recorded before stays, and the run goes on from there.

    """
    with tools.grading.uow() as work:
        claimed = work.runs.claim(run_id, lease_s=tools.grading.lease_s)
        status = None if claimed else work.runs.status(run_id)
        work.commit()
    if claimed is None:
        return Skipped(_why_not_claimed(status, now=tools.grading.clock.now()))
    tools.grading.context.bind(suite_run_id=str(claimed.ref.suite_run_id), attempt=claimed.lease.attempt)
    try:
        with tools.leases.hold([claimed.lease]):
            return _Conversation(claimed, tools).go_on()
    except LeaseLost:
        return Skipped(LEASE_LOST)


class _Conversation:
    """One run in this process: its rows, its two players, and how long it has been at it."""

    def __init__(self, claimed: ClaimedRun, tools: RunTools) -> None:
        allowed = timedelta(seconds=allowed_s(claimed, tools) - claimed.age_s)
        self._claimed = replace(claimed, until=tools.grading.clock.now() + allowed)
        self._context = replace(claimed.context, stop=self._stop_asked)
        self._tools = tools
        self._rows: Sequence[PlayedTurn] = claimed.rows
        self._unwritten: dict[int, PlayedTurn] = {}
        self._began = tools.grading.clock.now()
        self._cancel_asked = claimed.cancel_asked
        self._cut_short = False
        self._caller_name = ""
        self._live = claimed.context.target.kind not in SIMULATED

    def go_on(self) -> Outcome:
        """To the end of the run, or to where it has to wait."""
        if self._cancel_asked:
            return end_run(self._claimed, self._rows, settle(Completion.CANCELLED), self._tools)
        tell(self._claimed, self._rows, RunState.RUNNING, self._tools)
        if self._claimed.completion is not None:
            return grade_run(self._claimed, self._rows, self._claimed.completion, self._tools)
        try:
            players = self._tools.players
            agent, caller = players.agent(self._context), players.caller(self._context)
        except QaError as missing:
            # Nothing was played, and nothing will be before somebody has seen to it.
            refused = Failure(FailureKind.REJECTED, "no_player", str(missing))
            return postpone(self._claimed, self._rows, refused, self._tools)
        self._caller_name = caller.name
        try:
            ended_by = self._play(agent, caller)
            self._write()
        except (StoreUnavailable, LeaseLost):
            raise
        except Exception as error:
            # A fault of ours is written down before it is raised, and the attempt counts.
            message = f"Unexpected {type(error).__name__} while playing; the worker's log has the place."
            postpone(self._claimed, self._rows, Failure(FailureKind.TRANSIENT, "internal_error", message), self._tools)
            raise
        if isinstance(ended_by, Failure):
            return self._postponed(ended_by)
        if ended_by is Completion.TIMEOUT and not _happened(self._rows):
            return wait_or_end(self._claimed, self._rows, Dead(_UNANSWERED.code), _UNANSWERED, self._tools)
        return grade_run(self._claimed, self._rows, ended_by, self._tools)

    def _postponed(self, failure: Failure) -> Outcome:
        """The run waits, or is given up; where its time would be up by then, what happened is graded now."""
        step = next_after(self._claimed, failure, self._tools)
        if waits_beyond(step, self._claimed.until):
            if _happened(self._rows):
                completion = Completion.CANCELLED if self._stop_asked() else Completion.TIMEOUT
                return grade_run(self._claimed, self._rows, completion, self._tools)
            step = Dead(failure.code)
        return wait_or_end(self._claimed, self._rows, step, failure, self._tools)

    def _play(self, agent: AgentPlayer, caller: CallerPlayer) -> Completion | Failure:
        context = self._context
        while True:
            step = next_step(self._rows, context.scenario, greeting=context.agent.greeting, limits=context.limits)
            # A conversation that has come to its end is graded, also where a cancel was asked for meanwhile.
            if isinstance(step, Over):
                return step.completion
            stopped_by = self._stopped_by()
            if stopped_by is not None:
                return stopped_by
            taken = self._take(step, agent, caller)
            if isinstance(taken, Failure) and (taken.usage != Usage() or taken.cost_micro_usd != 0):
                billed = lost(self._rows, usage=taken.usage, cost_micro_usd=taken.cost_micro_usd)
                self._rows = merged(self._rows, billed)
                self._unwritten |= billed
            if isinstance(taken, Completion | Failure):
                return taken
            self._rows = merged(self._rows, taken)
            self._unwritten |= taken
            # A fixed line cost nothing and would be the same again: it is written with the answer to it.
            if not isinstance(step, AskCaller | MakeMove) or _has_cost(taken):
                self._write()
            if self._cut_short:
                return Completion.CANCELLED

    def _stopped_by(self) -> Completion | None:
        if self._cancel_asked:
            return Completion.CANCELLED
        until = self._claimed.until
        late = until is not None and self._tools.grading.clock.now() >= until
        return Completion.TIMEOUT if late or self._played_s() >= self._context.limits.run_s else None

    def _take(
        self, step: Greet | AskCaller | MakeMove | AskAgent, agent: AgentPlayer, caller: CallerPlayer
    ) -> Written | Completion | Failure:
        match step:
            case Greet(text):
                return greeted(text)
            case AskCaller(number):
                return self._caller(caller, number)
            case MakeMove(line, move):
                return self._move(line, move)
            case AskAgent(history, told):
                return self._agent(agent, history, told)
            case _:
                assert_never(step)

    def _caller(self, caller: CallerPlayer, number: int) -> Written | Completion | Failure:
        reply = caller.line(self._context, history_of_caller(self._rows), number)
        if isinstance(reply, Failure):
            return reply
        line = Line(reply.line, number, reply.done)
        if not playable(line):
            return ended_without_a_word(self._context.scenario) if reply.done else _MUTE
        return self._move(line, 0, reply)

    def _move(self, line: Line, move: int, reply: CallerReply | None = None) -> Written:
        self._keep_silent(pause_s(line, move, live=self._live))
        usage, cost = (reply.usage, reply.cost_micro_usd) if reply else (Usage(), 0)
        return moved(self._rows, line, move, live=self._live, usage=usage, cost_micro_usd=cost)

    def _keep_silent(self, left_s: float) -> None:
        """Wait for so long, or until a cancel is asked for."""
        while left_s > 0 and not self._cut_short:
            self._tools.sleep(min(left_s, _LOOK_EVERY_S))
            left_s -= _LOOK_EVERY_S
            self._cut_short = self._stop_asked()

    def _agent(self, agent: AgentPlayer, history: Sequence[Turn], told: str) -> Written | Failure:
        reply = agent.reply(self._context, history, told)
        if isinstance(reply, Failure):
            return reply
        self._cut_short = reply.cut_short
        return replied(
            self._rows,
            reply.turns,
            latency_s=reply.latency_s,
            ready_s=reply.ready_s,
            faults=reply.faults,
            last=_of_reply(reply),
        )

    def _write(self) -> None:
        """Store what happened, in a transaction of its own, while the lease is ours; and look whether to stop."""
        if not self._unwritten:
            return
        usage, cost = totals(self._rows)
        played = Played(len(self._rows), now_s(self._rows), self._played_s(), usage, cost, self._caller_name)
        asked: list[bool] = []
        lease, written = self._claimed.lease, self._unwritten
        self._tools.grading.records.submit(lambda work: asked.append(work.runs.append(lease, written, played))).result()
        self._unwritten, self._cancel_asked = {}, asked[-1]
        self._claimed = replace(self._claimed, lease=replace(lease, attempt=1, parked=0), unreadable=0)
        tell(self._claimed, self._rows, RunState.RUNNING, self._tools)

    def _stop_asked(self) -> bool:
        with self._tools.grading.uow() as work:
            return work.runs.cancel_asked(self._claimed.ref.id)

    def _played_s(self) -> float:
        """Real seconds spent on this run by all workers that had it. What it waited in its row doesn't count."""
        now: datetime = self._tools.grading.clock.now()
        return self._claimed.played_s + (now - self._began).total_seconds()


def _happened(rows: Sequence[PlayedTurn]) -> bool:
    """Whether the agent has done anything since the caller first spoke, so that there is something to grade."""
    spoken = [place for place, row in enumerate(rows) if row.turn.role is Role.CALLER]
    return bool(spoken) and any(row.turn.role is not Role.CALLER for row in rows[spoken[0] :])


def _has_cost(written: Written) -> bool:
    return any(row.cost_micro_usd != 0 or row.usage != Usage() for row in written.values())


def _of_reply(reply: AgentReply) -> PlayedTurn:
    """What holds for a whole reply, to be kept with the last of its turns."""
    silent = Turn(Role.AGENT, "")
    return PlayedTurn(
        silent, ends=reply.ends, transferred=reply.transferred, usage=reply.usage, cost_micro_usd=reply.cost_micro_usd
    )


def _why_not_claimed(status: WorkStatus | None, *, now: datetime) -> str:
    if status is None:
        return "no such run"
    match status.state:
        case WorkState.DONE | WorkState.DEAD:
            return "already over"
        case WorkState.PENDING if status.not_before > now:
            return "waiting for its next attempt"
        case _:
            return "played by another worker"
