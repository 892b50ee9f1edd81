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
from qa_worker.bootstrap.worker import Worker, close_worker, worker

__all__ = [
    "Client",
    "GatewayStatus",
    "Worker",
    "close_worker",
    "external_services",
    "has_api_key",
    "log_to_stderr",
    "queue_lengths",
    "read_calls",
    "read_rubric",
    "worker",
]
