"""Pages in a headless Chromium: what a script in one returns, and what went wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
_BEGIN = """<script>
  window.faults = [];
  window.onerror = what => window.faults.push(String(what));
  window.addEventListener("unhandledrejection", event => window.faults.push(String(event.reason)));
  window.addEventListener("error", event => event.target.src && window.faults.push(event.target.src), true);
  console.error = (...what) => window.faults.push(what.join(" "));
</script>"""
_END = """<script>(async () => {
  let out;
  try { out = await (async () => { SCRIPT })(); } catch (error) { out = {error: String(error)}; }
  const told = document.createElement("pre");
  told.id = "out";
  told.textContent = JSON.stringify({out, faults: window.faults});
  document.body.replaceChildren(told);
})();</script>"""


def opened(address: str, *flags: str) -> str:
    """The page at an address as it is once its scripts have run."""
    assert CHROMIUM is not None
    always = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    command = [CHROMIUM, *always, *flags, address]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def computed(page: Path, script: str, *flags: str) -> Any:
    """What a script in the page returns; fails where the page or the script raise anything, or something is missing."""
    copy = page.with_name(f"checked-{page.name}")
    text = page.read_text().replace("<head>", f"<head>{_BEGIN}", 1)
    copy.write_text(text.replace("</body>", _END.replace("SCRIPT", script) + "</body>"))
    try:
        shown = opened(copy.as_uri(), *flags)
    finally:
        copy.unlink()
    found = re.search(r'<pre id="out">(.*?)</pre>', shown, re.DOTALL)
    assert found is not None, shown[-500:]
    told = json.loads(unescape(found[1]))
    assert told["faults"] == []
    assert not (isinstance(told["out"], dict) and "error" in told["out"]), told
    return told["out"]
