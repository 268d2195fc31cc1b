"""The card of a run: README.md with what it is, how good, and how to use it, as the Hub shows it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvaepp.data import describe, names
from dvaepp.errors import InputError
from dvaepp.evaluation.scores import plus_minus
from dvaepp.runs.folder import RunFolder, TrainedModel
from dvaepp.runs.hub import SCHEME

_METADATA = """---
license: apache-2.0
library_name: dvaepp
tags:
- dvaepp
- discrete-latent-variables
- variational-autoencoder
- boltzmann-machine
---
"""


def card(
    run: RunFolder, trained: TrainedModel, scores: dict[str, Any] | None, name: str, pictures: Sequence[str]
) -> str:
    """Markdown about a run that `name` loads, with the pictures beside it; `scores` are those of this very model."""
    recipe = run.recipe
    data = Path(recipe.data.name).name
    sections = {
        "Likelihood": _likelihood(run, trained, scores),
        "Samples": "\n\n".join(f"![Samples of the prior, a row for each z]({picture})" for picture in pictures),
        "Use": _use(name),
        "Repeat": _repeat(run, scores),
        "Licences": _licences(recipe.data.name),
    }
    told = [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    title = f"# {name.removeprefix(SCHEME)}: {recipe.name} on {data}"
    return "\n\n".join([f"{_METADATA}\n{title}", recipe.about, _facts(run, trained, scores), *told]) + "\n"


def _facts(run: RunFolder, trained: TrainedModel, scores: dict[str, Any] | None) -> str:
    model, training = run.recipe.model, run.recipe.training
    variables = "normal variables" if model.prior.normal else "bits"
    local = model.convolutional
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    rows = {
        "Data": f"{Path(run.recipe.data.name).name}: {_protocol(run, scores)}",
        "One example": f"{' x '.join(map(str, trained.shape))}, {model.likelihood.name} likelihood",
        "Global variables": f"{' + '.join(map(str, model.groups))} {variables}, {model.prior.name} prior",
        **({"Local variables": f"{local.local_variables.name}, groups: {local.places}"} if local else {}),
        "Objective": f"{run.recipe.objective.name}, {model.smoothing.name} smoothing",
        "Training": f"step {trained.step:,} of {training.steps:,}, batches of {training.batch}, seed {run.seed}",
        "Parameters": f"{parameters:,}",
    }
    return _table(("", ""), rows.items())


def _protocol(run: RunFolder, scores: dict[str, Any] | None) -> str:
    """How the data were split and made bits, where that is known."""
    if scores is not None:
        return str(scores["data"]["protocol"])
    try:
        return run.data.protocol
    except InputError:
        return "data of the owner's own"


def _likelihood(run: RunFolder, trained: TrainedModel, scores: dict[str, Any] | None) -> str:
    if scores is None:
        found = [line for line in run.metrics() if line["step"] == trained.step and "valid_nll" in line]
        error = f" ± {found[0].get('valid_nll_standard_error', float('nan')):.2f}" if found else ""
        known = f" The NLL of validation data was {found[0]['valid_nll']:.2f}{error} nats." if found else ""
        return f"Not measured on test data.{known}"
    s, log_z = scores["scores"], scores["log_partition"]
    trust = "" if log_z["trusted"] else "; by its own diagnosis **not to be trusted**"
    made = f"{s['examples']:,.0f} examples, {s['samples']:,.0f} importance samples each, z binary"
    low, high, error = s["nll_at_low_log_z"], s["nll_at_high_log_z"], s["log_z_standard_error"]
    spread = f" ± {error:.3f}" if error else ""
    rows = {
        "NLL": f"{s['nll']:.2f}{plus_minus(s['nll_standard_error'], s['examples'])} nats",
        **({"NLL for log Z two standard errors lower, higher": f"{low:.2f}, {high:.2f}"} if error else {}),
        "ELBO": f"{s['elbo']:.2f}",
        "log Z of the prior": f"{s['log_z']:.3f}{spread}: {log_z['method']}{trust}",
    }
    return f"{_table(('Test data', made), rows.items())}\n\n± is one standard error over the examples."


def _use(name: str) -> str:
    package = "'dvaepp[hub]'" if name.startswith(SCHEME) else "dvaepp"
    return f"""```python
import dvaepp  # pip install {package}

run = dvaepp.load_run("{name}")
samples = run.sample(8)  # x ~ p(x | z) p(z)
codes = run.encode(samples)  # of z given x
print(samples.shape, codes.shape)
```

    dvaepp sample {name} -o samples.png"""


def _repeat(run: RunFolder, scores: dict[str, Any] | None) -> str:
    commands = run.record.repeating((scores or {}).get("commands", []))
    made = ", ".join(f"{name} {version}" for name, version in run.record.versions.items())
    lines = "\n".join(f"    {line}" for line in commands)
    return f"{lines}\n\nMade with {made} on {run.record.device}, CPU threads: {run.record.threads}."


def _licences(data: str) -> str:
    known = describe(data) if data in names() else "of the owner's own, under the licence that they state"
    return f"Code and weights: Apache-2.0. Data, `{Path(data).name}`: {known}."


def _table(head: tuple[str, str], rows: Any) -> str:
    lines = [head, ("---", "---"), *rows]
    return "\n".join(f"| {' | '.join(each.replace('|', chr(92) + '|') for each in line)} |" for line in lines)
