"""The Dockerfile of the server: what it copies is there, and what it installs is what serving declares."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "Dockerfile"

if not FILE.is_file():
    pytest.skip("not a checkout", allow_module_level=True)


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the file, each in one line."""
    lines = [line for line in FILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def declared(extra: str) -> list[str]:
    """Return the packages of an extra, or of the installation if there is no name."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    lines = setup["options.extras_require"][extra] if extra else setup["options"]["install_requires"]
    return [line.strip() for line in lines.splitlines() if line.strip() and not line.startswith("#")]


def test_what_is_copied_is_there_and_all_that_the_package_consists_of():
    copied = [source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]]
    assert copied and all((ROOT / source).exists() for source in copied)
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "properties", "datasets", "recbole_xling"} == set(
        copied
    )
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert {f"!{source}" for source in copied} <= set(ignored)


def test_what_is_installed_is_declared_for_serving_and_no_more():
    runs = [rest for word, rest in instructions() if word == "RUN"]
    installed = [name for rest in runs for name in re.findall(r'"([^"]+)"', rest)]
    serving, always = declared("serve"), declared("")
    assert {name for name in serving if "usearch" not in name} <= set(installed)
    assert set(installed) <= {*serving, *always}
    names = {re.split(r"[<>=]", name)[0] for name in installed}
    assert not names & {"torch", "recbole", "pandas", "transformers", "polars"}
    assert any("--no-deps ." in rest for rest in runs)


def test_the_server_runs_as_somebody_without_rights_and_is_looked_after():
    found = instructions()
    words = [word for word, _ in found]
    assert words[0] == "FROM" and words.index("USER") > max(place for place, word in enumerate(words) if word == "RUN")
    assert dict(found)["USER"] not in ("root", "0")
    assert "/health" in dict(found)["HEALTHCHECK"]
    command = json.loads(dict(found)["CMD"])
    assert command[:2] == ["recbole-xling", "serve"] and command[2] == dict(found)["VOLUME"]
    assert dict(found)["EXPOSE"] == command[command.index("--port") + 1]
