"""A trained run as a folder that serves without torch, RecBole and the dataset: ``recbole-xling export``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_xling.errors import ConfigError, XlingError
from recbole_xling.model.factors import UserOfVectors
from recbole_xling.model.layers.language_embedding import LANGUAGES
from recbole_xling.model.xlingtwotower import XLingTwoTower
from recbole_xling.quick_start.build import Run, load_run
from recbole_xling.quick_start.export import can_be_merged, check_empty, write_encoder
from recbole_xling.quick_start.model_card import card_text
from recbole_xling.quick_start.model_scorer import ModelScorer
from recbole_xling.quick_start.onnx_tower import write_tower
from recbole_xling.quick_start.reuse import IRRELEVANT
from recbole_xling.serve import folder as files
from recbole_xling.serve.added import read_added, write_added
from recbole_xling.serve.catalog import Users
from recbole_xling.serve.indexes import check_kind, index_file, open_index, write_index
from recbole_xling.serve.recommender import Recommender
from recbole_xling.serve.scorer import Rows
from recbole_xling.serve.vectors import bias_weight
from recbole_xling.serve.withdrawn import read_withdrawn, write_withdrawn
from recbole_xling.utils.files import replacing
from recbole_xling.utils.run_folder import CONFIG_FILE, read_result, simple, versions
from recbole_xling.utils.yaml_text import read_yaml_settings

FloatArray = NDArray[np.float32]
_ASKED = 500  # users whose best items an index is compared on
_BEST = 10
_AT_ONCE = 16


def export_run(
    run: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    index: str | None = None,
    with_users: bool = True,
    license_id: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write a run as a folder of its own; it appears whole or not at all.

    Args:
        run: the run folder.
        folder: to be made, or empty.
        index: kind of the index of items: ``flat``, ``hnsw``, ``ivfpq``, ``usearch``; without one all items are scored.
        with_users: whether the users' ids and histories go with it.
        license_id: for the model card, as Hugging Face writes it.
        settings: settings that replace the run's, such as ``data_path`` if the data have moved.

    Returns:
        What ``export.json`` holds.

    Raises:
        CheckpointError: the folder is no run, or its model does not fit the data.
        ConfigError: the model has no vectors of users and items, its users cannot be computed by ONNX with the same
            result, or ``folder`` contains something.
        MissingExtraError: a package is not installed.
        XlingError: the folder cannot be written.
    """
    folder = Path(folder)
    check_empty(folder)
    if index is not None:
        check_kind(index)
    loaded = load_run(run, **settings)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with replacing(folder) as new:
            new.mkdir()
            manifest = _Export(loaded, new).write(index, with_users=with_users)
            write_withdrawn(new, read_withdrawn(run))
            if added := read_added(run):
                write_added(new, added)
            result = read_result(Path(run))
            # those that make this another thing than the run that was tested
            manifest["settings"] = {key: simple(value) for key, value in settings.items() if key not in IRRELEVANT}
            card = card_text(loaded, read_yaml_settings(Path(run) / CONFIG_FILE), result, manifest, license_id)
            (new / files.CARD_FILE).write_text(card, encoding="utf-8", newline="\n")
            manifest["files"] = files.checksums(new)
            (new / files.MANIFEST_FILE).write_text(files.manifest_text(manifest), encoding="utf-8")
            if folder.exists():  # an empty folder; not every system replaces one
                folder.rmdir()
    except OSError as error:
        raise XlingError(
            f"cannot write the export to '{folder}': {error}. Free space or name another folder"
        ) from error
    return manifest


