from __future__ import annotations

import io
import itertools
import json
from pathlib import Path

import pytest

from qa_worker.adapters.importers.files import read_calls
from qa_worker.adapters.importers.limits import Limits
from qa_worker.domain.call import Call
from qa_worker.domain.errors import InvalidInput
from tests.adapters.importers.records import LIMITS, a_chat, a_record, errors, lines_of, read, refs

BROKEN = '{"id": "broken", "turns": ['
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize(
    "text",
    [
        lines_of(a_record("a"), a_record("b")),
        lines_of(a_record("a"), a_record("b")).replace("\n", "\r\n"),
        "\n\n" + lines_of(a_record("a")) + " \n\n" + lines_of(a_record("b")),
        json.dumps([a_record("a"), a_record("b")]),
        json.dumps([a_record("a"), a_record("b")], indent=2),
        json.dumps({"calls": [a_record("a"), a_record("b")]}),
        json.dumps({"calls": [a_record("a"), a_record("b")], "exported_by": "x"}, indent=1),
        f"[\n{json.dumps(a_record('a'))}\n,\n{json.dumps(a_record('b'))}\n]\n",
        f"[{json.dumps(a_record('a'))}\n,{json.dumps(a_record('b'))}]",
        f'{{"calls": [\n{json.dumps(a_record("a"))},\n{json.dumps(a_record("b"))}\n]}}',
    ],
)
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_shape_is_recognised_by_content(text: str, mark: str) -> None:
    found = read(mark + text)

    assert refs(found) == ["a", "b"]
    assert not errors(found)


@pytest.mark.parametrize("indent", [None, 2])
def test_a_single_record_is_a_file(indent: int | None) -> None:
    assert refs(read(json.dumps(a_record("only"), indent=indent))) == ["only"]
    assert refs(read(json.dumps(a_chat(id="chat"), indent=indent))) == ["chat"]


@pytest.mark.parametrize("indent", [None, 2])
def test_an_array_of_messages_is_one_call(indent: int | None) -> None:
    (call,) = read(json.dumps(CHAT, indent=indent))

    assert isinstance(call, Call)
    assert [turn.text for turn in call.transcript] == ["Hi", "Hello"]


def test_lists_of_messages_may_be_lines_or_entries() -> None:
    other = [{"role": "user", "content": "Bye"}]

    assert len(refs(read(lines_of(CHAT, other)))) == 2
    assert refs(read(json.dumps([CHAT, other]))) == refs(read(lines_of(CHAT, other)))


def test_formats_may_be_mixed_in_one_file() -> None:
    found = read(lines_of(a_record("a"), a_chat(id="b"), [a_record("c")], {"calls": [a_record("d")]}))

    assert refs(found) == ["a", "b", "c", "d"]


def test_a_bad_line_is_named_and_stops_no_other() -> None:
    found = read(
        lines_of(a_record("a")) + BROKEN + "\n\n" + lines_of(a_record("b", turns=[{"role": 1}]), a_record("c"))
    )

    assert refs(found) == ["a", "c"]
    assert [(e.source, e.line, e.field) for e in errors(found)] == [
        ("calls.json", 2, "(record)"),
        ("calls.json", 4, "turns[0].role"),
    ]
    assert "column 28" in errors(found)[0].problem


def test_a_broken_first_line_does_not_hide_the_others() -> None:
    found = read('{"id": "a", "turns": [{"ro\n' + lines_of(a_record("b"), a_record("c")))

    assert refs(found) == ["b", "c"]
    assert errors(found)[0].line == 1


def test_a_bad_record_of_an_array_is_named_by_line_and_index() -> None:
    text = f"[\n{json.dumps(a_record('a'))},\n\n{json.dumps({'id': 'b', 'turns': []})},\n{json.dumps(a_record('c'))}]"
    found = read(text)

    assert refs(found) == ["a", "c"]
    assert [(e.line, e.field) for e in errors(found)] == [(4, "[1].turns")]


def test_a_bad_record_under_calls_is_named_by_its_index() -> None:
    found = read(json.dumps({"calls": [a_record("a"), 7, a_record("c", turns=[{}])]}, indent=2))

    assert refs(found) == ["a"]
    assert [(e.line, e.field) for e in errors(found)] == [(None, "calls[1]"), (None, "calls[2].turns[0].role")]


