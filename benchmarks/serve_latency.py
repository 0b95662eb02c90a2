"""How long one list takes, and how many a second there are: exports of 100 thousand and a million items.

    python benchmarks/serve_latency.py --folder /tmp/serve
    python benchmarks/serve_latency.py --folder /tmp/serve --sizes 100000 --replay /path/to/python/with/replay-rec

The exports are made: items in 1,000 groups, vectors of 64 numbers whose spread falls from axis to axis (as the square
root of its number) and whose lengths vary, a bias by Zipf's law, and a user tower of LLMSASRec's kind with its initial
weights (two layers, two heads, histories of up to 50 items). An untrained tower returns about the last item of a
history, so users are near to items. Each list is the ten best of all items, the history left out, for a history of 1 to
50 items.

- `call`: one thread calls `recommend_histories` with one history at a time.
- `clients`: that many clients ask `recbole-xling serve` over HTTP, each as soon as it has its last answer. Clients and
  server share the machine's processors.
- `cpu`: milliseconds of computing per list, which other processes on the machine hardly change.
- `recall`: of the ten best by exact scores, those found by the index, for 500 users.
- `torch`: the same tower as a module of torch, all scores at once (`users @ items.T`), and `topk`.
- `replay`: RePlay's SasRecCompiled (OpenVINO) of the same size, and `topk` of its scores, if --replay names an
  interpreter that has replay-rec, lightning and openvino.

Building an index of a million items takes about a quarter of an hour; exports are kept in --folder and found again.
Prints a table and writes benchmarks/results/serve_latency.json.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, show, write_json

SIZE, LONGEST, K = 64, 50, 10
GROUPS = 1000
LANGUAGES = ("en", "de", "it")
WORDS = np.array("the of night river house love dark golden lost summer stone winter king last story".split())
MARK = "result: "
GIB = 2**30
SECONDS = 15.0  # of each measurement
KINDS = ("exact", "hnsw", "ivfpq")


# ---- exports ----------------------------------------------------------------------------------------------------


def made_items(n_items: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vectors, ``(n_items + 1, SIZE)``, bias and counts; the first row is the padding item."""
    rng = np.random.default_rng(n_items)
    centers = rng.standard_normal((GROUPS, SIZE), dtype=np.float32)
    vectors = centers[rng.integers(GROUPS, size=n_items + 1)]
    vectors += 0.7 * rng.standard_normal(vectors.shape, dtype=np.float32)
    vectors *= np.arange(1, SIZE + 1, dtype=np.float32) ** -0.5
    vectors *= rng.gamma(9, 1 / 9, size=(n_items + 1, 1)).astype(np.float32)
    vectors[0] = 0
    counts = np.maximum(1, n_items / (1 + rng.permutation(n_items + 1))).astype(np.int64)
    counts[0] = 0
    bias = np.log(np.maximum(counts, 1) / counts.max()).astype(np.float32)
    return vectors, bias, counts


def user_tower() -> Any:
    """Return a module from the vectors of histories to users."""
    import torch
    from torch import nn

    from recbole_xling.model.layers.transformer import SequenceEncoder
    from recbole_xling.model.layers.user_tower import last_states

    class Tower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            sizes: dict[str, Any] = {"hidden_size": SIZE, "n_layers": 2, "n_heads": 2, "inner_size": 4 * SIZE}
            dropout = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
            self.encoder = SequenceEncoder(
                max_length=LONGEST, **sizes, **dropout, hidden_act="gelu", layer_norm_eps=1e-12
            )
            for module in self.encoder.modules():
                if isinstance(module, nn.Linear | nn.Embedding):
                    nn.init.normal_(module.weight, std=0.02)

        def forward(self, items: Any, item_seq_len: Any, item_language: Any, user_language: Any) -> Any:
            return last_states(self.encoder(items), item_seq_len)

    torch.manual_seed(0)
    return Tower().eval()


