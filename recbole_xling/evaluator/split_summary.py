"""The contents of a split for ``result.json`` and the log: users, items and interactions, in all and per language."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.evaluator.slices import EvalContext

IntArray = NDArray[np.int64]
Pairs = tuple[IntArray, IntArray]
"""Users and items of interactions, ``(n,)`` each."""


def target_pairs(dataset: Any) -> Pairs:
    """Return the users and items of the interactions that a dataset of validation or test predicts."""
    users, items = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
    return users, items


def split_summary(split: Mapping[str, Any], parts: Mapping[str, Pairs], context: EvalContext) -> dict[str, Any]:
    """Return the kind of split and the contents of its parts, for ``result.json``.

    Args:
        split: ``eval_args.split``.
        parts: the pairs of ``train``, ``valid`` and ``test``.
        context: languages, and how often items occur in training.
    """
    names, user_language = np.array(context.readers.names), np.array(context.user_languages)
    summary: dict[str, Any] = {"split": dict(split)}
    for name, (users, items) in parts.items():
        counted = "interactions" if name == "train" else "targets"
        sizes: dict[str, Any] = _sizes(users, items, counted)
        if name != "train":
            sizes["cold_targets"] = int((context.train_counts[items] == 0).sum())
        of_items, of_users = names[context.readers.seen(users, items)], user_language[np.unique(users)]
        sizes["languages"] = {
            language: {
                **_sizes(users[of_items == language], items[of_items == language], counted),
                "users": int((of_users == language).sum()),
            }
            for language in sorted({*of_items.tolist(), *of_users.tolist()})
        }
        summary[name] = sizes
    return summary


def _sizes(users: IntArray, items: IntArray, counted: str) -> dict[str, int]:
    return {"users": len(np.unique(users)), "items": len(np.unique(items)), counted: len(items)}


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return the summary as lines for the log."""
    lines = [f"Split {summary['split']}"]
    for name, sizes in summary.items():
        if name != "split":
            lines.append(f"  {name:<8}{_line(sizes)}")
            lines += [f"    {language:<6}{_line(part)}" for language, part in sizes["languages"].items()]
    return "\n".join(lines)


def _line(sizes: Mapping[str, Any]) -> str:
    shown = {key.replace("_", " "): value for key, value in sizes.items() if key != "languages"}
    return ", ".join(f"{value:,} {key}" for key, value in shown.items())
