"""The figures of a data card, counted by hand and by another way."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from recbole_xling.card import Columns, build_card
from recbole_xling.card.tables import card_tables
from recbole_xling.errors import DataError


def languages_of_targets(card):
    return {name: held.interactions for name, held in card.splits.test.languages.items() if held.interactions}


def test_sizes_and_languages(made):
    card = build_card(made(), "made")
    size = card.size
    assert (size.users, size.items, size.interactions, size.idle_users, size.idle_items) == (5, 6, 14, 1, 1)
    assert size.density == pytest.approx(12 / 30)  # u2 met a three times
    assert size.top_fifth == pytest.approx(8 / 14)
    assert (size.per_user.minimum, size.per_user.median, size.per_user.maximum) == (1, 3, 4)
    rows = {row.language: row for row in card.languages}
    assert list(rows) == ["de", "fr", "en", "und"]
    columns = ("items", "users", "interactions")
    assert [getattr(rows["de"], name) for name in columns] == [2, 3, 7]
    assert [getattr(rows["fr"], name) for name in columns] == [2, 2, 5]
    assert [getattr(rows["en"], name) for name in columns] == [1, 0, 0]
    assert [getattr(rows["und"], name) for name in columns] == [2, 0, 2]
    assert card.mixing.languages == ("de", "fr", "en", "und")
    assert card.mixing.targets == ((1, 1, 0, 1), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))
    assert (card.mixing.cross_language, card.mixing.same_language, card.mixing.users) == (1, 1, 5)
    assert [(item.item_id, item.interactions, item.text) for item in card.top_items[:2]] == [
        ("a", 5, "Hund"),
        ("c", 3, "chat"),
    ]


def test_splits_and_checks(made):
    card = build_card(made(), "made")
    splits, checks = card.splits, card.checks
    assert (splits.train.interactions, splits.valid.interactions, splits.test.interactions) == (8, 2, 3)
    columns = ("users", "items", "interactions", "cold_interactions", "cold_items")
    assert [getattr(splits.test, name) for name in columns] == [3, 3, 3, 2, 2]
    assert [getattr(splits.test.languages["fr"], name) for name in columns] == [0, 1, 1, 1, 1]  # all three read de
    assert [getattr(splits.test.languages["de"], name) for name in columns] == [3, 1, 1, 0, 0]
    assert {name: held.interactions for name, held in splits.train.languages.items()} == {"de": 6, "fr": 1, "und": 1}
    assert (splits.test.cold_interactions, splits.test.cold_items, splits.untrained_items) == (2, 2, 3)  # d, unknown; e
    assert splits.popularity == {"popular": 0, "medium": 0, "rare": 1, "cold": 2}
    assert splits.untested_users == 2
    assert (checks.repeats, checks.repeats_in_a_row, checks.duplicate_rows) == (2, 2, 0)
    assert (checks.unknown_item_interactions, checks.unknown_users, checks.missing_ids) == (1, 0, 0)
    assert checks.unordered_users == 1  # u3
    assert (checks.repeated_targets, checks.tied_targets) == (1, 0)  # u2
    assert (checks.rows_read, checks.rows_dropped) == (14, {})
    assert card.time is not None and (card.time.first, card.time.last, card.time.first_date) == (1, 9, None)


def test_texts_by_language_and_source(made):
    texts = (
        *((item, "de", "Hund", "display") for item in "ab"),
        ("c", "de", " ", "display"),
        ("d", "und", "?", "display"),
    )
    texts = (
        *texts,
        ("a", "en", "dog", "parallel"),
        ("b", "en", "dog", "translation:x"),
        ("no", "en", "dog", "display"),
    )
    found = build_card(made(texts=texts), "made").texts
    rows = {row.language: (row.display, row.parallel, row.translation, row.items) for row in found.languages}
    assert rows == {"de": (2, 0, 0, 2), "und": (1, 0, 0, 1), "en": (0, 1, 1, 2)}
    assert found.languages[0].characters.median == 4
    assert (found.items, found.without_text, found.unknown_language, found.unknown_items) == (
        7,
        4,
        1,
        1,
    )  # c, e, x, unknown
    assert (found.interactions_without_text, found.test_without_text) == (5, 1)
    assert found.fields == {"title": 3}
    assert [(row.text, row.items) for row in found.most_shared] == [("Hund", 2)]
    assert (found.sharing, found.shared) == (2, 1)


def test_texts_are_the_same_in_whatever_order_their_fields_stand(made):
    folder = made(items="a b", users=None, interactions="u a 1|u b 2|v a 1|v b 2")
    lines = [
        {"item_id": "a", "language": "de", "fields": {"title": "A", "year": "1"}, "source": "display"},
        {"item_id": "b", "language": "de", "fields": {"year": "1", "title": "A"}, "source": "display"},
    ]
    (folder / "made.itemtext.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = build_card(folder, "made").texts
    assert (found.sharing, found.shared) == (2, 1)


def test_identified_languages_are_counted_by_confidence(made):
    shown = [("a", "de", "Hund", "display", 0.995), ("b", "de", "Katze", "display", 0.8), ("c", "fr", "x", "display")]
    card = build_card(
        made(texts=[*shown, ("d", "fr", "y", "display", 0.79), ("a", "en", "dog", "parallel", 0.1)]), "made"
    )
    assert card.texts.confidence == {
        "0.99 to 1": 1, "0.95 to 0.99": 0, "0.9 to 0.95": 0, "0.8 to 0.9": 1, "0.5 to 0.8": 1, "under 0.5": 0
    }  # fmt: skip
    assert card.texts.unsure_language == 1
    (table,) = (table for table in card_tables(card) if table.name == "texts")
    assert "identified, by confidence: 3 (0.99 to 1: 1, 0.8 to 0.9: 1, 0.5 to 0.8: 1)." in table.note


def test_text_columns_of_the_item_file(made):
    folder = made(texts=None)
    rows = ["item_id:token\titem_language:token\tname:token_seq", 'a\tde\t"Hund', "b\tfr\t", "c\t\tchat"]
    (folder / "made.item").write_text("\n".join(rows), encoding="utf-8")
    card = build_card(folder, "made", Columns(text_fields=("name",)))
    assert card.texts.without_text == 4  # b, d, x, unknown
    assert {row.language: row.items for row in card.languages} == {"de": 1, "fr": 1, "und": 4}
    assert card.top_items[0].text == '"Hund'
    assert build_card(folder, "made").texts.languages == ()  # there is no column 'title'


def test_interactions_alone_are_enough(made):
    card = build_card(made(items=None, users=None, texts=None), "made")
    assert (card.size.interactions, card.size.idle_items, card.checks.unknown_item_interactions) == (14, 0, 0)
    assert [row.language for row in card.languages] == ["und"]


def test_without_times_the_file_is_the_order(made):
    columns = "user_id:token item_id:token"
    card = build_card(made(interactions="u1 a|u2 d|u1 b|u1 c|u1 d", columns=columns), "made")
    assert card.time is None
    assert card.checks.unordered_users == 1
    assert card.checks.missing_times == 5
    assert languages_of_targets(card) == {"fr": 1}


def test_times_are_compared_exactly(made):
    rows = "u1 a 881250990|u1 b 881250985|u1 c 881250980|u1 d 881250000"
    card = build_card(made(interactions=rows), "made")
    assert languages_of_targets(card) == {"de": 1}  # a
    assert card.time is not None and card.time.last_date == "1997-12-04T15:56:30+00:00"


@pytest.mark.parametrize("zeros", [0, 3, 6, 9])
def test_times_have_dates_in_every_unit(made, zeros):
    rows = "|".join(f"u1 {item} 88125099{place}{'0' * zeros}" for place, item in enumerate("abcd"))
    card = build_card(made(interactions=rows), "made")
    assert card.time is not None and card.time.last_date == "1997-12-04T15:56:33+00:00"


def test_rows_as_a_run_reads_them(made):
    rows = "u1 a 1|u1 NA 2||u1  2|u1 b 2|u1 b 2|u1 c |u1 d 10"
    folder = made(interactions=rows)
    (folder / "made.inter").write_bytes((folder / "made.inter").read_bytes().replace(b"\n", b"\r\n"))
    card = build_card(folder, "made")
    assert (card.size.interactions, card.checks.missing_ids, card.checks.missing_times) == (5, 1, 1)
    assert (card.checks.duplicate_rows, card.checks.repeats) == (1, 1)


def test_rows_without_user_and_rows_without_item(made):
    rows = " a 1|u1 a 1|u1 b 2|u1 c 3|u1 d 4|u2 a 1|u2 d 2|u2  3"
    card = build_card(made(interactions=rows), "made")
    assert (card.size.users, card.size.items, card.size.interactions, card.checks.missing_ids) == (2, 4, 6, 2)


def test_a_listed_row_without_an_id_is_no_user(made):
    folder = made(interactions="u1 a 1|u1 b 2")
    (folder / "made.user").write_text("user_id:token\tuser_language:token\nu1\tde\n\tfr\nu2\tde\n")
    assert build_card(folder, "made").size.idle_users == 1


def test_duplicates_of_rows_with_sequences(made):
    rows = "u1 a p,q 1|u1 a p 1|u1 a p,q 1|u1 b p 2"
    folder = made(interactions=rows, columns="user_id:token item_id:token tags:token_seq timestamp:float")
    (folder / "made.inter").write_text((folder / "made.inter").read_text(encoding="utf-8").replace(",", " "))
    checks = build_card(folder, "made").checks
    assert (checks.repeats, checks.duplicate_rows) == (2, 1)


def test_separators_of_several_characters(made):
    folder = made(name="wide")
    for file in folder.glob("wide.*r"):
        file.write_text(file.read_text(encoding="utf-8").replace("\t", "::"), encoding="utf-8")
    card = build_card(folder, "wide", Columns(separator="::"))
    assert replace(card, dataset="made") == build_card(made(), "made")


def test_agrees_with_counting_one_by_one(made):
    rng = random.Random(1)
    language = {f"i{n}": rng.choice(["de", "en", "fr", "und"]) for n in range(12)}
    rows = [(f"u{rng.randrange(30)}", f"i{rng.randrange(12)}", rng.randrange(9)) for _ in range(250)]
    texts = [(item, tag, f"title {item}", "display") for item, tag in language.items()]
    text = "|".join(" ".join(map(str, row)) for row in rows)
    card = build_card(made(interactions=text, items=None, users=None, texts=texts), "made")
    by_user = defaultdict(list)
    for user, item, time in sorted(rows, key=lambda row: row[2]):
        by_user[user].append((item, time))
    bilingual = repeated = tied = 0
    mixing: Counter[tuple[str, str]] = Counter()
    for history in by_user.values():
        rest = history[:-1] if len(history) > 2 else history
        known = Counter(language[item] for item, _ in rest if language[item] != "und")
        main = min(known, key=lambda tag: (-known[tag], tag), default="und")
        second = max((number for tag, number in known.items() if tag != main), default=0)
        bilingual += second >= 2 and second >= 0.2 * sum(known.values())
        if len(history) > 2:
            target, time = history[-1]
            mixing[main, language[target]] += 1
            repeated += any(item == target for item, _ in rest)
            tied += any(other_time == time for _, other_time in rest)
    names = card.mixing.languages
    found = {
        (a, b): n
        for a, row in zip(names, card.mixing.targets, strict=True)
        for b, n in zip(names, row, strict=True)
        if n
    }
    assert found == dict(mixing)
    assert (card.mixing.bilingual_users, card.checks.repeated_targets, card.checks.tied_targets) == (
        bilingual,
        repeated,
        tied,
    )
    assert bilingual and repeated and tied
    assert card.size.density == pytest.approx(len({row[:2] for row in rows}) / (len(by_user) * 12))


def test_what_is_wrong_is_named(made, tmp_path):
    with pytest.raises(DataError, match=r"no file .*none\.inter"):
        build_card(tmp_path, "none")
    with pytest.raises(
        DataError, match="no column 'item_id' \\(ITEM_ID_FIELD\\); its columns are user_id, id, timestamp"
    ):
        build_card(made(name="column", columns="user_id:token id:token timestamp:float"), "column")
    with pytest.raises(DataError, match=r"time\.inter:3: timestamp 'noon' is not a number as others are"):
        build_card(made(name="time", interactions="u1 a 1|u1 b noon"), "time")
    with pytest.raises(DataError, match=r"long\.inter:3: 5 cells, but the header has 3"):
        build_card(made(name="long", interactions="u1 a 1|u1 b 2 3 4"), "long")
    with pytest.raises(DataError, match=r"wide\.inter:1: no '::' between the columns.*field_separator: '\\t'"):
        build_card(made(name="wide"), "wide", Columns(separator="::"))
    folder = made(name="text")
    (folder / "text.itemtext.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"text\.itemtext\.jsonl:1: 'item_id' is missing"):
        build_card(folder, "text")
