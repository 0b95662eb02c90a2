"""The example with PySpark: the function that it maps, and the whole of it where PySpark is installed."""

from __future__ import annotations

import json
import os
import runpy
from pathlib import Path

import pandas as pd
import pytest

import recbole_xling
from recbole_xling.quick_start.serving_export import export_run
from recbole_xling.serve import load_export
from recbole_xling.serve.answers import to_frame
from recbole_xling.testing import small_settings, write_small_dataset

pytest.importorskip("onnxscript")
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "spark_recommend.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("spark")
    write_small_dataset(root / "data")
    settings = {**small_settings(root), "hidden_size": 8, "inner_size": 8, "epochs": 1}
    export_run(recbole_xling.run("LLMSASRec", "small", config_dict=settings)["run_dir"], root / "export")
    return root / "export"


@pytest.mark.parametrize("columns", [["user"], ["history"], ["user", "history"]])
def test_frames_get_the_lists_of_the_export(exported, columns):
    example = runpy.run_path(str(EXAMPLE))
    table = pd.DataFrame({"user": ["u1", "u2", "new"], "history": [["i1", "i2"], ["i4"], None]})[columns]
    frames = list(example["recommend_frames"](iter([table[:2], table[2:]]), str(exported), 4))
    recommender = load_export(exported)
    histories, users = [["i1", "i2"], ["i4"], []], ["u1", "u2", "new"] if "user" in columns else None
    lists = recommender.recommend_histories(histories, 4, users=users) if "history" in columns else None
    expected = to_frame(lists or recommender.recommend(users, 4))
    found = pd.concat(frames, ignore_index=True)
    if users is None:  # places within a frame
        found, expected = found.drop(columns="user"), expected.drop(columns="user")
    pd.testing.assert_frame_equal(found, expected, rtol=1e-5)
    names = [column.split()[0] for column in example["SCHEMA"].split(", ")]
    assert names == list(to_frame(recommender.recommend(["u1"], 1)).columns)


@pytest.mark.slow
def test_it_runs_on_spark(exported, tmp_path, monkeypatch):
    pytest.importorskip("pyspark")
    monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLE.parents[2]), os.environ.get("PYTHONPATH", "")]))
    (tmp_path / "users.json").write_text("".join(f"{json.dumps({'user': f'u{user}'})}\n" for user in range(20)))
    runpy.run_path(str(EXAMPLE))["main"](str(exported), str(tmp_path / "users.json"), str(tmp_path / "lists"), 3)
    found = pd.read_parquet(tmp_path / "lists").sort_values(["user", "rank"])
    assert len(found) == 60 and found["user"].nunique() == 20
