"""``recbole-xling replay``."""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_xling.errors import ConfigError
from recbole_xling.utils.arguments import finite_number, parse_iso_time
from recbole_xling.utils.files import replacing
from recbole_xling.utils.terminal import on_screen

if TYPE_CHECKING:
    from recbole_xling.serve.events import Events

logger = logging.getLogger(__name__)

DESCRIPTION = "Replay interactions to an export in the order of time: what would it have recommended just before each?"
_USER_LANGUAGE, _LANGUAGE_SOURCE = "user_language", "language_source"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("export", help="the folder of the export")
    parser.add_argument("--dataset", "-d", required=True, metavar="NAME", help="whose interactions are replayed")
    parser.add_argument("--data_path", default="datasets/", help="folder of the datasets (datasets/)")
    columns = ("user_id", "item_id", "timestamp")
    parser.add_argument("--columns", nargs=3, default=columns, metavar="NAME", help=f"default: {' '.join(columns)}")
    parser.add_argument("--url", help="ask a running server of the export, such as http://127.0.0.1:8000")
    parser.add_argument("-k", type=int, default=10, help="length of the lists (10)")
    parser.add_argument("--per", default="hour", help="hour (default) or day")
    parser.add_argument("--begin", metavar="TIME", help="measure from this time on: a date, or a number as in the file")
    parser.add_argument("--from-empty", action="store_true", help="do not begin with the histories that the export has")
    parser.add_argument("--include-seen", action="store_true", help="recommend and measure what was chosen before, too")
    parser.add_argument("--csv", action="store_true", help="write CSV in place of JSON lines")
    parser.add_argument("--output", metavar="FILE", help="write there, and print the lines of all periods alone")


def run(options: argparse.Namespace) -> str:
    """Replay, and return the lines.

    Raises:
        XlingError: the export or the dataset cannot be used, or the server does not answer.
    """
    lines = _lines(options)
    if options.output is not None and Path(options.output).is_dir():
        raise ConfigError(f"--output {options.output} is a folder: name a file in it")
    if options.output is None:
        return _text(list(lines), options.csv)
    last: list[dict[str, Any]] = []
    with replacing(Path(options.output)) as new, new.open("w", encoding="utf-8", newline="") as file:
        for number, line in enumerate(lines):
            text = _text([line], options.csv, with_head=not number)
            file.write(f"{text}\n")
            if line["period"] == "all":
                last.append(line)
    return _text(last, options.csv) + f"\nWritten: {options.output}"


def _lines(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield lines as periods end, with a bar where somebody sees it."""
    from recbole_xling.language.tags import tag_among
    from recbole_xling.serve.asking import AskExport, AskServer
    from recbole_xling.serve.events import read_events
    from recbole_xling.serve.folder import load_export
    from recbole_xling.serve.replay import Replay
    from recbole_xling.text.raw_tables import table_columns, table_rows

    recommender = load_export(options.export)
    ask = AskServer(options.url) if options.url else AskExport(recommender)
    folder = Path(options.data_path) / options.dataset
    events = read_events(folder / f"{options.dataset}.inter", options.columns)
    reads: dict[str, str] = {}
    users = folder / f"{options.dataset}.user"
    if users.is_file() and _USER_LANGUAGE in table_columns(users):
        rows = table_rows(users, (options.columns[0], _USER_LANGUAGE), optional=(_LANGUAGE_SOURCE,))
        # as in a run, a language that a profile has derived is not stated
        known = recommender.catalog.language_names
        reads = {user: tag_among(tag, known) for _, (user, tag, source) in rows if tag and source != "derived"}
    replay = Replay(
        recommender.catalog,
        recommender.users,
        ask,
        by_user=recommender.scorer.by_user,
        k=options.k,
        per=options.per,
        exclude_seen=not options.include_seen,
        from_empty=options.from_empty,
        begin=None if options.begin is None else _time(options.begin, events),
        reads=reads,
    )
    with ExitStack() as stack:
        bar = None
        if on_screen():
            with suppress(ImportError):
                from tqdm import tqdm

                bar = stack.enter_context(tqdm(total=len(events.times), unit=" interactions", ncols=100, leave=False))
        for done, ready in replay.run(events):
            if bar is not None:
                bar.update(done - bar.n)
            yield from ready
    if replay.twins:
        logger.warning("%d interactions with user, item and time of another one count once with it", replay.twins)


def _time(text: str, events: Events) -> float:
    """Return a time in the unit of the interactions' times.

    Raises:
        ConfigError: it is no time, or a date and theirs are none.
    """
    number, seconds = finite_number(text), parse_iso_time(text)
    if number is not None:
        return number
    if seconds is None:
        raise ConfigError(f"--begin {text!r} is not a time; write it like 2024-01-31, or as a number as in the file")
    if events.scale is None:
        raise ConfigError("--begin is a date, and the times of the interactions are none: give a number in their unit")
    return seconds * events.scale


def _text(lines: list[dict[str, Any]], as_csv: bool, *, with_head: bool = True) -> str:
    if not as_csv:
        return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    text = StringIO()
    writer = csv.DictWriter(text, list(lines[0]) if lines else [], lineterminator="\n")
    if with_head:
        writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().rstrip("\n")
