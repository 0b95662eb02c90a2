"""A shop that sells the same products in several countries: who reads what, in results and in the card."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from shop import MARKETS, write_shop

import recbole_xling
from recbole_xling.card import build_configured_card
from recbole_xling.cli import main as cli
from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError
from recbole_xling.evaluator.bootstrap import bootstrap_interval
from recbole_xling.evaluator.report import result_table
from recbole_xling.quick_start.build import build
from recbole_xling.testing import small_settings


@pytest.fixture
def settings(tmp_path):
    inter = ["user_id", "item_id", "timestamp"]
    return {**small_settings(tmp_path), "load_col": {"inter": inter}, "epochs": 1, "topk": [10]}


def target(user):
    return (5 * user + 4) % 24


def seen(user):
    """Return the language in which a user of the shop sees his test target."""
    language = list(MARKETS.values())[user % 3]
    return "de" if (target(user), language) in ((0, "fr"), (1, "en")) else language


@pytest.mark.parametrize("model", ["BPR", "LLMSASRec"])
def test_customers_read_the_language_of_their_market(tmp_path, settings, model):
    write_shop(tmp_path / "data")
    result = recbole_xling.run(model, "shop", config_dict={**settings, "slice_by": ["user.market"]})
    table = pl.read_parquet(Path(result["run_dir"]) / "users.parquet")
    users = [int(user[1:]) for user in table["user_id"]]
    assert table["user_language"].to_list() == [list(MARKETS.values())[user % 3] for user in users]
    assert table["target_language"].to_list() == [seen(user) for user in users]
    assert table["cross_language"].to_list() == [
        "no" if seen(u) == MARKETS[list(MARKETS)[u % 3]] else "yes" for u in users
    ]
    assert {name: values["n"] for name, values in result["slices"].items() if name.startswith(("user", "cross"))} == {
        **{f"user_language={language}": 12 for language in ("de", "en", "fr")},
        "cross_language=no": 34,
        "cross_language=yes": 2,  # two products that have no text in their customer's language
        **{f"user.market={market}": 12 for market in sorted(MARKETS)},
    }
    for market, language in MARKETS.items():  # who is counted where has not come from the market's column
        assert result["slices"][f"user.market={market}"] == result["slices"][f"user_language={language}"]
    assert result["readers"] == {"text_view": "reader", "stated": 36, "derived": 0, "unknown": 0}
    assert result["splits"]["test"]["languages"]["fr"]["users"] == 12
    log = (Path(result["run_dir"]) / "log.txt").read_text()
    assert "text_view reader; users' languages: 36 stated, 0 derived from the history, 0 unknown" in log


def test_who_is_bilingual_is_read_from_the_user_file_or_derived(tmp_path, settings):
    users = write_shop(tmp_path / "data") / "shop.user"
    header, *lines = users.read_text().splitlines()
    cells = ["yes", "no", ""] * 12
    lines = [f"{line}\t{cell}" for line, cell in zip(lines, cells, strict=True)]
    users.write_text("\n".join([f"{header}\tbilingual:token", *lines]) + "\n")
    result = recbole_xling.run("BPR", "shop", config_dict=settings)
    table = pl.read_parquet(Path(result["run_dir"]) / "users.parquet")
    # those of whom the file says nothing see all products but one in their own language
    derived = {user: cells[int(user[1:])] or "no" for user in table["user_id"]}
    assert dict(table.select("user_id", "bilingual").iter_rows()) == derived
    assert {name: part["n"] for name, part in result["slices"].items() if name.startswith("bilingual")} == {
        "bilingual=no": 24,
        "bilingual=yes": 12,
    }
    values = {kind: table.filter(pl.col("cross_language") == kind)["ndcg@10"].mean() for kind in ("yes", "no")}
    assert result["slices"]["language_gap"]["ndcg@10"] == pytest.approx(values["yes"] - values["no"])
    interval = bootstrap_interval(table["ndcg@10"].to_numpy(), table["user_id"].to_numpy(), result["seed"])
    assert result["intervals"]["ndcg@10"] == pytest.approx(interval)


def test_the_card_counts_the_same(tmp_path, settings):
    write_shop(tmp_path / "data")
    card = build_configured_card(XLingConfig("LLMSASRec", "shop", config_dict=settings))
    assert (card.mixing.cross_language, card.mixing.same_language) == (2, 34)
    assert {row.language: (row.items, row.users) for row in card.languages} == {
        "de": (24, 12),
        "en": (0, 12),
        "fr": (0, 12),
    }
    assert (card.user_languages.stated, card.user_languages.text_view) == (36, "reader")
    assert card.splits.test.items == len({target(user) for user in range(36)})
    assert {name: part.users for name, part in card.splits.test.languages.items()} == {"de": 12, "en": 12, "fr": 12}


@pytest.mark.parametrize("changed", [{"text_view": "display"}, {}], ids=["display", "auto"])
def test_display_texts_count_where_they_are_asked_for_or_no_language_is_stated(tmp_path, settings, changed):
    write_shop(tmp_path / "data", stated=bool(changed))
    result = recbole_xling.run("BPR", "shop", config_dict={**settings, **changed})
    assert result["slices"]["target_language=de"]["n"] == 36
    counted = {"stated": 36, "derived": 0} if changed else {"stated": 0, "derived": 36}
    assert result["readers"] == {"text_view": "display", **counted, "unknown": 0}
    assert ("cross_language=yes" in result["slices"]) == bool(changed)


def test_a_language_is_derived_only_where_none_is_stated(tmp_path, settings, caplog):
    folder = write_shop(tmp_path / "data", silent=5)
    users = (folder / "shop.user").read_text().replace("u35\tUK\t55\thats shoes\ten", "u35\tUK\t55\thats shoes\tUK")
    (folder / "shop.user").write_text(users)
    result = recbole_xling.run("BPR", "shop", config_dict=settings)
    assert result["readers"] == {"text_view": "reader", "stated": 30, "derived": 6, "unknown": 0}
    assert result["slices"]["user_language=de"]["n"] == 10 + 6
    assert "'UK' in column user_language names no language" in caplog.text


def test_sessions_of_several_locales_have_no_target_in_another_language(tmp_path, settings):
    """The situation of Amazon-M2: a product is shown in the language of its first row, sessions see their locale's."""
    folder = tmp_path / "data" / "m2"
    folder.mkdir(parents=True)
    locales = ("es", "fr", "it")
    sells = {item: [name for place, name in enumerate(locales) if (item + place) % 3] for item in range(12)}
    rows, users, texts = ["user_id:token\titem_id:token\ttimestamp:float"], ["user_id:token\tuser_language:token"], []
    for user in range(18):
        locale = locales[user % 3]
        users.append(f"s{user}\t{locale}")
        sold = [item for item, names in sells.items() if locale in names]
        rows += [f"s{user}\tp{sold[(user + step) % len(sold)]}\t{step}" for step in range(4)]
    for item, names in sells.items():
        for name in names:
            source = "display" if name == names[0] else "parallel"
            record = {"item_id": f"p{item}", "language": name, "fields": {"title": f"{name} {item}"}, "source": source}
            texts.append(json.dumps(record))
    for suffix, lines in (("inter", rows), ("user", users), ("itemtext.jsonl", texts)):
        (folder / f"m2.{suffix}").write_text("\n".join(lines) + "\n")
    result = recbole_xling.run("BPR", "m2", config_dict=settings)
    assert result["slices"]["cross_language=no"]["n"] == result["n_test"] == 18
    assert "cross_language=yes" not in result["slices"]
    assert {name: result["slices"][f"target_language={name}"]["n"] for name in locales} == dict.fromkeys(locales, 6)
    card = build_configured_card(XLingConfig("BPR", "m2", config_dict=settings))
    assert (card.mixing.cross_language, card.mixing.same_language, card.mixing.bilingual_users) == (0, 18, 0)
    assert result["splits"]["train"]["languages"]["it"]["interactions"] == card.splits.train.of("it").interactions == 12
    displayed = build_configured_card(XLingConfig("BPR", "m2", config_dict={**settings, "text_view": "display"}))
    assert displayed.mixing.cross_language > 0


