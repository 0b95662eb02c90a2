"""Evaluating a saved run among the candidates of impressions, and the command."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from recbole.data.interaction import Interaction
from shop import write_shop

import recbole_xling
from recbole_xling.cli import main as cli
from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.evaluator import impressions
from recbole_xling.evaluator.bootstrap import bootstrap_interval
from recbole_xling.model.xlingcrossencoder import XLingCrossEncoder
from recbole_xling.quick_start.build import build_data
from recbole_xling.testing import make_tiny_encoder

# Hand-made tensors are compared here.
pytestmark = pytest.mark.usefixtures("cpu")


@pytest.fixture(scope="module")
def shown(home, write_shop, sequences):
    """The shop 'west' with impressions: at each user's third and last click, without a click, and of a stranger."""
    folder = write_shop(home / "data", "west", prefix="w", language="fr", n_users=12, n_items=18, shift=2)
    rng, rows = np.random.default_rng(0), []
    for user, walk in sequences("west").items():
        for step in (2, len(walk) - 1):
            others = [f"wi{item}" for item in rng.permutation(18)[:6] if f"wi{item}" != walk[step]]
            rows.append((user, 1573463000 + 10 * step, [walk[step], *others], [1] + [0] * len(others)))
    rows.append(("wu0", 1573463500, ["wi1", "wi2"], [0, 0]))
    rows.append(("wu1", 1573463500, ["wi3"], [1]))
    rows.append(("wu2", 1573463000, ["wi1", "wi2"], [0, 1]))  # at the time of the first click: nothing before
    rows.append(("stranger", 1573463500, ["wi1", "wi2"], [0, 1]))
    lines = ["impression_id:token\tuser_id:token\ttimestamp:float\titem_id:token_seq\tlabel:float_seq"]
    for number, (user, time, items, labels) in enumerate(rows):
        lines.append(f"{number}\t{user}\t{time}\t{' '.join(items)}\t{' '.join(map(str, labels))}")
    (folder / "west.imp").write_text("\n".join(lines) + "\n")
    return rows


