"""The only package that builds adapters. Entry points ask here for what they need and get it ready made."""

from __future__ import annotations

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
    comparison_json,
    junit_xml,
    read_agent,
    read_scenario,
    scenario_faults,
    scenario_yaml,
    suite_json,
)
from qa_worker.bootstrap.scenarios import Suites
from qa_worker.bootstrap.worker import Worker, close_worker, worker

__all__ = [
    "Client",
    "GatewayStatus",
    "Suites",
    "Worker",
    "close_worker",
    "comparison_json",
    "external_services",
    "has_api_key",
    "junit_xml",
    "log_to_stderr",
    "queue_lengths",
    "read_agent",
    "read_calls",
    "read_rubric",
    "read_scenario",
    "scenario_faults",
    "scenario_yaml",
    "suite_json",
    "worker",
]