def make_export(n_items: int, kind: str, folder: Path) -> None:
    """Write an export without users, whole or not at all."""
    import torch

    from recbole_xling.quick_start.onnx_tower import _write_graph
    from recbole_xling.serve import folder as files
    from recbole_xling.serve.indexes import index_file, write_index
    from recbole_xling.utils.files import replacing

    vectors, bias, counts = made_items(n_items)
    rng = np.random.default_rng(1)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with replacing(folder) as new:
        new.mkdir()
        np.save(new / files.vectors_file("items", 0), vectors)
        np.save(new / files.BIAS_FILE, bias)
        titles = [" ".join(words) for words in WORDS[rng.integers(len(WORDS), size=(n_items, 4))]]
        with open(new / files.ITEMS_FILE, "w", encoding="utf-8") as lines:
            for item in range(1, n_items + 1):
                record = {
                    "id": f"i{item}",
                    "titles": [f"{titles[item - 1]} {item}"],
                    "languages": [LANGUAGES[item % 3]],
                }
                lines.write(json.dumps({**record, "count": int(counts[item]), "columns": {}}) + "\n")
        inputs = (torch.zeros(2, LONGEST, SIZE), torch.ones(2), torch.zeros(2, LONGEST), torch.zeros(2))
        inputs = (inputs[0], *(part.long() for part in inputs[1:]))
        _write_graph(user_tower(), inputs, new / files.TOWER_FILE, "the benchmark")
        started = time.perf_counter()
        index: dict[str, Any] | None = None
        if kind != "exact":
            weight = write_index(kind, vectors[1:], bias[1:], new / index_file(kind, 0))
            index = {"kind": kind, "weights": [weight], "seconds": time.perf_counter() - started}
        facts = {"format": files.FORMAT, "model": "LLMSASRec", "dataset": "made", "items": n_items, "view_of": {}}
        facts |= {"by_history": True, "without_history": False, "model_views": 1, "spoken": [], "language_numbers": {}}
        facts |= {"longest_history": LONGEST, "vector_size": SIZE, "columns": [], "new_items": None}
        manifest = {**facts, "index": index, "files": files.checksums(new)}
        (new / files.MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def histories_of(n_items: int, number: int, seed: int = 0) -> list[np.ndarray]:
    """Return histories of items from 1."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, n_items + 1, size=rng.integers(1, LONGEST + 1)) for _ in range(number)]


# ---- measuring --------------------------------------------------------------------------------------------------


def timed(call: Callable[[np.ndarray], object], histories: Sequence[np.ndarray]) -> dict[str, float]:
    """Call with one history at a time, after some that are not timed; returns milliseconds and calls per second."""
    for history in histories[:20]:
        call(history)
    took, until = [], time.perf_counter() + SECONDS
    started, computed = time.perf_counter(), time.process_time()
    while (before := time.perf_counter()) < until:
        call(histories[len(took) % len(histories)])
        took.append(time.perf_counter() - before)
    found = summary(took, time.perf_counter() - started)
    return {**found, "cpu": (time.process_time() - computed) / len(took) * 1000}


def summary(took: Sequence[float], seconds: float) -> dict[str, float]:
    """Return percentiles in milliseconds, and the number per second."""
    p50, p99 = np.percentile(took, [50, 99]) * 1000
    return {"p50": float(p50), "p99": float(p99), "per_second": len(took) / seconds, "requests": len(took)}


def measure_calls(folder: Path, n_items: int) -> dict[str, Any]:
    """Measure `recommend_histories` in this process."""
    from recbole_xling.serve import load_export

    recommender, asked = load_export(folder, verify=False), histories_of(n_items, 500)
    names = {id(history): [f"i{item}" for item in history] for history in asked}
    found = timed(lambda history: recommender.recommend_histories([names[id(history)]], K), asked)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    result = {**found, "resident_gib": peak}
    scorer = recommender.scorer
    if scorer._views[0].search is not None:  # type: ignore[attr-defined]
        result["recall@10"] = recall(recommender, [names[id(history)] for history in asked])
    return result


def recall(recommender: Any, histories: Sequence[Sequence[str]]) -> float:
    """Return the share of the best items by exact scores that are found by the index."""
    from dataclasses import replace

    scorer = recommender.scorer
    found = recommender.recommend_histories(histories, K)
    with_index, scorer._views = scorer._views, [replace(view, search=None) for view in scorer._views]
    best = recommender.recommend_histories(histories, K)
    scorer._views = with_index
    pairs = zip(found, best, strict=True)
    hits = [len({i.item for i in one.items} & {i.item for i in other.items}) for one, other in pairs]
    return sum(hits) / (K * len(hits))


def measure_torch(folder: Path, n_items: int) -> dict[str, Any]:
    """Measure the same by torch: its tower, all scores at once, the ten best."""
    import torch

    items = torch.from_numpy(np.load(folder / "items.0.npy"))
    bias = torch.from_numpy(np.load(folder / "bias.npy"))
    bias[0] = -torch.inf
    tower = user_tower()

    @torch.inference_mode()
    def call(history: np.ndarray) -> object:
        item_seq = torch.from_numpy(history)[None]
        length = torch.tensor([len(history)])
        scores = tower(items[item_seq], length, item_seq, length) @ items.T + bias
        scores[0, item_seq[0]] = -torch.inf
        best = scores.topk(K)
        return best.values.tolist(), [f"i{item}" for item in best.indices[0].tolist()]

    return timed(call, histories_of(n_items, 500))


def measure_replay(n_items: int) -> dict[str, Any]:
    """Measure RePlay's compiled SASRec, with its initial weights, and the ten best of its scores."""
    import torch
    from replay.data import FeatureHint, FeatureType
    from replay.data.nn import TensorFeatureInfo, TensorSchema
    from replay.models.nn.sequential import SasRec
    from replay.models.nn.sequential.compiled import SasRecCompiled

    feature = TensorFeatureInfo(
        "item_id",
        cardinality=n_items,
        padding_value=n_items,
        is_seq=True,
        embedding_dim=SIZE,
        feature_type=FeatureType.CATEGORICAL,
        feature_hint=FeatureHint.ITEM_ID,
    )
    sizes = {"block_count": 2, "head_count": 2, "hidden_size": SIZE, "max_seq_len": LONGEST}
    model = SasRec(TensorSchema([feature]), **sizes)
    compiled = SasRecCompiled.compile(
        model, mode="one_query", num_threads=int(os.environ.get("OMP_NUM_THREADS", 0)) or None
    )

    def call(history: np.ndarray) -> object:
        item_seq = torch.from_numpy(history - 1)[None]
        batch = {"feature_tensor": {"item_id": item_seq}, "padding_mask": torch.ones_like(item_seq, dtype=torch.bool)}
        scores = compiled.predict(batch)
        scores[0, item_seq[0]] = -torch.inf
        best = scores.topk(K)
        return best.values.tolist(), best.indices.tolist()

    return timed(call, histories_of(n_items, 500))


# ---- the server -------------------------------------------------------------------------------------------------


def measure_server(folder: Path, n_items: int, n_clients: int, seconds: float) -> dict[str, Any]:
    """Ask a server from another process, whose threads are the clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call = [sys.executable, "-m", "recbole_xling.cli.main", "serve", str(folder), "--port", str(port)]
    code = "import sys; from recbole_xling.cli.main import script_main; script_main()"
    server = subprocess.Popen([sys.executable, "-c", code, *call[3:]], stdout=subprocess.DEVNULL)
    try:
        until_ready(port, server)
        before = memory_of(server.pid)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            took, failures = pool.apply(ask_for, (port, n_items, n_clients, seconds))
        return {**summary(took, seconds), "errors": failures, "resident_gib": [before, memory_of(server.pid)]}
    finally:
        server.terminate()
        server.wait(30)


def until_ready(port: int, server: subprocess.Popen) -> None:
    """Wait until a server answers."""
    while server.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.2)
    sys.exit("the server ended")


def memory_of(pid: int) -> float:
    """Return the memory of a process that is no page of a file, in GiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) * 1024 / GIB


