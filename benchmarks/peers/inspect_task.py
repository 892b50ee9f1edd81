"""Grades transcripts with inspect_ai; runs in its own virtual environment and knows nothing of this project.

python inspect_task.py WORK_FILE AT_ONCE, with ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY set. The last line of its output
is JSON: how many were graded. The solver passes a transcript on as the answer that `model_graded_qa` grades.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import inspect_ai
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import GenerateConfig, ModelOutput, get_model
from inspect_ai.scorer import model_graded_qa
from inspect_ai.solver import solver


def transcript() -> Any:
    """The solver: no model is asked."""

    async def solve(state: Any, _generate: Any) -> Any:
        state.output = ModelOutput.from_content("transcript", state.metadata["transcript"])
        return state

    return solve


def main(work_file: str, at_once: int) -> int:
    """How many samples got a score."""
    work = json.loads(Path(work_file).read_text("utf-8"))
    config = GenerateConfig(max_connections=at_once, max_tokens=work["max_tokens"])
    grader = get_model(f"anthropic/{work['model']}", config=config)
    samples = [
        Sample(input=work["question"], target=work["criterion"], metadata={"transcript": text})
        for text in work["transcripts"]
    ]
    task = inspect_ai.Task(
        dataset=MemoryDataset(samples), solver=solver(transcript)(), scorer=model_graded_qa(model=grader)
    )
    logs = inspect_ai.eval(task, model=grader, max_connections=at_once, max_samples=at_once, display="none")
    results = logs[0].results
    return 0 if results is None else int(results.scores[0].scored_samples)


if __name__ == "__main__":
    print(json.dumps({"graded": main(sys.argv[1], int(sys.argv[2]))}))
