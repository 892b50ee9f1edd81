"""The tools: what is installed, what is run, and what the local server has to say so that their graders can read it.

Versions of the tools are pinned, what they pull in is not. Each lies in a folder of its own under the cache.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parent.parent / ".peers"
MODEL = "claude-sonnet-5"
"""All three know it. The local server answers the same for each model."""
KEY = "sk-bench"
_MAX_TOKENS = 3000
_INSTALL_TIMEOUT_S = 900.0
_HERE = Path(__file__).parent
_STAMP = ".installed"
_CRITERION = (
    "The agent does what the caller wants as far as its policy allows, uses its tools rightly, states nothing that no "
    "tool result, policy or caller supports, and answers clearly."
)
_REASON = (
    "The caller wanted to move an appointment. The agent asked for the full name and the date of birth, looked up what "
    "is free, and offered two slots; the caller took Friday at half past two, and the agent read it back. What it said "
    "is in line with the result of its tool. It asked for the same things more than once, which the caller put up "
    "with, and it offered a reminder without being asked to. No fact was made up, no part of the policy was left out, "
    "and the call ended with what the caller had come for. "
)


class CannotInstallError(Exception):
    """The tool isn't there and can't be brought here. The message says why."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a run grades. `folder` is empty, for all that the tool writes."""

    folder: Path
    transcripts: list[str]
    at_once: int
    api_url: str


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool in one way of using it.

    `answer` is what the server says to each request. `command` makes the command line from the folder of the
    installation and the work; `graded` reads from the output how many transcripts got a score. `env` is all that the
    tool sees of the environment, apart from the server's address.
    """

    name: str
    requirements: tuple[str, ...]
    install: Callable[[Path, tuple[str, ...]], None]
    answer: str
    command: Callable[[Path, Work], list[str]]
    graded: Callable[[str], int]
    env: Mapping[str, str] = field(default_factory=dict)


def installed(peer: Peer, cache: Path = CACHE) -> Path:
    """The folder of the tool, after installing it if it isn't there in just these versions.

    Raises:
        CannotInstallError: npm is missing, or the installer failed.

    """
    folder = cache / peer.requirements[0].replace("==", "-").replace("@", "-")
    stamp, wanted = folder / _STAMP, "\n".join(peer.requirements)
    if not stamp.is_file() or stamp.read_text("utf-8") != wanted:
        print(f"Installing {peer.requirements[0]} into {folder} ...", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        peer.install(folder, peer.requirements)
        stamp.write_text(wanted, "utf-8")
    return folder


def environment(peer: Peer, work: Work) -> dict[str, str]:
    """Nothing of ours: what these tools read and send is up to them."""
    return {
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "HOME": str(work.folder),
        "ANTHROPIC_BASE_URL": work.api_url,
        "ANTHROPIC_API_KEY": KEY,
        **peer.env,
    }


def _with_pip(folder: Path, requirements: tuple[str, ...]) -> None:
    _ran([sys.executable, "-m", "venv", str(folder)])
    _ran([str(folder / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", *requirements])


def _with_npm(folder: Path, requirements: tuple[str, ...]) -> None:
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        raise CannotInstallError("node and npm are needed and aren't here")
    # Scripts of its optional packages would download browsers.
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    _ran([npm, "install", "--prefix", str(folder), *quiet, *requirements])


def _ran(command: list[str]) -> None:
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_INSTALL_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise CannotInstallError(f"{Path(command[0]).name} took more than {_INSTALL_TIMEOUT_S:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise CannotInstallError(f"{Path(command[0]).name} failed: {said[-1]}")


def _runner(script: str) -> Callable[[Path, Work], list[str]]:
    def command(folder: Path, work: Work) -> list[str]:
        file = work.folder / "work.json"
        content = {
            "model": MODEL,
            "max_tokens": _MAX_TOKENS,
            "question": "How well did the agent serve the caller?",
            "criterion": _CRITERION,
            "transcripts": work.transcripts,
        }
        file.write_text(json.dumps(content), "utf-8")
        return [str(folder / "bin" / "python"), str(_HERE / script), str(file), str(work.at_once)]

    return command


def _last_line(output: str) -> int:
    return int(json.loads(output.strip().splitlines()[-1])["graded"])


def _promptfoo(*options: str) -> Callable[[Path, Work], list[str]]:
    def command(folder: Path, work: Work) -> list[str]:
        file = work.folder / "promptfooconfig.json"
        file.write_text(json.dumps(_promptfoo_config(work)), "utf-8")
        quiet = ["--no-cache", "--no-table", "--no-progress-bar", "--no-share"]
        at_once = ["--max-concurrency", str(work.at_once)]
        program = str(folder / "node_modules" / ".bin" / "promptfoo")
        return [program, "eval", "--config", str(file), *at_once, *quiet, *options]

    return command


def _promptfoo_config(work: Work) -> dict[str, Any]:
    """Its `echo` provider hands a transcript on as the answer that `llm-rubric` grades."""
    # Its SDK still sends the key as x-api-key, which the API version of today doesn't read.
    headers = {"authorization": f"Bearer {KEY}"}
    config = {"apiBaseUrl": work.api_url, "apiKey": KEY, "max_tokens": _MAX_TOKENS, "headers": headers}
    grader = {"id": f"anthropic:messages:{MODEL}", "config": config}
    return {
        "prompts": ["{{transcript}}"],
        "providers": ["echo"],
        "defaultTest": {
            "options": {"provider": grader},
            "assert": [{"type": "llm-rubric", "value": _CRITERION}],
        },
        "tests": [{"vars": {"transcript": text}} for text in work.transcripts],
    }


def _passed(output: str) -> int:
    found = re.search(r"([\d,]+) passed", output)
    return 0 if found is None else int(found[1].replace(",", ""))


_PROMPTFOO_ENV = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
}
_PASS = json.dumps({"pass": True, "score": 0.8, "reason": _REASON})

PEERS = (
    Peer(
        "inspect_ai",
        ("inspect-ai==0.3.285", "anthropic==2.12.0"),
        _with_pip,
        f"{_REASON}\n\nGRADE: C",
        _runner("inspect_task.py"),
        _last_line,
    ),
    Peer(
        "deepeval",
        ("deepeval==4.3.1", "anthropic==2.12.0"),
        _with_pip,
        json.dumps({"reason": _REASON, "score": 8}),
        _runner("deepeval_run.py"),
        _last_line,
        {"DEEPEVAL_TELEMETRY_OPT_OUT": "1"},
    ),
    Peer("promptfoo", ("promptfoo@0.121.20",), _with_npm, _PASS, _promptfoo(), _passed, _PROMPTFOO_ENV),
    Peer(
        "promptfoo --no-write",
        ("promptfoo@0.121.20",),
        _with_npm,
        _PASS,
        _promptfoo("--no-write"),
        _passed,
        _PROMPTFOO_ENV,
    ),
)
