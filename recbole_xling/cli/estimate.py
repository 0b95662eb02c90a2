"""``recbole-xling estimate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recbole_xling.cli import run as run_command
from recbole_xling.errors import ConfigError

DESCRIPTION = "Estimate time and memory of a run, by some steps of it: the same words as for run."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``run``; further ones are settings."""
    run_command.add_arguments(parser)


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Measure some steps and return the estimate.

    Raises:
        XlingError: settings or data cannot be used, or the run cannot be estimated.
    """
    from recbole_xling.quick_start.estimate import estimate, estimate_text

    if options.nproc != 1 or options.world_size > 0:
        raise ConfigError("only runs in one process can be estimated: leave out nproc and world_size")
    return f"\n{estimate_text(estimate(**run_command.run_arguments(options, settings)))}"
