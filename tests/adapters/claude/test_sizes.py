"""The estimate from stored sizes, held against the one that is made of a whole request."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import replace

import pytest

from qa_worker.adapters.claude.batch_draft import SpooledDraft
from qa_worker.adapters.claude.estimate import FIRST_OUTPUT_TOKENS, PastOutputs, need
from qa_worker.adapters.claude.sizes import StoredSizes
from qa_worker.application.batching import StoredSize
from qa_worker.application.judging import JudgeRequest
from qa_worker.application.ports import RubricVersion
from qa_worker.domain.call import Agent, Call
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.rubric import JudgeKind, JudgeSpec
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn, to_json
from tests.domain.grading_samples import AGENT, CALL, RUBRIC, saying

SPEC = JudgeSpec(JudgeKind.CLAUDE, model="claude-haiku-5-5", max_tokens=3000)
VERSION = RubricVersion(uuid.uuid4(), RUBRIC, SPEC)

SHORT = saying("Hello.", "Hello, how can I help?", "Nothing, thanks.", "Goodbye.")
TALK = saying(*["Could you read me the opening hours of Sunday, please?"] * 30)
TIMED = Transcript(
    tuple(Turn(Role.AGENT, "Your table is booked for nine o'clock tonight.", n * 2.5, n * 2.5 + 2) for n in range(40))
)
TOOLS = Transcript(
    tuple(
        Turn(Role.AGENT, "Let me look that up for you.", None, None, (ToolCall("find", {"day": "Sunday"}, f"tc_{n}"),))
        for n in range(20)
    )
)
JAPANESE = saying(*["日曜日の営業時間を教えていただけますか。よろしくお願いします。"] * 30)
LONG_POLICY = Agent("agent-7", instructions="Never take more than eight guests.\n" * 200, tools=AGENT.tools)


def stored(call: Call) -> StoredSize:
    """What the database counts: JSON as PostgreSQL writes it has a space after each colon and comma."""
    tools = [{"name": t.name, "description": t.description, "parameters": dict(t.parameters)} for t in call.agent.tools]
    agent_chars = len(call.agent.instructions) + len(json.dumps(tools, ensure_ascii=False))
    talk = json.dumps(to_json(call.transcript), ensure_ascii=False)
    agent_bytes = agent_chars - len(call.agent.instructions) + len(call.agent.instructions.encode())
    return StoredSize(len(talk), len(call.transcript), agent_chars, len(talk.encode()), agent_bytes)


@pytest.mark.parametrize(
    "call",
    [
        replace(CALL, transcript=SHORT),
        replace(CALL, transcript=TALK),
        replace(CALL, transcript=TIMED),
        replace(CALL, transcript=TOOLS),
        replace(CALL, transcript=TALK, agent=LONG_POLICY),
        replace(
            CALL, transcript=JAPANESE, agent=replace(LONG_POLICY, instructions="八名を超える予約は受けません。\n" * 200)
        ),
    ],
    ids=["short", "talk", "timed", "tools", "long policy", "no English"],
)
def test_sizes_say_nearly_what_the_whole_request_says_and_rather_more(call: Call) -> None:
    request = JudgeRequest(call, RUBRIC, Evidence(), SPEC, "w")
    whole = need(request, past_output=PastOutputs()).input_tokens

    guess = StoredSizes().estimate(VERSION, stored(call), mean_output=None)

    assert 0.97 * whole <= guess.input_tokens <= 1.25 * whole
    assert guess.output_tokens == FIRST_OUTPUT_TOKENS
    sent: list[int] = []

    def send(body: Iterator[bytes], size: int) -> Failure:
        sent.append(size)
        assert len(b"".join(body)) == size
        return Failure(FailureKind.HELD, "", "")

    with SpooledDraft(send=send, max_bytes=10**6) as draft:
        assert draft.add(uuid.uuid4().hex, request)
        draft.send()
    assert guess.body_bytes == pytest.approx(sent[0], rel=0.25)


def test_the_models_own_mean_goes_before_the_first_guess_and_the_limit_before_both() -> None:
    sizes, size = StoredSizes(), stored(CALL)
    assert sizes.estimate(VERSION, size, mean_output=312).output_tokens == 312
    short = replace(VERSION, id=uuid.uuid4(), judge=replace(SPEC, max_tokens=200))
    assert sizes.estimate(short, size, mean_output=312).output_tokens == 200
