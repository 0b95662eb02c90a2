"""An exported run answers as the run does, in a process that has neither torch nor RecBole."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from shop import write_shop

import recbole_xling
from recbole_xling.cli import main as cli
from recbole_xling.errors import CheckpointError, ConfigError, XlingError
from recbole_xling.quick_start import onnx_tower
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.serving_export import export_run
from recbole_xling.serve import Filters, Recommender, Users, load_export

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

_ASK = """
import json, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "recbole", "pandas", "polars", "scipy", "transformers", "pydantic"):
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Refuse())
from recbole_xling.serve import Filters, load_export
recommender = load_export(sys.argv[1])
users, histories, similar = json.loads(sys.argv[2])
answers = recommender.recommend(users, 8, filters=Filters(block=["ni3"]))
answers += recommender.recommend_histories(histories, 8, exclude_seen=False)
answers.append(recommender.similar_items(similar, 8))
assert not {"torch", "recbole", "pandas"} & sys.modules.keys()
print(json.dumps([answer.record() for answer in answers]))
"""


def answers_elsewhere(folder, users, histories, similar):
    words = [sys.executable, "-c", _ASK, str(folder), json.dumps([users, histories, similar])]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_alike(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert [item["item"] for item in one["items"]] == [item["item"] for item in other["items"]]
        assert [(i["title"], i["language"]) for i in one["items"]] == [
            (i["title"], i["language"]) for i in other["items"]
        ]
        scores = [[item["score"] for item in answer["items"]] for answer in (one, other)]
        np.testing.assert_allclose(*scores, rtol=1e-4, atol=1e-5)
        assert (one["user"], one["notes"]) == (other["user"], other["notes"])


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("LLMSASRec", {"item_representation": "delta"}),
        ("LLMSASRec", {"temperature": 0.1}),
        ("SASRec", {"inner_size": 16}),
        ("BPR", {}),
    ],
    ids=["LLMSASRec", "LLMSASRec by cosine", "SASRec", "BPR"],
)
def test_an_export_answers_as_the_run_does(trained, tmp_path, model, settings):
    folder = trained(model, **settings)
    export_run(folder, tmp_path / "export")
    users, histories = ["nu3", "nu7", "nobody"], [["ni1", "ni2", "gone"], [f"ni{item}" for item in range(9)], []]
    recommender = load_run(folder).recommender
    expected = recommender.recommend(users, 8, filters=Filters(block=["ni3"]))
    expected += recommender.recommend_histories(histories, 8, exclude_seen=False)
    expected.append(recommender.similar_items("ni5", 8))
    found = answers_elsewhere(tmp_path / "export", users, histories, "ni5")
    check_alike(found, [answer.record() for answer in expected])


def test_settings_of_scores_may_be_others_than_in_training(trained, tmp_path, capsys):
    folder = trained("LLMSASRec", item_representation="delta")
    words = ["export", str(folder), "--to", str(tmp_path / "export"), "--popularity_weight=0"]
    assert cli.main(words) == 0
    found = answers_elsewhere(tmp_path / "export", ["nu3"], [["ni1", "ni2"]], "ni5")
    usual, other = (load_run(folder, **changed).recommender for changed in ({}, {"popularity_weight": 0}))
    expected, before = ([*of.recommend(["nu3"], 8, filters=Filters(block=["ni3"])),
                         *of.recommend_histories([["ni1", "ni2"]], 8, exclude_seen=False),
                         of.similar_items("ni5", 8)] for of in (other, usual))  # fmt: skip
    check_alike(found, [answer.record() for answer in expected])
    assert [answer.record() for answer in expected] != [answer.record() for answer in before]
    told = (tmp_path / "export" / "README.md").read_text()
    assert "serves with other settings: popularity_weight: 0" in told and "model-index" not in told
    assert cli.main([*words[:3], str(tmp_path / "other"), "--with_users=True"]) == 2
    assert "--with_users cannot be given here" in capsys.readouterr().err
    assert cli.main([*words[:3], str(tmp_path / "other"), "--popularity_wait=0"]) == 2
    assert "Did you mean 'popularity_weight'" in capsys.readouterr().err


@pytest.mark.parametrize("views", ["mean", "reader"])
def test_readers_of_an_export_have_their_views(tmp_path, views, tiny_encoder):
    write_shop(tmp_path / "data", silent=2)
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "user_language"], "item": ["item_id"]}
    settings = {"data_path": str(tmp_path / "data"), "checkpoint_dir": str(tmp_path), "encoder": str(tiny_encoder)}
    settings |= {"embedding_cache_dir": str(tmp_path / "cache"), "load_col": columns, "epochs": 1, "topk": [5, 10]}
    settings |= {"text_view": "reader", "reader_vectors": views, "encoder_max_length": 32, "show_progress": False}
    settings |= {
        "user_tower": "transformer",
        "language_embedding": True,
        "untuned_count": 3.0,
        "peft": "lora",
        "lora_rank": 2,
    }
    folder = recbole_xling.run("XLingTwoTower", "shop", config_dict=settings)["run_dir"]
    pytest.importorskip("usearch")
    manifest = export_run(folder, tmp_path / "export", index="usearch", license_id="mit")
    assert manifest["model_views"] == (1 if views == "mean" else 3)  # everybody, fr, en
    own, exported = load_run(folder).recommender, load_export(tmp_path / "export")
    users = ["u0", "u4", "u5", "u7", "nobody"]
    by_category = Filters(where={"category": ["c1"]})
    for ask in (
        lambda asked: asked.recommend(users, 6),
        lambda asked: asked.recommend(users, 6, filters=by_category),
        lambda asked: asked.recommend_histories([["i3", "i4"], []], 6, reader="fr"),
        lambda asked: asked.recommend_histories([["i3", "i4"], []], 6, reader="ja"),
        lambda asked: asked.recommend_histories([["i3", "i4"], []], 6, reader="fr-FR"),  # whom no user stands for
        lambda asked: [asked.similar_items("i4", 6, language="en")],
    ):
        check_alike([answer.record() for answer in ask(exported)], [answer.record() for answer in ask(own)])
    nobody = Users(["[PAD]"], ["und"], np.zeros(2, np.int64), np.empty(0, np.int64), "", exported.users.spoken)
    found = Recommender(exported.catalog, nobody, exported.scorer).recommend_histories([["i3"]], 6, reader="fr")
    expected = own.recommend_histories([["i3"]], 6, reader="fr")
    check_alike([answer.record() for answer in found], [answer.record() for answer in expected])
    if views == "reader":
        run = load_run(folder)
        catalog, places = run.train_data._dataset.catalog, [own.catalog.number["i3"], own.catalog.number["i4"]]
        texts = [catalog.texts_of_views[own.catalog.view_of["fr"]][place] for place in places]
        found = run.encode_items(texts, ["fr", "fr"])
        expected = run.model.history_vectors(own.catalog.view_of["fr"])[places]
        np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-5)
        by_text = run.recommend_texts(texts, 6, reader="fr")
        by_history = run.recommend_histories([["i3"], ["i4"]], 6, reader="fr", exclude_seen=False)
        assert by_text["item"].tolist() == by_history["item"].tolist()
    with pytest.raises(ConfigError, match="an export does not read texts"):
        exported.recommend_texts(["x"])
    sentence_transformers = pytest.importorskip("sentence_transformers")
    assert sentence_transformers.SentenceTransformer(str(tmp_path / "export" / "encoder"), device="cpu")
    assert (tmp_path / "export" / "adapters" / "adapter_model.safetensors").is_file()
    facts = yaml.safe_load((tmp_path / "export" / "README.md").read_text().split("---\n")[1])
    assert facts["language"] == ["de", "en", "fr"] and facts["license"] == "mit"
    assert {metric["type"] for metric in facts["model-index"][0]["results"][0]["metrics"]} >= {"ndcg@10"}


@pytest.mark.parametrize("kind", ["flat", "hnsw", "usearch"])
def test_an_index_finds_the_best_items(trained, tmp_path, kind):
    pytest.importorskip("usearch" if kind == "usearch" else "faiss")
    manifest = export_run(trained("LLMSASRec"), tmp_path / "export", index=kind)
    assert {"kind": kind, "recall@10": 1.0}.items() <= manifest["index"].items()
    exported, own = load_export(tmp_path / "export"), load_run(trained("LLMSASRec")).recommender
    assert exported.scorer._views[0].search is not None
    found, expected = (asked.recommend(["nu3", "nu4"], 8) for asked in (exported, own))
    check_alike([answer.record() for answer in found], [answer.record() for answer in expected])


def test_users_can_stay_at_home(trained, tmp_path):
    export_run(trained("LLMSASRec"), tmp_path / "export", with_users=False)
    recommender = load_export(tmp_path / "export")
    assert recommender.recommend_histories([["ni1"]], 3)[0].items
    with pytest.raises(ConfigError, match="the export holds no users"):
        recommender.recommend(["nu3"])
    assert "nu3" not in "".join(path.read_text() for path in (tmp_path / "export").glob("*.json*"))
    with pytest.raises(ConfigError, match="BPR knows users by their ids"):
        export_run(trained("BPR"), tmp_path / "other", with_users=False)


def test_what_cannot_be_exported_says_so_and_leaves_nothing(trained, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no inner products"):
        export_run(trained("HistoryEASE"), tmp_path / "export")
    with pytest.raises(ConfigError, match="unknown kind of index 'tree'"):
        export_run(trained("LLMSASRec"), tmp_path / "export", index="tree")
    monkeypatch.setattr(onnx_tower, "_TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match="returns other users than the model"):
        export_run(trained("LLMSASRec"), tmp_path / "export")
    assert not list(tmp_path.iterdir())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        export_run(trained("LLMSASRec"), tmp_path / "full")


def test_a_card_says_what_results_are_of(trained, home, tmp_path):
    run, card = trained("LLMSASRec"), tmp_path / "export" / "README.md"
    result = json.loads((Path(run) / "result.json").read_text())
    export_run(run, tmp_path / "export", seed=result["seed"] + 79)
    told = card.read_text(encoding="utf-8")
    assert f"the seed was\n{result['seed']}." in told
    assert "ranked what users know already as well" in told  # the default of sequential models

    shutil.copytree(home / "data" / "nord", tmp_path / "now" / "nord")
    with (tmp_path / "now" / "nord" / "nord.inter").open("a") as file:
        file.write("nu1\tni20\t1999999999\n")
    export_run(run, tmp_path / "later", data_path=str(tmp_path / "now"))
    told = (tmp_path / "later" / "README.md").read_text(encoding="utf-8")
    assert "files of its training, which have changed since (.inter (" in told and "model-index" not in told

    drawn = trained("LLMSASRec", eval_args={"mode": "uni5"}, exclude_history=True)
    export_run(drawn, tmp_path / "drawn")
    told = (tmp_path / "drawn" / "README.md").read_text(encoding="utf-8")
    assert "among a few drawn ones (mode uni5 )" in told.replace("`", " ").replace("  ", " ")
    assert "model-index" not in told and "ranked what users know" not in told


def test_a_card_of_labels_says_nothing_of_rankings(small_dataset, settings_without_layers, tmp_path):
    small_dataset()
    rated = {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC", "threshold": {"rating": 3}}
    run = recbole_xling.run("BPR", "small", config_dict={**settings_without_layers, **rated})["run_dir"]
    export_run(run, tmp_path / "export")
    told = (tmp_path / "export" / "README.md").read_text(encoding="utf-8")
    assert "| auc |" in told and "drawn ones" not in told and "ranked what users" not in told


def test_a_card_may_be_written_on_and_says_how_many_items_are_served(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained("LLMSASRec"), run)
    load_run(run).withdraw(["ni3", "ni4"])
    export_run(run, tmp_path / "export")
    card = tmp_path / "export" / "README.md"
    assert "Recommends 22 items" in card.read_text(encoding="utf-8")
    card.write_text(card.read_text(encoding="utf-8") + "\nContact: the shop\n", encoding="utf-8")
    assert len(load_export(tmp_path / "export").recommend(["nu3"], 3)[0].items) == 3


def test_an_export_without_what_reads_language_tags_is_not_opened(trained, tmp_path, monkeypatch):
    export_run(trained("BPR"), tmp_path / "export")
    monkeypatch.setitem(sys.modules, "langcodes", None)
    with pytest.raises(XlingError, match="pip install langcodes language_data"):
        load_export(tmp_path / "export")


def test_a_damaged_export_is_not_read(trained, tmp_path, capsys):
    assert cli.main(["export", str(trained("LLMSASRec")), "--to", str(tmp_path / "export")]) == 0
    assert "24 items, 30 users" in capsys.readouterr().out
    assert cli.main(["recommend", str(tmp_path / "export"), "--user", "nu3", "-k", "2"]) == 0
    assert "ni" in capsys.readouterr().out
    file = tmp_path / "export" / "items.0.npy"
    content = bytearray(file.read_bytes())
    content[-3] ^= 255
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"items\.0\.npy' is not what export wrote"):
        load_export(tmp_path / "export")
    (tmp_path / "export" / "export.json").write_text("{}")
    with pytest.raises(CheckpointError, match="damaged"):
        load_export(tmp_path / "export")
