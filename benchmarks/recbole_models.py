"""Run every model of RecBole under recbole_xling.run on a tiny dataset, and write down what each of them can do.

    python benchmarks/recbole_models.py [MODEL ...]      (or: make models)

For each model, in a process of its own: two epochs, results per language, every rank computed once more from the
model's scores, one epoch and a resumed second one, the saved run loaded and tested again. Writes
``benchmarks/results/recbole_models.json``, and the table of docs/models.md from it. Models that are named replace
their lines.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from common import RESULTS, write_json
from recbole.data.interaction import Interaction

import recbole_xling
from recbole_xling.errors import XlingError
from recbole_xling.testing import small_settings, write_small_dataset

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "models.md"
BEGIN, END = "<!-- models: written by make models -->\n", "<!-- end of models -->\n"
NAME, N_ITEMS, K = "small", 30, 10

INTER = ["user_id", "item_id", "rating", "timestamp"]
ITEM = ["item_id", "item_language", "class"]
KG = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
LABELS = {"threshold": {"rating": 3}}
FIELDS = {"fields": {0: ["user_id", "age"], 1: ["item_id", "item_language", "class"]}}
ENTITIES = {
    "additional_feat_suffix": ["ent"],
    "alias_of_item_id": ["ent_id"],
    "preload_weight": {"ent_id": "ent_emb"},
    "embedding_size": 8,
}
BY_KIND: dict[str, dict[str, Any]] = {
    "CONTEXT": {**LABELS, "load_col": {"inter": INTER, "item": ITEM, "user": ["user_id", "age"]}},
    "KNOWLEDGE": {"load_col": {"inter": INTER, "item": ITEM[:2], **KG}},
}
BY_MODEL: dict[str, dict[str, Any]] = {
    "DIN": {**LABELS, "load_col": {"inter": INTER, "item": ITEM, "user": ["user_id", "age"]}},
    "DIEN": {**LABELS, "load_col": {"inter": INTER, "item": ITEM, "user": ["user_id", "age"]}},
    "NCL": {"num_clusters": 5},
    "FFM": FIELDS,
    "FwFM": FIELDS,
    "GRU4RecCPR": {"reranker_CAN_NUM": "10"},
    "SASRecCPR": {"reranker_CAN_NUM": "10"},
    "FDSA": {"load_col": {"inter": INTER, "item": ITEM}},
    "GRU4RecF": {"load_col": {"inter": INTER, "item": ITEM}},
    "SASRecF": {"load_col": {"inter": INTER, "item": ITEM}},
    "S3Rec": {"load_col": {"inter": INTER, "item": ITEM}},
    "GRU4RecKG": {**ENTITIES, "load_col": {"inter": INTER, "item": ITEM[:2], **KG, "ent": ["ent_id", "ent_emb"]}},
    "KSR": {
        **ENTITIES,
        "kg_embedding_size": 8,
        "additional_feat_suffix": ["ent", "rel"],
        "alias_of_relation_id": ["rel_id"],
        "preload_weight": {"ent_id": "ent_emb", "rel_id": "rel_emb"},
        "load_col": {
            "inter": INTER,
            "item": ITEM[:2],
            **KG,
            "ent": ["ent_id", "ent_emb"],
            "rel": ["rel_id", "rel_emb"],
        },
    },
}


# ---- data -----------------------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    """Write a dataset of 40 users and 30 items with every column that some model needs, and a knowledge graph."""
    data = write_small_dataset(folder, NAME, n_items=N_ITEMS)
    rng = np.random.default_rng(0)

    def write(ending: str, header: str, rows: list[str]) -> None:
        (data / f"{NAME}.{ending}").write_text("\n".join([header, *rows]) + "\n")

    languages = ("de", "en", "fr")
    items = [f"i{i}\t{languages[i % 3]}\tc{i % 4} d{i % 5}" for i in range(N_ITEMS)]
    write("item", "item_id:token\titem_language:token\tclass:token_seq", items)
    write("user", "user_id:token\tage:token", [f"u{u}\t{20 + u % 7}" for u in range(40)])
    write("link", "item_id:token\tentity_id:token", [f"i{i}\te{i}" for i in range(N_ITEMS)])
    triples = [f"e{i}\tkind\ta{i % 5}" for i in range(N_ITEMS)]
    triples += [f"e{i}\tnext\te{(i + 1) % N_ITEMS}" for i in range(N_ITEMS)]
    write("kg", "head_id:token\trelation_id:token\ttail_id:token", triples)
    for ending, header, names in (
        ("ent", "ent_id:token\tent_emb:float_seq", [f"i{i}" for i in range(N_ITEMS)]),
        ("rel", "rel_id:token\trel_emb:float_seq", ["kind", "next"]),
    ):
        write(ending, header, [f"{name}\t{' '.join(f'{x:.3f}' for x in rng.normal(size=8))}" for name in names])


def settings_of(model: str, kind: str, folder: Path) -> dict[str, Any]:
    """Return the settings of a model's runs, which write below ``folder``."""
    found = {**small_settings(folder), "stopping_step": 10, "state": "error", "allow_unknown_keys": True}
    found |= {"load_col": {"inter": INTER, "item": ITEM[:2]}, **BY_KIND.get(kind, {}), **BY_MODEL.get(model, {})}
    return {**found, "train_batch_size": 16, "checkpoint_dir": str(folder)}


