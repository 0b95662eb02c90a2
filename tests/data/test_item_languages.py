"""Item languages and texts of a catalog: what is malformed is an error, what is stated stays."""

from __future__ import annotations

import json

import pytest

import recbole_xling
from recbole_xling.config import XLingConfig
from recbole_xling.data.catalog import catalog_of
from recbole_xling.errors import DataError, NoTextError
from recbole_xling.quick_start.build import build_data
from recbole_xling.quick_start.report import report


def data_of(settings, model="BPR", **changed):
    config = XLingConfig(model, "small", config_dict={**settings, **changed})
    return build_data(config)


def languages_of(data):
    catalog = catalog_of(data.dataset)
    return dict(zip(catalog.tokens, catalog.languages, strict=True))


def write_texts(folder, *records):
    lines = [
        json.dumps({"item_id": i, "language": tag, "fields": {"title": title}, "source": "display"})
        for i, tag, title in records
    ]
    (folder / "small.itemtext.jsonl").write_text("\n".join(lines))


def test_a_malformed_text_is_an_error_for_models_that_need_no_texts_too(small_dataset, settings_without_layers):
    folder = small_dataset()
    with open(folder / "small.itemtext.jsonl", "a") as file:
        file.write('{"item_id": "i1"}\n')
    with pytest.raises(DataError, match=r"small\.itemtext\.jsonl:31: 'language' is missing"):
        data_of(settings_without_layers).context  # noqa: B018


def test_without_any_text_or_language_results_per_language_are_left_out(small_dataset, settings_without_layers, caplog):
    folder = small_dataset(item_text=False)
    settings = {**settings_without_layers, "load_col": {"inter": "*"}}
    (folder / "small.item").unlink()
    assert set(languages_of(data_of(settings)).values()) == {"und"}
    assert "item languages are unknown" in caplog.text


def test_a_stated_language_stays_without_a_text(small_dataset, settings_without_layers, caplog):
    folder = small_dataset(item_text=False)  # the .item file states de, en, fr in turn
    found = languages_of(data_of(settings_without_layers))
    assert [found[item] for item in ("[PAD]", "i0", "i1", "i2", "i3")] == ["und", "de", "en", "fr", "de"]
    write_texts(folder, ("i0", "it", "Cane"), ("i1", "it", ""), ("i2", "und", "?"))
    found = languages_of(data_of(settings_without_layers))
    assert [found[item] for item in ("i0", "i1", "i2", "i3")] == ["it", "it", "fr", "de"]
    assert "unknown" not in caplog.text


def test_models_that_read_no_texts_need_none_whatever_users_state(small_dataset, settings_without_layers, tmp_path):
    folder = small_dataset(item_text=False)
    users = "".join(f"u{user}\t{'de' if user % 2 else 'fr'}\n" for user in range(40))
    (folder / "small.user").write_text(f"user_id:token\tuser_language:token\n{users}")
    result = recbole_xling.run("BPR", "small", config_dict=settings_without_layers)
    assert {"user_language=de", "target_language=en", "cross_language=yes"} <= result["slices"].keys()
    found = recbole_xling.load_run(result["run_dir"]).recommend(["u1"], 3)
    assert set(found["title"]) == {""} and set(found["language"]) <= {"de", "en", "fr"}
    assert "BPR" in report([result["run_dir"]], tmp_path / "page.html").read_text()
    with pytest.raises(NoTextError, match="no item text"):
        data_of(settings_without_layers, "ContentKNN").train_data._dataset.catalog.vectors  # noqa: B018


def test_a_stated_language_stays_where_the_text_column_is_empty(small_dataset, settings_without_layers):
    folder = small_dataset(item_text=False)
    rows = [
        "item_id:token\titem_language:token\ttitle:token_seq",
        *(f"i{n}\tde\t{'' if n % 2 else 'Hund'}" for n in range(30)),
    ]
    (folder / "small.item").write_text("\n".join(rows))
    data = data_of(settings_without_layers)
    assert languages_of(data)["i1"] == "de"
    assert data.splits["test"]["languages"].keys() == {"de"}
    assert catalog_of(data.dataset).texts.count("") == 1 + 15


def test_of_several_rows_of_an_item_the_first_one_states_the_language(small_dataset, settings_without_layers):
    folder = small_dataset(item_text=False)
    rows = [f"i{n}\t{tag}\tHund" for tag in ("", "de", "en") for n in range(30) if tag or n == 1]
    (folder / "small.item").write_text("\n".join(["item_id:token\titem_language:token\ttitle:token_seq", *rows]))
    write_texts(folder, *((f"i{n}", "und", "Hund") for n in range(30)))
    found = languages_of(data_of(settings_without_layers))
    assert found["i0"] == "de" and found["i1"] == "und"


def test_a_code_for_no_value_in_the_language_column_is_none(small_dataset, settings_without_layers):
    folder = small_dataset(item_text=False)
    rows = [f"i{n}\t{'nan' if n else 'nan-Hant'}\tHund" for n in range(30)]
    (folder / "small.item").write_text("\n".join(["item_id:token\titem_language:token\ttitle:token_seq", *rows]))
    found = languages_of(data_of(settings_without_layers))
    assert found["i0"] == "nan-Hant" and found["i1"] == "und"


def test_a_template_with_a_field_that_no_item_has_is_refused(small_dataset, settings):
    small_dataset()
    with pytest.raises(
        DataError, match=r"'\{title\} \{brand\}': no item of 'small' has a field 'brand'; items have title"
    ):
        catalog_of(data_of(settings, "LLMSASRec", text_template="{title} {brand}").dataset).texts  # noqa: B018


def test_letter_case_makes_no_second_language(small_dataset, settings_without_layers):
    folder = small_dataset(item_text=False)
    tags = {"i0": "EN", "i1": "en", "i2": "ZH-hant", "i3": "en-gb"}
    write_texts(folder, *((item, tag, "Heat") for item, tag in tags.items()))
    (folder / "small.user").write_text("user_id:token\tuser_language:token\nu0\tEN-GB\nu1\tEn\nu2\tzh-HANT\n")
    data = data_of(settings_without_layers)
    found = languages_of(data)
    assert [found[item] for item in ("i0", "i1", "i2", "i3")] == ["en", "en", "zh-Hant", "en-GB"]
    assert catalog_of(data.dataset).stated_languages == {"u0": "en-GB", "u1": "en", "u2": "zh-Hant"}


def test_a_second_text_in_letters_of_another_case_is_refused(small_dataset, settings_without_layers):
    folder = small_dataset(item_text=False)
    record = {"item_id": "i0", "fields": {"title": "Heat"}, "source": "parallel"}
    lines = [json.dumps({**record, "language": tag}) for tag in ("de", "DE")]
    (folder / "small.itemtext.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"small\.itemtext\.jsonl:2: item 'i0' has its de text \(parallel\) twice"):
        data_of(settings_without_layers).context  # noqa: B018
