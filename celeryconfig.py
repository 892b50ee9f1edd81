"""Celery's settings, each with its reason. Where "measured" stands, it was on celery 5.7.0 with kombu 5.7.0."""

from __future__ import annotations

from celery.schedules import ParseException, crontab

from qa_worker.messages import Queue, TaskName
from qa_worker.producer import declared_queue
from qa_worker.settings import settings


def _crontab(schedule: str) -> crontab:
    try:
        return crontab.from_string(schedule)
    except (ValueError, ParseException) as error:
        raise ValueError(f"QA_BACKLOG_SCHEDULE: {schedule!r} is no crontab schedule: {error}") from None


_settings = settings()
_on_redis = _settings.broker_url.get_secret_value().startswith(("redis", "valkey", "sentinel"))

broker_url = _settings.broker_url.get_secret_value()
# JSON scalars only: no pickle, nothing in a message can run.
task_serializer = "json"
accept_content = ["json"]
timezone = "UTC"
enable_utc = True

# The outcome lives in PostgreSQL.
result_backend = None
task_ignore_result = True
task_store_errors_even_if_ignored = False
task_track_started = False

# A crash must not lose work: acknowledged when the task has ended, whichever way. Duplicates are a normal event and
# cost one query, because the row is claimed.
task_acks_late = True
task_acks_on_failure = True
task_acks_on_timeout = True
task_reject_on_worker_lost = True
task_retry_on_worker_lost = (
    True  # bounded by max_retries; without it a crashing prefork task looped for ever (measured)
)

# Ours keep what can't be used, as dead letters. Celery's own drop it, and a message with an odd body ends one worker after
# the other (measured).
worker_consumer = "qa_worker.tasks.consumer:Consumer"

# Answers take seconds: threads wait as well as gevent does, need no patching, and gevent never redelivers on Redis.
worker_pool = "threads"
worker_concurrency = _settings.evaluate_concurrency
# Take a message only when a slot is free, so that what waits stays in the queue, where others can take it.
worker_prefetch_multiplier = 1
worker_disable_prefetch = _on_redis
# SIGTERM waits for running calls. A second one, or SIGQUIT, gives them this long.
worker_soft_shutdown_timeout = 30.0
worker_enable_soft_shutdown_on_idle = True
# After a lost connection the running calls go on: their rows are claimed, so the redelivered messages are skipped.
worker_cancel_long_running_tasks_on_connection_loss = False
worker_hijack_root_logger = False  # logs are JSON lines, see qa_worker.observability
worker_redirect_stdouts = False

broker_connection_retry_on_startup = True
broker_connection_max_retries = None  # the default of 100 ends the worker
broker_transport_options = (
    {
        # Longer than any task: judge deadline, quick retries, a slow database, and Celery's own retries on top.
        "visibility_timeout": 900,
        # With the defaults a 5 s visibility timeout gave redelivery after 92.7 s; with these after 6.5 s (measured).
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "health_check_interval": 10,
        "socket_timeout": 30,
        "socket_keepalive": True,
        # Queues are taken in the order of -Q: the backlog only when no live call waits.
        "queue_order_strategy": "priority",
    }
    if _on_redis
    else {"confirm_publish": True}  # without it a message can be lost between the client and RabbitMQ
)
task_publish_retry_policy = {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.5}

# Flower's source of truth. Costs about 1 ms of CPU a task.
worker_send_task_events = True
task_send_sent_event = False

