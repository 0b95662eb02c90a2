"""A language model as text encoder: are its vectors aligned across languages, before and after training on pairs?

    OMP_NUM_THREADS=2 python benchmarks/language_model.py --encoder FOLDER --gguf-file NAME.gguf --data path/to/data

The adapters of XLingTwoTower learn from half of Tatoeba's sentence pairs in four languages (``alignment_file``). Each
sentence of the other half must find its translation among those of the other half: top-1 accuracy, mean of both
directions, raw and after taking off the mean of each language. A pair is left out of training if its English sentence
is in the other half of any language. A run that was stopped goes on where it was. Prints a table and writes
benchmarks/results/language_model.json.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, data_folder, show, write_json
from torch.nn.functional import normalize

import recbole_xling
from recbole_xling.config import XLingConfig
from recbole_xling.model.text_encoder.encoder import TextEncoder, build_encoder
from recbole_xling.quick_start.build import load_run
from recbole_xling.testing import write_small_dataset

N_TRAINED = 500  # sentences of a language that training may see; the others are asked for
LANGUAGES = ("cmn", "deu", "fra", "jpn")
POOLS = (200, 500)  # sentences among which a translation is to be found
NAME = "sentences"
SETTINGS: dict[str, Any] = {
    "peft": "lora",
    "adapter_layers": 4,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "pooling": "last",
    "encoder_max_length": 32,
    "learning_rate": 0.001,
    "lr_schedule": "linear",
    "temperature": 0.05,
    "alignment_weight": 1.0,
    "alignment_pairs": 32,
    "train_batch_size": 4,  # next items of a dataset that is only there because a model needs one
    "epochs": 12,
    "stopping_step": 100,
    "enable_amp": True,
    "show_progress": False,
}


def sentences(folder: Path, language: str) -> list[tuple[str, str]]:
    """Return the sentences of a language with their English translations."""
    sides = (folder / f"tatoeba.{language}-eng.{side}" for side in (language, "eng"))
    return list(zip(*(side.read_text(encoding="utf-8").splitlines() for side in sides), strict=True))


def write_pairs(folder: Path, file: Path) -> int:
    """Write the pairs that training may see, a column per language; return their number."""
    held_out = {english for language in LANGUAGES for _, english in sentences(folder, language)[N_TRAINED:]}
    lines = ["\t".join(("en", *LANGUAGES))]
    for place, language in enumerate(LANGUAGES):
        for theirs, english in sentences(folder, language)[:N_TRAINED]:
            if english not in held_out:
                cells = [english, *[""] * len(LANGUAGES)]
                cells[1 + place] = theirs
                lines.append("\t".join(cell.replace("\t", " ") for cell in cells))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines) - 1


@torch.no_grad()
def accuracy(encoder: TextEncoder, folder: Path) -> dict[str, dict[str, float]]:
    """Return the share of held-out sentences that find their translation, per language, by pool and centering."""
    found: dict[str, dict[str, float]] = {}
    for language in LANGUAGES:
        sides = []
        for texts in zip(*sentences(folder, language)[N_TRAINED:], strict=True):
            tokens = encoder.tokenize(texts)
            with torch.autocast("cpu"):
                sides.append(encoder.encode_all(tokens)[tokens.text_of_row].float())
        found[language] = {}
        for centered in (False, True):
            for pool in POOLS:
                left, right = (normalize(side - side.mean(dim=0) * centered, dim=-1)[:pool] for side in sides)
                match, own = left @ right.T, torch.arange(pool)
                hits = torch.stack([match.argmax(dim=1) == own, match.argmax(dim=0) == own])
                found[language][f"{'centered' if centered else 'raw'}, of {pool}"] = float(hits.float().mean())
        print(language, found[language], flush=True)
    return found


def main() -> None:
    """Measure the language model as it is and after training on pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="folder of the language model")
    parser.add_argument("--gguf-file", help="file of that folder with its weights")
    parser.add_argument("--layers", type=int, default=14, help="keep so many layers, from the bottom")
    parser.add_argument("--data", default="data", help="folder with tatoeba/")
    parser.add_argument("--work", default="benchmarks/.data/language_model", help="folder for data and runs")
    options = parser.parse_args()
    folder, work = data_folder(options.data, "tatoeba"), Path(options.work)
    write_small_dataset(work / "data", NAME, n_users=40, n_items=40, lengths=[4] * 40)
    n_pairs = write_pairs(folder, work / "pairs.tsv")
    of_encoder = {"gguf_file": options.gguf_file, "num_hidden_layers": options.layers}
    settings: dict[str, Any] = {
        **SETTINGS,
        "encoder": options.encoder,
        "encoder_options": {key: value for key, value in of_encoder.items() if value is not None},
        "alignment_file": str(work / "pairs.tsv"),
        "data_path": str(work / "data"),
        "checkpoint_dir": str(work / "runs"),
    }
    before = work / "before.json"
    if not before.is_file():
        encoder = build_encoder(XLingConfig("XLingTwoTower", NAME, config_dict=settings)).eval()
        before.write_text(json.dumps(accuracy(encoder, folder)), encoding="utf-8")
    finished, begun = (sorted((work / "runs").glob(f"*/{name}")) for name in ("result.json", "last.pt"))
    if not finished:
        arguments = [f"--resume={begun[-1].parent}"] if begun else []
        started = time.perf_counter()
        recbole_xling.run("XLingTwoTower", NAME, config_dict={} if begun else settings, arguments=arguments)
        print(f"{time.perf_counter() - started:.0f} s of training in this call", flush=True)
        finished = sorted((work / "runs").glob("*/result.json"))
    trained = load_run(finished[-1].parent).model.encoder.eval()
    seconds = sum(json.loads(finished[-1].read_text(encoding="utf-8"))["seconds"]["epochs"])
    results = {"as it is": json.loads(before.read_text(encoding="utf-8")), "trained": accuracy(trained, folder)}
    kinds = list(results["trained"][LANGUAGES[0]])
    rows = [[f"{name}, {kind}", *(found[language][kind] for language in LANGUAGES)]
            for name, found in results.items() for kind in kinds]  # fmt: skip
    show(["", *LANGUAGES], rows)
    write_json(
        RESULTS / "language_model.json",
        {
            "settings": SETTINGS,
            "layers": options.layers,
            "encoder": options.gguf_file or Path(options.encoder).name,
            "pairs": n_pairs,
            "seconds of training": round(seconds),
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