def ask_for(port: int, n_items: int, n_clients: int, seconds: float) -> tuple[list[float], int]:
    """Ask by some clients for some seconds; returns how long each request took, and how many failed."""
    bodies = [
        json.dumps({"histories": [[f"i{item}" for item in history]], "k": K}) for history in histories_of(n_items, 500)
    ]
    took: list[float] = []
    failures, until = [0], time.perf_counter() + seconds

    def client(number: int) -> None:
        connection, place = http.client.HTTPConnection("127.0.0.1", port, timeout=60), number * 37
        while time.perf_counter() < until:
            place, started = place + 1, time.perf_counter()
            try:
                headers = {"content-type": "application/json"}
                connection.request("POST", "/recommend", bodies[place % len(bodies)], headers)
                response = connection.getresponse()
                answer = json.loads(response.read())
                if response.status != 200 or len(answer["answers"][0]["items"]) != K:
                    failures[0] += 1
            except (OSError, http.client.HTTPException, ValueError):
                failures[0] += 1
                connection.close()
            took.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return took, failures[0]


# ---- all measurements -------------------------------------------------------------------------------------------


def in_own_process(python: str, *words: object) -> dict[str, Any]:
    """Measure in a process of its own, so that its peak memory is its own."""
    call = [python, __file__, "--measure", *map(str, words)]
    done = subprocess.run(call, stdout=subprocess.PIPE, text=True, check=False)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return found
    sys.exit(f"measuring {words} failed")


