"""Rows per second and peak memory of converting raw interactions: plain pandas and recbole-xling.

    OMP_NUM_THREADS=1 python benchmarks/convert_speed.py
    OMP_NUM_THREADS=1 python benchmarks/convert_speed.py --sizes 1000000 --layouts movielens --work /disk/with/room

The data are made, the same each time: 50,000 items, 100 interactions per user, in the layouts of MovieLens (CSV) and of
Amazon Reviews 2023 (JSON lines). One interaction in a thousand is with an unknown item, and in JSON as many have no
rating. Both sides read the files, check ids against the catalog, leave out bad rows, and write the same ``.inter``
and ``.item`` files, which are compared byte by byte. Ours also writes the item texts, the list of bad rows and the
report. pandas reads CSV at once and JSON in pieces, of which it keeps the good rows.

Each side has one thread, so that on a machine with other work the rows per second of processor time are the ones to
compare. Every measurement is a process of its own with a limit on its memory; what is shown is the
most memory it ever held. The files of 50 million interactions take some 10 GB at a time and are deleted afterwards.
Prints a table and writes benchmarks/results/convert_speed.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common import RESULTS, show, write_json

NAME = "made"
ITEMS = 50_000
PER_USER = 100
ROWS_AT_A_TIME = 500_000
GIB = 2**30
OUT_OF_MEMORY = "out of memory limit"
MARK = "result: "
FILES = (f"{NAME}.inter", f"{NAME}.item")

# ---- the data -------------------------------------------------------------------------------------------------


def made_rows(n: int) -> Iterator[Any]:
    """Yield frames of user, item (one in a thousand is unknown), rating and time, sorted by user."""
    import numpy as np
    import polars as pl

    rng = np.random.default_rng(n)
    for start in range(0, n, ROWS_AT_A_TIME):
        size = min(ROWS_AT_A_TIME, n - start)
        items = (ITEMS * rng.random(size) ** 2).astype(np.int64)
        yield pl.DataFrame(
            {
                "user": 1 + np.arange(start, start + size) // PER_USER,
                "item": np.where(rng.random(size) < 0.001, ITEMS + 1, 1 + items),
                "rating": rng.integers(1, 11, size) / 2,
                "time": rng.integers(10**9, 16 * 10**8, size),
                "is_bad": rng.random(size) < 0.001,
            }
        )


def make_movielens(n: int, folder: Path) -> None:
    """Write ``movies.csv`` and ``ratings.csv``."""
    films = (f"{i},Film {i} ({1930 + i % 90}),Comedy|Drama\n" for i in range(1, ITEMS + 1))
    (folder / "movies.csv").write_text("movieId,title,genres\n" + "".join(films), encoding="utf-8")
    with open(folder / "ratings.csv", "wb") as file:
        file.write(b"userId,movieId,rating,timestamp\n")
        for rows in made_rows(n):
            rows.drop("is_bad").write_csv(file, include_header=False)


def make_amazon(n: int, folder: Path) -> None:
    """Write ``meta.jsonl`` and ``reviews.jsonl`` with the keys that are needed."""
    import polars as pl

    with open(folder / "meta.jsonl", "w", encoding="utf-8") as file:
        for i in range(1, ITEMS + 1):
            record = {"parent_asin": f"B{i:09}", "title": f"Thing {i}", "store": f"Maker {i % 99}", "categories": ["A"]}
            file.write(json.dumps(record) + "\n")
    with open(folder / "reviews.jsonl", "wb") as file:
        for rows in made_rows(n):
            rows.select(
                user_id=pl.format("AE{}", pl.col("user").cast(pl.String).str.zfill(10)),
                parent_asin=pl.format("B{}", pl.col("item").cast(pl.String).str.zfill(9)),
                rating=pl.when(~pl.col("is_bad")).then(pl.col("rating").ceil()),
                timestamp=pl.col("time") * 1000 + pl.col("item") % 1000,
            ).write_ndjson(file)


# ---- plain pandas ---------------------------------------------------------------------------------------------


def pandas_movielens(source: Path, target: Path) -> None:
    """Convert MovieLens."""
    import pandas as pd

    films = pd.read_csv(source / "movies.csv", dtype=str)
    years, genres = films["title"].str.extract(r"\((\d{4})\)$")[0], films["genres"].str.replace("|", " ")
    items = pd.DataFrame(
        {"item_id:token": films["movieId"], "item_language:token": "en", "release_year:token": years,
         "genres:token_seq": genres}
    )  # fmt: skip
    ratings = pd.read_csv(source / "ratings.csv", dtype={"userId": str, "movieId": str})
    write_with_pandas(good_rows(ratings, set(films["movieId"])), items, target)


def pandas_amazon(source: Path, target: Path) -> None:
    """Convert Amazon Reviews 2023."""
    import pandas as pd

    products = pd.read_json(source / "meta.jsonl", lines=True, dtype={"parent_asin": str})
    known = set(products["parent_asin"])
    items = pd.DataFrame(
        {"item_id:token": products["parent_asin"], "item_language:token": "en", "brand:token": products["store"]}
    )
    kinds = {"user_id": str, "parent_asin": str, "rating": float, "timestamp": "int64"}
    path, options = source / "reviews.jsonl", {"convert_dates": False, "chunksize": ROWS_AT_A_TIME}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # newer releases warn of convert_dates, which older ones need
        pieces = pd.read_json(path, lines=True, dtype=kinds, **options)
    reviews = pd.concat([good_rows(piece, known) for piece in pieces], ignore_index=True)
    write_with_pandas(reviews.assign(timestamp=reviews["timestamp"] / 1000), items, target)


def good_rows(rows: Any, known: set[str]) -> Any:
    """Leave out rows with nothing in a cell or an unknown item, which is in the second column."""
    rows = rows.dropna()
    return rows[rows.iloc[:, 1].isin(known)]


def write_with_pandas(rows: Any, items: Any, target: Path) -> None:
    """Write both files; whole numbers without decimals."""
    rows.columns = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    for column in rows.columns[2:]:
        if (rows[column] % 1 == 0).all():
            rows = rows.astype({column: "int64"})
    (target / NAME).mkdir()
    for name, frame in zip(FILES, (rows, items), strict=True):
        frame.to_csv(target / NAME / name, sep="\t", index=False)


# ---- ours -----------------------------------------------------------------------------------------------------


def ours(converter: str) -> Callable[[Path, Path], None]:
    """Return what converts with one of our converters."""

    def convert(source: Path, target: Path) -> None:
        from recbole_xling.convert import get_converter, write_dataset

        write_dataset(get_converter(converter)(input=source), target, NAME, show_progress=False)

    return convert


LAYOUTS: dict[str, dict[str, Callable[..., None]]] = {
    "movielens": {"make": make_movielens, "pandas": pandas_movielens, "ours": ours("movielens")},
    "amazon": {"make": make_amazon, "pandas": pandas_amazon, "ours": ours("amazon-reviews")},
}
SIDES = ("pandas", "ours")

# ---- one measurement, in a process of its own -----------------------------------------------------------------


def memory(what: str) -> int:
    """Return a line of /proc/self/status in bytes: ``VmSize``, ``VmRSS``, or ``VmHWM``, the peak of that."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) * 1024


