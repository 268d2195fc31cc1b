"""One HTML page about a run that needs nothing but itself: numbers, curves, pictures, and how to repeat them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dvaepp.boltzmann.annealing import LEAST_FAMILIES
from dvaepp.errors import InputError
from dvaepp.evaluation.scores import plus_minus
from dvaepp.recipes.recipe import Recipe
from dvaepp.report import gallery, plots
from dvaepp.report.columns import columns
from dvaepp.report.labels import labels
from dvaepp.report.local_groups import local_groups, rows_by_group
from dvaepp.report.page import page, parts
from dvaepp.report.subject import Subject, duration, estimate, number, spread
from dvaepp.runs.folder import RunFolder
from dvaepp.storage import write_text


def write_report(run: RunFolder, path: Path) -> None:
    """Write the page; what cannot be shown says why. InputError where there is no run or the page cannot be written."""
    subject = Subject(run)
    sections = (_section(title, subject, content) for title, content in _SECTIONS.items())
    write_text(path, page(*_title(subject), run.seed, _facts(subject), [*_headline(subject), *sections]))


def _section(title: str, subject: Subject, content: Callable[[Subject], list[Markup]]) -> Markup:
    """A section, or the reason why it is not shown; nothing where there is nothing to show."""
    try:
        shown = content(subject)
    except InputError as error:
        shown = [parts.note(f"Not shown: {error}.")]
    markup: Markup = parts.section(title, shown) if shown else Markup("")
    return markup


def _title(subject: Subject) -> tuple[str, str]:
    """What was trained: the recipe and its sentence, or that it was changed, or a recipe of the user's own."""
    recipe, origin = subject.run.recipe, subject.origin
    if origin is None or not origin.changes:
        return recipe.name, recipe.about
    own = recipe.about if recipe.about != origin.recipe.about else ""
    changed = "one setting" if len(origin.changes) == 1 else f"{len(origin.changes)} settings"
    return (
        f"Changed from {recipe.name}",
        own or f"{recipe.name} at size {origin.size} with {changed} changed, see below.",
    )


def _changes(subject: Subject) -> list[Markup]:
    origin = subject.origin
    if origin is None or not origin.changes:
        return []
    return [parts.table(["Setting", f"{origin.recipe.name}, size {origin.size}", "this run"], origin.changes)]


def _explorer(subject: Subject) -> list[Markup]:
    """A link to the page of `dvaepp explore`, where that lies in the run's folder."""
    if not (subject.run.folder / "explore.html").exists():
        return []
    return [
        parts.link("explore.html", "Press the bits of z, watch the prior's chain, draw an image and have it completed")
    ]


def _facts(subject: Subject) -> list[str]:
    run, recipe = subject.run, subject.run.recipe
    reached, planned = max((int(line["step"]) for line in subject.metrics), default=0), recipe.training.steps
    steps = f"{reached:,} steps" if reached == planned else f"{reached:,} of {planned:,} steps"
    groups = " + ".join(map(str, recipe.model.groups))
    facts = [f"seed {run.seed}", steps, Path(recipe.data.name).name, f"{groups} {_variables(subject)}"]
    return [*facts, f"{subject.prior} prior", *_local(subject), _objective(recipe)]


def _objective(recipe: Recipe) -> str:
    estimator = getattr(recipe.objective, "estimator", None)
    return f"{recipe.objective.name} objective" + (f", gradients by {estimator.name}" if estimator else "")


def _variables(subject: Subject) -> str:
    kind = "normal variables" if subject.normal else "bits"
    return f"global {kind}" if subject.local else kind


def _local(subject: Subject) -> list[str]:
    """What there is to say of local variables and the decoder."""
    if (c := subject.local) is None:
        return []
    what = {"normal": "normal variables", "bernoulli": "bits"}[c.local_variables.name]
    decoder = "decoder conditional on coarser pixels" if c.conditional else "decoder factorial over pixels"
    each = f"of {c.variables} {what} at"
    counts = Counter(c.scales).items()
    groups = [f"{n} local group{'s' * (n > 1)} {each} {scale} x {scale} locations" for scale, n in counts]
    return [*groups, decoder]


def _headline(subject: Subject) -> list[Markup]:
    """The likelihood and what it rests on, or that there is none."""
    result = subject.scores
    if result is None:
        return _unscored(subject)
    s = result["scores"]
    low, high = number(s["nll_at_low_log_z"]), number(s["nll_at_high_log_z"])
    certain = s["log_z_standard_error"] == 0
    exact = f"No uncertainty comes from log Z: {result['log_partition']['method']}"
    headline = parts.headline(
        f"Negative log-likelihood, {result['split']} data",
        number(s["nll"]),
        f"{spread(s['nll_standard_error'])} nats" if s["examples"] > 1 else "nats of one example: no standard error",
        [
            f"K = {s['samples']:,.0f} importance samples · {s['examples']:,.0f} examples · step {result['steps']:,}",
            f"{low} to {high} nats for log Z two standard errors lower to two higher" if not certain else exact,
            *([_in_bits(s)] if subject.levels and "bits_per_dimension" in s else []),
        ],
    )
    return [headline, *_untrusted(subject, result), *_outdated(subject, result)]


