"""A finished run of a shop with three languages and hostile titles."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from shop import write_shop

from recbole_xling.quick_start.train import run
from recbole_xling.testing import small_settings

EVIL = "</script><script>window.evil = 1</script><b>"


def write_evil_shop(root: Path) -> None:
    """Write the shop, with one title, one user and one item whose names are HTML, and one title in Arabic."""
    folder = write_shop(root)
    path = folder / "shop.itemtext.jsonl"
    texts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for text in texts:
        if text["item_id"] in ("i3", "i4"):
            text["fields"]["title"] = f"{EVIL} {text['item_id']}" if text["item_id"] == "i3" else "كتاب أزرق"
        text["item_id"] = text["item_id"].replace("i5", "<i>5")
    path.write_text("".join(json.dumps(text) + "\n" for text in texts), encoding="utf-8")
    for suffix in ("inter", "item", "user"):
        path = folder / f"shop.{suffix}"
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        renamed = {"i5": "<i>5", "u0": "<img src=x onerror=alert(1)>"}
        path.write_text("\n".join("\t".join(renamed.get(cell, cell) for cell in row) for row in rows) + "\n")


@pytest.fixture(scope="module", autouse=True)
def _without_umap() -> Iterator[None]:
    """Draw maps by principal axes, whatever is installed: UMAP compiles itself for some seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "umap", None)
        yield


@pytest.fixture(scope="module")
def shop_settings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Settings of a run on the hostile shop, whose readers see it in their own languages."""
    folder = tmp_path_factory.mktemp("shop")
    write_evil_shop(folder / "data")
    return {**small_settings(folder), "load_col": None, "text_view": "reader"}


@pytest.fixture(scope="module")
def finished(shop_settings: dict[str, Any]) -> Path:
    """The folder of a run."""
    own = {"hidden_size": 16, "reader_vectors": "reader", "beyond_accuracy": True}
    return Path(run("LLMSASRec", "shop", config_dict={**shop_settings, **own})["run_dir"])


@pytest.fixture(scope="module")
def finished_bpr(shop_settings: dict[str, Any]) -> Path:
    """The folder of a run of a model of RecBole's, which knows users and items by their ids."""
    known = {key: value for key, value in shop_settings.items() if key != "text_view"}
    return Path(run("BPR", "shop", config_dict=known)["run_dir"])
