"""What is written: figures, and a page that is safe, whole and complete in itself."""

from __future__ import annotations

import argparse
import errno
import json
import re
from pathlib import Path

import pytest
from html_page import Page

from recbole_xling.card import build_card, build_configured_card, write_card
from recbole_xling.card.tables import card_table, card_tables
from recbole_xling.cli.card import add_arguments, run
from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError, DataError

EVIL = "<script>alert('x')</script>"


def test_json_holds_the_card(made, tmp_path):
    card = build_card(made(), "made")
    path, _ = write_card(card, tmp_path / "out")
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(card.to_dict()))
    assert json.loads(path.read_text(encoding="utf-8"))["mixing"]["targets"][0] == [1, 1, 0, 1]


def test_times_without_dates_keep_their_digits(made):
    rows = "|".join(f"u1 {item} 12345678{place}" for place, item in enumerate("abcd"))
    text = card_table(build_card(made(interactions=rows), "made"))
    assert "123456780" in text and "123456783" in text


def test_page_is_complete_in_itself(made, tmp_path):
    card = build_card(made(), "made")
    _, path = write_card(card, tmp_path)
    page = Page(path.read_text(encoding="utf-8"))
    assert page.loads == []
    assert "default-src 'none'" in page.policy  # nor can a script load anything
    assert page.tags.count("figure") == 7
    assert page.tags.count("table") == len(list(card_tables(card)))
    for warning in card.warnings:
        assert warning.message in page.text
    assert page.text.index("Warnings") < page.text.index("Size")


def test_names_and_texts_are_escaped(made, tmp_path):
    texts = [(item, "de", f"{EVIL}{item}", "display") for item in "abcd"]
    name = "<b>x"
    interactions = "|".join(f"u1 {item} {n}" for n, item in enumerate(["a", "b", "c", "<i>"]))
    card = build_card(made(name=name, texts=texts, items="a b c d <i>", interactions=interactions), name)
    _, path = write_card(card, tmp_path / "evil")
    _, plain = write_card(build_card(made(), "made"), tmp_path / "plain")
    evil, good = (Page(file.read_text(encoding="utf-8")) for file in (path, plain))
    assert evil.tags.count("script") == good.tags.count("script")
    assert not {"b", "i"} & set(evil.tags)
    assert f"{EVIL}a" in evil.text
    assert "Data card of <b>x" in evil.text


def test_pages_of_odd_datasets(made, tmp_path):
    for name, changed in {
        "bare": {"items": None, "users": None, "texts": None},
        "untimed": {"interactions": "u1 a|u1 b|u2 c", "columns": "user_id:token item_id:token"},
        "single": {"interactions": "u1 a 1"},
    }.items():
        card = build_card(made(name=name, **changed), name)
        _, path = write_card(card, tmp_path / "out" / name)
        assert "figure" in Page(path.read_text(encoding="utf-8")).tags
        assert card_table(card).startswith(f"Data card of {name}")


def test_a_failure_leaves_the_previous_card(made, tmp_path, monkeypatch):
    card = build_card(made(), "made")
    write_card(card, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write_text = Path.write_text

    def full(self, data, **options):
        if self.suffix == ".html":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(self, data, **options)

    monkeypatch.setattr(Path, "write_text", full)
    changed = build_card(made(name="other"), "other")
    with pytest.raises(OSError, match="No space left on device"):
        write_card(changed, tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_of_many_languages_the_small_ones_share_a_row(made, tmp_path):
    tags = ["de"] * 12 + ["en"] * 10 + ["fr", "it", "es", "pt", "nl", "sv", "da", "fi", "pl", "cs"]
    texts = [(f"i{n}", tag, f"title {n}", "display") for n, tag in enumerate(tags)]
    items = [f"i{n}" for n in range(len(tags))]
    rows = [f"u{user} {items[(user * 7 + step) % len(items)]} {step}" for user in range(30) for step in range(4)]
    card = build_card(made(texts=texts, items=" ".join(items), users=None, interactions="|".join(rows)), "made")
    tables = {table.name: table for table in card_tables(card)}
    assert [row[0] for row in tables["languages"].rows] == ["de", "en", "10 others"]
    assert [row[1] for row in tables["languages"].rows] == ["12 (37.5%)", "10 (31.2%)", "10 (31.2%)"]
    assert [row[1] for row in tables["texts"].rows] == ["12", "10", "10"]
    assert [row[0] for row in tables["lengths"].rows] == ["de", "en"]
    assert tables["mixing"].headers[1:] == ("de", "en", "9 others")  # no target is in the tenth
    assert sum(int(cell) for row in tables["mixing"].rows for cell in row[1:]) == 30
    assert sum(int(row[9]) for row in tables["parts"].rows) == 30  # test targets
    assert len(card.to_dict()["languages"]) == 12  # the file has them all


def test_items_with_texts_in_several_small_languages_are_no_share_of_the_catalog(made):
    tags = ["fr", "it", "es", "pt", "nl", "sv", "da", "fi", "pl", "cs", "ja"]
    texts = [(f"i{n}", "en", f"en {n}", "display") for n in range(20)]
    texts += [("i0", tag, f"{tag} 0", "display" if tag == "en" else "parallel") for tag in tags]
    texts += [(f"i{20 + n}", tag, f"own {n}", "display") for n, tag in enumerate(tags)]
    items = " ".join(f"i{n}" for n in range(31))
    rows = "|".join(f"u{user} i{(user * 7 + step) % 31} {step}" for user in range(9) for step in range(4))
    card = build_card(made(texts=texts, items=items, users=None, interactions=rows), "made")
    tables = {table.name: table for table in card_tables(card)}
    assert [row[0] for row in tables["texts"].rows] == ["en", "11 others"]
    assert tables["texts"].rows[0][-1] == "20 (64.5%)" and tables["texts"].rows[1][-1] == "22"
    assert "counts once for each language" in tables["texts"].note and "counts once" in tables["parts"].note


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, "of the source languages; the test is of the target ones."),
        (
            {"test": "both", "interactions": 3},
            "with 3 interactions of the target ones; the test is of source",
        ),
    ],
)
def test_what_a_split_by_languages_tests_is_told(made, changed, told):
    folder = made(interactions="|".join(f"u{n} a 1|u{n} b 2|u{n} e 3|u{n} a 4|u{n} b 5|u{n} e 6" for n in range(9)))
    split = {"LT": {"source": ["de"], "target": ["en"], "by": "item", **changed}}
    settings = {"data_path": str(folder.parent), "eval_args": {"split": split}}
    card = build_configured_card(XLingConfig("LLMSASRec", folder.name, config_dict=settings))
    (note,) = (table.note for table in card_tables(card) if table.name == "splits")
    assert told in note


