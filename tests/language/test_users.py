"""Readers: whose language is what, and who sees which item in which language."""

from __future__ import annotations

import numpy as np
import polars as pl

from recbole_xling.language.users import Readers, languages_of_users

DISPLAYED = ["und", "de", "de", "fr", "und"]
FRENCH = np.array([False, True, False, True, True])
USERS = ["und", "fr", "und", "it"]


def test_users_see_items_in_their_own_language_where_these_have_a_text_in_it():
    readers = Readers(USERS, DISPLAYED, {"fr": FRENCH})
    users, items = np.repeat([1, 2, 3], 4), np.tile([1, 2, 3, 4], 3)
    seen = [readers.names[number] for number in readers.seen(users, items)]
    assert seen == ["fr", "de", "fr", "fr", *DISPLAYED[1:], *DISPLAYED[1:]]
    assert readers.view_of_user.tolist() == [0, 1, 0, 0]
    assert [readers.seen_by(view) for view in range(2)] == [DISPLAYED, ["und", "fr", "de", "fr", "fr"]]


def test_a_language_is_stated_or_else_the_main_one_of_what_was_seen():
    users, items = np.array([1, 1, 2, 2, 2, 3]), np.array([2, 2, 1, 3, 3, 4])
    readers = Readers(USERS, DISPLAYED, {"fr": FRENCH})
    assert readers.languages(users, items) == ["und", "fr", "fr", "it"]
    assert Readers(["und"] * 4, DISPLAYED).languages(users, items) == ["und", "de", "fr", "und"]
    assert Readers(["und"] * 2, ["und", "und"]).languages(np.array([1]), np.array([1])) == ["und", "und"]


def test_the_main_language_is_the_most_frequent_one_and_the_first_by_alphabet():
    rows = [("a", "fr"), ("a", "de"), ("b", "fr"), ("b", "fr"), ("b", "de"), ("b", "de"), ("b", "fr"), ("c", None)]
    found = languages_of_users(pl.DataFrame(rows, schema=["user", "language"], orient="row"))
    assert found.rows() == [("a", "de", False), ("b", "fr", True)]
