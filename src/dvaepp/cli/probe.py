"""The command `probe`: what codes tell of labels."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from dvaepp.cli.run_folder import check_output, used
from dvaepp.runs import probe as probing
from dvaepp.runs.pictures import check_picture_name, enlargement, grid, save_grid, white
from dvaepp.runs.progress import console

_SHOWN = 10
"""Test examples in the picture."""


def probe(arguments: Namespace) -> None:
    """A table of accuracies, and a picture of test examples beside their nearest ones in train."""
    if arguments.output is not None:
        check_output(arguments.output)
    run, path = used(arguments), arguments.output and Path(arguments.output)
    if path is not None:
        check_picture_name(path)
        enlargement(_SHOWN, arguments.neighbours + 1, run.shape)
    k = arguments.neighbours
    rows = probing.probe(
        run, k, seed=arguments.seed, tell=lambda what: console.print(f"probing {what} ..", style="dim")
    )
    console.print(f"{'':16}{'columns':>9}{f'{k} nearest':>16}{'linear':>16}")
    for row in rows:
        told = (f"{share:.3f} ± {row.error(share):.3f}" for share in (row.neighbours, row.linear))
        console.print(f"{row.name:16}{row.columns:>9,}" + "".join(f"{each:>16}" for each in told))
    if path is not None:
        save_grid(path, grid(probing.retrieved(run, k, _SHOWN), run.shape, white(run.recipe)))
        console.print(f"wrote {path}")
