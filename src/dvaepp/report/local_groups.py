"""The section of a report about groups of local variables: what each costs, and which have collapsed."""

from __future__ import annotations

from markupsafe import Markup

from dvaepp.report import plots
from dvaepp.report.page import parts
from dvaepp.report.subject import Subject, number

COLLAPSED = 0.1
"""Nats: a group whose KL is below this says next to nothing about x."""


def local_groups(subject: Subject) -> list[Markup]:
    """KL of every group over training and at last, and the active variables; nothing where there are no groups."""
    if subject.local is None:
        return []
    blocks: list[Markup] = []
    curves = [subject.curve(f"kl_local_{j}") for j, _ in enumerate(subject.local.dimensions, 1)]
    if all(curve.values for curve in curves):
        drawn = plots.group_curves("KL by local group over training", curves, COLLAPSED)
        text = (
            f"KL of each local group on the latest training batch, nats; below the line at {COLLAPSED} it has collapsed"
        )
        blocks.append(parts.figure(drawn, text))
    values, where = _latest(subject, "kl_local")
    if values:
        bars = plots.bars("KL by local group", values, COLLAPSED)
        text = f"KL of each local group on {where}, nats: {subject.local.places}"
        blocks += [parts.figure(bars, text), parts.text(_verdict(values))]
    return [*blocks, *_active(subject)] if blocks else []


def _active(subject: Subject) -> list[Markup]:
    counts, where = _latest(subject, "active_local")
    if subject.local is None or not counts:
        return []
    text = ", ".join(f"{count:,.0f} of {of:,}" for count, of in zip(counts, subject.local.dimensions, strict=True))
    return [parts.text(f"Active variables of the groups on {where}: {text}.")]


def rows_by_group(subject: Subject, scores: dict[str, float]) -> list[tuple[str, str, str]]:
    """What the scores say about local groups, for a table: name, values, meaning."""
    if subject.local is None or "kl_global" not in scores:
        return []
    lines = []
    for j, of in enumerate(subject.local.dimensions, 1):
        active = scores.get(f"active_local_{j}")
        lines.append(number(scores[f"kl_local_{j}"]) + ("" if active is None else f" · {active:,.0f} of {of:,}"))
    meaning = "KL(q(h_j | ...) ‖ p(h_j | ...)) of every group, and how many of its variables x moves."
    total = ("KL, global variables", number(scores["kl_global"]), "KL(q(z | x) ‖ p(z)), which is part of the KL.")
    return [total, ("KL and active variables, local groups", "\n".join(lines), meaning)]


def _latest(subject: Subject, quantity: str) -> tuple[list[float], str]:
    """A quantity of all groups as it was measured last, and on what data; nothing where it was not."""
    assert subject.local is not None
    names = [f"{quantity}_{j}" for j, _ in enumerate(subject.local.dimensions, 1)]
    result = subject.scores
    if result is not None and all(name in result["scores"] for name in names):
        return [result["scores"][name] for name in names], f"{result['split']} data"
    for prefix, where in (("valid_", "validation data"), ("", "the latest training batch")):
        found = [subject.curve(prefix + name).values for name in names]
        if all(found):
            return [values[-1] for values in found], where
    return [], ""


def _verdict(values: list[float]) -> str:
    collapsed = [str(j) for j, value in enumerate(values, 1) if value < COLLAPSED]
    if not collapsed:
        return f"No group has collapsed: every KL is at least {COLLAPSED} nats."
    some = f"Group {collapsed[0]} has" if len(collapsed) == 1 else f"Groups {', '.join(collapsed)} have"
    return f"{some} collapsed: a KL below {COLLAPSED} nats."
