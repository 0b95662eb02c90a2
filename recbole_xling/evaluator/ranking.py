"""Evaluating full rankings: from a trained model and a loader to metrics, a table of users, slices."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import polars as pl

from recbole_xling.data.catalog import catalog_of
from recbole_xling.data.columns import slice_columns, stated_bilingual
from recbole_xling.evaluator.beyond_accuracy import Lists
from recbole_xling.evaluator.collector import EvaluatedRows
from recbole_xling.evaluator.measure import LabelMetrics, MeanValues, Measure
from recbole_xling.evaluator.report import reader_text
from recbole_xling.evaluator.slices import EvalContext, metric_of_rows, remaining_pairs, slice_results, user_table
from recbole_xling.evaluator.split_summary import Pairs
from recbole_xling.utils.distributed import shows_progress

logger = logging.getLogger(__name__)


def eval_context_of(train: Any, used: Pairs, targets: Pairs) -> EvalContext:
    """Return what slices need to know about users and items.

    Args:
        train: the training dataset.
        used: users and items of all interactions that are in a part of the split, or in a history there.
        targets: users and items of the interactions to predict; the languages of users who state none come from all
            others.

    Raises:
        ConfigError: ``slice_by`` names a column that the dataset does not have.
        DataError: the ``.user`` or ``.item`` file is wrong.
    """
    users, items = targets
    known = remaining_pairs(*used, [EvaluatedRows(users, np.ones(len(users), dtype=np.int64), items)])
    catalog = catalog_of(train)
    user_tokens, item_tokens = (
        [str(token) for token in train.field2id_token[field]] for field in (train.uid_field, train.iid_field)
    )
    context = EvalContext(
        user_tokens=user_tokens,
        item_tokens=item_tokens,
        readers=catalog.readers(user_tokens),
        train_counts=train.train_item_counts,
        known_users=known[0],
        known_items=known[1],
        text_view=catalog.text_view,
        columns=slice_columns(train.config, user_tokens, item_tokens),
        stated_bilingual=stated_bilingual(train.config),
        absent_items=getattr(train, "absent", {}).get(train.iid_field, ()),
    )
    logger.info("%s", reader_text(context.reader_summary(used[0])))
    return context


def evaluate_full_ranking(
    trainer: Any, loader: Any, context: EvalContext, *, load_best_model: bool = False
) -> tuple[dict[str, Any], pl.DataFrame | None]:
    """Rank the whole catalog for every row of a loader.

    Args:
        trainer: a :class:`~recbole_xling.trainer.mixin.XLingTrainerMixin`, which evaluates.
        loader: RecBole's loader of the rows.
        context: the users and items, for the slices.
        load_best_model: whether the weights are read from the run folder first.

    Returns:
        ``test``, ``intervals``, ``slices``, ``n_test``, ``readers``, ``ranked_items`` and, if the settings ask for
        it, ``beyond_accuracy``, as in ``result.json``; and the table of rows (see
        :func:`~recbole_xling.evaluator.slices.user_table`), with ``score`` and ``label`` where metrics compare these;
        None if the metrics have no values per user.
    """
    config = trainer.config
    trainer.eval_collector.keeps_lists = bool(config["beyond_accuracy"])
    test = trainer.evaluate(loader, load_best_model=load_best_model, show_progress=shows_progress(config))
    if test is None:
        logger.warning("the split left nothing to test on")
        return {"test": {}, "slices": {}, "n_test": 0}, None
    rows, evaluator = trainer.eval_collector.rows, trainer.evaluator
    assert rows is not None
    result: dict[str, Any] = {"test": dict(test), "slices": {}, "n_test": len(rows)}
    if (unreachable := trainer.eval_collector.unreachable) is not None:
        result["unreachable_targets"] = unreachable
        if unreachable:
            logger.warning(
                "exclude_history takes %d of %d targets out of the ranking, where they count as not found: "
                "their users have met them before",
                unreachable,
                len(rows),
            )
    result["readers"] = context.reader_summary(rows.users)
    if evaluator.labeled is None:
        result["ranked_items"] = context.ranked_items
    values, metrics = evaluator.per_user, list(evaluator.per_user)
    if evaluator.labeled is not None:
        values, metrics = dict(zip(("score", "label"), evaluator.labeled, strict=True)), list(evaluator.exact)
    if (items := trainer.eval_collector.lists) is not None:
        lists = Lists(items, rows, context, config["topk"])
        of_rows = lists.of_rows()
        digits = config["metric_decimal_place"]
        result["test"] |= {name: round(float(column.mean()), digits) for name, column in of_rows.items()}
        result["beyond_accuracy"] = lists.by_language()
        values, metrics = {**values, **of_rows}, [*metrics, *of_rows]
    if not metrics:
        return result, None
    table = user_table(rows, values, context)
    worst_by = metric_of_rows(config["valid_metric"])
    worst_by = worst_by if worst_by in metrics else metrics[0]
    measure: Measure
    if evaluator.labeled is None:
        measure, lower_is_better = MeanValues(table, metrics, config["seed"]), False
    else:
        measure = LabelMetrics(table, metrics, config["seed"], evaluator.of_labels)
        lower_is_better = not config["valid_metric_bigger"]
    result["intervals"] = measure.entry(measure())["intervals"]
    result["slices"] = slice_results(table, measure, worst_by, context.columns, lower_is_better=lower_is_better)
    return result, table
