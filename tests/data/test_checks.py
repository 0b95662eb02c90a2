"""Labels, modes and parts: what cannot work is refused in one line, what is ignored is said."""

from __future__ import annotations

import shutil

import pytest
import torch
from recbole.evaluator import Collector, Evaluator
from recbole.trainer import Trainer

from recbole_xling.errors import ConfigError, DataError
from recbole_xling.quick_start.build import build_trainer
from recbole_xling.quick_start.train import run

VALUE = {"metrics": ["AUC", "LogLoss"], "valid_metric": "AUC"}
LABELED = {"eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "labeled"}}
LIKED = {"threshold": {"rating": 3}}


@pytest.fixture
def build_any(build_small):
    """Build any model, which may not know the settings of layers."""
    return lambda model, **changed: build_small(model, allow_unknown_keys=True, **changed)


def with_mode(mode, split=None):
    return {"eval_args": {**LABELED["eval_args"], "mode": mode, "split": split or {"LS": "valid_and_test"}}}


@pytest.mark.parametrize("model", ["DeepFM", "BPR", "SASRec", "LLMSASRec"])
def test_labeled_evaluation_equals_recboles(small_dataset, build_any, model):
    small_dataset()
    metrics = VALUE if model == "DeepFM" else {"metrics": ["AUC"], "valid_metric": "AUC"}
    parts = build_any(model, **metrics, **LABELED, **LIKED, metric_decimal_place=6)
    theirs = Trainer(parts.config, parts.model)
    theirs.eval_collector, theirs.evaluator = Collector(parts.config), Evaluator(parts.config)
    want = theirs.evaluate(parts.test_data, load_best_model=False)
    assert build_trainer(parts.config, parts.model).evaluate(parts.test_data, load_best_model=False) == want
    labels = parts.test_data._dataset.inter_feat["label"]
    items = [
        int(str(parts.dataset.field2id_token["item_id"][i])[1:]) for i in parts.test_data._dataset.inter_feat["item_id"]
    ]
    assert labels.tolist() == [float(1 + item % 5 >= 3) for item in items]  # as write_small_dataset rates


def test_a_labeled_run_counts_its_test(small_dataset, settings_without_layers):
    small_dataset()
    known = {key: value for key, value in settings_without_layers.items() if key != "MAX_ITEM_LIST_LENGTH"}
    result = run("FM", "small", config_dict={**known, **VALUE, **LABELED, **LIKED})
    assert result["n_test"] == 40 and 0 < result["test"]["auc"] < 1
    of_items = [result["slices"][f"target_language={language}"] for language in ("de", "en", "fr")]
    assert sum(part["n"] for part in of_items) == 40
    mean = sum(part["n"] * part["logloss"] for part in of_items) / 40
    assert mean == pytest.approx(result["test"]["logloss"], abs=1e-4)  # rounded there


@pytest.mark.parametrize(
    ("model", "changed", "message"),
    [
        ("LLMSASRec", {**VALUE, **LABELED}, "no column 'label'"),
        ("DeepFM", {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}, "DeepFM learns from labels"),
        ("DeepFM", {"LABEL_FIELD": "rating"}, "set threshold, such as {'rating': 4}"),
        ("BPR", {**LABELED, **LIKED}, "mode labeled compares scores with labels"),
        ("BPR", {**VALUE, **LABELED, "threshold": {"rating": 0}}, "all valid labels of 'small' are 1"),
        ("BPR", {"threshold": {"stars": 3}}, "threshold: unknown column 'stars'"),
        (
            "SASRec",
            {"val_interval": {"stars": "[3,inf)"}},
            "val_interval: unknown column 'stars'",
        ),
        ("LLMSASRec", {"val_interval": {"rating": "[30,inf)"}}, "empty|nothing of"),
        ("BPR", {"user_inter_num_interval": "[100,inf)"}, "empty|nothing of"),
    ],
)
def test_what_the_data_lack_is_said_in_one_line(small_dataset, build_any, model, changed, message):
    small_dataset()
    with pytest.raises((ConfigError, DataError), match=message) as caught:
        build_any(model, **changed)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", ["LLMSASRec", "SASRec", "BPR"])
@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"LS": "test_only"}])
def test_users_with_one_interaction_leave_nothing_to_test_on(small_dataset, build_any, model, split):
    small_dataset(lengths=[1] * 40)
    with pytest.raises(DataError, match=r"of 'small' leaves nothing to t.* on: 40 users with 1 to 1 interactions"):
        build_any(model, **with_mode("full", split))


