"""XLingConfig: the settings of a run from all their sources, checked before data are loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data.dataloader import UserDataLoader
from recbole.data.utils import get_dataloader
from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments
from recbole.utils.enum_type import InputType, ModelType

from recbole_xling.compat import register_config_class
from recbole_xling.config.defaults import load_defaults, recbole_model_defaults, recbole_models
from recbole_xling.config.names import RENAMED, current_names, unknown_setting, use_current_names
from recbole_xling.config.recbole import RecBoleConfig, recbole_model_settings
from recbole_xling.config.shared import OverallConfig, settings_of
from recbole_xling.data.splits.settings import read_split
from recbole_xling.errors import ConfigError
from recbole_xling.utils.arguments import settings_of_words
from recbole_xling.utils.distributed import is_main_process
from recbole_xling.utils.paths import package_folder
from recbole_xling.utils.precision import prepare_autocast
from recbole_xling.utils.typed_config import TypedConfig
from recbole_xling.utils.yaml_text import SettingsLoader, parse_value, read_yaml_settings

# Read by RecBole's code, but in none of its lists and YAML files.
_UNLISTED = frozenset(
    """
    model dataset config_files data_path checkpoint_dir encoding transform enable_amp enable_scaler worker shuffle
    use_gpu wandb_project require_pow save_step convert_token_to_onehot token_num_threshold numerical_features
    discretization nproc world_size ip port group_offset offset local_rank
    """.split()
)
_OF_PROCESSES = ("nproc", "world_size", "ip", "port", "group_offset", "offset")  # of each process, beside local_rank
_UNLISTED_OF_OTHER_MODELS = frozenset(
    """
    double_tower embedding_size reg_weight kge_interval mask_ratio ft_ratio crop_eta tail_ratio
    beta eta pretrain_epochs train_rec_step train_kg_step n_dec_epochs n_enc_epochs m_step warm_up_step
    lgb_model lgb_params lgb_num_boost_round lgb_early_stopping_rounds xgb_model xgb_params xgb_num_boost_round
    xgb_early_stopping_rounds xgb_verbose_eval xgb_weight xgb_base_margin xgb_missing xgb_silent xgb_nthread
    """.split()
)


@register_config_class
class XLingConfig(Config):
    """RecBole's ``Config`` with this project's defaults and without its silent failures.

    Later sources win: RecBole's defaults, recbole-xling's (``properties/``), ``config_file_list``, ``config_dict``,
    ``arguments``. The model can be any that RecBole knows.

    Args:
        model: name or class of the model.
        dataset: name of the dataset.
        config_file_list: YAML files.
        config_dict: settings.
        arguments: command-line arguments ``--key=value``. ``sys.argv`` is never read.

    Raises:
        ConfigError: a setting is unknown (the nearest valid one is named; ``allow_unknown_keys: True`` lets it pass),
            not allowed, or contradicts another one. Up to three settings that are not allowed are named, one per line.
    """

    __module__ = "recbole_xling.config"  # its public place, which checkpoints name

    def __init__(
        self,
        model: str | type | None = None,
        dataset: str | None = None,
        config_file_list: Sequence[str | os.PathLike[str]] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self._arguments = list(arguments)
        self._words: dict[str, str] = {}  # settings that were given as text, as they were given
        try:
            super().__init__(model, dataset, config_file_list, dict(config_dict or {}))
        except ConfigError:
            raise
        except (KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:  # RecBole's own checks
            raise ConfigError(str(error.args[0]) if error.args else repr(error)) from error
        self._check_contradictions()

    def __repr__(self) -> str:
        known = vars(self)  # may lack everything while it is built
        settings = known.get("final_config_dict", {})
        return f"<{type(self).__name__} of {known.get('model')} on {known.get('dataset')}, {len(settings)} settings>"

    # ---- reading ----------------------------------------------------------------------------------------------

    def _build_yaml_loader(self) -> Any:
        return SettingsLoader

    def _load_config_files(self, file_list: Sequence[str | os.PathLike[str]] | None) -> dict[str, Any]:
        files = [file_list] if isinstance(file_list, str | os.PathLike) else file_list or []
        self._file_contents = [read_yaml_settings(Path(file)) for file in files]
        return {key: value for content in self._file_contents for key, value in content.items()}

    def _load_cmd_line(self) -> dict[str, Any]:
        return self._convert_config_dict(settings_of_words(self._arguments))

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        """Read texts as words of the command line; RecBole does so in dictionaries as well."""
        for key, value in config_dict.items():
            self._words.pop(key, None)
            if isinstance(value, str):
                self._words[key] = value
        return {key: parse_value(value) if isinstance(value, str) else value for key, value in config_dict.items()}

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> Any:
        given = self.external_config_dict
        for key, value in (("model", model), ("dataset", dataset)):
            value = given.get(key) if value is None else value
            if key in given and key in self._words:
                value = given[key] = self._words[key]  # a dataset called 2024 has a number for a name
            if value is None and key in given:
                raise ConfigError(f"{key} is empty: name one")
            if value is not None and not isinstance(value, str) and not (key == "model" and isinstance(value, type)):
                raise ConfigError(f"{key} must be a name, not {value!r}; in a YAML file, write '{value}' with quotes")
            if key == "dataset" and isinstance(value, str) and value and (value == ".." or Path(value).name != value):
                raise ConfigError(
                    f"dataset must be a name, not the path '{value}': data_path says in which folder it is"
                )
        return super()._get_model_and_dataset(model, dataset)

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        files = [current_names(content, model_class) for content in self._file_contents]
        self.file_config_dict = {key: value for content in files for key, value in content.items()}
        use_current_names(self, model_class)
        super()._load_internal_config_dict(model, model_class, dataset)
        self.internal_config_dict.update(load_defaults(self, model_class, dataset))
        if self.internal_config_dict["MODEL_TYPE"] == ModelType.SEQUENTIAL:
            self.internal_config_dict["repeatable"] = True  # RecBole's sequential models accept nothing else
        typed = settings_of(model_class)
        known = {*self.internal_config_dict, *_UNLISTED, *(typed.model_fields if typed else _UNLISTED_OF_OTHER_MODELS)}
        known.update(general_arguments, training_arguments, evaluation_arguments, dataset_arguments)
        for key in self.external_config_dict:
            if not isinstance(key, str):
                raise ConfigError(f"a setting's name must be text, not {key!r}")
            if key not in known and not self.external_config_dict.get("allow_unknown_keys"):
                hint = "allow_unknown_keys: True passes settings of your own to a model"
                raise ConfigError(f"{unknown_setting(key, {*known, *self._further_names()})} ({hint})")

    def _further_names(self) -> set[str]:
        """Return names that are known although this configuration does not have them: to suggest them for others."""
        return set()

    def _get_final_config_dict(self) -> dict[str, Any]:
        """Merge all sources, and check types, choices and ranges before RecBole uses them."""
        settings, chosen = super()._get_final_config_dict(), self.external_config_dict
        settings.update(model=self.model, dataset=self.dataset)
        if isinstance(chosen.get("eval_args"), dict):  # RecBole would fill what is not given with a random split
            settings["eval_args"] = {**self.internal_config_dict["eval_args"], **chosen["eval_args"]}
        takes_any_loss = not hasattr(self.model_class, "input_type")
        if takes_any_loss and settings.get("loss_type") == "CE" and "train_neg_sample_args" not in chosen:
            settings["train_neg_sample_args"] = None  # RecBole's CE models refuse its default sampling
        self._check_types(settings)
        if typed := settings_of(self.model_class):
            typed.adjust_defaults(settings, chosen)
        if takes_any_loss and settings.get("loss_type", "CE") not in ("CE", "BPR"):
            raise ConfigError(f"loss_type must be CE or BPR, not {settings['loss_type']!r}")
        return settings

    def _check_types(self, settings: dict[str, Any]) -> None:
        """Check every setting that has a type, and replace what can be written in several ways by one of them."""
        faults: dict[str, None] = {}  # in order, each once: a model's class may have inherited shared settings
        of_model = settings_of(self.model_class) or recbole_model_settings(self.model)
        tables: list[type[TypedConfig]] = [RecBoleConfig, OverallConfig, *([of_model] if of_model else [])]
        for typed in tables:
            for name in self._words.keys() & typed.model_fields.keys() & settings.keys():
                number = isinstance(settings[name], int | float | list | dict) and not isinstance(settings[name], bool)
                if number and typed.model_fields[name].annotation in (str, str | None):
                    settings[name] = self._words[name]  # where text is wanted, 2024 is one
            try:
                checked = typed.of(settings)
            except ConfigError as error:
                faults.update(dict.fromkeys(str(error).splitlines()))
            else:
                settings.update({name: getattr(checked, name) for name in typed.model_fields if name in settings})
        if faults:
            raise ConfigError("\n".join(list(faults)[:3]))

    def _check_contradictions(self) -> None:
        given = self.external_config_dict
        process = next((key for key in _OF_PROCESSES if key in given and "local_rank" not in given), None)
        if process is not None:
            raise ConfigError(
                f"{process} is no setting of a run but says how many processes are started: give --{process}=... to "
                "'recbole-xling run' on the command line, or call run_processes"
            )
        in_time = read_split(self["eval_args"]["split"]) is not None or self["MODEL_TYPE"] == ModelType.SEQUENTIAL
        if in_time and self["eval_args"]["order"] != "TO":
            raise ConfigError("sequential models and splits GT, CI, LT need time order: eval_args={'order': 'TO'}")
        if not self["single_spec"] and set(self["eval_args"]["mode"].values()) != {"full"}:
            raise ConfigError("several processes evaluate by ranking all items only: eval_args={'mode': 'full'}")
        pairs = self["MODEL_INPUT_TYPE"] == InputType.PAIRWISE and self.model_class.__module__.startswith("recbole.")
        pairs = pairs and get_dataloader(self, "train") is not UserDataLoader  # which has whole users, such as MultiVAE
        if pairs and self["train_neg_sample_args"]["distribution"] == "none":
            raise ConfigError(f"{self['model']} learns from pairs of items: train_neg_sample_args cannot be None")
        if self["save_dataset"] or self["save_dataloaders"]:
            raise ConfigError("save_dataset and save_dataloaders write pickles, which recbole-xling does not read")
        stride, longest = self["train_stride"], self["MAX_ITEM_LIST_LENGTH"]
        if stride is not None and not 1 <= stride <= longest:
            raise ConfigError(f"train_stride must be between 1 and MAX_ITEM_LIST_LENGTH ({longest}), not {stride!r}")

    # ---- devices ----------------------------------------------------------------------------------------------

    def _init_device(self) -> None:
        """Choose the device, and the type of autocast there."""
        self._choose_device()
        settings = self.final_config_dict
        if settings.get("enable_amp") and prepare_autocast(settings["device"]):
            settings["enable_scaler"] = True

    def _choose_device(self) -> None:
        """Choose the device; several processes without a GPU talk over gloo, which RecBole does not offer.

        Processes that torchrun has started keep their group from one run to the next one.

        Raises:
            ConfigError: there are not as many GPUs as processes.
        """
        settings = self.final_config_dict
        if not settings.get("use_gpu", True):
            settings["gpu_id"] = ""
        if "local_rank" not in settings:
            super()._init_device()
            return
        named = settings["gpu_id"]
        devices = [str(device) for device in (named if isinstance(named, tuple | list) else str(named).split(","))]
        on_gpu, local_rank = devices != [""] and torch.cuda.is_available(), settings["local_rank"]
        if on_gpu and len(devices) <= local_rank:
            raise ConfigError(
                f"each process needs a GPU: gpu_id names {len(devices)}, and this is process {local_rank + 1} of this "
                "machine; set gpu_id=0,1,... or use_gpu=False"
            )
        if on_gpu:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)
            torch.cuda.set_device(local_rank)
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group(
                backend="nccl" if on_gpu else "gloo",
                rank=local_rank + settings["offset"],
                world_size=settings["world_size"],
                init_method=f"tcp://{settings['ip']}:{settings['port']}",
            )
        device = torch.device("cuda", local_rank) if on_gpu else torch.device("cpu")
        settings.update(device=device, single_spec=False, gpu_id=",".join(devices) if on_gpu else "")
        if not is_main_process(self):
            settings.update(state="error", show_progress=False, verbose=False)


class DatasetConfig(XLingConfig):
    """The configuration of commands that look at a dataset and not at a model, such as ``card`` and ``encode``.

    Everything that a run accepts is accepted, whatever its model: settings that only concern models and training are
    left out. Settings that nobody knows are errors here as well.

    Args:
        dataset: name of the dataset.
        config_file_list: YAML files.
        arguments: command-line arguments ``--key=value``.

    Raises:
        ConfigError: as for :class:`XLingConfig`.
    """

    def __init__(
        self,
        dataset: str,
        config_file_list: Sequence[str | os.PathLike[str]] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        super().__init__("LLMSASRec", dataset, config_file_list, None, arguments)

    def _get_model_and_dataset(self, model: Any, dataset: Any) -> Any:
        kept = {*OverallConfig.model_fields, *general_arguments, *evaluation_arguments, *dataset_arguments}
        left_out = self._further_names() - kept
        for source in ("file_config_dict", "variable_config_dict", "cmd_config_dict"):
            settings = getattr(self, source)
            setattr(self, source, {key: settings[key] for key in settings if key not in left_out})
        self._file_contents = [self.file_config_dict]
        self._merge_external_config_dict()
        return super()._get_model_and_dataset(model, dataset)

    def _further_names(self) -> set[str]:
        names = {"model", *training_arguments, *_UNLISTED_OF_OTHER_MODELS, *RENAMED}
        for model in recbole_models():
            names.update(recbole_model_defaults(model))
        for file in (package_folder("properties") / "model").glob("*.yaml"):
            names.update(read_yaml_settings(file))
        return names

    def _get_final_config_dict(self) -> dict[str, Any]:
        settings = super()._get_final_config_dict()
        settings["eval_args"] = {**settings["eval_args"], "order": "TO"}  # a run of a general model may ask for another
        return settings


_DERIVED = frozenset(
    """
    MODEL_TYPE MODEL_INPUT_TYPE eval_type device valid_neg_sample_args test_neg_sample_args single_spec local_rank
    valid_metric_bigger run_dir resume dataset_save_path dataloaders_save_path nproc world_size ip port offset
    """.split()
)


def plain_settings(config: Config) -> dict[str, Any]:
    """Return a configuration's settings as plain data: enough to build it again, here or from a YAML file."""
    plain = (str, int, float, bool, list, dict, tuple, type(None))
    settings: dict[str, Any] = {
        key: value
        for key, value in config.final_config_dict.items()
        if key not in _DERIVED and isinstance(value, plain) and not isinstance(value, Enum)
    }
    # RecBole appends the dataset's name to data_path, and replaces "no sampling" by words
    settings["data_path"] = config.external_config_dict.get("data_path") or config.internal_config_dict["data_path"]
    if settings["train_neg_sample_args"]["distribution"] == "none":
        settings["train_neg_sample_args"] = None
    return settings
