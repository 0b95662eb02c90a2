"""Options of ``recbole-xling translate`` and what it does."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recbole_xling.errors import ConfigError
from recbole_xling.utils.arguments import comma_list
from recbole_xling.utils.yaml_text import parse_value

DESCRIPTION = "Translate the item texts of a dataset into the languages they lack."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    from recbole_xling.translate.base import translator_names

    systems = ", ".join(translator_names())
    parser.add_argument("dataset", help="name of the dataset")
    parser.add_argument("--to", required=True, help="languages, separated by commas: es,fr")
    parser.add_argument("--system", required=True, help=f"a model's hub name or folder, or one of: {systems}")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the system, such as command='apertium -u {source}-{target}' or num_beams=1; may be repeated",
    )
    parser.add_argument("--from", dest="source", help="translate from the items' own texts in this language only")
    parser.add_argument("--fields", help="fields to translate, separated by commas; the others are copied")
    parser.add_argument("--back", action="store_true", help="translate into these languages and back")
    parser.add_argument("--data_path", default="datasets", help="folder of the datasets (default: datasets)")
    parser.add_argument("--cache_dir", help="folder where translations are kept (default: the user's cache folder)")


def run(options: argparse.Namespace) -> str:
    """Translate and return what was done, in words.

    Raises:
        XlingError: see :func:`create_translator` and :func:`translate_dataset`.
    """
    from recbole_xling.translate.base import create_translator
    from recbole_xling.translate.dataset import translate_dataset

    system_options: dict[str, Any] = {}
    for word in options.option:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise ConfigError(f"--option '{word}' is not understood; options of the system are written key=value")
        if key in system_options:
            raise ConfigError(f"--option '{key}' is given twice; keep one")
        system_options[key] = parse_value(value)
    translator = create_translator(options.system, **system_options)
    report = translate_dataset(
        Path(options.data_path) / options.dataset,
        options.dataset,
        translator,
        _words(options.to),
        fields=None if options.fields is None else _words(options.fields),
        source_language=options.source,
        back=options.back,
        cache_dir=options.cache_dir,
    )
    added = ", ".join(f"{language} {number}" for language, number in report.added.items()) or "none"
    return f"{report.path}: texts added: {added}; there already: {report.present}"


def _words(text: str) -> list[str]:
    words = list(comma_list(text))
    if not words:
        raise ConfigError(f"{text!r} names nothing; write names separated by commas")
    return words
