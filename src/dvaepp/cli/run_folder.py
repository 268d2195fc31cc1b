"""The recipe or the run that a command is about, and where its files lie now."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from dvaepp.errors import InputError
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.located import check_own, located
from dvaepp.runs.records import check_not_a_runs
from dvaepp.runs.run import Run
from dvaepp.storage import check_target


def named_recipe(arguments: Namespace) -> Recipe:
    """The recipe that the arguments name, with what they change of it."""
    steps = getattr(arguments, "steps", None)
    if arguments.recipe.endswith(".json") and arguments.size:
        raise InputError(f"--size chooses among named recipes; {arguments.recipe} has its own settings")
    recipe = catalogue.find(arguments.recipe, arguments.size or "small")
    if arguments.data is not None:
        recipe = recipe.on(arguments.data)
    return override(recipe, [*([f"training.steps={steps}"] if steps else []), *arguments.set])


def opened(arguments: Namespace) -> RunFolder:
    """The run folder that the arguments name, its data and graph where they say that they lie now."""
    given = {name: getattr(arguments, name, None) for name in ("data_at", "data_dir", "graph")}
    check_folder("--data-dir", given["data_dir"])
    return RunFolder(located(arguments.run), **given)


def used(arguments: Namespace) -> Run:
    """The run that the arguments name, with its model."""
    folder = opened(arguments)
    return Run(folder, folder.model(arguments.last, arguments.device))


def page_of(run: RunFolder, output: str | None, name: str) -> Path:
    """Where a page about a run goes: to `output`, else into the run's folder; InputError where that is only read."""
    if output is not None:
        return Path(output)
    check_own(run.folder)
    return run.folder / name


def check_output(output: str, *inputs: str | None) -> None:
    """InputError before any work where a file cannot be written, is one of those that make a run, or is read."""
    path = Path(output)
    check_target(path)
    check_not_a_runs(path)
    check_own(path.absolute().parent)
    for each in inputs:
        if each and path.exists() and Path(each).exists() and path.samefile(each):
            raise InputError(f"{output} is what the command reads, which would be lost: name another file")


def check_folder(option: str, path: str | None) -> None:
    """InputError where an option is given and names no folder that is there."""
    if path is not None and not Path(path).is_dir():
        raise InputError(f"{option} {path} is not a folder")
