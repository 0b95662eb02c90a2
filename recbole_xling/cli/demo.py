"""``recbole-xling demo``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

DESCRIPTION = (
    "Train and test LLMSASRec on the bundled dataset, which is built first where it is missing; further --key=value "
    "are settings as those of run."
)
MODEL = "LLMSASRec"
DATASET = "ml-100k-xling"
SOURCE = "ml-100k"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no arguments: all are those of ``run``."""


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Run the demonstration.

    Raises:
        XlingError: settings cannot be used, or a file cannot be written.
    """
    from recbole_xling.cli.main import call

    return call("run", [f"--model={MODEL}", f"--dataset={DATASET}", *settings])
