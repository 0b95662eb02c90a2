"""Several stages in one folder: pretraining, joint training, fine-tuning per language, and what each has brought."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_xling.config import XLingConfig, plain_settings, settings_of
from recbole_xling.config.stages import PER_LANGUAGE, Stage, read_stages
from recbole_xling.data.identity import fingerprint
from recbole_xling.data.language_balance import RowLanguages, rows_of_languages
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.evaluator.stage_table import language_table
from recbole_xling.quick_start.build import build_data
from recbole_xling.quick_start.reuse import IRRELEVANT, encoder_of, is_same_encoder
from recbole_xling.quick_start.train import open_folder
from recbole_xling.quick_start.trained import refuse_code
from recbole_xling.trainer.checkpoint import load_checkpoint
from recbole_xling.trainer.masked_language_model import PretrainingConfig, pretrain, pretraining_settings
from recbole_xling.trainer.trainer import RESUME_FILE
from recbole_xling.utils.files import file_digest
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.run_folder import (
    CONFIG_FILE,
    MODEL_FILE,
    RESULT_FILE,
    STAGES_FILE,
    USERS_FILE,
    in_use,
    logging_to,
    read_result,
    read_users,
    remove_stale,
    reopen,
    simple,
    write_config,
    write_json,
)
from recbole_xling.utils.yaml_text import as_words, read_yaml_settings

logger = logging.getLogger(__name__)

_SMALLER_RATE = 0.1  # of fine-tuning, times the rates of joint training
_L2_SP = 0.01
_DO_NOT_DECIDE_ROWS = frozenset(  # as far as stages often differ in them
    "attn_dropout_prob average_checkpoints epochs eval_step hidden_dropout_prob init_from l2_sp languages learner "
    "learning_rate learning_rates lr_schedule run_dir stages stopping_step train_batch_size warmup_steps "
    "weight_decay".split()
)
_EVEN = (None, "constant")  # settings that do not change over the epochs


def run_stages(config: XLingConfig, resume: Path | None, train: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Run the stages that the settings name, each in a folder of its own inside of one folder.

    A stage that has finished with the same settings on the same data is not repeated; one that was interrupted goes
    on. What has finished stays if a later stage fails.

    Args:
        config: settings of all stages, with ``stages``.
        resume: folder of earlier stages to go on with.
        train: trains and tests; takes arguments of :func:`~recbole_xling.quick_start.train.run`.

    Returns:
        The content of ``stages.json``: the result of each stage, and a table of languages.

    Raises:
        XlingError: settings or data cannot be used, or a file cannot be written.
    """
    stages = read_stages(config["stages"])
    own = {**config.variable_config_dict, **config.cmd_config_dict}
    if resume is not None and "stages" not in own:
        for stage in stages:
            refuse_code(resume, stage.settings, own)
    plan = _Plan(config, stages, Path())
    for stage in stages:  # most errors come before anything is started
        plan.config_of(stage)
    _check_languages(plan, [stage for stage in stages if stage.kind in PER_LANGUAGE])
    folder = open_folder(config, resume).resolve()
    with in_use(folder):
        try:
            with logging_to(folder, config["state"]):
                reopen(folder)
                write_config(folder, plain_settings(config))
                return _run(stages, config, folder, train)
        except BaseException:
            if any(path.is_dir() for path in folder.iterdir()):
                logger.warning("The stages have not finished. They go on with --resume=%s", folder)
            elif resume is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise


def _check_languages(plan: _Plan, stages: Sequence[Stage]) -> None:
    """Read and split the data, so that a language without rows is known before anything is trained.

    They are read once for all stages that read and split them alike.

    Raises:
        DataError: a part of the split has no row of a stage's language.
    """
    read: dict[str, list[Any]] = {}
    for stage in stages:
        config = plan.config_of(stage)
        assert isinstance(config, XLingConfig)
        config["languages"] = None
        settings = {key: value for key, value in plain_settings(config).items() if key not in _DO_NOT_DECIDE_ROWS}
        key = json.dumps(simple(settings), sort_keys=True)
        if key not in read:
            data = build_data(config)
            read[key] = [loader._dataset for loader in (data.train_data, data.valid_data, data.test_data)]
        parts = read[key]
        known = RowLanguages(parts[0], config["language_of"])
        for part in parts:
            try:
                rows_of_languages(part, [stage.language], known)
            except DataError as error:
                raise DataError(f"stages: {stage.name}: {error}") from error


