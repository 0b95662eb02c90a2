"""What a data card says, as plain typed data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class SplitStats:
    """The size of a part of a split, or of one language of it.

    Attributes:
        users: in a language: those whose language it is.
        items: different ones.
        interactions: in validation and test: targets.
        cold_interactions: those with items without a training interaction.
        cold_items: such items.
    """

    users: int
    items: int
    interactions: int
    cold_interactions: int
    cold_items: int


@dataclass(frozen=True, slots=True)
class PartStats(SplitStats):
    """The size of one part of a split, in all and by language; items and interactions go by that in which users see."""

    languages: Mapping[str, SplitStats]

    def of(self, language: str) -> SplitStats:
        """Return the size of a language in the part, zeros if the part has nothing of it."""
        return self.languages.get(language, SplitStats(0, 0, 0, 0, 0))


@dataclass(frozen=True, slots=True)
class Splits:
    """The split as sequential models meet it.

    Attributes:
        setting: ``eval_args.split``.
        train, valid, test: its parts.
        untested_users: users without a test target.
        untrained_items: items of the catalog without a training interaction.
        popularity: test targets by popularity band.
    """

    setting: Mapping[str, Any]
    train: PartStats
    valid: PartStats
    test: PartStats
    untested_users: int
    untrained_items: int
    popularity: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Quantiles:
    """How values are distributed; all zero without values."""

    count: int
    mean: float
    minimum: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float
    maximum: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> Quantiles:
        """Compute them; values between two neighbors are interpolated."""
        if not len(values):
            return cls(0, *[0.0] * 8)
        points = np.quantile(values, [0, 0.05, 0.25, 0.5, 0.75, 0.95, 1])
        return cls(len(values), float(np.mean(values)), *points.tolist())


@dataclass(frozen=True, slots=True)
class Size:
    """How large the dataset is.

    Attributes:
        users, items: those that interact.
        interactions: rows of the ``.inter`` file that a run keeps.
        density: share of all user-item pairs that occur.
        idle_users, idle_items: those of the ``.user`` and ``.item`` files that never interact.
        top_fifth: share of the interactions that the most popular fifth of the items has.
        per_user, per_item: interactions of those that interact.
    """

    users: int
    items: int
    interactions: int
    density: float
    idle_users: int
    idle_items: int
    top_fifth: float
    per_user: Quantiles
    per_item: Quantiles


@dataclass(frozen=True, slots=True)
class TopItem:
    """One of the most popular items."""

    item_id: str
    language: str
    interactions: int
    text: str


@dataclass(frozen=True, slots=True)
class UserLanguages:
    """Where the languages of users come from.

    Attributes:
        text_view: the setting, with what ``auto`` stands for.
        stated: users who state theirs in the ``.user`` file.
        derived: users whose language is the main one of their history.
        unknown: users without either.
    """

    text_view: str
    stated: int
    derived: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Language:
    """One language; ``und`` where it is unknown.

    Attributes:
        language: BCP 47 tag.
        items: items of the catalog whose display text is in it, those that never interact included.
        users: whose language it is.
        interactions: with items that their users see in it.
    """

    language: str
    items: int
    users: int
    interactions: int


@dataclass(frozen=True, slots=True)
class Mixing:
    """How readers of one language meet items of another.

    Attributes:
        languages: names of rows and columns.
        targets: test targets by their user's language (row) and the one in which he sees them (column).
        cross_language: test targets in another language than the user's, both known.
        same_language: test targets in the same one.
        bilingual_users: users of whose interactions, the test target aside, at least two and at least a fifth are in
            a second language; items of unknown language do not count.
        users: users whose language is known.
    """

    languages: tuple[str, ...]
    targets: tuple[tuple[int, ...], ...]
    cross_language: int
    same_language: int
    bilingual_users: int
    users: int


@dataclass(frozen=True, slots=True)
class TextLanguage:
    """Texts in one language; texts without a visible character do not count.

    Attributes:
        language: BCP 47 tag.
        display, parallel, translation: items with a text of that source in it.
        items: items with a text of any source in it.
        characters: length of the display texts in it, all fields together.
    """

    language: str
    display: int
    parallel: int
    translation: int
    items: int
    characters: Quantiles


@dataclass(frozen=True, slots=True)
class SharedText:
    """A display text that several items have."""

    text: str
    language: str
    items: int


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a catalog.

    Attributes:
        languages: texts by language.
        items: items of the catalog.
        without_text: items without a display text or with an empty one.
        interactions_without_text, test_without_text: interactions and test targets of such items.
        unknown_language: items with a display text whose language is unknown.
        confidence: items with a display text whose language was identified rather than stated, by the confidence in
            it; ``unsure_language`` counts those with less than a conversion asks for by default.
        fields: display texts by the fields they fill.
        sharing: items whose display text is another item's as well; ``shared`` counts those texts.
        most_shared: the texts that most items share.
        unknown_items: items of the itemtext file that the dataset does not know.
    """

    languages: tuple[TextLanguage, ...]
    items: int
    without_text: int
    interactions_without_text: int
    test_without_text: int
    unknown_language: int
    confidence: Mapping[str, int]
    unsure_language: int
    fields: Mapping[str, int]
    sharing: int
    shared: int
    most_shared: tuple[SharedText, ...]
    unknown_items: int


