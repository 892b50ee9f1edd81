"""Claude as the judge, as the gateway uses it: requests take turns where that saves money, and say what they will need."""

from __future__ import annotations

from qa_worker.adapters.claude.estimate import PastOutputs, need
from qa_worker.adapters.claude.priming import Priming
from qa_worker.adapters.claude.request import model
from qa_worker.application.judging import AsyncJudge, JudgeAnswer, JudgeRequest
from qa_worker.application.limits import Need


class MeteredClaudeJudge:
    """Implements the port `MeteredJudge` in front of the judge that asks. Belongs to one event loop."""

    def __init__(
        self, judge: AsyncJudge, *, priming: Priming | None = None, past_output: PastOutputs | None = None
    ) -> None:
        self._judge = judge
        self._priming = priming or Priming()
        self._past_output = past_output or PastOutputs()

    async def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """See the port. The wait for a first request, at most `PATIENCE_S`, comes on top of the judge's deadline."""
        answer = await self._priming.in_turn(request, lambda: self._judge.grade(request))
        self._past_output.note(model(request), answer.usage.output_tokens)
        return answer

    def need(self, request: JudgeRequest) -> Need:
        """See the port."""
        return need(request, past_output=self._past_output, warm=self._priming.will_be_read(request))