def test_candidates_are_ranked_by_the_history_before_the_impression(trained, shown, sequences, hand_made_scores):
    result = recbole_xling.evaluate_run(trained(), "west", split="all", impressions=True)
    table = pl.read_parquet(Path(result["run_dir"]) / "impressions.parquet")
    walks = sequences("west")
    histories = [walks[user][: (time - 1573463000) // 10] for user, time, *_ in shown[:24]]
    scores, tokens = hand_made_scores(trained(), "west", histories)
    for row, score, (user, _, items, _) in zip(table.rows(named=True), scores, shown[:24], strict=True):
        clicked, *others = score[[tokens[item] for item in items]].tolist()
        place = 1 + sum(other > clicked for other in others)
        assert row["user_id"] == user
        assert row["auc"] == pytest.approx(1 - (place - 1) / len(others))
        assert row["mrr"] == pytest.approx(1 / place)
        assert row["ndcg@5"] == pytest.approx(1 / np.log2(place + 1) if place <= 5 else 0)
    assert table["impression_id"].to_list() == [str(n) for n in range(24)]
    assert result["left_out"] == {"no_click": 1, "only_clicks": 1, "no_history": 2}
    assert result["test"]["auc"] == pytest.approx(table["auc"].mean())
    low, high = result["intervals"]["auc"]
    expected = bootstrap_interval(table["auc"].to_numpy(), table["user_id"].to_numpy(), result["seed"])
    assert (low, high) == pytest.approx(expected)
    assert result["slices"]["user_language=fr"]["intervals"] == result["intervals"]
    assert low < result["test"]["auc"] < high
    assert {name: values["n"] for name, values in result["slices"].items()} == {
        "user_language=fr": 24,
        "candidate_language=fr": 24,
        "bilingual=no": 24,
    }


def test_a_model_of_pairs_scores_the_candidates_alone(trained, shown, sequences, tmp_path_factory, monkeypatch):
    encoder = str(make_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny"))
    pairs = {"encoder": encoder, "encoder_options": None, "encoder_max_length": 40, "text_max_length": 12}
    folder = trained("XLingCrossEncoder", **pairs, epochs=1, valid_users=3, train_negatives=1)
    monkeypatch.setattr(XLingCrossEncoder, "full_sort_predict", None)
    monkeypatch.setattr(impressions, "_PAIRS_AT_ONCE", 5)
    result = recbole_xling.evaluate_run(folder, "west", split="all", impressions=True)
    table = pl.read_parquet(Path(result["run_dir"]) / "impressions.parquet")
    monkeypatch.undo()
    assert result["left_out"] == {"no_click": 1, "only_clicks": 1, "no_history": 0}
    monkeypatch.setattr(XLingCrossEncoder, "scores_pairs", False)  # all items are scored, candidates taken from them
    same = recbole_xling.evaluate_run(folder, "west", split="all", impressions=True)
    assert pl.read_parquet(Path(same["run_dir"]) / "impressions.parquet").equals(table)


@pytest.fixture(scope="module")
def rated(shown, home):
    """The shop 'west' with two more columns of interactions, under the name 'rated'."""
    folder = home / "data" / "rated"
    folder.mkdir()
    for file in (home / "data" / "west").iterdir():
        (folder / file.name.replace("west", "rated")).write_bytes(file.read_bytes())
    header, *rows = (folder / "rated.inter").read_text().splitlines()
    more = [f"{header}\trating:float\tplace:token", *(f"{row}\t{n % 5}\t{n % 3}" for n, row in enumerate(rows))]
    (folder / "rated.inter").write_text("\n".join(more) + "\n")


@pytest.mark.usefixtures("rated")
def test_models_that_only_predict_score_the_candidates(trained, shown):
    for model, inter in (("NeuMF", []), ("FM", ["rating"])):
        columns = {"inter": ["user_id", "item_id", "timestamp", *inter], "item": ["item_id", "item_language"]}
        folder = trained(model, "rated", load_col=columns, **({"threshold": {"rating": 2}} if inter else {}))
        result = recbole_xling.evaluate_run(folder, split="all", impressions=True)
        table = pl.read_parquet(Path(result["run_dir"]) / "impressions.parquet")
        assert table.height == result["n_test"] == 24
        own = recbole_xling.load_run(folder)
        data = own.train_data._dataset
        user_ids, item_ids = (data.field2token_id[field] for field in (data.uid_field, data.iid_field))
        for row, (user, time, items, _) in zip(table.rows(named=True), shown[:24], strict=True):
            ids = {data.uid_field: [user_ids[user]] * len(items), data.iid_field: [item_ids[item] for item in items]}
            batch = {name: torch.tensor(values) for name, values in ids.items()}
            batch[data.time_field] = torch.full((len(items),), float(time))
            with torch.no_grad():
                clicked, *others = own.model.predict(data.join(Interaction(batch))).tolist()
            assert row["ndcg@10"] < 1 or all(other < clicked for other in others)
            if len({clicked, *others}) == len(items):
                assert row["mrr"] == pytest.approx(1 / (1 + sum(other > clicked for other in others)))


@pytest.mark.usefixtures("rated")
def test_a_column_that_impressions_lack_is_named(trained):
    inter = ["user_id", "item_id", "timestamp", "rating", "place"]
    columns = {"inter": inter, "item": ["item_id", "item_language"]}
    labeled = {"mode": "labeled", "split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO", "group_by": "user"}
    measured = {"metrics": ["LogLoss"], "valid_metric": "LogLoss", "eval_args": labeled}
    run = trained("FM", "rated", load_col=columns, threshold={"rating": 2}, **measured)
    with pytest.raises(ConfigError, match="FM reads the column 'place' of interactions, which impressions do not have"):
        recbole_xling.evaluate_run(run, split="all", impressions=True)


def test_the_test_part_of_impressions_begins_at_each_users_test_target(trained, shown):
    result = recbole_xling.evaluate_run(trained(), "west", impressions=True)
    table = pl.read_parquet(Path(result["run_dir"]) / "impressions.parquet")
    assert table["impression_id"].to_list() == [str(n) for n in range(1, 24, 2)]
    assert result["left_out"] == {"no_click": 1, "only_clicks": 1, "no_history": 0}


def test_a_model_that_ranks_without_a_history_ranks_users_without_one(trained, shown, monkeypatch):
    from recbole_xling.model.llmsasrec import LLMSASRec

    lengths = []

    def scores(self, interaction):
        lengths.extend(interaction[self.ITEM_SEQ_LEN].tolist())
        return torch.arange(self.n_items).expand(len(interaction), -1).float()

    monkeypatch.setattr(LLMSASRec, "full_sort_predict", scores)
    monkeypatch.setattr(LLMSASRec, "ranks_without_history", True, raising=False)
    result = recbole_xling.evaluate_run(trained(), "west", split="all", impressions=True)
    assert (result["n_test"], result["left_out"]["no_history"]) == (26, 0)
    assert lengths.count(0) == 2


def test_scores_do_not_depend_on_the_number_of_histories_per_batch(trained, shown, monkeypatch):
    from recbole_xling.data import impressions as reading
    from recbole_xling.utils import chunks

    tables = []
    for _ in range(2):
        result = recbole_xling.evaluate_run(trained(), "west", split="all", impressions=True)
        tables.append(pl.read_parquet(Path(result["run_dir"]) / "impressions.parquet"))
        monkeypatch.setattr(reading, "_BLOCK", 300)
        monkeypatch.setattr(chunks, "_SCORES_AT_ONCE", 40)
    assert tables[0].equals(tables[1])


def test_blocks_without_a_usable_impression_have_no_rows_in_slices_by_item(trained, shown, monkeypatch):
    from recbole_xling.data import impressions as reading

    tables = []
    for _ in range(2):
        sliced = {"slice_by": ["item.item_language"]}
        result = recbole_xling.evaluate_run(trained(), "west", split="all", impressions=True, config_dict=sliced)
        tables.append(pl.read_parquet(Path(result["run_dir"]) / "impressions.parquet"))
        monkeypatch.setattr(reading, "_BLOCK", 1)  # an impression each, the last ones without a click or a history
    assert tables[0].equals(tables[1]) and set(tables[0]["item.item_language"]) == {"fr"}


def test_a_user_without_interactions_keeps_the_language_that_he_states(trained, shown, home, monkeypatch):
    from recbole_xling.model.llmsasrec import LLMSASRec

    monkeypatch.setattr(LLMSASRec, "ranks_without_history", True, raising=False)
    monkeypatch.setattr(
        LLMSASRec, "full_sort_predict", lambda self, rows: torch.arange(self.n_items).expand(len(rows), -1).float()
    )
    users = home / "data" / "west" / "west.user"
    users.write_text("user_id:token\tuser_language:token\nstranger\tit\n")
    try:
        result = recbole_xling.evaluate_run(trained(), "west", split="all", impressions=True)
    finally:
        users.unlink()
    table = pl.read_parquet(Path(result["run_dir"]) / "impressions.parquet")
    assert dict(table.select("user_id", "user_language").iter_rows())["stranger"] == "it"


def test_an_item_that_only_the_trained_model_has_is_none_of_the_datasets(tmp_path):
    path = tmp_path / "west.imp"
    path.write_text("impression_id\tuser_id\ttimestamp\titem_id\tlabel\n0\tu\t1\tkept gone\t1 0\n")
    tokens = {"user": np.array(["[PAD]", "u"]), "item": np.array(["[PAD]", "gone", "kept"])}
    dataset = SimpleNamespace(uid_field="user", iid_field="item", field2id_token=tokens, absent={"item": np.array([1])})
    with pytest.raises(DataError, match="shows 'gone', which is not an item"):
        next(impressions._read(path, dataset))
    dataset.absent = {}
    assert next(impressions._read(path, dataset)).items.tolist() == [2, 1]


def test_impressions_are_not_placed_by_times_that_nobody_stated():
    """In random order, interactions without a time stay, and RecBole gives them the mean of the others."""
    plain = {"normalize_field": None, "normalize_all": None}
    dataset = SimpleNamespace(dataset_name="west", time_field="timestamp", missing_times=2, config=plain)
    data = SimpleNamespace(dataset=dataset, interactions=SimpleNamespace(times=np.zeros(3)))
    with pytest.raises(DataError, match="2 of 'west' have no timestamp"):
        impressions.check_impressions({"eval_args": {"order": "RO"}}, data, "test")
    for scaled in ({"normalize_all": True}, {"normalize_field": ["timestamp"]}):  # RecBole makes them 0 to 1
        dataset.config = {**plain, **scaled}
        with pytest.raises(DataError, match="normalize_all or normalize_field scales timestamp"):
            impressions.check_impressions({"eval_args": {"order": "RO"}}, data, "test")


@pytest.mark.parametrize("split", ["test", "valid"])
@pytest.mark.parametrize(
    ("model", "changed"),
    [
        ("LLMSASRec", {"unused_col": {"inter": ["timestamp"]}}),
        ("XLingMLP", {"load_col": {"inter": ["user_id", "item_id"]}}),
    ],
)
def test_times_that_the_split_does_not_keep_are_named_before_anything_is_encoded(home, shown, model, changed, split):
    known = {"data_path": str(home / "data"), "encoder": "hashing", "topk": [10], **changed}
    config = XLingConfig(model, "west", config_dict=known)
    data = build_data(config)
    with pytest.raises(DataError, match=r"have no 'timestamp' any more: evaluate --split all, or .* load_col"):
        impressions.check_impressions(config, data, split)
    impressions.check_impressions(config, data, "all")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("0\twu1\t1573463500\twi1 nowhere\t1 0\n", "impression 0 shows 'nowhere'"),
        ("0\twu1\t1573463500\twi1 wi2\t1 1\n", "no impression of split 'all' has both"),
        ("0\twu1\t1573463500\twi1 wi2\t1\n", "as many labels"),
    ],
)
def test_what_impressions_need_is_checked_before_anything_is_encoded(trained, shown, home, monkeypatch, rows, message):
    from recbole_xling.model.llmsasrec import LLMSASRec

    run, path = trained(), home / "data" / "west" / "west.imp"
    monkeypatch.setattr(LLMSASRec, "__init__", lambda *_: pytest.fail("the model is built first"))
    whole = path.read_bytes()
    path.write_bytes(whole.partition(b"\n")[0] + b"\n" + rows.encode())
    try:
        with pytest.raises(DataError, match=message):
            recbole_xling.evaluate_run(run, "west", split="all", impressions=True)
    finally:
        path.write_bytes(whole)


def test_the_evaluate_command_prints_the_results_and_their_folder(trained, shown, capsys):
    assert cli.main(["evaluate", str(trained()), "--dataset", "sud", "--topk=[10]"]) == 0
    out = capsys.readouterr().out
    for line in ("LLMSASRec of nord on sud, test", "all users", "target in: it", "item: cold"):
        assert line in out
    assert (Path(re.search(r"Folder: (.*)", out)[1]) / "result.json").is_file()
    assert cli.main(["evaluate", str(trained()), "-d", "west", "--split", "all", "--impressions"]) == 0
    out = capsys.readouterr().out
    for line in ("all impressions", "candidates in: fr", "left out: 1 no click, 1 only clicks, 2 no history"):
        assert line in out
    assert cli.main(["evaluate", "nowhere", "--dataset", "sud"]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["XLingTwoTower", "XLingMLP"])
def test_readers_of_whom_nothing_else_is_known_are_scored_as_readers_of_their_language(tmp_path, tiny_encoder, model):
    """Whether their file is loaded, which tells that there are such users, or not."""
    folder = write_shop(tmp_path / "data")
    with (folder / "shop.user").open("a") as users:
        users.writelines(f"new{number}\tFR\t30\t\tfr\n" for number in range(6))
    lines = ["impression_id:token\tuser_id:token\ttimestamp:float\titem_id:token_seq\tlabel:float_seq"]
    for number in range(6):
        shown = " ".join(f"i{(5 * number + 7 * place) % 24}" for place in range(6))
        lines.append(f"{number}\tnew{number}\t100\t{shown}\t1 0 0 0 0 0")
    (folder / "shop.imp").write_text("\n".join(lines) + "\n")
    settings = {"data_path": str(tmp_path / "data"), "checkpoint_dir": str(tmp_path), "encoder": str(tiny_encoder)}
    settings |= {"encoder_max_length": 24, "epochs": 2, "topk": [10], "text_view": "reader", "reader_vectors": "reader"}
    if model == "XLingMLP":
        settings |= {"features": ["language", "text"], "encoder": "hashing", "encoder_max_length": None}
    columns, tables = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}, []
    for more in ({"user": ["user_id"]}, {}):
        run = recbole_xling.run(model, "shop", config_dict={**settings, "load_col": {**columns, **more}})
        result = recbole_xling.evaluate_run(run["run_dir"], split="all", impressions=True)
        tables.append(pl.read_parquet(Path(result["run_dir"]) / "impressions.parquet"))
    names = ["user_id", "user_language", "candidate_language", "auc", "mrr"]
    assert tables[0].select(names).equals(tables[1].select(names))
    assert set(tables[0]["user_language"]) == {"fr"}
