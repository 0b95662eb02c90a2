"""Training steps of a LoRA-tuned text encoder: XLingTwoTower's item tower and sentence-transformers.

    OMP_NUM_THREADS=1 python benchmarks/lora_speed.py --encoder path/to/multilingual-e5-small --data path/to/data

All sides train the same encoder with the same LoRA on the same batches of text pairs (an article of NeMig and one its
reader clicked later) under the same loss, the softmax over the batch's second texts, and the same data type.
MultipleNegativesRankingLoss stands against TextEncoder with the batch in one pass, its cached version against
TextEncoder with the same sub-batch. Every side is a process of its own, and they take turns. Tokenizing is not counted
on any side. What TextEncoder does once and keeps, the layers below the tuned ones, has a column of its own. Memory is
the process's peak. Prints a table and writes benchmarks/results/lora_speed.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, data_folder, show, write_json
from sources import NeMigClicks
from torch.nn import functional as F

from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.encode.sentence_transformers import computes_in_bfloat16

MARK = "result: "
SCALE = 20.0
MAX_LENGTH = 64
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05}
TARGETS = ["query", "value"]
PEERS = {
    "XLingTwoTower": "MultipleNegativesRankingLoss",
    "XLingTwoTower, sub-batches": "CachedMultipleNegativesRankingLoss",
}
SIDES = (*PEERS.values(), *PEERS)
Pairs = list[tuple[str, str]]
Loss = Callable[[], torch.Tensor]


def text_pairs(data: str, n_pairs: int) -> Pairs:
    """Return texts of an article and of one that the same reader clicked next, in a fixed random order."""
    source = NeMigClicks(input=data_folder(data, "nemig"))
    rejects = Rejects(None)
    texts = {text.item_id: ". ".join(text.fields.values()) for text in source.texts(rejects)}
    clicks = next(source.interactions(rejects))
    rows = list(zip(clicks["user_id"], clicks["item_id"], strict=True))
    pairs = [(texts[a[1]], texts[b[1]]) for a, b in itertools.pairwise(rows) if a[0] == b[0]]
    order = np.random.default_rng(0).permutation(len(pairs))[:n_pairs]
    return [pairs[place] for place in order]


def build_ours(options: argparse.Namespace, texts: list[str]) -> tuple[torch.nn.Module, Callable[[Pairs], Loss]]:
    """Return the item tower, and what makes a step's loss of a batch; texts are tokenized once and ahead."""
    from recbole_xling.encode.hub import find_model
    from recbole_xling.model.text_encoder.encoder import TextEncoder, TextEncoderConfig

    config = TextEncoderConfig(
        peft="lora",
        lora_rank=LORA["r"],
        lora_alpha=LORA["lora_alpha"],
        lora_dropout=LORA["lora_dropout"],
        target_modules=TARGETS,
        adapter_layers=options.layers or None,
        pooling="mean",
        embedding_size=None,
        encoder_prompt=None,
        encoder_max_length=MAX_LENGTH,
        encoder_batch_size=64,
        mini_batch_size=options.sub_batch if "sub" in options.side else 2 * options.batch,
        gradient_checkpointing=False,
        lower_layer_cache_gb=4.0,
    )
    encoder = TextEncoder(find_model(options.encoder), config)
    tokens = encoder.tokenize(texts)
    row = {text: number for number, text in enumerate(texts)}

    def prepare(pairs: Pairs) -> Loss:
        rows = torch.tensor([row[pair[side]] for side in (0, 1) for pair in pairs])

        def loss() -> torch.Tensor:
            needed, place = torch.unique(tokens.text_of_row[rows], return_inverse=True)
            left, right = encoder(tokens, needed)[place].chunk(2)
            return F.cross_entropy((left @ right.T * SCALE).float(), torch.arange(len(left)))

        return loss

    return encoder, prepare


def build_theirs(options: argparse.Namespace) -> tuple[torch.nn.Module, Callable[[Pairs], Loss]]:
    """Return sentence-transformers' model with the same adapters, and what makes a step's loss of a batch."""
    from peft import LoraConfig
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from sentence_transformers.sentence_transformer import losses

    transformer = Transformer(options.encoder, max_seq_length=MAX_LENGTH)
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_word_embedding_dimension()), Normalize()])
    n_layers = transformer.auto_model.config.num_hidden_layers
    top = list(range(n_layers - options.layers, n_layers)) if options.layers else None
    pattern = {"layers_to_transform": top, "layers_pattern": "layer"} if top else {}
    model.add_adapter(LoraConfig(target_modules=TARGETS, **LORA, **pattern))
    if options.side.startswith("Cached"):
        loss = losses.CachedMultipleNegativesRankingLoss(model, scale=SCALE, mini_batch_size=options.sub_batch)
    else:
        loss = losses.MultipleNegativesRankingLoss(model, scale=SCALE)

    def prepare(pairs: Pairs) -> Loss:
        features = [model.tokenize([pair[side] for pair in pairs]) for side in (0, 1)]
        return lambda: loss(features, None)

    return model, prepare


