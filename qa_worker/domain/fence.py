"""Keeping other people's text inside its fence, so that a judge can tell data from instructions.

Two walls. A fence is a pair of tags, and no text within it can hold a `<`, or a character that looks like one, where a
tag could begin. And lines that we write start in the first column, whereas every further line of a text is indented:
a text can't forge the header of a turn.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

INDENT = "    "

_LESS_THAN = "<\u02c2\u1438\u2039\u2329\u2770\u276c\u276e\u27e8\u29fc\u2c9e\u3008\ufe64\uff1c"
# "< 5", "<5", "<=" and "<$5" are arithmetic and stay; anything else after the sign could pass for a tag
_TAG_START = re.compile(rf"[{_LESS_THAN}](?![ \t]*[\d=$€£.])")
_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")

_CONTROLS = (*range(9), *range(14, 28), 31, *range(127, 133), *range(134, 160))
# zero-width space, word joiner, soft hyphen, BOM, direction overrides, invisible "tag" letters: text nobody can see
_INVISIBLE = (0xAD, 0x180E, 0x200B, *range(0x202A, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xE0000, 0xE0080))
_UNSEEN: dict[int, str | None] = dict.fromkeys((*_CONTROLS, *_INVISIBLE))
_UNSEEN |= dict.fromkeys(range(0xD800, 0xE000), "\N{REPLACEMENT CHARACTER}")


def clean(text: str) -> str:
    """The text without characters that can't be seen or sent: controls, direction marks, halves of surrogate pairs."""
    # Nothing to do for nearly every text: all that is taken out here counts as unprintable.
    if text.replace("\n", " ").isprintable():
        return text
    return _LINE_BREAK.sub("\n", text).translate(_UNSEEN)


def as_shown(text: str) -> str:
    """The text as a judge is shown it. Idempotent, so that a quote and its source can be compared through it."""
    shown = clean(text)
    return shown if shown.isascii() and "<" not in shown else _TAG_START.sub("(", shown)


def on_one_line(text: str) -> str:
    """The text as shown, with line breaks and runs of blanks as single spaces."""
    return " ".join(as_shown(text).split())


def indented(text: str) -> str:
    """The text as shown; each line after its first is indented, so that none of them starts a turn."""
    return as_shown(text.strip()).replace("\n", f"\n{INDENT}")


def fenced(tag: str, lines: Iterable[str]) -> str:
    """The lines between the tags. The lines must have come through `on_one_line` or `indented`."""
    return "\n".join((f"<{tag}>", *lines, f"</{tag}>"))
