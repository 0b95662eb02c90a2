"""Measures of change: against scipy's, against chance, and what is compared at all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import jensenshannon

from recbole_xling.evaluator.drift import LARGE, NONE, SOME, Side, joined, level_of, measures, since, verdict


def side(rows, *, users=6, items=5, first_user=0, first_item=0, languages=("de", "fr")):
    """Return a side of (user, item, time); odd items are in the second language, and so are odd users."""
    pairs = np.array(rows, dtype=np.int64).reshape(-1, 3)
    user_tokens = np.array(["[PAD]", *(f"u{first_user + user}" for user in range(users))])
    item_tokens = np.array(["[PAD]", *(f"i{first_item + item}" for item in range(items))])
    of_items = np.array(["und", *(languages[(first_item + item) % 2] for item in range(items))])
    of_users = np.array(["und", *(languages[(first_user + user) % 2] for user in range(users))])
    users, items, times = pairs[:, 0] + 1, pairs[:, 1] + 1, pairs[:, 2].astype(float)
    return Side(user_tokens, item_tokens, users, items, times, of_users, of_items, of_items[items])


def drawn(seed, n, shares, users=50):
    rng = np.random.default_rng(seed)
    items = rng.choice(len(shares), n, p=shares)
    return side(np.stack([rng.integers(users, size=n), items, rng.integers(10**9, size=n)], 1), users=users,
                items=len(shares))  # fmt: skip


def compared(then, now, **options):
    found = measures(then, now, joined(then, now), ([1.0], [1.0]), 0.0, **{"by_user": False, "seed": 0, **options})
    return {measure.name: measure for measure in found}


def test_popularity_is_compared_as_scipy_does_it():
    then, now = drawn(0, 400, [0.4, 0.3, 0.2, 0.1]), drawn(1, 300, [0.1, 0.2, 0.3, 0.4])
    counts = [np.bincount(part.items, minlength=5)[1:] for part in (then, now)]
    found = compared(then, now)
    assert found["popularity"].value == pytest.approx(jensenshannon(*counts, base=2) ** 2)
    assert found["popularity_ranks"].value == pytest.approx(stats.spearmanr(*counts).statistic)
    assert found["popularity"].level == SOME if found["popularity"].value < 0.15 else LARGE
    assert found["popularity"].chance < 0.02


def test_items_that_nobody_chooses_any_more_count_where_they_are_still_there():
    then, now = drawn(0, 400, [0.4, 0.3, 0.2, 0.1]), drawn(1, 300, [0.5, 0.3, 0.2])
    counts = [np.bincount(part.items, minlength=5)[1:] for part in (then, now)]
    found = compared(then, replace(now, offered=np.array(["i0", "i3", "i9"])))
    assert found["popularity"].value == pytest.approx(jensenshannon(*counts, base=2) ** 2)
    gone = compared(then, now)["popularity"].value
    assert gone == pytest.approx(jensenshannon(*(count[:3] for count in counts), base=2) ** 2) and gone < 0.01


def test_samples_of_one_distribution_have_not_changed_though_their_numbers_differ():
    shares = np.full(200, 1 / 200)
    found = compared(drawn(0, 400, shares), drawn(1, 400, shares))
    assert found["popularity"].value > 0.15  # which would be much, if it were not chance
    assert found["popularity"].level == NONE
    assert found["item_languages"].level == NONE
    assert found["history_lengths"].value > 0.5 and found["history_lengths"].level is None  # they grow in any case


def test_only_what_has_come_since_is_compared_with_a_later_state():
    then = side([(0, 0, 1), (1, 1, 2), (2, 2, 3)])
    now = side([(2, 2, 3), (1, 1, 2), (0, 0, 1), (0, 0, 9), (3, 4, 10)])
    after, kept = since(then, now)
    assert kept == 3 and after.users.tolist() == [1, 4] and after.times.tolist() == [9, 10]
    other = side([(0, 0, 1), (3, 3, 7), (4, 4, 8)])  # only a third of then is in it
    after, kept = since(then, other)
    assert kept == 1 and len(after.users) == 3
    without = [replace(part, times=None) for part in (then, now)]
    assert since(*without)[0].users.tolist() == [4]


def test_what_both_have_counts_once_in_histories():
    then = side([(0, 0, 1), (0, 1, 2), (1, 1, 3)])
    now = side([(0, 0, 1), (0, 0, 8), (0, 2, 9), (1, 3, 7)])
    after, kept = since(then, now)
    assert kept == 1 and len(after.users) == 4  # too few of then for a later state: all of now is looked at
    both = joined(then, after)
    assert both.lengths(np.array(["u0", "u1"])).tolist() == [4, 2]
    assert sorted(both.times.tolist()) == [1, 2, 3, 7, 8, 9]
    without = joined(*(replace(part, times=None) for part in (then, after)))
    assert without.lengths(np.array(["u0", "u1"])).tolist() == [3, 2]


def test_items_and_users_are_matched_by_their_ids():
    then = side([(4, 0, 1), (5, 1, 2), (4, 4, 2)])
    now = side([(0, 0, 3), (0, 1, 4), (1, 1, 5), (1, 2, 6)], first_item=4, first_user=4, users=3)
    found = compared(then, now)  # i4 is known, i5 and i6 are not; u4 and u5 are known
    assert found["new_items"].value == 0.75 and found["new_items"].level == LARGE
    assert found["new_users"].value == 0.0 and found["new_users"].level is None
    now = replace(now, user_tokens=np.array(["[PAD]", "u4", "new", "newer"]))
    assert compared(then, now, by_user=True)["new_users"].value == 0.5
    assert compared(then, now, by_user=True)["new_users"].level == LARGE
    found = compared(side([(0, 0, 1), (1, 1, 2)]), now)  # the files of then have u4 and i4, but nobody chose anything
    assert found["new_items"].value == found["new_users"].value == 1.0


def test_languages_have_moved_by_the_share_that_moved():
    then = side([(0, 0, at) for at in range(80)] + [(1, 1, at) for at in range(20)])
    now = side([(0, 0, at) for at in range(30)] + [(1, 1, at) for at in range(70)])
    found = compared(then, now)["interaction_languages"]
    assert found.value == pytest.approx(0.5) and found.level == LARGE and found.chance < 0.2


@pytest.mark.parametrize(("value", "chance", "level"), [(0.04, None, NONE), (0.05, None, SOME), (0.15, None, LARGE),
                                                        (0.2, 0.3, NONE), (None, None, None)])  # fmt: skip
def test_levels(value, chance, level):
    assert level_of("popularity", value, chance) == level
    assert level_of("popularity_ranks", value) is None


def test_scores_and_verdict():
    then = now = drawn(0, 3000, [0.5, 0.3, 0.2])
    rng = np.random.default_rng(0)
    scores = rng.normal(size=300).tolist(), rng.normal(2, size=300).tolist()
    found = measures(then, now, joined(then, now), scores, 0.0, by_user=False, seed=0)
    top = next(measure for measure in found if measure.name == "top_scores")
    assert top.value == pytest.approx(stats.ks_2samp(*scores).statistic) and top.level == LARGE
    lines = verdict(found, ["it"], 3000, {})
    assert lines[0].startswith("What has changed most: highest score of each user")
    assert lines[1] == "Train again: highest score of each user changed much."
    assert lines[2] == "Languages that training did not have: it."
    same = measures(then, now, joined(then, now), (scores[0], scores[0]), 0.0, by_user=False, seed=0)
    assert verdict(same, [], 20, {"of unknown items": 3})[0].startswith("Nothing has changed")
    *_, left_out, few = verdict(same, [], 20, {"of unknown items": 3})
    assert (
        "20 interactions" in few
        and left_out == "Of the rows in the file of now, some are not used: 3 of unknown items."
    )


def test_histories_are_those_of_then_and_of_now():
    then = side([(0, 0, 1), (0, 1, 2), (1, 1, 3)])
    now = side([(0, 0, 5), (2, 3, 4)], first_user=1, first_item=3)  # u1 and i3, u3 and i6
    both = joined(then, now)
    rows = sorted(zip(both.user_tokens[both.users], both.item_tokens[both.items], both.times, both.seen, strict=True))
    assert [tuple(map(str, row)) for row in rows] == [
        ("u0", "i0", "1.0", "de"), ("u0", "i1", "2.0", "fr"), ("u1", "i1", "3.0", "fr"), ("u1", "i3", "5.0", "fr"),
        ("u3", "i6", "4.0", "de"),
    ]  # fmt: skip
    assert both.lengths(now.active).tolist() == [2, 1]
    assert both.reader_language[both.user_tokens.tolist().index("u3")] == "fr"
    assert both.user_tokens[0] == both.item_tokens[0] == "[PAD]"
