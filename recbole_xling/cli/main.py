"""The command line: ``recbole-xling <command>``.

A command is a module beside this one. It describes itself in ``DESCRIPTION``, declares its arguments in
``add_arguments(parser)``, and does its work in ``run(options)``, or in ``run(options, settings)`` where any
``--key=value`` is a setting; it returns what is printed. Modules are imported when their command is called, and import
what is slow to load when they do their work, so that help comes at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from recbole_xling.errors import ConfigError, XlingError, os_error_message, shown, unknown_name
from recbole_xling.utils.launched import is_launched
from recbole_xling.utils.run_folder import versions
from recbole_xling.utils.terminal import log_to_screen, prepare_terminal


class _Command(NamedTuple):
    summary: str
    takes_settings: bool = False


COMMANDS = {
    "demo": _Command("train and test LLMSASRec on the bundled dataset", True),
    "run": _Command("train and test a model (RecBole's options, any --key=value)", True),
    "estimate": _Command("tell time and memory of a run before it starts", True),
    "convert": _Command("turn a raw dump into a multilingual dataset"),
    "translate": _Command("translate item texts into the languages they lack"),
    "card": _Command("describe a dataset and warn of what would spoil an experiment", True),
    "encode": _Command("encode a dataset's texts ahead of training", True),
    "evaluate": _Command("score a saved run on any dataset: new items, new users, another language", True),
    "probe": _Command("tell how well items' languages are known by their vectors, before training and after", True),
    "align": _Command("tell how well texts find their translations by the vectors of a run or an encoder", True),
    "benchmark": _Command("run models x datasets x seeds from one file, and compare them"),
    "tune": _Command("search for the settings with the best validation", True),
    "compare": _Command("compare finished runs: means over seeds, paired intervals and tests"),
    "report": _Command("show finished runs on one HTML page"),
    "fuse": _Command("fuse the rankings of several runs into one"),
    "recommend": _Command("recommend items to users and histories, or items like an item"),
    "export": _Command("write a run as a folder that recommends without torch, RecBole and the dataset", True),
    "serve": _Command("answer over HTTP by the folder of an export"),
    "drift": _Command("tell what has changed since a run was trained, and whether to train again", True),
    "replay": _Command("replay interactions to an export in their order, and measure its lists per hour and language"),
    "push": _Command("upload the folder of an export to a repository of Hugging Face"),
    "merge": _Command("write the tuned encoder of a run as a folder that sentence-transformers loads"),
}

_IN_PROCESSES = ("encode", "recommend", "run")  # that torchrun starts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    prepare_terminal()
    log_to_screen()
    logging.captureWarnings(True)
    try:
        if not words or words[0] in ("-h", "--help"):
            commands = "\n".join(f"  {name:<9} {command.summary}" for name, command in COMMANDS.items())
            print(
                f"recbole-xling <command> [options]\n\ncommands:\n{commands}\n\n"
                "recbole-xling <command> --help tells more; recbole-xling --version lists versions."
            )
        elif words[0] == "--version":
            print("\n".join(f"{name} {version}" for name, version in versions().items()))
        elif words[0].startswith("-"):
            tell(call("run", words))
        elif words[0] in COMMANDS:
            tell(call(words[0], words[1:]))
        else:
            raise ConfigError(unknown_name("command", words[0], COMMANDS))
    except XlingError as error:
        print(f"recbole-xling: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"recbole-xling: {os_error_message(error)}", file=sys.stderr)
        return 2
    except MemoryError:
        print(
            "recbole-xling: memory is used up; smaller batches, fewer columns or fewer items at a time need less",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("recbole-xling: interrupted", file=sys.stderr)
        return 130
    return 0


def call(name: str, words: Sequence[str]) -> str:
    """Parse the words after a command, do what it says, and return what it tells.

    Raises:
        XlingError: the command cannot be carried out.
    """
    if name not in _IN_PROCESSES and is_launched():
        raise ConfigError(f"'{name}' works in one process: start it without torchrun")
    command = import_module(f"recbole_xling.cli.{name}")
    parser = argparse.ArgumentParser(  # a setting is no abbreviation of an option
        prog=f"recbole-xling {name}", description=command.DESCRIPTION, allow_abbrev=not COMMANDS[name].takes_settings
    )
    command.add_arguments(parser)
    told: str
    if not COMMANDS[name].takes_settings:
        told = command.run(parser.parse_args(words))
        return told
    # taken out first: argparse would have a setting with a space in it for an argument without a name
    options = parser._option_string_actions
    settings = [w for w in words if w.startswith("--") and "=" in w and w.partition("=")[0] not in options]
    known, further = parser.parse_known_args([word for word in words if word not in settings])
    told = command.run(known, [*further, *settings])
    return told


def tell(text: str) -> None:
    """Print what a command returned."""
    if not text:  # of a process whose part another one tells
        return
    try:
        print(shown(text), flush=True)
    except BrokenPipeError:  # whoever reads the output, say ``head``, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def script_main() -> None:
    """Entry point of the ``recbole-xling`` command."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main())
