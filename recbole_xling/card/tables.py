"""The card as text and as tables, which the page shows as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tabulate import tabulate

from recbole_xling.card.schema import Card, Quantiles, SplitStats
from recbole_xling.convert.reading.numbers import number_text
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.pages.page import Table

_MANY_LANGUAGES, _FEW_ITEMS = 10, 10  # of more languages, those with fewer items, texts and users share one row
_COUNTED_OFTEN = " In the row of others, an item counts once for each language in which it has a text or is seen."
_QUANTILES = ("mean", "min", "5%", "25%", "median", "75%", "95%", "max")
_FEW = ("users", "interactions")  # of the target languages of LT, in training
_SPLITS = {
    "LS": ("leave-one-out", "A user's last interaction is the test target, the one before it the validation target."),
    "RS": ("shares of interactions", "The first share of the interactions is for training, the last one for the test."),
    "TS": ("time boundary", "Test targets come after a point in time that is the same for all users."),
    "GT": ("global time", "Training, validation and test are periods that are the same for all users."),
    "CI": ("cold items", "Targets are with items that neither training nor any history has."),
    "LT": ("language transfer", ""),
}


def card_table(card: Card) -> str:
    """Return the card as text for a terminal."""
    warnings = [f"! {warning.message}" for warning in card.warnings] or ["No warnings."]
    blocks = [f"Data card of {card.dataset}", "\n".join(warnings)]
    for table in card_tables(card):
        align = ["left"] * table.words + ["right"] * (len(table.headers) - table.words)
        text = tabulate(table.rows, headers=table.headers, disable_numparse=True, colalign=align)
        blocks.append("\n".join([table.title, "", text, *([table.note] if table.note else [])]))
    return "\n\n".join(blocks)


def headline(card: Card) -> Sequence[tuple[str, str]]:
    """Return the few numbers to see first."""
    languages = [row.language for row in card.languages if row.language != UNDETERMINED]
    both = card.mixing.cross_language + card.mixing.same_language
    untested = card.splits.untested_users
    return [
        ("users", _n(card.size.users)),
        *([("users without a test target", _of(untested, card.size.users))] if untested else []),
        ("items", _n(card.size.items)),
        ("interactions", _n(card.size.interactions)),
        ("density", f"{card.size.density:.3%}"),
        ("languages", _n(len(languages))),
        ("bilingual users", f"{card.mixing.bilingual_users / card.mixing.users:.1%}" if card.mixing.users else "–"),
        ("targets in another language", f"{card.mixing.cross_language / both:.1%}" if both else "–"),
    ]


def card_tables(card: Card) -> Iterator[Table]:
    """Yield the tables of a card in the order of reading."""
    yield from _size_tables(card)
    yield from _language_tables(card)
    yield from _text_tables(card)
    yield from _split_tables(card)
    checks, targets = card.checks, card.splits.test.interactions
    rows = (
        ("rows of the .inter file", _n(checks.rows_read)),
        *((f"... left out: {reason}", _of(count, checks.rows_read)) for reason, count in checks.rows_dropped.items()),
        ("interactions with an item that the user has met before", _of(checks.repeats, card.size.interactions)),
        ("... right after it", _of(checks.repeats_in_a_row, card.size.interactions)),
        ("rows that equal another one", _of(checks.duplicate_rows, card.size.interactions)),
        ("interactions with unknown items", _n(checks.unknown_item_interactions)),
        ("interactions without time", _of(checks.missing_times, checks.rows_read)),
        ("users that the .user file lacks", _of(checks.unknown_users, card.size.users)),
        ("users without order", _of(checks.unordered_users, card.size.users)),
        ("test targets that are in the history", _of(checks.repeated_targets, targets)),
        ("test targets at the time of another interaction", _of(checks.tied_targets, targets)),
        ("items of the itemtext file that are unknown", _n(card.texts.unknown_items)),
    )
    yield Table("checks", "Checks", ("", "number"), rows)
    top = tuple((item.item_id, item.text, item.language, _n(item.interactions)) for item in card.top_items)
    yield Table("top", "Most popular items", ("item", "text", "language", "interactions"), top, words=3)


def _size_tables(card: Card) -> Iterator[Table]:
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
        ends = (("first", card.time.first, card.time.first_date), ("last", card.time.last, card.time.last_date))
        for name, time, date in ends:
            rows.append((f"{name} interaction", f"{date[:16].replace('T', ' ')} UTC" if date else number_text(time)))
    note = (
        "Bilingual: at least two and at least a fifth of the user's interactions, the test target aside, are in a "
        "second language."
    )
    yield Table("size", "Size", ("", "value"), tuple(rows), note)
    counts = (_quantiles("per user", size.per_user), _quantiles("per item", size.per_item))
    yield Table("counts", "Interactions per user and item", ("interactions", *_QUANTILES), counts)


def _language_tables(card: Card) -> Iterator[Table]:
    n_items, mixing = sum(language.items for language in card.languages), card.mixing
    n_users, n = card.size.users, card.size.interactions
    by_language = {row.language: (row.items, row.users, row.interactions) for row in card.languages}
    rows = tuple(
        (
            name,
            *(
                _of(count, whole)
                for count, whole in zip(_sums(by_language, members), (n_items, n_users, n), strict=True)
            ),
        )
        for name, members in _rows_of(card, by_language)
    )
    found = card.user_languages
    note = (
        f"Items by their display text, interactions by the text that the user sees (text_view {found.text_view}). "
        f"Users by their language: {_n(found.stated)} state it in the .user file, for {_n(found.derived)} it is the "
        f"most frequent one of their items, the test target aside, and of {_n(found.unknown)} it is unknown."
    )
    yield Table("languages", "Languages", ("language", "items", "users", "interactions"), rows, note)

    columns = {name: column for name, *column in zip(mixing.languages, *mixing.targets, strict=True) if any(column)}
    summed = {name: _sums(columns, members) for name, members in _rows_of(card, columns)}
    lines = {name: line for name, *line in zip(mixing.languages, *summed.values(), strict=True) if any(line)}
    targets = tuple((name, *map(_n, _sums(lines, members))) for name, members in _rows_of(card, lines))
    headers = ("language of the user", *summed)
    crossing = _of(mixing.cross_language, mixing.cross_language + mixing.same_language)
    title = "Language mixing: test targets by language of the user"
    note = (
        "Columns: language in which the user sees the target. In another language than the user's: "
        f"{crossing} of the test targets."
    )
    yield Table("mixing", title, headers, targets, note)


def _text_tables(card: Card) -> Iterator[Table]:
    texts = card.texts
    if texts.languages:
        headers = ("language", "display", "parallel", "translation", "any")
        counts = {row.language: (row.display, row.parallel, row.translation, row.items) for row in texts.languages}
        sums = [(name, _sums(counts, members)) for name, members in _rows_of(card, counts)]
        rows = tuple(
            (name, *map(_n, parts), _of(any_source, texts.items if name in counts else 0))
            for name, (*parts, any_source) in sums
        )
        note = f"Items without a display text: {_of(texts.without_text, texts.items)}."
        note += _COUNTED_OFTEN if any(name not in counts for name, _ in sums) else ""
        if identified := sum(texts.confidence.values()):
            bands = ", ".join(f"{band}: {_n(count)}" for band, count in texts.confidence.items() if count)
            note += f" Languages of display texts that were identified, by confidence: {_n(identified)} ({bands})."
        yield Table("texts", "Items with a text, by language and source", headers, rows, note)
        alone = {name for name, members in _rows_of(card, counts) if members == [name]}
        lengths = tuple(
            _quantiles(row.language, row.characters) for row in texts.languages if row.display and row.language in alone
        )
        title = "Length of display texts in characters, all fields"
        yield Table("lengths", title, ("language", *_QUANTILES), lengths)
        shown = sum(row.display for row in texts.languages)
        fields = tuple((name, _of(count, shown)) for name, count in texts.fields.items())
        yield Table("fields", "Fields of display texts", ("field", "filled"), fields)
    if texts.most_shared:
        shared = tuple((row.text, row.language, _n(row.items)) for row in texts.most_shared)
        note = f"{_n(texts.sharing)} items share {_n(texts.shared)} texts."
        yield Table("shared", "Texts that several items have", ("text", "language", "items"), shared, note, words=2)


def _split_tables(card: Card) -> Iterator[Table]:
    splits = card.splits
    name, meaning = _SPLITS[next(iter(splits.setting))]
    if transfer := splits.setting.get("LT"):
        few = next((f", with {transfer[key]} {key} of the target ones" for key in _FEW if transfer.get(key)), "")
        tested = "source and target languages alike" if transfer.get("test") == "both" else "the target ones"
        meaning = f"Training and validation are of the source languages{few}; the test is of {tested}."
    note = (
        f"split: {dict(splits.setting)}. {meaning} Cold: without a training interaction; so are "
        f"{_of(splits.untrained_items, card.texts.items)} items of the catalog. "
        f"Users without a test target: {_n(splits.untested_users)}."
    )
    headers: tuple[str, ...] = ("part", "users", "items", "interactions or targets", "cold targets", "cold items")
    rows = [("train", *_counts(splits.train), "", "")]
    for part, stats in (("valid", splits.valid), ("test", splits.test)):
        cold = _of(stats.cold_interactions, stats.interactions)
        rows.append((part, *_counts(stats), cold, _n(stats.cold_items)))
    yield Table("splits", f"Split: {name}", headers, tuple(rows), note)

    headers = ("language", *(f"train\n{name}" for name in ("users", "items", "interactions")))
    headers += tuple(f"{part}\n{name}" for part in ("valid", "test") for name in ("users", "items", "targets", "cold"))
    counts = {}
    for language in (row.language for row in card.languages):
        train, *evaluated = (part.of(language) for part in (splits.train, splits.valid, splits.test))
        cells = [train.users, train.items, train.interactions]
        for found in evaluated:
            cells += [found.users, found.items, found.interactions, found.cold_interactions]
        counts[language] = cells
    by_language = tuple((name, *map(_n, _sums(counts, members))) for name, members in _rows_of(card, counts))
    note = "Users by their language; items, interactions and targets by the language in which users see them."
    note += _COUNTED_OFTEN if any(row[0] not in counts for row in by_language) else ""
    yield Table("parts", "Split by language", headers, by_language, note)
    targets = tuple((band, _of(count, splits.test.interactions)) for band, count in splits.popularity.items())
    yield Table("popularity", "Test targets by popularity of the item", ("item", "test targets"), targets)


# ---- languages in few rows ------------------------------------------------------------------------------------


def _rows_of(card: Card, languages: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return the rows of a table by language, each with the languages that it sums: of many, small ones share one."""
    languages, most = list(languages), {row.language: max(row.items, row.users) for row in card.languages}
    for row in card.texts.languages:
        most[row.language] = max(most.get(row.language, 0), row.items)
    small = [language for language in languages if most.get(language, 0) < _FEW_ITEMS]
    if len(card.languages) <= _MANY_LANGUAGES or len(small) < 2:
        small = []
    rows = [(language, [language]) for language in languages if language not in small]
    return [*rows, *([(f"{len(small)} others", small)] if small else [])]


def _sums(numbers: Mapping[str, Sequence[int]], languages: Iterable[str]) -> tuple[int, ...]:
    return tuple(map(sum, zip(*(numbers[language] for language in languages), strict=True)))


# ---- cells ----------------------------------------------------------------------------------------------------


def _counts(stats: SplitStats) -> tuple[str, str, str]:
    return _n(stats.users), _n(stats.items), _n(stats.interactions)


def _quantiles(name: str, values: Quantiles) -> tuple[str, ...]:
    points = (values.minimum, values.p5, values.p25, values.median, values.p75, values.p95, values.maximum)
    return (name, f"{values.mean:,.1f}", *(f"{point:,.0f}" for point in points))


def _n(count: int) -> str:
    return f"{count:,}"


def _of(count: int, whole: int) -> str:
    return f"{count:,} ({count / whole:.1%})" if whole else f"{count:,}"
