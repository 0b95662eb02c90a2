"""Items that are added to a trained run or its export, against the same items in the files of the dataset."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from shop import write_shop

import recbole_xling
from recbole_xling.cli import main as cli
from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.serving_export import export_run
from recbole_xling.serve import load_export

NEW = [  # readers of French see Canadian French as theirs
    {"item_id": "n1", "texts": {"de": "rot Hose neu", "FR-ca": "rouge pantalon neuf"}, "category": "c1 c2"},
    {"item_id": "n2", "text": "blau Schuh neu", "language": "de"},
]


def shop_settings(root, **changed):
    items = write_shop(root / "data", silent=2) / "shop.item"
    items.write_text(items.read_text().replace("category:token", "category:token_seq", 1))
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "user_language"], "item": ["item_id"]}
    settings = {"data_path": str(root / "data"), "checkpoint_dir": str(root), "encoder": "hashing", "epochs": 1}
    settings |= {"embedding_cache_dir": str(root / "cache"), "load_col": columns, "text_view": "reader"}
    return settings | {"topk": [5, 10], "show_progress": False, **changed}


def small(**changed):
    own = {"encoder_options": {"dimension": 16}, "hidden_size": 8, "inner_size": 8, "n_layers": 1}
    return {**own, "item_representation": "text_only", **changed}


def write_to_files(root):
    """Write the new items to the files of the dataset, in a folder beside it, and return what holds that."""
    shutil.copytree(root / "data", root / "more")
    with open(root / "more" / "shop" / "shop.item", "a") as items:
        items.writelines(f"{item['item_id']}\t{item.get('category', '')}\tde\n" for item in NEW)
    with open(root / "more" / "shop" / "shop.itemtext.jsonl", "a") as texts:
        for item in NEW:
            for place, (language, title) in enumerate(item.get("texts", {"de": item.get("text")}).items()):
                text = {"item_id": item["item_id"], "language": language, "fields": {"title": title}}
                texts.write(json.dumps({**text, "source": "parallel" if place else "display"}) + "\n")
    return str(root / "more")


def ask(recommender, shown="fr"):
    return [
        *recommender.recommend(["u0", "u4", "u5"], 26, exclude_seen=False),
        *recommender.recommend_histories([["n1", "i3"], ["i4", "n2"]], 8, reader="fr"),
        recommender.similar_items("n1", 5, language=shown),
    ]


def check_alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        shown = [{item.item: (item.title, item.language) for item in answer.items} for answer in (one, other)]
        assert shown[0] == shown[1]
        by_item = {item.item: item.score for item in other.items}
        for scores in ([item.score for item in other.items], [by_item[item.item] for item in one.items]):
            np.testing.assert_allclose([item.score for item in one.items], scores, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("views", ["reader", "mean"])
@pytest.mark.parametrize("kind", ["text_only", "delta", "delta by cosine"])
def test_items_added_to_a_run_are_scored_as_those_of_its_files(tmp_path, views, kind):
    kind, _, by_cosine = kind.partition(" by ")
    changed = {"temperature": 0.1} if by_cosine else {}
    settings = shop_settings(tmp_path, **small(item_representation=kind, reader_vectors=views, **changed))
    folder = recbole_xling.run("LLMSASRec", "shop", config_dict=settings)["run_dir"]
    expected = load_run(folder, data_path=write_to_files(tmp_path)).recommender
    run = load_run(folder)
    run.add_items(NEW)
    check_alike(ask(run.recommender), ask(expected))
    again = load_run(folder)  # after a restart
    check_alike(ask(again.recommender), ask(expected))
    for options in ({"where": {"category": ["c2"]}}, {"languages": ["fr"]}):
        assert "n1" in set(again.recommend(["u4"], 26, exclude_seen=False, **options)["item"])
    again.withdraw(["n1"])
    assert "n1" not in set(again.recommend(["u5"], 26, exclude_seen=False)["item"])
    assert again.explain("n2", history=["n1", "i3"]).parts[0].item in ("n1", "i3")
    if views == "reader":
        pytest.importorskip("onnxscript")
        export_run(folder, tmp_path / "export")
        check_alike(ask(load_export(tmp_path / "export")), ask(again.recommender))


@pytest.mark.parametrize("view", ["reader", "language:fr"])
def test_items_added_to_a_tuned_encoder_and_its_export(tmp_path, tiny_encoder, view):
    own = {
        "text_view": view,
        "encoder": str(tiny_encoder),
        "encoder_max_length": 32,
        "user_tower": "transformer",
        "peft": "lora",
        "lora_rank": 2,
    }
    own |= {"language_embedding": True, "centering": view == "reader", "embedding_size": 8}
    settings = shop_settings(tmp_path, **own)
    folder = recbole_xling.run("XLingTwoTower", "shop", config_dict=settings)["run_dir"]
    pytest.importorskip("onnxscript")
    pytest.importorskip("sentence_transformers")
    export_run(folder, tmp_path / "export")
    run = load_run(folder)
    run.add_items(NEW)
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(item) + "\n" for item in NEW))
    assert cli.main(["recommend", str(tmp_path / "export"), "--add-items", str(tmp_path / "new.jsonl")]) == 0
    exported = load_export(tmp_path / "export")
    shown = "fr" if view == "reader" else "de"  # the language of titles
    check_alike(ask(exported, shown), ask(run.recommender, shown))
    by_text = exported.recommend_texts(["rot Hose"], 5, reader="fr")
    check_alike(by_text, run.recommender.recommend_texts(["rot Hose"], 5, reader="fr"))
    if view != "reader":  # all items are read in French, so that is the language of histories
        check_alike(ask(exported, shown), ask(load_run(folder, data_path=write_to_files(tmp_path)).recommender, shown))
    (tmp_path / "export" / "encoder" / "more.py").touch()  # a file that may be run
    with pytest.raises(CheckpointError, match="might run code"):
        load_export(tmp_path / "export").recommend_texts(["rot Hose"])


def test_items_that_only_the_untuned_encoder_knows(tmp_path, tiny_encoder):
    own = {"encoder": str(tiny_encoder), "encoder_max_length": 32, "untuned_count": 3.0, "peft": "lora", "lora_rank": 2}
    own |= {"centering": False}
    settings = shop_settings(tmp_path, **own)
    folder = recbole_xling.run("XLingTwoTower", "shop", config_dict=settings)["run_dir"]
    expected = load_run(folder, data_path=write_to_files(tmp_path)).recommender
    run = load_run(folder)
    run.add_items(NEW)
    check_alike(ask(run.recommender), ask(expected))


def test_an_id_is_added_once_unless_it_is_to_be_replaced(trained, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(trained("LLMSASRec"), folder)
    run, item = load_run(folder), {"item_id": "new", "text": "rot blau", "language": "de"}
    run.add_items([item])
    with pytest.raises(ConfigError, match="'new' was added before"):
        run.add_items([{**item, "text": "gelb"}])
    run.add_items([{**item, "text": "gelb"}], replace=True)
    found = run.recommend(["nu3"], 25, exclude_seen=False).set_index("item")
    assert found.loc["new", "title"] == "gelb" and len(found) == 25
    with pytest.raises(ConfigError, match="'ni1' was known in training"):
        run.add_items([{**item, "item_id": "ni1"}], replace=True)
    with pytest.raises(ConfigError, match="given twice"):
        run.add_items([{**item, "item_id": "x"}] * 2)
    for model in ("BPR", "HistoryEASE"):
        with pytest.raises(ConfigError, match=f"{model} with these settings takes no items"):
            load_run(trained(model)).add_items([item])
    (folder / "added.jsonl").write_text("{}\n")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_run(folder).recommend(["nu3"])


def test_an_export_without_an_encoder_takes_vectors(trained, tmp_path):
    pytest.importorskip("onnxscript")
    export_run(trained("LLMSASRec"), tmp_path / "export", index=None)
    vector = load_run(trained("LLMSASRec")).encode_items(["gelb lang"])[0].tolist()
    file = tmp_path / "new.jsonl"
    file.write_text(json.dumps({"item_id": "new", "text": "gelb lang", "language": "de"}))
    assert cli.main(["recommend", str(tmp_path / "export"), "--add-items", str(file)]) == 2
    assert not (tmp_path / "export" / "added.jsonl").exists()
    file.write_text(json.dumps({"item_id": "new", "text": "gelb lang", "language": "de", "vector": vector}))
    assert cli.main(["recommend", str(tmp_path / "export"), "--add-items", str(file)]) == 0
    shutil.copytree(trained("LLMSASRec"), tmp_path / "run")
    (run := load_run(tmp_path / "run")).add_items([{"item_id": "new", "text": "gelb lang", "language": "de"}])
    found = load_export(tmp_path / "export").recommend_histories([["new"]], 6)
    check_alike(found, run.recommender.recommend_histories([["new"]], 6))
    file.write_text(json.dumps({"item_id": "other", "vector": vector[:-1]}))
    assert cli.main(["recommend", str(tmp_path / "export"), "--add-items", str(file)]) == 2
    assert "new" in load_export(tmp_path / "export").catalog.number


_ADD = """
import sys
from recbole_xling.serve import load_export
from recbole_xling.serve.added import add_items
from recbole_xling.serve.new_items import NewItem
import numpy as np
recommender = load_export(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(10):
    vector = np.full(recommender.scorer.history_size, number, dtype=np.float32)
    add_items(recommender, sys.argv[1], [NewItem(f"{sys.argv[2]}{number}", {}, {}, {"": vector})])
"""


def test_two_processes_add_items_at_the_same_time(trained, tmp_path):
    pytest.importorskip("onnxscript")
    export_run(trained("LLMSASRec"), tmp_path / "export")
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([sys.executable, "-c", _ADD, str(tmp_path / "export"), name], **options) for name in "ab"]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.wait(60) for process in both] == [0, 0]
    number = load_export(tmp_path / "export").catalog.number
    assert {f"{name}{place}" for name in "ab" for place in range(10)} <= number.keys()


def test_files_of_items(trained, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(trained("LLMSASRec"), folder)
    table = tmp_path / "new.csv"
    table.write_text('item_id,text:de,text:fr,item_language\na,"rot, blau",rouge,de\nb,gelb,,\n', encoding="utf-8-sig")
    assert cli.main(["recommend", str(folder), "--add-items", str(table)]) == 0
    assert "2 items" in capsys.readouterr().out
    run = load_run(folder)
    found = run.recommend(["nu3"], 30, exclude_seen=False).set_index("item")
    assert found.loc[["a", "b"], "title"].tolist() == ["rot, blau", "gelb"]
    only = run.recommend(["nu3"], 30, exclude_seen=False, where={"item_language": ["de"]})
    assert {"a"} == {"a", "b"} & set(only["item"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "new.jsonl:1: not valid JSON"),
        ('{"text": "x"}', "'item_id' must be a text"),
        ('{"item_id": "a"}', "neither a text nor a vector"),
        ('{"item_id": "a", "text": "  "}', "no text in 'und'"),
        ('{"item_id": "a", "text": "x", "language": "d!"}', "not a BCP 47 tag"),
        ('{"item_id": "a", "text": "x", "colour": "red"}', "unknown column 'colour'"),
        ('{"item_id": "a", "vector": [1, null]}', "list of finite numbers"),
        ('{"item_id": "a", "texts": {"de": {"brand": "x"}}}', "no text in 'de'"),
        ('{"item_id": "a", "texts": {"de": "\\ud800"}}', "no Unicode"),
    ],
)
def test_wrong_items_are_refused(trained, tmp_path, line, message):
    from recbole_xling.serve.added import items_of_file

    (tmp_path / "new.jsonl").write_text(line)
    with pytest.raises(DataError, match=message):
        items_of_file(tmp_path / "new.jsonl", load_run(trained("LLMSASRec")).recommender)


def test_ids_may_be_numbers_and_a_table_without_ids_is_named_by_its_columns(trained, tmp_path):
    from recbole_xling.serve.added import items_of_file

    recommender = load_run(trained("LLMSASRec")).recommender
    (tmp_path / "new.jsonl").write_text('{"item_id": 205, "text": "x", "language": "de"}')
    assert [item.item for item in items_of_file(tmp_path / "new.jsonl", recommender)] == ["205"]
    (tmp_path / "new.csv").write_text("item_id;text\nn;x\n")
    with pytest.raises(DataError, match=r"new\.csv: no column 'item_id', but 'item_id;text'"):
        items_of_file(tmp_path / "new.csv", recommender)


def test_further_texts_that_their_readers_do_not_see_yet_are_named(tmp_path, caplog):
    settings = small(**shop_settings(tmp_path))
    users = tmp_path / "data" / "shop" / "shop.user"
    head, *lines, last = users.read_text().splitlines()
    users.write_text("\n".join([head, *lines, last.rpartition("\t")[0] + "\tpl"]) + "\n")  # nothing else is in Polish
    run = load_run(recbole_xling.run("LLMSASRec", "shop", config_dict=settings)["run_dir"])
    run.add_items([{"item_id": "seen", "texts": {"de": "Hose", "fr": "pantalon"}}])
    assert "see the first text" not in caplog.text
    run.add_items([{"item_id": "unseen", "texts": {"de": "Hose", "pl": "spodnie"}}])
    assert "readers of pl see the first text of 'unseen'" in caplog.text
