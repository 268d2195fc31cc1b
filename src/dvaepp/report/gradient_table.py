"""A comparison of gradients as a table: cells of text, Markdown, CSV."""

from __future__ import annotations

import csv
import io
import math
import textwrap

from dvaepp.evaluation.estimated import Estimated
from dvaepp.evaluation.gradients import GradientComparison, GradientQuality

HEADS = ("method", "bias² / |g|²", "variance", "variance / |g|²", "SNR", "cosine", "decoded", "ms", "unbiased")
_ABSENT = "–"
_CSV = (
    *("method", "claims_unbiased", "bias2", "bias2_standard_error", "relative_bias2", "relative_bias2_standard_error"),
    *("variance", "variance_standard_error", "relative_variance", "mean2", "mean2_standard_error", "signal_to_noise"),
    *("cosine", "evaluations", "milliseconds", "truth2", "truth2_standard_error", "truth_relative_noise"),
    *("examples", "draws", "seed", "fit_steps", "of"),
)


def cells(found: GradientComparison) -> list[list[str]]:
    """For each row the texts under HEADS."""
    return [_line(row) for row in found.rows]


def _line(row: GradientQuality) -> list[str]:
    return [
        row.method.label,
        _text(row.relative_bias),
        _text(row.variance),
        _digits(row.relative_variance.value),
        _digits(row.signal_to_noise),
        _ABSENT if row.cosine is None else f"{row.cosine:.2f}",
        f"{row.cost.evaluations:g}",
        f"{row.cost.milliseconds:.2f}",
        _verdict(row),
    ]


def _text(estimated: Estimated) -> str:
    return str(estimated) if math.isfinite(estimated.value) else "not finite"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) and abs(value) >= 1000 else f"{value:.3g}"


def _verdict(row: GradientQuality) -> str:
    """What came of the claim; nothing where there is none."""
    if row.holds is None:
        return ""
    return "yes" if row.holds else f"no, bias² is {row.bias.value / row.bias.error:.0f} errors from 0"


def caption(found: GradientComparison, of: str) -> str:
    """What the numbers are, and what they rest on."""
    truth = (
        "by a sum over all states"
        if found.truth_noise == 0
        else f"the mean of {found.draws:,} local expectations, whose own square error is {found.truth_noise:.2g} |g|²"
    )
    many = f"{found.examples:,} training example{'' if found.examples == 1 else 's'}"
    parts = [
        f"Gradients of single draws in the encoder's logits. {of}; {many}, {found.draws:,} draws, seed {found.seed}. "
        "Squares are summed over the bits and averaged over the examples; ± is the standard error.",
        "g is the gradient of the bound of bits, E[log p(x | z)] − KL, whatever a method's own target is: "
        f"|g|² = {found.truth} nats², {truth}.",
        "bias² is |mean − g|², the noise of both means taken out, and ~0 where less than nothing is left; variance "
        "that of a single draw, nats², not known where its error is as large; SNR |mean|² / variance; cosine that "
        "between mean and g, where |mean|² is known.",
        "decoded: states the decoder sees, for each example. ms: processor time of one thread, a batch of these "
        "examples, for value and gradient in the model's parameters.",
        "unbiased: of methods that claim it, whether bias² is within 5 standard errors of 0. sampled KL: f is "
        "log p(x, z) − log q(z | x), else the KL is analytic. fitted: what the estimator learns, after "
        f"{found.fit_steps:,} steps of Adam with the model held, else as it starts.",
    ]
    return "\n\n".join(parts)


def markdown(found: GradientComparison, of: str) -> str:
    """The table in Markdown, over what its numbers are."""
    rows = [HEADS, ["---", *["---:"] * (len(HEADS) - 2), "---"], *cells(found)]
    table = "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)
    notes = "\n\n".join(textwrap.fill(part, 120) for part in caption(found, of).split("\n\n"))
    return f"{table}\n\n{notes}\n"


def comma_separated(found: GradientComparison, of: str) -> str:
    """The table in CSV, numbers unrounded; empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_CSV)
    of_all = [found.truth_noise, found.examples, found.draws, found.seed, found.fit_steps, of]
    for row in found.rows:
        numbers = [*row.bias, *row.relative_bias, *row.variance, row.relative_variance.value, *row.signal]
        cosine = "" if row.cosine is None else row.cosine
        costs = [row.signal_to_noise, cosine, row.cost.evaluations, row.cost.milliseconds]
        writer.writerow([row.method.label, row.method.unbiased, *numbers, *costs, *found.truth, *of_all])
    return file.getvalue()
