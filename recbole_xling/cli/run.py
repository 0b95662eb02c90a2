"""``recbole-xling run``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from recbole_xling.cli import demo
from recbole_xling.errors import ConfigError
from recbole_xling.utils.arguments import file_list

DESCRIPTION = "Train and test any RecBole model."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of RecBole's own script; further ones are settings."""
    parser.add_argument("--model", "-m", help=f"name of the model (default: {demo.MODEL})")
    parser.add_argument("--dataset", "-d", help=f"name of the dataset (default: {demo.DATASET})")
    parser.add_argument("--config_files", type=file_list, help="YAML files, separated by spaces")
    parser.add_argument("--nproc", type=int, default=1, help="processes on this machine")
    parser.add_argument("--world_size", type=int, default=-1, help="processes on all machines")
    parser.add_argument("--ip", default="localhost", help="address of the first machine")
    parser.add_argument("--port", type=int, default=0, help="its port (default: a free one; of several machines: 5678)")
    parser.add_argument("--group_offset", type=int, default=0, help="rank of this machine's first process")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Train and test; without a model or a dataset those of the demonstration, whose dataset is built where missing.

    Raises:
        XlingError: settings or data cannot be used, or a file cannot be written.
    """
    from recbole_xling.evaluator.report import result_table
    from recbole_xling.evaluator.stage_table import stage_text
    from recbole_xling.quick_start.processes import Group, run_launched, run_processes
    from recbole_xling.quick_start.train import run
    from recbole_xling.utils.launched import launched_settings

    alone = options.nproc == 1 and options.world_size <= 0
    launched = launched_settings()
    if launched and not alone:
        raise ConfigError("torchrun has started the processes: leave out --nproc and --world_size")
    if launched:
        result = run_launched(lambda: run(**run_arguments(options, settings)))
        if launched["local_rank"] + launched["offset"]:
            return ""  # the first process tells it
    elif alone:
        result = run(**run_arguments(options, settings))
    else:
        group = Group(options.nproc, options.world_size, options.ip, options.port, options.group_offset)
        result = run_processes(group, run_arguments(options, settings))
    title = f"{result['model']} on {result['dataset']}, test"
    if "stages" in result:
        return f"\n{title}\n\n{stage_text(result)}\n\nFolder: {result['run_dir']}"
    return f"\n{title}\n\n{result_table(result, list(result['test']))}\n\nRun folder: {result['run_dir']}"


def run_arguments(options: argparse.Namespace, settings: Sequence[str]) -> dict[str, Any]:
    """Return what the words of the command line mean for a run, whose bundled dataset is built where missing."""
    model, dataset = options.model, options.dataset
    if not options.config_files and not any(word.startswith("--resume=") for word in settings):
        model, dataset = model or demo.MODEL, dataset or demo.DATASET
    if dataset in demo.CONVERT and not any(word.startswith("--data_path=") for word in settings):
        demo.write_bundled(dataset)
    return {"model": model, "dataset": dataset, "config_file_list": options.config_files, "arguments": settings}
