"""The report of finished runs: what their folders hold, and what their models do, on one page."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.data.dataloader import FullSortEvalDataLoader

from recbole_xling.data.catalog import ItemCatalog, catalog_of
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.evaluator.slices import metric_of_rows
from recbole_xling.quick_start.build import Run, load_run
from recbole_xling.quick_start.compare import FinishedRun, labels_of, read_finished, what_differs
from recbole_xling.quick_start.item_views import ItemViews, item_views
from recbole_xling.quick_start.scores import RunScores
from recbole_xling.report.content import Example, ItemMap, Neighbors, RunContent, ShownItem
from recbole_xling.report.page import report_page
from recbole_xling.utils.files import replacing
from recbole_xling.utils.run_folder import MODEL_FILE, STAGES_FILE

logger = logging.getLogger(__name__)

_ITEMS, _POINTS = 20_000, 2_000  # items whose neighbors are looked for, and points of the map, at most
_UMAP_NEIGHBORS = 15  # the default of the library
_EXAMPLES, _NEIGHBORS = 6, 8
_HISTORY, _LIST = 8, 10  # items that are shown of a history and of a list
_EXCERPT = 90
_CURVES = {"loss": "Loss/Train", "validation": "Valid_score"}  # names in TensorBoard's files


def report(
    runs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    metric: str | None = None,
    **settings: Any,
) -> Path:
    """Write a report of finished runs: one HTML page that needs nothing else, neither files nor network.

    Args:
        runs: run folders; those of fusions and evaluations have no model, and their models are not shown.
        output: the page.
        metric: the one that figures show, such as ``ndcg@10``; if not given, the first run's ``valid_metric``.
        settings: settings that replace those of every run, such as ``data_path`` if the data have moved.

    Returns:
        The page's file.

    Raises:
        CheckpointError: a folder is not that of a finished run with values per row, or its model does not fit the data.
        ConfigError: no run is given, or a metric that runs do not have.
        DataError: a dataset is missing or wrong.
    """
    if not runs or len({Path(run).resolve() for run in runs}) < len(runs):
        raise ConfigError("a report needs at least one run, each of them once")
    contents = [finished_content(Path(run)) for run in runs]
    names = labels_of([{**run.settings, "seed": None} for run in contents])
    contents = [replace(run, name=name) for run, name in zip(contents, names, strict=True)]
    metric = shown_metric(contents, metric)
    for place, content in enumerate(contents):
        if (content.folder / MODEL_FILE).is_file():
            logger.info("Looking at what %s recommends", content.folder)
            contents[place] = with_model(content, load_run(content.folder, **settings))
    page = report_page(contents, metric, _warnings(contents))
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output) as new:
        new.write_text(page, encoding="utf-8", newline="\n")
    return output


def _warnings(contents: Sequence[RunContent]) -> list[str]:
    """Return what stands against reading the results of runs side by side."""
    # a page is for others: names of runs say more there than paths
    first, *others = (FinishedRun(Path(run.name), run.result, run.settings, run.rows) for run in contents)
    found: dict[str, None] = {}
    for other in others:
        problem, differences = what_differs(first, other)
        found |= dict.fromkeys([f"Results that cannot be compared: {problem}"] if problem else differences)
    for warning in found:
        logger.warning("%s", warning)
    return list(found)


def finished_content(folder: Path) -> RunContent:
    """Return what the folder of a finished run holds.

    Raises:
        CheckpointError: it is not that of a finished run with values per row.
        ConfigError: the run has stages, each of which has a folder.
    """
    if (folder / STAGES_FILE).is_file():
        raise ConfigError(f"'{folder}' is a run in stages: name the folder of a stage")
    run = read_finished(folder)
    missing = "" if (folder / MODEL_FILE).is_file() else "the folder has no model"
    return RunContent(
        str(run.settings["model"]), folder, run.result, run.settings, run.rows, _curves(folder), missing=missing
    )


def shown_metric(runs: Sequence[RunContent], metric: str | None) -> str:
    """Return the metric that figures show.

    Raises:
        ConfigError: a run has no values of it for its rows, or the runs have none in common.
    """
    own = [[name for name in run.result["test"] if name in run.rows.columns] for run in runs]
    common = [name for name in own[0] if all(name in names for names in own)]
    if not common:
        raise ConfigError("the runs have no metric in common of which each test row has a value")
    if metric is None:
        metric = metric_of_rows(str(runs[0].settings.get("valid_metric", common[0])))
        return metric if metric in common else common[0]
    if metric not in common:
        raise ConfigError(unknown_name("metric of all runs", metric, common))
    return metric


def _curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the curves that the run has left for TensorBoard; of an epoch that was repeated, the last value."""
    if not (folder / "tensorboard").is_dir():
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.WARNING)  # it tells at which end of a file it has arrived
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    known = events.Tags()["scalars"]
    curves = {}
    for name, tag in _CURVES.items():
        parts = [
            part for part in known if part == tag or part.removeprefix(tag).isdecimal()
        ]  # a model's several losses
        by_epoch: dict[int, float] = {}
        for part in parts:
            last = {event.step: event.value for event in events.Scalars(part)}
            by_epoch = {step: by_epoch.get(step, 0.0) + value for step, value in last.items()}
        curves[name] = [(step + 1, value) for step, value in sorted(by_epoch.items()) if np.isfinite(value)]
    return curves


