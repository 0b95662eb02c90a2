"""The server of an export: its answers, what it refuses, and how it changes while it runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import recbole_xling
from recbole_xling.cli import main as cli
from recbole_xling.quick_start.build import load_run
from recbole_xling.quick_start.serving_export import export_run
from recbole_xling.serve import explain, load_export
from recbole_xling.serve.bodies import Change
from recbole_xling.serve.served import Served
from recbole_xling.serve.withdrawn import read_withdrawn
from recbole_xling.testing import small_settings, write_small_dataset

pytest.importorskip("fastapi")
pytest.importorskip("onnxscript")
testclient = pytest.importorskip("starlette.testclient")


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("server")
    write_small_dataset(root / "data")
    settings = {**small_settings(root), "hidden_size": 8, "inner_size": 8, "epochs": 1}
    run = recbole_xling.run("LLMSASRec", "small", config_dict=settings)["run_dir"]
    export_run(run, root / "export")
    return root / "export"


@pytest.fixture
def client(exported, tmp_path):
    from recbole_xling.serve.server import create_app

    shutil.copytree(exported, tmp_path / "one")
    os.symlink(tmp_path / "one", tmp_path / "current")
    with testclient.TestClient(create_app(tmp_path / "current"), base_url="http://127.0.0.1") as client:
        yield client  # all of whose requests have one event loop, as those to a server have


def items_of(response) -> list[str]:
    assert response.status_code == 200, response.text
    return [item["item"] for item in response.json()["answers"][0]["items"]]


def test_answers_are_those_of_the_export(client, exported):
    recommender = load_export(exported)
    expected = [answer.record() for answer in recommender.recommend(["u1", "nobody"], 5)]
    assert client.post("/recommend", json={"users": ["u1", "nobody"], "k": 5}).json() == {"answers": expected}
    asked = {"histories": [["i1", "i2"]], "reader": "fr", "languages": ["fr"], "block": ["i5"], "exclude_seen": False}
    languages = client.post("/recommend", json=asked).json()["answers"][0]["items"]
    assert {item["language"] for item in languages} == {"fr"} and len(languages) == 9
    similar = client.post("/similar", json={"item": "i3", "k": 4, "language": "de"}).json()
    assert similar == recommender.similar_items("i3", 4, language="de").record()
    told = client.get("/health").json()
    facts = {"status": "ok", "model": "LLMSASRec", "dataset": "small", "items": 30, "added": 0, "shown": 30}
    assert facts.items() <= told.items() and {"de", "fr"} <= set(told["languages"]) and "it" in told["sentences"]
    assert {"/recommend", "/similar", "/items", "/health"} <= client.get("/openapi.json").json()["paths"].keys()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/recommend", {}, 422),
        ("/recommend", {"users": ["u1"], "k": 0}, 422),
        ("/recommend", {"users": ["u1"], "k": 100_000}, 422),
        ("/recommend", {"users": "u1"}, 422),
        ("/recommend", {"users": ["u1"], "colour": "red"}, 422),
        ("/recommend", {"users": ["u"] * 300}, 422),
        ("/recommend", {"users": ["u1"], "languages": ["xx"]}, 400),
        ("/recommend", {"users": ["u1"], "histories": [["i1"], ["i2"]]}, 400),
        ("/similar", {"item": "gone"}, 400),
        ("/items", {"withdraw": ["gone"]}, 400),
    ],
)
def test_wrong_requests_are_refused(client, path, body, status):
    response = client.post(path, json=body)
    assert response.status_code == status and response.json()["detail"]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/recommend", '{"users": ["\\ud800"]}', 422),
        ("/recommend", '{"users": ["u1"], "k": NaN}', 422),
        ("/recommend", '{"users": ["u1"], "\\ud800": 1}', 422),
        ("/items", '{"add": [{"item_id": "bad\\ud800", "vector": [1]}]}', 400),
        ("/items", '{"add": [{"item_id": "bad", "text": "\\ud800", "vector": [1]}]}', 400),
        ("/items", '{"add": [{"item_id": "bad", "item_language": "\\ud800", "vector": [1]}]}', 400),
    ],
)
def test_what_is_no_unicode_or_no_number_is_refused_and_does_nothing(client, exported, path, body, status):
    size = load_export(exported).scorer.history_size
    content = body.replace("[1]", str([0.5] * size))
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    assert response.status_code == status and response.json()["detail"]
    assert client.get("/health").json()["added"] == 0


def test_an_export_that_was_written_over_is_changed_after_a_reload_only(client, tmp_path, shop_export):
    shutil.rmtree(tmp_path / "one")
    shutil.copytree(shop_export, tmp_path / "one")
    for change in ({"withdraw": ["i2"]}, {"add": [{"item_id": "new", "vector": [1.0]}]}):
        refused = client.post("/items", json=change)
        assert refused.status_code == 400 and "is another export now: reload it first" in refused.json()["detail"]
    assert read_withdrawn(tmp_path / "one") == [] and not (tmp_path / "one" / "added.jsonl").exists()
    assert client.post("/reload").status_code == 200
    assert client.post("/items", json={"withdraw": ["i2"]}).json()["withdrawn"] == ["i2"]


def test_requests_that_are_too_large_or_from_elsewhere_are_refused(client):
    assert client.post("/recommend", content=b" " * 2_000_000).status_code == 413
    assert client.post("/recommend", content=iter([b"{}", b"{}"])).status_code == 411
    assert client.get("/health", headers={"host": "attacker.example"}).status_code == 400


def test_withdrawn_items_stay_away_after_a_restart(client, tmp_path):
    first = items_of(client.post("/recommend", json={"users": ["u1"], "k": 30}))
    assert client.post("/items", json={"withdraw": first[:2]}).json()["withdrawn"] == sorted(first[:2])
    assert items_of(client.post("/recommend", json={"users": ["u1"], "k": 30})) == first[2:]
    assert client.get("/health").json()["shown"] == 28
    again = load_export(tmp_path / "one").recommend(["u1"], 30)[0]
    assert [item.item for item in again.items] == first[2:]
    assert client.post("/items", json={"restore": first[:1]}).json()["withdrawn"] == first[1:2]
    assert items_of(client.post("/recommend", json={"users": ["u1"], "k": 30})) == first[:1] + first[2:]
    assert client.post("/items", json={"restore": first[:1]}).status_code == 400


def test_withdrawn_items_stay_away_from_the_export_that_comes_next(client, exported, tmp_path):
    shutil.copytree(exported, tmp_path / "two")
    assert client.post("/items", json={"withdraw": ["i3"]}).json() == {"withdrawn": ["i3"], "added": []}
    os.unlink(tmp_path / "current")
    os.symlink(tmp_path / "two", tmp_path / "current")
    refused = client.post("/items", json={"withdraw": ["i4"]})  # of which export, nobody could say
    assert refused.status_code == 400 and "reload it first" in refused.text
    assert client.post("/reload").json()["shown"] == 29
    assert json.loads((tmp_path / "two" / "withdrawn.json").read_text()) == ["i3"]
    assert "i3" not in items_of(client.post("/recommend", json={"users": ["u1"], "k": 30, "exclude_seen": False}))


def test_another_export_takes_the_place_of_one_without_a_lost_request(client, exported, tmp_path):
    shutil.copytree(exported, tmp_path / "two")
    (tmp_path / "two" / "withdrawn.json").write_text('["i7", "i8"]')
    counts, failures, stop = set(), [], threading.Event()

    def ask() -> None:
        while not stop.is_set():
            response = client.post("/recommend", json={"users": ["u1"], "k": 30, "exclude_seen": False})
            failures.extend([response.text] if response.status_code != 200 else [])
            counts.add(len(response.json()["answers"][0]["items"]))

    asking = threading.Thread(target=ask)
    asking.start()
    os.unlink(tmp_path / "current")
    os.symlink(tmp_path / "two", tmp_path / "current")
    assert client.post("/reload").json()["shown"] == 28
    shutil.rmtree(tmp_path / "one")
    while 28 not in counts and not failures and asking.is_alive():
        pass
    stop.set()
    asking.join()
    assert not failures and counts <= {28, 30}
    (tmp_path / "two" / "export.json").write_text("{")
    assert client.post("/reload").status_code == 400
    assert len(items_of(client.post("/recommend", json={"users": ["u1"], "k": 30, "exclude_seen": False}))) == 28


def test_metrics_count_requests_by_their_kind_and_not_by_what_is_asked(client):
    client.post("/recommend", json={"users": ["u1"]})
    client.get("/secret/../x")
    text = client.get("/metrics").text
    assert 'recbole_xling_requests_total{path="/recommend",status="200"} 1.0' in text
    assert 'path="other",status="404"' in text and "secret" not in text
    assert "recbole_xling_items_shown 30.0" in text


def test_the_server_needs_neither_torch_nor_recbole():
    code = "import sys, recbole_xling.serve.server; print({'torch', 'recbole'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr


def test_explanations_are_those_of_the_export(client, exported):
    asked = {"item": "i7", "history": ["i1", "i2"], "language": "it"}
    found = client.post("/explain", json=asked).json()
    assert found == json.loads(json.dumps(explain(load_export(exported), **asked).record()))
    assert {part["item"] for part in found["parts"]} == {"i1", "i2"}
    assert client.post("/explain", json={"item": "i7"}).status_code == 422


def test_items_are_added_for_good_and_refused_with_a_reason(client, exported, tmp_path):
    size = load_export(exported).scorer.history_size
    vector = load_export(exported).scorer.vectors(0, np.array([3]))[0].tolist()  # that of another item
    item = {"item_id": "new", "text": "a new one", "language": "de", "vector": vector}
    assert client.post("/items", json={"add": [item]}).json() == {"withdrawn": [], "added": ["new"]}
    asked = {"histories": [["i1", "new"]], "k": 31, "exclude_seen": False}
    found = client.post("/recommend", json=asked).json()["answers"][0]["items"]
    assert [(one["title"], one["language"]) for one in found if one["item"] == "new"] == [("a new one", "de")]
    assert "new" in load_export(tmp_path / "one").catalog.number
    assert client.get("/health").json()["added"] == 1
    again = client.post("/items", json={"add": [item]})
    assert again.status_code == 400 and "was added before" in again.json()["detail"]
    assert client.post("/items", json={"add": [{**item, "text": "newer"}], "replace": True}).status_code == 200
    assert client.post("/search", json={"text": "NEWER"}).json()["items"][0]["item"] == "new"
    for wrong, message in (
        ({"item_id": "other", "text": "no encoder"}, "does not read texts"),
        ({"item_id": "i3", "vector": vector}, "was known in training"),
        ({"item_id": "other", "vector": [1.0] * (size + 1)}, "numbers"),
        ({"item_id": "other", "vector": vector, "colour": "red"}, "unknown column"),
    ):
        refused = client.post("/items", json={"add": [wrong], "withdraw": ["i4"]})
        assert refused.status_code == 400 and message in refused.json()["detail"]
    assert client.post("/items", json={"add": [item] * 300}).status_code == 422
    assert client.get("/health").json()["shown"] == 31  # nothing was withdrawn on the way
    assert client.post("/items", json={"withdraw": ["new"]}).json() == {"withdrawn": ["new"], "added": ["new"]}
    assert client.get("/health").json()["shown"] == 30


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"restore": ["i3"]}, "not withdrawn is 'i3'"),
        ({"restore": ["gone"]}, "no item 'gone'"),
        ({"withdraw": ["new", "gone"]}, "no item 'gone'"),
        ({"withdraw": ["new"], "restore": ["new"]}, "not withdrawn is 'new'"),
    ],
)
def test_a_change_that_is_refused_has_done_nothing(client, exported, tmp_path, wrong, message):
    item = {"item_id": "new", "vector": [0.5] * load_export(exported).scorer.history_size}
    refused = client.post("/items", json={"add": [item], **wrong})
    assert refused.status_code == 400 and message in refused.json()["detail"]
    assert not (tmp_path / "one" / "added.jsonl").exists() and read_withdrawn(tmp_path / "one") == []
    assert client.get("/health").json()["added"] == 0 and client.post("/reload").json()["added"] == 0
    assert client.post("/items", json={"add": [item]}).json()["added"] == ["new"]


def test_an_item_given_by_its_vector_alone_keeps_its_language(client, exported, tmp_path, shop_export):
    size = load_export(exported).scorer.history_size
    item = {"item_id": "new", "vector": [0.5] * size, "language": "de"}
    for wrong in ("d!", ["de"], 3):
        refused = client.post("/items", json={"add": [{**item, "language": wrong}]})
        assert refused.status_code == 400 and "is not a BCP 47 tag" in refused.json()["detail"]
        refused = client.post("/items", json={"add": [{"item_id": "new", "text": "x", "language": wrong}]})
        assert refused.status_code == 400 and "is not a BCP 47 tag" in refused.json()["detail"]
    assert client.post("/items", json={"add": [item]}).status_code == 200
    found = client.post("/recommend", json={"users": ["u1"], "languages": ["de"], "k": 31}).json()["answers"][0]
    assert [(one["title"], one["language"]) for one in found["items"] if one["item"] == "new"] == [("", "de")]

    (run,) = shop_export.parent.glob("LLMSASRec-shop-*")
    shutil.copytree(run, tmp_path / "run")
    run = load_run(tmp_path / "run")
    run.add_items([{**item, "vector": [0.5] * run.recommender.scorer.history_size}])
    shown = run.recommend(["u1"], 30, exclude_seen=False, languages=["de"]).set_index("item")
    assert shown.loc["new", "language"] == "de"
    shutil.copytree(exported, tmp_path / "two")  # which cannot read it, as there is no text
    os.unlink(tmp_path / "current")
    os.symlink(tmp_path / "two", tmp_path / "current")
    assert client.post("/reload").json()["not_taken_along"] == ["new"]


def test_a_variant_is_in_its_language_in_filters_and_readers_and_added_items_have_the_catalogs_tags(client, exported):
    size = load_export(exported).scorer.history_size
    texts = {"pt-BR": "um", "zh-TW": "一", "en-GB": "colour", "EN": "red"}
    for tag, text in texts.items():
        item = {"item_id": f"new-{tag}", "text": text, "language": tag, "vector": [0.5] * size}
        assert client.post("/items", json={"add": [item]}).status_code == 200
    asked = {"histories": [["i1"]], "k": 34}

    def added(language, **more):
        found = client.post("/recommend", json={**asked, "languages": [language], **more})
        return {item for item in items_of(found) if item.startswith("new")}

    assert added("pt") == {"new-pt-BR"} and added("zh") == added("zh-Hant") == {"new-zh-TW"}
    assert added("en") == {"new-en-GB", "new-EN"}
    assert added("pt-BR") == {"new-pt-BR"} and added("zh-TW") == {"new-zh-TW"}  # by the tags that they came with
    two = {"item_id": "two", "texts": {"pt": "um", "pt-BR": "dois"}, "vector": [0.5] * size}
    refused = client.post("/items", json={"add": [two]})
    assert refused.status_code == 400 and "two texts in one language (pt, pt-BR)" in refused.json()["detail"]


def test_readers_may_be_named_as_the_data_name_them(shop_export):
    recommender = load_export(shop_export)
    titles = {
        reader: [item.title for item in recommender.recommend_histories([["i2"]], 5, reader=reader)[0].items]
        for reader in ("en", "en-US", "English", "eng", "de")
    }
    assert titles["en-US"] == titles["English"] == titles["eng"] == titles["en"] != titles["de"]


def test_readers_of_a_language_see_its_variant_where_the_shop_has_no_other(tmp_path, shop_export):
    (run,) = shop_export.parent.glob("LLMSASRec-shop-*")
    files = shop_export.parent / "data" / "shop"
    write = tmp_path / "data" / "shop"
    write.mkdir(parents=True)
    for path in files.iterdir():
        content = path.read_text(encoding="utf-8").replace('"en"', '"en-GB"').replace("\ten\n", "\ten-GB\n")
        content = content.replace("i7\tc1\tde\n", "i7\tc1\ten-GB\n")  # an item that everybody sees in it
        lines = content.splitlines(keepends=True)
        for at, line in enumerate(lines):
            if '"i7"' in line:
                source = "display" if '"en-GB"' in line else "parallel"
                lines[at] = json.dumps({**json.loads(line), "source": source}) + "\n"
        content = "".join(lines)
        (write / path.name).write_text(content, encoding="utf-8")
    changed = {"data_path": str(tmp_path / "data"), "checkpoint_dir": str(tmp_path)}
    found = recbole_xling.run(config_file_list=[run / "config.yaml"], config_dict={**changed, "run_dir": None})
    export_run(found["run_dir"], tmp_path / "export")
    recommender = load_export(tmp_path / "export")
    assert "en-GB" in recommender.catalog.view_of and "en" not in recommender.catalog.view_of
    answers = {
        reader: recommender.recommend_histories([["i2"]], 5, reader=reader)[0].record()
        for reader in ("en-GB", "en", "en-US", "English", "de")
    }
    assert answers["en"] == answers["en-US"] == answers["English"] == answers["en-GB"] != answers["de"]
    assert {item["language"] for item in answers["en"]["items"]} >= {"en-GB"} and not answers["en"]["notes"]
    similar = [recommender.similar_items("i2", 5, language=tag).record() for tag in ("en", "en-GB")]
    assert similar[0] == similar[1] and len(similar[0]["items"]) == 5


def test_what_was_replaced_goes_along_to_an_export_that_has_the_item(tmp_path, tiny_encoder):
    write_small_dataset(tmp_path / "data")
    known = {key: value for key, value in small_settings(tmp_path).items() if key != "encoder_options"}
    own = {**known, "encoder": str(tiny_encoder), "encoder_max_length": 16, "epochs": 1}
    pytest.importorskip("sentence_transformers")
    export_run(recbole_xling.run("XLingTwoTower", "small", config_dict=own)["run_dir"], tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    link = tmp_path / "now"

    def lead_to(folder):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / folder)

    def title():
        catalog = served.recommender.catalog
        return catalog.titles[0][catalog.number["new"]]

    lead_to("one")
    served = Served(link)
    new = {"item_id": "new", "text": "old title", "language": "en"}
    served.change(Change(add=[new]))
    lead_to("two")
    assert served.reload()["not_taken_along"] == [] and title() == "old title"
    lead_to("one")
    served.reload()
    served.change(Change(add=[{**new, "text": "right title"}], replace=True, withdraw=["i3"]))
    lead_to("two")
    assert served.reload()["not_taken_along"] == [] and title() == "right title"
    assert not served.recommender.catalog.shown[served.recommender.catalog.number["i3"]]


def test_the_command_finds_similar_items_as_the_server_does(shop_export, capsys):
    export = load_export(shop_export)
    as_read = export.similar_items("i3", 5, view=export.catalog.view_of["fr"])
    of_server = export.similar_items("i3", 5, language="fr")
    assert as_read != export.similar_items("i3", 5)
    for words, expected in (
        (["--reader", "fr"], as_read),
        (["--languages", "fr"], of_server),
        (["--languages", "fr", "--reader", "fr"], of_server),
        ([], export.similar_items("i3", 5)),
    ):
        assert cli.main(["recommend", str(shop_export), "--similar", "i3", "-k", "5", "--json", *words]) == 0
        assert json.loads(capsys.readouterr().out) == expected.record(), words


def test_added_items_that_another_export_cannot_read_are_named(client, exported, tmp_path):
    shutil.copytree(exported, tmp_path / "two")
    vector = load_export(exported).scorer.vectors(0, np.array([3]))[0].tolist()
    client.post("/items", json={"add": [{"item_id": "new", "vector": vector}], "withdraw": ["i3"]})
    os.unlink(tmp_path / "current")
    os.symlink(tmp_path / "two", tmp_path / "current")
    told = client.post("/reload").json()
    assert told["not_taken_along"] == ["new"] and (told["added"], told["shown"]) == (0, 29)


def test_requests_at_the_same_time_get_their_own_answers(client, exported):
    own, wrong, answers = load_export(exported), {"users": ["u1"], "languages": ["xx"]}, {}
    bodies = [{"users": [f"u{user}"], "k": 3 + user % 2} for user in range(20)]
    bodies += [{"histories": [[f"i{item}"]], "reader": ("fr", "de")[item % 2], "k": 4} for item in range(10)]

    def ask(number):
        for place in range(number, len(bodies), 5):
            answers[place] = client.post("/recommend", json=bodies[place]).json()
            assert client.post("/recommend", json=wrong).status_code == 400

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    for place, body in enumerate(bodies):
        one = own.recommend(body["users"], body["k"]) if "users" in body else None
        one = one or own.recommend_histories(body["histories"], body["k"], reader=body["reader"])
        found, expected = answers[place]["answers"][0], one[0].record()
        assert [item["item"] for item in found["items"]] == [item["item"] for item in expected["items"]]
        assert found["notes"] == expected["notes"] and found["user"] == expected["user"]


def test_titles_are_searched(client):
    found = client.post("/search", json={"text": "i4"}).json()["items"]
    assert found[0]["item"] == "i4"
    assert client.post("/search", json={"text": ""}).status_code == 422
    assert client.post("/search", json={"text": "no such words"}).json() == {"items": []}


def test_the_page_runs_its_own_script_alone(client):
    page = client.get("/")
    assert page.status_code == 200 and "<h1>Recommendations</h1>" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy and "unsafe" not in policy