# Only queues that we know; a typing error in a queue's name must not make a new one.
# Nobody takes from the last one: a worker without -Q must not know it.
task_queues = tuple(declared_queue(queue) for queue in Queue if queue is not Queue.DEAD_LETTER)
task_create_missing_queues = False
task_default_queue = Queue.MAINTENANCE.value
task_default_exchange = ""
task_default_routing_key = Queue.MAINTENANCE.value
task_routes = {
    TaskName.EVALUATE_CALL.value: {"queue": Queue.EVALUATE_CALL.value},
    TaskName.EVALUATE_CALLS.value: {"queue": Queue.BACKLOG.value},
    TaskName.DISPATCH_WORK.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.RESCUE_STALLED.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.RAISE_ALERTS.value: {"queue": Queue.SEND_ALERT.value},
    TaskName.SEND_ALERT.value: {"queue": Queue.SEND_ALERT.value},
    TaskName.DISPATCH_DELIVERIES.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.RESCUE_DELIVERIES.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.RAISE_DUE_ALERTS.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.WATCH_HEALTH.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.FORGET_OLD_ALERTS.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.RECONCILE_DEAD_LETTERS.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.ADVANCE_BATCHES.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.GRADE_BACKLOG.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.RUN_SCENARIO.value: {"queue": Queue.RUN_SCENARIO.value},
    TaskName.DISPATCH_RUNS.value: {"queue": Queue.MAINTENANCE.value},
    TaskName.RESCUE_RUNS.value: {"queue": Queue.MAINTENANCE.value},
}
# Celery's own limits are for each worker process alone, count messages, and are off unless asked for.
_rate_limits = {TaskName.EVALUATE_CALL.value: _settings.evaluate_rate_limit, **_settings.rate_limits}
task_annotations = {task: {"rate_limit": limit} for task, limit in _rate_limits.items() if limit}

beat_max_loop_interval = 1
# A beat that nobody took in time is worth nothing: it expires, so that an outage leaves no heap of them. Not too soon:
# the time is beat's clock, compared with the worker's, and a late one costs 3 ms.
beat_schedule = {
    "send what is due": {
        "task": TaskName.DISPATCH_WORK.value,
        "schedule": _settings.dispatch_every_s,
        "options": {"expires": max(300.0, _settings.dispatch_every_s)},
    },
    "rescue what got stuck": {
        "task": TaskName.RESCUE_STALLED.value,
        "schedule": _settings.rescue_every_s,
        "options": {"expires": max(300.0, _settings.rescue_every_s)},
    },
    "send the deliveries that are due": {
        "task": TaskName.DISPATCH_DELIVERIES.value,
        "schedule": _settings.dispatch_every_s,
        "options": {"expires": max(300.0, _settings.dispatch_every_s)},
    },
    "rescue the deliveries that got stuck": {
        "task": TaskName.RESCUE_DELIVERIES.value,
        "schedule": _settings.rescue_every_s,
        "options": {"expires": max(300.0, _settings.rescue_every_s)},
    },
    "send the runs that are due": {
        "task": TaskName.DISPATCH_RUNS.value,
        "schedule": _settings.dispatch_every_s,
        "options": {"expires": max(300.0, _settings.dispatch_every_s)},
    },
    "rescue the runs that got stuck": {
        "task": TaskName.RESCUE_RUNS.value,
        "schedule": _settings.rescue_every_s,
        "options": {"expires": max(300.0, _settings.rescue_every_s)},
    },
    "raise what is due": {
        "task": TaskName.RAISE_DUE_ALERTS.value,
        "schedule": _settings.raise_alerts_every_s,
        "options": {"expires": max(300.0, _settings.raise_alerts_every_s)},
    },
    "watch the system's health": {
        "task": TaskName.WATCH_HEALTH.value,
        "schedule": _settings.watch_health_every_s,
        "options": {"expires": max(300.0, _settings.watch_health_every_s)},
    },
    "show dead letters on their queue": {
        "task": TaskName.RECONCILE_DEAD_LETTERS.value,
        "schedule": _settings.dead_letters_every_s,
        "options": {"expires": max(300.0, _settings.dead_letters_every_s)},
    },
    "forget old alerts": {
        "task": TaskName.FORGET_OLD_ALERTS.value,
        "schedule": 3600.0,
        "options": {"expires": 3600.0},
    },
    "go on with batches": {
        "task": TaskName.ADVANCE_BATCHES.value,
        "schedule": _settings.batch_every_s,
        "options": {"expires": max(300.0, _settings.batch_every_s)},
    },
}
if _settings.backlog_schedule:
    beat_schedule["grade the backlog"] = {
        "task": TaskName.GRADE_BACKLOG.value,
        "schedule": _crontab(_settings.backlog_schedule),
        "options": {"expires": 3600.0},
    }
