"""``recbole-xling probe``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

DESCRIPTION = "Tell how well a linear classifier knows an item's language from its vector, with the run's settings."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings that replace the run's."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--dataset", "-d", help="name of the dataset (default: the run's own)")
    parser.add_argument("--items", type=int, default=2000, metavar="N", help="probe N items at most (default: 2000)")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Probe a run and return the table.

    Raises:
        XlingError: the run or the dataset cannot be used.
    """
    from recbole_xling.evaluator.language_probe import probe_table
    from recbole_xling.quick_start.probe import probe

    result = probe(options.run, options.dataset, most_items=options.items, arguments=settings)
    return f"\n{result['model']} on {result['dataset']}\n\n{probe_table(result)}\nFolder: {result['run_dir']}"
