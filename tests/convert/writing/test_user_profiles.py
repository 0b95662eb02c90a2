"""Users' cross-lingual profiles: what they say, what they must not know, and that RecBole reads them."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Made, contents, frame

from recbole_xling.config import XLingConfig
from recbole_xling.convert import ProfileSetting, write_dataset
from recbole_xling.convert.base import Item, User
from recbole_xling.convert.writing import interactions as parts
from recbole_xling.convert.writing.filters import Filters
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.errors import ConfigError, DataError

ITEMS = {"d1": "de", "d2": "de", "d3": "de", "e1": "en", "e2": "en", "f1": "fr", "x1": "und"}
HEADER = (
    "user_id:token\tuser_language:token\thistory_languages:token_seq\tlanguage_share:float_seq\tbilingual:token"
    "\tlanguage_source:token"
)


class Bare(Made):
    """Tells nothing of users but their ids."""

    user_fields: dict[str, str] = {}


class Stated(Made):
    """Tells the age and language of users."""

    user_fields = {"age": "token", "user_language": "token"}


def records(**more: Any) -> dict[str, Any]:
    items = [Item(item, language) for item, language in ITEMS.items()]
    return {"items": items, "users": [], "texts": [], **more}


def history(user: str, items: str) -> list[tuple[str, str, float, float]]:
    """Interactions one second apart, in the order given."""
    return [(user, item, 1.0, float(time)) for time, item in enumerate(items.split())]


def profiles(
    root: Path, rows: list[Any], setting: ProfileSetting | None = None, filters: Filters | None = None, **more: Any
) -> list[str]:
    """Return the lines of the ``.user`` file below its header, without the last cell, which tells derived languages."""
    converter = Bare(**records(interactions=[frame(*rows)], **more))
    options: dict[str, Any] = {"user_profile": setting or ProfileSetting(), "filters": filters or Filters()}
    write_dataset(converter, root, "d", show_progress=False, **options)
    header, *lines = (root / "d" / "d.user").read_text(encoding="utf-8").splitlines()
    assert header == HEADER
    assert all(line.endswith("unknown" if "\tund\t" in line else "derived") for line in lines)
    return [line.rpartition("\t")[0] for line in lines]


def reference(rows: list[tuple[str, str, float, float]]) -> list[str]:
    """What a profile says, in plain Python."""
    lines = []
    for user in dict.fromkeys(row[0] for row in rows):
        mine = sorted((row for row in rows if row[0] == user), key=lambda row: row[3])[:-2]
        counts = Counter(ITEMS[row[1]] for row in mine if ITEMS[row[1]] != "und")
        ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        number, second = counts.total(), ordered[1][1] if len(ordered) > 1 else 0
        shares = [str(round(count / number, 3)) for _, count in ordered]
        flag = ("yes" if second >= 2 and second / number >= 0.2 else "no") if number >= 4 else ""
        main = ordered[0][0] if ordered else "und"
        lines.append("\t".join([user, main, " ".join(language for language, _ in ordered), " ".join(shares), flag]))
    return lines


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from("uvw"), st.sampled_from(sorted(ITEMS)), st.just(1.0), st.integers(0, 9).map(float)),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 70),
)
def test_profiles_agree_with_plain_python(rows: list[Any], at_a_time: int) -> None:
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "_ROWS_AT_A_TIME", at_a_time)
        assert profiles(Path(root), rows) == reference(rows)


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("d1 d2 d3 e1 e2 f1 f1", "de\tde en\t0.6 0.4\tyes"),
        ("d1 d2 e1 x1 x1 x1", "de\tde en\t0.667 0.333\t"),  # three interactions tell too little
        ("d1 d2 d3 d1 f1 f1", "de\tde\t1.0\tno"),
        ("d1 d1 d1 e1 f1 f1", "de\tde en\t0.75 0.25\tno"),  # one interaction is no second language
        ("e1 d1 f1 f1", "de\tde en\t0.5 0.5\t"),  # ties go to the alphabet
        ("x1 x1 d1 d1", "und\t\t\t"),
        ("d1 d1", "und\t\t\t"),
        ("d1", "und\t\t\t"),
        (" ".join(["d1"] * 8 + ["e1"] * 2 + ["f1"] * 2), "de\tde en\t0.8 0.2\tyes"),
        (" ".join(["d1"] * 28 + ["e1"] * 7 + ["f1"] * 2), "de\tde en\t0.8 0.2\tyes"),
        (" ".join(["d1"] * 9 + ["e1"] * 2 + ["f1"] * 2), "de\tde en\t0.818 0.182\tno"),
    ],
)
def test_main_language_shares_and_second_language(tmp_path: Path, items: str, expected: str) -> None:
    assert profiles(tmp_path, history("u", items)) == [f"u\t{expected}"]


def test_what_is_held_out_changes_nothing(tmp_path: Path) -> None:
    first = "d1 d2 e1 e2"
    told = {tuple(profiles(tmp_path, history("u", f"{first} {end}"))) for end in ("d1 d1", "f1 f1", "x1 e1")}
    assert told == {("u\tde\tde en\t0.5 0.5\tyes",)}


def test_a_time_takes_the_place_of_the_last_two(tmp_path: Path) -> None:
    rows = [*history("u", "d1 d2 e1 f1 f1"), *history("v", "e1"), ("w", "e1", 1.0, 9.0)]
    assert profiles(tmp_path, rows, ProfileSetting(until=3.0)) == [
        "u\tde\tde en\t0.667 0.333\t",
        "v\ten\ten\t1.0\t",
        "w\tund\t\t\t",
    ]


def test_the_history_is_told_with_all_digits() -> None:
    assert str(ProfileSetting(1714521600123)) == "interactions before 1714521600123"
    assert str(ProfileSetting(1714521600.5)) == "interactions before 1714521600.5"


def test_filters_go_before_profiles(tmp_path: Path) -> None:
    rows = history("u", "d1 d2 e1 f1 f1 e1 e1")
    without_french = profiles(tmp_path, rows, filters=Filters(languages=("de", "en")))
    assert without_french == ["u\tde\tde en\t0.667 0.333\t"]


def test_stated_languages_stand_and_all_users_are_there(tmp_path: Path) -> None:
    users = [User("idle", {"age": "7"}), User("u", {"age": "8", "user_language": "FRE"}), User("v", {"age": "9"})]
    rows = [*history("new", "e1 e1 e1"), *history("v", "d1 d2 d1"), *history("u", "d1 d2 d1")]
    converter = Stated(**records(users=users, interactions=[frame(*rows)]))
    report = write_dataset(converter, tmp_path, "d", user_profile=ProfileSetting(), show_progress=False)
    assert (tmp_path / "d" / "d.user").read_text(encoding="utf-8").splitlines() == [
        HEADER.replace("user_language", "age:token\tuser_language"),
        "idle\t7\tund\t\t\t\tunknown",
        "u\t8\tfr\tde\t1.0\t\tstated",
        "v\t9\tde\tde\t1.0\t\tderived",
        "new\t\ten\ten\t1.0\t\tderived",
    ]
    assert report.users == 4
    figures = {"stated": 1, "derived": 2, "unknown": 1, "bilingual": 0}
    assert report.user_profiles == {"history": "all but each user's last two interactions", **figures}
    line = "user profiles, from all but each user's last two interactions: stated 1, derived 2, unknown 1, bilingual 0"
    assert line in report.lines()


def test_without_times_the_order_of_the_source_counts(tmp_path: Path) -> None:
    rows = [("u", item, 1.0) for item in ("d1", "e1", "f1")]
    assert profiles(tmp_path, rows) == ["u\tde\tde\t1.0\t"]
    with pytest.raises(ConfigError, match="the source has no timestamps"):
        profiles(tmp_path, rows, ProfileSetting(until=3.0))


def test_what_is_needed_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    class Taken(Made):
        item_fields = {"bilingual": "token"}

    profiles(tmp_path, history("u", "d1 d2 e1"))
    before = contents(tmp_path / "d")
    with pytest.raises(ConfigError, match="needs the languages of items"):
        profiles(tmp_path, history("u", "x1 x1"), items=[Item("x1", "und")])
    with pytest.raises(DataError, match="'bilingual' appears twice"):
        write_dataset(Taken(), tmp_path, "d", user_profile=ProfileSetting(), show_progress=False)
    with pytest.raises(OSError, match="gone"):
        profiles(tmp_path, history("u", "d1"), users=[User("u"), OSError("gone")])
    assert contents(tmp_path / "d") == before


@pytest.fixture
def loaded(tmp_path: Path) -> XLingDataset:
    """Users of 3 to 8 interactions, some of them so close in time that RecBole cannot tell the times apart."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u{user}", str(rng.choice(sorted(ITEMS))), 1.0, 1.5e9 + float(rng.integers(0, 200)))
        for user in range(30)
        for _ in range(rng.integers(3, 9))
    ]
    profiles(tmp_path, rows)
    names = [column.partition(":")[0] for column in HEADER.split("\t")]
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": names}
    known = {"data_path": str(tmp_path), "load_col": columns, "encoder": "hashing", "checkpoint_dir": str(tmp_path)}
    return XLingDataset(XLingConfig("LLMSASRec", "d", config_dict=known))


def test_a_run_reads_profiles_that_do_not_know_its_targets(loaded: XLingDataset) -> None:
    dataset = loaded
    language = [ITEMS.get(token, "und") for token in dataset.field2id_token["item_id"]]
    train, valid, test = dataset.build()
    table = dataset.user_feat
    assert table["language_share"].shape == table["history_languages"].shape
    users, items = test.sequence["user_id"].numpy(), test.sequence["item_id"].tolist()
    targets = set(np.flatnonzero(test.is_target | valid.is_target).tolist())
    for user in range(1, dataset.user_num):
        places = np.flatnonzero(users == user).tolist()
        assert targets.intersection(places) <= set(places[-2:])
        known = Counter(language[items[place]] for place in places[:-2])
        known.pop("und", None)
        length = int((table["history_languages"][user] > 0).sum())
        tokens = dataset.field2id_token["history_languages"][table["history_languages"][user][:length].numpy()]
        shares = table["language_share"][user][:length].tolist()
        expected = {token: pytest.approx(count / known.total(), abs=1e-3) for token, count in known.items()}
        assert dict(zip(tokens, shares, strict=True)) == expected
    assert train.join(train[[0, 1]])["language_share"].shape[0] == 2