def test_a_split_without_a_test_is_allowed(small_dataset, build_any, caplog):
    small_dataset()
    assert not len(build_any("BPR", **with_mode("full", {"LS": "valid_only"})).test_data)
    assert not len(build_any("BPR", **with_mode("full", {"RS": [1, 0, 0]})).test_data)
    assert "leaves nothing to validate on" in caplog.text


def test_labels_that_nobody_reads_are_mentioned(small_dataset, build_any, caplog):
    small_dataset()
    parts = build_any("LLMSASRec", **LIKED)
    negative = int((parts.test_data._dataset.inter_feat["label"] == 0).sum())
    assert "LLMSASRec does not learn from labels" in caplog.text
    assert f"{negative} of 40 interactions with label 0 of the test count like all others" in caplog.text
    caplog.clear()
    build_any("DeepFM", **LIKED, **VALUE, **LABELED)
    assert "labels" not in caplog.text


def test_validation_can_be_labeled_and_the_test_sampled(small_dataset, build_any):
    small_dataset()
    parts = build_any("DeepFM", **VALUE, **LIKED, **with_mode({"valid": "labeled", "test": "uni5"}))
    assert sum(len(batch) for batch, *_ in parts.valid_data) == 40
    assert sum(len(batch) for batch, *_ in parts.test_data) == 40 * 6


def test_scores_that_are_no_probabilities_have_no_logloss(small_dataset, build_any):
    small_dataset()
    parts = build_any("BPR", **VALUE, **LABELED, **LIKED)
    torch.nn.init.normal_(parts.model.user_embedding.weight)
    with pytest.raises(ConfigError, match="LogLoss compares labels with probabilities, but scores of BPR reach from"):
        build_trainer(parts.config, parts.model).evaluate(parts.test_data, load_best_model=False)


def test_models_that_know_users_by_their_training_are_told_of_users_without_any(small_dataset, build_any, caplog):
    folder = small_dataset(n_users=8, lengths=[5] * 8)
    users = [f"u{user}\t{'de' if user < 5 else 'fr'}" for user in range(8)]
    (folder / "small.user").write_text("\n".join(["user_id:token\tuser_language:token", *users]) + "\n")
    transfer = {"split": {"LT": {"source": ["de"], "target": ["fr"], "by": "user"}}, "order": "TO", "mode": "full"}
    build_any("BPR", eval_args=transfer)
    assert "BPR knows users by their training interactions, which 3 of 3 test users do not have" in caplog.text
    caplog.clear()
    build_any("LLMSASRec", eval_args=transfer)
    build_any("BPR")
    assert "training interactions" not in caplog.text


@pytest.mark.parametrize(
    ("model", "labels"), [("DeepFM", LIKED), ("LLMSASRec", LIKED), ("DeepFM", {"LABEL_FIELD": "rating"})]
)
def test_interactions_without_a_label_are_left_out_and_counted(small_dataset, build_any, model, labels):
    file = small_dataset() / "small.inter"
    head, *lines = file.read_text().splitlines()
    cells = [line.split("\t") for line in lines]
    empty = sum(place % 4 == 0 for place in range(len(cells)))
    for place, row in enumerate(cells):
        row[2] = "" if place % 4 == 0 else str(int(float(row[2]) >= 3)) if "LABEL_FIELD" in labels else row[2]
    file.write_text("\n".join([head, *map("\t".join, cells)]) + "\n")
    columns = {"inter": ["user_id", "item_id", "rating", "timestamp"], "item": ["item_id", "item_language"]}
    dataset = build_any(model, **labels, load_col=columns, metrics=["Recall"], valid_metric="Recall@5").dataset
    assert dataset.file_rows["inter"].dropped["without rating"] == empty
    assert dataset.file_rows["inter"].used == len(cells) - empty
    for part in ("train", "valid", "test"):
        shutil.copy(file, file.parent / f"small.{part}.inter")
    parts = {"benchmark_filename": ["train", "valid", "test"]}
    if "LABEL_FIELD" in labels:  # nobody reads them
        general = build_any("BPR", **labels, load_col=columns, metrics=["Recall"], valid_metric="Recall@5").dataset
        assert general.file_rows["inter"].used == len(cells)
    with pytest.raises(DataError, match=f"{3 * empty} of .* have no rating"):
        build_any(model, **labels, **parts, load_col=columns, metrics=["Recall"], valid_metric="Recall@5")
