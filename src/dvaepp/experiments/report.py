"""One HTML page about a run that needs nothing but itself: numbers, curves, pictures, and how to repeat them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dvaepp.errors import InputError
from dvaepp.evaluation import measuring, unit_variances
from dvaepp.experiments import page, pictures
from dvaepp.experiments.pictures import Curve
from dvaepp.experiments.run import Run, TrainedModel
from dvaepp.latent.boltzmann import BoltzmannMachine
from dvaepp.latent.hard import hard
from dvaepp.latent.priors import BernoulliPrior, BoltzmannPrior, DirectedPrior
from dvaepp.latent.quadratic import to_qubo
from dvaepp.storage import write_text

_ROWS, _COLUMNS = 6, 8
_VALIDATION_EXAMPLES, _TABLE_SAMPLES = 500, 2000


def write_report(run: Run, path: Path) -> None:
    """Write the page; what cannot be shown says why. InputError where there is no run or the page cannot be written."""
    subject = _Subject(run)
    parts = [_section(title, subject, content) for title, content in _SECTIONS.items()]
    body = "\n".join([_header(subject), _headline(subject), *parts])
    write_text(path, page.page(f"{run.recipe.name}, seed {run.seed}", body))


@dataclass(frozen=True)
class _Subject:
    """A run, and what of it is worth loading once."""

    run: Run

    @cached_property
    def scores(self) -> dict[str, Any] | None:
        return self.run.scores()

    @cached_property
    def trained(self) -> TrainedModel:
        """The model that was scored if it is still there, else the best one, else the last."""
        try:
            best = self.run.model()
        except InputError:
            return self.run.model(last=True)
        if self.scores is None or best.step == self.scores["steps"]:
            return best
        last = self.run.model(last=True)
        return last if last.step == self.scores["steps"] else best

    @cached_property
    def valid(self) -> Float[Tensor, "n pixels"]:
        valid = self.run.data_for(self.trained).valid
        return valid[:_VALIDATION_EXAMPLES].float().to(self.trained.device)

    def curve(self, name: str) -> Curve:
        """A quantity of metrics.jsonl, with its standard errors where it has them."""
        lines = [line for line in self.run.metrics() if name in line]
        error = f"{name}_standard_error"
        errors = [line[error] for line in lines if error in line]
        return Curve([float(line["step"]) for line in lines], [line[name] for line in lines], errors)

    def command(self, name: str, options: str = "") -> str:
        return page.code(f"dvaepp {name} {shlex.quote(str(self.run.folder))}{options}")


def _section(title: str, subject: _Subject, content: Callable[[_Subject], str]) -> str:
    """A section, or the reason why it is not shown; nothing where there is nothing to show."""
    try:
        text = content(subject)
        return page.section(title, text) if text else ""
    except InputError as error:
        return page.section(title, page.paragraph(f"Not shown: {error}.", "note"))


def _header(subject: _Subject) -> str:
    run, recipe = subject.run, subject.run.recipe
    reached, planned = max((int(line["step"]) for line in run.metrics()), default=0), recipe.training.steps
    steps = f"{reached:,} steps" if reached == planned else f"{reached:,} of {planned:,} steps"
    groups = " + ".join(map(str, recipe.model.groups))
    facts = f"seed {run.seed} · {steps} · {Path(recipe.data.name).name} · {groups} bits · {recipe.model.prior} prior"
    return page.header(recipe.name, facts, recipe.about)


def _headline(subject: _Subject) -> str:
    """The likelihood and what it rests on, or that there is none."""
    result = subject.scores
    if result is None:
        return _unscored(subject)
    s = result["scores"]
    low, high = _number(s["nll_at_low_log_z"]), _number(s["nll_at_high_log_z"])
    certain = s["log_z_standard_error"] == 0
    exact = f"No uncertainty comes from log Z: {result['log_partition']['method']}"
    headline = page.headline(
        f"Negative log-likelihood, {result['split']} data",
        _number(s["nll"]),
        f"± {_number(s['nll_standard_error'])} nats",
        f"K = {s['samples']:,.0f} importance samples · {s['examples']:,.0f} examples · step {result['steps']:,}",
        f"{low} to {high} nats for log Z two standard errors lower to two higher" if not certain else exact,
    )
    return headline + _untrusted(subject, result) + _outdated(subject, result)


def _unscored(subject: _Subject) -> str:
    valid = subject.curve("valid_nll").values
    so_far = f" On validation data the best so far is {_number(min(valid))} nats." if valid else ""
    text = f"Not evaluated yet: there is no test likelihood.{so_far} To measure it:"
    return page.warning(text, subject.command("evaluate"))


def _untrusted(subject: _Subject, result: dict[str, Any]) -> str:
    if result["log_partition"]["trusted"]:
        return ""
    text = (
        "Neither log Z nor this likelihood is to be trusted: by the estimate's own diagnosis its error may be "
        "larger than stated. To evaluate again with more temperatures:"
    )
    temperatures = max(1000, 10 * subject.run.recipe.evaluation.temperatures)
    return page.warning(text, subject.command("evaluate", f" --temperatures {temperatures}"))


def _outdated(subject: _Subject, result: dict[str, Any]) -> str:
    try:
        step = subject.trained.step
    except InputError:
        return ""
    if step == result["steps"]:
        return ""
    text = f"The scores are of step {result['steps']:,}, the pictures of step {step:,}. To score that model:"
    return page.warning(text, subject.command("evaluate"))


def _numbers(subject: _Subject) -> str:
    if subject.scores is None:
        raise InputError("there has been no evaluation")
    s, method = subject.scores["scores"], subject.scores["log_partition"]["method"]
    ess = f"{s['effective_sample_size']:.1f} of {s['samples']:,.0f}"
    rows = [
        (
            "NLL",
            _estimate(s, "nll"),
            "−log p(x), z binary, by importance sampling: too high on average, less with more samples.",
        ),
        ("ELBO", _number(s["elbo"]), "The mean of log w: a lower bound on log p(x), as a single sample gives it."),
        ("Distortion", _number(s["distortion"]), "−log p(x | z): what x costs once z is known."),
        ("KL", _number(s["kl"]), "KL(q(z | x) ‖ p(z)): what z costs."),
        *_by_group(subject, s),
        ("Effective sample size", ess, "(Σ w)² / Σ w² of the importance weights: near 1, the NLL rests on one sample."),
        ("log Z", _estimate(s, "log_z"), f"The prior's log-normaliser: {method}."),
    ]
    return page.table(rows) + page.paragraph("In nats, but for the counts of units and samples.", "note")


def _by_group(subject: _Subject, scores: dict[str, float]) -> list[tuple[str, str, str]]:
    """The terms of the KL where there are several, and every group's active units."""
    terms = [_number(scores[name]) for k in range(len(scores)) if (name := f"kl_{k + 1}") in scores]
    sizes = enumerate(subject.run.recipe.model.groups, 1)
    active = [f"{scores[name]:.0f} of {size}" for k, size in sizes if (name := f"active_units_{k}") in scores]
    meaning = "Units of each group that carry something: q(z = 1 | x) varies over x, with a variance above 0.01."
    rows = [("KL by group", "\n".join(terms), "Its terms, in the order of the groups.")] if len(terms) > 1 else []
    return [*rows, ("Active units", "\n".join(active), meaning)] if active else rows


