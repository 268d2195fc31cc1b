"""What a page is made of, as plain values: their markup is in templates/ alone, which escape all text."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image


class Block:
    """A part of a page, whose markup is the macro in templates/blocks.html that bears its class's name."""

    def __html__(self) -> Markup:
        """What a template shows where it names the block."""
        markup: Markup = getattr(_environment().get_template("blocks.html").module, type(self).__name__.lower())(self)
        return markup


@dataclass(frozen=True)
class Text(Block):
    """A paragraph; `look` is text or note."""

    text: str
    look: str = "text"


@dataclass(frozen=True)
class Code(Block):
    """Lines to copy, unfolded on demand where they have a summary."""

    text: str
    summary: str = ""


@dataclass(frozen=True)
class Notice(Block):
    """A box that is not to be overlooked, with a command that helps."""

    text: str
    command: str


@dataclass(frozen=True)
class Headline(Block):
    """The one number that matters, large, and what it rests on."""

    label: str
    number: str
    more: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Meanings(Block):
    """(name, value, meaning) in rows."""

    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table(Block):
    """Rows of cells under a head; the first cell of each is its name."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture(Block):
    """An image within the page: one that is transparent in parts fills its column, others keep their size."""

    image: Image.Image
    alternative: str

    @property
    def look(self) -> str:
        """`fill` or `ink`."""
        return "fill" if self.image.mode == "RGBA" else "ink"

    @property
    def data(self) -> str:
        """The PNG in base 64."""
        file = BytesIO()
        self.image.save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()


@dataclass(frozen=True)
class Figure(Block):
    """A picture or plot with a caption, which begins with what is drawn in the page's colours one and two."""

    shown: Picture | Markup
    caption: str
    drawn: Sequence[str] = ()
    ends: tuple[str, str] | None = None
    """What the ends of a scale from orange over nothing to blue stand for."""


@dataclass(frozen=True)
class Columns(Block):
    """Figures side by side where the window is wide enough; those of a list share a column."""

    columns: Sequence[Sequence[Figure]]


@dataclass(frozen=True)
class Panels(Block):
    """Pictures side by side whatever the window, to one scale."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Section(Block):
    """A part of the page under a heading."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    about: str
    seed: int
    facts: Sequence[str]
    blocks: Sequence[Block]

    def html(self) -> str:
        """One HTML document that needs no other file."""
        return _environment().get_template("page.html").render(page=self)


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("dvaepp.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
