"""What all tests share: few threads, no arguments of pytest's own, small datasets."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)

pytest_plugins = ["encoder_fixtures"]

LANGUAGES = ("de", "en", "fr")


def write_small_dataset(
    root: Path,
    name: str = "small",
    *,
    n_users: int = 40,
    n_items: int = 30,
    lengths: Sequence[int] | None = None,
    seed: int = 0,
    ties: bool = False,
    item_text: bool = True,
    title: Callable[[int], str] = lambda item: f"Titel {item} {'abcde'[item % 5] * 4}",
) -> Path:
    """Write a dataset in which each user walks along neighboring items, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float"]
    for user in range(n_users):
        length = int(lengths[user]) if lengths is not None else int(rng.integers(4, 13))
        start = int(rng.integers(n_items))
        for step in range(length):
            item = (start + step * (1 if rng.random() < 0.9 else 2)) % n_items
            time = step // 2 if ties else step + user / 1000
            lines.append(f"u{user}\ti{item}\t{1 + item % 5}\t{time}")
    order = rng.permutation(len(lines) - 1)
    (folder / f"{name}.inter").write_text("\n".join([lines[0]] + [lines[1 + i] for i in order]) + "\n")
    items = ["item_id:token\titem_language:token"]
    items += [f"i{item}\t{LANGUAGES[item % len(LANGUAGES)]}" for item in range(n_items)]
    (folder / f"{name}.item").write_text("\n".join(items) + "\n")
    if item_text:
        with open(folder / f"{name}.itemtext.jsonl", "w", encoding="utf-8") as file:
            for item in range(n_items):
                record = {
                    "item_id": f"i{item}",
                    "language": LANGUAGES[item % len(LANGUAGES)],
                    "fields": {"title": title(item)},
                    "source": "display",
                }
                file.write(json.dumps(record) + "\n")
    return folder


@pytest.fixture(autouse=True)
def own_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole's plain Config reads sys.argv; pytest's arguments are not meant for it."""
    monkeypatch.setattr("sys.argv", ["test"])


@pytest.fixture
def small_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a small dataset below ``tmp_path/data`` and returns its folder."""
    return lambda **kwargs: write_small_dataset(tmp_path / "data", **kwargs)


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, object]:
    """Settings of a fast run on the small dataset, everything written below ``tmp_path``."""
    return {
        "data_path": str(tmp_path / "data"),
        "checkpoint_dir": str(tmp_path / "saved"),
        "embedding_cache_dir": str(tmp_path / "cache"),
        "encoder": "hashing",
        "encoder_options": {"dimension": 32},
        "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "item_language"]},
        "epochs": 2,
        "train_batch_size": 64,
        "hidden_size": 16,
        "inner_size": 32,
        "MAX_ITEM_LIST_LENGTH": 8,
        "hidden_dropout_prob": 0.1,
        "attn_dropout_prob": 0.1,
        "topk": [5, 10],
    }