def measured(words: Sequence[str]) -> dict[str, Any]:
    """Return one measurement, in this process."""
    what, folder, n_items, *more = words
    if what == "call":
        return measure_calls(Path(folder), int(n_items))
    if what == "torch":
        return measure_torch(Path(folder), int(n_items))
    if what == "replay":
        return measure_replay(int(n_items))
    return measure_server(Path(folder), int(n_items), int(more[0]), float(more[1]))


def main() -> None:
    """Make exports, measure all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="100000,1000000", help="numbers of items")
    parser.add_argument("--kinds", default="exact,hnsw", help=f"of {', '.join(KINDS)}")
    parser.add_argument("--clients", default="1,50", help="numbers of clients of the server")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each measurement of the server")
    parser.add_argument("--replay", metavar="PYTHON", help="an interpreter that has replay-rec, lightning and openvino")
    parser.add_argument("--folder", type=Path, required=True, help="where exports are made, kept and found again")
    parser.add_argument("--output", type=Path, default=RESULTS / "serve_latency.json", help="where results go")
    parser.add_argument("--make", action="store_true", help="make the exports alone")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    if "--measure" in sys.argv:
        print(MARK + json.dumps(measured(sys.argv[sys.argv.index("--measure") + 1 :])))
        return
    options = parser.parse_args()
    results: dict[str, Any] = json.loads(options.output.read_text())["results"] if options.output.is_file() else {}
    for n_items in map(int, options.sizes.split(",")):
        for kind in options.kinds.split(","):
            folder = options.folder / f"{n_items}-{kind}"
            if not folder.is_dir():
                make_export(n_items, kind, folder)
            if options.make:
                continue
            found = results.setdefault(f"{n_items}", {}).setdefault(kind, {})
            found["call"] = in_own_process(sys.executable, "call", folder, n_items)
            for n_clients in options.clients.split(","):
                words = "server", folder, n_items, n_clients, options.seconds
                found[f"clients {n_clients}"] = in_own_process(sys.executable, *words)
            write_json(options.output, {"results": results})
        if options.make:
            continue
        first = options.folder / f"{n_items}-{options.kinds.split(',')[0]}"
        results[f"{n_items}"]["torch"] = {"call": in_own_process(sys.executable, "torch", first, n_items)}
        if options.replay:
            results[f"{n_items}"]["replay"] = {"call": in_own_process(options.replay, "replay", first, n_items)}
        write_json(options.output, {"results": results})
    further = ("cpu", 2), ("recall@10", 3), ("errors", 0)
    rows = [
        [f"{int(n_items):,}", kind, how, *(f"{took[key]:.2f}" for key in ("p50", "p99")), f"{took['per_second']:.0f}"]
        + [f"{took[key]:.{digits}f}" if key in took else "" for key, digits in further]
        for n_items, kinds in results.items()
        for kind, hows in kinds.items()
        for how, took in hows.items()
    ]
    show(["items", "kind", "how", "p50 ms", "p99 ms", "per second", "cpu ms", "recall@10", "errors"], rows)


if __name__ == "__main__":
    main()
