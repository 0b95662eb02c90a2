"""The card as text and as tables, which the page shows as well."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from recbole_xling.card.schema import Card, Quantiles, SplitStats
from recbole_xling.language.tags import UNDETERMINED

_QUANTILES = ("mean", "min", "5%", "25%", "median", "75%", "95%", "max")
_SPLITS = {
    "LS": ("leave-one-out", "A user's last interaction is the test target, the one before it the validation target."),
    "RS": ("shares of interactions", "The first share of the interactions is for training, the last one for the test."),
    "TS": ("time boundary", "Test targets lie after a point in time that is the same for all users."),
    "GT": ("global time", "Training, validation and test are periods that are the same for all users."),
    "CI": ("cold items", "Targets are with items that neither training nor any history has."),
    "LT": ("language transfer", "Training and validation are of the source languages, the test of the target ones."),
}


@dataclass(frozen=True, slots=True)
class CardTable:
    """A table of ready texts; the first column names the row, the first ``words`` columns are not numbers."""

    name: str
    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    words: int = 1


def card_table(card: Card) -> str:
    """Return the card as text for a terminal."""
    warnings = [f"! {warning.message}" for warning in card.warnings] or ["No warnings."]
    blocks = [f"Data card of {card.dataset}", "\n".join(warnings)]
    for table in card_tables(card):
        align = ["left"] * table.words + ["right"] * (len(table.headers) - table.words)
        text = tabulate(table.rows, headers=table.headers, disable_numparse=True, colalign=align)
        blocks.append("\n".join([table.title, "", text, *([table.note] if table.note else [])]))
    return "\n\n".join(blocks)


def card_tables(card: Card) -> Iterator[CardTable]:
    """Yield the tables of a card in the order of reading."""
    yield _size(card)
    yield _counts(card)
    yield _languages(card)
    yield _mixing(card)
    if card.texts.languages:
        yield _texts(card)
        yield _lengths(card)
        yield _fields(card)
    if card.texts.most_shared:
        yield _shared(card)
    yield _splits(card)
    yield _split_languages(card)
    yield _popularity(card)
    yield _checks(card)
    yield _top_items(card)


def _size(card: Card) -> CardTable:
    size = card.size
    rows = [
        ("users", _n(size.users)),
        ("items", _n(size.items)),
        ("interactions", _n(size.interactions)),
        ("density", f"{size.density:.4%}"),
        ("interactions of the top fifth of the items", f"{size.top_fifth:.1%}"),
        ("items without interactions", _n(size.idle_items)),
        ("users without interactions", _n(size.idle_users)),
        ("bilingual users", _of(card.mixing.bilingual_users, card.mixing.users)),
    ]
    if card.time is not None:
        rows.append(("first interaction", _date(card.time.first_date) or f"{card.time.first:g}"))
        rows.append(("last interaction", _date(card.time.last_date) or f"{card.time.last:g}"))
    note = (
        "Bilingual: at least two and at least a fifth of the user's interactions, the test target aside, are in a "
        "second language."
    )
    return CardTable("size", "Size", ("", "value"), tuple(rows), note)


def _counts(card: Card) -> CardTable:
    rows = (_quantiles("per user", card.size.per_user), _quantiles("per item", card.size.per_item))
    return CardTable("counts", "Interactions per user and item", ("interactions", *_QUANTILES), rows)


def _languages(card: Card) -> CardTable:
    n_items, n = sum(language.items for language in card.languages), card.size.interactions
    rows = tuple(
        (
            row.language,
            _of(row.items, n_items),
            _of(row.users, card.size.users),
            _of(row.interactions, n),
        )
        for row in card.languages
    )
    headers = ("language", "items", "users", "interactions")
    note = "Users by main language: the most frequent one of their items, the test target aside."
    return CardTable("languages", "Languages", headers, rows, note)


def _mixing(card: Card) -> CardTable:
    mixing = card.mixing
    columns = [place for place in range(len(mixing.languages)) if any(row[place] for row in mixing.targets)]
    rows = tuple(
        (name, *(_n(row[place]) for place in columns))
        for name, row in zip(mixing.languages, mixing.targets, strict=True)
        if any(row)
    )
    both = mixing.cross_language + mixing.same_language
    note = (
        "Columns: language of the target. In another language than the user's main one: "
        f"{_of(mixing.cross_language, both)} of the test targets."
    )
    headers = ("main language", *(mixing.languages[place] for place in columns))
    title = "Language mixing: test targets by main language of the user"
    return CardTable("mixing", title, headers, rows, note)


def _texts(card: Card) -> CardTable:
    texts = card.texts
    rows = tuple(
        (
            row.language,
            _n(row.display),
            _n(row.parallel),
            _n(row.translation),
            _of(row.items, texts.items),
        )
        for row in texts.languages
    )
    headers = ("language", "display", "parallel", "translation", "any")
    note = f"Items without a display text: {_of(texts.without_text, texts.items)}."
    return CardTable("texts", "Items with a text, by language and source", headers, rows, note)


def _lengths(card: Card) -> CardTable:
    rows = tuple(_quantiles(row.language, row.characters) for row in card.texts.languages if row.display)
    return CardTable("lengths", "Length of display texts in characters, all fields", ("language", *_QUANTILES), rows)


def _fields(card: Card) -> CardTable:
    shown = sum(row.display for row in card.texts.languages)
    rows = tuple((name, _of(count, shown)) for name, count in card.texts.fields.items())
    return CardTable("fields", "Fields of display texts", ("field", "filled"), rows)


def _shared(card: Card) -> CardTable:
    texts = card.texts
    rows = tuple((row.text, row.language, _n(row.items)) for row in texts.most_shared)
    note = f"{_n(texts.sharing)} items share {_n(texts.shared)} texts."
    return CardTable("shared", "Texts that several items have", ("text", "language", "items"), rows, note, words=2)


def _splits(card: Card) -> CardTable:
    splits = card.splits
    name, meaning = _SPLITS[next(iter(splits.setting))]
    note = (
        f"split: {dict(splits.setting)}. {meaning} Cold: without a training interaction; so are "
        f"{_of(splits.untrained_items, card.texts.items)} items of the catalog. "
        f"Users without a test target: {_n(splits.untested_users)}."
    )
    headers = ("part", "users", "items", "interactions or targets", "cold targets", "cold items")
    rows = [("train", *_held(splits.train), "", "")]
    for part, held in (("valid", splits.valid), ("test", splits.test)):
        rows.append((part, *_held(held), _of(held.cold_interactions, held.interactions), _n(held.cold_items)))
    return CardTable("splits", f"Split: {name}", headers, tuple(rows), note)


def _split_languages(card: Card) -> CardTable:
    splits = card.splits
    headers = ("language", *(f"train\n{name}" for name in ("users", "items", "interactions")))
    headers += tuple(f"{part}\n{name}" for part in ("valid", "test") for name in ("users", "items", "targets", "cold"))
    rows = []
    for language in (row.language for row in card.languages):
        train, valid, test = (part.of(language) for part in (splits.train, splits.valid, splits.test))
        targets = [(*_held(held), _n(held.cold_interactions)) for held in (valid, test)]
        rows.append((language, *_held(train), *targets[0], *targets[1]))
    note = "Users by main language; items, interactions and targets by the item's language."
    return CardTable("parts", "Split by language", headers, tuple(rows), note)


def _held(held: SplitStats) -> tuple[str, str, str]:
    return _n(held.users), _n(held.items), _n(held.interactions)


def _popularity(card: Card) -> CardTable:
    n = card.splits.test.interactions
    rows = tuple((band, _of(count, n)) for band, count in card.splits.popularity.items())
    return CardTable("popularity", "Test targets by popularity of the item", ("item", "test targets"), rows)


def _checks(card: Card) -> CardTable:
    checks = card.checks
    n, users, targets = card.size.interactions, card.size.users, card.splits.test.interactions
    rows = (
        ("interactions with an item that the user has met before", _of(checks.repeats, n)),
        ("... right after it", _of(checks.repeats_in_a_row, n)),
        ("rows that equal another one", _of(checks.duplicate_rows, n)),
        ("interactions with unknown items (dropped)", _n(checks.unknown_item_interactions)),
        ("rows without user or item (dropped)", _n(checks.missing_ids)),
        ("interactions without time", _of(checks.missing_times, n)),
        ("users that the .user file lacks", _of(checks.unknown_users, users)),
        ("users without order", _of(checks.unordered_users, users)),
        ("test targets that are in the history", _of(checks.repeated_targets, targets)),
        ("test targets at the time of another interaction", _of(checks.tied_targets, targets)),
        ("test targets before an interaction of their history", _of(checks.early_targets, targets)),
        ("items of the itemtext file that are unknown", _n(card.texts.unknown_items)),
    )
    return CardTable("checks", "Checks", ("", "number"), rows)


def _top_items(card: Card) -> CardTable:
    rows = tuple((item.item_id, item.text, item.language, _n(item.interactions)) for item in card.top_items)
    return CardTable("top", "Most popular items", ("item", "text", "language", "interactions"), rows, words=3)


def _quantiles(name: str, values: Quantiles) -> tuple[str, ...]:
    points = (values.minimum, values.p5, values.p25, values.median, values.p75, values.p95, values.maximum)
    return (name, f"{values.mean:,.1f}", *(f"{point:,.0f}" for point in points))


def _date(date: str | None) -> str | None:
    return date and f"{date[:16].replace('T', ' ')} UTC"


def _n(count: int) -> str:
    return f"{count:,}"


def _of(count: int, whole: int) -> str:
    return f"{count:,} ({count / whole:.1%})" if whole else f"{count:,}"


def headline(card: Card) -> Sequence[tuple[str, str]]:
    """Return the few numbers to see first."""
    languages = [row.language for row in card.languages if row.language != UNDETERMINED]
    both = card.mixing.cross_language + card.mixing.same_language
    return [
        ("users", _n(card.size.users)),
        ("items", _n(card.size.items)),
        ("interactions", _n(card.size.interactions)),
        ("density", f"{card.size.density:.3%}"),
        ("languages", _n(len(languages))),
        ("bilingual users", f"{card.mixing.bilingual_users / card.mixing.users:.1%}" if card.mixing.users else "–"),
        ("targets in another language", f"{card.mixing.cross_language / both:.1%}" if both else "–"),
    ]
