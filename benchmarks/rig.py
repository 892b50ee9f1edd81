"""What the benchmarks share: a system of real processes on loopback, and what each of them costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine, text

from qa_worker import bootstrap
from qa_worker.adapters.postgres.migrate import upgrade
from qa_worker.application.ports import Wanted
from qa_worker.application.submit_call import Accepted
from qa_worker.cli.stack_spec import WORKER_ENV, beat_arguments, worker_arguments
from qa_worker.domain.call import Agent, Call, Expected, ToolSpec
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.transcript import Role, ToolCall, Transcript, Turn
from qa_worker.embedded.stack import remove, servers
from qa_worker.messages import Queue

NO_LIMITS = "1000000,1000000000,1000000000"
RESULTS = Path(__file__).parent / "results"
_TALK = (
    "I would like to move my appointment from Tuesday morning to some time later this week, if that is possible.",
    "Of course, let me have a look at what is free. May I have your full name and the date of birth, please?",
    "It is Jordan Miller, born on the fourth of May nineteen eighty two, and I have been a patient for three years.",
    "Thank you. I can offer Thursday at nine fifteen or Friday at half past two. Which one would suit you better?",
    "Thursday is difficult because of the school run, so Friday at half past two would be better for me, I think.",
    "Friday at half past two it is. Would you like a reminder by text message to the number that we have on file?",
)


def a_call(number: int, *, turns: int = 30) -> Call:
    """A call of 30 turns and about 3 KB of text, each a little different."""
    said = [
        Turn(Role.AGENT if i % 2 else Role.CALLER, f"{_TALK[i % len(_TALK)]} ({number}-{i})", i * 6.0, i * 6.0 + 5.0)
        for i in range(turns - 2)
    ]
    looked_up = Turn(Role.AGENT, "One moment.", tool_calls=(ToolCall("find_slots", {"day": "friday"}, id="t1"),))
    found = Turn(Role.TOOL, json.dumps({"status": "success", "slots": ["14:30"]}), tool_call_id="t1")
    agent = Agent(
        id="clinic",
        name="Clinic",
        version="1",
        instructions="Verify name and date of birth. Offer two slots. Read back the slot that was chosen. " * 12,
        tools=(ToolSpec("find_slots", "Free slots of a day."),),
    )
    transcript = Transcript((*said[:6], looked_up, found, *said[6:]))
    return Call(ref=f"bench-{number}", agent=agent, transcript=transcript, expected=Expected(outcome="moved"))


@dataclass
class Used:
    """CPU seconds and peak memory of processes, by part."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    rss_mb: dict[str, float] = field(default_factory=dict)