def test_calls_before_a_syntax_error_of_an_array_are_kept() -> None:
    found = read(f"[\n{json.dumps(a_record('a'))},\n{json.dumps(a_record('b'))}\n{json.dumps(a_record('c'))}\n]")

    assert refs(found) == ["a", "b"]
    assert errors(found)[0].line == 4


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        (b"", "(file)", "is empty"),
        (b"\xef\xbb\xbf \n\n", "(file)", "is empty"),
        (b"[]", "(file)", "holds no calls"),
        (b'{"calls": []}', "calls", "holds no calls"),
        (b"hello", "(record)", "is not JSON"),
        (b"call,turn\n1,hi\n", "(record)", "is not JSON"),
        (b"{'id': 'a'}", "(record)", "is not JSON"),
        (b'{"id": "a"} x', "(record)", "Extra data"),
        (b"[1] x", "(record)", "Extra data"),
        (b"\xff\xfe{\x00}\x00", "(file)", "is not UTF-8"),
        (b'{"id": "\xe4"}', "(file)", "is not UTF-8"),
        (b"[" * 100_000, "(record)", "nested too deeply"),
        (b'{"a":' * 100_000, "(record)", "nested too deeply"),
        (b'{"id": ' + b"9" * 5000 + b"}", "(record)", "thousands of digits"),
        (b'{"role": "user", "content": "Hi"}', "(record)", "single message"),
        (b'{"id": NaN}', "id", "is nan"),
        (b'{"id": "a", "metadata": {"x": 1e999}}', "metadata.x", "is inf"),
    ],
)
def test_a_file_without_calls_says_why(data: bytes, field: str, words: str) -> None:
    last = read(data)[-1]

    assert isinstance(last, InvalidInput)
    assert (last.field, last.source) == (field, "calls.json")
    assert words in last.problem
    assert last.fix


@pytest.mark.parametrize("bad", [b"[" * 100_000, b'{"id": ' + b"9" * 5000 + b"}", b'{"id": "\xe4"}'])
@pytest.mark.parametrize("first", [True, False])
def test_a_line_that_cannot_be_decoded_stops_no_other(bad: bytes, *, first: bool) -> None:
    good = lines_of(a_record("a")).encode()
    found = read(bad + b"\n" + good if first else good + bad + b"\n")

    assert refs(found) == ["a"]
    assert [e.line for e in errors(found)] == [1 if first else 2]


def test_an_id_that_returns_with_another_content_is_an_error_for_the_later_one() -> None:
    changed = a_record("a", turns=[{"role": "caller", "text": "Something else"}])
    found = read(lines_of(a_record("a"), changed, a_record("b")))

    assert refs(found) == ["a", "b"]
    (error,) = errors(found)
    assert (error.field, error.line) == ("id", 2)
    assert '"a" was used on line 1' in error.problem


def test_the_same_call_twice_is_no_error() -> None:
    found = read(lines_of(a_record("a"), a_record("a", metadata={"copy": 2}), CHAT, CHAT))

    assert len(set(refs(found))) == 2
    assert not errors(found)


def test_a_line_over_the_limit_is_refused_and_the_next_one_read() -> None:
    long = a_record("long", metadata={"x": "y" * 500})
    found = read(lines_of(a_record("a"), long, a_record("b")), limits=Limits(max_record_bytes=400))

    assert refs(found) == ["a", "b"]
    assert (errors(found)[0].line, errors(found)[0].problem) == (2, "is longer than 400 bytes")


def test_a_line_over_the_bound_of_what_is_read_is_skipped() -> None:
    long = a_record("long", metadata={"x": "y" * 5000})
    limits = Limits(max_document_bytes=300, max_record_bytes=300)

    for records, line in (((a_record("a"), long, a_record("b")), 2), ((long, a_record("a"), a_record("b")), 1)):
        found = read(lines_of(*records), limits=limits)
        assert refs(found) == ["a", "b"]
        assert errors(found)[0].line == line


def test_a_record_of_an_array_over_the_limit_is_refused() -> None:
    found = read(
        json.dumps([a_record("a"), a_record("b", metadata={"x": "y" * 500})]), limits=Limits(max_record_bytes=400)
    )

    assert refs(found) == ["a"]
    assert errors(found)[0].field == "[1]"


@pytest.mark.parametrize("indent", [None, 2])
def test_a_document_over_the_limit_is_refused_with_advice(indent: int | None) -> None:
    found = read(json.dumps([a_record("a"), a_record("b")], indent=indent), limits=Limits(max_document_bytes=200))

    assert not refs(found)
    assert "more than 200 bytes" in errors(found)[0].problem
    assert "JSONL" in errors(found)[0].fix


class Endless(io.BytesIO):
    """A stream of records without an end, which can only be read line by line."""

    number = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        self.number += 1
        return lines_of(a_record(f"c-{self.number}")).encode()


def test_lines_are_streamed() -> None:
    found = read_calls(Endless(), limits=LIMITS, source="-")

    assert refs(list(itertools.islice(found, 3))) == ["c-1", "c-2", "c-3"]


def test_a_path_is_opened_and_closed(tmp_path: Path) -> None:
    path = tmp_path / "anything.txt"
    path.write_text(lines_of(a_record("a")), encoding="utf-8")

    assert refs(list(read_calls(path, limits=LIMITS, source=path.name))) == ["a"]


def test_a_path_that_cannot_be_read_is_an_error_value(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        (error,) = read_calls(path, limits=LIMITS, source="here")
        assert isinstance(error, InvalidInput)
        assert (error.field, error.source) == ("(file)", "here")
        assert error.problem.startswith("can't be read: ")
