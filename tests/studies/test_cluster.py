"""The job array script of the guide, as a scheduler starts it."""

import os
import re
import subprocess
import sys
from pathlib import Path

GUIDE = Path(__file__).parent.parent.parent / "docs/guides/cluster.md"


def test_the_job_array_of_the_guide_runs(tmp_path: Path) -> None:
    (script,) = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.S)
    (tmp_path / "study.sh").write_text(script)
    for name, content in (("srun", 'exec "$@"'), ("dvaepp", f'exec {sys.executable} -m dvaepp "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{content}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_CPUS_PER_TASK": "1", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    command = ["bash", "study.sh", "quick/rbm", "--size", "tiny", "--steps", "4", "--seeds", "2", "--out", "s"]
    printed = []
    for task in ("1", "2"):
        environment = {**os.environ, **slurm, "SLURM_ARRAY_TASK_ID": task}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert ["1 run in s" in text for text in printed] == [True, True]
    assert ["| 2 | " in text for text in printed] == [False, True]
    assert len(list((tmp_path / "s/results").rglob("seed*.json"))) == 2
