"""The page that shows results/peers.json, and nothing else: every number in its tables is read there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

OURS = "dvaepp"
Library = dict[str, Any]

HEAD = """# How it compares

Made by `python benchmarks/compare.py --page results/peers.json -o docs/how-it-compares.md` from results/peers.json
alone, which `python benchmarks/compare.py -o results/peers.json` measured: {libraries}, each in an environment of its
own, on one machine on {date} ({cpu}, {cores} cores, one thread in use, Python {python}, torch {torch}). Peers are
taken as pip gives them, with torch held to the version of constraints.txt, and are not repaired: what fails is shown
with the last line that it said. Every measured row names the command that repeats it; benchmarks/peers holds one small
script for each library. {note}
"""

FIRST = """
## Installing, and a first run

MB are those of the whole environment, torch included where the library asks for it. The first run is the smallest
program of the library's README, taken as far as built-in digits: import, a pass of training, samples. Seconds are from
a cold start. Programs differ, so they tell whether one has to wait, not which is faster.
"""

FEATURES = """
## What each has

From the public API of these versions, with the class or function that shows it. Each name is looked up in the installed
source by `python benchmarks/compare.py --stages first -o FILE`. Read by us, so tell us what we missed.
"""

GIBBS = """
## Speed: block Gibbs sampling

40 sweeps of 1000 chains of a Boltzmann machine of 200 + 200 bits. All take turns, the others wait: medians of the
rounds, with the least and the most, after one call that may compile. Ranges that overlap are no difference.
"""

EPOCH = """
## Speed: an epoch of an RBM

One pass over 4,000 digits of 784 bits with 64 hidden bits: batches of 100, 100 persistent chains, one sweep an update,
plain gradient ascent. dvaepp has no trainer of RBMs: its row is a loop over a machine's public functions. thrml's is
one over its estimate of the gradient.
"""

LIKELIHOOD = """
## Likelihood

