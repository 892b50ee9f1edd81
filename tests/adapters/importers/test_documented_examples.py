"""What the documentation shows must work as shown."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qa_worker.adapters.importers.limits import Limits
from qa_worker.adapters.importers.rubric import parse_rubric
from qa_worker.domain.rubric import Severity
from tests.adapters.importers.records import errors, read, refs

DOCS = Path(__file__).parents[3] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, *languages: str) -> list[str]:
    """The fenced examples of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [body for language, body in BLOCK.findall(text) if language in languages]


@pytest.mark.parametrize("example", blocks("formats.md", "json", "jsonl"), ids=range(4))
def test_every_example_of_a_call_is_accepted(example: str) -> None:
    found = read(example)

    assert errors(found) == []
    assert refs(found)


def test_the_error_that_the_page_shows_is_the_one_that_is_given() -> None:
    turns = '{"role": "caller", "text": "Hi"}, ' * 3 + '{"role": "user", "text": "Hi"}'
    (error,) = read(f'{{"id": "a", "turns": [{turns}]}}')

    shown = blocks("formats.md", "text")[0].splitlines()[0]
    assert str(error).removeprefix("calls.json:1:") == shown.removeprefix("calls.jsonl:12:")


def test_the_limits_that_the_page_names_are_the_defaults() -> None:
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    limits = Limits()

    for number in (limits.max_turns, limits.max_text_chars, limits.max_tools, limits.max_id_chars):
        assert f"| {number:,}" in text
    assert (limits.max_transcript_bytes, limits.max_context_bytes) == (512 << 10, 512 << 10)
    assert (limits.max_record_bytes, limits.max_document_bytes) == (4 << 20, 64 << 20)
    assert all(size in text for size in ("| 512 KiB |", "| 4 MiB |", "| 64 MiB |"))


def test_the_example_of_a_rubric_is_read() -> None:
    (example,) = blocks("rubrics.md", "yaml")
    rubric, judge = parse_rubric(example, source="rubrics.md")

    assert [criterion.id for criterion in rubric.criteria] == ["intent_completion", "compliance"]
    assert rubric.checks.required_phrases[0].criterion == "compliance"
    assert rubric.checks.forbidden_phrases[0].severity is Severity.CRITICAL
    assert (judge.model, judge.effort) == (None, "medium")
