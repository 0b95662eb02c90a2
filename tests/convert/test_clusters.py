"""The script for clusters gives what the converter gives, on plain batches and run by the engines on this machine."""

from __future__ import annotations

import importlib.util
import json
import sys
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


def _reasons(rejects: Path) -> list[str]:
    lines = rejects.read_text().splitlines()
    return sorted(json.loads(line)["reason"].replace("sku", "item_id") for line in lines)


@pytest.fixture
def ray_engine(monkeypatch):
    """A Ray that packs shards into several tasks, as it does with those of a real catalog."""
    ray = pytest.importorskip("ray", exc_type=ImportError)
    pytest.importorskip("pyarrow")
    if tuple(map(int, ray.__version__.split(".")[:2])) < (2, 50):
        pytest.skip("the Ray that RecBole asks for cannot read Parquet by today's pyarrow")
    monkeypatch.setenv("RAY_DATA_PARQUET_BIN_PACKING_BYTES", "1250")
    ray.init(num_cpus=1, include_dashboard=False, logging_level="error")
    yield "with_ray"
    ray.shutdown()


@pytest.fixture
def spark_engine(monkeypatch):
    """Spark, if there is a Java."""
    sql = pytest.importorskip("pyspark.sql")
    pytest.importorskip("pyarrow")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    try:
        session = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    except Exception as error:  # PySpark tells that there is no Java by an error of its own
        pytest.skip(f"Spark does not start: {error}")
    yield "with_spark"
    session.stop()


@pytest.mark.slow  # the engines start in ten seconds
@pytest.mark.parametrize("engine", ["ray_engine", "spark_engine"])
def test_an_engine_gives_the_dataset_that_convert_gives(engine, clusters, tmp_path, request):
    run = getattr(clusters, request.getfixturevalue(engine))
    settings = write(tmp_path, ".parquet")
    names = ("NA", "007", "7", "", None, "a\tb")
    ids = [{"sku": name, "name": f"<b>Ding</b> &amp; {name!r}", "eur": None} for name in names]
    rows = [PRODUCTS[0] | row for row in ids] + PRODUCTS + [PRODUCTS[4] | {"name": None, "desc": "n/a"}, PRODUCTS[2]]
    # the first rows of the ids of both last ones are in the first shards; shards differ in size
    shards, source = tmp_path / "raw", pl.DataFrame(rows)
    shards.mkdir()
    for number, (start, length) in enumerate([(0, 1), (1, 10), (11, 2), (13, 6), (19, 1)]):
        source.slice(start, length).write_parquet(shards / f"{number}.parquet")
    want = _dataset(tmp_path / "whole", SETTINGS | settings | {"items": shards}, clean=TextCleaner(), max_bad=0.5)
    options = {"item": "sku", "text": TEXT, "language": "lang", "keep": ["maker", "eur", "tags"]}
    run(str(shards), str(tmp_path / "clean"), **options)
    own = {"items": tmp_path / "clean", "item_id": "item_id", "language": "language", "text": "title,description"}
    got = _dataset(tmp_path / "parts", SETTINGS | settings | own, max_bad=0.5)
    if engine == "spark_engine":  # which keeps no order
        got, want = ({name: sorted(text.splitlines()) for name, text in files.items()} for files in (got, want))
    assert got == want
    parts, whole = (_reasons(tmp_path / of / "d" / "d.rejects.jsonl") for of in ("parts", "whole"))
    assert parts == whole and len(parts) > 5
    with pytest.raises(Exception, match=r"(?i)exists"):
        run(str(shards), str(tmp_path / "clean"), **options)
