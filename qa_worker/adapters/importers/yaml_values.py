"""YAML (and JSON, which is nearly YAML) that people write, read without surprises."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable
from typing import Any

import yaml

from qa_worker.adapters.importers.json_values import not_json
from qa_worker.adapters.importers.problems import WHOLE_FILE
from qa_worker.domain.errors import InvalidInput

QUOTED = "Put the line in quotes, such as '[silence - 5 seconds] Hello?'"
_YAML = "Write YAML or JSON"
# `opening: [silence - 5 seconds] Hello?` begins a list for YAML, and goes on as none.
_BEGINS_WITH_BRACKET = re.compile(r"\s*(?:-\s+)*(?:[\w-]+:\s+)?\[")


class _Loader(yaml.SafeLoader):
    """SafeLoader, except that a key which is given twice is an error, and whole numbers as keys are texts, as in JSON."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        self.flatten_mapping(node)
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, int) and not isinstance(key, bool):
                key = str(key)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem="a key that is no text; put it in quotes", problem_mark=key_node.start_mark
                )
            if key in mapping:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} is given twice", problem_mark=key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=deep)
        return mapping


def load_yaml(text: str, *, max_chars: int) -> object:
    """The value of a YAML or JSON text. Raises InvalidInput, with the line where the parser knows it."""
    if len(text) > max_chars:
        problem = f"has {len(text):,} characters; at most {max_chars:,} are accepted"
        raise InvalidInput(field=WHOLE_FILE, problem=problem, fix="Shorten it")
    body = text.removeprefix("\ufeff")
    if not body.strip():
        raise InvalidInput(field=WHOLE_FILE, problem="is empty", fix=_YAML)
    # JSON first: YAML's own reading of it stumbles over tabs.
    return _json(body) if body.lstrip().startswith("{") else _yaml(body)


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        line = error.lineno if isinstance(error, json.JSONDecodeError) else None
        problem = not_json(error, fix=_YAML, line=line)
        problem.field = WHOLE_FILE
        raise problem from None


def _yaml(text: str) -> object:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        begun = text.split("\n")[line - 1 : line] if line else []
        fix = QUOTED if any(map(_BEGINS_WITH_BRACKET.match, begun)) else _YAML
        raise InvalidInput(WHOLE_FILE, f"is not YAML: {error.problem or error.context}", fix, line=line) from None
    except yaml.YAMLError as error:
        raise InvalidInput(WHOLE_FILE, f"is not YAML: {error}", _YAML) from None
    # Explicit tags (!!int, !!timestamp ...) end in int(), float() and dict look-ups whose errors PyYAML lets through.
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError, RecursionError) as error:
        problem = f"holds a value that can't be read ({type(error).__name__})"
        raise InvalidInput(WHOLE_FILE, problem, "Put texts that look like dates or numbers in quotes") from None
