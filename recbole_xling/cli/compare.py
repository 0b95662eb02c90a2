"""``recbole-xling compare``."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_xling.errors import ConfigError

DESCRIPTION = "Compare finished runs on the same test rows, each with the first: means over seeds, paired tests."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run folders, the baseline first")
    parser.add_argument("--metrics", nargs="+", help="such as ndcg@10 (default: all)")
    parser.add_argument("--slices", nargs="*", help="columns such as target_language (default: all)")
    parser.add_argument("--format", default="text", help="text (default), markdown, latex or csv")


def run(options: argparse.Namespace) -> str:
    """Compare runs and return the tables.

    Raises:
        XlingError: a folder is not that of a finished run, or the runs cannot be compared.
    """
    from recbole_xling.evaluator.comparison_table import check_format, comparison_text
    from recbole_xling.quick_start.compare import compare

    check_format(options.format)
    named: dict[str, list[str]] = {}
    for word in options.runs:
        name, equals, folder = word.partition("=")
        if equals and not Path(word).exists():
            named.setdefault(name, []).append(folder)
    n_named = sum(map(len, named.values()))
    if n_named not in (0, len(options.runs)):
        raise ConfigError("give a name to every run, or to none")
    frame = compare(named or options.runs, metrics=options.metrics, slices=options.slices)
    return comparison_text(frame, options.format)