# ---- checks ---------------------------------------------------------------------------------------------------


def same_ranks(run: Any, table: pl.DataFrame, data: Path) -> str:
    """Compute the rank of every test target from the file of interactions and the model's scores, one row at a time.

    Returns:
        ``yes``, or where the results of the run differ.
    """
    dataset = run.test_data._dataset
    users, items = dataset.uid_field, dataset.iid_field
    names = [str(token) for token in dataset.field2id_token[items]]
    file = pl.read_csv(data / NAME / f"{NAME}.inter", separator="\t").sort("timestamp:float")
    walks = {key[0]: part["item_id:token"].to_list() for key, part in file.group_by("user_id:token")}
    found = {row["user_id"]: row for row in table.iter_rows(named=True)}
    if not np.array_equal(*(all_scores(run, one_row(run, 0), dataset) for _ in range(2))):
        return "random scores"
    if set(found) != set(walks):
        return "no: other users"
    sequential = hasattr(dataset, "item_id_list_field")
    for number, user in enumerate(dataset.inter_feat[users].tolist()):
        name = str(dataset.field2id_token[users][user])
        *history, target = walks[name]
        if found[name]["target_item"] != target:
            return f"no: another target of {name}"
        row = one_row(run, number)
        if sequential:
            length = int(row[dataset.item_list_length_field])
            shown = [names[i] for i in row[dataset.item_id_list_field][0, :length].tolist()]
            if shown != history[-dataset.max_item_list_len :]:
                return f"no: another history of {name}"
        scores = all_scores(run, row, dataset)
        if not sequential:
            scores[[names.index(item) for item in history if item != target]] = -np.inf
        scores[0] = -np.inf
        mine = scores[names.index(target)]
        near = 1e-5 * max(1.0, abs(float(mine)))
        best, worst = 1 + int((scores > mine + near).sum()), int((scores >= mine - near).sum())
        gains = [1 / np.log2(rank + 1) if rank <= K else 0.0 for rank in (worst, best)]
        if not gains[0] - 1e-6 <= found[name][f"ndcg@{K}"] <= gains[1] + 1e-6:
            return f"no: {name} has rank {best} to {worst}"
    return "yes"


def one_row(run: Any, number: int) -> Any:
    """Return a row of the test as a batch: with its history, or for models without histories the user."""
    dataset = run.test_data._dataset
    if hasattr(dataset, "item_id_list_field"):
        return dataset[np.array([number])]
    users = dataset.inter_feat[dataset.uid_field]
    return dataset.join(Interaction({dataset.uid_field: users[number : number + 1]}))


def all_scores(run: Any, row: Any, dataset: Any) -> np.ndarray[Any, Any]:
    """Return the model's scores of all items for one row, ``(n_items,)``."""
    with torch.no_grad():
        try:
            scores = run.model.full_sort_predict(row)
        except NotImplementedError:
            repeated = row.repeat_interleave(dataset.item_num)
            repeated.update(dataset.get_item_feature())
            scores = run.model.predict(repeated)
    result: np.ndarray[Any, Any] = scores.reshape(-1).double().numpy().copy()
    return result


def same_run(one: Mapping[str, Any], other: Mapping[str, Any], *, weights: bool = False) -> str:
    """Say whether two runs have the same results, and the same weights after their last epoch."""
    for key in ("test", "best_valid", "slices"):
        if one[key] != other[key]:
            return f"no: other {key}"
    if weights:
        first, second = (torch.load(Path(run["run_dir"]) / "last.pt", weights_only=True) for run in (one, other))
        for name, weight in first["state_dict"].items():
            if not torch.equal(weight, second["state_dict"][name]):
                return f"no: other {name}"
    return "yes"


