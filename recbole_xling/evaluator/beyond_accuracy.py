"""What lists show besides hits: languages against catalog and history, how much of the catalog, and how evenly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray
from tabulate import tabulate

from recbole_xling.evaluator.collector import EvaluatedRows
from recbole_xling.evaluator.slices import EvalContext

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

MISCALIBRATION = "miscalibration"
SMOOTHING = 0.01
"""Weight of the history in the smoothed shares of a list (alpha of Steck)."""

_MOST_LINES, _MOST_COLUMNS = 12, 8  # languages of a table


class Lists:
    """The lists of evaluated rows, by the languages in which their users see items.

    Args:
        items: internal ids, the first place first, ``(n_rows, K)``; 0 where there was no further item to rank.
        rows: whose lists these are.
        context: users and items with their languages, and what is known without the test.
        lengths: the lists are cut off at each of these, all at most K.
    """

    def __init__(self, items: IntArray, rows: EvaluatedRows, context: EvalContext, lengths: Sequence[int]) -> None:
        self.items, self.users, self.context, self.lengths = items, rows.users, context, lengths
        self.names = context.readers.names
        n_rows, size = items.shape
        seen = context.readers.seen(np.repeat(rows.users, size), items.ravel())
        self._language = seen.reshape(n_rows, size)
        of_row = np.arange(n_rows)[:, None] * len(self.names) + self._language  # (n_rows, K)
        self._is_shown = items > 0
        self._shares = {
            k: np.bincount(
                of_row[:, :k].ravel(), weights=self._is_shown[:, :k].ravel(), minlength=n_rows * len(self.names)
            ).reshape(n_rows, -1)
            / np.maximum(1, self._is_shown[:, :k].sum(axis=1, keepdims=True))
            for k in lengths
        }
        self._history = self._histories()
        shown = np.maximum(context.train_counts, 0)[1:]  # without the padding item
        share = (context.train_counts + 1) / (shown.sum() + len(shown))
        self._surprise = -np.log2(share)  # (n_items,)

    def _histories(self) -> FloatArray:
        """Return the shares of languages in each row's history, ``(n_rows, n_languages)``."""
        users, n_languages = self.context.known_users, len(self.names)
        seen = self.context.readers.seen(users, self.context.known_items)
        size = len(self.context.user_tokens) * n_languages
        counts = np.bincount(users * n_languages + seen, minlength=size).reshape(-1, n_languages)[self.users]
        everybody = counts.sum(axis=0) / max(1, counts.sum())
        total = counts.sum(axis=1, keepdims=True)
        return np.where(total > 0, counts / np.maximum(total, 1), everybody)

    def of_rows(self) -> dict[str, FloatArray]:
        """Return values of each row, ``(n_rows,)`` each.

        - ``miscalibration@k``: the Kullback-Leibler divergence, in nats, of the shares of languages in the list from
          those in its user's history (Steck, "Calibrated Recommendations", RecSys 2018); 0 is calibrated. Where a user
          has no history, that of all rows takes its place.
        - ``novelty@k``: mean self-information of the items, minus log2 of the share of training interactions that an
          item has, one added to each item's (Vargas & Castells, RecSys 2011).
        """
        values = {}
        for k in self.lengths:
            smooth = (1 - SMOOTHING) * self._shares[k] + SMOOTHING * self._history
            values[f"{MISCALIBRATION}@{k}"] = scipy.special.rel_entr(self._history, smooth).sum(axis=1)
            shown = self._is_shown[:, :k]
            surprise = (self._surprise[self.items[:, :k]] * shown).sum(axis=1)
            values[f"novelty@{k}"] = surprise / np.maximum(1, shown.sum(axis=1))
        return values

    def by_language(self) -> dict[str, dict[str, Any]]:
        """Return what becomes of the items in each language, and what readers of each language are shown.

        Returns:
            ``items`` by language: ``n``, items that some row's user sees in it; shares of the ``catalog``, of the
            ``history`` and of the lists (``exposure@k``), means over rows; ``coverage@k``, the share of these items
            that are in some list, ``gini@k`` of how often they are, 0 for equally, and their mean ``novelty@k``, which
            is missing if none is. ``readers`` by language: ``n`` rows, and by language ``history`` and ``exposure@k``.
        """
        readers, n_languages = self.context.readers, len(self.names)
        views, n_of_view = np.unique(readers.view_of_user[self.users], return_counts=True)
        number = {name: place for place, name in enumerate(self.names)}
        seen = np.array([[number[name] for name in readers.seen_by(view)] for view in views.tolist()])[:, 1:]
        shares = np.stack([np.bincount(of_view, minlength=n_languages) / len(of_view) for of_view in seen])
        catalog = n_of_view @ shares / n_of_view.sum()
        n_items = len(self.context.item_tokens)
        times = {
            k: np.bincount(
                (self._language[:, :k] * n_items + self.items[:, :k]).ravel(), minlength=n_languages * n_items
            ).reshape(n_languages, n_items)[:, 1:]
            for k in self.lengths
        }
        items: dict[str, Any] = {}
        for place, name in enumerate(self.names):
            own = (seen == place).any(axis=0)  # (n_items - 1,)
            if not own.any():
                continue
            values = {"catalog": catalog[place], "history": self._history[:, place].mean()}
            for k in self.lengths:
                here = times[k][place][own]
                values |= {f"exposure@{k}": self._shares[k][:, place].mean(), f"coverage@{k}": (here > 0).mean()}
                if here.any():
                    values[f"gini@{k}"] = gini(here)
                    values[f"novelty@{k}"] = here @ self._surprise[1:][own] / here.sum()
            items[name] = {"n": int(own.sum()), **{key: float(value) for key, value in values.items()}}
        return {"items": items, "readers": self._readers()}

    def _readers(self) -> dict[str, Any]:
        of_rows = np.array(self.context.user_languages)[self.users]
        found = {}
        for language in np.unique(of_rows).tolist():
            mine = of_rows == language
            shares = {"history": self._history, **{f"exposure@{k}": self._shares[k] for k in self.lengths}}
            means = {key: value[mine].mean(axis=0).tolist() for key, value in shares.items()}
            found[language] = {
                "n": int(mine.sum()),
                **{key: dict(zip(self.names, value, strict=True)) for key, value in means.items()},
            }
        return found


