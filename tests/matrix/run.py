"""Build an environment for each constraints file beside this script and run RecBole's models in it; print a table.

    python tests/matrix/run.py [--folder .matrix] [ENVIRONMENT ...]

An environment (``newest``, ``numpy126-pandas2``) is a virtual environment of the Python that runs this script, with
this repository installed into it under the constraints of ``<environment>.txt``. It is kept and used again. The exit
code is 1 if a model fails or an environment cannot be built.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = ("numpy", "pandas", "scipy", "torch", "setuptools")


def build(name: str, folder: Path) -> Path:
    """Create or update the environment ``name`` below ``folder`` and return its Python."""
    home = folder / name
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(home, with_pip=True)
    constraints = HERE / f"{name}.txt"
    arguments = ["install", "--quiet", "--upgrade", "--editable", str(ROOT), "--constraint", str(constraints)]
    subprocess.run([str(python), "-m", "pip", *arguments], check=True)
    return python


def versions(python: Path) -> list[str]:
    """Return the installed version of each of ``PACKAGES``, ``-`` for one that is not installed."""
    code = (
        "import importlib.metadata as m, sys\n"
        "installed = {d.name.lower(): d.version for d in m.distributions()}\n"
        "print(*[installed.get(name, '-') for name in sys.argv[1:]])"
    )
    command = [str(python), "-c", code, *PACKAGES]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()


def run_models(python: Path) -> dict[str, str]:
    """Run ``recbole_models.py`` and return the outcome of each model, ``ok`` or ``failed``."""
    process = subprocess.Popen([str(python), str(HERE / "recbole_models.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    outcomes: dict[str, str] = {}
    for line in process.stdout:
        print("   ", line, end="", flush=True)
        model, _, outcome, *_ = line.split()
        outcomes[model] = outcome
    if process.wait() and "failed" not in outcomes.values():
        outcomes["(start)"] = "failed"
    return outcomes


def print_table(rows: list[list[str]]) -> None:
    """Print rows of cells in aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def main() -> int:
    """Build, run and report each environment; return the exit code."""
    known = sorted(file.stem for file in HERE.glob("*.txt"))
    parser = argparse.ArgumentParser(description="Run RecBole's own models in several environments.")
    parser.add_argument("environments", nargs="*", metavar="ENVIRONMENT", help=f"default: {' '.join(known)}")
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix", help="where the environments are kept")
    arguments = parser.parse_args()
    if unknown := set(arguments.environments) - set(known):
        parser.error(f"unknown environment {', '.join(sorted(unknown))}; known: {', '.join(known)}")

    results: dict[str, tuple[list[str], dict[str, str]]] = {}
    for name in arguments.environments or known:
        print(name, flush=True)
        try:
            python = build(name, arguments.folder.resolve())
        except subprocess.CalledProcessError:
            results[name] = (["-"] * len(PACKAGES), {"(install)": "failed"})
            continue
        results[name] = (versions(python), run_models(python))

    models = list(dict.fromkeys(model for _, outcomes in results.values() for model in outcomes))
    table = [["environment", *PACKAGES, *models]]
    for name, (found, outcomes) in results.items():
        table.append([name, *found, *(outcomes.get(model, "-") for model in models)])
    print_table(table)
    return int(any("failed" in row for row in table))


if __name__ == "__main__":
    sys.exit(main())
