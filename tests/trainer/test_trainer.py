"""Training: resume, order of operations, groups and schedules, several processes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data.distributed import DistributedSampler

from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.quick_start.build import build_trainer, load_run
from recbole_xling.quick_start.train import run
from recbole_xling.trainer import checkpoint
from recbole_xling.trainer.checkpoint import load_checkpoint
from recbole_xling.trainer.optimizer import build_optimizer, build_schedule, parameter_groups
from recbole_xling.utils.plain_data import from_plain, to_plain

KILLED = """
import os, sys, json
import recbole_xling
from recbole_xling.trainer.trainer import XLingTrainer
save = XLingTrainer._save_resume_state
def save_and_die(self, epoch, *rest):
    save(self, epoch, *rest)
    if epoch == 2:
        os._exit(9)
XLingTrainer._save_resume_state = save_and_die
model, dataset, settings = json.loads(sys.argv[1])
recbole_xling.run(model, dataset, config_dict=settings)
"""


@pytest.mark.parametrize("model", ["LLMSASRec", "BPR", "SASRec"])
def test_killed_and_resumed_run_ends_like_an_uninterrupted_one(small_dataset, settings, settings_without_layers, model):
    small_dataset()
    known = settings_without_layers if model == "BPR" else settings
    extra = {"epochs": 6, "stopping_step": 10, "lr_schedule": "cosine", "warmup_steps": 3}
    whole = run(model, "small", config_dict={**known, **extra})
    separate = {**known, **extra, "checkpoint_dir": settings["checkpoint_dir"] + "-killed"}
    done = subprocess.run([sys.executable, "-c", KILLED, json.dumps([model, "small", separate])], capture_output=True)
    assert done.returncode == 9, done.stderr.decode()
    (folder,) = Path(separate["checkpoint_dir"]).iterdir()
    assert not (folder / "result.json").exists()
    resumed = run(config_dict={"resume": str(folder)})
    assert resumed["run_dir"] == str(folder)
    for key in ("test", "best_valid", "slices"):
        assert resumed[key] == whole[key]
    assert len(resumed["seconds"]["epochs"]) == 6


@pytest.mark.parametrize("model", ["LLMSASRec", "BPR"])
def test_the_best_epoch_can_be_that_of_the_mean_over_languages_or_of_the_worst_one(
    small_dataset, settings, settings_without_layers, model
):
    small_dataset()
    known = settings_without_layers if model == "BPR" else settings
    for over in ("macro", "worst"):
        result = run(model, "small", config_dict={**known, "epochs": 3, "valid_metric": f"NDCG_{over}@10"})
        loaded = load_run(result["run_dir"])
        trainer = build_trainer(loaded.config, loaded.model)
        best, valid = trainer._valid_epoch(loaded.valid_data)
        assert best == torch.load(Path(result["run_dir"]) / "model.pt")["best_valid_score"]
        assert result["best_valid"] == dict(valid) and valid[f"ndcg_{over}@10"] == round(best, 4)
        assert result["test"][f"ndcg_{over}@10"] == round(result["slices"][f"language_{over}"]["ndcg@10"], 4)


def test_a_mean_over_languages_needs_languages(small_dataset, settings):
    folder = small_dataset(item_text=False)
    (folder / "small.item").unlink()
    known = {**settings, "load_col": None, "epochs": 1}
    with pytest.raises(DataError, match=r"NDCG_macro@10 needs languages.*item_language"):
        run("SASRec", "small", config_dict={**known, "valid_metric": "NDCG_macro@10"})


def test_resuming_a_finished_run_trains_no_further(small_dataset, settings):
    small_dataset()
    first = run("LLMSASRec", "small", config_dict=settings)
    again = run(arguments=[f"--resume={first['run_dir']}"])
    assert again["test"] == first["test"] and again["seconds"]["epochs"] == first["seconds"]["epochs"]


def test_more_patience_goes_on_with_a_run_that_had_stopped(small_dataset, settings):
    small_dataset()
    known = {**settings, "epochs": 30, "learning_rate": 0.02}
    first = run("LLMSASRec", "small", config_dict={**known, "stopping_step": 1})
    n_epochs = len(first["seconds"]["epochs"])
    assert n_epochs < 30
    again = run(arguments=[f"--resume={first['run_dir']}", "--stopping_step=40"])
    whole = run("LLMSASRec", "small", config_dict={**known, "stopping_step": 40})
    assert len(again["seconds"]["epochs"]) == 30
    assert again["test"] == whole["test"] and again["best_valid"] == whole["best_valid"]


@pytest.mark.parametrize(
    "changed",
    [
        "valid_metric=MRR@10",
        "seed=7",
        "learning_rate=0.5",
        "weight_decay=0.1",
        "eval_args={split: {RS: [0.8, 0.1, 0.1]}}",
        "learner=sgd",
        "languages=[de]",
        "train_on_validation=True",
        "text_view=reader",
        "train_history=set",
        "loss_type=SCE",
    ],
)
def test_a_resumed_run_keeps_what_is_trained_split_and_validated(small_dataset, settings, changed):
    small_dataset()
    first = run("LLMSASRec", "small", config_dict={**settings, "epochs": 1, "metrics": ["MRR", "NDCG"], "topk": [10]})
    with pytest.raises(CheckpointError, match=f"{changed.partition('=')[0]} was .* and is "):
        run(arguments=[f"--resume={first['run_dir']}", "--epochs=2", f"--{changed}"])


def test_settings_that_mean_the_same_are_no_others(small_dataset, settings):
    small_dataset()
    known = {**settings, "epochs": 1, "learning_rates": {"items.text_projection": 0.01}, "item_representation": "add"}
    first = run("LLMSASRec", "small", config_dict={**known, "text_projection": "linear"})
    for name in ("last.pt", "model.pt"):  # as an earlier release called it
        state = load_checkpoint(Path(first["run_dir"]) / name)
        stored = {**from_plain(state["config"]), "learning_rates": {"items.adaptor": 0.01}}
        torch.save({**state, "config": to_plain(stored)}, Path(first["run_dir"]) / name)
    same = ("--valid_metric=ndcg@10", "--weight_decay=0", "--val_interval={}")
    again = run(arguments=[f"--resume={first['run_dir']}", "--epochs=2", *same])
    assert len(again["seconds"]["epochs"]) == 2


def test_a_run_whose_best_model_is_gone_is_not_resumed(small_dataset, settings):
    small_dataset()
    first = run("LLMSASRec", "small", config_dict=settings)
    (Path(first["run_dir"]) / "model.pt").unlink()
    with pytest.raises(CheckpointError, match=r"model\.pt, the model of the best epoch so far, is missing"):
        run(arguments=[f"--resume={first['run_dir']}", "--epochs=4"])


def test_resuming_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        run(config_dict={"resume": str(tmp_path)})


def test_resuming_from_a_model_file_is_refused(small_dataset, settings):
    small_dataset()
    result = run("LLMSASRec", "small", config_dict=settings)
    parts = load_run(result["run_dir"])
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        build_trainer(parts.config, parts.model).resume_checkpoint(Path(result["run_dir"]) / "model.pt")


@pytest.fixture
def trainer(small_dataset, build_small):
    small_dataset()

    def make(**changed):
        parts = build_small(**{"item_representation": "none", **changed})
        return build_trainer(parts.config, parts.model), parts

    return make


def test_early_stopping_compares_unrounded_scores(trainer, monkeypatch):
    made, parts = trainer(metric_decimal_place=1, epochs=4, stopping_step=50)
    scores = iter([0.52, 0.54, 0.53, 0.51])

    def evaluate(*args, **kwargs):
        made.evaluator.exact = {"ndcg@10": next(scores)}
        return {"ndcg@10": 0.5}

    monkeypatch.setattr(made, "evaluate", evaluate)
    saved = []

    def save(epoch, **_):
        saved.append(epoch)
        Path(made.saved_model_file).touch()

    monkeypatch.setattr(made, "_save_checkpoint", save)
    best, _ = made.fit(parts.train_data, parts.valid_data, verbose=False)
    assert best == 0.54 and saved == [0, 1]


def test_accumulated_batches_step_like_one_large_batch(trainer):
    plain = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "learner": "sgd", "learning_rate": 0.5, "epochs": 1}
    one, parts = trainer(train_batch_size=100_000, **plain)
    two, _ = trainer(train_batch_size=100_000, accumulation_steps=2, **plain)
    batch = next(iter(parts.train_data))
    half = len(batch["item_length"]) // 2
    pieces = [batch[torch.arange(half)], batch[torch.arange(half, 2 * half)]]
    from recbole.data.interaction import Interaction, cat_interactions

    whole = cat_interactions(pieces)
    for piece in pieces:  # each piece's weights sum to a half of the whole's: a batch of its own sums to 1
        piece["target_weight_list"] = piece["target_weight_list"] * 2
    whole = Interaction(whole.interaction)
    for made, batches in ((one, [whole]), (two, pieces)):
        made.schedule = build_schedule(made.optimizer, "constant", 0, 10)
        made._train_epoch(batches, 0)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_gradients_are_unscaled_before_they_are_clipped(trainer):
    made, parts = trainer(clip_grad_norm={"max_norm": 1e-3}, learner="sgd", learning_rate=1.0)
    calls = []
    norms = []
    scaler = made.scaler
    made.schedule = build_schedule(made.optimizer, "constant", 0, 10)

    class Recording:
        def scale(self, loss):
            return loss * 1024

        def unscale_(self, optimizer):
            calls.append("unscale")
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        parameter.grad /= 1024

        def step(self, optimizer):
            gradients = [p.grad for p in made.model.parameters() if p.grad is not None]
            norms.append(math.sqrt(sum(float(gradient.norm() ** 2) for gradient in gradients)))
            calls.append("step")

        def update(self):
            calls.append("update")

    made.scaler = Recording()
    made._train_epoch([next(iter(parts.train_data))], 0)
    made.scaler = scaler
    assert calls == ["unscale", "step", "update"]
    assert norms[0] == pytest.approx(1e-3, rel=1e-2)


def test_learning_rates_go_by_the_prefix_of_parameter_names(trainer):
    made, _ = trainer(
        item_representation="add", text_projection="linear", learning_rates={"items": 0.1, "items.text_projection": 0.2}
    )
    by_rate = {group["lr"]: {id(p) for p in group["params"]} for group in made.optimizer.param_groups}
    names = {id(p): name for name, p in made.model.named_parameters()}
    assert {names[p] for p in by_rate[0.2]} == {"items.text_projection.weight", "items.text_projection.bias"}
    assert {names[p] for p in by_rate[0.1]} == {"items.item_embedding.weight"}
    assert all(names[p].startswith("sequence_encoder") for p in by_rate[0.001])
    with pytest.raises(ConfigError, match=r"items\.adapter.*items\.text_projection"):
        parameter_groups(made.model, 0.1, {"items.adapter": 1.0})


def test_schedules_follow_their_formulas_and_an_unknown_one_is_refused():
    def rates(schedule, warmup):
        optimizer = build_optimizer("sgd", [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}], 0.0)
        steps = build_schedule(optimizer, schedule, warmup, 10)
        found = []
        for _ in range(11):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step(), steps.step()
        return found

    assert rates("constant", 0) == [1.0] * 11
    assert rates("linear", 0) == pytest.approx([1 - i / 10 for i in range(11)])
    assert rates("cosine", 0)[5] == pytest.approx(0.5)
    assert rates("linear", 4)[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    with pytest.raises(ConfigError, match="cosine"):
        rates("sine", 0)


def test_saving_on_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch, full_disk):
    path = tmp_path / "model.pt"
    checkpoint.save_checkpoint(path, {"state_dict": {"a": torch.ones(2)}})
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(CheckpointError, match="No space left"):
        checkpoint.save_checkpoint(path, {"state_dict": {"a": torch.zeros(2)}})
    assert checkpoint.load_checkpoint(path)["state_dict"]["a"].tolist() == [1, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("damage", ["truncated", "garbage", "empty", "pickle"])
def test_a_damaged_checkpoint_is_refused_and_runs_no_code(tmp_path, damage):
    path = tmp_path / "model.pt"
    checkpoint.save_checkpoint(path, {"state_dict": {"a": torch.ones(1000)}})
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "pickle":

        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "run"),)

        torch.save({"state_dict": {}, "x": Evil()}, path)
    else:
        path.write_bytes(b"" if damage == "empty" else b"hello" * 100)
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.load_checkpoint(path)
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_dataset_is_refused(trainer, small_dataset, build_small):
    made, _ = trainer()
    made._save_checkpoint(0, verbose=False)
    small_dataset(name="other", n_items=17)
    other = build_small(dataset="other", item_representation="none")
    with pytest.raises(CheckpointError, match="another model or dataset"):
        build_trainer(other.config, other.model)._load_model(Path(made.saved_model_file))


def test_processes_draw_apart_and_share_batches_by_the_seed(trainer, monkeypatch):
    made, data = trainer()
    made.config["single_spec"] = False
    monkeypatch.setattr("recbole_xling.trainer.trainer.process", lambda: (1, 2))
    with torch.random.fork_rng():
        assert not made._restore(data)
        assert torch.initial_seed() == made.config["seed"] + 1
    orders = {}
    for seed in (1, 2):
        made.config["seed"] = seed
        samplers = [DistributedSampler(range(40), num_replicas=2, rank=rank) for rank in (0, 1)]
        parts = [SimpleNamespace(sampler=sampler) for sampler in samplers]
        made._seek(SimpleNamespace(general_dataloader=parts[0], kg_dataloader=parts[1]), 3)
        assert [sampler.epoch for sampler in samplers] == [3, 3]
        assert sorted([*samplers[0], *samplers[1]]) == list(range(40))
        orders[seed] = list(samplers[0])
    assert orders[1] != orders[2]


@pytest.mark.slow
def test_two_processes_resumed_end_like_two_uninterrupted_ones(small_dataset, settings, run_two):
    small_dataset()
    whole = run_two("LLMSASRec", {**settings, "epochs": 4})
    assert whole.returncode == 0, whole.stderr[-3000:]
    want = json.loads(whole.stdout.strip().splitlines()[-1])
    half = run_two("LLMSASRec", {**settings, "epochs": 2})
    folder = json.loads(half.stdout.strip().splitlines()[-1])["run_dir"]
    again = run_two("LLMSASRec", {"resume": folder, "epochs": 4})
    assert again.returncode == 0, again.stderr[-3000:]
    got = json.loads(again.stdout.strip().splitlines()[-1])
    assert got["test"] == want["test"] and got["best_valid"] == want["best_valid"]
    with pytest.raises(CheckpointError, match="2 processes, not 1"):
        run(config_dict={"resume": folder, "epochs": 6})


@pytest.mark.slow
def test_a_mistake_under_two_processes_is_one_line(small_dataset, settings, run_two):
    small_dataset()
    done = run_two("LLMSASRec", {**settings, "topk": [999], "valid_metric": "NDCG@999"})
    assert "XlingError: topk [999]" in done.stderr


@pytest.mark.slow
def test_two_processes_train_and_evaluate_like_one(small_dataset, settings, run_two):
    small_dataset(n_users=41)  # an odd number of rows: RecBole's sampler repeats one
    same = {**settings, "item_representation": "none", "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
    alone = run("LLMSASRec", "small", config_dict=same)
    done = run_two("LLMSASRec", same)
    assert done.returncode == 0, done.stderr[-3000:]
    together = json.loads(done.stdout.strip().splitlines()[-1])
    assert together["n_test"] == alone["n_test"]
    for name, value in alone["test"].items():
        assert together["test"][name] == pytest.approx(value, abs=0.03)
    one = json.loads((Path(alone["run_dir"]) / "result.json").read_text())
    two = json.loads((Path(together["run_dir"]) / "result.json").read_text())
    assert one["slices"].keys() == two["slices"].keys()