def gini(times: IntArray) -> float:
    """Return the Gini index of how often items are shown: 0 if all equally, near 1 if one alone."""
    ordered, n = np.sort(times).astype(np.float64), len(times)
    return float(((2 * np.arange(1, n + 1) - n - 1) @ ordered) / (n * ordered.sum()))


def beyond_accuracy_rows(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return headers and cells of a table of the languages of items, for ``beyond_accuracy`` of ``result.json``.

    The languages with most items have a line each, all others one together, with what can be added up.
    """
    items = sorted(found["items"].items(), key=lambda entry: (-entry[1]["n"], entry[0]))
    columns = list(dict.fromkeys(key for _, values in items for key in values if key != "n"))
    rows = [
        [name, f"{values['n']:,}", *(f"{values[key]:.4f}" if key in values else "" for key in columns)]
        for name, values in items[:_MOST_LINES]
    ]
    if others := [values for _, values in items[_MOST_LINES:]]:
        shares = [key if key in ("catalog", "history") or key.startswith("exposure") else "" for key in columns]
        sums = (f"{sum(values[key] for values in others):.4f}" if key else "" for key in shares)
        rows.append([f"{len(others)} others", f"{sum(values['n'] for values in others):,}", *sums])
    return ["items in", "n", *columns], rows


def beyond_accuracy_table(found: Mapping[str, Any]) -> str:
    """Return the languages of items, and what readers of each are shown, as text."""
    headers, rows = beyond_accuracy_rows(found)
    tables = [tabulate(rows, headers, disable_numparse=True, colalign=["left"] + ["right"] * (len(headers) - 1))]
    readers = sorted(found["readers"].items(), key=lambda entry: (-entry[1]["n"], entry[0]))
    lines = [(language, values["n"], key, values[key]) for language, values in readers for key in values if key != "n"]
    lines = [line for line in lines if line[0] in dict(readers[:_MOST_LINES])]
    most = {name: max((shares[name] for *_, shares in lines), default=0.0) for name in found["items"]}
    there = sorted((name for name, share in most.items() if share), key=lambda name: (-most[name], name))
    names = sorted(there[:_MOST_COLUMNS])
    headers = ["share of items in", "n", *names] + ["others"] * (len(there) > len(names))
    rows = []
    for language, n, key, shares in lines:
        cells = [shares[name] for name in names]
        cells += [sum(shares[name] for name in there[_MOST_COLUMNS:])] * (len(there) > len(names))
        rows.append([f"readers of {language}, {key}", f"{n:,}", *(f"{share:.4f}" for share in cells)])
    if len(readers) > _MOST_LINES:
        rows.append([f"{len(readers) - _MOST_LINES} more in result.json"])
    tables.append(tabulate(rows, headers, disable_numparse=True, colalign=["left"] + ["right"] * (len(headers) - 1)))
    return "\n\n".join(tables)
