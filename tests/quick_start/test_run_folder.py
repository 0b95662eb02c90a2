"""What a run folder says of itself: unfinished while it goes on, and whether its data stayed the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import recbole_xling
from recbole_xling.errors import CheckpointError
from recbole_xling.quick_start import train
from recbole_xling.quick_start.compare import compare
from recbole_xling.trainer.trainer import XLingTrainer
from recbole_xling.utils import run_folder
from recbole_xling.utils.run_folder import read_result, read_users

LONGER = {"epochs": 4, "stopping_step": 9}


class Killed(BaseException):
    """The process ends here."""


def _kill(*args, **kwargs):
    raise Killed


@pytest.fixture
def finished(trained, tmp_path):
    """A copy of the folder of a finished run."""
    return Path(shutil.copytree(trained(), tmp_path / "finished"))


def _prolong(folder):
    return recbole_xling.run(config_dict={"resume": str(folder), **LONGER})


@pytest.mark.parametrize(
    "place",
    [
        (run_folder.os, "replace"),
        (train, "write_config"),
        (XLingTrainer, "_train_epoch"),
        (XLingTrainer, "_save_checkpoint"),
        (XLingTrainer, "_save_resume_state"),
        (train, "evaluate_full_ranking"),
        (pl.DataFrame, "write_parquet"),
        (train, "write_result"),
        (train, "remove_stale"),
    ],
)
def test_a_prolonged_run_that_is_killed_looks_unfinished_and_can_go_on(trained, finished, monkeypatch, tmp_path, place):
    owner, name = place
    before = (finished / "result.json").read_bytes()
    with monkeypatch.context() as patched:
        if name == "replace":  # between the two results
            move = run_folder.os.replace
            patched.setattr(owner, name, lambda old, new: _kill() if "users" in str(old) else move(old, new))
        else:
            patched.setattr(owner, name, _kill)
        with pytest.raises(Killed):
            _prolong(finished)
    if name != "remove_stale":
        assert (finished / "result.stale.json").read_bytes() == before
        with pytest.raises(CheckpointError, match="not the folder of a finished run"):
            read_result(finished)
    whole = _prolong(shutil.copytree(trained(), tmp_path / "whole"))
    again = _prolong(finished)
    for key in ("test", "best_valid", "slices"):
        assert again[key] == whole[key]
    assert not [path.name for path in finished.iterdir() if "stale" in path.name]


def test_a_resume_that_is_refused_leaves_the_results(finished):
    before = sorted(path.name for path in finished.iterdir())
    with pytest.raises(CheckpointError):
        recbole_xling.run(config_dict={"resume": str(finished), "hidden_size": 8, **LONGER})
    assert sorted(path.name for path in finished.iterdir()) == before


def test_what_a_killed_process_was_writing_is_removed_when_the_run_goes_on(finished):
    for name in (".last.pt.0123abcd.tmp", ".model.pt.89abcdef.tmp"):
        (finished / name).write_bytes(b"half")
    _prolong(finished)
    assert not list(finished.glob(".*.tmp"))


def test_the_result_names_the_files_and_says_whether_they_changed_meanwhile(
    home, trained, write_shop, monkeypatch, caplog
):
    result = read_result(trained())
    assert set(result["data"]["files"]) == {"inter", "item", "itemtext.jsonl"}
    assert result["data"]["changed_during_run"] == []
    folder = write_shop(home / "data", "flux", prefix="n", language="de", n_users=20, n_items=24, shift=1)
    build = train.build

    def built(*args):
        run = build(*args)
        with open(folder / "flux.inter", "a") as file:
            file.write("nu1\tni1\t5\n")
        return run

    monkeypatch.setattr(train, "build", built)
    with caplog.at_level("WARNING"):
        changed = trained(dataset="flux")
    assert "the data have changed while the run was reading them: .inter" in caplog.text
    (text,) = json.loads((changed / "result.json").read_text())["data"]["changed_during_run"]
    assert text.startswith(".inter (")


def test_a_flipped_bit_in_the_table_of_rows_is_noticed(finished):
    table, whole = read_users(finished), (finished / "users.parquet").read_bytes()
    assert table.height == read_result(finished)["n_test"]
    for place in np.random.default_rng(0).integers(0, len(whole), 40).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        (finished / "users.parquet").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"users\.parquet' is damaged"):
            read_users(finished)
    content = read_result(finished)
    del content["users_sha256"]  # as earlier releases wrote it
    (finished / "users.parquet").write_bytes(whole)
    (finished / "result.json").write_text(json.dumps(content))
    assert read_users(finished).equals(table)


@pytest.mark.parametrize("content", ["{", "[]", '{"model": "LLMSASRec"}', "\ufffd\x00", "{}"])
def test_a_damaged_result_is_one_error(finished, trained, tmp_path, content):
    (finished / "result.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"result\.json.* damaged"):
        compare([finished, trained()])
