"""What each part of a split holds, as a whole and of each language."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict

import numpy as np

from recbole_xling.card.held import Held, Part, Splits
from recbole_xling.card.histories import IntArray
from recbole_xling.card.languages import LanguageCodes
from recbole_xling.evaluate.slices import popularity_bands


def describe_splits(codes: LanguageCodes) -> Splits:
    """Describe the parts of a split."""
    split = codes.split
    bands = np.array(popularity_bands(split.train_counts))
    found = Counter(bands[split.test_items].tolist())
    return Splits(
        setting=split.setting,
        train=_part(codes, split.train),
        valid=_part(codes, split.valid),
        test=_part(codes, split.test),
        untested_users=len(split.histories.user_ids) - len(np.unique(split.test_users)),
        untrained_items=int((split.train_counts == 0).sum()),
        popularity={band: found[band] for band in ("popular", "medium", "rare", "cold")},
    )


def _part(codes: LanguageCodes, positions: IntArray) -> Part:
    histories, is_cold = codes.split.histories, codes.split.train_counts == 0
    of_item = np.bincount(histories.items[positions], minlength=len(is_cold))
    met, of_cold_item = of_item > 0, np.where(is_cold, of_item, 0)
    is_there = np.zeros(len(histories.user_ids), dtype=bool)
    is_there[histories.users[positions]] = True
    columns = (
        codes.count(codes.of_users[is_there]),
        codes.count(codes.of_items[met]),
        codes.count(codes.of_items, of_item),
        codes.count(codes.of_items, of_cold_item),
        codes.count(codes.of_items[met & is_cold]),
    )
    rows = zip(codes.names, *columns, strict=True)
    languages = {name: Held(*counts) for name, *counts in rows if any(counts)}
    return Part(**asdict(Held(*map(sum, columns))), languages=languages)