def measure(options: argparse.Namespace) -> None:
    """Time one side and print its result as JSON."""
    torch.manual_seed(0)
    pairs = json.loads(Path(options.pairs).read_text(encoding="utf-8"))
    texts = list(dict.fromkeys(itertools.chain.from_iterable(pairs)))
    model, prepare = build_ours(options, texts) if options.side in PEERS else build_theirs(options)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    model.train()
    batches = [pairs[begin : begin + options.batch] for begin in range(0, len(pairs), options.batch)]
    seconds, losses, before = [], [], peak_gib()
    for batch in batches:  # the first step warms up: it also runs the frozen layers
        loss = prepare(batch)
        started = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=options.bf16):
            value = loss()
        value.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
        losses.append(float(value.detach()))
    rate = 2 * options.batch / statistics.median(seconds[1:])
    result = {"side": options.side, "texts_per_second": rate, "seconds": seconds, "losses": losses}
    result |= {"before_gib": before, "peak_gib": peak_gib()}
    result["once"] = seconds[0] - statistics.median(seconds[1:])
    result["trained_weights"] = sum(parameter.numel() for parameter in trained)
    print(MARK + json.dumps(result), flush=True)


def peak_gib() -> float:
    """Return the most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_side(options: argparse.Namespace, side: str, layers: int, pairs: Path) -> dict[str, Any]:
    """Measure one side in a process of its own."""
    command = [sys.executable, __file__, "--side", side, "--layers", str(layers), "--pairs", str(pairs)]
    command += ["--encoder", options.encoder, "--batch", str(options.batch), "--sub-batch", str(options.sub_batch)]
    command += ["--bf16"] if options.bf16 else []
    done = subprocess.run(command, capture_output=True, text=True)
    line = next((line for line in done.stdout.splitlines() if line.startswith(MARK)), None)
    if line is None:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    return json.loads(line.removeprefix(MARK))


def main() -> None:
    """Measure all sides in turn and show them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="folder of the encoder")
    parser.add_argument("--data", default="data", help="folder with nemig/")
    parser.add_argument("--batch", type=int, default=128, help="pairs per step")
    parser.add_argument("--sub-batch", type=int, default=32, help="texts held at a time by the cached sides")
    parser.add_argument("--steps", type=int, default=5, help="steps, the first of which is not counted")
    parser.add_argument("--repeats", type=int, default=2, help="turns")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--layers", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--pairs", help=argparse.SUPPRESS)
    parser.add_argument("--bf16", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options)
        return
    options.bf16 = computes_in_bfloat16("cpu")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.json"
        pairs.write_text(json.dumps(text_pairs(options.data, options.batch * options.steps)), encoding="utf-8")
        for layers, _, side in itertools.product((0, 4), range(options.repeats), SIDES):
            results.append({"layers": layers, **run_side(options, side, layers, pairs)})
            print(f"{side}, layers {layers or 'all'}: {results[-1]['texts_per_second']:.1f} texts/s", flush=True)
    report(options, results)


def report(options: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    """Print and write medians of the turns."""
    values = {}
    for layers, side, name in itertools.product((0, 4), SIDES, ("texts_per_second", "peak_gib", "once")):
        turns = [result[name] for result in results if (result["layers"], result["side"]) == (layers, side)]
        values[layers, side, name] = statistics.median(turns)
    rows = []
    for layers, (ours, theirs) in itertools.product((0, 4), PEERS.items()):
        for side in (theirs, ours):
            rate, peak, once = (values[layers, side, name] for name in ("texts_per_second", "peak_gib", "once"))
            ratio = rate / values[layers, theirs, "texts_per_second"]
            rows.append([layers or "all", side, rate, ratio, peak, once if side in PEERS and layers else ""])
    show(["LoRA layers", "", "texts/s", "times", "peak GiB", "once, s"], rows)
    settings = {"encoder": Path(options.encoder).name, "batch": options.batch, "sub_batch": options.sub_batch}
    settings |= {"bf16": options.bf16, "lora": LORA, "target_modules": TARGETS, "max_length": MAX_LENGTH}
    write_json(RESULTS / "lora_speed.json", {"settings": settings, "results": results})


if __name__ == "__main__":
    main()
