"""``recbole-xling tune``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = "Search for the settings with the best validation (Optuna); any --key=value is a setting of all trials."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings."""
    parser.add_argument("file", nargs="?", help="YAML file with settings, search, trials (docs/tuning.md)")
    parser.add_argument("--search", help="what is searched, as in the file: '{n_layers: [1, 2]}'")
    parser.add_argument("--trials", type=int, help="how many runs, those of earlier calls included (default: 20)")
    parser.add_argument(
        "--output", metavar="FOLDER", help="folder of the search (default: saved/<file>, or saved/tune)"
    )


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Search, and return the table of trials.

    Raises:
        XlingError: the search cannot be carried out.
    """
    from tabulate import tabulate

    from recbole_xling.quick_start.tune import BEST_FILE, trials_table, tune
    from recbole_xling.utils.yaml_text import parse_value

    changed = {"trials": options.trials, "search": options.search and parse_value(options.search)}
    output = Path(options.output or Path("saved") / Path(options.file or "tune").stem)
    study = tune(options.file, output, settings, **{key: value for key, value in changed.items() if value is not None})
    headers, lines = trials_table(study)
    table = tabulate(lines, headers=headers, disable_numparse=True)
    best = shlex.quote(str(output / BEST_FILE))
    return f"\n{table}\n\nBest settings: recbole-xling run --config_files={best}"
