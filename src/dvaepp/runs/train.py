"""A training from a program, in one call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from dvaepp.data import Dataset, from_arrays
from dvaepp.data.reading import Missing
from dvaepp.errors import InputError
from dvaepp.numerics import plain
from dvaepp.recipes import catalogue
from dvaepp.recipes.recipe import Recipe, override
from dvaepp.recipes.settings import SIZES, Size
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.progress import progress, show_metrics
from dvaepp.runs.run import Run
from dvaepp.storage import AnyPath, locked
from dvaepp.training import replicas
from dvaepp.training.journal import Metrics


def train(
    recipe: str | Path | Recipe = "quick/rbm",
    data: Any = None,
    *,
    size: Size | None = None,
    steps: int | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    out: AnyPath | None = None,
    device: str = "cpu",
    threads: int = 1,
    data_dir: AnyPath | None = None,
    progress: bool = True,
) -> Run:
    """Train a recipe into a new run folder, as `dvaepp train` does, and give the run with its best model.

    `recipe` is a name (`dvaepp list`), of the `size` tiny, small (the default), medium or paper, a recipe.json, or a
    `Recipe`; `steps` and `settings`, such as {"model.smoothing": "power", "training.batch": 50}, change it. `data` are
    those of the recipe unless given: a data set's name, a path, a `Dataset`, or whatever `data.from_arrays` takes, read
    as what the recipe's likelihood is for (bits, unless `settings` say {"model.likelihood": "normal"} or another); data
    in memory are kept in the folder. `out` must be new or empty; without it the folder is runs/RECIPE-SIZE-seedN, with
    a number where that is taken. The command's tools work on the folder, and `dvaepp resume` goes on with it.

    Raises InputError before anything is written where data, recipe and settings do not go together.
    """
    recipe = str(recipe) if isinstance(recipe, Path) else recipe
    chosen = _recipe(recipe, size, steps, settings or {})
    held = None
    if isinstance(data, str | Path):
        chosen = chosen.on(str(data))
    elif data is not None:
        _check_of_files(chosen)
        held = chosen.check_data(data if isinstance(data, Dataset) else _read(data, chosen))
    folder = Path(out) if out is not None else _free(chosen, size, seed)
    run = RunFolder.plan(
        chosen,
        folder,
        seed=seed,
        device=device,
        threads=threads,
        data_dir=None if data_dir is None else str(data_dir),
        command="dvaepp.train(...)",
        held=held,
    )
    _fit(run, progress)
    made = RunFolder(folder)
    return Run(made, made.model(last=not (folder / "best.safetensors").exists()))


def _recipe(recipe: str | Recipe, size: Any, steps: int | None, settings: Any) -> Recipe:
    if size not in (None, *SIZES):
        raise InputError(f"size is {size!r}, expected one of {', '.join(SIZES)}")
    if not isinstance(settings, Mapping):
        raise InputError(f"settings must map names to values, such as {{'training.batch': 50}}, not {settings!r}")
    if size is not None and (isinstance(recipe, Recipe) or recipe.endswith(".json")):
        raise InputError("size chooses among named recipes, and this one has its own settings")
    found = recipe if isinstance(recipe, Recipe) else catalogue.find(recipe, size or "small")
    changes = {**({} if steps is None else {"training.steps": steps}), **settings}
    return override(
        found, [f"{name}={json.dumps(value, default=plain)}" for name, value in changes.items()], "settings"
    )


def _read(data: Any, recipe: Recipe) -> Dataset:
    """What a program holds, read as what the recipe's likelihood is for."""
    reading = recipe.reading
    if reading.plain == "mixed":
        return from_arrays(data, kind="mixed", kinds=reading.kinds, missing=cast(Missing, reading.missing))
    if reading.plain:
        return from_arrays(data, kind=reading.plain)
    return from_arrays(data, binarise=recipe.data.binarise, threshold=reading.threshold)


def _check_of_files(recipe: Recipe) -> None:
    """InputError where settings say how a file is read, and the data are no file."""
    mixed = {"kinds", "missing"} if recipe.reading.kind == "mixed" else set()
    given = recipe.data.model_dump(exclude_defaults=True).keys() - {"name", "binarise", "threshold"} - mixed
    if given:
        named = ", ".join(f"data.{name}" for name in sorted(given))
        raise InputError(f"settings name {named}, which say how files are read, and the data are in memory")


def _free(recipe: Recipe, size: Size | None, seed: int) -> Path:
    """The first folder of the usual name that is not taken."""
    first = Path("runs") / f"{recipe.name.replace('/', '_')}-{size or 'small'}-seed{seed}"
    others = (first.with_name(f"{first.name}-{number}") for number in range(2, 10_000))
    return next(path for path in (first, *others) if not path.exists() or (path.is_dir() and not any(path.iterdir())))


def _fit(run: RunFolder, shows: bool) -> None:
    trainer = run.trainer()  # bad data and settings end here, before anything is written
    run.folder.mkdir(parents=True, exist_ok=True)
    with locked(run.folder):
        run.write()
        with progress(trainer.settings.steps, shown=shows) as advance:

            def report(metrics: Metrics) -> None:
                if shows:
                    show_metrics(trainer, metrics, advance)

            replicas.fit(trainer, report)
