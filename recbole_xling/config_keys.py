"""Which settings exist: RecBole's lists, its YAML files and ours."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from recbole.utils import dataset_arguments, evaluation_arguments, general_arguments, training_arguments

from recbole_xling.resources import package_folder

# Read by RecBole's code, but in none of its lists and YAML files.
_UNLISTED = frozenset(
    """
    model dataset config_files data_path checkpoint_dir encoding transform enable_amp enable_scaler worker shuffle
    use_gpu wandb_project require_pow save_step convert_token_to_onehot token_num_threshold numerical_features
    discretization nproc world_size ip port offset local_rank
    """.split()
)
_UNLISTED_OF_RECBOLES_MODELS = frozenset(
    """
    double_tower embedding_size reg_weight kge_interval mask_ratio ft_ratio crop_eta tail_ratio
    beta eta pretrain_epochs train_rec_step train_kg_step n_dec_epochs n_enc_epochs m_step warm_up_step
    lgb_model lgb_params lgb_num_boost_round lgb_early_stopping_rounds xgb_model xgb_params xgb_num_boost_round
    xgb_early_stopping_rounds xgb_verbose_eval xgb_weight xgb_base_margin xgb_missing xgb_silent xgb_nthread
    """.split()
)


def _yaml_keys(file: Path) -> set[str]:
    if not file.is_file():
        return set()
    return set(re.findall(r"^([A-Za-z_][\w-]*)\s*:", file.read_text(encoding="utf-8"), flags=re.MULTILINE))


@lru_cache(maxsize=1)
def recbole_properties() -> Path:
    """Return the folder of RecBole's own default settings."""
    spec = find_spec("recbole")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "properties"


def known_keys(model: str, dataset: str) -> set[str]:
    """Return every setting a run of ``model`` on ``dataset`` may carry."""
    ours = (package_folder("properties") / "model" / f"{model}.yaml").is_file()
    keys = set(_UNLISTED if ours else _UNLISTED | _UNLISTED_OF_RECBOLES_MODELS)
    keys.update(general_arguments, training_arguments, evaluation_arguments, dataset_arguments)
    for folder in (recbole_properties(), package_folder("properties")):
        files = [folder / "overall.yaml", folder / "model" / f"{model}.yaml", folder / "dataset" / "sample.yaml"]
        files.append(folder / "dataset" / f"{dataset}.yaml")
        files.extend(sorted((folder / "quick_start_config").glob("*.yaml")))
        for file in files:
            keys |= _yaml_keys(file)
    return keys
