"""``recbole-xling convert``."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from recbole_xling.convert import Converter

DESCRIPTION = "Turn a raw dump into a multilingual dataset."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the source, whose converter declares the rest."""
    from recbole_xling.convert import CONVERTERS

    parser.epilog = "recbole-xling convert <source> --help tells the files it expects and all options."
    parser.add_argument("source", help=f"one of: {', '.join(sorted(CONVERTERS))}")
    parser.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> str:
    """Convert and return the report.

    Raises:
        XlingError: the source is unknown, its files are missing or wrong, or the dataset cannot be written.
    """
    from recbole_xling.convert import Filters, get_converter, write_dataset
    from recbole_xling.text.cleaning import TextCleaner

    converter = get_converter(options.source)
    chosen = vars(_converter_parser(options.source, converter).parse_args(options.options))
    filters = Filters(**{field.name: chosen.pop(field.name) for field in fields(Filters)})
    output, name = chosen.pop("output"), chosen.pop("name")
    names = ("identify", "min_confidence", "unsure", "user_profile", "max_bad", "strict")
    settings = {key: chosen.pop(key) for key in names}
    clean = TextCleaner(chosen.pop("clean"), chosen.pop("max_length") or None)
    report = write_dataset(
        converter(**chosen),
        Path(output),
        name or f"{options.source}-xling",
        filters=filters,
        clean=clean,
        **settings,
    )
    return "\n".join(report.lines())


def _converter_parser(source: str, converter: type[Converter]) -> argparse.ArgumentParser:
    """Return the options of all converters, of texts, users and filters, and of this converter."""
    from recbole_xling.convert import Filters, ProfileSetting
    from recbole_xling.convert.writing.languages import UNSURE
    from recbole_xling.language.identification import MIN_CONFIDENCE
    from recbole_xling.language.tags import UNDETERMINED
    from recbole_xling.text.cleaning import DEFAULT_MAX_LENGTH, DEFAULT_STEPS
    from recbole_xling.utils.arguments import comma_list

    parser = argparse.ArgumentParser(
        prog=f"recbole-xling convert {source}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"Turn {source} into a multilingual dataset.",
        epilog=f"input: {converter.layout}",
    )
    parser.add_argument("--input", help="where the raw files are, as described below")
    parser.add_argument("--output", default="datasets", help="folder of the datasets (default: datasets)")
    parser.add_argument("--name", help=f"name of the dataset (default: {source}-xling)")
    parser.add_argument("--max-bad", type=float, default=0.01, help="largest share of bad rows (default: 0.01)")
    parser.add_argument("--strict", action="store_true", help="fail at the first bad row")
    converter.add_arguments(parser.add_argument_group(f"options of {source}"))
    texts = parser.add_argument_group("texts")
    steps = f"cleaning steps, separated by commas; '' for none (all: {','.join(DEFAULT_STEPS)}; default: "
    steps += "none)" if converter.clean_texts else "all)"
    default_steps = () if converter.clean_texts else DEFAULT_STEPS
    texts.add_argument("--clean", type=comma_list, default=default_steps, metavar="STEPS", help=steps)
    length = f"longest text in characters, 0 for no limit (default: {DEFAULT_MAX_LENGTH})"
    texts.add_argument("--max-length", type=int, default=DEFAULT_MAX_LENGTH, metavar="N", help=length)
    identify = (
        "identify languages that the source does not state, among these (de,en,fr; default: those it does state), and "
        "compare the stated ones"
    )
    texts.add_argument("--identify", nargs="?", type=comma_list, const=(), metavar="TAGS", help=identify)
    least = f"believe an identified language with this confidence or more, from 0 to 1 (default: {MIN_CONFIDENCE:g})"
    texts.add_argument("--min-confidence", type=float, default=MIN_CONFIDENCE, metavar="SHARE", help=least)
    unsure = "what items count as whose language is not believed: und (default), or main for the language of most items"
    texts.add_argument("--unsure", choices=UNSURE, default=UNDETERMINED, help=unsure)
    ProfileSetting.add_argument(parser.add_argument_group("users"))
    Filters.add_arguments(parser.add_argument_group("filters, applied in this order; off by default"))
    return parser
