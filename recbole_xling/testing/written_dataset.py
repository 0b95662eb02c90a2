"""Checks of a dataset that a converter wrote: its files are read back as RecBole reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xling.config import XLingConfig
from recbole_xling.convert.writing.report import ConvertReport
from recbole_xling.data.catalog import dataset_catalog
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.language.tags import is_language
from recbole_xling.text.store import ItemTextStore

_ATOMIC = (".inter", ".item", ".user", ".imp")


def check_dataset(report: ConvertReport) -> None:
    """Read the files of a written dataset back as RecBole does, and compare them with each other and the report.

    Args:
        report: what :func:`~recbole_xling.convert.write_dataset` returned.

    Raises:
        AssertionError: a file cannot be read, differs from the report, or names unknown items or users.
    """
    folder, name = report.folder, report.folder.name
    tables = {path.suffix[1:]: _read_atomic(path) for path in folder.iterdir() if path.suffix in _ATOMIC}
    items, interactions = tables["item"], tables["inter"]
    assert (len(items), len(interactions)) == (report.items, report.interactions)
    assert items["item_id"].is_unique and items["item_language"].map(is_language).all()
    assert interactions["item_id"].isin(items["item_id"]).all()
    numbers = interactions[[name for name in ("rating", "timestamp") if name in interactions]]
    assert np.isfinite(numbers).all(axis=None)
    users = set(interactions["user_id"])
    if "user" in tables:
        assert tables["user"]["user_id"].is_unique
        users |= set(tables["user"]["user_id"])
    assert len(users) == report.users
    if "imp" in tables:
        impressions, known = tables["imp"], set(items["item_id"])
        assert impressions["user_id"].isin(list(users)).all()
        cells = (impressions[column].str.split(" ") for column in ("item_id", "label"))
        for shown, labels in zip(*cells, strict=True):
            assert len(shown) == len(labels) and set(shown) <= known and set(labels) <= {"0", "1"}
    path = folder / f"{name}.itemtext.jsonl"
    texts = list(ItemTextStore.load(path).texts()) if path.exists() else []
    assert len(texts) == sum(report.texts_per_language.values())
    languages = dict(zip(items["item_id"], items["item_language"], strict=True))
    assert {text.item_id for text in texts} <= set(languages)
    assert all(text.source != "display" or text.language == languages[text.item_id] for text in texts)
    rejects = folder / f"{name}.rejects.jsonl"
    rows = [json.loads(line) for line in rejects.read_text().splitlines()] if rejects.exists() else []
    assert len(rows) == sum(report.rejected.values()) + sum(report.omitted.values())
    assert sum(report.rejected.values()) <= report.rows_read
    assert json.loads((folder / f"{name}.convert.json").read_text(encoding="utf-8"))["items"] == report.items


def _read_atomic(path: Path) -> pd.DataFrame:
    """Read an atomic file with RecBole's options; ids must be there, and each line must be a row."""
    header = path.read_text(encoding="utf-8").partition("\n")[0].split("\t")
    kinds: dict[str, Any] = {column: np.float64 if column.endswith(":float") else str for column in header}
    frame = pd.read_csv(path, delimiter="\t", usecols=header, dtype=kinds, encoding="utf-8", engine="python")
    frame.columns = pd.Index([column.partition(":")[0] for column in header])
    assert len(frame) == path.read_bytes().count(b"\n") - 1
    for column in ("user_id", "item_id"):
        if column in frame.columns:
            assert frame[column].notna().all()
    return frame


def check_loading(report: ConvertReport, folder: Path) -> None:
    """Load all columns and texts of a written dataset as a run does; settings and caches go to ``folder``.

    Raises:
        AssertionError: users, items, interactions or texts are not those of the report.
    """
    paths = [path for path in report.folder.iterdir() if path.suffix in _ATOMIC[:3]]
    headers = {path.suffix[1:]: path.read_text(encoding="utf-8").partition("\n")[0] for path in paths}
    columns = {what: [cell.partition(":")[0] for cell in header.split("\t")] for what, header in headers.items()}
    settings = {"data_path": str(report.folder.parent), "checkpoint_dir": str(folder), "encoder": "hashing",
                "embedding_cache_dir": str(folder / "cache"), "load_col": columns}  # fmt: skip
    config = XLingConfig("LLMSASRec", report.folder.name, config_dict=settings)
    dataset = XLingDataset(config)
    sizes = dataset.user_num - 1, dataset.item_num - 1, dataset.inter_num
    written = report.users, report.items, report.interactions
    assert sizes == written, (sizes, written)
    texts = report.folder / f"{report.folder.name}.itemtext.jsonl"
    if texts.exists():
        assert len(dataset_catalog(config).languages) == 1 + len(ItemTextStore.load(texts))
