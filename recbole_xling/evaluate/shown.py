"""Results among the candidates that were shown: which impressions count, and what a model makes of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from recbole_xling.data.impressions import Histories, Impressions, first_times, impressions_file, read_impressions
from recbole_xling.errors import DataError
from recbole_xling.evaluate.impressions import ImpressionRanker, impression_results
from recbole_xling.evaluate.results import population_of
from recbole_xling.evaluate.slices import main_languages
from recbole_xling.evaluate.split_summary import target_pairs

logger = logging.getLogger(__name__)


def rank_shown(config: Any, model: Any, data: Any, split: str) -> tuple[dict[str, Any], pl.DataFrame]:
    """Rank the candidates of a data set's impressions.

    Args:
        config: the configuration.
        model: trained, in evaluation mode.
        data: the data set, as :func:`recbole_xling.parts.build_data` returns it.
        split: ``test``: each user's impressions from his first test target on; ``valid``: those from his first
            validation target on that come before; ``all``: all.

    Returns:
        ``test``, ``intervals``, ``slices``, ``n_test`` and ``left_out`` for ``result.json``; one line per impression.

    Raises:
        DataError: the impressions cannot be read, or none of them can be ranked.
    """
    dataset, (users, items, times) = data.dataset, data.interactions
    if times is None:
        raise DataError(
            f"impressions need the times of interactions: add '{dataset.time_field}' to load_col['inter'], now "
            f"{(config['load_col'] or {}).get('inter')}"
        )
    population = population_of(data.train_data._dataset, (users, items), target_pairs(data.test_data._dataset))
    path = impressions_file(Path(config["data_path"]), config["dataset"])
    ranker = ImpressionRanker(
        model,
        data.test_data._dataset,
        Histories(data.interactions, dataset.user_num),
        main_languages(population),
        population.item_languages,
    )
    tokens = population.user_tokens, population.item_tokens
    table = ranker.rank(_of_split(read_impressions(path, *tokens), data, split))
    left_out = asdict(ranker.left_out)
    logger.info("%d impressions ranked; left out: %s", table.height, left_out)
    if not table.height:
        raise DataError(f"{path}: no impression of split '{split}' can be ranked; left out: {left_out}")
    return {**impression_results(table, config["seed"]), "left_out": left_out}, table


def _of_split(blocks: Iterator[Impressions], data: Any, split: str) -> Iterator[Impressions]:
    """Keep the impressions that lie in each user's period of a split."""
    if split == "all":
        yield from blocks
        return
    begin = test = _first_times(data, data.test_data._dataset)
    end = np.full_like(test, np.inf)
    if split == "valid":
        begin, end = _first_times(data, data.valid_data._dataset), test
    for block in blocks:
        yield block.where((begin[block.users] <= block.times) & (block.times < end[block.users]))


def _first_times(data: Any, part: Any) -> NDArray[np.float64]:
    near = part.inter_feat[part.time_field].numpy().astype(np.float32)
    return first_times(*target_pairs(part), near, data.interactions, data.dataset.user_num)
