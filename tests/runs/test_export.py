"""Networks as ONNX: onnxruntime makes of them what torch does."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import dvaepp
from dvaepp import InputError
from dvaepp.cli import main
from dvaepp.runs.export import export

RANDOM = np.random.RandomState(2)
BITS = (RANDOM.random_sample((60, 8, 8)) < 0.4).astype(np.uint8)
REAL = RANDOM.normal(size=(60, 3)) * [1, 20, 0.1]
TINY: dict[str, Any] = {"model.groups": [5, 4], "model.hidden": [8], "training.steps": 20}


def train(given: Any, folder: Path, recipe: str = "quick/rbm", **settings: Any) -> dvaepp.Run:
    return dvaepp.train(recipe, data=given, settings=settings, out=folder, size="tiny", progress=False)


def exported(run: dvaepp.Run, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, where no shapes are checked, which would hold a batch's size fast."""
    command = [sys.executable, "-m", "dvaepp", "export", str(run.folder), *options, "-o", str(out)]
    return subprocess.run(command, capture_output=True, text=True)


def made_of(path: Path, given: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path))
    (wanted,) = session.get_inputs()
    return session.run(None, {wanted.name: given.astype(np.float32)})[0]


def test_the_files_compute_what_the_run_does(tmp_path: Path) -> None:
    given = REAL
    run = train(given, tmp_path / "run", **TINY, **{"model.likelihood": "normal"})
    for part, options in (("encoder", []), ("decoder", ["--decoder"])):
        done = exported(run, tmp_path / f"{part}.onnx", *options)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
    for n in (1, 7):
        x = given[:n].reshape(n, -1)
        logits = made_of(tmp_path / "encoder.onnx", x)
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), run.encode(given[:n]), atol=1e-4)
        z = run.encode(given[:n], hard=True)
        np.testing.assert_allclose(
            made_of(tmp_path / "decoder.onnx", z), run.decode(z).reshape(n, -1), rtol=1e-3, atol=1e-4
        )


def test_of_a_convolutional_run_the_encoder_is_a_function(tmp_path: Path) -> None:
    sizes = {f"model.convolutional.{name}": size for name, size in (("stem", 1), ("local", 4), ("top", 4))}
    run = train(BITS, tmp_path / "run", "table-3/mnist-static/rbm-normal", **{"training.steps": 2, **sizes})
    assert exported(run, tmp_path / "encoder.onnx").returncode == 0
    logits = made_of(tmp_path / "encoder.onnx", BITS[:3].reshape(3, -1))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), run.encode(BITS[:3]), atol=1e-3)
    with pytest.raises(InputError, match="draws local variables, and is no function of codes"):
        export(run, tmp_path / "decoder.onnx", "decoder")
    assert not (tmp_path / "decoder.onnx").exists()


def test_other_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(BITS, tmp_path / "run", **TINY)
    assert main(["export", str(run.folder), "-o", str(tmp_path / "x.pt")]) == 2
    assert "x.pt must end in .onnx" in capsys.readouterr().err
