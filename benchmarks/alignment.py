"""What training on recommendation does to an encoder's alignment of languages, with and without the alignment term.

    OMP_NUM_THREADS=2 python benchmarks/alignment.py --encoder path/to/multilingual-e5-small --data path/to/data

XLingTwoTower is trained on ml-100k-xling, whose films have titles in several languages. With the term, these titles are
drawn as pairs, in one arm together with half of Tatoeba's sentences. Before and after, each sentence of the other half
must find its translation among all 1,000 of the other language: top-1 accuracy from and to English. Prints a table and
writes benchmarks/results/alignment.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, data_folder, show, write_json

import recbole_xling
from recbole_xling.config import XLingConfig
from recbole_xling.convert import get_converter, write_dataset
from recbole_xling.evaluator.correspondence import Side, correspondence
from recbole_xling.model.text_encoder.encoder import TextEncoder, build_encoder
from recbole_xling.quick_start.build import load_run

N_TRAINED = 500  # sentences of a language that training may see; the others are asked for
LANGUAGES = ("cmn", "deu", "fra", "ita", "jpn", "por", "spa")
NAME = "ml-100k-xling"
COMMON: dict[str, Any] = {
    "peft": "lora",
    "adapter_layers": 4,
    "train_batch_size": 2048,
    "epochs": 2,
    "stopping_step": 3,
    "enable_amp": True,
    "show_progress": False,
    "encoder_max_length": 32,
}
ARMS: dict[str, dict[str, Any]] = {
    "trained without the term": {"alignment_weight": 0.0},
    "with the term on titles": {"alignment_weight": 0.5},
    "with the term on titles and sentences": {"alignment_weight": 0.5, "alignment_file": "sentences.tsv"},
}


def sentences(folder: Path, language: str) -> tuple[list[str], list[str]]:
    """Return the sentences of a language and their English translations, in the same order."""
    sides = (folder / f"tatoeba.{language}-eng.{side}" for side in (language, "eng"))
    left, right = (side.read_text(encoding="utf-8").splitlines() for side in sides)
    return left, right


def accuracy(encoder: TextEncoder, folder: Path) -> dict[str, tuple[float, float]]:
    """Return the share of held-out sentences that find their translation, per language: to English, and from it."""
    found = {}
    for language in LANGUAGES:
        sides = []
        for name, texts in zip((language, "eng"), sentences(folder, language), strict=True):
            tokens = encoder.tokenize(texts)
            sides.append(Side(name, encoder.encode_all(tokens)[tokens.text_of_row].cpu().numpy()))
        held_out = np.arange(len(sides[0].vectors)) >= N_TRAINED
        found[language] = tuple(line["accuracy"] for line in correspondence(*sides, held_out))
    return found


def write_pairs(folder: Path, file: Path) -> None:
    """Write the sentences that training may see: a column per language, a row per sentence."""
    lines = ["\t".join(("en", *LANGUAGES))]
    for place, language in enumerate(LANGUAGES):
        for theirs, english in itertools.islice(zip(*sentences(folder, language), strict=True), N_TRAINED):
            cells = [english, *[""] * len(LANGUAGES)]
            cells[1 + place] = theirs
            lines.append("\t".join(cell.replace("\t", " ") for cell in cells))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def trained(arm: str, settings: dict[str, Any], work: Path) -> tuple[TextEncoder, dict[str, Any]]:
    """Return the encoder and the test results of an arm, running it unless that was done with these settings."""
    note = work / f"{arm.replace(' ', '-')}.json"
    known = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}
    if known.get("settings") != settings:
        result = recbole_xling.run("XLingTwoTower", NAME, config_dict=settings)
        known = {"settings": settings, "run_dir": result["run_dir"], "test": result["test"]}
        note.write_text(json.dumps(known), encoding="utf-8")
    return load_run(known["run_dir"]).model.encoder, known["test"]


def main() -> None:
    """Measure the encoder as it is and after each kind of training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="folder of the encoder")
    parser.add_argument("--data", default="data", help="folder with tatoeba/")
    parser.add_argument("--work", default="benchmarks/.data/alignment", help="folder for data and runs")
    options = parser.parse_args()
    folder, work = data_folder(options.data, "tatoeba"), Path(options.work)
    if not (work / "data" / NAME / f"{NAME}.inter").is_file():
        write_dataset(get_converter("ml-100k")(), work / "data", NAME, show_progress=False)
    local = {"data_path": str(work / "data"), "checkpoint_dir": str(work / "runs"), "encoder": options.encoder}
    write_pairs(folder, work / "sentences.tsv")
    before = build_encoder(XLingConfig("XLingTwoTower", NAME, config_dict={**COMMON, **local}))
    results: dict[str, Any] = {"before training": {"accuracy": accuracy(before, folder)}}
    for arm, changed in ARMS.items():
        if "alignment_file" in changed:
            changed = {**changed, "alignment_file": str(work / changed["alignment_file"])}
        encoder, test = trained(arm, {**COMMON, **local, **changed}, work)
        results[arm] = {"accuracy": accuracy(encoder, folder), "test": test}
    rows = []
    for arm, found in results.items():
        both = [statistics.fmean(pair[side] for pair in found["accuracy"].values()) for side in (0, 1)]
        rows.append([arm, *both, found.get("test", {}).get("ndcg@10")])
    show(["", "to English", "from English", "test NDCG@10"], rows)
    settings = {
        "common": COMMON,
        "arms": ARMS,
        "held out": 1000 - N_TRAINED,
        "encoder": Path(options.encoder).name,
        "languages": LANGUAGES,
    }
    write_json(RESULTS / "alignment.json", {"settings": settings, "results": results})


if __name__ == "__main__":
    main()
