"""A headless browser that opens a page and tells what a reader would see."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_BEFORE = """<script>
window.problems = [];
for (const kind of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(kind, event => problems.push(kind + ": " + (event.message || event.reason || event.blockedURI)));
for (const kind of ["error", "warn"])
  console[kind] = (...words) => problems.push("console." + kind + ": " + words.join(" "));
</script>"""
_AFTER = """<script>
addEventListener("load", () => setTimeout(() => {
  document.querySelectorAll("details").forEach(part => part.open = true);
  const light = color => {
    const parts = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
    const linear = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const page = light(getComputedStyle(document.body).backgroundColor);
  const contrast = color => (Math.max(page, light(color)) + 0.05) / (Math.min(page, light(color)) + 0.05);
  const ticks = [...document.querySelectorAll(".xtick text, .ytick text, .xtitle, .ytitle, .legendtext")];
  const plots = [...document.querySelectorAll(".js-plotly-plot")].map(plot => {
    const frame = plot.getBoundingClientRect();
    const marks = ".points path, .lines path, .boxes path, .bars path, .box, .heatmaplayer image, .js-line";
    const cut = [...plot.querySelectorAll("text")].filter(text => {
      const box = text.getBoundingClientRect();
      return box.width && (box.left < frame.left - 2 || box.right > frame.right + 2);
    }).map(text => text.textContent);
    const overlaps = [".annotation-text", ".ytick text", ".xtick text"].flatMap(kind => {
      const words = [...plot.querySelectorAll(kind)].map(text => [text.textContent, text.getBoundingClientRect()]);
      return words.flatMap(([text, a], place) => words.slice(place + 1).filter(([_, b]) =>
        Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
        Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3).map(([other]) => text + " and " + other));
    });
    const {left, right, height} = frame;
    return {marks: plot.querySelectorAll(marks).length, left, right, height, cut, overlaps};
  });
  const found = {
    problems, plots, width: document.documentElement.clientWidth, page,
    scrolled: document.documentElement.scrollWidth, figures: document.querySelectorAll("figure").length,
    contrast: contrast(getComputedStyle(document.body).color), faintest: Math.min(...ticks.map(
      text => contrast(getComputedStyle(text).fill))),
  };
  document.body.innerHTML = "";
  const told = document.body.appendChild(document.createElement("pre"));
  told.id = "told";
  told.textContent = JSON.stringify(found);
}, 1000));
</script>"""


def find_browser() -> str:
    """Return a browser's program; without one the test is skipped."""
    found = next((path for path in map(shutil.which, _NAMES) if path), None)
    if found is None:
        pytest.skip("no headless browser: apt-get install chromium-headless-shell")
    return found


def look_at(page: Path, folder: Path, width: int, *, dark: bool) -> dict[str, Any]:
    """Open a page in a window of some width; return what is seen, and all that its console says.

    Returns:
        ``problems``, also those of the console; ``plots``, each with its number of ``marks``, its edges and the texts
        that are ``cut`` or have ``overlaps`` with others of their kind; ``figures``; ``width``, and how wide it can
        be ``scrolled``; luminance of the ``page``; ``contrast`` of its text and of the ``faintest`` label of a plot.
    """
    probed = folder / f"{page.stem}-{width}-{dark}.html"
    text = page.read_text(encoding="utf-8")
    probed.write_text(text.replace("<head>", f"<head>{_BEFORE}", 1).replace("</body>", f"{_AFTER}</body>"))
    command = [
        find_browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--window-size={width},900",
    ]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=20000"]
    command += [f"--user-data-dir={folder / 'browser'}", "--enable-logging=stderr", "--dump-dom", probed.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120)
    told = re.search(r'<pre id="told">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert told, f"the page did not come to its end:\n{shown.stderr[-2000:]}"
    found: dict[str, Any] = json.loads(html.unescape(told[1]))
    found["problems"] += [line for line in shown.stderr.splitlines() if ":CONSOLE" in line]
    return found