def _in_bits(scores: dict[str, float]) -> str:
    """The NLL of levels in the unit in which it is usually given."""
    bits = scores["bits_per_dimension"]
    error = scores["nll_standard_error"] * bits / scores["nll"] if scores["nll"] else 0.0
    return f"{bits:.3f}{plus_minus(error, scores['examples'], 3)} bits per dimension"


def _unscored(subject: Subject) -> list[Markup]:
    valid, bits = (subject.curve(f"valid_{name}").values for name in ("nll", "bits_per_dimension"))
    also = f" ({min(bits):.3f} bits per dimension)" if bits and subject.levels else ""
    so_far = f" On validation data the best so far is {number(min(valid))} nats{also}." if valid else ""
    text = f"Not evaluated yet: there is no test likelihood.{so_far} To measure it:"
    return [parts.warning(text, subject.command("evaluate"))]


def _untrusted(subject: Subject, result: dict[str, Any]) -> list[Markup]:
    if result["log_partition"]["trusted"]:
        return []
    text = (
        "Neither log Z nor this likelihood is to be trusted: by the estimate's own diagnosis its error may be "
        "larger than stated. To evaluate again with more temperatures:"
    )
    done = result.get("evaluation") or subject.run.recipe.evaluation.model_dump()
    more = f" --temperatures {max(1000, 4 * done['temperatures'])}"
    if done["chains"] * done["repeats"] < LEAST_FAMILIES:
        more += f" --chains {LEAST_FAMILIES}"
    return [parts.warning(text, subject.command("evaluate", more))]


def _outdated(subject: Subject, result: dict[str, Any]) -> list[Markup]:
    try:
        step = subject.trained.step
    except InputError:
        return []
    if step == result["steps"]:
        return []
    text = f"The scores are of step {result['steps']:,}, the pictures of step {step:,}. To score that model:"
    return [parts.warning(text, subject.command("evaluate"))]


def _numbers(subject: Subject) -> list[Markup]:
    if subject.scores is None:
        raise InputError("there has been no evaluation")
    s, method = subject.scores["scores"], subject.scores["log_partition"]["method"]
    ess = f"{s['effective_sample_size']:.1f} of {s['samples']:,.0f}"
    rows = [
        (
            "NLL",
            estimate(s, "nll"),
            "−log p(x), z binary, by importance sampling: too high on average, less with more samples.",
        ),
        ("ELBO", number(s["elbo"]), "The mean of log w: a lower bound on log p(x), as a single sample gives it."),
        ("Distortion", number(s["distortion"]), "−log p(x | z): what x costs once z is known."),
        ("KL", number(s["kl"]), "KL(q(z | x) ‖ p(z)): what z costs." if subject.local is None else _WITH_LOCAL),
        *_by_group(subject, s),
        *rows_by_group(subject, s),
        ("Effective sample size", ess, "(Σ w)² / Σ w² of the importance weights: near 1, the NLL rests on one sample."),
        ("log Z", estimate(s, "log_z"), f"The prior's log-normaliser: {method}."),
    ]
    return [parts.meanings(rows), parts.note("In nats, but for the counts of units and samples.")]


_WITH_LOCAL = "KL(q(z | x) ‖ p(z)) and the KL of all local groups: what z and h cost."


def _by_group(subject: Subject, scores: dict[str, float]) -> list[tuple[str, str, str]]:
    """The terms of the KL where there are several, and every group's active units."""
    terms = [number(scores[name]) for k in range(len(scores)) if (name := f"kl_{k + 1}") in scores]
    sizes = enumerate(subject.run.recipe.model.groups, 1)
    active = [f"{scores[name]:.0f} of {size}" for k, size in sizes if (name := f"active_units_{k}") in scores]
    what = "E[z | x]" if subject.normal else "q(z = 1 | x)"
    meaning = f"Units of each group that carry something: {what} varies over x, with a variance above 0.01."
    rows = [("KL by group", "\n".join(terms), "Its terms, in the order of the groups.")] if len(terms) > 1 else []
    return [*rows, ("Active units", "\n".join(active), meaning)] if active else rows