def _run(
    stages: list[Stage], config: XLingConfig, folder: Path, train: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    plan, results = _Plan(config, stages, folder), {}
    for number, stage in enumerate(stages, start=1):
        own = plan.config_of(stage)
        path, finished = plan.find(stage, own)
        if finished:
            logger.info("Stage %d of %d, %s: finished in '%s'", number, len(stages), stage.name, path)
            results[stage.name] = read_result(path)
        else:
            logger.info("Stage %d of %d, %s: '%s'", number, len(stages), stage.name, path)
            if isinstance(own, PretrainingConfig):
                results[stage.name] = pretrain(config, own, path)
            else:
                going_on = (path / RESUME_FILE).is_file()
                where = {"resume" if going_on else "run_dir": str(path)}
                settings = {**as_words(plain_settings(own)), **where}
                results[stage.name] = train(model=config.model_class, dataset=config["dataset"], config_dict=settings)
        plan.done[stage.name] = path
    tested = {name: result for name, result in results.items() if result.get("test")}
    rows = {name: read_users(plan.done[name]) for name in tested if (plan.done[name] / USERS_FILE).is_file()}
    valued = list(next(iter(tested.values()))["test"]) if tested else []
    metrics = [metric for metric in valued if all(metric in table.columns for table in rows.values())]
    table = language_table(rows, metrics) if metrics else {}
    if rows and not metrics:
        shared = set(valued).intersection(*(result["test"] for result in tested.values()))
        why = f"{', '.join(sorted(shared))} have no values of rows" if shared else "the stages have no metric in common"
        logger.info("No table of languages: %s", why)
    brief = ("test", "best_valid", "n_test", "seconds", "held_out_loss")
    result = {
        "model": config["model"],
        "dataset": config["dataset"],
        "stages": [
            {"name": name, "folder": plan.done[name].name, **{key: found[key] for key in brief if key in found}}
            for name, found in results.items()
        ],
        "metric": config["valid_metric"].lower(),
        "languages": table,
        "seed": config["seed"],
        "run_dir": str(folder),
    }
    write_json(folder / STAGES_FILE, result)
    remove_stale(folder)
    return result


class _Plan:
    """The settings and the folder of each stage, given those that are done.

    Attributes:
        done: folder of each stage that has finished, by its name.
    """

    def __init__(self, config: XLingConfig, stages: Sequence[Stage], folder: Path) -> None:
        self._config, self._folder = config, folder
        self._of_joint = next((stage.settings for stage in stages if stage.kind == "joint"), {})
        self.done: dict[str, Path] = {}

    def config_of(self, stage: Stage) -> XLingConfig | PretrainingConfig:
        """Return the settings of a stage.

        Raises:
            ConfigError: a setting is wrong.
        """
        if stage.kind == "pretrain":
            return PretrainingConfig(**stage.settings)  # whose errors name pretraining
        settings = {**plain_settings(self._config), "stages": None}
        if (pretrained := self.done.get("pretrain")) is not None:
            options = {key: value for key, value in (settings["encoder_options"] or {}).items() if key != "revision"}
            settings |= {"encoder": str(pretrained / "encoder"), "encoder_options": options or None}
        if stage.kind in PER_LANGUAGE:  # the same model, trained in the same way
            settings = self._with(settings, self._of_joint) | {"languages": [stage.language]}
        if stage.kind == "refit":  # from scratch on all that is known, for as long as was best
            settings = self._with(settings, self._of_joint) | {"train_on_validation": True}
            if (joint := self.done.get("joint")) is not None:
                asked, settings["epochs"] = settings["epochs"], int(load_checkpoint(joint / MODEL_FILE)["epoch"]) + 1
                spread = [key for key in ("lr_schedule", "language_temperature_end") if settings.get(key) not in _EVEN]
                spread += ["language_adversary_weight"] if settings.get("language_adversary_weight") else []
                spread += ["peft: adalora"] if settings.get("peft") == "adalora" else []
                if spread and settings["epochs"] < asked:
                    logger.warning(
                        "refit: %s goes by the %d epochs of refit, and not by the %d of joint: its steps are others",
                        *(" and ".join(spread), settings["epochs"], asked),
                    )
        if stage.kind == "finetune":
            settings |= {"init_from": str(self.done.get("joint", "")), "l2_sp": _L2_SP}
            settings["learning_rate"] *= _SMALLER_RATE
            if rates := settings["learning_rates"]:
                settings["learning_rates"] = {part: rate * _SMALLER_RATE for part, rate in rates.items()}
        try:
            settings = self._with(settings, stage.settings)
            return XLingConfig(self._config.model_class, self._config["dataset"], config_dict=as_words(settings))
        except ConfigError as error:
            raise ConfigError(f"stages: {stage.name}: {error}") from error

    def _with(self, settings: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
        """Return the settings with what a stage says, from which others may follow as they do in a run of its own.

        Rates that are not those of the model by default were chosen, by the file or by ``joint``, and stay.
        """
        settings = {**settings, **said}
        if typed := settings_of(self._config.model_class):
            field = typed.model_fields.get("learning_rates")
            chosen = "learning_rates" in self._of_joint or (field and self._config["learning_rates"] != field.default)
            given = {**said, "learning_rates": settings["learning_rates"]} if chosen else said
            typed.adjust_defaults(settings, given)
        return settings

    def find(self, stage: Stage, own: XLingConfig | PretrainingConfig) -> tuple[Path, bool]:
        """Return the folder of a stage, an earlier one with these settings or a new one, and whether it is finished."""
        settings = plain_settings(own) if isinstance(own, XLingConfig) else pretraining_settings(self._config, own)
        files = fingerprint(own if isinstance(own, XLingConfig) else self._config)
        number = 1
        while (path := self._folder / (stage.folder + (f"-{number}" if number > 1 else ""))).exists():
            number += 1
            if not any((path / name).exists() for name in (RESULT_FILE, RESUME_FILE)):
                if stage.kind != "pretrain" or not self._same(path, settings):
                    shutil.rmtree(path)  # it was killed before anything was saved
                return path, False
            if not (self._same(path, settings) and self._began_with(path / RESUME_FILE, settings)):
                continue
            if not (path / RESULT_FILE).is_file():
                return path, False
            if read_result(path)["data"]["files"] == files and _has_encoder_of(own, path / MODEL_FILE):
                return path, True
        return path, False

    @staticmethod
    def _began_with(file: Path, settings: Mapping[str, Any]) -> bool:
        """Tell whether a stage began with the weights that are there now, as far as its ``last.pt`` says."""
        start = Path(settings.get("init_from") or "") / MODEL_FILE
        if not settings.get("init_from") or not start.is_file() or not file.is_file():
            return True
        digest = load_checkpoint(file, "meta").get("init_from_sha256")
        return digest is None or digest == file_digest(start)

    def _same(self, path: Path, settings: Mapping[str, Any]) -> bool:
        """Tell whether a folder is of a stage with these settings; folders of earlier stages may have moved."""
        if not (path / CONFIG_FILE).is_file():
            return False
        stored = read_yaml_settings(path / CONFIG_FILE)
        wanted = json.loads(json.dumps(simple(settings)))
        for key in ("encoder", "init_from"):
            now = Path(str(wanted.get(key)))
            if now.is_relative_to(self._folder):
                below = str(now.relative_to(self._folder))
                stored[key] = str(now) if Path(str(stored.get(key))).match(below) else stored.get(key)
        first, second = ({k: v for k, v in found.items() if k not in IRRELEVANT} for found in (stored, wanted))
        return first == second


def _has_encoder_of(own: XLingConfig | PretrainingConfig, file: Path) -> bool:
    """Tell whether the text vectors that a finished stage has read are by the encoder that the settings mean now."""
    if isinstance(own, PretrainingConfig):
        return True
    state = load_checkpoint(file, "meta")
    then, other = (state.get("data") or {}).get("encoder"), from_plain(state["other_parameter"])
    if isinstance(other, Mapping) and isinstance(tuned := other.get("encoder"), Mapping):  # of a tower
        then = {"fingerprint": tuned.get("fingerprint")}
    return then is None or is_same_encoder(then, encoder_of(own))  # None: it has read none
