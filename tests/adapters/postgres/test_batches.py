"""Rows of batches: what only the database can guarantee."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError

from qa_worker.adapters.postgres.budget import PostgresBudget
from qa_worker.adapters.postgres.tables import batches
from qa_worker.application.batching import AgentKey, StoredSize
from qa_worker.application.purse import Left
from qa_worker.domain.backlog import Choice, Selection
from qa_worker.domain.batch import BatchState
from qa_worker.domain.call import Agent, workspace_id
from qa_worker.domain.errors import LeaseLost
from qa_worker.domain.transcript import to_json
from tests.application.batch_bench import Bench
from tests.builders import a_call, a_transcript
from tests.conftest import UnitsOfWork

pytestmark = pytest.mark.services


def test_the_size_of_a_stored_call_is_told_in_characters_and_in_bytes(uow: UnitsOfWork) -> None:
    bench = Bench(uow)
    talk = a_transcript(("agent", "Büro Müller, grüß Gott."), ("caller", "お世話になっております。"))
    agent = Agent("booking", instructions="八名を超える予約は受けません。")
    (accepted,) = bench.hand_over(replace(a_call("one", transcript=talk), agent=agent))

    with uow() as work:
        (key,) = work.calls.keys([accepted.call_id])
        whose = AgentKey(key.agent_id, key.workspace)
        every = Selection(choice=Choice.ALL)
        (found,) = work.backlog.candidates(whose, uuid.uuid4(), every, after=None, limit=9, sized=True)

    as_json = json.dumps(to_json(talk), ensure_ascii=False)
    assert found.size == StoredSize(
        len(as_json), 2, len(agent.instructions) + 2, len(as_json.encode()), len(agent.instructions.encode()) + 2
    )


def test_only_one_batch_is_being_made(uow: UnitsOfWork) -> None:
    def make(number: int, state: BatchState) -> None:
        with uow.engine.begin() as connection:
            connection.execute(insert(batches).values(id=workspace_id(str(number)), model="m", state=state.value))

    make(1, BatchState.PREPARING)
    make(2, BatchState.ENDED)
    with pytest.raises(IntegrityError, match="uq_batches_being_made"):
        make(3, BatchState.CREATING)


def test_who_lost_the_lease_of_a_batch_writes_nothing(uow: UnitsOfWork) -> None:
    Bench(uow).submit("one")
    with uow() as work:
        batch = work.batches.begin(but_not=(), lease_s=60)
        work.commit()
    assert batch is not None
    with uow.engine.begin() as connection:
        connection.execute(update(batches).values(lease_token=None, lease_until=None))

    with uow() as work:
        with pytest.raises(LeaseLost):
            work.batches.keep(batch, lease_s=60, progress=True)
        with pytest.raises(LeaseLost):
            work.batches.save(batch, lease_s=60)
        with pytest.raises(LeaseLost):
            work.batches.leave(batch, wait_s=0)
        with pytest.raises(LeaseLost):
            work.batches.drop(batch)


def test_a_cancellation_that_is_asked_for_meanwhile_is_not_written_over(uow: UnitsOfWork) -> None:
    Bench(uow).submit("one")
    with uow() as work:
        batch = work.batches.begin(but_not=(), lease_s=60)
        assert batch is not None
        assert list(work.batches.ask_cancel(str(batch.id))) == [batch.id]
        work.batches.leave(batch, wait_s=-1)
        again = work.batches.take(lease_s=60)
        work.commit()

    assert again is not None
    assert again.cancel_asked


def test_a_name_that_fits_several_batches_cancels_none(uow: UnitsOfWork) -> None:
    with uow.engine.begin() as connection:
        for number in range(20):
            row = {"id": workspace_id(str(number)), "model": "m", "state": "ended", "provider_id": f"p-{number}"}
            connection.execute(insert(batches).values(row))

    with uow() as work:
        assert len(work.batches.ask_cancel("")) == 20
        assert list(work.batches.ask_cancel("p-7")) == [workspace_id("7")]
        assert list(work.batches.ask_cancel("p-")) == []
        work.commit()

    with uow.engine.connect() as connection:
        asked = batches.select().where(batches.c.cancel_asked_at.is_not(None))
        assert [row.provider_id for row in connection.execute(asked)] == ["p-7"]


def test_what_is_left_of_a_budget_is_its_cap_less_what_was_spent_and_promised(uow: UnitsOfWork) -> None:
    bench = Bench(uow)
    bench.submit("one", workspace="a")
    bench.advance()
    (batch,) = bench.open()
    promised = batch.estimate_micro_usd
    assert promised is not None
    budget = PostgresBudget(uow.engine, overall=10_000, each_workspace=5_000, now=lambda: datetime.now(UTC))
    budget.set_cap("b", 77)

    left = budget.left()

    own = {workspace_id("a"): 5_000 - promised, workspace_id("b"): 77}
    assert left == Left(overall=10_000 - promised, each=5_000, of=own)
    assert PostgresBudget(uow.engine, overall=None, each_workspace=None, now=lambda: datetime.now(UTC)).left() == Left(
        of={workspace_id("a"): None, workspace_id("b"): 77}
    )
