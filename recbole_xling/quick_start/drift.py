"""How a dataset of now differs from the one that a run was trained on, and what its model makes of the difference."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.data.catalog import catalog_of
from recbole_xling.data.identity import changes
from recbole_xling.data.impressions import Interactions
from recbole_xling.data.mixin import check_raw_times
from recbole_xling.errors import CheckpointError, DataError
from recbole_xling.evaluator.drift import LIMITS, Side, joined, language_shares, measures, since, verdict
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.quick_start.build import interactions_of, load_run, open_dataset
from recbole_xling.quick_start.trained import read_trained, settings_for
from recbole_xling.serve.catalog import Users
from recbole_xling.serve.recommender import Recommender
from recbole_xling.text.raw_tables import table_columns, table_rows
from recbole_xling.utils.run_folder import model_file, versions

_ASKED = 1000  # users of each side whose highest scores are compared
_AT_ONCE = 128


def drift(
    run: str | os.PathLike[str],
    dataset: str | None = None,
    *,
    then: str | os.PathLike[str] | None = None,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare a dataset of now with the one that a run was trained on.

    Items and users are the same if they have the same ids. If the dataset is a later state of the run's, only what has
    come since is compared; otherwise all of it is.

    Args:
        run: the run folder; its settings are taken.
        dataset: name of the dataset; the run's own if not given, from another folder or under ``then``.
        then: ``data_path`` of the files that the run was trained on, if they have moved.
        arguments: command-line arguments ``--key=value`` that replace the run's for the dataset of now.

    Returns:
        Plain data: ``sizes``, ``left_out`` (rows of the files that are not used, by reason), ``languages``,
        ``measures`` with their ``limits``, ``samples`` for figures, ``verdict``.

    Raises:
        CheckpointError: the folder is no run, or the files of its training are gone.
        ConfigError: a setting is wrong.
        DataError: the dataset cannot be used, its times are normalized, or it has nothing that training did not have.
    """
    trained = read_trained(model_file(run))
    config = settings_for(trained, dataset, arguments=arguments)
    loaded = load_run(run, **({"data_path": str(then)} if then is not None else {}))
    if trained.data is not None and (changed := changes(trained.data.files, loaded.dataset.fingerprint)):
        raise CheckpointError(
            f"the files that '{Path(run).name}' was trained on have changed: {'; '.join(changed)}. There is nothing to "
            "compare with: name the folder that holds the files of then (--then)"
        )
    now = open_dataset(config)
    for side in (loaded.dataset, now):
        check_raw_times(side, "drift")
    before = _side(loaded.dataset, loaded.interactions)
    after, kept = since(before, replace(_side(now, interactions_of(now)), offered=_offered(now)))
    if not len(after.users):
        raise DataError(f"'{config['dataset']}' has no interaction that the run was not trained on")
    recommender, both, seed = loaded.recommender, joined(before, after), int(config["seed"])
    stated = {**catalog_of(loaded.dataset).stated_languages, **catalog_of(now).stated_languages}
    of_then, _ = _top_scores(recommender, before, before.active, stated, seed)
    of_now, unserved = _top_scores(recommender, both, after.active, stated, seed)
    by_user = recommender.scorer.by_user
    found = measures(before, after, both, (of_then, of_now), unserved, by_user=by_user, seed=seed)
    languages, left_out = language_shares(before, after), _left_out(now)
    seen = languages["interactions"]
    new_languages = [name for name, (was, now) in seen.items() if now and not was and name != UNDETERMINED]
    return {
        "run": str(run),
        "model": config["model"],
        "trained_on": trained.settings["dataset"],
        "dataset": config["dataset"],
        "sizes": {"then": before.size, "now": after.size, "of_then_still_there": kept},
        "left_out": {"then": _left_out(loaded.dataset), "now": left_out},
        "languages": {kind: {name: list(pair) for name, pair in table.items()} for kind, table in languages.items()},
        "measures": [
            {**measure._asdict(), "limits": list(LIMITS[measure.name]) if measure.name in LIMITS else None}
            for measure in found
        ],
        "verdict": verdict(found, new_languages, len(after.users), left_out),
        "samples": {
            "top_scores": {"then": of_then, "now": of_now},
            "history_lengths": {
                "then": _counted(before.lengths(before.active)),
                "now": _counted(both.lengths(after.active)),
            },
        },
        "seed": seed,
        "versions": versions(),
    }


def _side(dataset: Any, interactions: Interactions) -> Side:
    """Return interactions with what their dataset knows of users and items."""
    (users, items, times), catalog = interactions, catalog_of(dataset)
    tokens = [str(token) for token in dataset.field2id_token[dataset.uid_field]]
    readers = catalog.readers(tokens)
    return Side(
        np.array(tokens),
        np.array([str(token) for token in dataset.field2id_token[dataset.iid_field]]),
        users,
        items,
        times,
        np.array(readers.languages(users, items)),
        np.array(list(readers.displayed)),
        np.array(readers.names)[readers.seen(users, items)],
    )


def _left_out(dataset: Any) -> dict[str, int]:
    """Return how many interactions of the file a dataset does not use, by reason."""
    rows = dataset.file_rows.get("inter")
    return {} if rows is None else {reason: n for reason, n in rows.dropped.items() if n}


def _offered(dataset: Any) -> NDArray[np.str_]:
    """Return the ids of the ``.item`` file: items that nobody has chosen may not be loaded."""
    file = Path(dataset.config["data_path"]) / f"{dataset.dataset_name}.item"
    table: dict[str, Any] = {"path": file, "separator": dataset.config["field_separator"]}
    if not file.is_file() or dataset.iid_field not in table_columns(**table):
        return np.array([], dtype=str)
    return np.array([cells[0] for _, cells in table_rows(required=[dataset.iid_field], **table)], dtype=str)


def _counted(lengths: NDArray[np.int64]) -> list[list[int]]:
    """Return how many users have each number of interactions."""
    return [[int(length), int(users)] for length, users in zip(*np.unique(lengths, return_counts=True), strict=True)]


def _top_scores(
    recommender: Recommender, everything: Side, active: NDArray[np.str_], stated: Mapping[str, str], seed: int
) -> tuple[list[float], float | None]:
    """Return the highest scores of some users by all that is known of them, and the share who cannot be served.

    Args:
        recommender: of the run.
        everything: where the histories come from.
        active: external ids of those to choose from.
        stated: the language of each user who states one; others are served as readers of none.
        seed: of the choice.
    """
    parts = everything.users, everything.items, everything.times
    histories = Users.of_interactions(everything.user_tokens.tolist(), everything.reader_language.tolist(), *parts)
    users = np.flatnonzero(np.isin(everything.user_tokens, active))
    if len(users) > _ASKED:
        users = np.sort(np.random.default_rng(seed).choice(users, _ASKED, replace=False))
    groups: dict[str | None, list[tuple[str, list[str]]]] = {}
    for user in users.tolist():
        history = [str(token) for token in everything.item_tokens[histories.history(user)]]
        token = str(everything.user_tokens[user])
        language = stated.get(token)
        if not recommender.unserved(recommender.request(token, history, language)):
            groups.setdefault(language, []).append((token, history))
    found = []
    for language, asked in groups.items():
        for at in range(0, len(asked), _AT_ONCE):
            tokens, known = zip(*asked[at : at + _AT_ONCE], strict=True)
            answers = recommender.recommend_histories(known, 1, users=tokens, reader=language)
            found += [answer.items[0].score for answer in answers if answer.items]
    return found, 1 - sum(map(len, groups.values())) / len(users)
