"""The script for clusters: its function on plain batches gives what the converter gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from dumps.table import PRODUCTS, SETTINGS, write

from recbole_xling.convert import write_dataset
from recbole_xling.convert.sources.table import TableConverter
from recbole_xling.text.cleaning import TextCleaner

SCRIPT = Path(__file__).parents[2] / "docs" / "clusters.py"
NAMES = ("inter", "item", "user", "itemtext.jsonl")
TEXT = {"title": "name", "description": "desc"}


@pytest.fixture(scope="module")
def clusters():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("clusters", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dataset(folder: Path, settings, **options) -> dict[str, str]:
    write_dataset(TableConverter(**settings), folder, "d", show_progress=False, **options)
    return {name: (folder / "d" / f"d.{name}").read_text() for name in NAMES}


def test_shards_of_clean_batches_give_the_dataset_that_convert_gives(clusters, tmp_path):
    settings = write(tmp_path, ".parquet")
    products = pl.DataFrame(PRODUCTS).with_columns(pl.col("name") + " <b>M&uuml;ller</b>  &amp; Co ")
    products.write_parquet(settings["items"])
    want = _dataset(tmp_path / "whole", settings, clean=TextCleaner())
    shards = tmp_path / "shards"
    shards.mkdir()
    for number, start in enumerate(range(0, products.height, 5)):
        batch = pd.DataFrame(products.slice(start, 5).to_dicts())
        options = {"item": "sku", "text": TEXT, "language": "lang", "keep": ["maker", "eur", "tags"]}
        pl.DataFrame(clusters.cleaned(batch, **options).to_dict("list")).write_parquet(shards / f"{number}.parquet")
    own = {"items": shards, "item_id": "item_id", "language": "language", "text": "title,description"}
    assert _dataset(tmp_path / "parts", {**SETTINGS, **settings, **own}) == want


def test_what_is_missing_stays_empty_and_numbers_are_ids(clusters):
    batch = pd.DataFrame({"id": [1.0, None], "name": ["a&amp;b", None]})
    got = clusters.cleaned(batch, item="id", text={"title": "name"})
    assert got.to_dict("list") == {"item_id": ["1", ""], "language": ["und", "und"], "title": ["a&b", ""]}
    empty = clusters.cleaned(batch[:0], item="id", text={"title": "name"})
    assert list(empty.columns) == ["item_id", "language", "title"] and empty.empty


def test_languages_that_are_not_stated_are_identified(clusters):
    titles = ["Der Hund läuft über die große Wiese", "The dog runs across the meadow in the morning"]
    batch = pd.DataFrame({"id": ["1", "2"], "title": titles, "lang": ["", "en-GB"]})
    options = {"item": "id", "text": {"title": "title"}, "language": "lang", "identify": ["de", "en"]}
    assert clusters.cleaned(batch, **options)["language"].tolist() == ["de", "en"]
