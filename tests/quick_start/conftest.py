"""What the tests of evaluating saved runs share: two shops, runs trained on one, and scores made by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import recbole_xling
from recbole_xling.config import XLingConfig
from recbole_xling.quick_start.build import build, load_run

TEXT_ONLY = {"item_representation": "text_only", "text_projection": "linear"}
WORDS = ("rot", "blau", "gelb", "klein", "lang", "alt")


def _write_shop(root: Path, name: str, *, prefix: str, language: str, n_users: int, n_items: int, shift: int) -> Path:
    """Write a shop with ids and a language of its own, in which users walk along neighboring items."""
    folder = root / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(shift)
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(n_users):
        start = int(rng.integers(n_items))
        for step in range(int(rng.integers(4, 9))):
            lines.append(f"{prefix}u{user}\t{prefix}i{(start + step) % n_items}\t{1573463000 + 10 * step}")
    (folder / f"{name}.inter").write_text("\n".join(lines) + "\n")
    items = [f"{prefix}i{item}\t{language}" for item in range(n_items)]
    (folder / f"{name}.item").write_text("\n".join(["item_id:token\titem_language:token", *items]) + "\n")
    texts = [
        {
            "item_id": f"{prefix}i{item}",
            "language": language,
            "fields": {"title": f"{WORDS[item % 6]} {WORDS[(item + shift) // 2 % 6]} {item}", "brand": WORDS[item % 4]},
            "source": "display",
        }
        for item in range(n_items)
    ]
    (folder / f"{name}.itemtext.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="session")
def write_shop() -> Callable[..., Path]:
    """Return the function that writes a shop."""
    return _write_shop


@pytest.fixture(scope="package")
def home(tmp_path_factory):
    """A folder with two shops: 'nord' to train on, 'sud' with other users, items, and another language."""
    root = tmp_path_factory.mktemp("home")
    _write_shop(root / "data", "nord", prefix="n", language="de", n_users=30, n_items=24, shift=1)
    _write_shop(root / "data", "sud", prefix="s", language="it", n_users=20, n_items=18, shift=3)
    return root


@pytest.fixture(scope="package")
def trained(home):
    """Return a function that trains on 'nord', each model once."""
    runs = {}

    def train(model="LLMSASRec", dataset="nord", **changed):
        key = (model, dataset, str(changed))
        if key not in runs:
            settings = {
                "data_path": str(home / "data"),
                "checkpoint_dir": str(home / "saved"),
                "embedding_cache_dir": str(home / "cache"),
                "encoder": "hashing",
                "encoder_options": {"dimension": 32},
                "show_progress": False,
                "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "item_language"]},
                "epochs": 2,
                "MAX_ITEM_LIST_LENGTH": 6,
                "topk": [5, 10],
            }
            ours = {"hidden_size": 16, "inner_size": 16, "n_layers": 1, **TEXT_ONLY} if model == "LLMSASRec" else {}
            result = recbole_xling.run(model, dataset, config_dict={**settings, **ours, **changed})
            runs[key] = Path(result["run_dir"])
        return runs[key]

    return train


@pytest.fixture(scope="package")
def sequences(home):
    """Return a function that reads the items of each user of a shop, in order of time."""

    def read(dataset):
        found = {}
        for line in (home / "data" / dataset / f"{dataset}.inter").read_text().splitlines()[1:]:
            user, item, _ = line.split("\t")
            found.setdefault(user, []).append(item)
        return found

    return read


@pytest.fixture(scope="package")
def hand_made_scores():
    """Return :func:`_hand_made_scores`."""
    return _hand_made_scores


def _hand_made_scores(run, dataset, histories, **changed):
    """Score all items of a dataset for histories of external ids, from the run's weights and the texts alone."""
    own = load_run(run)
    settings = {key: own.config[key] for key in ("embedding_cache_dir", "encoder", "encoder_options", "load_col")}
    settings |= {"data_path": str(Path(own.config["data_path"]).parent), "show_progress": False, **changed}
    data = build(XLingConfig("LLMSASRec", dataset, config_dict=settings)).dataset
    vectors = torch.from_numpy(data.catalog.vectors)
    vectors = vectors / vectors[1:].square().sum(1).mean().sqrt()
    tokens = data.field2token_id[data.iid_field]
    with torch.no_grad():
        table = own.model.items.text_projection(vectors)
        scores = []
        for history in histories:
            item_seq = torch.tensor([[tokens[item] for item in history[-6:]]])
            scores.append((own.model.forward(item_seq, torch.tensor([item_seq.shape[1]]), table) @ table.T)[0])
    return torch.stack(scores), tokens
