"""``recbole-xling recommend`` as a user types it."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import recbole_xling
from recbole_xling.cli import main as cli
from recbole_xling.quick_start.build import load_run
from recbole_xling.testing import small_settings, write_small_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("recommend")
    write_small_dataset(root / "data", title=lambda item: f"Titel\x1b[31m\u202e {item}")
    settings = {**small_settings(root), "hidden_size": 8, "inner_size": 8, "epochs": 1}
    return Path(recbole_xling.run("LLMSASRec", "small", config_dict=settings)["run_dir"])


def test_a_table_with_titles_that_steer_no_terminal(folder, capsys):
    assert cli.main(["recommend", str(folder), "--history", "i3,i4,nothing", "-k", "3", "--languages", "de,en"]) == 0
    out = capsys.readouterr().out
    expected = load_run(folder).recommend_histories([["i3", "i4"]], 3, languages=["de", "en"])
    assert [line.split()[1] for line in out.splitlines()[2:5]] == expected["item"].tolist()
    assert "Titel\\x1b[31m\\u202e" in out and "\x1b" not in out and "\u202e" not in out
    assert out.splitlines()[5] == "Note: 1 of 3 items of the history are unknown ('nothing')"


@pytest.mark.parametrize("word", ["--user", "--history", "--similar", "--text"])
def test_a_second_one_is_refused_and_not_forgotten(tmp_path, capsys, word):
    with pytest.raises(SystemExit):
        cli.main(["recommend", str(tmp_path), word, "a", word, "b"])
    assert f"{word} is given twice: many are answered at once by --batch" in capsys.readouterr().err


def test_batches_are_answered_by_json_lines_in_their_order(folder, capsys, monkeypatch, tmp_path):
    requests = [{"similar": "i2"}, {"user": "u3"}, {"history": ["i1"]}, {"user": "u1", "history": ["i1", "i2"]}]
    (tmp_path / "blocked").write_text("i5\ni6\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(json.dumps, requests)) + "\n"))
    assert cli.main(["recommend", str(folder), "--batch", "-", "-k", "30", "--block", str(tmp_path / "blocked")]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["user"] for answer in answers] == [None, "u3", None, "u1"]
    run = load_run(folder)
    for answer, expected in (
        (answers[1], run.recommend(["u3"], 30, block=["i5", "i6"])),
        (answers[2], run.recommend_histories([["i1"]], 30, block=["i5", "i6"])),
    ):
        assert [item["item"] for item in answer["items"]] == expected["item"].tolist()
        assert answer["items"][0]["title"].startswith("Titel\x1b[31m\u202e")
    assert not {"i5", "i6", "i2"} & {item["item"] for item in answers[0]["items"]}
    monkeypatch.setattr("sys.stdin", io.StringIO('{"similar": "gone"}\n{"similar": "i2"}\n'))
    assert cli.main(["recommend", str(folder), "--batch", "-", "-k", "3"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["items"], len(second["items"])) == ([], 3) and "no item 'gone'" in json.dumps(first)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--user", "u1", "--where", "market"], "write it as column=value"),
        (["--user", "u1", "--where", "market=DE"], "unknown column 'market'"),
        (["--similar", "i99"], "no item 'i99'"),
        (["--batch", "missing.jsonl"], "file missing.jsonl does not exist"),
        (["--batch", "latin.txt", "--to", "."], "--to . is a folder"),
        (["--batch", "latin.txt"], "latin.txt:1: byte 4 is not valid utf-8"),
        (["--user", "u1", "--items", "latin.txt"], "latin.txt:1: byte 4 is not valid utf-8"),
        (["--user", "u1", "--block", "latin.txt"], "latin.txt:1: byte 4 is not valid utf-8"),
    ],
)
def test_what_cannot_be_answered_is_one_line_of_error(folder, capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    Path("latin.txt").write_bytes(b"caf\xe9\n")
    assert cli.main(["recommend", str(folder), *words]) == 2
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("recbole-xling: ") and message in err


def test_somebody_of_whom_nothing_is_known_but_the_language_he_reads(folder, capsys):
    assert cli.main(["recommend", str(folder), "--history", "", "-k", "2"]) == 0
    assert "needs a history with a known item" in capsys.readouterr().out
    assert cli.main(["recommend", str(folder), "--user", "nobody", "--reader", "ja", "-k", "2"]) == 0
    assert "Note: no user of the model states the language ja" in capsys.readouterr().out


TOO_MANY = [  # keys of which one would not count
    '{"user": "u1", "similar": "i3"}',
    '{"user": "u1", "text": "x"}',
    '{"history": ["i1"], "text": "x"}',
    '{"user": "u1", "history": ["i1"], "similar": "i3"}',
]


@pytest.mark.parametrize("line", ["{", "[]", '{"user": 3}', '{"history": "i1"}', '{"usr": "u1"}', "{}", *TOO_MANY])
def test_a_wrong_request_is_named_by_its_line(folder, capsys, tmp_path, line):
    (tmp_path / "requests").write_text('{"user": "u1"}\n' + line + "\n")
    assert cli.main(["recommend", str(folder), "--batch", str(tmp_path / "requests")]) == 2
    assert "requests:2: " in capsys.readouterr().err


def test_a_text_is_answered_as_by_the_run(folder, capsys):
    assert cli.main(["recommend", str(folder), "--text", "Titel abcd", "-k", "3", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["item"] for item in found["items"]] == load_run(folder).recommend_texts(["Titel abcd"], 3)[
        "item"
    ].tolist()


def test_parts_of_answers_on_other_texts_are_made_again(folder, tmp_path, monkeypatch):
    shutil.copytree(folder.parents[1] / "data", tmp_path / "data")
    (tmp_path / "asked.jsonl").write_text('{"user": "u1"}\n{"user": "u1"}\n')
    words = ["recommend", str(folder), "--batch", str(tmp_path / "asked.jsonl"), "-k", "3", "--to", str(tmp_path / "o")]
    texts = tmp_path / "data" / "small" / "small.itemtext.jsonl"
    for rank in ("1", "1", "0"):  # of two processes: the second is stopped, texts change, and both run again
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert cli.main([*words, "--data_path", str(tmp_path / "data")]) == 0
        if "Titel" in texts.read_text():
            texts.write_text(texts.read_text().replace("Titel", "Neu"))
    one, other = (tmp_path / "o").read_text().splitlines()
    assert one == other and "Neu" in one


def test_an_export_is_asked_without_torch(folder, tmp_path):
    pytest.importorskip("onnxscript")
    assert cli.main(["export", str(folder), "--to", str(tmp_path / "export")]) == 0
    words = ["recommend", str(tmp_path / "export"), "--user", "u3", "-k", "3", "--json"]
    code = f"import sys; from recbole_xling.cli.main import main; main({words!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    answer, imported = done.stdout.splitlines()
    expected = load_run(folder).recommend(["u3"], 3)["item"].tolist()
    assert [item["item"] for item in json.loads(answer)["items"]] == expected and imported == "False"