def measure(layout: str, side: str, folder: Path, memory_gib: float) -> dict[str, Any]:
    """Convert once; returns seconds, peak bytes, and a digest of the files."""
    __import__("pandas" if side == "pandas" else "recbole_xling.convert")
    before = memory("VmRSS")
    limit = memory("VmSize") + int(memory_gib * GIB) - before
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    target = folder / side
    target.mkdir()
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        LAYOUTS[layout][side](folder / "source", target)
    except MemoryError:
        return {"failed": OUT_OF_MEMORY, "bytes": memory("VmHWM")}
    seconds = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    digests = [digest(target / NAME / name) for name in FILES]
    return {**seconds, "bytes": memory("VmHWM"), "bytes_before": before, "digests": digests}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def in_own_process(*arguments: object) -> dict[str, Any]:
    """Run this script with arguments and return what it reports."""
    words = [sys.executable, __file__, *map(str, arguments)]
    threads = os.environ | {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, env=threads)
    for line in done.stdout.splitlines():
        if line.startswith(MARK):
            report: dict[str, Any] = json.loads(line.removeprefix(MARK))
            return report
    if done.returncode > 0:
        sys.exit(f"measuring {' '.join(words[2:])} failed")
    return {"failed": OUT_OF_MEMORY} if done.returncode else {}  # an allocation that failed in C ends the process


