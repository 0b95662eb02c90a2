"""Comparing runs: groups over seeds, paired tests on the same rows, and refusal where rows differ."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
import yaml

from recbole_xling.cli.main import main
from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.evaluator.comparison_table import FORMATS, comparison_text
from recbole_xling.quick_start.compare import compare
from recbole_xling.utils.run_folder import write_result

N = 60


@pytest.fixture
def write_run(tmp_path):
    """Return a function that writes the folder of a finished run with values of its own."""

    def write(name, values, seed=1, users=None, mode="full", columns=(), **settings):
        folder = tmp_path / name
        folder.mkdir()
        settings = {"model": "LLMSASRec", "dataset": "d", "seed": seed, "exclude_history": False, **settings}
        settings |= {"checkpoint_dir": name, "eval_args": {"mode": mode}}
        (folder / "config.yaml").write_text(yaml.safe_dump(settings))
        users = [f"u{row}" for row in range(len(values))] if users is None else users
        table = {
            "user_id": users,
            "target_item": [f"i{row}" for row in range(len(values))],
            "n_targets": 1,
            "target_language": ["de" if row % 3 else "fr" for row in range(len(values))],
            "ndcg@10": values,
            **dict(columns),
        }
        pl.DataFrame(table).sample(fraction=1, shuffle=True, seed=seed).write_parquet(folder / "users.parquet")
        write_result(folder, {"model": settings["model"], "test": {"ndcg@10": float(np.mean(values)), "gini": 0.5}})
        return folder

    return write


@pytest.fixture
def values():
    """Values of a baseline, and of a better model with two seeds."""
    rng = np.random.default_rng(0)
    base = rng.random(N)
    return base, base + rng.normal(0.1, 0.05, N), base + rng.normal(0.2, 0.05, N)


def test_seeds_are_grouped_and_rows_are_paired(write_run, values):
    base, one, two = values
    runs = [write_run("a", base, item_representation="none")]
    runs += [write_run(f"b{seed}", own, seed, item_representation="delta") for seed, own in ((1, one), (2, two))]
    frame = compare(runs)
    assert frame["slice"].unique().tolist() == ["all", "target_language=de", "target_language=fr", "language_macro"]
    first, second = frame[frame["slice"] == "all"].to_dict("records")
    labels = ["LLMSASRec item_representation=none", "LLMSASRec item_representation=delta"]
    assert [first["model"], second["model"]] == labels
    assert (first["runs"], second["runs"], second["n"]) == (1, 2, N)
    assert (first["best"], second["best"]) == (False, True)
    assert second["mean"] == pytest.approx((one.mean() + two.mean()) / 2)
    assert second["std"] == pytest.approx(np.std([one.mean(), two.mean()], ddof=1))
    difference = (one + two) / 2 - base
    assert second["difference"] == pytest.approx(difference.mean())
    assert second["low"] < second["difference"] < second["high"]
    assert second["p_ttest"] == pytest.approx(scipy.stats.ttest_1samp(difference, 0).pvalue)
    assert np.isnan(first["difference"]) and np.isnan(first["std"])
    part = frame[(frame["slice"] == "target_language=fr") & frame["best"]].iloc[0]
    assert (part["n"], part["difference"]) == (20, pytest.approx(difference[::3].mean()))
    assert (frame["p_ttest_holm"].dropna() >= frame["p_ttest"].dropna()).all()


def test_runs_on_other_rows_or_candidates_are_refused(write_run, values):
    base = write_run("a", values[0])
    other = write_run("b", values[1], users=[f"u{row}" for row in range(N - 1)] + ["x9"], k=1)
    with pytest.raises(DataError, match=r"1 of 60 only in '.*a', such as user 'u59' with target 'i59'; .*'x9'"):
        compare([base, other])
    with pytest.raises(DataError, match=r"'x9'.*no row of a user with two interactions: take HistoryEASE"):
        compare([base, write_run("e", values[1], users=[f"u{row}" for row in range(N - 1)] + ["x9"], model="EASE")])
    with pytest.raises(DataError, match=r"ranks candidates of mode full, .* of mode uni100"):
        compare([base, write_run("c", values[1], mode="uni100")])
    with pytest.raises(ConfigError, match="at least two runs, each of them once"):
        compare([base, base])
    with pytest.raises(ConfigError, match=r"unknown metric 'ndcg@5'.*ndcg@10"):
        compare([base, write_run("d", values[1], k=2)], metrics=["ndcg@5"])
    labeled = [write_run(name, values[0], k=3) for name in "fg"]
    for folder in labeled:  # mode labeled: AUC has no value of a row
        write_result(folder, {"model": "LLMSASRec", "test": {"auc": 0.5}})
    with pytest.raises(ConfigError, match="no metric in common of which each test row has a value"):
        compare(labeled)
    shutil.copytree(base, base.parent / "h")
    (base.parent / "h" / "users.parquet").unlink()
    with pytest.raises(CheckpointError, match=r"has no users\.parquet"):
        compare([base, base.parent / "h"])


def test_the_same_results_do_not_differ_by_how_the_mean_of_seeds_is_rounded(write_run, values):
    base = np.round(1 / (1 + np.floor(10 * values[0])), 4) / 3
    runs = {"one": [write_run("a", base)], "three": [write_run(f"b{seed}", base, seed) for seed in (1, 2, 3)]}
    line = compare(runs, slices=()).to_dict("records")[1]
    assert (line["difference"], line["p_ttest"], line["p_wilcoxon"], line["best"]) == (0, 1, 1, True)
    changed = np.where(np.arange(N) < 9, base + 0.1, base)
    runs["three"] = [write_run(f"c{seed}", changed, seed) for seed in (1, 2, 3)]
    line = compare(runs, slices=()).to_dict("records")[1]
    assert line["p_wilcoxon"] == pytest.approx(scipy.stats.wilcoxon([0.1] * 9 + [0] * (N - 9)).pvalue)


def test_runs_that_rank_other_items_are_refused(write_run, values):
    runs = [write_run("a", values[0]), write_run("b", values[1], k=1), write_run("c", values[2], k=2)]
    for folder, number in zip(runs, (80, 480, None), strict=True):
        items = {} if number is None else {"ranked_items": {"number": number, "sha256": f"{number}"}}
        write_result(folder, {"model": "LLMSASRec", "test": {"ndcg@10": 0.5}, **items})
    with pytest.raises(DataError, match=r"a' ranks 80 items, '.*b' 480 items or others.*load_col"):
        compare(runs[:2])
    assert len(compare([runs[0], runs[2]], slices=())) == 2  # of an earlier release, which did not keep it


def test_the_name_of_a_folder_is_no_pattern(write_run, values):
    runs = [write_run("a[1]", values[0]), write_run("b", values[1], k=1)]
    write_run("a1", values[2], k=2)
    means = compare(runs, slices=(), metrics=["ndcg@10"])["mean"]
    assert means.tolist() == pytest.approx([part.mean() for part in values[:2]])


def test_a_run_that_ranks_what_users_know_is_named(write_run, values, caplog):
    runs = [write_run("a", values[0], exclude_history=True), write_run("b", values[1])]
    compare(runs)
    assert "b' ranks what its users know already" in caplog.text
    caplog.clear()
    compare([runs[0], write_run("c", values[1], model="BPR")])
    assert not caplog.text
    known = write_run("d", values[2], model="BPR", repeatable=True)  # which ranks all items
    compare([runs[1], known])
    assert not caplog.text
    compare([runs[0], known])
    assert "d' ranks what its users know already" in caplog.text


def test_runs_that_were_trained_on_other_data_are_no_seeds_of_one_model(write_run, values):
    for name, own, seed in zip("ab", values, (1, 2), strict=False):
        folder = write_run(name, own, seed)
        test = {"ndcg@10": float(np.mean(own))}
        result = {"model": "LLMSASRec", "test": test, "zero_shot": True, "trained_on": f"shop-{name}"}
        write_result(folder, result)
    frame = compare([folder.parent / name for name in "ab"])
    assert frame[frame["slice"] == "all"]["model"].tolist() == [f"LLMSASRec trained_on=shop-{name}" for name in "ab"]


@pytest.mark.parametrize("evaluated", [False, True])
def test_runs_on_other_files_of_one_name_are_no_seeds_of_one_model(write_run, values, evaluated):
    """As two of one month and of the next; evaluations have the files of training beside those of the test."""
    for name, own, seed in zip("ab", values, (1, 2), strict=False):
        folder = write_run(name, own, seed)
        files = {"inter": {"lines": 100 + (name == "b")}}
        data = {"files": {"inter": {"lines": 101}}, "files_of_training": files} if evaluated else {"files": files}
        more = {"run": "saved/x"} if evaluated else {}
        write_result(folder, {"model": "LLMSASRec", "test": {"ndcg@10": float(np.mean(own))}, "data": data, **more})
    frame = compare([folder.parent / name for name in "ab"])
    first, second = frame[frame["slice"] == "all"]["model"]
    assert first != second and "training_data=" in first
    assert frame["difference"].notna().any()


def test_what_a_machine_decides_makes_no_group_of_its_own(write_run, values):
    runs = [write_run("a", values[0]), write_run("b", values[1], seed=2, eval_batch_size=7, data_path="elsewhere")]
    assert compare(runs, slices=())["runs"].tolist() == [2]
    assert compare({"mine": [runs[0]], "yours": [runs[1]]}, slices=())["model"].tolist() == ["mine", "yours"]


def test_many_rows_of_a_user_count_as_one(write_run, values):
    users = [f"u{row // 20}" for row in range(N)]
    runs = [write_run("a", values[0], users=users), write_run("b", values[1], users=users, k=3)]
    line = compare(runs, slices=()).iloc[1]
    means = (values[1] - values[0]).reshape(3, 20).mean(axis=1)
    assert line["p_ttest"] == pytest.approx(scipy.stats.ttest_1samp(means, 0).pvalue)


def test_the_mean_over_languages_is_compared_by_what_each_language_gains(write_run, values):
    runs = [write_run("a", values[0]), write_run("b", values[1], k=1)]
    line = compare(runs, slices=["target_language"], seed=4).query("slice == 'language_macro'").iloc[1]
    in_french = np.arange(N) % 3 == 0
    sides = [of[chosen] for chosen in (in_french, ~in_french) for of in (values[1], values[0])]
    gains = [better - base for better, base in zip(sides[::2], sides[1::2], strict=True)]
    assert line["mean"] == pytest.approx(np.mean([sides[0].mean(), sides[2].mean()]))
    assert line["difference"] == pytest.approx(np.mean([gain.mean() for gain in gains]))
    rng, order, drawn = np.random.default_rng(4), sorted(f"u{row}" for row in range(N)), []
    for _ in range(1000):
        times = dict(zip(order, np.bincount(rng.integers(0, N, size=N), minlength=N), strict=True))
        weights = np.array([times[f"u{row}"] for row in range(N)])
        sides = [np.average(values[1][c] - values[0][c], weights=weights[c]) for c in (in_french, ~in_french)]
        drawn.append(np.mean(sides))
    assert [line["low"], line["high"]] == pytest.approx(np.quantile(drawn, [0.025, 0.975]).tolist())
    assert np.isnan(line["p_ttest"]) and np.isnan(line["p_wilcoxon_holm"])
    assert "language_macro" not in set(compare(runs, slices=[])["slice"])


def test_pairs_of_languages_are_compared_if_they_are_named(write_run, values):
    crosses = ["no" if row % 3 else "yes" if row else None for row in range(N)]
    known = {"user_language": ["de"] * N, "cross_language": crosses}
    runs = [write_run("a", values[0], columns=known), write_run("b", values[1], columns=known, k=1)]
    found = compare(runs, slices=["language_pair"]).groupby("slice")["n"].first().to_dict()
    assert found == {"all": 60, "language_pair=de>de": 40, "language_pair=de>fr": 19}
    assert not [name for name in compare(runs)["slice"] if "pair" in name]


@pytest.mark.parametrize("fmt", FORMATS)
def test_formats_say_the_same(write_run, values, capsys, fmt):
    runs = [write_run("a_1", values[0]), write_run("b", values[2], text_view="reader", hidden_size=2)]
    assert main(["compare", *map(str, runs), "--format", fmt]) == 0
    told = capsys.readouterr().out
    mean = f"{values[2].mean():.4f}"
    if fmt == "csv":
        frame = pd.read_csv(io.StringIO(told))
        assert len(frame) == 8 and f"{frame['mean'][1]:.4f}" == mean
    else:
        best = {"text": f"{mean} * †", "markdown": f"**{mean}** †", "latex": rf"\textbf{{{mean}}}$^\dagger$"}
        assert best[fmt] in told
        assert told.count("toprule") == (4 if fmt == "latex" else 0)
        assert ("text\\_view" in told) == (fmt == "latex")


def test_any_name_can_be_set_in_latex(write_run, values):
    name = r"a\b^c~d<e>f|g_h&i"
    told = comparison_text(compare({name: [write_run("a", values[0])], "b": [write_run("b", values[1], k=1)]}), "latex")
    for letter, command in {"\\": "backslash", "^": "asciicircum", "~": "asciitilde", "<": "less", "|": "bar"}.items():
        assert rf"\text{command}{{}}" in told, letter
    assert (
        r"a\textbackslash{}b\textasciicircum{}c\textasciitilde{}d\textless{}e\textgreater{}f\textbar{}g\_h\&i" in told
    )


def test_names_and_formats_of_the_command_are_checked(write_run, values, capsys):
    runs = [str(write_run("a", values[0])), str(write_run("b", values[1], k=1))]
    assert main(["compare", f"mine={runs[0]}", f"yours={runs[1]}", "--slices"]) == 0
    assert "difference from mine" in capsys.readouterr().out
    assert main(["compare", f"mine={runs[0]}", runs[1]]) == 2
    assert main(["compare", *runs, "--format", "html"]) == 2
    assert "unknown format 'html'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="unknown format"):
        comparison_text(compare(runs), "word")
    assert Path(runs[0]).is_dir()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("result.json", b""),
        ("result.json", b"\xff{}"),
        ("result.json", b"[1]"),
        ("result.json", b'{"test": [1]}'),
        ("result.json", b"[" * 100_000),
        ("config.yaml", b"model: BPR"),
        ("config.yaml", b"{model: BPR, eval_args: [], exclude_history: False}"),
        ("config.yaml", b"{model: Fusion, runs: [1]}"),
        ("users.parquet", b"PAR1"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(write_run, values, file, content):
    runs = [write_run("a", values[0]), write_run("b", values[1])]
    (runs[1] / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file}' is damaged"):
        compare(runs)


@pytest.mark.parametrize("changed", [{"user_id": 1}, {"ndcg@10": "high"}, {"ndcg@10": [[0.1]] * N}])
def test_columns_of_another_type_are_damage(write_run, values, changed):
    runs = [write_run("a", values[0]), write_run("b", values[1])]
    table = pl.read_parquet(runs[1] / "users.parquet")
    made = [pl.Series(name, value if isinstance(value, list) else [value] * N) for name, value in changed.items()]
    table.with_columns(made).write_parquet(runs[1] / "users.parquet")
    with pytest.raises(CheckpointError, match=r"users\.parquet' is damaged"):
        compare(runs)
