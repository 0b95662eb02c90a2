"""``recbole-xling card``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recbole_xling.utils.arguments import file_list

DESCRIPTION = (
    "Describe a dataset and warn about what would spoil an experiment, with the settings a run would use "
    "(--key=value), among them its split (--eval_args=...)."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings such as ``--data_path=...`` or ``--text_fields=...``."""
    parser.add_argument("dataset", help="name of the dataset")
    parser.add_argument("--config_files", type=file_list, help="YAML files, separated by spaces")
    parser.add_argument("--output", help="folder for card.json and card.html (default: the dataset's folder)")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Write a dataset's card and return it as text.

    Raises:
        XlingError: the dataset is missing or wrong, or the card cannot be written.
    """
    from recbole_xling.card.build import build_configured_card
    from recbole_xling.card.page import write_card
    from recbole_xling.card.tables import card_table
    from recbole_xling.config import DatasetConfig

    config = DatasetConfig(options.dataset, options.config_files, settings)
    card = build_configured_card(config)
    paths = write_card(card, options.output or config["data_path"])
    return "\n".join([card_table(card), "", *(f"Written: {path}" for path in paths)])
