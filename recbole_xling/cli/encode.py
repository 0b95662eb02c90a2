"""``recbole-xling encode``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recbole_xling.utils.arguments import file_list

DESCRIPTION = "Encode a dataset's texts ahead of training, with the settings a run would use (--key=value)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings."""
    parser.add_argument("--dataset", "-d", required=True, help="name of the dataset")
    parser.add_argument("--config_files", type=file_list, help="YAML files, separated by spaces")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Fill the embedding cache.

    Raises:
        XlingError: the dataset or the encoder cannot be used.
    """
    from recbole_xling.config import DatasetConfig
    from recbole_xling.data.catalog import dataset_catalog

    vectors = dataset_catalog(DatasetConfig(options.dataset, options.config_files, settings)).vectors
    return f"{len(vectors) - 1} items, vectors of {vectors.shape[1]} dimensions"
