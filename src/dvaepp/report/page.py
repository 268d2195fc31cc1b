"""A page and its parts: all markup is in templates/, which escape the text that they are given."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

_ENVIRONMENT = Environment(
    loader=PackageLoader("dvaepp.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
parts: Any = _ENVIRONMENT.get_template("parts.html").module
"""The macros of parts.html: `parts.note(text)`, `parts.figure(shown, caption)`, .. give Markup, to put into others."""


def page(title: str, about: str, seed: int, facts: Sequence[str], content: Sequence[Markup]) -> str:
    """One HTML document that needs no other file."""
    template = _ENVIRONMENT.get_template("page.html")
    return template.render(title=title, about=about, seed=seed, facts=facts, content=content)


def rendered(template: str, **values: Any) -> str:
    """Another document of templates/."""
    return _ENVIRONMENT.get_template(template).render(**values)


def picture(image: Image.Image, alternative: str) -> Markup:
    """An image within the page: one that is transparent in parts fills its column, others keep their size."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    look, data = "fill" if image.mode == "RGBA" else "ink", base64.b64encode(file.getvalue()).decode()
    markup: Markup = parts.picture(look, image.width, image.height, data, alternative)
    return markup
