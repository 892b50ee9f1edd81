"""The project's own rules, as tests: about its own mistakes, for which no linter exists."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import celeryconfig
from qa_worker.cli.stack_spec import WORKERS
from qa_worker.messages import Queue, TaskName

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "qa_worker").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
_TASK_BODY_LINES = 10


def _functions(path: Path) -> Iterator[ast.FunctionDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            yield node


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tasks() -> list[tuple[str, ast.FunctionDef, ast.Call]]:
    return [
        (_name(path), function, decorator)
        for path in (ROOT / "qa_worker" / "tasks").glob("*.py")
        for function in _functions(path)
        for decorator in function.decorator_list
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "app.task"
    ]


@pytest.mark.parametrize(("path", "task", "declaration"), _tasks(), ids=lambda value: getattr(value, "name", ""))
def test_a_task_is_declared_completely_and_is_thin(path: str, task: ast.FunctionDef, declaration: ast.Call) -> None:
    named = {keyword.arg for keyword in declaration.keywords}

    assert {"name", "base"} <= named, path
    assert not task.args.args, "keyword-only ids"
    assert task.args.kwarg is not None, "an old worker must survive a newer message"
    assert task.end_lineno is not None
    assert task.end_lineno - task.lineno <= _TASK_BODY_LINES


def test_every_task_name_has_its_task() -> None:
    declared = {ast.unparse(k.value) for _, _, call in _tasks() for k in call.keywords if k.arg == "name"}

    assert declared == {f"TaskName.{name.name}.value" for name in TaskName}
    # A queue in the declaration is deprecated in Celery 5.7: the routes say it.
    assert set(celeryconfig.task_routes) == {name.value for name in TaskName}


@pytest.mark.parametrize("queue", [queue for queue in WORKERS if queue is not Queue.MAINTENANCE])
def test_a_queue_has_its_files(queue: Queue) -> None:
    stem = queue.value.replace("-", "_")

    for place in (
        f"qa_worker/application/{stem}.py",
        f"qa_worker/tasks/{stem}.py",
        f"tests/application/test_{stem}.py",
    ):
        assert (ROOT / place).exists(), place


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_log_call_begins_with_a_constant_event(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("log."):
            assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno}"


def test_only_the_unit_of_work_commits() -> None:
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"):
                continue
            owner = ast.unparse(node.func.value)
            assert owner == "work" or path.name in {"unit_of_work.py", "migrate.py"}, f"{path}:{node.lineno} {owner}"


@pytest.mark.parametrize("path", TESTS, ids=_name)
def test_every_test_asserts_something(path: Path) -> None:
    bodies = {function.name: ast.unparse(function) for function in _functions(path)}
    helpers = [f"{name}(" for name, body in bodies.items() if not name.startswith("test_") and "assert " in body]
    proves = ("assert ", "raises(", "command.check(", "run_state_machine_as_test(", "validate(", *helpers)
    for name, body in bodies.items():
        if name.startswith("test_"):
            assert any(word in body for word in proves), f"{path} {name}"


def test_every_module_can_be_imported_with_an_empty_environment() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.name != "__main__.py"
    ]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)\n"

    ran = subprocess.run([sys.executable, "-c", code, *modules], env={}, capture_output=True, text=True, check=False)

    assert (ran.returncode, ran.stderr) == (0, "")
