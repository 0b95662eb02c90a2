"""Answers of several processes in one file: in the order of the requests, resumed, and under torchrun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from recbole_xling.errors import ConfigError, XlingError
from recbole_xling.serve import shards
from recbole_xling.serve.shards import Share, answer_share, identity_of


def answered(path, n, share, identity="a", patience=20.0, calls=None):
    def answer(some):
        if calls is not None:
            calls.append(len(some))
        return [json.dumps(one) for one in some]

    return answer_share(iter(range(n)), answer, path, identity, share, patience)


@pytest.mark.parametrize(("n", "number"), [(0, 1), (7, 1), (7, 2), (8, 3), (2, 4), (100, 3)])
def test_the_file_has_all_answers_in_the_order_of_the_requests(tmp_path, monkeypatch, n, number):
    monkeypatch.setattr(shards, "_AT_ONCE", 5)
    path = tmp_path / "out.jsonl"
    shares = [threading.Thread(target=answered, args=(path, n, Share(rank, number))) for rank in range(number)]
    for share in shares:
        share.start()
    for share in shares:
        share.join()
    assert [json.loads(line) for line in path.read_text().splitlines()] == list(range(n))
    assert os.listdir(tmp_path) == ["out.jsonl"]


def test_parts_of_a_stopped_call_are_kept_and_those_of_others_are_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "_POLL", 0.01)
    path = tmp_path / "out.jsonl"
    assert not answered(path, 6, Share(1, 2))
    assert not answered(path, 6, Share(1, 2), calls=(again := [])) and again == []
    with pytest.raises(XlingError, match="1 of 2 parts have not come within"):
        answered(path, 6, Share(0, 2), identity="other model", patience=0.05)
    assert not path.exists()
    assert answered(path, 6, Share(0, 2)) and len(path.read_text().splitlines()) == 6


def test_identity_and_place(tmp_path, monkeypatch):
    (tmp_path / "requests").write_text("1")
    first = identity_of([tmp_path / "requests"], 10)
    assert first == identity_of([tmp_path / "requests"], 10) != identity_of([tmp_path / "requests"], 11)
    (tmp_path / "requests").write_text("2")
    assert identity_of([tmp_path / "requests"], 10) != first
    assert Share.of_environment() == Share(0, 1)
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(ConfigError, match="RANK=2 and WORLD_SIZE=1"):
        Share.of_environment()


@pytest.mark.slow  # torchrun imports torch in three processes
def test_torchrun_gives_what_one_process_gives(tmp_path):
    pytest.importorskip("onnxscript")
    import recbole_xling
    from recbole_xling.quick_start.serving_export import export_run
    from recbole_xling.testing import small_settings, write_small_dataset

    write_small_dataset(tmp_path / "data")
    settings = {**small_settings(tmp_path), "hidden_size": 8, "inner_size": 8, "epochs": 1}
    export_run(recbole_xling.run("LLMSASRec", "small", config_dict=settings)["run_dir"], tmp_path / "export")
    lines = [{"user": f"u{user}"} for user in range(39)] + [{"history": ["i1", "i2"]}, {"similar": "i3"}]
    (tmp_path / "requests.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    words = ["recommend", str(tmp_path / "export"), "--batch", str(tmp_path / "requests.jsonl"), "-k", "5"]
    torchrun = shutil.which("torchrun", path=os.path.dirname(sys.executable)) or [
        sys.executable,
        "-m",
        "torch.distributed.run",
    ]
    launcher = [torchrun] if isinstance(torchrun, str) else torchrun
    command = [*launcher, "--standalone", "--nproc-per-node", "2", "-m", "recbole_xling", *words, "--to", "out.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Part 2 of 2 is done" in done.stdout and "Written: out.jsonl" in done.stdout
    whole = subprocess.run([sys.executable, "-m", "recbole_xling", *words], capture_output=True, text=True, timeout=120)
    written = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    answers = [[json.loads(line) for line in text.splitlines()] for text in (written, whole.stdout)]
    # rows that are scored together with fewer others may be rounded differently
    scores = [[item.pop("score") for answer in of_one for item in answer["items"]] for of_one in answers]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5, abs=1e-6)
    assert answers[0] == answers[1] and len(answers[0]) == 41
