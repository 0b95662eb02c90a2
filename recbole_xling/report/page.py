"""The report as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from recbole_xling.evaluator.beyond_accuracy import beyond_accuracy_rows
from recbole_xling.evaluator.slices import mean_of
from recbole_xling.pages.page import Table, render_page
from recbole_xling.report.content import RunContent, Value, value_of
from recbole_xling.report.figures import report_plots

_COLUMNS = {
    "target_language": "target in",
    "user_language": "reader of",
    "cross_language": "other language than the reader's",
    "bilingual": "bilingual reader",
    "popularity": "item",
}
_LISTS = "beyond_accuracy"
_MOST_ROWS = 30  # values of a column in the table


def report_page(runs: Sequence[RunContent], metric: str, warnings: Sequence[str] = ()) -> str:
    """Return the page; every name and text in it is escaped.

    Args:
        runs: what it shows.
        metric: the one that figures show.
        warnings: what to know before the runs are compared.
    """
    datasets = sorted({str(run.settings.get("dataset")) for run in runs})
    return render_page(
        Path(__file__).with_name("report.html.j2"),
        report_plots(runs, metric),
        title=f"{runs[0].name if len(runs) == 1 else f'{len(runs)} runs'} on {', '.join(datasets)}",
        headline=list(_headline(runs, metric)),
        warnings=warnings,
        results=_results(runs),
        slices=_slices(runs, metric),
        lists=[_lists(run, f"lists-{place}", len(runs) > 1) for place, run in enumerate(runs) if _LISTS in run.result],
        runs=runs,
        metric=metric,
        settings=[_settings(runs, differing=True), _settings(runs)] if len(runs) > 1 else [_settings(runs)],
        packages=_versions(runs),
    )


def _headline(runs: Sequence[RunContent], metric: str) -> Iterator[tuple[str, str]]:
    """Yield the few numbers to see first."""
    for run in runs[:4]:
        yield metric if len(runs) == 1 else f"{metric}, {run.name}", f"{mean_of(metric, run.rows):.4f}"
    worst = runs[0].result.get("slices", {}).get("language_worst", {})
    if len(runs) == 1 and metric in worst:
        of_run = runs[0].settings if "valid_metric" in runs[0].settings else runs[0].settings["runs"][0]  # of a fusion
        by = of_run["valid_metric"].lower()
        which = "the worst language" if by == metric else f"the language with the worst {by}"
        yield f"{metric} in {which} ({worst['language']})", f"{worst[metric]:.4f}"
    yield "test rows", _counts([len(run.rows) for run in runs])


def _results(runs: Sequence[RunContent]) -> Table:
    """Return all metrics of the runs, those of rows with their intervals."""
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.result["test"]))
    rows = []
    for metric in metrics:
        cells = [
            _cell(value_of("", run.rows, metric, run.result))
            if metric in run.rows.columns
            else _number(run.result["test"], metric)
            for run in runs
        ]
        rows.append((metric, *cells))
    note = "Means over all test rows, with 95% intervals by the bootstrap over users."
    if len(runs) > 1:
        note += (
            " Whether runs differ is told by paired intervals (recbole-xling compare), not by whether these overlap."
        )
    return Table("results", "Results", ("metric", *(run.name for run in runs)), tuple(rows), note)


def _slices(runs: Sequence[RunContent], metric: str) -> Table:
    """Return a metric by language and popularity."""
    rows = []
    for column, words in _COLUMNS.items():
        found: dict[str, list[str]] = {}
        sizes: dict[str, list[int]] = {}
        for place, run in enumerate(runs):
            for value in run.values(metric, column):
                found.setdefault(value.name, [""] * len(runs))[place] = _cell(value)
                sizes.setdefault(value.name, [0] * len(runs))[place] = value.n
        largest = sorted(found, key=lambda name: (-max(sizes[name]), name))
        rows += [(f"{words}: {name}", _counts(sizes[name]), *found[name]) for name in largest[:_MOST_ROWS]]
        if len(largest) > _MOST_ROWS:
            rows.append((f"{words}: {len(largest) - _MOST_ROWS} more", "", *[""] * len(runs)))
    rows += _gaps(runs, metric)
    headers = ("", "test rows", *(run.name for run in runs))
    return Table("slices", f"{metric} by language and popularity", headers, tuple(rows))


def _gaps(runs: Sequence[RunContent], metric: str) -> Iterator[tuple[str, ...]]:
    """Yield what rows that cross languages have less or more than others, of runs that measured it."""
    slices: list[dict[str, Any]] = [run.result.get("slices", {}) for run in runs]
    for name in dict.fromkeys(name for of_run in slices for name in of_run if name.startswith("language_gap")):
        found = [of_run.get(name, {}) for of_run in slices]
        cells = [
            _cell(Value(name, gap["n"], gap[metric], *gap["intervals"][metric])) if metric in gap else ""
            for gap in found
        ]
        of_readers = f" for readers of {name.partition('=')[2]}" if "=" in name else ""
        words = f"cross-language minus same-language{of_readers}"
        yield words, _counts([gap.get("n", 0) for gap in found]), *cells


def _lists(run: RunContent, name: str, is_one_of_many: bool) -> Table:
    """Return what a run's lists show by language."""
    headers, rows = beyond_accuracy_rows(run.result[_LISTS])
    title = "What the lists show" + (f" ({run.name})" if is_one_of_many else "")
    note = "Shares of the languages in the catalog, in readers' histories and in the lists, and what the lists reach."
    return Table(name, title, tuple(headers), tuple(map(tuple, rows)), note)


def _settings(runs: Sequence[RunContent], differing: bool = False) -> Table:
    """Return the settings of the runs, all or those in which they differ."""
    keys = sorted({key for run in runs for key in run.settings})
    rows = [(key, *(_text(run.settings.get(key)) for run in runs)) for key in keys]
    if differing:
        rows = [row for row in rows if len(set(row[1:])) > 1]
    name, title = ("differing", "Settings that differ") if differing else ("settings", "All settings")
    return Table(name, title, ("setting", *(run.name for run in runs)), tuple(rows), words=1 + len(runs))


def _versions(runs: Sequence[RunContent]) -> Table:
    """Return the versions of packages, and how long the runs took."""
    names = list(dict.fromkeys(name for run in runs for name in run.result.get("versions", {})))
    rows = [("folder", *(run.folder.name for run in runs)), ("seed", *(_text(run.result.get("seed")) for run in runs))]
    for part in ("build", "train", "test"):
        seconds = [run.result.get("seconds", {}).get(part) for run in runs]
        rows.append((f"seconds: {part}", *("" if value is None else f"{value:,.1f}" for value in seconds)))
    rows += [(name, *(_text(run.result.get("versions", {}).get(name)) for run in runs)) for name in names]
    return Table("versions", "Runs and versions", ("", *(run.name for run in runs)), tuple(rows), words=1 + len(runs))


def _counts(of_runs: Sequence[int]) -> str:
    """Return a number of rows, or those of each run where they differ."""
    return " / ".join(f"{n:,}" for n in (of_runs if len(set(of_runs)) > 1 else of_runs[:1]))


def _cell(value: Value) -> str:
    return f"{value.mean:.4f} ({value.low:.4f} to {value.high:.4f})"


def _number(values: Any, metric: str) -> str:
    return f"{values[metric]:.4f}" if metric in values else ""


def _text(value: Any) -> str:
    return "" if value is None else str(value)
