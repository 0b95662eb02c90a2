"""Benchmarks from a file: what is there is not repeated, what fails does not stop the rest."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml

from recbole_xling.cli.main import main
from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError
from recbole_xling.quick_start import benchmark as benchmarks
from recbole_xling.quick_start.benchmark import benchmark, only_one, read_benchmark
from recbole_xling.quick_start.train import run
from recbole_xling.testing import make_tiny_encoder, small_settings, write_small_dataset
from recbole_xling.trainer.trainer import XLingTrainer


@pytest.fixture
def plan(tmp_path):
    """A benchmark of three models, one of which cannot be built; each run writes below ``tmp_path/out``."""
    write_small_dataset(tmp_path / "data")
    settings = {key: value for key, value in small_settings(tmp_path).items() if key != "checkpoint_dir"}
    plan = {
        "common": {**settings, "epochs": 1},
        "datasets": {"small": {}},
        "models": {
            "content": {"model": "ContentKNN", "seeds": [1]},
            "heads": {"model": "LLMSASRec", "hidden_size": 9, "n_heads": 2},
            "LanguagePop": {},
        },
        "seeds": [1, 2],
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    return plan


@pytest.fixture
def in_this_process(monkeypatch):
    """Run without processes of their own; return the words of each call."""
    calls = []

    def run_here(words, output, spent):
        calls.append(words)
        if words[0].startswith("--resume="):
            run(config_dict={"resume": words[0].partition("=")[2]})
        else:
            run(config_file_list=[words[0].partition("=")[2]])
        return {"status": "finished", "seconds": spent + 1.0, "peak_memory": 2**30}

    monkeypatch.setattr(benchmarks, "_in_process", run_here)
    return calls


def test_all_seeds_of_all_models_in_an_order_that_may_be_stopped(tmp_path, plan):
    cells = read_benchmark(tmp_path / "plan.yaml", tmp_path)
    assert [(cell.model, cell.seed) for cell in cells] == [
        ("content", 1),
        ("heads", 1),
        ("LanguagePop", 1),
        ("heads", 2),
        ("LanguagePop", 2),
    ]
    assert cells[-1].settings["model"] == cells[-1].model and cells[-1].settings["seed"] == 2
    assert [cell.model for cell in read_benchmark(tmp_path / "plan.yaml", tmp_path, ["content"])] == ["content"]
    with pytest.raises(ConfigError, match=r"unknown model or dataset .* 'contents'\. Did you mean 'content'"):
        read_benchmark(tmp_path / "plan.yaml", tmp_path, ["contents"])
    (tmp_path / "plan.yaml").write_text("model: {}\n")
    with pytest.raises(ConfigError, match="datasets must be set"):
        read_benchmark(tmp_path / "plan.yaml", tmp_path)


def test_all_are_compared_with_the_first_model_of_the_file_whatever_its_seeds(tmp_path, plan, in_this_process):
    plan["models"] = {"content": {"model": "ContentKNN", "seeds": [3]}, "LanguagePop": {}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    cells, compared = benchmark(tmp_path / "plan.yaml", tmp_path / "out")
    assert [cell.model for cell in cells] == ["LanguagePop", "LanguagePop", "content"]
    frame = compared["small"]
    assert frame["model"].iloc[0] == "content" and frame[frame["model"] == "content"]["difference"].isna().all()
    assert frame[frame["model"] == "LanguagePop"]["difference"].notna().any()


def test_a_failed_run_does_not_stop_the_rest_and_finished_ones_are_not_repeated(tmp_path, plan, in_this_process):
    file, output = tmp_path / "plan.yaml", tmp_path / "out"
    cells, compared = benchmark(file, output)
    assert [cell.state["status"] for cell in cells] == ["finished", "failed", "finished", "failed", "finished"]
    assert "multiple of n_heads" in cells[1].state["error"]
    frame = compared["small"]
    assert isinstance(frame, pd.DataFrame)
    overall = frame[frame["slice"] == "all"]
    assert set(overall["model"]) == {"content", "LanguagePop"}
    assert overall["runs"].tolist() == [1, 2] * (len(overall) // 2)
    stored = json.loads((output / "benchmark.json").read_text())
    assert len(stored["runs"]) == 5 and len(stored["comparison"]["small"]) == len(frame)
    assert stored["runs"][0]["test"] and stored["runs"][0]["peak_memory"] == 2**30
    assert len(in_this_process) == 3
    benchmark(file, output)
    assert len(in_this_process) == 3
    plan["common"]["MAX_ITEM_LIST_LENGTH"] = 5
    file.write_text(yaml.safe_dump(plan, sort_keys=False))
    benchmark(file, output, ["content"])
    assert len(in_this_process) == 4
    with open(tmp_path / "data" / "small" / "small.inter", "a") as inter:
        inter.write("u1\ti1\t1\t99\n")
    benchmark(file, output, ["content"])
    assert len(in_this_process) == 5
    damaged = cells[0].folder / "cell.json"
    damaged.write_text("{")
    cells, _ = benchmark(file, output, ["content"])
    assert cells[0].state["error"].startswith(f"'{damaged}' is damaged") and len(in_this_process) == 5


def test_a_part_of_a_benchmark_leaves_the_other_results_where_they_are(tmp_path, plan, in_this_process, monkeypatch):
    file, output = tmp_path / "plan.yaml", tmp_path / "out"
    plan["datasets"]["again"] = {"dataset": "small"}
    plan["models"], plan["seeds"] = {"content": {"model": "ContentKNN"}, "LanguagePop": {}}, [1]
    file.write_text(yaml.safe_dump(plan, sort_keys=False))
    _, compared = benchmark(file, output)
    assert list(compared) == ["small", "again"]
    whole = json.loads((output / "benchmark.json").read_text())
    seen, write = [], benchmarks._write
    monkeypatch.setattr(benchmarks, "_write", lambda *given: (write(*given), seen.append(given[0].read_text())))
    cells, compared = benchmark(file, output, ["LanguagePop", "small"])
    assert [cell.model for cell in cells] == ["LanguagePop"] and list(compared) == ["small"]
    for text in seen:  # after each run
        found = json.loads(text)
        assert found["runs"] == whole["runs"] and found["comparison"] == whole["comparison"]
    (finished,) = (output / "again" / "content").glob("1/ContentKNN-*/result.json")
    finished.unlink()  # the others are there
    (damaged,) = (output / "again" / "LanguagePop" / "1").glob("cell.json")
    damaged.write_text("{")
    benchmark(file, output, ["LanguagePop", "small"])
    runs = json.loads((output / "benchmark.json").read_text())["runs"]
    assert len(runs) == len(whole["runs"]) - 1
    assert [run["error"] for run in runs if "damaged" in run.get("error", "")]


def test_results_of_other_settings_are_not_compared(tmp_path, plan, in_this_process):
    """Of runs that the changed file has not repeated yet, here because they are left out."""
    plan["models"] = {"content": {"model": "ContentKNN", "seeds": [1]}, "LanguagePop": {"seeds": [1]}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    _, first = benchmark(tmp_path / "plan.yaml", tmp_path / "out")
    assert isinstance(first["small"], pd.DataFrame)
    plan["common"]["exclude_history"] = True
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    _, compared = benchmark(tmp_path / "plan.yaml", tmp_path / "out", only=["LanguagePop"])
    assert compared["small"] == "fewer than two runs have finished"
    stored = json.loads((tmp_path / "out" / "benchmark.json").read_text())["runs"]
    assert [run["model"] for run in stored] == ["LanguagePop"]
    _, compared = benchmark(tmp_path / "plan.yaml", tmp_path / "out")
    assert isinstance(compared["small"], pd.DataFrame) and len(in_this_process) == 4


@pytest.mark.parametrize(
    ("model", "changed"), [("XLingTwoTower", "encoder"), ("XLingTwoTower", "init_from"), ("ContentKNN", "encoder")]
)
def test_other_weights_under_the_same_name_are_another_run(tmp_path, plan, in_this_process, model, changed):
    encoder = make_tiny_encoder(tmp_path / "encoder")
    tower = {"model": model, "encoder": str(encoder), "encoder_options": None, "encoder_max_length": 24}
    if changed == "init_from":
        tower["init_from"] = run("XLingTwoTower", "small", config_dict={**plan["common"], **tower})["run_dir"]
    plan["models"] = {"tower": {**tower, "seeds": [1]}, "LanguagePop": {"seeds": [1]}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    for _ in range(2):
        benchmark(tmp_path / "plan.yaml", tmp_path / "out")
    assert len(in_this_process) == 2
    if changed == "encoder":
        make_tiny_encoder(encoder, seed=1)
    else:
        again = run("XLingTwoTower", "small", config_dict={**plan["common"], **tower, "init_from": None, "seed": 9})
        shutil.copy(Path(again["run_dir"]) / "model.pt", tower["init_from"])
    _, compared = benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["LanguagePop"])
    assert compared["small"] == "fewer than two runs have finished"
    benchmark(tmp_path / "plan.yaml", tmp_path / "out")
    assert len(in_this_process) == 3


def test_two_benchmarks_do_not_share_a_folder(tmp_path, plan, in_this_process):
    with only_one(tmp_path / "out"), pytest.raises(ConfigError, match=r"out': another .* is at work"):
        benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["LanguagePop"])
    assert not in_this_process and not (tmp_path / "out" / "benchmark.json").exists()
    benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["LanguagePop"])
    assert len(in_this_process) == 2


def test_a_killed_run_goes_on(tmp_path, plan, in_this_process, monkeypatch):
    class Killed(BaseException):
        """The process ends here."""

    whole = benchmarks._in_process

    def killed(words, output, spent):
        whole(words, output, spent)
        (folder,) = output.parent.glob("LanguagePop-*")
        (folder / "result.json").unlink()
        raise Killed

    monkeypatch.setattr(benchmarks, "_in_process", killed)
    with pytest.raises(Killed):
        benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["LanguagePop"])
    monkeypatch.setattr(benchmarks, "_in_process", whole)
    (cells, _) = benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["LanguagePop"])
    assert in_this_process[1][0].startswith("--resume=")
    assert all(cell.is_finished for cell in cells)
    assert Path(cells[0].state["run_dir"]).parent == cells[0].folder


def test_a_run_of_other_settings_does_not_go_on(tmp_path, plan, in_this_process, monkeypatch):
    class Killed(BaseException):
        """The process ends here."""

    whole, words_of = benchmarks._in_process, []

    def killed(words, output, spent):
        if not words_of:  # the first one after its last epoch, the second one at once
            whole(words, output, spent)
            (folder,) = output.parent.glob("LanguagePop-*")
            (folder / "result.json").unlink()
        words_of.append(words)
        raise Killed

    monkeypatch.setattr(benchmarks, "_in_process", killed)
    for longest in (5, 6):
        plan["common"]["MAX_ITEM_LIST_LENGTH"] = longest
        (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
        with pytest.raises(Killed):
            benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["LanguagePop"])
    monkeypatch.setattr(benchmarks, "_in_process", whole)
    (cells, _) = benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["LanguagePop"])
    assert in_this_process[1][0].startswith("--config_files=")
    settings = yaml.safe_load((Path(cells[0].state["run_dir"]) / "config.yaml").read_text())
    assert settings["MAX_ITEM_LIST_LENGTH"] == 6


@pytest.mark.slow
def test_the_result_of_stages_is_that_of_the_last_one_and_killed_ones_go_on(
    tmp_path, plan, in_this_process, monkeypatch
):
    plan["models"] = {"refitted": {"model": "LLMSASRec", "stages": ["joint", "refit"], "seeds": [1]}}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    train = XLingTrainer._train_epoch

    def killed(self, *arguments, **options):
        if self.config["train_on_validation"]:
            raise KeyboardInterrupt
        return train(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(XLingTrainer, "_train_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            benchmark(tmp_path / "plan.yaml", tmp_path / "out")
    (cell,), _ = benchmark(tmp_path / "plan.yaml", tmp_path / "out")
    assert in_this_process[-1][0].startswith("--resume=")
    assert cell.is_finished and Path(cell.state["run_dir"]).name == "refit"
    n_calls = len(in_this_process)
    benchmark(tmp_path / "plan.yaml", tmp_path / "out")
    assert len(in_this_process) == n_calls


def test_the_command_runs_processes_and_tells_of_failures_at_the_end(tmp_path, plan, capsys):
    words = ["benchmark", str(tmp_path / "plan.yaml"), "--output", str(tmp_path / "out"), "--only", "content", "heads"]
    assert main(words) == 2
    seen = capsys.readouterr()
    assert "2 of 3 runs failed: heads on small (1)" in seen.err and "benchmark.json" in seen.out
    (state,) = [json.loads(path.read_text()) for path in (tmp_path / "out" / "small" / "content").glob("*/cell.json")]
    assert state["status"] == "finished" and state["peak_memory"] > 2**26


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the processes")
def test_a_benchmark_that_is_ended_ends_its_run(tmp_path, plan):
    plan["common"] |= {"epochs": 100_000, "stopping_step": 100_000}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan, sort_keys=False))
    words = [str(tmp_path / "plan.yaml"), "--output", str(tmp_path / "out"), "--only", "LanguagePop"]
    process = subprocess.Popen([sys.executable, "-m", "recbole_xling", "benchmark", *words])
    try:
        while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
            assert process.poll() is None, "the benchmark has ended"
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
        assert not any(Path(f"/proc/{child}").exists() for child in children)
    finally:
        process.kill()


@pytest.mark.parametrize(
    ("name", "datasets"),
    [
        ("crosslingual", {"debian", "debian-disjoint", "nemig"}),
        ("strategies", {"debian"}),
        ("amazon", {"toys", "sports"}),
    ],
)
def test_the_benchmarks_of_the_project_have_settings_that_exist(tmp_path, name, datasets):
    cells = read_benchmark(Path(__file__).parents[2] / "benchmarks" / f"{name}.yaml", tmp_path)
    assert {cell.settings["dataset"] for cell in cells} == datasets
    for cell in {cell.model: cell for cell in cells}.values():
        assert XLingConfig(config_dict=cell.settings)["seed"] == cell.seed


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"models": {"BPR": {"seeds": 3}}}, r"plan\.yaml: models\['BPR'\]: seeds must be a list such as"),
        ({"models": {"BPR": {"seeds": ["a"]}}}, "seeds must be a list such as"),
        ({"seeds": []}, "seeds must be a list with an entry"),
        ({1: 2}, "unknown key '1'"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, plan, changed, told):
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**plan, **changed}))
    with pytest.raises(ConfigError, match=told):
        read_benchmark(tmp_path / "plan.yaml", tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"status": "finished", "run_dir": 1}', b"\xff"])
def test_a_run_whose_state_is_damaged_says_so(tmp_path, plan, in_this_process, content):
    benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["content"])
    (file,) = (tmp_path / "out").rglob("cell.json")
    file.write_bytes(content)
    (cell,), _ = benchmark(tmp_path / "plan.yaml", tmp_path / "out", ["content"])
    assert len(in_this_process) == 1 and "cell.json' is damaged" in cell.state["error"]
