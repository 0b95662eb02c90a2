"""Hyper-parameter search: trials drawn by Optuna, each a run, stopped early where earlier ones were better by then."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from recbole_xling.config import XLingConfig
from recbole_xling.data.checks import FILTERS
from recbole_xling.errors import CheckpointError, ConfigError, XlingError
from recbole_xling.quick_start.benchmark import only_one
from recbole_xling.quick_start.build import find_dataset
from recbole_xling.quick_start.reuse import asked_of, is_asked
from recbole_xling.quick_start.train import run
from recbole_xling.utils.files import replacing
from recbole_xling.utils.run_folder import simple
from recbole_xling.utils.typed_config import TypedConfig
from recbole_xling.utils.yaml_text import as_words, settings_text

logger = logging.getLogger(__name__)

STUDY_FILE = "study.db"
BEST_FILE = "best.yaml"
_STUDY = "tune"
_LARGEST = 2**53  # of the whole numbers that a search can tell apart
_MEASURED = frozenset((*FILTERS, *"""
    benchmark_filename checkpoint_dir data_path dataset eval_args exclude_history languages metrics repeatable resume
    run_dir seed threshold topk train_on_validation valid_metric valid_users
    """.split()))  # fmt: skip
"""Settings that decide what is validated, by what chance, or where a run is."""

_FEWEST = 5  # finished trials before the first one is stopped early


class _StopError(XlingError):
    """A trial ends early. Optuna's own exception would count as a fault of the settings."""


