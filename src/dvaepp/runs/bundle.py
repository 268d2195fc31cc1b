"""What of a run is handed on: its record, its best model, what was measured of it, a card, and samples."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

from dvaepp.runs import hub, pictures
from dvaepp.runs.card import card
from dvaepp.runs.folder import RunFolder, TrainedModel
from dvaepp.runs.records import RECORD

_SAMPLES = "samples.png"
_SIDE = 8


def bundle(run: RunFolder, name: str) -> dict[str, bytes | Path]:
    """The files of a run by name, for the place that `name` loads it from: contents, or where they lie.

    run.json is without the places of this machine: what it says of folders and of other runs is left out. scores.json
    is there where it is of this model. InputError where there is no validated model.
    """
    trained = run.model()
    found = run.scores()
    scores = found if found is not None and found["steps"] == trained.step else None
    record = run.record.model_copy(update={"folder": None, "data_dir": None, "start": None})
    drawn = _samples(run, trained)
    files: dict[str, bytes | Path] = {
        RECORD: _text(json.dumps(record.model_dump(mode="json"), indent=2)),
        "best.safetensors": run.folder / "best.safetensors",
    }
    if (run.folder / "metrics.jsonl").exists():
        files["metrics.jsonl"] = run.folder / "metrics.jsonl"
    if scores is not None:
        files["scores.json"] = run.folder / "scores.json"
    if drawn is not None:
        files[_SAMPLES] = drawn
    return files | {"README.md": _text(card(run, trained, scores, name, [_SAMPLES] if drawn else []))}


def pushed(run: RunFolder, name: str, private: bool = False) -> str:
    """Put a run's bundle on the Hub as "user/name"; its web address. InputError as `bundle` and `hub.push`."""
    address = f"{hub.SCHEME}{name.removeprefix(hub.SCHEME)}"
    hub.check_login(address)
    return hub.push(bundle(run, address), address, private)


def _samples(run: RunFolder, trained: TrainedModel) -> bytes | None:
    """A picture of samples, as `dvaepp sample` draws them; None of what has no picture."""
    if len(trained.shape) not in (2, 3):
        return None
    if run.recipe.model.convolutional is not None:
        shown = pictures.local_samples(trained.model, _SIDE, _SIDE)[0]
    else:
        shown = pictures.samples(trained.model, _SIDE, _SIDE)
    written = BytesIO()
    pictures.grid(shown, trained.shape, pictures.white(run.recipe)).save(written, "PNG")
    return written.getvalue()


def _text(text: str) -> bytes:
    return (text.rstrip("\n") + "\n").encode()
