"""An agent that is a Python function. The functions are this module's own."""

from __future__ import annotations

import threading
from typing import Any, NoReturn

import pytest

from qa_worker.adapters.agents.python import PythonAgent
from qa_worker.application.playing import AgentKind, AgentReply
from qa_worker.domain.errors import InvalidInput
from qa_worker.domain.failure import Failure, FailureKind
from qa_worker.domain.interruption import CUT_NOTE
from tests.stage import a_context, said_by_agent

CONTEXT = a_context(AgentKind.PYTHON)
RELEASE = threading.Event()


def says(asked: dict[str, Any]) -> str:
    return f"You said {asked['message']} in turn {asked['turn']}, after {asked['history']}."


def books(_asked: dict[str, Any]) -> dict[str, Any]:
    return {"text": "Booked.", "tool_calls": [{"name": "book", "arguments": {"n": (1, 2)}, "result": 5}], "ends": True}


def raises(_asked: dict[str, Any]) -> NoReturn:
    raise LookupError("what the caller said")


def hangs(_asked: dict[str, Any]) -> str:
    RELEASE.wait(30)
    return "late"


def nonsense(_asked: dict[str, Any]) -> object:
    return {"text": "x", "tool_calls": [{"name": "book", "result": object()}]}


async def later(_asked: dict[str, Any]) -> str:
    return "later"


NUMBER = 5


def _agent(name: str) -> PythonAgent:
    return PythonAgent({"call": f"{__name__}:{name}"}, modules=("tests.adapters",))


def test_the_function_is_asked_as_an_endpoint_is() -> None:
    reply = _agent("says").reply(CONTEXT, (said_by_agent(f"Well {CUT_NOTE}"),), "Hello")

    assert isinstance(reply, AgentReply)
    history = "[{'role': 'agent', 'text': 'Well', 'interrupted': True}]"
    assert reply.turns[0].text == f"You said Hello in turn 1, after {history}."


def test_it_may_answer_with_the_same_object_as_an_endpoint() -> None:
    reply = _agent("books").reply(CONTEXT, (), "Hello")

    assert isinstance(reply, AgentReply)
    assert reply.turns[0].tool_calls[0].arguments == {"n": [1, 2]}
    assert (reply.turns[1].text, reply.turns[2].text, reply.ends) == ("5", "Booked.", True)


def test_what_it_raises_is_a_failure_that_names_the_place_and_no_words() -> None:
    failure = _agent("raises").reply(CONTEXT, (), "Hello")

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code) == (FailureKind.REJECTED, "agent_raised")
    assert failure.message.startswith("The agent raised LookupError at test_python.py:")
    assert "caller" not in failure.message


def test_one_that_does_not_return_is_left_behind() -> None:
    failure = _agent("hangs").reply(a_context(AgentKind.PYTHON, reply_s=0.05), (), "Hello")
    RELEASE.set()

    assert isinstance(failure, Failure)
    assert (failure.kind, failure.code) == (FailureKind.TRANSIENT, "agent_timeout")


def test_an_answer_of_another_form_is_a_failure() -> None:
    failure = _agent("nonsense").reply(CONTEXT, (), "Hello")

    assert isinstance(failure, Failure)
    assert (failure.code, failure.message) == ("agent_reply", "The agent's reply has no JSON in tool_calls[0].result.")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("os:system", "names a module that may not be run"),
        ("tests.adapters_other:reply", "names a module that may not be run"),
        ("tests.adapters", "is no module:function"),
        ("tests.adapters:a b", "is no module:function"),
        ("tests.adapters.missing:reply", "can't be imported (ModuleNotFoundError)"),
        (f"{__name__}:missing", "names a function that its module doesn't have"),
        (f"{__name__}:NUMBER", "is no plain function"),
        (f"{__name__}:later", "is no plain function"),
    ],
)
def test_what_cannot_be_run_is_refused_before_the_run_begins(reference: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        PythonAgent({"call": reference}, modules=("tests.adapters",))

    assert refused.value.field == "target.call"
    assert words in refused.value.problem


def test_without_a_setting_no_module_is_run() -> None:
    with pytest.raises(InvalidInput, match="QA_AGENT_PYTHON_MODULES"):
        PythonAgent({"call": f"{__name__}:says"}, modules=())
