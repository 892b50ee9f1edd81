"""An outage in the middle of a backlog: what is sent into it, what is lost or doubled, how soon all is as before.

1,000 calls at the provider's lowest limits; when half of them are graded, the server answers 529 for 60 s, then takes
requests and never answers for 30 s, then works again. The settings of the breaker are those of somebody who wants to be
back within seconds (the defaults ask after 60, 120, 240 s, and so on): they are printed with the result.

python -m benchmarks.outage [--calls 1000] [--overloaded 60] [--silent 30]
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from sqlalchemy import create_engine, text

from benchmarks.rig import Rig, a_call, rig, save, table, wait_for
from qa_worker.application.ports import Wanted
from qa_worker.domain.rubric import JudgeKind
from qa_worker.domain.work import Lane
from qa_worker.messages import Queue

LIMITS = "1000,2000000,400000"
LATENCY_S = 1.0
REFUSED_AFTER_S = 0.05
SETTINGS = {
    "QA_BREAKER_RECOVERY_S": "2.5",
    "QA_BREAKER_MAX_RECOVERY_S": "2.5",
    "QA_JUDGE_READ_TIMEOUT_S": "3",
    "QA_DISPATCH_EVERY_S": "0.5",
}
_FULL_SPEED = 0.9
_OVER_S = 5


def run(*, calls: int, overloaded_s: float, silent_s: float, processes: int) -> dict[str, Any]:
    """The whole story."""
    with rig(latency_s=LATENCY_S, limits=LIMITS, extra=SETTINGS) as system:
        wanted = Wanted(judge=JudgeKind.CLAUDE, lane=Lane.BACKLOG)
        system.submit([a_call(number) for number in range(calls)], wanted=wanted)
        for _ in range(processes):
            system.start_worker(Queue.EVALUATE_CALL)
        system.start_worker(Queue.MAINTENANCE)
        system.start_beat()
        wait_for(lambda: system.stats()["requests"] > 0, what="the first request")
        first = time.monotonic()
        wait_for(lambda: system.counts().get("done", 0) >= calls / 2, what="half of them are graded")
        down = time.monotonic()
        before = system.used()
        system.control({"default": {"do": "overloaded"}, "latency": REFUSED_AFTER_S})
        time.sleep(overloaded_s)
        system.control({"default": {"do": "hang"}})
        time.sleep(silent_s)
        sent = system.stats()["served"]
        during = system.used()
        system.control({"default": {"do": "answer"}, "latency": LATENCY_S})
        up = time.monotonic()
        wait_for(lambda: system.counts().get("done", 0) >= calls, what="all are graded", within_s=300)
        stats = system.stats()
        facts = recorded(system)
    seconds = {int(second): counts for second, counts in stats["per_second"].items()}
    return {
        "settings": SETTINGS,
        "limits": LIMITS,
        "calls": calls,
        "processes": processes,
        "overloaded_s": overloaded_s,
        "silent_s": silent_s,
        **facts,
        "answers_paid_for": stats["served"]["answer"],
        "sent_while_down": sent.get("overloaded", 0) + sent.get("hang", 0),
        "of_those_unanswered": sent.get("hang", 0),
        "worker_cpu_s_while_down": round(during.cpu_s["workers"] - before.cpu_s["workers"], 2),
        "down_from_s": round(down - first, 1),
        "up_from_s": round(up - first, 1),
        "full_speed_after_s": full_speed_after(seconds, up - first),
        "per_second_after": [seconds.get(int(up - first) + second, {}).get("answer", 0) for second in range(25)],
    }


def full_speed_after(seconds: dict[int, dict[str, int]], up_s: float) -> float | None:
    """Seconds from the recovery to the second from which on 90 % of the allowed rate is sent, for 5 s; None: never."""
    enough = _FULL_SPEED * int(LIMITS.split(",", maxsplit=1)[0]) / 60
    for start in range(int(up_s), max(seconds) - _OVER_S + 2):
        sent = [seconds.get(second, {}).get("answer", 0) for second in range(start, start + _OVER_S)]
        if sent[0] >= enough and sum(sent) >= enough * _OVER_S:
            return round(max(0.0, start - up_s), 1)
    return None


def recorded(system: Rig) -> dict[str, int]:
    """What the database says of it."""
    engine = create_engine(system.database_url)
    with engine.connect() as connection:
        results = connection.execute(text("SELECT result, count(*) AS n FROM attempts GROUP BY result")).all()
        most = connection.execute(text("SELECT max(attempt) FROM evaluations")).scalar_one()
        twice = connection.execute(
            text(
                "SELECT count(*) FROM (SELECT 1 FROM attempts WHERE result = 'done' GROUP BY evaluation_id "
                "HAVING count(*) > 1) AS doubled"
            )
        ).scalar_one()
    engine.dispose()
    counts = {row.result: int(row.n) for row in results}
    return {
        "graded": counts.get("done", 0),
        "graded_twice": int(twice),
        "given_up": counts.get("dead", 0),
        "failed_attempts": counts.get("retry", 0),
        "parkings": counts.get("parked", 0),
        "most_attempts_of_a_call": int(most),
    }


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--overloaded", type=float, default=60.0)
    parser.add_argument("--silent", type=float, default=30.0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    result = run(
        calls=options.calls,
        overloaded_s=options.overloaded,
        silent_s=options.silent,
        processes=options.processes,
    )
    print(table(["outage", ""], [[name, str(value)] for name, value in result.items()]))
    save("outage", result)


if __name__ == "__main__":
    main()