def test_results_are_sliced_by_columns_of_users_and_items(tmp_path, settings, capsys):
    write_shop(tmp_path / "data")
    columns = ["user.market", "user.likes", "item.category"]
    result = recbole_xling.run("BPR", "shop", config_dict={**settings, "slice_by": columns})
    table = pl.read_parquet(Path(result["run_dir"]) / "users.parquet")
    found = {
        name: values["n"] for name, values in result["slices"].items() if name.partition(".")[0] in ("user", "item")
    }
    assert found == {
        "user.market=DE": 12, "user.market=FR": 12, "user.market=UK": 12,
        "user.likes=hats": 12, "user.likes=shoes": 24,  # a user counts for each of his values, those without for none
        "item.category=c0": 18, "item.category=c1": 18,
    }  # fmt: skip
    for market, part in table.group_by("user.market"):
        assert result["slices"][f"user.market={market[0]}"]["ndcg@10"] == pytest.approx(part["ndcg@10"].mean())
    assert set(table.filter(pl.col("user_id") == "u6")["user.likes"][0]) == {"hats", "shoes"}

    assert cli.main(["evaluate", result["run_dir"], "--slice_by=['item.category']"]) == 0
    assert "item.category: c0" in capsys.readouterr().out


@pytest.mark.parametrize(
    "column, message",
    [
        (
            "user.markt",
            "'user.markt'. Did you mean 'user.market'\\? Known: item.category, item.item_language, user.likes",
        ),
        ("market", "unknown column 'market'"),
        ("user.age", "column 'age' of .* is of type float"),
        (3, "slice_by"),
    ],
)
def test_a_column_that_cannot_be_counted_is_an_error_before_the_run(tmp_path, settings, column, message):
    write_shop(tmp_path / "data")
    with pytest.raises(ConfigError, match=message):
        recbole_xling.run("BPR", "shop", config_dict={**settings, "slice_by": [column]})
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize("by", ["user", "item"])
def test_a_transfer_between_languages_goes_by_what_users_read(tmp_path, settings, by):
    write_shop(tmp_path / "data")
    split = {"LT": {"source": ["de"], "target": ["fr"], "by": by}}
    parts = build(XLingConfig("BPR", "shop", config_dict={**settings, "eval_args": {"split": split}}))
    for data, market in ((parts.train_data, 0), (parts.test_data, 1)):
        users, items = (data._dataset.inter_feat[field].tolist() for field in ("user_id", "item_id"))
        tokens = parts.dataset.field2id_token
        found = {
            (int(tokens["user_id"][user][1:]) % 3, str(tokens["item_id"][item]))
            for user, item in zip(users, items, strict=True)
        }
        assert {who for who, _ in found} >= {market}
        if by == "item":  # customers in France see only item i0 in German, those in Britain i1
            assert {what for who, what in found if who == 1} <= (
                {"i0"} if market == 0 else {f"i{n}" for n in range(1, 24)}
            )
            assert {what for who, what in found if who == 2} <= {"i1"}
        else:
            assert {who for who, _ in found} == {market}


