"""What in a dataset would spoil an experiment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from recbole_xling.card.schema import Card, CardWarning
from recbole_xling.data.mixin import UNKNOWN
from recbole_xling.encode.usem3 import USEM3Encoder
from recbole_xling.language.identification import MIN_CONFIDENCE
from recbole_xling.language.tags import UNDETERMINED

_MOST_LISTED = 10  # languages in a sentence

MIN_TEST_TARGETS = 100
"""Fewest test targets for a language's results to mean something: 5 points of standard error at a hit rate of 50%."""

NOTABLE = 0.01
"""Share from which something counts as more than a few odd cases."""

MANY = 0.1
"""Share of cold test targets above which they decide how models compare."""


@dataclass(frozen=True, slots=True)
class _Share:
    """A count that matters once it is a notable part of a whole.

    Attributes:
        name: of the warning.
        of: returns the count and the whole of a card.
        message: with ``{share}`` and ``{percent}``.
    """

    name: str
    of: Callable[[Card], tuple[int, int]]
    message: str


_SHARES = (
    # ---- what a model could know of its targets ----
    _Share(
        "repeated_targets",
        lambda card: (card.checks.repeated_targets, card.splits.test.interactions),
        "{share} test targets ({percent}) are items that the user has met before, so that a model can copy them from "
        "the history; remove repeats (rm_dup_inter: first) unless repeating is what you want to predict.",
    ),
    _Share(
        "tied_targets",
        lambda card: (card.checks.tied_targets, card.splits.test.interactions),
        "{share} test targets ({percent}) happened at the same time as other interactions of the user, so that the "
        "order of the file decides which comes first; give finer times, or make sure that the file is in order.",
    ),
    # ---- order ----
    _Share(
        "no_times",
        lambda card: (card.size.interactions if card.time is None else 0, card.size.interactions),
        "There is no time column, so the order of the file takes its place and sequential models refuse the data; add "
        "times, or 1, 2, 3, ... per user if the file is in order.",
    ),
    _Share(
        "relative_times",
        lambda card: (
            card.size.interactions
            if card.splits.setting.keys() & {"GT", "TS"} and card.time is not None and card.time.first_date is None
            else 0,
            card.size.interactions,
        ),
        "Times do not look like dates. If they count each user's interactions they do not order those of different "
        "users, and a split by time means nothing; split by LS, CI or LT.",
    ),
    _Share(
        "arbitrary_order",
        lambda card: (card.size.interactions if card.checks.arbitrary_order else 0, card.size.interactions),
        "The order of each user's interactions is arbitrary: the source tells no times, and the time stamps are a "
        "hash. What is held out as the last one is left to chance, and neither order nor time can be learned from; "
        "split by LS, CI or LT.",
    ),
    _Share(
        "unordered_users",
        lambda card: (0 if card.time is None else card.checks.unordered_users, card.size.users),
        "{share} users ({percent}) have all their interactions at the same time, so that the order of the file decides "
        "what is tested; leave them out, or make sure that the file is in order.",
    ),
    _Share(
        "missing_times",
        lambda card: (0 if card.time is None else card.checks.missing_times, card.checks.rows_read),
        "{share} interactions ({percent}) have no time stamp and are left out; find out why.",
    ),
    # ---- texts ----
    _Share(
        "no_texts",
        lambda card: (0 if card.texts.languages else card.texts.items, card.texts.items),
        "No item has a text, so models of text have nothing to read and there are no results per language; add an "
        "itemtext file, or name text columns of the .item file in text_fields.",
    ),
    _Share(
        "without_text",
        lambda card: (card.texts.without_text if card.texts.languages else 0, card.texts.items),
        "{share} items ({percent}) have no display text and get a zero vector; add texts, or leave these items out.",
    ),
    _Share(
        "shared_texts",
        lambda card: (card.texts.sharing, card.texts.items),
        "{share} items ({percent}) have the same display text as another item, so that models of text alone cannot "
        "tell them apart; add fields that differ (year, brand, abstract), or merge duplicates of an item.",
    ),
    _Share(
        "unknown_language",
        lambda card: (card.texts.unknown_language, card.texts.items),
        "{share} items ({percent}) have a text whose language is unknown (und) and no part in results per language; "
        "state or identify their language.",
    ),
    _Share(
        "unsure_language",
        lambda card: (card.texts.unsure_language, card.texts.items),
        "{share} items ({percent}) have a language that was identified with a confidence under "
        f"{MIN_CONFIDENCE:g} or taken from most other items, so results per language are partly guesses; state their "
        "language, or convert with --unsure und.",
    ),
    # ---- rows ----
    _Share(
        "duplicate_rows",
        lambda card: (card.checks.duplicate_rows, card.size.interactions),
        "{share} interactions ({percent}) are exact copies of another row, which trains on them more than once; remove "
        "the copies.",
    ),
    _Share(
        "unknown_items",
        lambda card: (
            card.checks.unknown_item_interactions,
            card.size.interactions + card.checks.rows_dropped.get(UNKNOWN.format("items"), 0),
        ),
        "{share} interactions ({percent}) are with items that the .item file lacks; a run drops them where "
        "it loads that file (load_col); add the items.",
    ),
    _Share(
        "unknown_users",
        lambda card: (
            card.checks.unknown_users,
            card.size.users + (card.checks.unknown_users if UNKNOWN.format("users") in card.checks.rows_dropped else 0),
        ),
        "{share} users ({percent}) are not in the .user file; a run drops their interactions where it loads that file "
        "(load_col); add the users.",
    ),
)