# ---- what the model does --------------------------------------------------------------------------------------


def with_model(content: RunContent, run: Run) -> RunContent:
    """Return a run's content with examples of what its model does."""
    texts = _Texts(run)
    missing, examples = [], []
    if isinstance(run.test_data, FullSortEvalDataLoader):
        examples = _examples(run, texts)
    else:
        missing.append("recommendations are shown where all items are ranked (eval_args: {mode: full})")
    seed, views = run.config["seed"], None
    try:
        batch = RunScores(content.folder, run).loader.collate_fn(np.arange(1))[0] if examples else None
        views = item_views(run.model, texts.catalog, _ITEMS, seed, batch and batch.to(run.config["device"]))
    except ConfigError as error:
        missing.append(str(error))
    if views is None or not len(views.items):
        missing += ["no item has a known language"] if views is not None else []
        return replace(content, examples=examples, missing="; ".join(missing))
    neighbors, items = _neighbors(views, texts, seed), _map(views, texts, seed)
    return replace(content, examples=examples, neighbors=neighbors, items=items, missing="; ".join(missing))


class _Texts:
    """The items of a run as its users see them."""

    def __init__(self, run: Run) -> None:
        self.catalog: ItemCatalog = catalog_of(run.train_data._dataset)
        self.readers = run.context.readers

    def seen_by(self, user: int, items: Sequence[int], targets: Sequence[int] = ()) -> list[ShownItem]:
        """Return items as a user sees them."""
        owner = np.full(len(items), user)
        seen = self.readers.seen(owner, np.asarray(items, dtype=np.int64))
        return [
            self.shown(item, self.readers.names[tag], item in targets) for item, tag in zip(items, seen, strict=True)
        ]

    def shown(self, item: int, language: str, is_target: bool = False) -> ShownItem:
        """Return an item with its text in a language, or its display text where it has none in it."""
        token = str(self.catalog.tokens[item])
        text = self.catalog.text_in(token, language)
        return ShownItem(token, language, "" if text is None else text.excerpt(_EXCERPT), is_target)


