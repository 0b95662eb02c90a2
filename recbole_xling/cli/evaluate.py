"""``recbole-xling evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

DESCRIPTION = "Score a saved run on its own dataset or on another one, with the run's settings (--key=value)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings that replace the run's."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--dataset", "-d", help="name of the dataset (default: the run's own)")
    parser.add_argument("--split", default="test", metavar="PART", help="test (default), valid or all")
    same_items = "items of another dataset with the ids of the run's are the same and keep their popularity"
    parser.add_argument("--same-items", action="store_true", help=same_items)
    parser.add_argument("--impressions", action="store_true", help="rank the candidates of <dataset>.imp")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Score a run and return its table of results.

    Raises:
        XlingError: the run or the dataset cannot be used.
    """
    from recbole_xling.evaluator.report import result_table
    from recbole_xling.quick_start.evaluate import evaluate_run

    result = evaluate_run(
        options.run,
        options.dataset,
        split=options.split,
        impressions=options.impressions,
        same_items=options.same_items,
        arguments=settings,
    )
    everything = "all impressions" if options.impressions else "all users"
    title = f"{result['model']} of {result['trained_on']} on {result['dataset']}, {result['split']}"
    lines = [f"\n{title}\n\n{result_table(result, list(result['test']), everything)}\n"]
    if options.impressions:
        left_out = (f"{number} {kind.replace('_', ' ')}" for kind, number in result["left_out"].items())
        lines.append(f"impressions left out: {', '.join(left_out)}")
    return "\n".join([*lines, f"Folder: {result['run_dir']}"])