@dataclass(frozen=True, slots=True)
class Time:
    """When interactions happened.

    Attributes:
        first, last: smallest and largest time stamp.
        first_date, last_date: the same in UTC where they look like Unix seconds, or whole fractions of them, else None.
    """

    first: float
    last: float
    first_date: str | None
    last_date: str | None


@dataclass(frozen=True, slots=True)
class Checks:
    """What is odd about the interactions.

    Attributes:
        rows_read: rows of the ``.inter`` file.
        rows_dropped: those that the dataset does not have, by reason.
        missing_ids: rows without a user or item; dropped.
        unknown_item_interactions: rows with items that the ``.item`` file lacks; dropped if it is loaded.
        unknown_users: users that the ``.user`` file lacks.
        repeats: interactions with an item that the user has met before.
        repeats_in_a_row: those that directly follow the one before.
        duplicate_rows: rows that equal another one in every column.
        missing_times: interactions without a time stamp.
        arbitrary_order: whether the conversion wrote time stamps that order each user's interactions by chance.
        unordered_users: users with several interactions, all at the same time or without any.
        repeated_targets: test targets that are in the user's history already.
        tied_targets: test targets at the same time as another interaction of the user.
    """

    rows_read: int
    rows_dropped: Mapping[str, int]
    missing_ids: int
    unknown_item_interactions: int
    unknown_users: int
    repeats: int
    repeats_in_a_row: int
    duplicate_rows: int
    missing_times: int
    unordered_users: int
    repeated_targets: int
    tied_targets: int
    arbitrary_order: bool = False


@dataclass(frozen=True, slots=True)
class Distributions:
    """What the plots show: pairs of a place and a number.

    Attributes:
        popularity: rank of an item and its interactions, ranks getting wider apart.
        history_lengths: range of interactions, and users in it.
        timeline: start of a period and interactions in it; periods are equally long.
    """

    popularity: tuple[tuple[int, int], ...]
    history_lengths: tuple[tuple[str, int], ...]
    timeline: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class CardWarning:
    """Something that would spoil an experiment: a name for programs, a sentence for readers."""

    name: str
    message: str


@dataclass(frozen=True, slots=True, repr=False)
class Card:
    """A data card; :meth:`to_dict` is the content of ``card.json``."""

    dataset: str
    size: Size
    top_items: tuple[TopItem, ...]
    languages: tuple[Language, ...]
    user_languages: UserLanguages
    mixing: Mixing
    texts: Texts
    splits: Splits
    time: Time | None
    checks: Checks
    distributions: Distributions
    warnings: tuple[CardWarning, ...] = ()

    def __repr__(self) -> str:
        size = self.size
        numbers = f"{size.users:,} users, {size.items:,} items, {size.interactions:,} interactions"
        return f"Card({self.dataset}: {numbers}, {len(self.languages)} languages, {len(self.warnings)} warnings)"

    def to_dict(self) -> dict[str, Any]:
        """Return the card as dicts, lists, texts and finite numbers."""
        return asdict(self)