class _Export:
    """The parts of an export, written one after the other.

    Args:
        run: loaded.
        folder: exists, and is empty.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.folder = run, folder
        self.recommender: Recommender = run.recommender.trained
        scorer = self.recommender.scorer
        assert isinstance(scorer, ModelScorer)
        self.scorer = scorer
        self.read = [scorer.text_languages(view) for view in range(scorer.n_views)]
        self.tower = UserOfVectors(run.model).eval()

    def write(self, index: str | None, *, with_users: bool) -> dict[str, Any]:
        """Write everything but the model card, and return the manifest without the checksums."""
        users, scorer = self.recommender.users, self.scorer
        with_users = with_users and not users.missing
        if scorer.by_user and not with_users:
            raise ConfigError(f"{scorer.name} knows users by their ids: it cannot be exported without them")
        if scorer.by_user and scorer.by_history:
            raise ConfigError(f"{scorer.name} knows users by their ids and histories: only one of them can be exported")
        n_views = scorer.n_views
        tables = [scorer.item_vectors(view) for view in range(n_views)]
        bias = tables[0][1]
        self._write_items()
        if with_users:
            self._write_users(users)
        histories: list[FloatArray] = []
        if scorer.by_history:
            histories = [scorer.history_vectors(view) for view in range(n_views)]
        else:
            nothing = [np.empty(0, dtype=np.int64)] * len(users.tokens)
            everybody = Rows(np.arange(len(users.tokens)), list(users.languages), nothing)
            np.save(self.folder / files.USER_VECTORS_FILE, scorer.user_vectors(0, everybody))
        self._write_vectors([items for items, _ in tables], histories, bias)
        parity = (
            write_tower(self.tower, self.recommender, histories[0], self.read[0], self.folder / files.TOWER_FILE)
            if scorer.by_history
            else None
        )
        reads_texts = self._write_encoder()
        found = None
        if index is not None:
            written = [self._write_index(index, view, items, bias) for view, (items, _) in enumerate(tables)]
            recalls, weights = zip(*written, strict=True)
            found = {"kind": index, f"recall@{_BEST}": min(recalls), "weights": weights}
        intake = self.recommender.intake
        facts: dict[str, Any] = {"index": found, "largest_difference_of_users": parity}
        facts |= {"new_items": intake and vars(intake), "reads_texts": reads_texts}
        return {**self._facts(), "users": len(users.tokens) - 1 if with_users else None, **facts}

    def _facts(self) -> dict[str, Any]:
        """Return what the manifest says of model, items and users."""
        catalog, scorer = self.recommender.catalog, self.scorer
        return {
            "format": files.FORMAT,
            "model": scorer.name,
            "dataset": str(self.run.config["dataset"]),
            "items": len(catalog.tokens) - 1,
            "by_history": scorer.by_history,
            "bias_by_history": scorer.known_items is not None,
            "without_history": scorer.without_history,
            "model_views": scorer.n_views,
            "view_of": dict(catalog.view_of),
            "spoken": list(self.recommender.users.spoken),
            "language_numbers": {tag: number for number, tag in enumerate(LANGUAGES, start=1)},
            "longest_history": scorer.longest,
            "vector_size": scorer.vectors(0, np.ones(1, dtype=np.int64)).shape[1],
            "columns": sorted(catalog.columns),
            "versions": versions(),
        }

    # ---- vectors ----------------------------------------------------------------------------------------------

    def _write_vectors(self, items: list[FloatArray], histories: list[FloatArray], bias: FloatArray) -> None:
        """Write vectors twice: with names and types as safetensors, and to be mapped into memory."""
        from safetensors.numpy import save_file

        tables = {f"items.{view}": table for view, table in enumerate(items)}
        for view, table in enumerate(histories):
            if table.shape != items[view].shape or not np.array_equal(table, items[view]):
                tables[f"histories.{view}"] = table
        for name, table in tables.items():
            kind, _, number = name.partition(".")
            np.save(self.folder / files.vectors_file(kind, int(number)), table)
        np.save(self.folder / files.BIAS_FILE, bias)
        whole = {name: np.ascontiguousarray(table) for name, table in {**tables, "bias": bias}.items()}
        save_file(whole, str(self.folder / "items.safetensors"))

    def _write_index(self, kind: str, view: int, items: FloatArray, bias: FloatArray) -> tuple[float, float]:
        """Write the index of a view; return the share of the best items of its users that it finds, and its weight."""
        catalog, users, path = self.recommender.catalog, self.recommender.users, self.folder / index_file(kind, view)
        exist = np.flatnonzero(catalog.exists)
        items, bias = items[exist], bias[exist]
        weight = write_index(kind, items, bias, path)
        search, k, n_views = open_index(kind, path, weight), min(_BEST, len(items)), self.scorer.n_views
        view_of_user = np.array([catalog.view_of.get(tag, 0) if n_views > 1 else 0 for tag in users.languages])
        theirs = np.flatnonzero((np.diff(users.starts) > 0) & (view_of_user == view))
        if not len(theirs):
            return 1.0, weight  # of nobody's items
        chosen = theirs[np.linspace(0, len(theirs) - 1, min(_ASKED, len(theirs))).astype(np.int64)]
        rows = Rows(chosen, [users.languages[user] for user in chosen], [users.history(user) for user in chosen])
        weight_of = bias_weight(self.scorer.known_items, rows.histories, self.scorer.longest)
        vectors, hits = self.scorer.user_vectors(view, rows) / weight_of, 0
        for at in range(0, len(chosen), _AT_ONCE):
            some = vectors[at : at + _AT_ONCE]
            best = torch.from_numpy(some @ items.T + bias).topk(k).indices.numpy()
            hits += sum(len(np.intersect1d(*pair)) for pair in zip(search(some, k), best, strict=True))
        return hits / (k * len(chosen)), weight

    # ---- the other files --------------------------------------------------------------------------------------

    def _write_items(self) -> None:
        catalog, known = self.recommender.catalog, self.scorer.known_items

        def records() -> Iterable[Mapping[str, Any]]:
            for item in range(1, len(catalog.tokens)):
                titles = [of_view[item] for of_view in catalog.titles]
                languages = [str(of_view[item]) for of_view in catalog.languages]
                columns = {name: list(values[item]) for name, values in catalog.columns.items() if values[item]}
                texts = {"titles": titles, "languages": languages}
                if (tags := [of_view[item] for of_view in self.read]) != languages[: len(self.read)]:
                    texts["read"] = tags
                texts = {name: values[:1] if len(set(values)) == 1 else values for name, values in texts.items()}
                count, further = int(catalog.counts[item]), {} if catalog.exists[item] else {"withdrawn": True}
                if known is not None and bool(known[item]) != (count > 0):
                    further["known"] = bool(known[item])
                yield {
                    "id": str(catalog.tokens[item]),
                    **texts,
                    "count": count,
                    "columns": columns,
                    **further,
                }

        _write_lines(self.folder / files.ITEMS_FILE, records())

    def _write_users(self, users: Users) -> None:
        tokens = self.recommender.catalog.tokens
        records = (
            {
                "id": str(users.tokens[user]),
                "language": users.languages[user],
                "history": [str(tokens[item]) for item in users.history(user)],
                **({} if users.taught is None or users.taught[user] else {"untaught": True}),
            }
            for user in range(1, len(users.tokens))
        )
        _write_lines(self.folder / files.USERS_FILE, records)

    def _write_encoder(self) -> bool:
        """Write the encoder of XLingTwoTower, merged, and its adapters; return whether texts can be read by that."""
        model = self.run.model
        if not isinstance(model, XLingTwoTower) or not can_be_merged(model.encoder):
            return False
        (self.folder / files.ENCODER_FOLDER).mkdir()
        write_encoder(model.encoder, self.folder / files.ENCODER_FOLDER)
        adapted: Any = model.encoder.adapted
        if hasattr(adapted, "peft_config"):
            adapted.save_pretrained(self.folder / "adapters")
        if (means := model.language_means()) is not None:
            np.save(self.folder / files.MEANS_FILE, means.float().cpu().numpy())
        return model.gate is None  # which needs the encoder as it was, too


def _write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
