"""Clean the texts of items on a cluster and tell their languages, by Ray Data or PySpark.

    python docs/clusters.py raw/items clean/items --item sku --text title=name,description=desc --identify de,en

Reads a folder of Parquet shards with a row per item and writes another, which ``recbole-xling convert table`` reads.
Each batch goes through the records, the cleaning and the identification of the converters (:func:`cleaned`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd

from recbole_xling.convert.writing.languages import LanguageReader
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.text.cleaning import TextCleaner
from recbole_xling.text.record import DISPLAY, ItemText
from recbole_xling.utils.arguments import comma_list

_READERS: dict[tuple[str, ...], LanguageReader] = {}


def cleaned(
    batch: pd.DataFrame,
    *,
    item: str,
    text: Mapping[str, str],
    language: str | None = None,
    identify: Sequence[str] = (),
    keep: Sequence[str] = (),
) -> pd.DataFrame:
    """Return the items of a batch with clean texts and a language each.

    Args:
        batch: a row per item, any part of the table.
        item: column of ids; empty ones stay, and ``convert`` lists them.
        text: column of each part of a text by its name.
        language: column of languages as the source states them, None if it does not.
        identify: languages among which to identify those that are not stated.
        keep: further columns, which stay as they are.

    Returns:
        The columns ``item_id``, ``language``, those of the parts of texts by their names, and ``keep``; all are texts
        but those of ``keep``.
    """
    clean, reader = TextCleaner(), _reader(tuple(identify))
    rows = []
    for row in batch.to_dict("records"):
        given = {name: _text(row[column]) for name, column in text.items()}
        stated = reader.tag(_text(row[language])) if language else UNDETERMINED
        fields = {name: clean(value) for name, value in given.items()}
        record = reader.identified(ItemText(_text(row[item]), stated, fields, DISPLAY))
        further = {name: row[name] for name in keep}
        rows.append({"item_id": record.item_id, "language": record.language, **record.fields, **further})
    return pd.DataFrame(rows, columns=["item_id", "language", *text, *keep])


def _text(cell: Any) -> str:
    """Return a cell as a text; whole numbers are floats in a column that lacks some."""
    if cell is None or pd.isna(cell):
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)


def _reader(candidates: tuple[str, ...]) -> LanguageReader:
    """Return the reader of languages, which loads its model once for many batches."""
    if candidates not in _READERS:  # a cache of functools cannot be sent to the workers
        _READERS[candidates] = LanguageReader(candidates or None)
    return _READERS[candidates]


def with_ray(source: str, target: str, **options: Any) -> None:
    """Clean all shards by Ray Data, on the cluster that ``RAY_ADDRESS`` names or on this machine."""
    import ray

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.use_datasource_v2 = False  # the default of Ray 2.60 groups shards by size, in another order
    batches = ray.data.read_parquet(source).map_batches(partial(cleaned, **options), batch_format="pandas")
    batches.write_parquet(target, mode="error")  # the default adds the rows to those of an earlier run


def with_spark(source: str, target: str, **options: Any) -> None:
    """Clean all shards by PySpark, in the session that ``spark-submit`` has made or on this machine."""
    from pyspark.sql import SparkSession

    table = SparkSession.builder.getOrCreate().read.parquet(source)
    texts = ", ".join(f"`{name}` string" for name in ("item_id", "language", *options["text"]))
    kept = "".join(f", `{name}` {kind}" for name, kind in table.dtypes if name in options["keep"])
    table.mapInPandas(lambda batches: (cleaned(batch, **options) for batch in batches), texts + kept).write.parquet(
        target
    )


def main() -> None:
    """Read the command line and clean the shards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="folder of Parquet shards")
    parser.add_argument("target", help="folder of the new shards")
    parser.add_argument("--item", default="item_id", metavar="COLUMN", help="column of ids (default: item_id)")
    parser.add_argument("--text", required=True, metavar="PARTS", help="title=name,description=desc")
    parser.add_argument("--language", metavar="COLUMN", help="column of languages that the source states")
    parser.add_argument("--identify", type=comma_list, default=(), metavar="TAGS", help="languages to identify among")
    parser.add_argument("--keep", type=comma_list, default=(), metavar="COLUMNS", help="further columns")
    parser.add_argument("--engine", choices=("ray", "spark"), default="ray")
    options = vars(parser.parse_args())
    parts = (part.partition("=") for part in options["text"].split(","))
    options["text"] = {name: column or name for name, _, column in parts}
    run = {"ray": with_ray, "spark": with_spark}[options.pop("engine")]
    run(options.pop("source"), options.pop("target"), **options)


if __name__ == "__main__":
    main()
