"""The section of a report about labels: what codes tell of them, though no model saw them."""

from __future__ import annotations

from markupsafe import Markup

from dvaepp.errors import InputError
from dvaepp.report.page import parts, picture
from dvaepp.report.subject import Subject
from dvaepp.runs import pictures
from dvaepp.runs.probe import probe, retrieved
from dvaepp.runs.run import Run

_MOST, _NEIGHBOURS, _SHOWN = 2000, 7, 6
"""Examples of train and of test; neighbours of each test example, and how many of these are shown."""


def labels(subject: Subject) -> list[Markup]:
    """Accuracy of the run's codes and of the data themselves; nothing where there are no labels."""
    if not _known(subject):
        return []
    run = Run(subject.run, subject.trained)
    found = probe(run, _NEIGHBOURS, most=_MOST, rival=False)
    rows = [
        [row.name, f"{row.columns:,}", *(f"{x:.3f} ± {row.error(x):.3f}" for x in (row.neighbours, row.linear))]
        for row in found
    ]
    note = (
        f"How often a test example's label is told by the {_NEIGHBOURS} nearest examples of train (of codes in Hamming "
        f"distance), and by logistic regression: {found[0].examples:,} of test, at most {_MOST:,} of train. dvaepp "
        "probe takes all, and scikit-learn's BernoulliRBM beside them."
    )
    table = parts.table(["", "columns", f"{_NEIGHBOURS} nearest", "linear"], rows)
    if len(subject.trained.shape) == 1 or len(subject.data.test) < _SHOWN:
        return [table, parts.note(note)]
    near = retrieved(run, _NEIGHBOURS, _SHOWN)
    image = pictures.grid(near, subject.trained.shape, pictures.white(subject.run.recipe))
    text = "Test examples, and beside each those of train with the nearest codes"
    return [table, parts.note(note), parts.figure(picture(image, text), text)]


def _known(subject: Subject) -> bool:
    """Whether the data of the training are there, and have labels."""
    try:
        return subject.given is None and subject.data.labels is not None
    except InputError:
        return False
