"""A headless browser that opens a page and tells what a reader would see."""

from __future__ import annotations

import fcntl
import html
import json
import os
import re
import shutil
import subprocess
import time
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


class Browser:
    """A page in a browser that is steered: it is clicked, written into and asked what it shows.

    The browser is spoken to through pipes, in Chrome's DevTools protocol.

    Args:
        folder: for the browser's own files.
        width: of the window.
        dark: whether the reader prefers dark pages.
    """

    def __init__(self, folder: Path, width: int, *, dark: bool) -> None:
        program = find_browser()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (*os.pipe(), *os.pipe())]
        read, self._to, self._from, write = ends

        def as_browser_expects() -> None:
            os.dup2(read, 3)
            os.dup2(write, 4)

        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-pipe",
            scheme,
        ]
        options += [f"--user-data-dir={folder / 'browser'}", f"--window-size={width},900", "--lang=en"]
        self._process = subprocess.Popen(
            [program, *options, "about:blank"],
            preexec_fn=as_browser_expects,
            pass_fds=(3, 4),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read)
        os.close(write)
        self._number, self._rest, self.problems = 0, b"", list[str]()
        targets = self._ask("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        self._session = self._ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self._ask("Emulation.setDeviceMetricsOverride", **size)

    _session = ""

    def open(self, address: str) -> None:
        """Go to a page, and wait until it is there."""
        self._ask("Page.navigate", url=address)
        self.wait_for("location.href !== 'about:blank' && document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """Return the value of an expression on the page; promises are waited for."""
        found = self._ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait_for(self, condition: str, seconds: float = 20) -> Any:
        """Wait until an expression is true on the page, and return its value."""
        until = time.monotonic() + seconds
        while not (value := self.run(condition)):
            assert time.monotonic() < until, f"never true: {condition}\n{self.run('document.body?.innerText')}"
            time.sleep(0.05)
        return value

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def _ask(self, method: str, **options: Any) -> Any:
        self._number += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._number, "method": method, "params": options, **session}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (told := self._next()).get("id") != self._number:
            self._note(told)
        assert "error" not in told, told
        return told["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            block = os.read(self._from, 1 << 16)
            assert block, "the browser has ended"
            self._rest += block
        message, _, self._rest = self._rest.partition(b"\0")
        told: dict[str, Any] = json.loads(message)
        return told

    def _note(self, told: dict[str, Any]) -> None:
        """Remember what the console tells of errors and of what the page's policy refuses."""
        given = told.get("params", {})
        if told.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(given["exceptionDetails"]))
        elif told.get("method") == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.problems.append(given["entry"]["text"])
        elif told.get("method") == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.problems.append(str(given["args"]))
