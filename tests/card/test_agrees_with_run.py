"""The card counts what a run reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recbole_xling.card import build_card
from recbole_xling.run import run


@pytest.mark.parametrize("kind", ["plain", "ties", "Unix seconds"])
def test_languages_mixing_and_popularity_equal_a_runs(small_dataset, settings, kind):
    rng = np.random.default_rng(5)
    lengths = [1, 2, 3, 4, *rng.integers(1, 13, size=56).tolist()]
    folder = small_dataset(n_users=60, n_items=90, lengths=lengths, ties=kind == "ties")
    if kind == "Unix seconds":  # many of them are equal in single precision
        head, *rows = [line.split("\t") for line in (folder / "small.inter").read_text().splitlines()]
        rows = [[*row[:3], str(881250949 + 30 * float(row[3]))] for row in rows]
        (folder / "small.inter").write_text("\n".join("\t".join(row) for row in [head, *rows]))
    result = run("LLMSASRec", "small", config_dict={**settings, "epochs": 1})
    users = pl.read_parquet(Path(result["run_dir"]) / "users.parquet")
    card = build_card(folder, "small")
    slices = {name: values["n"] for name, values in result["slices"].items()}

    assert card.splits.test.interactions == result["n_test"]
    assert {f"target_language={row.language}": row.test for row in card.languages} == {
        name: n for name, n in slices.items() if name.startswith("target_language=")
    }
    assert card.mixing.cross_language == slices["cross_language=yes"]
    assert card.mixing.same_language == slices["cross_language=no"]
    pairs = users.group_by("user_language", "target_language").len()
    names = card.mixing.languages
    matrix = {
        (a, b): n
        for a, row in zip(names, card.mixing.targets, strict=True)
        for b, n in zip(names, row, strict=True)
        if n
    }
    assert matrix == {(a, b): n for a, b, n in pairs.iter_rows()}
    assert {f"popularity={band}": n for band, n in card.splits.popularity.items() if n} == {
        name: n for name, n in slices.items() if name.startswith("popularity=")
    }
    assert (card.checks.early_targets > 0) == (kind == "Unix seconds")
