"""Runs that torchrun has started: one run of all processes, with the results of one process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xling import run
from recbole_xling.cli.main import main
from recbole_xling.errors import ConfigError
from recbole_xling.utils.launched import is_launched, launched_settings

SCRIPT = """
import os, sys
from recbole_xling.cli.main import main
from recbole_xling.trainer.trainer import XLingTrainer

def failing(function):
    def changed(trainer, data, epoch, **options):
        if os.environ["RANK"] == "1" and epoch == 1:
            raise ZeroDivisionError("oh")
        return function(trainer, data, epoch, **options)
    return changed

if sys.argv[1] == "fail":
    XLingTrainer._train_epoch = failing(XLingTrainer._train_epoch)
sys.exit(main(sys.argv[2:]))
"""
VARIABLES = {
    "RANK": "3",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "4",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "first",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def torchrun(tmp_path, small_dataset, settings):
    """Return a function that lets torchrun start a command in two processes, whose settings are in a file.

    With ``machines=2`` two torchruns meet, as those of two machines do, and start a process each.
    """
    small_dataset(n_users=41)  # an odd number of rows: RecBole's sampler repeats one
    (tmp_path / "script.py").write_text(SCRIPT)

    def start(mode: str, *words: str, machines: int = 1, **changed: object) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "settings.yaml"
        file.write_text(json.dumps({**settings, "use_gpu": False, **changed}))
        launch = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={2 // machines}"]
        if machines == 1:
            launch += ["--standalone"]
        else:
            with socket.socket() as free:
                free.bind(("localhost", 0))
                meeting = f"localhost:{free.getsockname()[1]}"
            launch += [f"--nnodes={machines}", "--rdzv-backend=c10d", f"--rdzv-endpoint={meeting}", "--rdzv-id=x"]
        command = [*launch, "script.py", mode, *words, "--dataset=small", "--config_files", str(file)]
        kept = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started = [subprocess.Popen(command, **kept) for _ in range(machines)]
        try:
            told = [agent.communicate(timeout=300) for agent in started]
        finally:
            for agent in started:
                agent.terminate()  # the other one, if one waits in vain
        codes, (out, err) = [agent.returncode for agent in started], map("".join, zip(*told, strict=True))
        return subprocess.CompletedProcess(command, max(codes, key=abs), out, err)

    return start


@pytest.fixture
def launched(monkeypatch):
    """Set the variables of a process that torchrun has started on the second of two machines."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_the_variables_of_torchrun_are_the_settings_of_a_process_of_recbole(launched):
    assert launched_settings() == {
        "ip": "first",
        "port": "29500",
        "world_size": 4,
        "local_rank": 1,
        "offset": 2,
        "nproc": 2,
    }
    launched.delenv("LOCAL_RANK")  # some launchers set the others for their own use
    assert launched_settings() == {} and not is_launched()


def test_a_single_process_of_torchrun_is_like_any_other(launched):
    launched.setenv("WORLD_SIZE", "1")
    assert launched_settings() == {}


@pytest.mark.parametrize(("name", "value"), [("RANK", "first"), ("RANK", "4"), ("LOCAL_RANK", "-1")])
def test_numbers_of_a_launcher_that_do_not_fit_are_refused(launched, name, value):
    launched.setenv(name, value)
    with pytest.raises(ConfigError, match=f"RANK={value}|whole numbers"):
        launched_settings()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tune", "--model=BPR", "--dataset=small"], "'tune' works in one process: start it without torchrun"),
        (["recommend", "saved/run", "--user=u1"], "under torchrun each process answers its share of a batch"),
        (["run", "--nproc=2"], "torchrun has started the processes: leave out --nproc"),
        (["encode", "--dataset=small", "--nproc=2"], "torchrun has started the processes: leave out --nproc"),
    ],
)
def test_what_torchrun_cannot_start_is_refused(launched, capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_torchrun_trains_like_one_process_and_writes_once(torchrun, settings, tmp_path):
    same = {"item_representation": "delta", "id_dropout_prob": 0.0}  # what processes draw is their own
    same |= {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    done = torchrun("run", "run", "--model=LLMSASRec", machines=2, **same)
    assert done.returncode == 0, done.stderr[-3000:]
    (folder,) = (tmp_path / "saved").iterdir()
    assert done.stdout.count(str(folder)) == 1  # the first process tells the result, the other one nothing
    assert done.stderr.count("epoch 1 training") == 1
    together = json.loads((folder / "result.json").read_text())
    settings |= {"embedding_cache_dir": str(tmp_path / "cache of one")}
    alone = run("LLMSASRec", "small", config_dict={**settings, **same})
    assert together["test"] == pytest.approx(alone["test"], abs=1e-6)
    assert together["best_valid"] == pytest.approx(alone["best_valid"], abs=1e-6)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in Path(alone["run_dir"]).iterdir()}


@pytest.mark.slow
def test_an_error_of_one_process_ends_all_with_its_message(torchrun, tmp_path):
    changed = {"loss_type": "sampled_softmax", "n_negatives": 8, "learner": "sparse_adam"}
    done = torchrun("fail", "run", "--model=LLMSASRec", item_representation="none", **changed)
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if line.startswith("recbole-xling: ")]
    assert told == ["recbole-xling: LLMSASRec cannot be trained with these settings: ZeroDivisionError: oh"]
    (folder,) = (tmp_path / "saved").iterdir()
    assert f"--resume={folder}" in done.stderr and (folder / "last.pt").is_file()
    assert "epoch 0 training" in done.stderr  # rows of sparse gradients have been exchanged


@pytest.mark.slow
def test_torchrun_encodes_each_text_once(torchrun, tmp_path):
    done = torchrun("encode", "encode")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip() == "30 items, vectors of 32 dimensions"
    shards = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*/*.json")]
    assert sum(shard.get("count", 0) for shard in shards) == 30
    assert os.listdir(tmp_path / "saved") == [] if (tmp_path / "saved").exists() else True
