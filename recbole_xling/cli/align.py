"""``recbole-xling align``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recbole_xling.errors import ConfigError

DESCRIPTION = "Tell how well texts find their translations by the vectors of a run or an encoder."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings of the run or the encoder."""
    parser.add_argument("source", help="a run folder; with --files also the name or folder of an encoder")
    aligned = "pairs of aligned files, a sentence in each line (Tatoeba's layout); default: the items of the run"
    parser.add_argument("--files", nargs="+", default=[], metavar="FILE", help=aligned)
    parser.add_argument("--dataset", "-d", help="name of the dataset of items (default: the run's own)")
    parser.add_argument("--centered", action="store_true", help="also without the mean vector of each language")
    parser.add_argument("--items", type=int, default=5000, metavar="N", help="of N items at most (default: 5000)")
    parser.add_argument("--output", metavar="FILE", help="write the results as JSON")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Measure and return the tables.

    Raises:
        XlingError: the run, the encoder or a file cannot be used.
    """
    from recbole_xling.evaluator.correspondence import correspondence_table
    from recbole_xling.quick_start.align import align

    if len(options.files) % 2:
        raise ConfigError(f"--files takes pairs of files, not {len(options.files)}: name both languages of each")
    result = align(
        options.source,
        list(zip(options.files[::2], options.files[1::2], strict=True)),
        dataset=options.dataset,
        centered=options.centered,
        most_items=options.items,
        output=options.output,
        arguments=settings,
    )
    what = f"{result['model']} on {result['dataset']}" if "model" in result else result["source"]
    where = f"\nFolder: {result['run_dir']}" if "run_dir" in result else ""
    return f"\n{what}\n\n{correspondence_table(result)}\n{where}"