# ---- all measurements -----------------------------------------------------------------------------------------


def compare(layout: str, size: int, work: Path | None, memory_gib: float) -> dict[str, Any]:
    """Measure both sides at one size; check that they wrote the same."""
    with tempfile.TemporaryDirectory(dir=work) as name:
        folder = Path(name)
        (folder / "source").mkdir()
        in_own_process("--layouts", layout, "--make", size, "--folder", folder / "source")
        sides = {}
        for side in SIDES:
            sides[side] = in_own_process(
                "--layouts", layout, "--measure", side, "--folder", folder, "--memory-gib", memory_gib
            )
            shutil.rmtree(folder / side, ignore_errors=True)
    written = {tuple(run["digests"]) for run in sides.values() if "digests" in run}
    if len(written) > 1:
        sys.exit(f"the two sides wrote different files for {size} interactions of {layout}")
    for run in sides.values():
        run.pop("digests", None)
        if "seconds" in run:
            run["rows_per_second"] = size / run["seconds"]
            run["rows_per_cpu_second"] = size / run["cpu_seconds"]
    return sides


def table(layout: str, size: int, sides: dict[str, Any]) -> list[list[str]]:
    """Return the rows to print."""
    rows = []
    for side, run in sides.items():
        if "failed" in run:
            rows.append([layout, f"{size:,}", side, run["failed"]])
            continue
        cells = [f"{run[kind]:.1f}" for kind in ("seconds", "cpu_seconds")]
        cells += [f"{run[kind]:,.0f}" for kind in ("rows_per_second", "rows_per_cpu_second")]
        cells += [f"{run[kind] / GIB:.2f}" for kind in ("bytes", "bytes_before")]
        rows.append([layout, f"{size:,}", side, *cells])
    return rows


def main() -> None:
    """Compare both sides in all layouts at all sizes, or do one step of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1000000,10000000,50000000", help="numbers of interactions")
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="movielens, amazon")
    parser.add_argument("--work", type=Path, help="folder for the made files (default: that of temporary files)")
    parser.add_argument("--memory-gib", type=float, default=8, help="memory a measurement may take")
    parser.add_argument("--make", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    layouts = options.layouts.split(",")
    if options.make:
        LAYOUTS[layouts[0]]["make"](options.make, options.folder)
        return
    if options.measure:
        sys.argv = sys.argv[:1]
        run = measure(layouts[0], options.measure, options.folder, options.memory_gib)
        print(MARK + json.dumps(run), flush=True)
        return
    results: dict[str, dict[int, Any]] = {layout: {} for layout in layouts}
    for size in map(int, options.sizes.split(",")):
        for layout in layouts:
            sides = results[layout][size] = compare(layout, size, options.work, options.memory_gib)
            headers = ["layout", "interactions", "", "s", "CPU s", "rows/s", "rows/CPU s", "peak GiB", "at start"]
            show(headers, table(layout, size, sides))
            write_json(RESULTS / "convert_speed.json", {"memory_gib": options.memory_gib, "layouts": results})


if __name__ == "__main__":
    main()
