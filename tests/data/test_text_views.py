"""The texts of items that training sees: which languages, how often each, and what is refused."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from recbole_xling.config import XLingConfig
from recbole_xling.data.catalog import ItemCatalog
from recbole_xling.encode.hashing import HashingEncoder
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import write_itemtext

TEXTS = [
    ItemText("a", "en", {"title": "trousers"}, "display"),
    ItemText("a", "it", {"title": "pantaloni"}, "parallel"),
    ItemText("a", "da", {"title": "bukser"}, "parallel"),
    ItemText("b", "en", {"title": "shirt"}, "display"),
    ItemText("b", "da", {"title": "skjorte"}, "translation:x"),
    ItemText("c", "it", {"title": "scarpa"}, "display"),
]


def catalog(folder, users=("it", "da"), texts=TEXTS, **settings):
    rows = [f"u{number}\t{language}" for number, language in enumerate(users)]
    (folder / "d.user").write_text("\n".join(["user_id:token\tuser_language:token", *rows]) + "\n")
    write_itemtext(folder / "d.itemtext.jsonl", texts)
    wanted = {"data_path": str(folder.parent), "train_text_view": "random", "text_view": "display", **settings}
    config = XLingConfig("LLMSASRec", folder.name, config_dict={"encoder": "hashing", **wanted})
    return ItemCatalog(config, ["[PAD]", "a", "b", "c"], folder, "d")


def views(found):
    return dict(zip(("", *found.training_views.own), found.training_views.texts, strict=True))


def chances(found):
    drawn = found.training_views.chances(found.training_language_weights)
    texts = found.training_views.texts
    assert np.allclose(drawn.sum(axis=0), 1)
    return [
        {texts[view][item]: round(float(drawn[view, item]), 4) for view in range(len(texts)) if drawn[view, item]}
        for item in range(1, drawn.shape[1])
    ]


def test_training_sees_each_item_in_the_languages_of_readers_that_it_has(tmp_path):
    found = catalog(tmp_path)
    assert views(found) == {
        "": ["", "trousers", "shirt", "scarpa"],
        "da": ["", "bukser", "shirt", "scarpa"],
        "it": ["", "pantaloni", "shirt", "scarpa"],
    }
    assert chances(found) == [{"pantaloni": 0.5, "bukser": 0.5}, {"shirt": 1}, {"scarpa": 1}]
    assert found.training_languages == [["und", "en", "en", "it"], ["und", "da", "en", "it"], ["und", "it", "en", "it"]]
    assert found.texts_of_views == [["", "trousers", "shirt", "scarpa"]]  # evaluation stays as it is


def test_languages_can_be_weighed_and_added(tmp_path):
    assert chances(catalog(tmp_path, train_text_languages={"it": 3}))[0] == {"pantaloni": 0.75, "bukser": 0.25}
    assert chances(catalog(tmp_path, train_text_languages={"it": 0}))[0] == {"bukser": 1}
    third = round(1 / 3, 4)
    everything = {"trousers": third, "pantaloni": third, "bukser": third}
    assert chances(catalog(tmp_path, train_text_languages=["en"]))[0] == everything
    assert chances(catalog(tmp_path, ("it", ""), train_text_languages=["da"]))[0] == everything  # he sees display texts
    assert chances(catalog(tmp_path, ("", ""), train_text_languages=["da"]))[0] == everything


def test_users_without_a_row_see_display_texts_and_so_does_training(tmp_path):
    third = round(1 / 3, 4)
    everything = {"trousers": third, "pantaloni": third, "bukser": third}
    interactions = "item_id:token\tuser_id:token\na\tu0\nb\tu1\n"
    (tmp_path / "d.inter").write_text(interactions)
    assert chances(catalog(tmp_path))[0] == {"pantaloni": 0.5, "bukser": 0.5}
    (tmp_path / "d.inter").write_text(interactions + "c\tstranger\n")
    assert chances(catalog(tmp_path))[0] == everything
    loaded = {"load_col": {"inter": ["user_id", "item_id"], "user": ["user_id"]}}
    assert chances(catalog(tmp_path, **loaded))[0] == {"pantaloni": 0.5, "bukser": 0.5}  # the stranger is left out
    assert chances(catalog(tmp_path, **loaded, filter_inter_by_user_or_item=False))[0] == everything
    (tmp_path / "d.inter").write_text(interactions)
    for part in ("one", "two"):
        (tmp_path / f"d.{part}.inter").write_text(interactions)
    parts = {"benchmark_filename": ["one", "two"]}
    assert chances(catalog(tmp_path, **parts))[0] == {"pantaloni": 0.5, "bukser": 0.5}
    (tmp_path / "d.two.inter").write_text(interactions + "c\tstranger\n")
    assert chances(catalog(tmp_path, **parts))[0] == everything


def test_translations_are_used_by_choice_where_an_item_has_no_text_of_its_own(tmp_path):
    found = catalog(tmp_path, train_text_translations=True)
    assert views(found)["da"] == ["", "bukser", "skjorte", "scarpa"]
    assert chances(found)[1] == {"skjorte": 1}


def test_a_language_that_no_item_has_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"no item of 'd' has a text of its own in 'fr', only in da, en, it"):
        catalog(tmp_path, train_text_languages=["fr"]).training_views  # noqa: B018
    for wrong in ({"train_text_languages": ["Italian!"]}, {"train_text_languages": {"it": -1}}):
        with pytest.raises(ConfigError, match="train_text_languages"):
            catalog(tmp_path, **wrong)


@pytest.mark.parametrize("view", ["display", "language:it", "pivot:it"])
def test_a_text_has_the_same_language_in_training_and_evaluation(tmp_path, view):
    texts = [*TEXTS, ItemText("b", "it-CH", {"title": "camicia"}, "parallel")]
    found = catalog(tmp_path, ("da",), texts, text_view=view)
    assert found.languages == ["und", "en", "en", "it"]
    expected = ["und", "en", "en", "it"] if view == "display" else ["und", "it", "it", "it"]
    assert found.text_languages == [expected] and found.training_languages[0] == expected
    served, *trained = found.model_language_ids.tolist()
    assert found.texts_of_views[0] == found.training_views.texts[0] and served == trained[0]


def test_a_language_of_weight_0_is_in_no_text_of_training(tmp_path):
    changed = {"train_text_languages": {"en": 0}, "embedding_cache_dir": str(tmp_path / "cache")}
    assert chances(catalog(tmp_path, **changed)) == [{"pantaloni": 0.5, "bukser": 0.5}, {"shirt": 1}, {"scarpa": 1}]
    assert catalog(tmp_path, **{**changed, "train_text_languages": {"da": 0}}).training_views.own.keys() == {"it"}
    of_all = catalog(tmp_path, **changed, train_text_view="all")
    assert {texts[1] for texts in of_all.training_views.texts} == {"pantaloni", "bukser"}
    assert {texts[2] for texts in of_all.training_views.texts} == {"shirt"}  # it has no other
    back = catalog(tmp_path, ("it", "da"), LONGER, train_text_languages={"en": 0}, train_text_back_translation=0.5)
    halves = {"pantaloni rossi": 0.5, "røde bukser": 0.5}
    assert chances(back) == [halves, {"shirt": 1}, {"scarpa": 0.5, "la scarpa": 0.5}]


@pytest.mark.parametrize("others", [True, False])
def test_readers_get_the_exact_tag_before_a_variant_that_others_see(tmp_path, others):
    texts = [ItemText("a", "zh-Hant", {"title": "繁體"}, "display"), ItemText("a", "zh", {"title": "简体"}, "parallel")]
    texts += [ItemText("b", "de" if others else "zh", {"title": "Hemd"}, "display")]
    found = catalog(tmp_path, ("zh",), texts, text_view="reader")
    assert [views[1] for views in found.texts_of_views] == ["繁體", "简体"]
    assert chances(found)[0] == {"简体": 1}
    both = catalog(tmp_path, ("zh", "zh-Hant"), texts, text_view="reader")
    assert chances(both)[0] == {"繁體": 0.5, "简体": 0.5}


def test_no_empty_text_is_drawn_of_an_item_that_has_others(tmp_path):
    texts = [text for text in TEXTS if (text.source, text.item_id) != ("display", "a")]
    (tmp_path / "d.item").write_text("item_id:token\titem_language:token\na\ten\nb\ten\nc\tit\n")
    found = catalog(tmp_path, ("it", "da", "en"), texts)
    assert chances(found) == [{"pantaloni": 0.5, "bukser": 0.5}, {"shirt": 1}, {"scarpa": 1}]
    nothing = catalog(tmp_path, ("it", "da", "en"), [text for text in texts if text.item_id != "c"])
    assert chances(nothing)[2] == {"": 1}


def test_a_text_that_readers_of_two_tags_see_counts_once(tmp_path):
    texts = [ItemText("a", "en", {"title": "suit"}, "display"), ItemText("a", "pt-BR", {"title": "terno"}, "parallel")]
    texts += [
        ItemText("b", "pt-BR", {"title": "calças"}, "display"),
        ItemText("b", "pt", {"title": "calça"}, "parallel"),
    ]
    texts += [ItemText("c", "en", {"title": "shirt"}, "display"), ItemText("c", "pt", {"title": "camisa"}, "parallel")]
    found = catalog(tmp_path, ("en", "pt", "pt-BR"), texts)
    halves = [{"suit": 0.5, "terno": 0.5}, {"calças": 0.5, "calça": 0.5}, {"shirt": 0.5, "camisa": 0.5}]
    assert chances(found) == halves
    left_out = catalog(tmp_path, ("en", "pt"), texts, train_text_languages={"pt-BR": 0})  # though readers of pt see it
    assert chances(left_out) == [{"suit": 1}, {"calça": 1}, {"shirt": 0.5, "camisa": 0.5}]


def test_nobody_learns_from_texts_of_weight_0_that_readers_see_later(tmp_path):
    texts = [text for text in TEXTS if text.language in ("en", "it")]
    found = catalog(tmp_path, ("it",), texts, text_view="reader", train_text_languages={"it": 0, "en": 1})
    assert len(found.texts_of_views) == 2 and found.training_views.texts == [["", "trousers", "shirt", "scarpa"]]


def test_a_setting_without_effect_is_one_line(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert catalog(tmp_path, ("en",)).training_views is None
    assert "train_text_view: random has no effect: no item has a second text in en" in caplog.text


@pytest.mark.parametrize(("kind", "n_views"), [("reader", 3), ("random", 3), ("all", 1)])
def test_vectors_of_training_follow_those_of_evaluation(tmp_path, kind, n_views):
    found = catalog(tmp_path, train_text_view=kind, embedding_cache_dir=str(tmp_path / "cache"))
    alone = catalog(tmp_path, train_text_view="own", embedding_cache_dir=str(tmp_path / "cache"))
    vectors, row = found.model_vectors
    assert row.shape == found.model_language_ids.shape == (1 + n_views, 4)
    np.testing.assert_array_equal(vectors[row[0]], alone.vectors)
    if kind == "all":
        by_text = catalog(tmp_path, embedding_cache_dir=str(tmp_path / "cache")).model_vectors
        mean = by_text[0][by_text[1][1:, 1]].sum(axis=0)
        np.testing.assert_allclose(vectors[row[1, 1]], mean / np.linalg.norm(mean), rtol=1e-4)
        np.testing.assert_array_equal(vectors[row[1, 2:]], alone.vectors[2:])


@pytest.mark.parametrize("kind", ["random", "all"])
def test_all_texts_of_training_can_be_encoded_ahead(tmp_path, monkeypatch, kind):
    settings = {"train_text_view": kind, "embedding_cache_dir": str(tmp_path / "cache")}
    catalog(tmp_path, **settings).encode()
    monkeypatch.setattr(HashingEncoder, "encode", lambda *args: pytest.fail("encoded again"))
    assert len(catalog(tmp_path, **settings).model_vectors[0])


# ---- variants: code-switched texts and back-translations ------------------------------------------------------

LONGER = [
    ItemText("a", "en", {"title": "red trousers"}, "display"),
    ItemText("a", "it", {"title": "pantaloni rossi"}, "parallel"),
    ItemText("a", "da", {"title": "røde bukser"}, "parallel"),
    ItemText("a", "en", {"title": "trousers in red"}, "translation:x:back:it"),
    ItemText("b", "en", {"title": "shirt"}, "display"),
    ItemText("c", "it", {"title": "scarpa"}, "display"),
    ItemText("c", "it", {"title": "la scarpa"}, "translation:x:back:en"),
]


def test_code_switched_texts_mix_the_languages_of_training(tmp_path):
    found = catalog(tmp_path, texts=LONGER, train_text_code_switch=0.4)
    drawn = chances(found)
    (mixed,) = set(drawn[0]) - {"pantaloni rossi", "røde bukser"}
    assert mixed in ("pantaloni bukser", "røde rossi")  # English is not read in training
    assert drawn == [{"pantaloni rossi": 0.3, "røde bukser": 0.3, mixed: 0.4}, {"shirt": 1}, {"scarpa": 1}]
    assert found.training_languages[-1] == ["und", "und", "en", "it"]
    again = catalog(tmp_path, texts=LONGER, train_text_code_switch=0.4)
    assert again.training_views.texts == found.training_views.texts
    assert found.texts_of_views == [["", "red trousers", "shirt", "scarpa"]]


def test_back_translations_are_drawn_as_often_as_asked(tmp_path):
    found = catalog(tmp_path, texts=LONGER, train_text_back_translation=0.5)
    halves = {"pantaloni rossi": 0.25, "røde bukser": 0.25, "trousers in red": 0.5}
    assert chances(found) == [halves, {"shirt": 1}, {"scarpa": 0.5, "la scarpa": 0.5}]
    assert found.training_languages[-1] == ["und", "en", "en", "it"]
    alone = catalog(tmp_path, ("en",), LONGER, train_text_back_translation=1.0)  # readers see one language only
    assert chances(alone) == [{"trousers in red": 1}, {"shirt": 1}, {"la scarpa": 1}]


def test_variants_that_cannot_be_drawn_are_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        found = catalog(tmp_path, train_text_code_switch=0.5, train_text_back_translation=0.5)
        assert len(found.training_views.texts) == 3  # titles of one word cannot be mixed
    assert "train_text_code_switch has no effect" in caplog.text
    assert "--to <pivot> --system ... --back" in caplog.text
    for wrong, told in (
        ({"train_text_view": "all", "train_text_code_switch": 0.5}, "set train_text_view to random"),
        ({"train_text_code_switch": 0.6, "train_text_back_translation": 0.5}, "more than 1 together"),
    ):
        with pytest.raises(ConfigError, match=told):
            catalog(tmp_path, **wrong)
