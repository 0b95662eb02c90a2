"""Fusing runs: rows and items are matched by their ids, weights come from validation, the folder is a run's."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import recbole_xling
from recbole_xling.cli.main import main
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.evaluator.collector import excluded_items
from recbole_xling.model.xlingcrossencoder import XLingCrossEncoder
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.fuse import fuse
from recbole_xling.testing import make_tiny_encoder
from recbole_xling.utils.run_folder import read_result

# Hand-made tensors are compared here.
pytestmark = pytest.mark.usefixtures("cpu")

EXCLUDED = {"exclude_history": True}


def log_softmax_of(folder, users):
    """Score the test rows of a run by hand: the logarithm of the softmax over what is ranked, by token."""
    run = load_run(folder)
    loader, names = run.test_data, run.dataset.field2id_token
    tokens = [str(token) for token in names["item_id"]]
    if loader.is_sequential:
        rows = loader.collate_fn(np.arange(len(loader._dataset)))[0]
        scores = run.model.full_sort_predict(rows)
        scores.scatter_(1, excluded_items(run.config, rows), -torch.inf)
    else:
        rows, (of_row, items), _, _ = loader.collate_fn(np.arange(len(loader.uid_list)))
        scores = run.model.full_sort_predict(rows).view(len(rows), -1).float()
        scores[of_row, items] = -torch.inf
        scores[:, 0] = -torch.inf
    of_user = [str(names["user_id"][user]) for user in rows["user_id"]]
    logs = dict(zip(of_user, scores.log_softmax(dim=1), strict=True))
    order = np.argsort(tokens)
    return np.stack([logs[user].detach().numpy()[order] for user in users]), [tokens[place] for place in order]


@pytest.mark.parametrize("other", ["BPR", "HistoryItemKNN"])
def test_the_fused_ranking_is_that_of_the_weighted_logarithms(trained, tmp_path, other):
    folders = [trained("LLMSASRec", **EXCLUDED), trained(other, **EXCLUDED)]
    result = fuse(folders, weights=[2.0, 1.0], checkpoint_dir=tmp_path)
    table = pl.read_parquet(Path(result["run_dir"]) / "users.parquet")
    users = table["user_id"].to_list()
    (first, tokens), (second, same) = (log_softmax_of(folder, users) for folder in folders)
    assert tokens == same
    with np.errstate(invalid="ignore"):
        mixed = np.where(np.isinf(first) | np.isinf(second), -np.inf, 2 * first + second)
    target = np.array([tokens.index(token) for token in table["target_item"]])
    place = (mixed > mixed[np.arange(len(users)), target][:, None]).sum(axis=1) + 1
    want = np.where((place <= 10) & np.isfinite(mixed[np.arange(len(users)), target]), 1 / np.log2(place + 1), 0)
    np.testing.assert_allclose(table["ndcg@10"], want, atol=1e-6)
    own = pl.read_parquet(folders[0] / "users.parquet")
    assert table.columns == own.columns
    assert table.drop("ndcg@5", "ndcg@10", "recall@5", "recall@10", "mrr@5", "mrr@10").equals(
        own.drop("ndcg@5", "ndcg@10", "recall@5", "recall@10", "mrr@5", "mrr@10")
    )
    assert result == read_result(Path(result["run_dir"])) or json.loads(json.dumps(result)) == read_result(
        Path(result["run_dir"])
    )


def test_a_run_fused_with_itself_is_that_run(trained, tmp_path):
    folder = trained("LLMSASRec", **EXCLUDED)
    own = read_result(folder)
    for method in ("log_softmax", "rrf", "combsum", "combmnz"):
        result = fuse([folder, folder], method, checkpoint_dir=tmp_path)
        assert result["test"] == own["test"], method
        assert result["slices"] == own["slices"], method
        low, high = result["intervals"]["ndcg@10"]
        assert low < result["test"]["ndcg@10"] < high


def test_weights_are_tuned_without_a_look_at_the_test(trained, tmp_path, monkeypatch):
    folders = [trained("LLMSASRec", **EXCLUDED), trained("HistoryItemKNN", **EXCLUDED)]
    tuned = fuse(folders, checkpoint_dir=tmp_path)["fusion"]
    assert tuned["weights_tuned"] and sum(tuned["weights"]) == pytest.approx(1)
    build_data = recbole_xling.quick_start.build.build_data

    def other_targets(*args):
        data = build_data(*args)
        rows = data.test_data._dataset.inter_feat
        rows["item_id"] = rows["item_id"] % (data.dataset.item_num - 1) + 1
        return data

    monkeypatch.setattr(recbole_xling.quick_start.build, "build_data", other_targets)
    assert fuse(folders, checkpoint_dir=tmp_path)["fusion"]["weights"] == tuned["weights"]


def test_runs_that_differ_in_their_seed_alone_share_a_weight(trained, tmp_path, monkeypatch):
    kinds = []
    monkeypatch.setattr(
        "recbole_xling.quick_start.fuse.tuned_weights", lambda found, k, own: kinds.extend(own) or [1.0] * len(own)
    )
    seeds = [trained("LLMSASRec", **EXCLUDED, seed=seed) for seed in (2020, 2021)]
    moved = shutil.copytree(seeds[0], tmp_path / "moved")
    fuse([*seeds, moved, trained("LLMSASRec", **EXCLUDED, epochs=1)], checkpoint_dir=tmp_path)
    first, second, third, other = kinds
    assert first == second == third != other
    tuned = [
        trained("LLMSASRec", **EXCLUDED, seed=seed, init_from=str(start))
        for seed, start in zip((2020, 2021), seeds, strict=True)
    ]
    kinds.clear()
    fuse([*tuned, seeds[0], trained("LLMSASRec", **EXCLUDED, init_from=str(tuned[0]))], checkpoint_dir=tmp_path)
    first, second, plain, twice = kinds
    assert first == second and len({first, plain, twice}) == 3


def test_runs_that_do_not_fit_each_other_are_refused_and_leave_nothing(trained, tmp_path):
    folder = trained("LLMSASRec", **EXCLUDED)
    with pytest.raises(DataError, match=r"the items of .* differ: 18 only in .* such as 'si0'"):
        fuse([folder, trained("LLMSASRec", dataset="sud", **EXCLUDED)], checkpoint_dir=tmp_path)
    time = {"eval_args": {"split": {"GT": [0.8, 0.1, 0.1]}}}
    by_time = trained("LLMSASRec", **EXCLUDED, **time)
    with pytest.raises(DataError, match="the test rows of the runs differ"):
        fuse([folder, by_time], "rrf", checkpoint_dir=tmp_path)
    with pytest.raises(DataError, match=r"the validation rows of the runs differ.* give weights"):
        fuse([folder, by_time], checkpoint_dir=tmp_path)
    drawn = trained("LLMSASRec", **EXCLUDED, eval_args={"mode": "uni5"}, topk=[5], valid_metric="NDCG@5")
    with pytest.raises(ConfigError, match="does not rank all items"):
        fuse([folder, drawn], "rrf", checkpoint_dir=tmp_path)
    for arguments, message in [
        (([folder],), "at least two"),
        (([folder, folder], "rrf", [1.0]), "1 weights for 2 runs"),
        (([folder, folder], "rrf", [1.0, -1.0]), "not negative"),
        (([folder, folder], "rrf", [1.0, math.inf]), "must be finite"),
        (([folder, folder], "rrf", [math.nan, 1.0]), "must be finite"),
        (([folder, folder], "rrf", [1.0, math.nan]), "must be finite"),
        (([folder, folder], "rrf", [0.0, 0.0]), "one must be positive"),
        (([folder, folder], "combsun"), "Did you mean 'combsum'"),
    ]:
        with pytest.raises(ConfigError, match=message):
            fuse(*arguments, checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match="depth 9 is less"):
        fuse([folder, folder], "rrf", depth=9, checkpoint_dir=tmp_path)
    assert not list(tmp_path.glob("Fusion*"))


def test_targets_that_a_rule_leaves_out_count_as_not_found(trained, tmp_path, caplog):
    folder = trained("LLMSASRec", **EXCLUDED)
    assert fuse([folder, folder], only_languages=["de"], checkpoint_dir=tmp_path)["unreachable_targets"] == 0
    with pytest.raises(ConfigError, match="unknown language of items 'it'"):
        fuse([folder, folder], only_languages=["it"], checkpoint_dir=tmp_path)


def test_the_command_shows_the_fusion_beside_its_runs(trained, tmp_path, capsys):
    folders = [str(trained("LLMSASRec", **EXCLUDED)), str(trained("HistoryItemKNN", **EXCLUDED))]
    words = ["fuse", *folders, "--method", "rrf", "--output", str(tmp_path), "--quota", "de=2"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "rrf of 2 runs on nord, test; weights 1, 1 (default)" in told
    assert "difference from Fusion (rrf: LLMSASRec + HistoryItemKNN)" in told
    assert main(["fuse", *folders, "--quota", "de"]) == 2
    assert "write it as language=number" in capsys.readouterr().err


def test_a_fusion_on_data_that_have_grown_is_shown_without_a_comparison(trained, home, tmp_path, capsys):
    runs = [str(trained("LLMSASRec", **EXCLUDED)), str(trained("ContentKNN", **EXCLUDED))]
    shutil.copytree(home / "data" / "nord", tmp_path / "data" / "nord")
    with (tmp_path / "data" / "nord" / "nord.inter").open("a") as file:
        file.write("nu0\tni20\t1573469999\n")
    assert main(["fuse", *runs, "--output", str(tmp_path / "out"), "--data_path", str(tmp_path / "data")]) == 0
    told = capsys.readouterr().out
    assert "not compared with the results of the runs: the test rows of the runs differ" in told
    (folder,) = (tmp_path / "out").iterdir()
    targets = dict(pl.read_parquet(folder / "users.parquet").select("user_id", "target_item").iter_rows())
    assert targets["nu0"] == "ni20" and str(folder) in told


@pytest.fixture(scope="module")
def cross_encoder(trained, tmp_path_factory):
    """A small run of XLingCrossEncoder."""
    encoder = str(make_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny"))
    pairs = {"encoder": encoder, "encoder_options": None, "encoder_max_length": 40, "text_max_length": 12}
    pairs |= {"eval_args": {"mode": "uni5"}, "topk": [5], "valid_metric": "NDCG@5"}
    return trained("XLingCrossEncoder", **EXCLUDED, **pairs, epochs=1, train_negatives=1)


def test_a_second_stage_orders_the_candidates_of_the_first(trained, cross_encoder, tmp_path, monkeypatch, caplog):
    folders = [trained("HistoryItemKNN", **EXCLUDED), cross_encoder]
    full = {}
    for folder in folders:
        run = load_run(folder)
        rows = run.test_data._dataset[np.arange(len(run.test_data._dataset))]
        with torch.no_grad():
            scores = run.model.full_sort_predict(rows)
        scores.scatter_(1, rows["item_id_list"], -torch.inf)
        users, items = (run.dataset.field2id_token[field] for field in ("user_id", "item_id"))
        full[folder] = {users[user]: dict(zip(items, row.tolist(), strict=True)) for user, row in zip(
            rows["user_id"], scores, strict=True)}  # fmt: skip
    monkeypatch.setattr(XLingCrossEncoder, "full_sort_predict", None)  # candidates alone are scored
    result = fuse(folders, "rerank", depth=12, checkpoint_dir=tmp_path)
    table = pl.read_parquet(Path(result["run_dir"]) / "users.parquet")
    for row in table.rows(named=True):
        first, second = (full[folder][row["user_id"]] for folder in folders)
        ordered = sorted((item for item in first if first[item] > -np.inf), key=first.get, reverse=True)
        if first[ordered[11]] == first[ordered[12]]:
            continue  # any of equal items may be a candidate
        place = sorted(ordered[:12], key=second.get, reverse=True).index(row["target_item"]) + 1 if (
            row["target_item"] in ordered[:12]
        ) else 99  # fmt: skip
        assert row["ndcg@10"] == pytest.approx(1 / np.log2(place + 1) if place <= 10 else 0)
    assert result["fusion"]["weights"] == [0.0, 1.0] and result["fusion"]["depth"] == 12
    assert result["unreachable_targets"] == 0
    with pytest.raises(ConfigError, match="rerank needs two runs"):
        fuse([*folders, folders[0]], "rerank", checkpoint_dir=tmp_path)


def test_a_second_stage_may_be_any_model(trained, tmp_path):
    folder, other = trained("LLMSASRec", **EXCLUDED), trained("HistoryItemKNN", **EXCLUDED)
    assert fuse([other, folder], "rerank", depth=24, checkpoint_dir=tmp_path)["test"] == read_result(folder)["test"]
    same = fuse([folder, other], "rerank", [1.0, 0.0], depth=10, checkpoint_dir=tmp_path)
    assert same["test"] == read_result(folder)["test"]


def test_full_rankings_that_cost_too_much_are_refused(trained, cross_encoder, tmp_path, monkeypatch):
    def check(self, n_rows):
        raise ConfigError(f"{n_rows} are too many")

    monkeypatch.setattr(XLingCrossEncoder, "check_full_ranking", check)
    folder = trained("LLMSASRec", **EXCLUDED)
    with pytest.raises(ConfigError, match="30 are too many"):
        fuse([folder, cross_encoder], "rrf", checkpoint_dir=tmp_path, eval_args={"mode": "full"})
    fuse([folder, cross_encoder], "rerank", depth=10, checkpoint_dir=tmp_path)


def test_a_full_disk_leaves_no_folder_and_is_told_as_such(trained, tmp_path, monkeypatch):
    folder = trained("LLMSASRec", **EXCLUDED)

    def full(table, file):  # as polars tells it
        Path(file).write_bytes(b"half")
        raise pl.exceptions.ComputeError("No space left on device (os error 28)")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        fuse([folder, folder], "rrf", checkpoint_dir=tmp_path / "fused")
    assert not list((tmp_path / "fused").iterdir())