def test_a_language_of_further_texts_alone_is_no_small_one(made):
    tags = ["fr", "it", "es", "pt", "nl", "sv", "da", "fi", "pl", "cs", "ja"]
    texts = [(f"i{n}", "en", f"en {n}", "display") for n in range(20)]
    texts += [(f"i{n}", tag, f"{tag} {n}", "parallel") for n in range(20) for tag in tags]
    rows = "|".join(f"u{user} i{(user * 7 + step) % 20} {step}" for user in range(9) for step in range(4))
    items = " ".join(f"i{n}" for n in range(20))
    card = build_card(made(texts=texts, items=items, users=None, interactions=rows), "made")
    tables = {table.name: table for table in card_tables(card)}
    assert sorted(row[0] for row in tables["texts"].rows) == sorted(["en", *tags])
    assert {row[-1] for row in tables["texts"].rows} == {"20 (100.0%)"}


def test_the_page_names_users_without_a_test_its_date_and_versions(made, tmp_path):
    card = build_card(made(), "made")
    _, path = write_card(card, tmp_path)
    text = Page(path.read_text(encoding="utf-8")).text
    assert f"users without a test target{card.splits.untested_users} " in text
    assert re.search(r"Made on \d{4}-\d\d-\d\d with recbole-xling [\d.]+ and recbole 1\.2\.1\.", text)
    assert "Made on" not in json.dumps(card.to_dict())


def call(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(*parser.parse_known_args(words))


def test_command_writes_beside_the_data(made, tmp_path):
    folder = made()
    text = call("made", f"--data_path={folder.parent}")
    assert (folder / "card.json").is_file() and (folder / "card.html").is_file()
    assert "Under 100 test targets: de 1, fr 1, en 0." in text
    assert text.endswith("card.html")
    assert any(line.split() == ["de", "1", "1", "1"] for line in text.splitlines())  # mixing


def test_command_shows_the_split_of_a_run(made, tmp_path):
    folder = made(users=None)
    split = "--eval_args={'split': {'LT': {'source': ['de'], 'target': ['fr'], 'by': 'item'}}}"
    text = call("made", f"--data_path={folder.parent}", split)
    assert "Split: language transfer" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["train", "1", "1", "2"] in lines and ["test", "2", "2", "2", "2", "(100.0%)", "2"] in lines
    assert json.loads((folder / "card.json").read_text())["splits"]["setting"]["LT"]["source"] == ["de"]
    with pytest.raises(ConfigError, match="no item of 'made' is of language 'xx'"):
        call("made", f"--data_path={folder.parent}", split.replace("fr", "xx"))


def test_command_says_which_columns_a_split_lacks(made):
    folder = made()
    chosen = ["--TIME_FIELD=when", "--eval_args={'split': {'CI': [0.6, 0.2, 0.2]}}"]
    with pytest.raises(DataError, match=r"no column 'when' to order interactions by, only user_id, item_id, timestamp"):
        call("made", f"--data_path={folder.parent}", *chosen)


def test_command_knows_the_settings_of_a_run(made, tmp_path):
    folder = made(columns="reader:token item_id:token timestamp:float", users=None)
    output = tmp_path / "elsewhere"
    call("made", f"--data_path={folder.parent}", "--USER_ID_FIELD=reader", "--output", str(output))
    assert sorted(path.name for path in output.iterdir()) == ["card.html", "card.json"]
    assert not (folder / "card.json").exists()
    with pytest.raises(ConfigError, match="unknown setting 'data_pth'"):
        call("made", "--data_pth=x")


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "XLingTwoTower", "user_tower": "attention", "peft": "lora", "lora_rank": 4, "train_batch_size": 32},
        {"model": "SASRec", "n_layers": 3, "loss_type": "BPR"},
        {"model": "DeepFM", "mlp_hidden_size": [8], "numerical_features": ["timestamp"], "threshold": {"rating": 3}},
        {"model": "BPR", "embedding_size": 32, "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "RO"}},
    ],
)
def test_command_shows_the_same_card_for_every_model(made, tmp_path, settings):
    columns = "user_id:token item_id:token rating:float timestamp:float"
    folder = made(interactions="|".join(f"u{n % 4} {'abcdex'[n % 6]} {n % 5} {n}" for n in range(40)), columns=columns)
    split = {"split": {"RS": [0.6, 0.2, 0.2]}}
    plain = call("made", f"--data_path={folder.parent}", f"--eval_args={split}")
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"eval_args": split, **settings}), encoding="utf-8")
    assert call("made", f"--data_path={folder.parent}", "--config_files", str(file)) == plain
