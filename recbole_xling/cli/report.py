"""``recbole-xling report``."""

from __future__ import annotations

import argparse

DESCRIPTION = "Show finished runs on one HTML page: curves, results per language, what the models recommend."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--output", default="report.html", metavar="FILE", help="the page (default: report.html)")
    parser.add_argument("--metric", help="the one that figures show, such as ndcg@10 (default: valid_metric)")
    parser.add_argument("--data_path", help="where the runs' datasets are, if they have moved")


def run(options: argparse.Namespace) -> str:
    """Write the report and say where it is.

    Raises:
        XlingError: a folder is not that of a finished run, or its data are missing.
    """
    from recbole_xling.quick_start.report import report

    settings = {"data_path": options.data_path} if options.data_path else {}
    path = report(options.runs, options.output, metric=options.metric, **settings)
    return f"Written: {path}"
