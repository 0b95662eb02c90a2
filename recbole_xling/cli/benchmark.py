"""``recbole-xling benchmark``."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_xling.errors import XlingError

DESCRIPTION = "Run models x datasets x seeds as a YAML file says, whatever is missing, and compare them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", help="YAML file with common, datasets, models, seeds (docs/comparing.md)")
    parser.add_argument("--output", metavar="FOLDER", help="folder of the runs (default: saved/<name of the file>)")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="models or datasets of the file")
    parser.add_argument("--format", default="text", help="text (default), markdown, latex or csv")


def run(options: argparse.Namespace) -> str:
    """Run a benchmark and return its tables.

    Raises:
        XlingError: the file is wrong; or runs have failed, which is said after the tables of all others.
    """
    from recbole_xling.cli.main import tell
    from recbole_xling.evaluator.comparison_table import check_format, comparison_text
    from recbole_xling.quick_start.benchmark import RESULTS_FILE, benchmark

    check_format(options.format)
    output = Path(options.output or Path("saved") / Path(options.file).stem)
    cells, compared = benchmark(options.file, output, options.only)
    parts = []
    for dataset, found in compared.items():
        parts.append(f"\n{dataset}\n\n{found if isinstance(found, str) else comparison_text(found, options.format)}")
    parts.append(f"\nResults: {output / RESULTS_FILE}")
    failed = [cell for cell in cells if not cell.is_finished]
    if not failed:
        return "\n".join(parts)
    tell("\n".join(parts))
    names = ", ".join(f"{cell.model} on {cell.dataset} ({cell.seed})" for cell in failed[:5])
    raise XlingError(f"{len(failed)} of {len(cells)} runs failed: {names}; the first: {failed[0].state['error']}")