def test_impressions_are_sliced_by_what_users_read_and_by_columns(tmp_path, settings):
    folder = write_shop(tmp_path / "data")
    rows = ["impression_id:token\tuser_id:token\ttimestamp:float\titem_id:token_seq\tlabel:float_seq"]
    for user in range(36):
        rows.append(f"{user}\tu{user}\t9\ti{2 + user % 2 * 2} i{6 + user % 2 * 2} i{10}\t1 0 0")
    rows.append("36\tu1\t9\ti0 i2\t1 0")
    (folder / "shop.imp").write_text("\n".join(rows) + "\n")
    trained = recbole_xling.run("LLMSASRec", "shop", config_dict=settings)
    changed = {"slice_by": ["user.market", "item.category"]}
    result = recbole_xling.evaluate_run(trained["run_dir"], split="all", impressions=True, config_dict=changed)
    assert result["n_test"] == 37
    assert {name: values["n"] for name, values in result["slices"].items()} == {
        "user_language=de": 12, "user_language=en": 12, "user_language=fr": 13,
        "candidate_language=de": 12, "candidate_language=en": 12, "candidate_language=fr": 12,
        "candidate_language=mixed": 1,
        "user.market=DE": 12, "user.market=FR": 13, "user.market=UK": 12,
        "bilingual=no": 37,
        "item.category=c0": 37,
    }  # fmt: skip
    assert result["readers"] == {"text_view": "reader", "stated": 36, "derived": 0, "unknown": 0}


