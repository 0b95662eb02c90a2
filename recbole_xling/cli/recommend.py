"""``recbole-xling recommend``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.raw_tables import text_lines
from recbole_xling.utils.json_text import parse_json
from recbole_xling.utils.launched import is_launched
from recbole_xling.utils.run_folder import MODEL_FILE
from recbole_xling.utils.terminal import json_line

if TYPE_CHECKING:
    from recbole_xling.data.identity import Fingerprint
    from recbole_xling.serve.answers import Answer
    from recbole_xling.serve.catalog import Filters
    from recbole_xling.serve.recommender import Recommender

DESCRIPTION = "Recommend items by a run folder, or by a folder that export wrote."
_LONGEST_TITLE = 60
_KEYS = ("user", "history", "similar", "text")


class _Once(argparse.Action):
    """An argument of which argparse would forget all values but the last."""

    def __call__(
        self, parser: argparse.ArgumentParser, options: argparse.Namespace, value: Any, word: Any = None
    ) -> None:
        """Store the value."""
        if getattr(options, self.dest) is not None:
            parser.error(f"{word} is given twice: many are answered at once by --batch")
        setattr(options, self.dest, value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("run", help="the run folder, or the folder of an export")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", action=_Once, metavar="ID", help="a user, by all that is known of him")
    who.add_argument(
        "--history", action=_Once, metavar="ID,ID", help="items that somebody has chosen, the oldest first"
    )
    who.add_argument("--similar", action=_Once, metavar="ID", help="an item: the items that are most like it")
    who.add_argument("--text", action=_Once, help="what somebody likes, in his words; for models that read texts")
    batch = 'lines like {"user": "u1"}, {"history": ["i1", "i2"]} or {"similar": "i1"}; - is standard input'
    who.add_argument("--batch", metavar="FILE", help=f"many at once, answered by JSON lines: {batch}")
    add = "serve further items from now on: JSON lines or CSV, with item_id, text and language, or texts by language"
    who.add_argument("--add-items", metavar="FILE", help=add)
    parser.add_argument("--replace", action="store_true", help="of items to add: take the place of those added before")
    parser.add_argument("--to", metavar="FILE", help="write the batch there; under torchrun each process takes a share")
    waits = "seconds that the first process of several waits for the others (3600)"
    parser.add_argument("--patience", type=float, default=3600.0, metavar="SECONDS", help=waits)
    parser.add_argument("--explain", metavar="ID", help="of a user or a history: tell what speaks for this item")
    parser.add_argument("--in", dest="sentence", default="en", metavar="LANGUAGE", help="language of the explanation")
    parser.add_argument("--words", action="store_true", help="explain what words of the title are worth, too")
    parser.add_argument("-k", type=int, default=10, help="length of the lists (10)")
    parser.add_argument("--reader", metavar="LANGUAGE", help="that users read who state none")
    parser.add_argument("--languages", nargs="+", metavar="LANGUAGE", help="show items in these")
    parser.add_argument(
        "--where", nargs="+", default=[], metavar="COLUMN=VALUE", help="show items with one of these values"
    )
    parser.add_argument("--items", metavar="FILE", help="show no others than these, one id a line")
    parser.add_argument("--block", metavar="FILE", help="do not show these, one id a line")
    parser.add_argument("--include-seen", action="store_true", help="show what is in the history, too")
    parser.add_argument("--json", action="store_true", help="answer in JSON")
    parser.add_argument("--data_path", help="folder of the dataset, if it has moved")


def run(options: argparse.Namespace) -> str:
    """Answer, in a table or in JSON lines.

    Raises:
        XlingError: the run cannot be loaded, or an argument is wrong.
    """
    from recbole_xling.serve.catalog import Filters

    if options.to is None and is_launched():
        raise ConfigError("under torchrun each process answers its share of a batch: give --batch and --to")
    filters = Filters(_lines(options.languages), _ids(options.items), _ids(options.block) or (), _where(options.where))
    recommender, data = _recommender(options.run, {"data_path": options.data_path} if options.data_path else {})
    if options.add_items is not None:
        return _added(recommender, options)
    if options.explain is not None:
        return _explained(recommender, options)
    if options.batch:
        if options.to is not None:
            return _to_file(recommender, data, options, filters)
        requests = list(_requests(options.batch))
        return "\n".join(json_line(answer.record()) for answer in _answers(recommender, requests, options, filters))
    history = _parts(options.history)
    request = {"user": options.user, "history": history, "similar": options.similar, "text": options.text}
    request = {key: value for key, value in request.items() if value is not None}
    answer = _answers(recommender, [request], options, filters)[0]
    return json_line(answer.record()) if options.json else _table(answer)


def _recommender(folder: str, settings: dict[str, Any]) -> tuple[Recommender, Fingerprint]:
    """Return what answers by a run, and its files of data, or by an export, which needs neither torch nor data."""
    from recbole_xling.serve.folder import is_export, load_export

    if is_export(folder):
        return load_export(folder), {}
    from recbole_xling.quick_start.build import load_run

    run = load_run(folder, **settings)
    return run.recommender, run.dataset.fingerprint


def _added(recommender: Recommender, options: argparse.Namespace) -> str:
    from recbole_xling.serve.added import add_items, items_of_file

    items = items_of_file(options.add_items, recommender)
    every = add_items(recommender, options.run, items, replace=options.replace)
    return f"Added: {len(items):,} items; {len(every):,} items are served that training did not have"


def _to_file(recommender: Recommender, data: Fingerprint, options: argparse.Namespace, filters: Filters) -> str:
    """Write the answers to a file, some at a time; of several processes each answers its share."""
    from recbole_xling.serve.shards import Share, answer_share, identity_of

    if options.batch == "-":
        raise ConfigError("--to needs a file of requests, which several processes can read: --batch FILE")
    if Path(options.to).is_dir():
        raise ConfigError(f"--to {options.to} is a folder: name a file in it")
    folder, share = Path(options.run), Share.of_environment()
    made_of = [*sorted(folder.glob("*.json*")), *folder.glob(MODEL_FILE), Path(options.batch)]
    asked = (options.k, options.reader, options.include_seen, filters, sorted(data.items()))

    def answer(requests: Sequence[dict[str, Any]]) -> list[str]:
        return [json_line(found.record()) for found in _answers(recommender, requests, options, filters)]

    requests, to = _requests(options.batch), Path(options.to)
    done = answer_share(requests, answer, to, identity_of(made_of, *asked), share, options.patience)
    return f"Written: {to}" if done else f"Part {share.rank + 1} of {share.number} is done"


def _explained(recommender: Recommender, options: argparse.Namespace) -> str:
    from tabulate import tabulate

    from recbole_xling.serve.answers import short_title
    from recbole_xling.serve.explanations import explain

    if options.user is None and options.history is None:
        raise ConfigError("--explain needs --user or --history")
    history = _parts(options.history)
    given = {"user": options.user, "history": history, "reader": options.reader, "language": options.sentence}
    found = explain(recommender, options.explain, **given, words=options.words)
    if options.json:
        return json_line(found.record())

    def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        return tabulate(rows, headers=headers, disable_numparse=True)

    def share(attention: float | None) -> str:
        return "" if attention is None else f"{attention:.0%}"

    named = [(part.item, short_title(part.title, _LONGEST_TITLE), part.language) for part in found.parts]
    worths = [(f"{part.worth:+.4f}", share(part.attention)) for part in found.parts]
    rows = [(*name, *worth) for name, worth in zip(named, worths, strict=True)]
    lead = f"{found.lead:+.4f} above the average item; what it loses without an item of the history:"
    lines = [found.sentence, "", lead, table(("item", "title", "language", "worth", "attention"), rows)]
    if found.words:
        words = [(word.word, f"{word.worth:+.4f}") for word in found.words]
        lines += ["", table(("word of the title", "worth"), words)]
    return "\n".join([*lines, *(f"Note: {note}" for note in found.notes)])


def _answers(
    recommender: Recommender, requests: Sequence[dict[str, Any]], options: argparse.Namespace, filters: Filters
) -> list[Answer]:
    """Answer requests in their order, users and histories each at once."""
    from recbole_xling.serve.answers import Answer

    seen: dict[str, Any] = {"exclude_seen": not options.include_seen, "filters": filters}
    found: dict[int, Answer] = {}
    kinds: dict[str, list[int]] = {kind: [] for kind in _KEYS}
    if options.reader:  # of an unknown user his language is all that is known
        known = recommender.users.number
        requests = [{"history": [], **r} if "user" in r and r["user"] not in known else r for r in requests]
    for place, request in enumerate(requests):
        kinds[next(kind for kind in reversed(_KEYS) if kind in request)].append(place)
    if users := [requests[place]["user"] for place in kinds["user"]]:
        answers = recommender.recommend(users, options.k, reader=options.reader, **seen)
        found |= zip(kinds["user"], answers, strict=True)
    if histories := [requests[place]["history"] for place in kinds["history"]]:
        owners = [requests[place].get("user") for place in kinds["history"]]
        answers = recommender.recommend_histories(histories, options.k, users=owners, reader=options.reader, **seen)
        found |= zip(kinds["history"], answers, strict=True)
    languages = list(filters.languages or ())  # of one language alone, as its readers see items
    reader = options.reader or (languages[0] if len(languages) == 1 else "")
    view = recommender.catalog.view_for(reader)
    for place in kinds["similar"]:
        item = requests[place]["similar"]
        if options.batch and item not in recommender.catalog.number:  # one line is no reason to lose all others
            found[place] = Answer(None, [], [f"no item '{item}'"])
        else:
            found[place] = recommender.similar_items(item, options.k, filters=filters, view=view)
    if texts := [requests[place]["text"] for place in kinds["text"]]:
        answers = recommender.recommend_texts(texts, options.k, reader=options.reader, filters=filters)
        found |= zip(kinds["text"], answers, strict=True)
    return [found[place] for place in range(len(requests))]


def _requests(file: str) -> Iterator[dict[str, Any]]:
    """Read JSON lines.

    Raises:
        DataError: a line is wrong; the message names it.
    """
    try:
        for number, line in enumerate(sys.stdin, start=1) if file == "-" else text_lines(Path(file)):
            if not line.strip():
                continue
            try:
                request = parse_json(line)
            except ValueError as error:
                raise DataError(f"{file}:{number}: not valid JSON: {error}") from None
            if not isinstance(request, dict) or not request or not request.keys() <= set(_KEYS):
                raise DataError(f"{file}:{number}: a request has {', '.join(_KEYS)}, and nothing else: {line[:60]!r}")
            if len(request) > 1 and request.keys() != {"user", "history"}:
                told = f"{' and '.join(request)} do not go together, only user and history do"
                raise DataError(f"{file}:{number}: {told}; write a line for each")
            for key, value in request.items():
                texts = value if key == "history" and isinstance(value, list) else [value]
                if not all(isinstance(text, str) for text in texts) or (key == "history") != isinstance(value, list):
                    wanted = "a list of ids" if key == "history" else "an id"
                    raise DataError(f"{file}:{number}: '{key}' must be {wanted}")
            yield request
    except UnicodeDecodeError as error:  # of standard input
        raise DataError(f"{file}: not valid UTF-8: {error}") from None


def _parts(history: str | None) -> list[str] | None:
    return None if history is None else [item for item in history.split(",") if item]


def _lines(words: Sequence[str] | None) -> Sequence[str] | None:
    return None if words is None else [part for word in words for part in word.split(",") if part]


def _ids(file: str | None) -> list[str] | None:
    """Read ids, one a line."""
    if file is None:
        return None
    return [line for _, line in text_lines(Path(file)) if line.strip()]


def _where(words: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        column, is_given, value = word.partition("=")
        if not is_given or not column or not value:
            raise ConfigError(f"--where {word}: write it as column=value, such as market=DE")
        found.setdefault(column, []).append(value)
    return found


def _table(answer: Answer) -> str:
    from tabulate import tabulate

    from recbole_xling.serve.answers import short_title

    rows = [
        (rank, item.item, short_title(item.title, _LONGEST_TITLE), item.language, f"{item.score:.4f}")
        for rank, item in enumerate(answer.items, start=1)
    ]
    table = tabulate(rows, headers=("rank", "item", "title", "language", "score"), disable_numparse=True)
    return "\n".join([table, *(f"Note: {note}" for note in answer.notes)])
