"""What `doctor` says of a machine."""

import pytest

from dvaepp.cli import main
from dvaepp.data import names
from dvaepp.runs import doctor
from dvaepp.runs.doctor import Measured, _wanted, advice


def test_it_says_what_is_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_SECONDS", 0.01)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for word in (
        "Versions",
        "torch ",
        "numpy ",
        "Machine",
        "cores",
        "GPUs",
        "Data sets",
        *names(),
        "Speed",
        "by one thread",
    ):
        assert word in said
    assert "pytest" not in said, "only what users have a use for"


def test_what_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["torch>=2", 'no-such-package>=1; extra == "onnx"'])
    found = doctor.versions()
    assert found["no-such-package"] == "not installed (pip install 'dvaepp[onnx]')"
    assert found["torch"][0].isdigit()


def test_requirements_are_read_by_extra() -> None:
    given = ["torch>=2.6", "pandas>=2; extra == 'tables'", 'pytest; extra == "dev"', "dvaepp[mat]; extra == 'all'"]
    assert _wanted(given) == {"torch": "", "pandas": "tables"}


def test_what_pays_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 8)
    slow, fast = Measured("work", 1.0, 2.0, 1.1), Measured("work", 1.0, 0.3, 0.4)
    assert advice([slow, slow])[0].startswith("dense models: one thread (8 take 2.00")
    assert advice([slow, slow])[2].startswith("bfloat16 does not pay")
    assert advice([fast, fast])[1].startswith("convolutional models: --threads 8 (8 take 0.30")
    assert advice([fast, fast])[2].startswith("model.convolutional.precision=bfloat16 pays here (0.40")


def test_measuring_leaves_the_threads_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(doctor, "_SECONDS", 0.01)
    before = torch.get_num_threads()
    found = doctor.measured()
    assert torch.get_num_threads() == before
    assert all(min(each.one, each.every, each.half) > 0 for each in found)
