"""Zero-shot transfer on NeMig: trained on the readers of one language, tested on those of the other, both ways.

    OMP_NUM_THREADS=2 python benchmarks/zero_shot.py --encoder path/to/multilingual-e5-small --data path/to/data

Arms, for German readers tested after training on English ones and the other way round: XLingTwoTower trained on the
other language (zero-shot), on the tested one, and not at all, its encoder as it is with the plain mean of the history,
LLMSASRec on the encoder's frozen vectors (text_only) trained on the other language, popularity among the tested
language's training clicks, and chance. All rank the whole catalog after the history (NDCG@10) and the candidates that
were shown (AUC, nDCG@10), on the same test rows; intervals are 95% bootstrap intervals over users, differences are
paired. What a run knows of the popularity of articles does not count, save in one row: all are scored as on a dataset
never seen. What was never trained on the tested language is compared on all of its clicks, too.

Runs are kept below --work and not repeated. Prints tables and writes benchmarks/results/zero_shot.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
import yaml
from common import RESULTS, data_folder, show, write_json
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor

import recbole_xling
import recbole_xling.model.xlingtwotower
from recbole_xling.convert import get_converter, write_dataset
from recbole_xling.evaluator.bootstrap import bootstrap_interval, paired_difference

LANGUAGES = ("de", "en")
NEWS: dict[str, Any] = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
    "text_template": "{title}. {abstract}",
    "encoder_max_length": 48,
    "topk": [10],
    "metrics": ["NDCG", "Recall"],
    "valid_metric": "NDCG@10",
    "exclude_history": True,
    "enable_amp": True,
    "show_progress": False,
}
TWO_TOWER: dict[str, Any] = {
    "peft": "lora",
    "adapter_layers": 4,
    "learning_rate": 5e-5,
    "epochs": 1,  # validation in the same language does not tell when more of them cost transfer
}

UNTRAINED: dict[str, Any] = {"epochs": 1, "learning_rate": 0.0, "learning_rates": None}


@recbole_xling.register_model
class MeanOfHistory(recbole_xling.model.xlingtwotower.XLingTwoTower):
    """XLingTwoTower whose articles all weigh the same in a history."""

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        torch.nn.init.zeros_(self.user_tower.pooling.recency)


class _Fixed(SequentialRecommender):
    """Scores that are the same for all users: a baseline without anything to train."""

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.register_buffer("fixed", self.scores(dataset), persistent=False)

    def scores(self, dataset: Any) -> Tensor:
        """Return a score per item, ``(n_items,)``."""
        raise NotImplementedError

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return nothing to minimize."""
        return self.weight.sum() * 0

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Return the same scores for all rows, ``(B, n_items)``."""
        return self.fixed.repeat(len(interaction), 1)

    def predict(self, interaction: Interaction) -> Tensor:
        """Return the score of one item per row, ``(B,)``."""
        return self.fixed[interaction[self.ITEM_ID]]


@recbole_xling.register_model
class Popularity(_Fixed):
    """Training clicks."""

    def scores(self, dataset: Any) -> Tensor:
        """Return the counts."""
        return torch.from_numpy(dataset.train_item_counts).float().index_fill(0, torch.tensor(0), float("-inf"))


@recbole_xling.register_model
class Chance(_Fixed):
    """Random scores."""

    def scores(self, dataset: Any) -> Tensor:
        """Return uniform numbers."""
        scores = torch.rand(dataset.item_num, generator=torch.Generator().manual_seed(0))
        return scores.index_fill(0, torch.tensor(0), float("-inf"))


def arms(encoder: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return model and settings of each kind of run."""
    frozen = {**TWO_TOWER, "encoder": encoder, "peft": "frozen", "embedding_size": None, **UNTRAINED}
    return {
        "XLingTwoTower": ("XLingTwoTower", {**TWO_TOWER, "encoder": encoder}),
        "untrained": ("XLingTwoTower", frozen),
        "frozen encoder": ("MeanOfHistory", {**two_tower_settings(), **frozen, "centering": False}),
        "LLMSASRec text_only": ("LLMSASRec", {"encoder": encoder, "item_representation": "text_only", "epochs": 100}),
        "popularity": ("Popularity", {**UNTRAINED, "allow_unknown_keys": True}),
        "chance": ("Chance", {**UNTRAINED, "allow_unknown_keys": True}),
    }


def two_tower_settings() -> dict[str, Any]:
    """Return XLingTwoTower's defaults, which a model of another name does not have."""
    file = Path(__file__).parents[1] / "properties" / "model" / "XLingTwoTower.yaml"
    settings: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {**settings, "allow_unknown_keys": True}


# each row of the table: what is trained, on whose clicks (those of the tested language, or the other one's), and
# whether it is scored as on a dataset never seen
ROWS = {
    "XLingTwoTower, zero-shot": ("XLingTwoTower", "other", True),
    "XLingTwoTower, in-language": ("XLingTwoTower", "own", True),
    "XLingTwoTower, in-language, with popularity": ("XLingTwoTower", "own", False),
    "XLingTwoTower before training": ("untrained", "own", True),
    "frozen encoder, mean of the history": ("frozen encoder", "own", True),
    "LLMSASRec text_only, zero-shot": ("LLMSASRec text_only", "other", True),
    "popularity": ("popularity", "own", False),
    "chance": ("chance", "own", False),
}


def prepare(data: str, work: Path) -> None:
    """Convert both languages, each to a dataset of its own."""
    for language in LANGUAGES:
        name = f"nemig-{language}"
        if not (work / "data" / name / f"{name}.inter").is_file():
            converter = get_converter("mind")(input=data_folder(data, "nemig") / language, language=language)
            write_dataset(converter, work / "data", name, show_progress=False)
            shutil.copytree(work / "data" / name, work / "unseen" / name, dirs_exist_ok=True)


