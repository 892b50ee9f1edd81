"""The baseline of `benchmarks.throughput`: the judge's requests on the bare SDK, no queue, no database, no limits.

python -m benchmarks.bare_sdk CALLS AT_ONCE, with ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY set.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time

import anthropic

from benchmarks.rig import a_call
from qa_worker import rubrics
from qa_worker.adapters.claude.request import body
from qa_worker.adapters.importers.rubric import parse_rubric
from qa_worker.application.judging import JudgeRequest
from qa_worker.domain.evidence.facts import Evidence
from qa_worker.domain.rubric import JudgeKind, JudgeSpec


async def run(calls: int, at_once: int) -> dict[str, float]:
    """Send them all; wall and CPU seconds without the preparation of the requests."""
    rubric, _ = parse_rubric(rubrics.default_rubric_text(), source="the default rubric")
    spec = JudgeSpec(JudgeKind.CLAUDE, model="claude-haiku-5-5", effort="low", max_tokens=3000)
    bodies = [body(JudgeRequest(a_call(number), rubric, Evidence(), spec, "bench")) for number in range(calls)]
    room = asyncio.Semaphore(at_once)
    key, url = os.environ["ANTHROPIC_API_KEY"], os.environ["ANTHROPIC_BASE_URL"]
    async with anthropic.AsyncAnthropic(
        api_key=key, base_url=url, max_retries=0, http_client=anthropic.DefaultAioHttpClient()
    ) as sdk:

        async def one(number: int) -> None:
            async with room:
                await sdk.messages.create(**bodies[number])

        started, cpu = time.monotonic(), time.process_time()
        await asyncio.gather(*(one(number) for number in range(calls)))
        wall_s, cpu_s = time.monotonic() - started, time.process_time() - cpu
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return {"wall_s": wall_s, "cpu_s": cpu_s, "rss_mb": rss_mb}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(int(sys.argv[1]), int(sys.argv[2])))))
