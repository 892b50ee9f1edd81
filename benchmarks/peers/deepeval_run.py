"""Grades transcripts with deepeval; runs in its own virtual environment and knows nothing of this project.

python deepeval_run.py WORK_FILE AT_ONCE, with ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY set. The last line of its output
is JSON: how many were graded. GEval gets its steps, so that it asks once for each case; it would ask twice without.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deepeval import evaluate
from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig
from deepeval.metrics import GEval
from deepeval.models import AnthropicModel
from deepeval.test_case import LLMTestCase, SingleTurnParams


def main(work_file: str, at_once: int) -> int:
    """How many cases got a score."""
    work = json.loads(Path(work_file).read_text("utf-8"))
    metric = GEval(
        name="quality",
        evaluation_params=[SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT],
        evaluation_steps=[work["criterion"]],
        model=AnthropicModel(model=work["model"], max_tokens=work["max_tokens"]),
    )
    found = evaluate(
        test_cases=[LLMTestCase(input=work["question"], actual_output=text) for text in work["transcripts"]],
        metrics=[metric],
        async_config=AsyncConfig(max_concurrent=at_once),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        cache_config=CacheConfig(write_cache=False),
    )
    return sum(case.metrics_data[0].score is not None for case in found.test_results)


if __name__ == "__main__":
    print(json.dumps({"graded": main(sys.argv[1], int(sys.argv[2]))}))
