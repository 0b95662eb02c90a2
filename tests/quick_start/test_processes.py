"""Several processes: numbers and ports that fit, one end for all of them, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from recbole_xling.cli.main import main
from recbole_xling.errors import ConfigError, XlingError
from recbole_xling.quick_start.evaluate import evaluate_run
from recbole_xling.quick_start.processes import Group, _Workers, run_processes

START = """
import json, sys
import torch, recbole_xling
from recbole_xling.cli.main import main
from recbole_xling.errors import DataError
from recbole_xling.quick_start import train
from recbole_xling.trainer.trainer import XLingTrainer

def failing(function, error, when):
    def changed(*args, **kwargs):
        if torch.distributed.is_initialized() and torch.distributed.get_rank() == 1 and when(*args):
            raise error
        return function(*args, **kwargs)
    return changed
"""
END = """
if __name__ == "__main__":
    sys.exit(main(["run", "--model=LLMSASRec", "--dataset=small", "--config_files", "settings.yaml", *sys.argv[1:]]))
"""


@pytest.fixture
def started(tmp_path, small_dataset, settings):
    """Return a function that starts a run in two processes, changed by a few lines of a script."""
    small_dataset()
    settings |= {"use_gpu": False}  # else each would need one
    (tmp_path / "settings.yaml").write_text(json.dumps(settings))

    def start(change: str, *words: str) -> subprocess.Popen[str]:
        (tmp_path / "two.py").write_text(START + change + END)
        command = [sys.executable, "-W", "ignore", "two.py", "--nproc=2", *words]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (Group(nproc=0), "nproc must be at least 1, not 0"),
        (Group(nproc=-2), "nproc must be at least 1, not -2"),
        (Group(nproc=100_000), "nproc=100000 is too much for this machine"),
        (Group(nproc=2, world_size=1), "do not fit"),
        (Group(nproc=1, world_size=2, group_offset=2), "do not fit"),
        (Group(nproc=1, group_offset=-1), "do not fit"),
        (Group(port=70_000), "port must be between 1 and 65535, not 70000"),
        (Group(port=-1), "port must be between"),
        (Group(ip="no such machine"), "'no such machine' is not the address of a machine"),
    ],
)
def test_a_group_that_cannot_be_is_refused_before_anything_starts(group, message):
    with pytest.raises(ConfigError, match=message):
        group.settings()


def test_a_free_port_is_chosen_and_a_taken_one_refused():
    assert 1 <= int(Group(nproc=2).settings()["port"]) <= 65535
    assert Group(nproc=1, world_size=2, group_offset=1).settings()["port"] == "5678"
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} cannot be used"):
            Group(nproc=2, port=port).settings()
        assert Group(nproc=1, world_size=2, group_offset=1, port=port).settings()["port"] == str(port)


@pytest.mark.parametrize("words", [["--nproc=0"], ["--nproc=2", "--port=99999"], ["--nproc=2", "--epochs=-1"]])
def test_a_wrong_number_on_the_command_line_is_one_line(words, small_dataset, tmp_path, capsys):
    small_dataset()
    given = ["run", "--model=Pop", "--dataset=small", f"--data_path={tmp_path / 'data'}", *words]
    assert main(given) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("codes", "message"),
    [((1, 1), "no data"), ((1, -signal.SIGKILL), "process 1 was ended by SIGKILL; did memory run out?")],
)
def test_of_several_failures_the_cause_is_told_not_the_lost_connection(codes, message, capsys):
    workers, context = _Workers(), torch.multiprocessing.get_context("spawn")
    for code, error in zip(codes, (("lost the connection", "Traceback", 2.0), ("no data", "", 1.0)), strict=True):
        receiver, sender = context.Pipe(duplex=False)
        if code > 0:
            sender.send(("error", *error))
        sender.close()
        ended = context.Pipe(duplex=False)[0]
        workers.processes.append(SimpleNamespace(exitcode=code, is_alive=lambda: True, sentinel=ended))
        workers._reports.append(receiver)
    with pytest.raises(XlingError, match=re.escape(message)):
        workers.wait()
    assert not capsys.readouterr().err


@pytest.mark.slow
def test_what_processes_validate_is_what_is_saved_where_each_normalizes_batches_of_its_own(
    small_dataset, settings_without_layers
):
    small_dataset(n_users=41)
    negatives = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
    asked = {**settings_without_layers, **negatives, "use_gpu": False, "epochs": 4}
    result = run_processes(Group(nproc=2), {"model": "DCN", "dataset": "small", "config_dict": asked})
    assert evaluate_run(result["run_dir"], split="valid")["test"] == result["best_valid"]


@pytest.mark.slow
def test_an_error_of_the_second_process_ends_both_and_leaves_nothing(started, tmp_path):
    process = started('train.build = failing(train.build, DataError("the second has no data"), lambda *args: True)')
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert err.splitlines()[-1] == "recbole-xling: the second has no data" and "Traceback" not in err
    assert list((tmp_path / "saved").iterdir()) == []


@pytest.mark.slow
def test_an_error_of_the_second_process_in_an_epoch_ends_both_and_says_how_to_go_on(started, tmp_path):
    process = started(
        "XLingTrainer._train_epoch = failing(XLingTrainer._train_epoch, ZeroDivisionError('oh'), "
        "lambda trainer, data, epoch: epoch == 1)"
    )
    _, err = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "LLMSASRec cannot be trained with these settings: ZeroDivisionError: oh" in err.splitlines()[-1]
    (folder,) = (tmp_path / "saved").iterdir()
    assert f"--resume={folder}" in err and (folder / "last.pt").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="asks Linux for the processes")
def test_a_run_that_is_ended_leaves_no_process(started):
    process = started("", "--epochs=100000", "--stopping_step=100000")
    line = ""
    while "epoch 1 training" not in line:
        line = process.stderr.readline()
        assert line, "the run has ended"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) >= 2
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    deadline = time.monotonic() + 30
    while left := [child for child in children if os.path.exists(f"/proc/{child}")]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