class Range(TypedConfig):
    """Numbers to draw from; whole ones if both ends are."""

    section: ClassVar[str] = "range"

    low: Any = Field(description="The smallest one.")
    high: Any = Field(description="The largest one.")
    log: bool = Field(False, description="Draw evenly by order of magnitude.")

    @field_validator("low", "high")
    @classmethod
    def _is_a_number(cls, value: Any, info: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _LARGEST:
            raise ConfigError(f"{info.field_name} must be a number, not {value!r:.40}")
        return value


class TuneConfig(TypedConfig):
    """What is searched."""

    section: ClassVar[str] = "search"

    settings: dict[str, Any] = Field({}, description="Settings of all trials.")
    search: dict[str, Any] = Field(
        min_length=1, description="Setting: a list to choose from, or a range `{low: 1e-4, high: 1e-2, log: True}`."
    )
    trials: int = Field(20, ge=1, description="How many runs, those of earlier calls included.")
    pruning: bool = Field(True, description="Stop trials whose validation is worse than the median of earlier ones.")


def tune(
    file: str | os.PathLike[str] | None,
    output: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    **changed: Any,
) -> Any:
    """Search for the settings with the best validation, and write them to ``best.yaml``.

    Trials are kept in ``study.db``, so that a search that was stopped goes on where it was: a trial that was running is
    begun again. Settings that were drawn before are not run again. A trial that fails does not stop the rest.

    Args:
        file: the YAML file, a :class:`TuneConfig`; None for no file.
        output: folder of the search, with a run folder for each trial.
        arguments: command-line arguments ``--key=value``, on top of the file's ``settings``.
        changed: fields of :class:`TuneConfig` that replace the file's.

    Returns:
        Optuna's study.

    Raises:
        CheckpointError: the search in ``output`` is damaged.
        ConfigError: the search is wrong, or ``output`` has another one, or another process works there.
        XlingError: all trials failed.
    """
    optuna = _optuna()
    plan = TuneConfig.from_file(file, **changed) if file else TuneConfig(**changed)
    ranges = {name: _values(name, value) for name, value in plan.search.items()}
    config = XLingConfig(config_dict=as_words(plan.settings), arguments=arguments)
    find_dataset(config)
    given = config.external_config_dict
    for name, values in ranges.items():
        if name in _MEASURED:
            raise ConfigError(f"search: {name} decides what is validated, by what chance, or where: do not search it")
        if name in given:
            raise ConfigError(f"{name} is both set and searched: leave it out of one of them")
        ends = values if isinstance(values, list) else [values.low, values.high]
        for value in ends:
            XLingConfig(config_dict=as_words({**plan.settings, name: value}), arguments=arguments)
    if config["stages"]:
        raise ConfigError("stages cannot be searched: tune a model without them")
    with only_one(Path(output)), _database(optuna, Path(output) / STUDY_FILE):
        study = _open(optuna, config, plan, Path(output))
        counted = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.FAIL)
        grid = _grid(ranges, plan.trials)
        while True:
            done = [t for t in study.get_trials(states=counted) if "interrupted" not in t.user_attrs]
            tried = [t.params for t in done]  # an earlier call with fewer trials may have drawn some of a grid twice
            left = [choice for choice in grid if choice not in tried]
            n_trials = len(done) + len(left) if grid else plan.trials
            if len(done) >= n_trials:
                break
            if left and not study.get_trials(states=(optuna.trial.TrialState.WAITING,)):  # interrupted ones come first
                study.enqueue_trial(left[0])
            trial = study.ask()
            settings = {**plan.settings, **{name: _draw(trial, name, values) for name, values in ranges.items()}}
            _run_trial(optuna, study, trial, settings, arguments, Path(output) / f"trial-{trial.number}")
            logger.info("[%d/%d] %s", len(done) + 1, n_trials, _told(study.trials[trial.number]))
        if not study.get_trials(states=(optuna.trial.TrialState.COMPLETE,)):
            raise XlingError(
                f"all {len(done)} trials failed; the last one: {done[-1].user_attrs.get('error', 'pruned')}"
            )
        best = settings_text(simple({**given, **study.best_params}))
        with replacing(Path(output) / BEST_FILE) as new:
            new.write_text(best, encoding="utf-8")
    return study


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("tune needs Optuna: pip install 'recbole-xling[tune]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _values(name: str, value: Any) -> list[Any] | Range:
    """Read what a setting is drawn from.

    Raises:
        ConfigError: it is neither a list of plain values nor a range.
    """
    if isinstance(value, list) and value:
        if any(not isinstance(choice, str | int | float | bool | None) for choice in value):
            raise ConfigError(f"search: {name} can be chosen from plain values only, not from lists or dictionaries")
        return value
    if not isinstance(value, dict):
        raise ConfigError(
            f"search: {name} must be a list of values or a range such as {{low: 1, high: 3}}, not {value!r}"
        )
    try:
        found = Range(**{str(key): part for key, part in value.items()})
    except ConfigError as error:
        raise ConfigError(f"search: {name}: {error}") from error
    if found.low >= found.high or (found.log and found.low <= 0):
        raise ConfigError(f"search: {name} must have low < high" + " and, with log, low > 0" * found.log)
    return found


def _grid(ranges: Mapping[str, list[Any] | Range], n_trials: int) -> list[dict[str, Any]]:
    """Return all that can be drawn, if that is no more than the trials; they would draw some of it twice."""
    lists = [values for values in ranges.values() if isinstance(values, list)]
    if len(lists) < len(ranges) or prod(map(len, lists)) > n_trials:
        return []
    return [dict(zip(ranges, choice, strict=True)) for choice in itertools.product(*lists)]


def _draw(trial: Any, name: str, values: list[Any] | Range) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    suggest = trial.suggest_int if isinstance(values.low, int) and isinstance(values.high, int) else trial.suggest_float
    return suggest(name, values.low, values.high, log=values.log)


@contextmanager
def _database(optuna: Any, path: Path) -> Iterator[None]:
    """Turn errors of a search's database into one that says what can be done.

    Raises:
        CheckpointError: it is damaged, or the system refuses to read or write it.
    """
    from sqlalchemy.exc import OperationalError, SQLAlchemyError  # which Optuna needs

    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = error if isinstance(error, SQLAlchemyError) else error.__cause__ or error
        problem, is_refused = str(cause).splitlines()[0], isinstance(cause, OperationalError)
        what = "cannot be used" if is_refused else "is damaged"
        advice = "Free space or get access to it, or name" if is_refused else "Name"
        raise CheckpointError(f"'{path}' {what}: {problem}. {advice} another folder (--output)") from None


def _open(optuna: Any, config: XLingConfig, plan: TuneConfig, output: Path) -> Any:
    """Return the study of a folder, a new one where there is none; what was running is to be run again.

    Raises:
        ConfigError: the folder has another search.
    """
    states = optuna.trial.TrialState
    direction = "maximize" if config["valid_metric_bigger"] else "minimize"
    pruner = optuna.pruners.MedianPruner(_FEWEST) if plan.pruning else optuna.pruners.NopPruner()
    path = output / STUDY_FILE
    is_new = not path.exists()
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{str(path).replace('%', '%25').replace('?', '%3F')}")
        study = optuna.create_study(
            storage=storage, study_name=_STUDY, direction=direction, pruner=pruner, load_if_exists=True
        )
    except Exception:
        if is_new:
            path.unlink(missing_ok=True)
        raise
    # Another seed for each call: with the same one, the first trials of this call would be those of the first call.
    study.sampler = optuna.samplers.TPESampler(seed=config["seed"] + len(study.trials))
    asked = json.loads(json.dumps({**asked_of(config), "search": plan.search}, default=str))
    before = json.loads(study.user_attrs.get("asked", "null")) or asked
    if before["search"] != asked["search"] or not is_asked(before, asked):
        raise ConfigError(
            f"'{output}' has a search with other settings, ranges, data or encoder: name another folder (--output)"
        )
    known = {**asked, "encoder": asked["encoder"] or before.get("encoder")}  # also while it is away
    study.set_user_attr("asked", json.dumps(known, sort_keys=True))
    for frozen in study.get_trials(states=(states.RUNNING,)):
        study.enqueue_trial(frozen.params or frozen.system_attrs.get("fixed_params", {}))  # drawn, or to be drawn
        storage.set_trial_user_attr(frozen._trial_id, "interrupted", True)
        study.tell(frozen.number, state=states.FAIL)
    return study


def _run_trial(
    optuna: Any, study: Any, trial: Any, settings: Mapping[str, Any], arguments: Sequence[str], folder: Path
) -> None:
    """Run one trial, or take over the value of an earlier one with the same settings, and tell the study."""
    states = optuna.trial.TrialState
    for earlier in study.get_trials(states=(states.COMPLETE,)):
        if earlier.params == trial.params:
            trial.set_user_attr("run_dir", earlier.user_attrs["run_dir"])
            study.tell(trial, earlier.value)
            return
    scores: list[float] = []

    def report(epoch: int, score: float) -> None:
        scores.append(score)
        trial.report(score, epoch)
        if trial.should_prune():
            raise _StopError

    trial.set_user_attr("run_dir", str(folder))
    try:
        run(config_dict={**as_words(settings), "run_dir": str(folder)}, arguments=arguments, callback_fn=report)
        if not scores:
            raise ConfigError("nothing was validated: eval_step must be at least 1, and at most epochs")
    except _StopError:
        study.tell(trial, state=states.PRUNED)
    except XlingError as error:
        trial.set_user_attr("error", str(error))
        study.tell(trial, state=states.FAIL)
    else:
        study.tell(trial, max(scores) if study.direction == optuna.study.StudyDirection.MAXIMIZE else min(scores))


def _told(trial: Any) -> str:
    """Say in a line how a trial went."""
    drawn = ", ".join(f"{name}={_shown(value)}" for name, value in trial.params.items())
    if "error" in trial.user_attrs:
        return f"failed: {drawn}: {trial.user_attrs['error']}"
    value = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else "stopped early"
    return f"{value}  {drawn}"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def trials_table(study: Any) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines of a table of trials: the best first, then those that stopped early or failed."""
    names = list(dict.fromkeys(name for trial in study.trials for name in trial.params))
    sign = -1 if study.direction.name == "MAXIMIZE" else 1
    order = ["COMPLETE", "PRUNED", "FAIL"]
    lines = []
    shown = [t for t in study.trials if t.state.name in order and "interrupted" not in t.user_attrs]
    for trial in sorted(shown, key=lambda t: (order.index(t.state.name), sign * (t.value or 0.0), t.number)):
        said = {"COMPLETE": "", "PRUNED": "stopped early", "FAIL": "failed"}[trial.state.name]
        value = f"{trial.value:.4f}" if trial.state.name == "COMPLETE" else said
        epochs = str(len(trial.intermediate_values) or "")
        drawn = [_shown(trial.params.get(name, "")) for name in names]
        lines.append([str(trial.number), value, epochs, *drawn, Path(trial.user_attrs["run_dir"]).name])
    return ["trial", "validation", "evaluations", *names, "folder"], lines
