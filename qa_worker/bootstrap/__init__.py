"""The only package that builds adapters. Entry points ask here for what they need and get it ready made.

What commands need is imported when it is asked for: a worker process never needs it, and would pay for it in memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from qa_worker.bootstrap.worker import Serves, Worker, close_worker, start_worker, worker

if TYPE_CHECKING:
    from qa_worker.bootstrap.client import Client
    from qa_worker.bootstrap.doors import (
        external_services,
        has_api_key,
        log_to_stderr,
        queue_lengths,
        read_calls,
        read_rubric,
    )
    from qa_worker.bootstrap.gateway import GatewayStatus
    from qa_worker.bootstrap.scenario_files import (
        agent_faults,
        comparison_json,
        junit_xml,
        own_rubric,
        read_agent,
        read_scenario,
        run_json,
        scenario_faults,
        scenario_yaml,
        suite_json,
    )
    from qa_worker.bootstrap.scenarios import Suites

_IN_MODULE = {
    "client": ("Client",),
    "doors": ("external_services", "has_api_key", "log_to_stderr", "queue_lengths", "read_calls", "read_rubric"),
    "gateway": ("GatewayStatus",),
    "scenario_files": (
        "agent_faults",
        "comparison_json",
        "junit_xml",
        "own_rubric",
        "read_agent",
        "read_scenario",
        "run_json",
        "scenario_faults",
        "scenario_yaml",
        "suite_json",
    ),
    "scenarios": ("Suites",),
}
_HOME = {name: module for module, names in _IN_MODULE.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


__all__ = [
    "Client",
    "GatewayStatus",
    "Serves",
    "Suites",
    "Worker",
    "agent_faults",
    "close_worker",
    "comparison_json",
    "external_services",
    "has_api_key",
    "junit_xml",
    "log_to_stderr",
    "own_rubric",
    "queue_lengths",
    "read_agent",
    "read_calls",
    "read_rubric",
    "read_scenario",
    "run_json",
    "scenario_faults",
    "scenario_yaml",
    "start_worker",
    "suite_json",
    "worker",
]
