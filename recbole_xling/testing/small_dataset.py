"""A dataset of a few users and items, and settings for a fast run on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_LANGUAGES = ("de", "en", "fr")


def small_settings(folder: Path) -> dict[str, Any]:
    """Return settings of a fast run on :func:`write_small_dataset`'s dataset in ``folder/data``, without a model's own.

    Everything that a run writes goes below ``folder``; texts are encoded by hashing.
    """
    return {
        "data_path": str(folder / "data"),
        "checkpoint_dir": str(folder / "saved"),
        "embedding_cache_dir": str(folder / "cache"),
        "encoder": "hashing",
        "encoder_options": {"dimension": 32},
        "show_progress": False,
        "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "item_language"]},
        "epochs": 2,
        "train_batch_size": 64,
        "MAX_ITEM_LIST_LENGTH": 8,
        "topk": [5, 10],
    }


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
    """Write a dataset in which each user walks along neighboring items, so that there is something to learn.

    Args:
        root: what ``data_path`` is set to; the files go to ``root/name``.
        name: the dataset's name.
        n_users: number of users, ``u0`` and so on.
        n_items: number of items, ``i0`` and so on; their languages are German, English and French in turn.
        lengths: interactions of each user; 4 to 12 at random by default.
        seed: of the random walks.
        ties: give each two interactions of a user in sequence the same time.
        item_text: write ``<name>.itemtext.jsonl``.
        title: returns the title of an item by its number.

    Returns:
        The folder of the dataset.
    """
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
    items += [f"i{item}\t{_LANGUAGES[item % len(_LANGUAGES)]}" for item in range(n_items)]
    (folder / f"{name}.item").write_text("\n".join(items) + "\n")
    if item_text:
        with open(folder / f"{name}.itemtext.jsonl", "w", encoding="utf-8") as file:
            for item in range(n_items):
                record = {
                    "item_id": f"i{item}",
                    "language": _LANGUAGES[item % len(_LANGUAGES)],
                    "fields": {"title": title(item)},
                    "source": "display",
                }
                file.write(json.dumps(record) + "\n")
    return folder
