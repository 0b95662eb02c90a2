"""What a report shows: the values of the runs, what their models do, and names that are harmless."""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from html_page import Page

import recbole_xling
from recbole_xling.cli.main import main
from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.evaluator.bootstrap import bootstrap_interval
from recbole_xling.quick_start.report import finished_content, report, with_model
from recbole_xling.report.content import value_of
from recbole_xling.report.figures import _count, _short, plot_items, plot_languages, plot_pairs, report_plots
from recbole_xling.report.page import report_page

EVIL = "</script><script>window.evil = 1</script><b>"


@pytest.fixture(scope="module")
def shown(finished):
    return with_model(finished_content(finished), recbole_xling.load_run(finished))


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_is_complete_in_itself_and_shows_every_part(finished, tmp_path, capsys):
    assert main(["report", str(finished), "--output", str(tmp_path / "new" / "page.html")]) == 0
    assert "page.html" in capsys.readouterr().out
    page = read(tmp_path / "new" / "page.html")
    assert page.loads == [] and "default-src 'none'" in page.policy
    assert page.tags.count("figure") == 7  # two curves, two languages, pairs, popularity, map
    for heading in ("LLMSASRec on shop", "Training", "Languages", "Popularity", "Nearest items", "All settings"):
        assert heading in page.text
    assert "What the lists show" in page.text and "exposure@10" in page.text
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["page.html"]


def test_names_and_texts_are_escaped(finished, tmp_path):
    path = report([finished], tmp_path / "page.html")
    page, text = read(path), path.read_text(encoding="utf-8")
    assert not {"b", "i", "img"} & set(page.tags)
    assert EVIL not in text and "<img src=x" not in text
    plain = report_page([finished_content(finished)], "ndcg@10")
    n_scripts = page.tags.count("script")  # the library, and one for each figure: with the map and without
    assert n_scripts == Page(plain).tags.count("script") + 1


def test_hostile_ids_are_text(shown):
    evil = shown.examples[0]._replace(user_id="<img src=x onerror=alert(1)>")
    page = Page(report_page([replace(shown, name="<b>run", examples=[evil])], "ndcg@10"))
    assert not {"img", "b"} & set(page.tags)
    assert "<img src=x onerror=alert(1)>" in page.text and "What the model does" in page.text
    assert "<b>run on shop" in page.text


def test_values_are_those_of_the_rows_with_intervals_over_users(shown):
    rows = pl.read_parquet(shown.folder / "users.parquet")
    for value in shown.values("ndcg@10", "target_language"):
        part = rows.filter(pl.col("target_language") == value.name)
        assert value.n == len(part)
        assert value.mean == pytest.approx(shown.result["slices"][f"target_language={value.name}"]["ndcg@10"])
        interval = shown.result["slices"][f"target_language={value.name}"]["intervals"]["ndcg@10"]
        assert value[3:] == tuple(interval)
        of_earlier_release = value_of(value.name, part, "ndcg@10", {})
        assert of_earlier_release[:3] == value[:3]
        assert of_earlier_release[3:] == bootstrap_interval(part["ndcg@10"].to_numpy(), part["user_id"].to_numpy())
    drawn = plot_languages([shown], "ndcg@10").data[0]
    assert sorted(drawn.x) == sorted(value.mean for value in shown.values("ndcg@10", "target_language"))


def test_pairs_with_few_rows_have_no_shade(shown):
    figure = plot_pairs(shown, "ndcg@10")
    counts = shown.rows.group_by("user_language", "target_language").len()
    sizes = {(reader, target): n for reader, target, n in counts.iter_rows()}
    heat = figure.data[0]
    for reader, row in zip(heat.y, heat.z, strict=True):
        for target, value in zip(heat.x, row, strict=True):
            assert (sizes.get((reader, target), 0) >= 10) == bool(np.isfinite(value))
    assert len(figure.layout.annotations) == len(sizes)
    assert all(re.match(r"(\d?\.\d{3})<br>", note.text) for note in figure.layout.annotations)