The same training with 16 hidden bits, so few that log Z is exact, for the same seconds of each library's own time, or
one epoch where that takes longer, at the best of three rates by 500 validation digits. Visible biases start at
the pixels' log odds, as those of rbms do. One more epoch is given to all before seconds count, since some compile in
it. NLL of 500 test digits in nats, lower is better; log Z is `dvaepp.estimate_log_partition` for all, on their weights,
and ± is the standard error over images and of log Z together. The rates that were tried are in the JSON. Differences
tell how many updates fit into the seconds, and how each takes a step (rbms divides the gradient by its norm), not which
model is better: the model is the same.
"""

NO_LIKELIHOOD = {
    "pythae": "no likelihood with binary latents: its latents are continuous, and `VAE.get_nll` is of those",
    "kaiwu-torch-plugin": "no likelihood: its VAE reports a loss without log Z",
}
VAE_OF_PLUGIN = (
    "The VAE of dwave-pytorch-plugin has no likelihood either: its pseudo-KL leaves out log Z, which it does not know. "
    "The row above is of its Boltzmann machine, trained as an RBM."
)


def command(name: str, *stages: str) -> str:
    return f"`python benchmarks/compare.py --peers {name} --stages {' '.join(stages)} -o FILE`"


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(headings), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n" + "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def first_row(name: str, library: Library) -> list[str]:
    install, first = library["install"], library.get("first")
    row = [name, install["version"], install["licence"]]
    if not install["installs"]:
        alone = install["without_our_torch"]
        said = f"**fails to install**: `{install['message']}`"
        if alone["message"]:
            said += f"; its newest release with no torch of ours: `{alone['message']}`"
        return [*row, "", "", said, "", command(name, "first")]
    said = "works"
    if first and not first["works"]:
        said = f"**fails at first run**: `{first['message']}`"
        if first.get("measured_with"):
            said += f"; measured below with {', '.join(first['measured_with'])} installed beside it"
    size = [str(len(install["packages"])), str(install["megabytes"])]
    return [*row, *size, said, f"{first['seconds']:.1f}" if first else "", command(name, "first")]


def cell(feature: dict[str, Any]) -> str:
    names = ", ".join(f"`{name}`" for name in feature["shown_by"])
    has = {True: "yes", False: "no"}.get(feature["has"], feature["has"])
    return f"{has}: {names}" if names else str(has)


def speed_rows(libraries: dict[str, Library], work: str) -> list[list[str]]:
    ours, rows = libraries[OURS][work][work]["ms"], []
    for name, library in libraries.items():
        times = library.get(work, {})
        if "fails" in times:
            rows.append([name, f"**fails**: `{times['fails']}`", "", "", command(name, work)])
        for each, taken in times.items():
            if each != "fails":
                shown = f"{name} ({each.partition(', ')[2]})" if ", " in each else name
                ranges = f"{taken['least']:,.1f} to {taken['most']:,.1f} ({taken['rounds']})"
                rows.append([shown, f"{taken['ms']:,.1f}", ranges, f"{taken['ms'] / ours:.2f}", command(name, work)])
    return rows


def likelihood_rows(libraries: dict[str, Library]) -> list[list[str]]:
    rows = []
    for name, library in libraries.items():
        scores, how = library.get("likelihood"), command(name, "likelihood")
        if scores and "fails" in scores:
            rows.append([name, f"**fails**: `{scores['fails']}`", *[""] * 4, how])
        elif scores:
            nll = f"{scores['nll']:.2f} ± {scores['standard_error']:.2f}"
            trust = "" if scores["trusted"] else ", not trusted"
            log_z = f"{scores['log_z']:.2f} ± {scores['log_z_error']:.2f}{trust}"
            rate, seconds = f"{scores['rate']:g}", f"{scores['seconds']:.1f}"
            rows.append([name, nll, log_z, rate, f"{scores['epochs']:,}", seconds, how])
        else:
            rows.append([name, NO_LIKELIHOOD.get(name, "no likelihood"), *[""] * 5])
    return rows


def ahead(libraries: dict[str, Library]) -> str:
    """Where a peer's number is better than ours."""
    lines, ours = [], libraries[OURS]
    for name, library in libraries.items():
        for work, what in (("gibbs", "block Gibbs sampling"), ("epoch", "an epoch of an RBM")):
            taken = [each["ms"] for key, each in library.get(work, {}).items() if key != "fails"]
            if name != OURS and taken and min(taken) < ours[work][work]["ms"]:
                lines.append(f"- {name} is faster at {what}: {min(taken):,.1f} ms, ours {ours[work][work]['ms']:,.1f}.")
        nll = library.get("likelihood", {}).get("nll")
        if name != OURS and nll is not None and nll < ours["likelihood"]["nll"]:
            lines.append(
                f"- {name} reaches a lower NLL in these seconds: {nll:.2f}, ours {ours['likelihood']['nll']:.2f}."
            )
        size = library["install"].get("megabytes")
        if name != OURS and size is not None and size < ours["install"]["megabytes"]:
            lines.append(f"- {name} is smaller to install: {size} MB, ours {ours['install']['megabytes']}.")
    return "\n## Where a peer is ahead\n\n" + ("\n".join(lines) or "Nowhere, in these numbers.") + "\n"


def page(results: dict[str, Any]) -> str:
    """The page, Markdown."""
    libraries = results["libraries"]
    names = ", ".join(f"{name} {library['install']['version']}" for name, library in libraries.items())
    headings = ["library", "version", "licence", "packages", "MB", "first run", "s", "repeat"]
    firsts = [first_row(name, library) for name, library in libraries.items()]
    features = [
        [feature, *(cell(library["features"][feature]) for library in libraries.values())]
        for feature in libraries[OURS]["features"]
    ]
    speed = ["library", "ms", "least to most (rounds)", "times ours", "repeat"]
    scored = ["library", "test NLL, nats", "log Z", "rate", "epochs", "seconds", "repeat"]
    return "".join(
        [
            HEAD.format(libraries=names, **results["machine"]),
            FIRST + table(headings, firsts),
            FEATURES + table(["", *libraries], features),
            GIBBS + table(speed, speed_rows(libraries, "gibbs")),
            EPOCH + table(speed, speed_rows(libraries, "epoch")),
            LIKELIHOOD + table(scored, likelihood_rows(libraries)),
            f"\n{VAE_OF_PLUGIN}\n" if "dwave-pytorch-plugin" in libraries else "",
            ahead(libraries),
        ]
    )