def find_warnings(card: Card) -> Iterator[CardWarning]:
    """Yield what is wrong, the worst first."""
    yield from _few_targets(card)
    for share in _SHARES:
        count, whole = share.of(card)
        if count and count >= NOTABLE * whole:
            numbers = {"share": f"{count:,} of {whole:,}", "percent": f"{count / whole:.1%}"}
            yield CardWarning(share.name, share.message.format(**numbers))
    yield from _languages(card)


def _few_targets(card: Card) -> Iterator[CardWarning]:
    splits = card.splits
    if not splits.test.interactions:
        message = (
            "The split leaves nothing to test on (leave-one-out needs three interactions of a user); split in another "
            "way."
        )
        yield CardWarning("no_test_targets", message)
    if splits.valid.interactions < MIN_TEST_TARGETS:
        message = (
            f"Only {splits.valid.interactions:,} validation targets, so that the choice of the best epoch is mostly "
            "chance; validate on more, or train for a fixed number of epochs."
        )
        yield CardWarning("few_valid_targets", message)
    cold, targets, users = splits.test.cold_interactions, splits.test.interactions, splits.test.users
    if users < MIN_TEST_TARGETS <= targets:
        message = (
            f"All {targets:,} test targets come from {users:,} users, so that a few of them decide the results; test "
            "on a longer period or a larger share."
        )
        yield CardWarning("few_test_users", message)
    if "CI" not in splits.setting and cold > MANY * targets:
        message = (
            f"{cold:,} of {targets:,} test targets ({cold / targets:.1%}) are items without a training interaction, "
            "which models of ids alone cannot find; compare such models with others on the rest (popularity in the "
            "results)."
        )
        yield CardWarning("cold_targets", message)


def _languages(card: Card) -> Iterator[CardWarning]:
    named = [language for language in card.languages if language.language != UNDETERMINED]
    targets = {row.language: card.splits.test.of(row.language).interactions for row in named}
    transfer = card.splits.setting.get("LT")
    if transfer is not None:  # other languages are not to be tested
        targets = {name: count for name, count in targets.items() if count or name in transfer["target"]}
    few = {name: count for name, count in targets.items() if count < MIN_TEST_TARGETS}
    if few:
        message = (
            f"Under {MIN_TEST_TARGETS} test targets: {_listed(few)}. Results in such a language are mostly chance; "
            "report them with an interval, or leave the language out."
        )
        yield CardWarning("few_test_targets", message)
    both = card.mixing.cross_language + card.mixing.same_language
    if len(named) > 1 and transfer is None and card.mixing.cross_language < MIN_TEST_TARGETS:
        message = (
            f"Only {card.mixing.cross_language:,} of {both:,} test targets are in another language than the user's, "
            "so results of cross_language=yes are mostly chance; ask cross-lingual questions of data whose "
            "users read several languages, or split by language."
        )
        yield CardWarning("little_mixing", message)
    strange = {row.language: row.items for row in named if row.language.partition("-")[0] not in USEM3Encoder.languages}
    if strange:
        message = (
            f"Languages that the default encoder usem3 does not know, with their items: {_listed(strange)}. Choose an "
            "encoder that knows them (encoder: a multilingual sentence-transformers model)."
        )
        yield CardWarning("unknown_to_encoder", message)


def _listed(counts: Mapping[str, int]) -> str:
    """Return names with their counts, the largest first; a multilingual catalog can have dozens."""
    largest = sorted(counts.items(), key=lambda entry: -entry[1])
    shown = ", ".join(f"{name} {count:,}" for name, count in largest[:_MOST_LISTED])
    return shown + (f" and {len(counts) - _MOST_LISTED} more" if len(counts) > _MOST_LISTED else "")