def test_numbers_in_a_map_are_short():
    assert [_short(value, 3) for value in (0.0, 0.0431, 1.0, -0.25)] == [".000", ".043", "1.000", "-.250"]
    assert [_count(n) for n in (0, 999, 1234, 9960, 123456)] == ["0", "999", "1.2k", "10k", "123k"]


def test_a_value_of_few_rows_is_hollow(shown):
    drawn, values = plot_languages([shown], "ndcg@10").data[0], shown.values("ndcg@10", "target_language")
    assert len(drawn.marker.symbol) == len(values) > 1
    assert [symbol.endswith("-open") for symbol in drawn.marker.symbol] == [value.n < 10 for value in values]


def test_shades_of_several_runs_mean_the_same(finished, finished_bpr):
    runs = [finished_content(folder) for folder in (finished, finished_bpr)]
    heats = [plot.figure.data[0] for plot in report_plots(runs, "ndcg@10") if plot.section == "pairs"]
    largest = np.nanmax([np.array(heat.z, dtype=float).max(initial=0, where=~np.isnan(heat.z)) for heat in heats])
    assert len(heats) == 2 and {heat.zmax for heat in heats} == {largest}


def test_curves_have_every_epoch(shown):
    assert [epoch for epoch, _ in shown.curves["loss"]] == [1, 2] == [epoch for epoch, _ in shown.curves["validation"]]
    best = max(value for _, value in shown.curves["validation"])
    assert best == pytest.approx(shown.result["best_valid"]["ndcg@10"], abs=5e-5)


@pytest.mark.parametrize("model", ["finished", "finished_bpr"])
def test_what_is_recommended_is_what_was_evaluated(request, model):
    folder = request.getfixturevalue(model)
    content = with_model(finished_content(folder), recbole_xling.load_run(folder))
    assert len(content.examples) == 6 and content.missing == ""
    recall = {row["user_id"]: row["recall@10"] for row in content.rows.to_dicts()}
    for example in content.examples:
        assert len(example.recommended) == 10 and len(example.targets) == 1
        assert recall[example.user_id] == any(item.is_target for item in example.recommended)
        assert example.n_history == 4 == len(example.history)
        if model == "finished":  # readers see what has a text in their language in it
            assert {item.language for item in example.recommended} <= {example.language, "de"}
    assert {example.language for example in content.examples} == {"de", "en", "fr"}


def test_neighbors_are_the_nearest_items_of_other_languages(shown, finished):
    run = recbole_xling.load_run(finished)
    catalog = run.train_data._dataset.catalog
    number = {token: place for place, token in enumerate(catalog.tokens)}
    view_of = {"de": 0} | {name: place for place, name in enumerate(run.context.readers.own, start=1)}
    tables = {name: run.model.item_table(view).detach().numpy() for name, view in view_of.items()}
    unit = {name: table / np.maximum(np.linalg.norm(table, axis=1), 1e-12)[:, None] for name, table in tables.items()}
    for entry in shown.neighbors:
        own = unit[entry.item.language][number[entry.item.item_id]]
        assert {other.language for other, _ in entry.nearest} == {"de", "en", "fr"} - {entry.item.language}
        for other, cosine in entry.nearest:
            assert cosine == pytest.approx(float(unit[other.language][number[other.item_id]] @ own), abs=1e-5)
            shows = [row for row in range(1, len(catalog.tokens))
                     if other.language == "de" or run.context.readers.own[other.language][row]]  # fmt: skip
            assert cosine == pytest.approx(float((unit[other.language][shows] @ own).max()), abs=1e-5)


def test_the_map_is_that_of_principal_axes(shown):
    points = shown.items.points
    assert np.abs(points.mean(axis=0)).max() < 1e-5
    assert abs(np.corrcoef(points.T)[0, 1]) < 1e-5
    assert points[:, 0].var() >= points[:, 1].var()
    counts = {trace.name: len(trace.x) for trace in plot_items(shown).data}
    assert sum(counts.values()) == len(points) == len(shown.items.items) == 24 + 23 + 23
    assert "de (24)" in counts


