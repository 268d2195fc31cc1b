"""Put a run among those that ship with the package: python scripts/ship.py RUN NAME."""

import sys
from pathlib import Path

from dvaepp.runs.bundle import bundle
from dvaepp.runs.folder import RunFolder
from dvaepp.runs.located import PRETRAINED

if __name__ == "__main__":
    folder, name = sys.argv[1:]
    for file, content in bundle(RunFolder(folder), name).items():
        path = PRETRAINED / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        print(f"wrote {path}, {path.stat().st_size:,} bytes")
