"""The command `speed`: what a step of a recipe takes by each way of training it, and which is the fastest."""

from __future__ import annotations

from argparse import Namespace

from rich import box
from rich.table import Table as RichTable

from dvaepp.cli.run_folder import check_folder, named_recipe
from dvaepp.report.subject import duration
from dvaepp.runs.progress import console
from dvaepp.studies.speed import choices, speeds


def speed(arguments: Namespace) -> None:
    """Time a recipe's choices, and recommend one."""
    check_folder("--data-dir", arguments.data_dir)
    recipe, threads = named_recipe(arguments), sorted({*arguments.threads})
    chosen = choices(recipe, threads, arguments.device)
    console.print(f"{recipe.name}: {len(chosen)} ways to train it, timed without validations")
    table = RichTable(box=box.SIMPLE)
    for head in ("way", "ms a step", "before the first", f"{recipe.training.steps:,} steps"):
        table.add_column(head, justify="left" if head == "way" else "right")
    how = {"device": arguments.device, "data_dir": arguments.data_dir, "seconds": arguments.seconds}
    found = speeds(recipe, chosen, **how)
    for each in found:
        whole = duration(each.first + each.seconds * recipe.training.steps)
        table.add_row(each.choice.label, f"{1e3 * each.seconds:.2f}", duration(each.first), whole)
    console.print(table)
    best = min(found, key=lambda each: each.seconds)
    console.print(f"fastest: {best.choice.options}")
    if any("bfloat16" in setting for setting in best.choice.settings):
        console.print("bfloat16 rounds what networks compute to three digits, in evaluation too (docs/log.md)")
