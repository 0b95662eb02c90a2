"""The command line: ``recbole-xling <command>``, and what ``run_recbole_xling.py`` does."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_xling.errors import ConfigError, XlingError, unknown_name

if TYPE_CHECKING:
    from recbole_xling.convert import Converter

DEMO_MODEL = "LLMSASRec"
DEMO_DATASET = "ml-100k-xling"
DEMO_SOURCE = "ml-100k"

_USAGE = """recbole-xling <command> [options]

commands:
  run       train and test a model (RecBole's options, any --key=value); without options: the demonstration
  convert   turn a raw dump into a multilingual dataset
  translate translate item texts into the languages they lack
  card      describe a dataset and warn of what would spoil an experiment
  encode    encode a dataset's texts ahead of training
  evaluate  score a saved run on any dataset: new items, new users, another language
  merge     write the tuned encoder of a run as a folder that sentence-transformers loads

recbole-xling <command> --help tells more."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], None]] = {
        "run": _run,
        "convert": _convert,
        "translate": _translate,
        "card": _card,
        "encode": _encode,
        "evaluate": _evaluate,
        "merge": _merge,
    }
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.captureWarnings(True)
    try:
        if words and words[0] in ("-h", "--help"):
            print(_USAGE)
        elif not words or words[0].startswith("-"):
            _run(words)
        elif words[0] in commands:
            commands[words[0]](words[1:])
        else:
            raise ConfigError(unknown_name("command", words[0], commands))
    except XlingError as error:
        print(f"recbole-xling: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("recbole-xling: interrupted; a run goes on with --resume=<run folder>", file=sys.stderr)
        return 130
    return 0


def script_main() -> None:
    """Entry point of the ``recbole-xling`` command."""
    sys.exit(main())


# ---- run ------------------------------------------------------------------------------------------------------


def _run(words: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="recbole-xling run", description="Train and test any RecBole model.")
    parser.add_argument("--model", "-m", help="name of the model")
    parser.add_argument("--dataset", "-d", help="name of the dataset")
    parser.add_argument("--config_files", help="YAML files, separated by spaces")
    parser.add_argument("--nproc", type=int, default=1, help="processes on this machine")
    parser.add_argument("--world_size", type=int, default=-1, help="processes on all machines")
    parser.add_argument("--ip", default="localhost", help="address of the first machine")
    parser.add_argument("--port", default="5678", help="port of the first machine")
    parser.add_argument("--group_offset", type=int, default=0, help="rank of this machine's first process")
    options, settings = parser.parse_known_args(words)
    files = options.config_files.split() if options.config_files else None
    if not words:
        options.model, options.dataset = DEMO_MODEL, DEMO_DATASET
        _prepare_demo()
    elif files is None and not any(word.startswith("--resume=") for word in settings):
        options.model = options.model or DEMO_MODEL
        options.dataset = options.dataset or DEMO_DATASET
    if options.dataset == DEMO_DATASET and not any(word.startswith("--data_path=") for word in settings):
        _prepare_demo()
    kwargs = {
        "model": options.model,
        "dataset": options.dataset,
        "config_file_list": files,
        "arguments": settings,
    }
    from recbole_xling.quick_start.train import run, run_processes

    if options.nproc == 1 and options.world_size <= 0:
        result = run(**kwargs)
    else:
        group = (options.nproc, options.world_size, options.ip, options.port, options.group_offset)
        result = run_processes(*group, kwargs)
    _show(result)


def _prepare_demo() -> None:
    """Build the bundled dataset from RecBole's copy of MovieLens-100k unless it is there."""
    if (Path("datasets") / DEMO_DATASET / f"{DEMO_DATASET}.inter").is_file():
        return
    _convert([DEMO_SOURCE])


def _show(result: dict[str, Any]) -> None:
    from recbole_xling.evaluator.report import result_table

    title = f"{result['model']} on {result['dataset']}, test"
    print(f"\n{title}\n\n{result_table(result, list(result['test']))}\n\nRun folder: {result['run_dir']}")


def _evaluate(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="recbole-xling evaluate",
        description="Score a saved run on its own dataset or on another one, with the run's settings (--key=value).",
    )
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--dataset", "-d", help="name of the dataset (default: the run's own)")
    parser.add_argument("--split", default="test", metavar="PART", help="test (default), valid or all")
    parser.add_argument("--impressions", action="store_true", help="rank the candidates of <dataset>.imp")
    options, settings = parser.parse_known_args(words)
    from recbole_xling.evaluator.report import result_table
    from recbole_xling.quick_start.evaluate import evaluate_run

    result = evaluate_run(
        options.run, options.dataset, split=options.split, impressions=options.impressions, arguments=settings
    )
    everything = "all impressions" if options.impressions else "all users"
    title = f"{result['model']} of {result['trained_on']} on {result['dataset']}, {result['split']}"
    print(f"\n{title}\n\n{result_table(result, list(result['test']), everything)}\n")
    if options.impressions:
        left_out = (f"{number} {kind.replace('_', ' ')}" for kind, number in result["left_out"].items())
        print(f"impressions left out: {', '.join(left_out)}")
    print(f"Folder: {result['run_dir']}")


def _merge(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="recbole-xling merge",
        description="Write the encoder that XLingTwoTower has tuned, adapters merged, as a Hugging Face folder.",
    )
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the new folder")
    options = parser.parse_args(words)
    from recbole_xling.quick_start.export import merge_run

    merge_run(options.run, options.output)
    print(f"Encoder: {options.output}")


# ---- convert --------------------------------------------------------------------------------------------------


def _convert(words: list[str]) -> None:
    from recbole_xling.convert import CONVERTERS, Filters, get_converter, write_dataset
    from recbole_xling.text.cleaning import TextCleaner

    if not words or words[0].startswith("-"):
        parser = argparse.ArgumentParser(
            prog="recbole-xling convert",
            description="Turn a raw dump into a multilingual dataset.",
            epilog="recbole-xling convert <source> --help tells the files it expects and all options.",
        )
        parser.add_argument("source", help=f"one of: {', '.join(sorted(CONVERTERS))}")
        parser.parse_args(words)
    source = words[0]
    converter = get_converter(source)
    options = vars(_convert_parser(source, converter).parse_args(words[1:]))
    filters = Filters(**{field.name: options.pop(field.name) for field in fields(Filters)})
    output, name = options.pop("output"), options.pop("name")
    settings = {key: options.pop(key) for key in ("identify", "user_profile", "max_bad", "strict")}
    cleaner = TextCleaner(options.pop("clean"), options.pop("max_length") or None)
    report = write_dataset(
        converter(**options),
        Path(output),
        name or f"{source}-xling",
        filters=filters,
        clean=cleaner,
        **settings,
    )
    print("\n".join(report.lines()))
    if cleaner.changes:
        print("texts changed by cleaning: " + ", ".join(f"{step} {n}" for step, n in cleaner.changes.most_common()))


def _convert_parser(source: str, converter: type[Converter]) -> argparse.ArgumentParser:
    """Return the options of all converters, of the filters, and of this converter."""
    from recbole_xling.convert import Filters, ProfileSetting

    parser = argparse.ArgumentParser(
        prog=f"recbole-xling convert {source}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Turn {source} into a multilingual dataset.",
        epilog=f"input: {converter.layout}",
    )
    parser.add_argument("--input", help="where the raw files lie, as described below")
    parser.add_argument("--output", default="datasets", help="folder of the datasets (default: datasets)")
    parser.add_argument("--name", help=f"name of the dataset (default: {source}-xling)")
    parser.add_argument("--max-bad", type=float, default=0.01, help="largest share of bad rows (default: 0.01)")
    parser.add_argument("--strict", action="store_true", help="fail at the first bad row")
    converter.add_arguments(parser.add_argument_group(f"options of {source}"))
    _add_text_options(parser.add_argument_group("texts"), clean=not converter.clean_texts)
    ProfileSetting.add_argument(parser.add_argument_group("users"))
    Filters.add_arguments(parser.add_argument_group("filters, applied in this order; off by default"))
    return parser


def _add_text_options(group: argparse._ArgumentGroup, *, clean: bool) -> None:
    from recbole_xling.convert.writing.filters import comma_list
    from recbole_xling.text.cleaning import DEFAULT_MAX_LENGTH, DEFAULT_STEPS

    steps = f"cleaning steps, separated by commas; '' for none (all: {','.join(DEFAULT_STEPS)}; default: "
    steps += "all)" if clean else "none)"
    length = f"longest text in characters, 0 for no limit (default: {DEFAULT_MAX_LENGTH})"
    identify = (
        "identify languages that the source does not state, among these (de,en,fr; default: those it does state), and "
        "compare the stated ones"
    )
    group.add_argument("--clean", type=comma_list, default=DEFAULT_STEPS if clean else (), metavar="STEPS", help=steps)
    group.add_argument("--max-length", type=int, default=DEFAULT_MAX_LENGTH, metavar="N", help=length)
    group.add_argument("--identify", nargs="?", type=comma_list, const=(), metavar="TAGS", help=identify)


# ---- translate and card --------------------------------------------------------------------------------------


def _translate(words: list[str]) -> None:
    from recbole_xling.cli import translate as command_line

    parser = argparse.ArgumentParser(prog="recbole-xling translate", description=command_line.DESCRIPTION)
    command_line.add_arguments(parser)
    print(command_line.run(parser.parse_args(words)))


def _card(words: list[str]) -> None:
    from recbole_xling.cli import card as command_line

    parser = argparse.ArgumentParser(prog="recbole-xling card", description=command_line.DESCRIPTION)
    command_line.add_arguments(parser)
    print(command_line.run(*parser.parse_known_args(words)))


# ---- encode ---------------------------------------------------------------------------------------------------


def _encode(words: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="recbole-xling encode",
        description="Encode a dataset's texts ahead of training, with the settings a run would use (--key=value).",
    )
    parser.add_argument("--dataset", "-d", required=True, help="name of the dataset")
    parser.add_argument("--config_files", help="YAML files, separated by spaces")
    options, settings = parser.parse_known_args(words)
    from recbole_xling.config import XLingConfig
    from recbole_xling.data.catalog import dataset_catalog

    files = options.config_files.split() if options.config_files else None
    config = XLingConfig(DEMO_MODEL, options.dataset, files, None, settings)
    vectors = dataset_catalog(config).vectors
    print(f"{len(vectors) - 1} items, vectors of {vectors.shape[1]} dimensions")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    script_main()
