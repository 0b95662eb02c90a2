"""The items of a trained model as users see them: one vector for each item and language in which it is shown."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from recbole.data.interaction import Interaction

from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.errors import ConfigError
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.model.base import hooks_of
from recbole_xling.model.factors import factors_of


class ItemViews(NamedTuple):
    """Items in the languages in which they are shown, one line for each; ``und`` is no language.

    Attributes:
        items: internal ids, ``(n,)``.
        languages: ``(n,)``.
        views: the view of the catalog that shows the item in the language, ``(n,)``.
        vectors: of the trained model, ``(n, size)``.
    """

    items: NDArray[np.int64]
    languages: NDArray[np.str_]
    views: NDArray[np.int64]
    vectors: NDArray[np.float32]


def item_views(
    model: Any, catalog: ItemCatalog, most_items: int, seed: int, batch: Interaction | None = None
) -> ItemViews:
    """Return the vectors of items by the language of their text, of several where readers have vectors of their own.

    Args:
        model: trained.
        catalog: of the data that it is built on.
        most_items: how many items are drawn at most.
        seed: of the draw.
        batch: any batch of test rows, by which RecBole's models are asked for the vectors that they score with.

    Raises:
        ConfigError: the model has no vectors of items.
    """
    n_views = len(catalog.text_languages) if catalog.has_reader_vectors else 1
    with torch.no_grad():
        tables = [hooks_of(model).item_table(view) for view in range(n_views)]
        if batch is not None and tables[0] is None and (groups := factors_of(model, batch)):
            tables = [groups[0][1].items]
    known = [table.detach().float().cpu().numpy() for table in tables if table is not None]
    if len(known) < len(tables):
        raise ConfigError(f"{type(model).__name__} has no vectors of items, by which it would know them")
    drawn = np.random.default_rng(seed).permutation(np.arange(1, len(catalog.tokens)))[:most_items]
    chosen: dict[tuple[int, str], int] = {}  # item and language -> the first view that shows the item in it
    for view, languages in enumerate(catalog.text_languages[: len(known)]):
        for item in sorted(drawn.tolist()):
            if languages[item] != UNDETERMINED:
                chosen.setdefault((item, languages[item]), view)
    items, views = np.array([item for item, _ in chosen], dtype=np.int64), np.array([*chosen.values()], dtype=np.int64)
    vectors = np.array([known[view][item] for view, item in zip(views, items, strict=True)], dtype=np.float32)
    return ItemViews(items, np.array([tag for _, tag in chosen], dtype=np.str_), views, vectors)


def before_and_after(
    model: Any, catalog: ItemCatalog, most_items: int, seed: int
) -> tuple[ItemViews, dict[str, NDArray[np.float32]]]:
    """Return items with text in the languages in which models see them, and their vectors before training and after.

    Args:
        model: trained.
        catalog: of the data that it is built on.
        most_items: how many items are drawn at most.
        seed: of the draw.

    Returns:
        The views; and ``text_vectors``, those of the frozen encoder, and ``item_vectors``, those of the trained model.

    Raises:
        ConfigError: ``most_items`` is no number of items, or the model has no vectors of items.
    """
    if most_items < 1:
        raise ConfigError(f"at least one item is needed, not {most_items}")
    views = item_views(model, catalog, most_items, seed)
    texts, row = catalog.model_vectors
    of_texts = texts[row[views.views, views.items]]
    known = of_texts.any(axis=1)
    views = ItemViews(views.items[known], views.languages[known], views.views[known], views.vectors[known])
    return views, {"text_vectors": of_texts[known], "item_vectors": views.vectors}