def check(model: str, folder: Path, data: Path) -> dict[str, Any]:
    """Run a model in every way; a check that fails ends in a word, a run that fails in an error."""
    from recbole.utils import get_model

    from recbole_xling.quick_start.build import load_run
    from recbole_xling.quick_start.evaluate import evaluate_run

    kind = get_model(model).type.name
    settings = {**settings_of(model, kind, folder), "data_path": str(data)}
    whole = recbole_xling.run(model, NAME, config_dict={**settings, "epochs": 2, "pretrain_epochs": 2})
    languages = {name.partition("=")[2]: part["n"] for name, part in whole["slices"].items() if "target_l" in name}
    sliced = "yes" if sum(languages.values()) == whole["n_test"] > 0 else "no"
    run = load_run(whole["run_dir"])
    ranks = same_ranks(run, pl.read_parquet(Path(whole["run_dir"]) / "users.parquet"), data)
    again = evaluate_run(whole["run_dir"])
    reloads = "yes" if again["test"] == whole["test"] and again["slices"] == whole["slices"] else "no: other results"
    if not (Path(whole["run_dir"]) / "last.pt").exists():
        resumes = "no: trains in a loop of its own"
    elif len(whole["seconds"]["epochs"]) < 2:
        resumes = "one pass"
    else:
        one, two = ({"epochs": epochs, "pretrain_epochs": epochs} for epochs in (1, 2))
        half = recbole_xling.run(model, NAME, config_dict={**settings, **one})
        resumed = recbole_xling.run(config_dict={"resume": half["run_dir"], **two, "allow_unknown_keys": True})
        resumes = same_run(whole, resumed, weights=True)
    return {"slices": sliced, "ranks": ranks, "resumes": resumes, "reloads": reloads}


def attempt(model: str, folder: Path, data: Path, into: Any, verbose: bool) -> None:
    """Check a model and send what came of it: the checks, or why it does not run."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as quiet:
        if not verbose:
            quiet.enter_context(contextlib.redirect_stdout(nowhere))
            quiet.enter_context(contextlib.redirect_stderr(nowhere))
        try:
            found = {"runs": "yes", **check(model, folder, data)}
        except XlingError as error:
            found = {"runs": "no", "why": str(error).splitlines()[0]}
        except Exception as error:
            if verbose:
                traceback.print_exc()
            found = {"runs": "no", "why": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    into.put(found)


# ---- all models -----------------------------------------------------------------------------------------------


def kinds() -> dict[str, str]:
    """Return the kind of each of RecBole's models by the folder of its module."""
    import recbole.model
    import recbole.model.general_recommender as general

    from recbole_xling.registry import known_models, registered_models

    titles = {"general": "general", "sequential": "sequential", "context_aware": "context-aware",
              "knowledge_aware": "knowledge-aware", "exlib": "decision trees"}  # fmt: skip
    known = known_models() | {name for name, value in vars(general).items() if isinstance(value, type)}
    names = {name.lower(): name for name in known - set(registered_models())}
    found = {}
    for folder, title in titles.items():
        for file in sorted((Path(recbole.model.__file__).parent / f"{folder}_recommender").glob("*.py")):
            if file.stem in names:
                found[names[file.stem]] = title
    return found


def run_models(models: list[str], limit: float, verbose: bool) -> dict[str, dict[str, Any]]:
    """Check each model in a process of its own."""
    import recbole_xling.quick_start.evaluate
    import recbole_xling.quick_start.train  # noqa: F401  (imported once; the processes start as copies of this one)

    forked, found = multiprocessing.get_context("fork"), {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_data(data)
        for model in models:
            started, queue = time.perf_counter(), forked.SimpleQueue()
            process = forked.Process(target=attempt, args=(model, Path(folder) / model, data, queue, verbose))
            process.start()
            process.join(limit)
            if process.is_alive():
                process.kill()
                found[model] = {"runs": "no", "why": f"did not finish in {limit:.0f} s"}
            else:
                found[model] = {"runs": "no", "why": "its process died"} if queue.empty() else queue.get()
            print(f"{model:<14}{time.perf_counter() - started:6.1f}s  {found[model]}", flush=True)
    return found


def table(models: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the table of the page."""
    checks = ("runs", "slices", "ranks", "resumes", "reloads")
    lines = ["| model | kind | runs | per language | ranks | resumes | reloads | why not |", "|---" * 8 + "|"]
    for model, found in models.items():
        words = [str(found.get(check, "")) for check in checks]
        why = "; ".join([*filter(None, [found.get("why")]), *(word[4:] for word in words if word.startswith("no: "))])
        cells = [word.partition(":")[0] for word in words]
        lines.append(f"| {' | '.join([model, found['kind'], *cells, why.replace('|', '/')])} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Check the named models, or all, and write the results and the table."""
    known = kinds()
    parser = argparse.ArgumentParser(description="Run RecBole's models under recbole_xling.run.")
    parser.add_argument("models", nargs="*", metavar="MODEL", help="default: all")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds that a model may take")
    parser.add_argument("--verbose", action="store_true", help="show what the runs print, and tracebacks")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(known):
        parser.error(f"unknown model {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    file = RESULTS / "recbole_models.json"
    before = json.loads(file.read_text())["models"] if arguments.models and file.exists() else {}
    found = run_models(arguments.models or list(known), arguments.limit, arguments.verbose)
    models = {
        model: {"kind": kind, **(found.get(model) or before[model])}
        for model, kind in known.items()
        if model in found or model in before
    }
    write_json(file, {"models": models})
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(head + BEGIN + table(models) + END + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