def _examples(run: Run, texts: _Texts) -> list[Example]:
    """Return test rows that are drawn by chance, of the languages with most rows in turn."""
    scores = RunScores(Path(run.config["run_dir"]), run)
    scores.rank("test", scores)
    number = {str(token): place for place, token in enumerate(run.context.user_tokens)}
    item_number = {token: place for place, token in enumerate(scores.item_tokens)}
    table = scores.rows
    users = np.array([number[token] for token in table["user_id"]])
    languages = np.array([run.context.user_languages[user] for user in users])
    rng = np.random.default_rng(run.config["seed"])
    names, counts = np.unique(languages, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")]
    drawn = {name: rng.permutation(np.flatnonzero(languages == name)).tolist() for name in names}
    chosen: list[int] = []
    while len(chosen) < _EXAMPLES and any(drawn.values()):
        for rows in drawn.values():
            if rows and len(chosen) < _EXAMPLES:
                chosen.append(rows.pop())
    best = scores(np.array(chosen)).topk(min(_LIST, len(item_number) - 1), dim=1)
    found = []
    for row, items, values in zip(chosen, best.indices.tolist(), best.values.tolist(), strict=True):
        user = int(users[row])
        targets = [item_number[token] for token in table["target_item"][row].split(" ")]
        history, is_ordered = _history(run, scores, row, user)
        ranked = [item for item, value in zip(items, values, strict=True) if value > -np.inf]
        parts = (texts.seen_by(user, part, targets) for part in (history[-_HISTORY:], targets, ranked))
        shown, wanted, recommended = parts
        language = run.context.user_languages[user]
        found.append(Example(table["user_id"][row], language, shown, len(history), is_ordered, wanted, recommended))
    return found


def _history(run: Run, scores: RunScores, row: int, user: int) -> tuple[list[int], bool]:
    """Return the items that the model knows of a row's user, and whether they are in the order of time."""
    field, config = run.dataset.iid_field, run.config
    batch = scores.loader.collate_fn(np.array([row]))[0]
    if field + config["LIST_SUFFIX"] in batch.columns:
        items = batch[field + config["LIST_SUFFIX"]][0, : int(batch[config["ITEM_LIST_LENGTH_FIELD"]][0])]
        return [int(item) for item in items if item], True
    return run.context.known_items[run.context.known_users == user].tolist(), False


def _neighbors(views: ItemViews, texts: _Texts, seed: int) -> list[Neighbors]:
    """Return items that are drawn by chance, of the largest languages in turn, with the nearest ones of all others."""
    names, counts = np.unique(views.languages, return_counts=True)
    names = names[np.argsort(-counts, kind="stable")][:4]
    if len(names) < 2:
        return []
    lengths = np.linalg.norm(views.vectors, axis=1)
    unit = views.vectors / np.maximum(lengths, 1e-12)[:, None]
    of_name = {name: np.flatnonzero((views.languages == name) & (lengths > 0)) for name in names}
    rng = np.random.default_rng(seed)
    drawn = {name: rng.permutation(places).tolist() for name, places in of_name.items()}
    found = []
    for turn in range(_NEIGHBORS):
        name = names[turn % len(names)]
        if not drawn[name]:
            continue
        place = drawn[name].pop()
        cosine = unit @ unit[place]
        nearest = []
        for other, candidates in of_name.items():
            if other != name and len(candidates):
                best = int(candidates[cosine[candidates].argmax()])
                nearest.append((texts.shown(int(views.items[best]), str(other)), float(cosine[best])))
        found.append(Neighbors(texts.shown(int(views.items[place]), str(name)), nearest))
    return found


def _map(views: ItemViews, texts: _Texts, seed: int) -> ItemMap:
    """Return items in the plane: by UMAP where it is installed, else on their principal axes."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(views.items))[:_POINTS])
    vectors = views.vectors[chosen].astype(np.float64)
    if importlib.util.find_spec("umap") is not None and len(chosen) > _UMAP_NEIGHBORS:
        import umap

        points = umap.UMAP(_UMAP_NEIGHBORS, metric="cosine", random_state=seed, n_jobs=1).fit_transform(vectors)
        points, method = np.asarray(points, dtype=np.float64), "UMAP of the item vectors (cosine)"
    else:
        points, method = _principal_axes(vectors)
    items = [texts.shown(int(views.items[place]), str(views.languages[place])) for place in chosen]
    return ItemMap(points, items, method)


def _principal_axes(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], str]:
    """Return vectors on their first two principal axes, ``(n, 2)``, and what share of the variance these have."""
    centered = vectors - vectors.mean(axis=0)
    values, axes = np.linalg.eigh(centered.T @ centered)
    points = centered @ axes[:, ::-1][:, :2]
    points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    share = values[::-1][:2].sum() / max(values.sum(), 1e-12)
    return points, f"the first two principal axes of the item vectors, {share:.0%} of their variance"