def _training(subject: _Subject) -> str:
    loss, valid, log_z = (subject.curve(name) for name in ("loss", "valid_nll", "valid_log_z"))
    if not loss.values:
        raise InputError("nothing has been logged yet")
    parts = pictures.curves("Distortion and KL", subject.curve("distortion"), subject.curve("kl"))
    names = '<span class="one">Distortion</span> and <span class="two">KL</span> of the latest training batch'
    figures = [
        page.figure(pictures.curves("Training loss", loss), "Loss on the latest batch, its KL weighted as scheduled"),
        page.figure(parts, "", names),
    ]
    if valid.values:
        best, step = min(zip(valid.values, valid.steps, strict=True))
        text = f"NLL of validation data ± standard error; the best is {_number(best)} at step {step:,.0f}"
        figures.insert(1, page.figure(pictures.curves("Validation NLL", valid), text))
    note = "Vertical axes in nats."
    if any(log_z.errors):
        figures.append(page.figure(pictures.curves("log Z", log_z), "log Z ± standard error at each validation"))
        note += " Loss and KL rest on a quick estimate of log Z at each point: they are no bounds."
    return page.columns(*figures) + page.paragraph(note, "note")


def _chains(subject: _Subject) -> str:
    """What the gradient of log Z rests on: whether its chains move, agree, and are at the right temperature."""
    texts = {
        "autocorrelation_time": "Autocorrelation time of the energy, in Gibbs sweeps",
        "r_hat": "R-hat of the energy: 1 where all chains see the same, above 1.1 where they stay apart",
        "effective_inverse_temperature": "Inverse temperature at which the samples look drawn; it should be 1",
    }
    series = {text: subject.curve(f"chains_{name}") for name, text in texts.items()}
    if not any(curve.values for curve in series.values()):
        return ""
    figures = [page.figure(pictures.curves(text, curve), text) for text, curve in series.items()]
    size = subject.curve("chains_effective_sample_size").values[-1]
    note = f"At each point up to 100 chains were watched for 100 sweeps; at the last they were worth {size:,.0f} draws."
    return page.columns(*figures) + page.paragraph(note, "note")


def _samples(subject: _Subject) -> str:
    trained = subject.trained
    if len(trained.shape) != 2:
        return _column_means(subject)
    drawn = pictures.samples(trained.model, _ROWS, _COLUMNS)
    images = [pictures.grid(part, trained.shape) for part in (drawn[:, :1], drawn[:, 1:])]
    names = ("Mean", "Draws")
    figures = [page.figure(page.picture(i, f"{n} of p(x | z)"), n) for i, n in zip(images, names, strict=True)]
    note = f"Each row: one z from the prior, the mean of p(x | z), and draws from it. Model of step {trained.step:,}."
    return page.panels(figures, [image.width for image in images]) + page.paragraph(note, "note")