def trained(kind: str, language: str, options: argparse.Namespace) -> str:
    """Return the run folder of a kind of run on a language, running it unless that was done with these settings."""
    model, settings = arms(options.encoder)[kind]
    work = Path(options.work)
    local = {"data_path": str(work / "data"), "checkpoint_dir": str(work / "runs"), "seed": options.seed}
    settings = {**NEWS, **settings, **local}
    note = work / "runs" / f"{kind.replace(' ', '-')}-{language}-{options.seed}.json"
    if note.is_file() and (found := json.loads(note.read_text(encoding="utf-8")))["settings"] == settings:
        return str(found["run_dir"])
    result = recbole_xling.run(model, f"nemig-{language}", config_dict=settings)
    note.write_text(json.dumps({"settings": settings, "run_dir": result["run_dir"]}), encoding="utf-8")
    print(f"{kind} on {language}: {result['seconds']['train']:.0f} s, test {result['test']}", flush=True)
    return str(result["run_dir"])


def ranked(run: str, language: str, data: Path, impressions: bool, split: str = "test") -> pl.DataFrame:
    """Return the values of each row, or impression, of a part of a language's clicks, in a fixed order."""
    result = recbole_xling.evaluate_run(
        run, f"nemig-{language}", split=split, impressions=impressions, config_dict={"data_path": str(data)}
    )
    file = "impressions.parquet" if impressions else "users.parquet"
    order = ["impression_id"] if impressions else ["user_id"]
    return pl.read_parquet(Path(result["run_dir"]) / file).sort(order, maintain_order=True)


def described(values: np.ndarray, users: list[str]) -> dict[str, float]:
    """Return mean and interval."""
    low, high = bootstrap_interval(values, users)
    return {"mean": float(values.mean()), "low": low, "high": high}


METRICS = {"NDCG@10": (False, "ndcg@10"), "AUC": (True, "auc"), "shown nDCG@10": (True, "ndcg@10")}


def compare(tables: dict[str, dict[bool, pl.DataFrame]]) -> dict[str, Any]:
    """Return means with intervals, what LoRA adds to the frozen encoder, and how much of it crosses languages."""
    differences = ("zero-shot minus frozen", "in-language minus frozen", "zero-shot minus untrained")
    results: dict[str, Any] = {"rows": {}, **{name: {} for name in differences}, "share of the in-language gain": {}}
    for metric, (shown, column) in METRICS.items():
        values = {row: table[shown][column].to_numpy() for row, table in tables.items()}
        users = tables["chance"][shown]["user_id"].to_list()
        for row, found in values.items():
            results["rows"].setdefault(row, {})[metric] = described(found, users)
        zero, own = values["XLingTwoTower, zero-shot"], values["XLingTwoTower, in-language"]
        frozen, chance = values["frozen encoder, mean of the history"], values["chance"]
        pairs = ((zero, frozen), (own, frozen), (zero, values["XLingTwoTower before training"]))
        for name, (better, worse) in zip(differences, pairs, strict=True):
            results[name][metric] = asdict(paired_difference(better, worse, users))
        gain = float((own - chance).mean())
        results["share of the in-language gain"][metric] = float((zero - chance).mean()) / gain
    return results


def compare_on_all(zero_shot: str, frozen: str, language: str, data: Path) -> dict[str, Any]:
    """Return zero-shot minus frozen encoder on all clicks of a language, with the mean of each."""
    found = {}
    for metric, (shown, column) in METRICS.items():
        better, worse = (ranked(run, language, data, shown, "all") for run in (zero_shot, frozen))
        users = better["user_id"].to_list()
        assert users == worse["user_id"].to_list()
        values = better[column].to_numpy(), worse[column].to_numpy()
        found[metric] = {**asdict(paired_difference(*values, users)), "zero-shot": float(values[0].mean())}
        found[metric] |= {"frozen": float(values[1].mean()), "n": len(users)}
    return found


def main() -> None:
    """Train what is missing, rank, and show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="folder of the encoder")
    parser.add_argument("--data", default="data", help="folder with nemig/")
    parser.add_argument("--work", default="benchmarks/.data/zero_shot", help="folder for datasets and runs")
    parser.add_argument("--seed", type=int, default=2020)
    options = parser.parse_args()
    prepare(options.data, Path(options.work))
    results = {}
    for tested, other in (LANGUAGES, LANGUAGES[::-1]):
        tables: dict[str, dict[bool, pl.DataFrame]] = {}
        for row, (kind, clicks, unseen) in ROWS.items():
            run = trained(kind, tested if clicks == "own" else other, options)
            data = Path(options.work) / ("unseen" if unseen else "data")
            tables[row] = {shown: ranked(run, tested, data, shown) for shown in (False, True)}
        found = compare(tables)
        runs = trained("XLingTwoTower", other, options), trained("frozen encoder", tested, options)
        found["zero-shot minus frozen, all clicks"] = compare_on_all(*runs, tested, Path(options.work) / "unseen")
        results[f"{other} to {tested}"] = found
    settings = {"news": NEWS, "two_tower": TWO_TOWER, "encoder": Path(options.encoder).name, "seed": options.seed}
    write_json(RESULTS / "zero_shot.json", {"settings": settings, "results": results})
    for direction, found in results.items():
        print(f"\n{direction}")
        cells = [
            [row, *(f"{v['mean']:.4f} [{v['low']:.4f}, {v['high']:.4f}]" for v in values.values())]
            for row, values in found["rows"].items()
        ]
        show(["", *METRICS], cells)
        for name in [name for name in found if name != "rows"]:
            print(f"{name}: {found[name]}")


if __name__ == "__main__":
    main()