def _training(subject: Subject) -> list[Markup]:
    loss, valid, log_z = (subject.curve(name) for name in ("loss", "valid_nll", "valid_log_z"))
    if not loss.values:
        raise InputError("nothing has been logged yet")
    both = plots.curves("Distortion and KL", subject.curve("distortion"), subject.curve("kl"))
    about = "Loss on the latest batch, its KL weighted as scheduled"
    if subject.run.recipe.training.balance_kl:
        about += ", local groups balanced in the warm-up"
    figures = [
        parts.figure(plots.curves("Training loss", loss), about),
        parts.figure(both, "of the latest training batch", ("Distortion", "KL")),
    ]
    if valid.values:
        best, step = min(zip(valid.values, valid.steps, strict=True))
        text = f"NLL of validation data ± standard error; the best is {number(best)} at step {step:,.0f}"
        figures.insert(1, parts.figure(plots.curves("Validation NLL", valid), text))
    note = "Vertical axes in nats."
    if any(log_z.errors):
        figures.append(parts.figure(plots.curves("log Z", log_z), "log Z ± standard error at each validation"))
        note += " Loss and KL rest on a quick estimate of log Z at each point: they are no bounds."
    return [*_effort(subject), parts.columns(figures), parts.note(note)]


def _effort(subject: Subject) -> list[Markup]:
    """How long training took by its own clock, where that is known."""
    if not subject.seconds:
        return []
    steps = max(line["step"] for line in subject.metrics)
    rate = f"{steps / subject.seconds:.3g} steps a second"
    text = f"Training took {duration(subject.seconds)} on {subject.run.record.device}, {rate}, validations included"
    return [parts.text(f"{text}; steps that a stop undid are not counted.")]


def _chains(subject: Subject) -> list[Markup]:
    """What the gradient of log Z rests on: whether its chains move, agree, and are at the right temperature."""
    texts = {
        "autocorrelation_time": "Autocorrelation time of the energy, in Gibbs sweeps",
        "r_hat": "R-hat of the energy: 1 where all chains see the same, above 1.1 where they stay apart",
        "effective_inverse_temperature": "Inverse temperature at which the samples look drawn; it should be 1",
    }
    series = {text: subject.curve(f"chains_{name}") for name, text in texts.items()}
    if not any(curve.values for curve in series.values()):
        return []
    figures = [parts.figure(plots.curves(text, curve), text) for text, curve in series.items()]
    size = subject.curve("chains_effective_sample_size").values[-1]
    note = f"At each point up to 100 chains were watched for 100 sweeps; at the last they were worth {size:,.0f} draws."
    return [parts.columns(figures), parts.note(note)]


def _parameters(subject: Subject) -> list[Markup]:
    counts = subject.parameters
    rows = [[name, f"{count:,}"] for name, count in counts.items()]
    return [parts.table(["Part", "parameters"], [*rows, ["all", f"{sum(counts.values()):,}"]])]


def _data(subject: Subject) -> list[Markup]:
    result = subject.scores
    if subject.given is not None:
        text = f"Examples and columns on this page are the {len(subject.given.x):,} of {subject.run.data_at}, "
        return [parts.text(f"{text}not the data of the training.")]
    protocol = parts.text(result["data"]["protocol"] if result else subject.run.data.protocol)
    try:
        data = subject.data
    except InputError as error:
        return [protocol, parts.note(f"The sizes of its splits are not shown: {error}.")]
    sizes = {"train": data.train, "valid": data.valid, "test": data.test}
    shape = f"{data.shape[0]:,} columns" if len(data.shape) == 1 else " × ".join(map(str, data.shape))
    return [
        protocol,
        parts.table(["Split", f"examples of {shape}"], [[name, f"{len(x):,}"] for name, x in sizes.items()]),
    ]


def _commands(subject: Subject) -> list[Markup]:
    record, scores = subject.run.record, subject.scores or {}
    commands = "\n".join(record.repeating(scores.get("commands", [])))
    made = [f"{name} {version}" for name, version in record.versions.items()]
    where = ", ".join([*made, f"device {record.device}", f"CPU threads: {record.threads}"])
    recipe = json.dumps(record.recipe, indent=2, ensure_ascii=False)
    return [parts.commands(commands), parts.note(where), parts.unfolded("The recipe as JSON", recipe)]


_SECTIONS: dict[str, Callable[[Subject], list[Markup]]] = {
    "To play with": _explorer,
    "Changed settings": _changes,
    "Numbers": _numbers,
    "Training": _training,
    "Chains": _chains,
    "Local groups": local_groups,
    "Columns": columns,
    "Samples": gallery.samples,
    "Reconstructions": gallery.reconstructions,
    "Labels": labels,
    "Prior": gallery.prior,
    "Latent units": gallery.units,
    "Parameters": _parameters,
    "Data": _data,
    "To repeat it": _commands,
}
