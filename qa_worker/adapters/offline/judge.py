"""The judge without a model. It grades from evidence alone, says so everywhere, and never stands in for Claude."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from qa_worker.application.judging import JudgeAnswer, JudgeRequest
from qa_worker.domain import rules
from qa_worker.domain.evaluation import Usage


class RulesJudge:
    """Implements the port `Judge`."""

    def grade(self, request: JudgeRequest) -> JudgeAnswer:
        """See the port."""
        has_tools = bool(request.call.agent.tools or request.call.transcript.tool_uses())
        assessment = rules.assess(request.evidence, rubric=request.rubric, has_tools=has_tools)
        return JudgeAnswer(assessment, Usage(), model="", request_id=None, raw="")

    def grade_each(self, requests: Sequence[JudgeRequest]) -> Iterator[tuple[int, JudgeAnswer | Exception]]:
        """See the port."""
        return ((number, self.grade(request)) for number, request in enumerate(requests))
