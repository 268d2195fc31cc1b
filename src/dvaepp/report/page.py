"""The look of a page, and the elements that it is made of: they escape the text that they are given."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from io import BytesIO

from PIL import Image


def page(title: str, body: str) -> str:
    """A whole HTML document that needs no other file."""
    viewport = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head = f'<meta charset="utf-8">\n{viewport}\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>'
    content = f"<head>\n{head}\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>"
    return f'<!DOCTYPE html>\n<html lang="en">\n{content}\n</html>\n'


def header(title: str, facts: str, text: str) -> str:
    """The page's title, with the facts below it."""
    return f"<header>\n<h1>{escape(title)}</h1>\n{paragraph(facts, 'facts')}\n{paragraph(text)}\n</header>"


def headline(label: str, number: str, more: str, *lines: str) -> str:
    """The one number that matters, large, and what it rests on."""
    text = "\n".join(paragraph(line) for line in lines)
    large = f'<p class="number">{escape(number)} <small>{escape(more)}</small></p>'
    return f'<div class="headline">\n{paragraph(label, "label")}\n{large}\n{text}\n</div>\n'


def section(title: str, markup: str) -> str:
    """A part of the page under a heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{markup}\n</section>"


def paragraph(text: str, kind: str = "text") -> str:
    """Text of a kind: text, facts, label or note."""
    return f'<p class="{kind}">{escape(text)}</p>'


def code(text: str) -> str:
    """Lines to copy."""
    return f"<pre><code>{escape(text)}</code></pre>"


def warning(text: str, markup: str = "") -> str:
    """A box that is not to be overlooked."""
    return f'<div class="warning" role="note">{paragraph(text)}{markup}</div>'


def details(summary: str, markup: str) -> str:
    """What is unfolded on demand."""
    return f"<details><summary>{escape(summary)}</summary>{markup}</details>"


def table(rows: Iterable[tuple[str, str, str]]) -> str:
    """(name, value, meaning) in rows."""
    cells = (
        f'<tr><th scope="row">{escape(name)} <small>{escape(meaning)}</small></th><td>{escape(value)}</td></tr>'
        for name, value, meaning in rows
    )
    return "<table>\n{}\n</table>".format("\n".join(cells))


def figure(markup: str, caption: str, more: str = "") -> str:
    """A picture with a caption, `more` of it being markup."""
    return f"<figure>{markup}<figcaption>{escape(caption)}{more}</figcaption></figure>"


def columns(*figures: str) -> str:
    """Figures side by side where the window is wide enough."""
    return '<div class="columns">{}</div>'.format("".join(f"<div>{each}</div>" for each in figures))


def panels(figures: Iterable[str], widths: Iterable[int]) -> str:
    """Figures side by side whatever the window, their images to one scale."""
    template = " ".join(f"{width}fr" for width in widths)
    return f'<div class="panels" style="grid-template-columns: {template}">{"".join(figures)}</div>'


def picture(image: Image.Image, alternative: str) -> str:
    """An image within the page: one that is transparent in parts fills its column, others keep their size."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    kind, size = "fill" if image.mode == "RGBA" else "ink", f'width="{image.width}" height="{image.height}"'
    return f'<img class="{kind}" {size} alt="{escape(alternative)}" src="data:image/png;base64,{data}">'


def key(low: str, high: str, colours: tuple[tuple[int, int, int], tuple[int, int, int]]) -> str:
    """A scale of colours from low over transparent to high."""
    ramp = f"linear-gradient(to right, rgb{colours[0]}, transparent, rgb{colours[1]})"
    return f' <span class="key">{escape(low)}<i style="background: {ramp}"></i>{escape(high)}</span>'


_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1e21; --faint: #666b73; --rule: #e2e4e8; --panel: #f6f7f8;
  --one: #2c74c4; --two: #d4621c; --warn: #b4520a; --warn-paper: #fff6ea; }
@media screen and (prefers-color-scheme: dark) {
  :root { --paper: #131518; --ink: #e4e6e9; --faint: #989ea8; --rule: #2c3036; --panel: #1b1e22;
    --one: #5b9fe8; --two: #ee8a4a; --warn: #f0a050; --warn-paper: #2a2015; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif;
  -webkit-text-size-adjust: 100%; }
main { max-width: 48rem; margin: 0 auto; padding: 3.5rem 1.25rem 5rem; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.2; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 1rem; font-size: 1.15rem; }
p:empty { display: none; }
p { margin: 0.35rem 0; overflow-wrap: anywhere; }
section { margin-top: 2.5rem; padding-top: 1.5rem; border-top: 1px solid var(--rule); }
.facts, .note, .label, figcaption, th small { color: var(--faint); }
.note, .label, figcaption { font-size: 0.875rem; }
.headline { margin: 2.25rem 0 1rem; }
.number { margin: 0; font-size: 3.25rem; font-weight: 650; line-height: 1.2; letter-spacing: -0.03em; }
.number small { color: var(--faint); font-size: 1.25rem; font-weight: 400; letter-spacing: 0; white-space: nowrap; }
.number, td, svg { font-variant-numeric: tabular-nums; }
.warning { margin: 1.25rem 0; padding: 0.6rem 1rem; border-left: 4px solid var(--warn);
  background: var(--warn-paper); }
table { width: 100%; border-collapse: collapse; }
th, td { padding: 0.55rem 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { padding-right: 1.5rem; font-weight: 500; text-align: left; }
th small { display: block; max-width: 34rem; font-weight: 400; line-height: 1.4; }
td { text-align: right; white-space: pre; }
figure { margin: 0 0 1.25rem; break-inside: avoid; }
figcaption { margin-top: 0.4rem; line-height: 1.4; }
svg, .fill { display: block; overflow: visible; width: 100%; height: auto; }
svg text { font-family: system-ui, sans-serif; }
.ink { display: block; max-width: 100%; height: auto; }
.fill { image-rendering: pixelated; border: 1px solid var(--rule); }
.columns { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 19rem), 1fr)); gap: 0.5rem 2rem; }
.panels { display: grid; gap: 0.75rem; justify-content: start; }
.one { color: var(--one); }
.two { color: var(--two); }
.key { display: block; white-space: nowrap; }
.key i { display: inline-block; width: 5rem; height: 0.6em; margin: 0 0.4em; }
pre { margin: 0.5rem 0; padding: 0.75rem 1rem; overflow-x: auto; background: var(--panel); font-size: 0.85rem; }
.warning pre { padding: 0; background: none; }
summary { margin-top: 1rem; cursor: pointer; }
@media print {
  :root { color-scheme: light; }
  body { font-size: 11pt; }
  main { max-width: none; padding: 0; }
  pre { white-space: pre-wrap; }
  tr, .warning, .headline { break-inside: avoid; }
  h2 { break-after: avoid; }
  section { margin-top: 1.5rem; } }
"""
