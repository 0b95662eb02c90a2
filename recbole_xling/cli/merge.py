"""``recbole-xling merge``."""

from __future__ import annotations

import argparse

DESCRIPTION = (
    "Write the encoder of an XLingTwoTower run, with its map or its adapters merged, as a Hugging Face folder."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the new folder")


def run(options: argparse.Namespace) -> str:
    """Write the folder.

    Raises:
        XlingError: the run has no tuned encoder, or the folder cannot be written.
    """
    from recbole_xling.quick_start.export import merge_run

    merge_run(options.run, options.output)
    return f"Encoder: {options.output}"
