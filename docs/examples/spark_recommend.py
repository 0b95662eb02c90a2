"""Lists for all users of a table by PySpark: each worker loads an export, and needs neither torch nor RecBole.

    spark-submit spark_recommend.py shop-export users.json lists.parquet

The table has the columns ``user`` and ``history`` (ids of items, the oldest first), one of which may be missing; the
export must be at the same place on all workers, on a disk that they share or sent with ``--archives``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

import pandas as pd

from recbole_xling.serve import load_export
from recbole_xling.serve.answers import to_frame

SCHEMA = "user string, rank int, item string, title string, language string, score double, note string"


def recommend_frames(frames: Iterator[pd.DataFrame], export: str, k: int) -> Iterator[pd.DataFrame]:
    """Yield lists for the users of each frame, as ``mapInPandas`` asks for it, once for each partition."""
    recommender = load_export(export, verify=False)  # the driver has verified it
    for frame in frames:
        users = [str(user) for user in frame["user"]] if "user" in frame else None
        if "history" in frame:
            histories = [[] if history is None else [str(item) for item in history] for history in frame["history"]]
            yield to_frame(recommender.recommend_histories(histories, k, users=users))
        elif users:
            yield to_frame(recommender.recommend(users, k))


def main(export: str, table: str, to: str, k: int = 10) -> None:
    """Read a table of JSON lines, and write the lists as Parquet."""
    from pyspark.sql import SparkSession

    load_export(export)
    spark: Any = SparkSession.builder.appName("recbole-xling").getOrCreate()
    users = spark.read.json(table)
    users.mapInPandas(partial(recommend_frames, export=export, k=k), SCHEMA).write.mode("overwrite").parquet(to)
    spark.stop()


if __name__ == "__main__":
    main(*sys.argv[1:4], *map(int, sys.argv[4:5]))