@dataclass
class Rig:
    """A running system."""

    database_url: str
    broker_url: str
    api_url: str
    env: dict[str, str]
    folder: Path
    parts: dict[str, list[psutil.Process]] = field(default_factory=dict)

    def client(self) -> bootstrap.Client:
        """A producer's client."""
        return bootstrap.Client(database_url=self.database_url, broker_url=self.broker_url)

    def start_worker(self, queue: Queue, *, concurrency: int | None = None, **extra: str) -> psutil.Process:
        """A worker process; returns when it takes messages. `concurrency` takes the place of the usual one."""
        number = len(self.parts.get("workers", []))
        log = self.folder / f"{queue.value}-{number}.log"
        name = f"{queue.value}-{number}@bench"
        arguments = [argument.replace(f"{queue.value}@%h", name) for argument in worker_arguments(queue)]
        # The last one holds.
        arguments += [] if concurrency is None else ["--concurrency", str(concurrency)]
        process = self._spawn(arguments, log, {**self.env, **WORKER_ENV, **extra})
        part = "workers" if queue is not Queue.MAINTENANCE else "maintenance"
        self.parts.setdefault(part, []).append(process)
        wait_for(lambda: b" ready." in log.read_bytes(), what=f"worker {name}")
        return process

    def start_beat(self) -> None:
        """Beat."""
        schedule = str(self.folder / "schedule")
        process = self._spawn(list(beat_arguments(schedule)), self.folder / "beat.log", self.env)
        self.parts.setdefault("maintenance", []).append(process)

    def pause_beat(self) -> None:
        """Nothing is dispatched until `resume_beat`."""
        self.parts["maintenance"][-1].suspend()
        time.sleep(0.5)  # what it has sent is done

    def resume_beat(self) -> None:
        """Go on."""
        self.parts["maintenance"][-1].resume()

    def counts(self) -> dict[str, int]:
        """Evaluations by state."""
        engine = create_engine(self.database_url)
        with engine.connect() as connection:
            rows = connection.execute(text("SELECT state, count(*) FROM evaluations GROUP BY state")).all()
        engine.dispose()
        return {row[0]: row[1] for row in rows}

    def submit(self, calls: list[Call], *, wanted: Wanted | None = None, workspace: str = "bench") -> list[Accepted]:
        """Hand calls over in batches of 100."""
        client = self.client()
        accepted: list[Accepted] = []
        for start in range(0, len(calls), 100):
            batch = calls[start : start + 100]
            answers = client.submit(batch, workspace=workspace, wanted=wanted or Wanted(judge=JudgeKind.CLAUDE))
            accepted += [answer for answer in answers if isinstance(answer, Accepted)]
        client.close()
        return accepted

    def used(self) -> Used:
        """CPU so far and memory now, of each part."""
        used = Used()
        for part, roots in self.parts.items():
            for root in roots:
                for process in (root, *root.children(recursive=True)):
                    try:
                        times = process.cpu_times()
                        used.cpu_s[part] = used.cpu_s.get(part, 0.0) + times.user + times.system
                        used.rss_mb[part] = max(used.rss_mb.get(part, 0.0), process.memory_info().rss / 1e6)
                    except psutil.NoSuchProcess:
                        continue
        return used

    def stop(self) -> None:
        """End what was started."""
        started = [process for roots in self.parts.values() for process in roots if process.is_running()]
        for process in started:
            process.terminate()
            process.resume()
        _, alive = psutil.wait_procs(started, timeout=10)
        for process in alive:
            process.kill()

    def control(self, script: Mapping[str, Any]) -> None:
        """Change what the local Messages API does."""
        body = json.dumps(script).encode()
        request = urllib.request.Request(f"{self.api_url}/control", data=body, method="POST")  # noqa: S310 - loopback
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - loopback

    def stats(self) -> dict[str, Any]:
        """What the local Messages API served."""
        with urllib.request.urlopen(f"{self.api_url}/stats", timeout=5) as answer:  # noqa: S310 - loopback
            found: dict[str, Any] = json.load(answer)
        return found

    def _spawn(self, arguments: list[str], log: Path, env: dict[str, str]) -> psutil.Process:
        with log.open("ab") as sink:
            process = subprocess.Popen([sys.executable, "-m", *arguments], env=env, stdout=sink, stderr=sink)
        return psutil.Process(process.pid)


@contextmanager
def rig(
    *,
    latency_s: float,
    limits: str = NO_LIMITS,
    extra: Mapping[str, str] | None = None,
    script: Mapping[str, Any] | None = None,
) -> Iterator[Rig]:
    """PostgreSQL (durable), Valkey and a local Messages API, each a process of its own."""
    with tempfile.TemporaryDirectory(prefix="qa-bench-") as name:
        folder = Path(name)
        with _removed(folder / "home"), servers(folder / "home", durable=True) as (database_url, broker_url):
            upgrade(database_url)
            arguments = ["tests.servers.messages_api", "--latency", str(latency_s), "--limits", limits]
            if script is not None:
                file = folder / "script.json"
                file.write_text(json.dumps(script))
                arguments += ["--script", str(file)]
            api = subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True)
            assert api.stdout is not None
            url = api.stdout.readline().strip()
            env = {
                **os.environ,
                "DATABASE_URL": database_url,
                "BROKER_URL": broker_url,
                "ANTHROPIC_API_KEY": "sk-bench",
                "ANTHROPIC_BASE_URL": url,
                **(extra or {}),
            }
            made = Rig(database_url, broker_url, url, env, folder)
            made.parts["api"] = [psutil.Process(api.pid)]
            made.parts["database"] = [_owner("postgres")]
            made.parts["broker"] = [_owner("valkey-server")]
            try:
                yield made
            finally:
                for part in ("database", "broker"):
                    made.parts.pop(part, None)
                made.stop()


@contextmanager
def _removed(home: Path) -> Iterator[None]:
    """As root the database's files are outside of the home: they must not stay."""
    try:
        yield
    finally:
        remove(home)


def _owner(name: str) -> psutil.Process:
    """Our own child of this name, started just now: others on this machine may start theirs at the same time."""
    return max((p for p in psutil.Process().children() if p.name() == name), key=lambda p: p.create_time())


def wait_for(true: Any, *, what: str, within_s: float = 120.0) -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + within_s
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Rows under a head, the first column to the left and the others to the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = [[row[0].ljust(widths[0]), *(map(str.rjust, row[1:], widths[1:]))] for row in (head, *rows)]
    return "\n".join("  ".join(line) for line in lines)


def save(name: str, result: Mapping[str, Any]) -> None:
    """Keep a result as JSON beside the others."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1))
