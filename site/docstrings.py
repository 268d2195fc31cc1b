"""Docstrings as the reference shows them: what they say as it stands, equations in code style, doctests as programs."""

from __future__ import annotations

import re
from typing import Any

import griffe

_EQUATION = re.compile(r"-?(log )?[\w']+[(\[]\S|\S+ (=|<-|~|>=|<=) |(sum|prod)_")


class Plain(griffe.Extension):
    """Makes Markdown of a docstring, in which an equation's letters are no marks."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Turn one object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    r"""The first line in code style where it is an equation, doctests fenced, everything else as it stands.

    >>> print(as_markdown("E(z) = -b'z.\n\nOf h_<j and `name`."))
    `E(z) = -b'z.`
    <BLANKLINE>
    Of h\_&lt;j and `name`.
    """
    blocks = re.split(r"\n\n+", text.strip())
    return "\n\n".join(_block(block, first=place == 0) for place, block in enumerate(blocks))


def _block(block: str, first: bool) -> str:
    if block.startswith(">>>"):
        return f"```pycon\n{block}\n```"
    if first and "`" not in block and _EQUATION.match(block):
        return f"`{' '.join(block.split())}`"
    parts = re.split(r"(`[^`]*`)", block)
    return "".join(part if part.startswith("`") else _plain(part) for part in parts)


def _plain(text: str) -> str:
    return re.sub(r"([\\_*\[\]$])", r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;"))