def test_of_a_column_with_many_values_the_largest_are_printed():
    slices = {f"user.city=c{number:02}": {"n": 1 + (number == 30), "ndcg@10": 0.5} for number in range(31)}
    text = result_table({"test": {"ndcg@10": 0.5}, "slices": slices, "n_test": 32}, ["ndcg@10"])
    assert text.count("user.city: c") == 20 and "user.city: c30" in text
    assert "user.city: 11 more in result.json" in text


def test_what_lists_show_is_measured_where_it_is_asked_for(tmp_path, settings, capsys):
    write_shop(tmp_path / "data")
    asked = {**settings, "beyond_accuracy": True, "topk": [5, 10]}
    runs = {model: recbole_xling.run(model, "shop", config_dict=asked) for model in ("BPR", "LLMSASRec")}
    for model, result in runs.items():
        plain = recbole_xling.run(model, "shop", config_dict={**asked, "beyond_accuracy": False})
        assert "beyond_accuracy" not in plain
        assert {name: result["test"][name] for name in plain["test"]} == plain["test"]
        assert set(result["test"]) - set(plain["test"]) == {
            *("miscalibration@5", "miscalibration@10", "novelty@5", "novelty@10"),
        }
        table = pl.read_parquet(Path(result["run_dir"]) / "users.parquet")
        of_french = table.filter(pl.col("user_language") == "fr")["miscalibration@5"].mean()
        assert result["slices"]["user_language=fr"]["miscalibration@5"] == pytest.approx(of_french)
        readers = result["beyond_accuracy"]["readers"]
        assert {name: readers[name]["n"] for name in readers} == {"de": 12, "en": 12, "fr": 12}
        assert readers["fr"]["exposure@10"]["en"] == 0  # no French reader sees an English text
        assert sum(readers["fr"]["exposure@10"].values()) == pytest.approx(1)
        shares = [values["exposure@5"] for values in result["beyond_accuracy"]["items"].values()]
        assert sum(shares) == pytest.approx(1) and len(shares) == 3
    folders = [result["run_dir"] for result in runs.values()]
    again = recbole_xling.evaluate_run(folders[1])
    assert again["beyond_accuracy"] == runs["LLMSASRec"]["beyond_accuracy"]
    assert "beyond_accuracy" not in recbole_xling.evaluate_run(folders[1], arguments=["--beyond_accuracy=False"])
    assert cli.main(["evaluate", folders[0]]) == 0
    assert "readers of fr, exposure@10" in capsys.readouterr().out
    lines = recbole_xling.compare(folders, metrics=["miscalibration@10"], slices=[])
    assert lines["mean"][lines["best"]].tolist() == [lines["mean"].min()]  # less is better


def test_lists_of_drawn_candidates_are_refused(tmp_path, settings):
    write_shop(tmp_path / "data")
    drawn = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni10"}
    with pytest.raises(ConfigError, match=r"beyond_accuracy needs lists of all items: .* not uni10"):
        recbole_xling.run("BPR", "shop", config_dict={**settings, "beyond_accuracy": True, "eval_args": drawn})
    drawn["mode"] = {"valid": "uni10"}  # RecBole takes the mode of validation for the test as well
    with pytest.raises(ConfigError, match=r"beyond_accuracy needs lists of all items: .* not uni10"):
        recbole_xling.run("BPR", "shop", config_dict={**settings, "beyond_accuracy": True, "eval_args": drawn})
