"""The page to play with in a headless Chromium: its size, when it is ready, and how many sweeps with pictures a second.

OMP_NUM_THREADS=1 python benchmarks/explorer.py [RUN]
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import dvaepp
from dvaepp.report.explorer import write_explorer

_MEASURE = """<script>
  const ready = performance.now(), z = new Uint8Array(explorer.bits), free = new Uint8Array(explorer.bits);
  const canvas = document.createElement("canvas"), [height, width] = explorer.held.shape;
  Object.assign(canvas, {height, width});
  const context = canvas.getContext("2d"), start = performance.now(), SWEEPS = 300;
  for (let k = 0; k < SWEEPS; k++) {
    explorer.sweep(z, 1, free);
    const mean = explorer.decode(z), shown = context.createImageData(width, height);
    for (let i = 0; i < mean.length; i++) shown.data.fill(255 * mean[i], 4 * i, 4 * i + 3);
    context.putImageData(shown, 0, 0);
    explorer.energy(z);
  }
  const rate = 1000 * SWEEPS / (performance.now() - start);
  document.body.dataset.told =
    `${ready.toFixed(0)} ms until it can be used, ${rate.toFixed(0)} sweeps with pictures a second`;
</script></body>"""


def main(run: str) -> None:
    """Make the page of a run, open it three times, and say what was found."""
    chromium = shutil.which("chromium") or sys.exit("no Chromium on this machine")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "explore.html")
        write_explorer(dvaepp.load_run(run), page)
        print(f"{page.stat().st_size / 2**20:.2f} MiB")
        page.write_text(page.read_text().replace("</body>", _MEASURE))
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        for _ in range(3):
            shown = subprocess.run([chromium, *flags, page.as_uri()], capture_output=True, text=True, check=True).stdout
            print(*re.findall(r'data-told="(.*?)"', shown))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "digits-rbm")