def _column_means(subject: _Subject) -> str:
    modelled = pictures.samples(subject.trained.model, _TABLE_SAMPLES, 1)[:, 0].mean(0)
    axes = ("mean of training data", "mean of the model")
    dots = pictures.agreement("Column means", subject.run.data_for(subject.trained).mean, modelled, axes)
    text = f"A dot for each of {len(modelled)} columns; the model's mean is over {_TABLE_SAMPLES:,} z from the prior"
    return page.columns(page.figure(dots, text))


def _reconstructions(subject: _Subject) -> str:
    trained = subject.trained
    if len(trained.shape) != 2:
        raise InputError("rows of a table have no picture")
    x = subject.valid[:_COLUMNS]
    texts = ("Validation examples x", "Mean of p(x | z), for each x one z from q(z | x)")
    images = [pictures.grid(values[None], trained.shape) for values in (x, pictures.reconstructions(trained.model, x))]
    return "\n".join(page.figure(page.picture(i, text), text) for i, text in zip(images, texts, strict=True))


def _prior(subject: _Subject) -> str:
    prior = subject.trained.model.prior
    if isinstance(prior, BoltzmannPrior):
        return _machine(prior.machine)
    first = prior.first if isinstance(prior, DirectedPrior) else prior
    if not isinstance(first, BernoulliPrior):
        raise InputError(f"there is no picture of a {type(prior).__name__}")
    probabilities = torch.sigmoid(first.bias.detach()).cpu()
    which = "bits" if first is prior else "bits of the first group, on which the others depend"
    bars = pictures.histogram("p(z = 1)", probabilities, (0.0, 1.0))
    return page.columns(page.figure(bars, f"The {len(probabilities)} {which}"))


def _machine(machine: BoltzmannMachine) -> str:
    """Couplings as an image, without the blocks that are zero by construction, and histograms."""
    biases = page.figure(pictures.histogram("b", machine.bias.detach().cpu()), f"The {machine.bits:,} biases b")
    if len(machine.blocks) == 1:
        return page.columns(biases)
    matrix = machine.coupling_matrix().detach().cpu()[: -machine.blocks[-1], machine.blocks[0] :]
    weights = torch.from_numpy(-to_qubo(machine).quadratic)
    scale = float(np.quantile(weights.abs(), 0.99)) or 1.0
    image = page.picture(pictures.signed(matrix, scale), "Couplings")
    ends = page.key(f"≤ −{scale:.2f}", f"≥ {scale:.2f}", (pictures.NEGATIVE, pictures.POSITIVE))
    text = f"Couplings J between {matrix.shape[0]} bits (down) and {matrix.shape[1]} (across)"
    bars = page.figure(pictures.histogram("J", weights), f"The {len(weights):,} couplings J")
    return page.columns(page.figure(image, text, ends), bars + biases)


def _units(subject: _Subject) -> str:
    model, x = subject.trained.model, subject.valid
    if len(x) < 2:
        raise InputError("a single validation example has no variance")
    with measuring(model, 0):
        draws = [model(x, hard).posterior for _ in range(2)]
    mu = torch.stack([posterior.mu for posterior in draws], 1)
    variances = torch.split(unit_variances(mu).cpu(), list(draws[0].sizes))
    over = f"variance of E[z | x] over {len(x)} validation examples"
    named = {f"Group {k}: {over}": values for k, values in enumerate(variances, 1)}
    return page.columns(*(page.figure(pictures.ranked(text, values), text) for text, values in named.items()))


def _data(subject: _Subject) -> str:
    result = subject.scores
    return page.paragraph(result["data"]["protocol"] if result else subject.run.data.protocol)


def _commands(subject: _Subject) -> str:
    record, scores = subject.run.record, subject.scores or {}
    commands = "\n".join(dict.fromkeys([record.command, *scores.get("commands", [])]))
    made = [f"{name} {version}" for name, version in record.versions.items()]
    where = ", ".join([*made, f"device {record.device}", f"CPU threads: {record.threads}"])
    recipe = page.code(json.dumps(record.recipe, indent=2, ensure_ascii=False))
    return page.code(commands) + page.paragraph(where, "note") + page.details("The recipe as JSON", recipe)


_SECTIONS: dict[str, Callable[[_Subject], str]] = {
    "Numbers": _numbers,
    "Training": _training,
    "Chains": _chains,
    "Samples": _samples,
    "Reconstructions": _reconstructions,
    "Prior": _prior,
    "Latent units": _units,
    "Data": _data,
    "To repeat it": _commands,
}


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _estimate(scores: dict[str, float], name: str) -> str:
    """value ± standard error, or the value alone where it is exact."""
    error = scores[f"{name}_standard_error"]
    return f"{_number(scores[name])} ± {_number(error)}" if error else _number(scores[name])
