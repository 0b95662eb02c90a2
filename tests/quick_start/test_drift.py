"""Drift of a dataset since a run was trained: what is compared, and the table, JSON and page of it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from html_page import Page
from scipy.spatial.distance import jensenshannon
from shop import write_shop

import recbole_xling
from recbole_xling.cli.main import call
from recbole_xling.errors import CheckpointError, DataError
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.drift import drift
from recbole_xling.report.drift import drift_tables


@pytest.fixture
def later(home, tmp_path):
    """Return a function that copies the shop 'nord' with further interactions, under any name."""

    def copy(rows, name="later", languages=("de",)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for path in (home / "data" / "nord").iterdir():
            shutil.copy(path, folder / path.name.replace("nord", name, 1))
        new = sorted({row.split("\t")[1] for row in rows if row.split("\t")[1].startswith("x")})
        with (folder / f"{name}.inter").open("a") as file:
            file.writelines(f"{row}\n" for row in rows)
        with (folder / f"{name}.item").open("a") as file:
            file.writelines(f"{item}\t{languages[at % len(languages)]}\n" for at, item in enumerate(new))
        with (folder / f"{name}.itemtext.jsonl").open("a") as file:
            for at, item in enumerate(new):
                record = {"item_id": item, "language": languages[at % len(languages)], "fields": {"title": item}}
                file.write(json.dumps({**record, "source": "display"}) + "\n")
        return f"--data_path={tmp_path / 'data'}"

    return copy


# 12 new readers of 2 new items in Italian, and an old reader.
ROWS = [f"v{user}\tx{item}\t{1573470000 + 10 * user + item}" for user in range(12) for item in range(2)]
ROWS += [f"v{user}\tni3\t{1573480000 + user}" for user in range(12)] + ["nu1\tx0\t1573490000"]


def by_name(result):
    return {measure["name"]: measure for measure in result["measures"]}


@pytest.mark.parametrize(("model", "served"), [("LLMSASRec", 0.0), ("BPR", 12 / 13)])
def test_what_has_come_since_is_measured(trained, later, model, served):
    result = drift(trained(model), "later", arguments=[later(ROWS, languages=("it",))])
    assert result["sizes"]["now"] == {"users": 13, "items": 3, "catalog": 26, "interactions": 37}
    assert result["sizes"]["of_then_still_there"] == result["sizes"]["then"]["interactions"]
    found = by_name(result)
    assert found["new_items"]["value"] == pytest.approx(25 / 37) and found["new_items"]["level"] == "large"
    assert found["new_users"]["value"] == pytest.approx(36 / 37)
    assert found["unserved"]["value"] == pytest.approx(served)
    assert found["interaction_languages"]["value"] == pytest.approx(25 / 37)
    assert result["languages"]["items"] == {"de": [24, 24], "it": [0, 2]}
    assert any("it" in line and "did not have" in line for line in result["verdict"])
    assert any(line.startswith("Train again") for line in result["verdict"])
    assert len(result["samples"]["top_scores"]["then"]) == 30
    assert drift(trained(model), "later", arguments=[later([], "unused").replace("unused", "")]) == result


def test_a_catalog_is_known_without_texts_and_by_items_that_nobody_chooses(trained, later, tmp_path):
    words = later(ROWS)
    folder = tmp_path / "data" / "later"
    (folder / "later.itemtext.jsonl").unlink()
    head, *rows = (folder / "later.inter").read_text().splitlines()
    (folder / "later.inter").write_text("\n".join([head, *rows[-37:]]) + "\n")  # 3 of 26 items are chosen
    run = trained("BPR")
    counts = np.bincount(load_run(run).interactions.items)
    found = by_name(drift(run, "later", arguments=[words]))["popularity"]["value"]
    shares = counts[counts > 0] / counts.sum()
    token = load_run(run).dataset.token2id("item_id", "ni3")
    left = counts[token] / counts.sum()  # all choices of now among items of then are of this one
    both = np.append(shares[shares != left], [left] * (shares == left).sum())
    now = np.zeros_like(both)
    now[-1] = 1
    assert found == pytest.approx(jensenshannon(both, now, base=2) ** 2)


def test_scores_are_those_of_the_lists(trained, later):
    result = drift(trained("LLMSASRec"), "later", arguments=[later(ROWS)])
    lists = load_run(trained("LLMSASRec")).recommend([f"nu{user}" for user in range(30)], 1)
    assert sorted(result["samples"]["top_scores"]["then"]) == pytest.approx(sorted(lists["score"]), abs=1e-5)


def test_new_users_who_state_no_language_are_scored_as_they_are_served(tmp_path):
    folder = write_shop(tmp_path / "then", silent=30)
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
    settings = {"data_path": str(tmp_path / "then"), "checkpoint_dir": str(tmp_path), "load_col": columns, "epochs": 1}
    settings |= {"embedding_cache_dir": str(tmp_path), "encoder": "hashing", "show_progress": False, "topk": [10]}
    settings |= {"text_view": "reader", "reader_vectors": "reader", "item_representation": "text_only"}
    run = load_run(recbole_xling.run("LLMSASRec", "shop", config_dict=settings)["run_dir"])
    shutil.copytree(folder, tmp_path / "now" / "shop")
    rows = [row.split("\t") for row in (folder / "shop.inter").read_text().splitlines()[1:]]
    silent = [f"u{user}" for user in range(30)]
    with (tmp_path / "now" / "shop" / "shop.inter").open("a") as file:
        file.writelines(f"new-{user}\t{item}\t{time}\n" for user, item, time in rows if user in silent)
    found = drift(run.config["run_dir"], arguments=[f"--data_path={tmp_path / 'now'}"])
    expected = run.recommend(silent, 1)["score"]
    assert sorted(found["samples"]["top_scores"]["now"]) == pytest.approx(sorted(expected), abs=1e-5)


def test_table_json_and_page(trained, later, tmp_path):
    place = later([*ROWS, "<b>\tx</script>\t1573490001"], languages=("it",))
    words = [str(trained("LLMSASRec")), "--dataset", "later", place]
    told = call("drift", words)
    assert "Languages of interactions" in told and "Train again" in told and "0.05 / 0.15" in told
    plain = json.loads(call("drift", [*words, "--json", "--page", str(tmp_path / "drift.html")]))
    assert {"verdict", "measures", "languages"} <= plain.keys()
    text = (tmp_path / "drift.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "Train again" in page.text and "Languages of readers" in page.text
    assert not [load for load in page.loads if load.startswith(("http", "/"))] and "later since" in page.text


def test_interactions_that_are_not_read_are_told(trained, later, tmp_path):
    place = later(ROWS, languages=("it",))
    with (tmp_path / "data" / "later" / "later.inter").open("a") as file:
        file.writelines(f"v1\tgone{item}\t1573490001\n" for item in range(3))
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "item_language"]}
    result = drift(trained("LLMSASRec"), "later", arguments=[place, f"--load_col={columns}"])
    assert result["left_out"] == {"then": {}, "now": {"of unknown items": 3}}
    assert "Of the rows in the file of now, some are not used: 3 of unknown items." in result["verdict"]
    told = [row for table in drift_tables(result) for row in table.rows]
    assert ("left out: of unknown items", "0", "3") in told


def test_nothing_to_compare_is_said(trained, later, home, tmp_path):
    folder = trained("LLMSASRec")
    with pytest.raises(DataError, match="no interaction that the run was not trained on"):
        drift(folder, "later", arguments=[later([])])
    with pytest.raises(DataError, match="drift needs the times of interactions as they are"):
        drift(folder, "later", arguments=[later(ROWS, "scaled"), "--normalize_all=True"])
    own = later(ROWS, "nord")
    result = drift(folder, arguments=[own])  # under its own name, elsewhere
    assert result["sizes"]["now"]["interactions"] == 37
    with pytest.raises(CheckpointError, match=r"(?s)trained on have changed: \.inter.*--then"):
        drift(folder, then=tmp_path / "data", arguments=[own])