@pytest.mark.slow
def test_the_map_is_drawn_by_umap_where_it_is_installed(finished, monkeypatch, tmp_path):
    monkeypatch.delitem(sys.modules, "umap")  # which hides it
    pytest.importorskip("umap")
    page = read(report([finished], tmp_path / "page.html"))
    assert "UMAP of the item vectors (cosine)" in page.text and "principal axes" not in page.text
    first, again = (with_model(finished_content(finished), recbole_xling.load_run(finished)).items for _ in range(2))
    assert first.points.shape == (24 + 23 + 23, 2) and np.isfinite(first.points).all()
    assert np.array_equal(first.points, again.points)  # by the seed
    assert abs(np.corrcoef(first.points.T)[0, 1]) > 1e-5  # or these are principal axes after all


def test_several_runs_stand_beside_each_other(finished, finished_bpr, tmp_path):
    page = read(report([finished, finished_bpr], tmp_path / "page.html"))
    assert "2 runs on shop" in page.text and "What BPR does" in page.text and "Settings that differ" in page.text
    assert page.tags.count("figure") == 9  # pairs and map for each


def test_runs_that_cannot_be_compared_are_told_apart(finished, shop_settings, tmp_path):
    own = {"hidden_size": 16, "eval_args": {"mode": "uni3"}}
    drawn = Path(recbole_xling.run("LLMSASRec", "shop", config_dict={**shop_settings, **own})["run_dir"])
    page = read(report([finished, drawn], tmp_path / "page.html"))
    assert "such results cannot be compared" in page.text and "of mode uni3" in page.text
    fewer = replace(finished_content(finished), name="fewer")
    fewer = replace(fewer, rows=fewer.rows[:-1], _known={})
    text = report_page([finished_content(finished), fewer], "ndcg@10")
    n = len(finished_content(finished).rows)
    assert f"{n} / {n - 1}" in Page(text).text
    assert "cannot be compared" not in read(report([finished], tmp_path / "one.html")).text


def test_a_folder_without_a_model_is_shown_without_what_a_model_does(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "model.pt").unlink()
    page = read(report([copy], tmp_path / "page.html"))
    assert "Not shown: the folder has no model." in page.text and "Readers and what" not in page.text


def test_the_worst_language_is_named_by_the_metric_that_chose_it(finished, tmp_path):
    shown = [
        read(report([finished], tmp_path / f"{metric}.html", metric=metric)) for metric in ("ndcg@10", "recall@10")
    ]
    assert "ndcg@10 in the worst language (" in shown[0].text
    assert "recall@10 in the language with the worst ndcg@10 (" in shown[1].text


def test_what_cannot_be_shown_is_an_error_and_leaves_no_page(finished, tmp_path):
    output = tmp_path / "page.html"
    with pytest.raises(CheckpointError, match="not the folder of a finished run"):
        report([tmp_path], output)
    with pytest.raises(ConfigError, match="each of them once"):
        report([finished, finished], output)
    with pytest.raises(ConfigError, match="unknown metric of all runs 'ndgc@10'"):
        report([finished], output, metric="ndgc@10")
    with pytest.raises(DataError, match="does not exist"):
        report([finished], output, data_path=str(tmp_path))
    assert not output.exists()


def test_a_loaded_run_draws_itself(finished, finished_bpr, build_small, small_dataset):
    run = recbole_xling.load_run(finished)
    assert len(run.plot_curves("validation").data[0].x) == 2
    assert len(run.plot_languages("recall@5", "user_language").data[0].x) == 3
    assert run.plot_pairs().data[0].type == "heatmap"
    assert len(run.plot_popularity().data[0].x) >= 1
    assert sum(len(trace.x) for trace in run.plot_items().data) == 70
    told = Page(run._repr_html_())
    assert "LLMSASRec on shop" in told.text and "ndcg@10" in told.text and "95% interval" in told.text
    with pytest.raises(ConfigError, match="unknown curve"):
        run.plot_curves("lost")
    small_dataset()
    untrained = build_small()
    assert "not the folder of a finished run" in Page(untrained._repr_html_()).text
    with pytest.raises(CheckpointError):
        untrained.plot_languages()
