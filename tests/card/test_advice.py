"""Warnings come with what would spoil an experiment, and only then."""

from __future__ import annotations

import pytest

from recbole_xling.card import build_card, build_configured_card
from recbole_xling.config import XLingConfig

GOOD = "|".join(f"u{user} i{(user * 7 + step) % 150} {step}" for user in range(300) for step in range(4))
TEXTS = [(f"i{n}", "de" if n % 2 else "en", f"title {n}", "display") for n in range(150)]


def warnings(made, **changed):
    texts = changed.pop("texts", TEXTS)
    items = " ".join(f"i{n}" for n in range(150))
    folder = made(**{"interactions": GOOD, "items": items, "users": None, "texts": texts, **changed})
    return {warning.name: warning.message for warning in build_card(folder, "made").warnings}


def test_good_data_gets_none(made):
    assert warnings(made) == {}


def last_again(user):
    return "|".join([f"u{user} i3 1", f"u{user} i4 2", f"u{user} i3 3"])


SPOILT = {
    "repeated_targets": {"interactions": f"{GOOD}|" + "|".join(last_again(user) for user in range(300, 310))},
    "tied_targets": {"interactions": GOOD.replace(" 3", " 2")},
    "unordered_users": {"interactions": "|".join(f"{row.rpartition(' ')[0]} 7" for row in GOOD.split("|"))},
    "missing_times": {"interactions": GOOD.replace(" 1|", " |")},
    "no_times": {
        "interactions": "|".join(row.rpartition(" ")[0] for row in GOOD.split("|")),
        "columns": "user_id:token item_id:token",
    },
    "duplicate_rows": {"interactions": f"{GOOD}|{GOOD}"},
    "no_texts": {"texts": None},
    "without_text": {"texts": TEXTS[:-2]},
    "shared_texts": {"texts": [(item, language, title[:7], source) for item, language, title, source in TEXTS]},
    "unknown_language": {"texts": [(item, "und", title, source) for item, _, title, source in TEXTS]},
    "unsure_language": {"texts": [(*text, 0.9 if text[0] > "i2" else 0.79) for text in TEXTS]},
    "unknown_to_encoder": {
        "texts": [(item, "hu-HU" if tag == "de" else tag, title, source) for item, tag, title, source in TEXTS]
    },
    "unknown_items": {"items": " ".join(f"i{n}" for n in range(140))},
    "unknown_users": {"users": "u1"},
    "no_test_targets": {"interactions": "u1 i1 1|u2 i2 1"},
    "few_test_targets": {"interactions": GOOD[: len(GOOD) // 4]},
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_data_gets_one(made, name):
    assert name in warnings(made, **SPOILT[name])


def test_sentences_hold_numbers_and_advice(made):
    found = warnings(made, texts=TEXTS[:-3], interactions=GOOD.replace(" 3", " 2"))
    assert found["without_text"].startswith("3 of 150 items (2.0%) have no display text")
    assert found["tied_targets"].startswith("300 of 300 test targets (100.0%)")
    assert "give finer times" in found["tied_targets"]


def test_a_rare_case_is_no_warning(made):
    assert "repeated_targets" not in warnings(made, interactions=f"{GOOD}|{last_again(300)}")


def test_languages_that_never_meet(made):
    rows = "|".join(
        f"u{user} i{(user % 2 + 2 * (user + step)) % 150} {step}" for user in range(400) for step in range(4)
    )
    assert warnings(made, interactions=rows)["little_mixing"].startswith("Only 0 of 400 test targets")


def warnings_of_split(made, split, **changed):
    items = " ".join(f"i{n}" for n in range(150))
    folder = made(**{"interactions": GOOD, "items": items, "users": None, "texts": TEXTS, **changed})
    settings = {"data_path": str(folder.parent), "eval_args": {"split": split}}
    card = build_configured_card(XLingConfig("LLMSASRec", folder.name, config_dict=settings))
    return {warning.name: warning.message for warning in card.warnings}


DATED = "|".join(f"{row.rpartition(' ')[0]} {1.5e9 + 86400 * place}" for place, row in enumerate(GOOD.split("|")))


def test_warnings_of_a_split_by_time(made):
    found = warnings_of_split(made, {"GT": [0.5, 0.3, 0.2]}, interactions=DATED)
    assert found["few_test_users"].startswith("All 180 test targets come from 60 users")
    assert found["few_test_targets"].startswith("Under 100 test targets: de 90, en 90.")
    assert "relative_times" not in found
    assert "relative_times" in warnings_of_split(made, {"GT": [0.5, 0.3, 0.2]}, name="counted")


def test_warnings_of_cold_targets(made):
    new_at_last = "|".join(
        f"u{user} i{100 + user % 50 if step == 3 else (user * 7 + step) % 100} {step}"
        for user in range(300)
        for step in range(4)
    )
    leave_one_out = warnings_of_split(made, {"LS": "valid_and_test"}, interactions=new_at_last)
    assert leave_one_out["cold_targets"].startswith("300 of 300 test targets (100.0%)")
    cold_items = warnings_of_split(made, {"CI": [0.5, 0.25, 0.25]}, name="cold")
    assert not {"cold_targets", "repeated_targets"} & set(cold_items)


def test_transfer_is_not_blamed_for_languages_that_it_leaves_out(made):
    split = {"LT": {"source": ["de"], "target": ["en"], "by": "item"}}
    rows = [f"u{user} i{(user * 7 + step) % 150} {step}" for user in range(200) for step in range(8)]
    assert set(warnings_of_split(made, split, interactions="|".join(rows))) == {"cold_targets"}
    few = warnings_of_split(made, split, interactions="|".join(rows[:160]), name="few")
    assert few["few_test_targets"].startswith("Under 100 test targets: en 20. ")
    assert few["few_valid_targets"].startswith("Only 20 validation targets")
