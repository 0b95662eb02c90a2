"""``recbole-xling encode``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recbole_xling.errors import ConfigError
from recbole_xling.utils.arguments import file_list

DESCRIPTION = "Encode a dataset's texts ahead of training, with the settings a run would use (--key=value)."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings."""
    parser.add_argument("--dataset", "-d", required=True, help="name of the dataset")
    parser.add_argument("--config_files", type=file_list, help="YAML files, separated by spaces")
    parser.add_argument("--nproc", type=int, default=1, help="processes on this machine")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Fill the embedding cache.

    Raises:
        XlingError: the dataset or the encoder cannot be used.
    """
    from recbole_xling.config import DatasetConfig
    from recbole_xling.data.catalog import dataset_catalog
    from recbole_xling.quick_start.processes import encode_in_processes, encode_part, run_launched
    from recbole_xling.utils.launched import launched_settings

    words = {"dataset": options.dataset, "config_file_list": options.config_files, "arguments": settings}
    launched = launched_settings()
    if launched and options.nproc > 1:
        raise ConfigError("torchrun has started the processes: leave out --nproc")
    if launched:
        run_launched(lambda: encode_part(DatasetConfig(**words), launched["local_rank"]))
        if launched["local_rank"] + launched["offset"]:
            return ""
    elif options.nproc != 1:
        encode_in_processes(options.nproc, words)
    catalog = dataset_catalog(DatasetConfig(**words))
    catalog.encode()  # texts that training alone reads as well
    vectors = catalog.vectors
    return f"{len(vectors) - 1} items, vectors of {vectors.shape[1]} dimensions"
