"""``recbole-xling drift``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = "Tell what has changed since a run was trained, and whether to train again, with the run's settings."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings that replace the run's for the dataset of now."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--dataset", "-d", help="name of the dataset of now (default: the run's own)")
    parser.add_argument("--then", metavar="FOLDER", help="data_path of the files of training, if they have moved")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--page", metavar="FILE", help="write an HTML page as well")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Compare, and return tables and verdict.

    Raises:
        XlingError: the run or a dataset cannot be used, or the page cannot be written.
    """
    from tabulate import tabulate

    from recbole_xling.quick_start.drift import drift
    from recbole_xling.report.drift import drift_page, drift_tables
    from recbole_xling.utils.files import replacing
    from recbole_xling.utils.terminal import json_line

    result = drift(options.run, options.dataset, then=options.then, arguments=settings)
    if options.page:
        with replacing(Path(options.page)) as new:
            new.write_text(drift_page(result), encoding="utf-8", newline="\n")
    if options.json:
        return json_line(result)
    lines = [f"\n{result['dataset']} since {result['model']} was trained on {result['trained_on']}"]
    for table in drift_tables(result):
        lines += ["", table.title, tabulate(table.rows, headers=table.headers, disable_numparse=True)]
    lines += ["", *result["verdict"], *([f"Written: {options.page}"] if options.page else [])]
    return "\n".join(lines)
