"""On which line of a YAML (or JSON) text a field stands."""

from __future__ import annotations

import json
import re

import yaml

_PART = re.compile(r'\[(\d+)\]|\[("(?:[^"\\]|\\.)*")\]|([^.\[\]]+)')


def line_of(text: str, field: str) -> int | None:
    """The line, from 1, of a path such as `steps[2].say`; of the nearest part above it where the field itself is absent.

    None where the text can't be read at all. Meant for error messages: it reads the whole text again.
    """
    try:
        node = yaml.compose(text.removeprefix("\ufeff"), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        return None
    line = node.start_mark.line + 1 if node is not None else None
    for part in _parts(field):
        found = _below(node, part)
        if found is None:
            break
        node, line = found
    return line


def _parts(field: str) -> list[str | int]:
    return [int(index) if index else _key(quoted) if quoted else name for index, quoted, name in _PART.findall(field)]


def _key(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:  # cut for display
        return quoted


def _below(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, int] | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        inner: yaml.Node = node.value[part]
        return inner, inner.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    return None
