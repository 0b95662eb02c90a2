"""What follows a run besides its folder, if asked for: W&B and MLflow for its curves, CodeCarbon for its energy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from recbole_xling.config import XLingConfig, plain_settings
from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.utils.distributed import is_main_process

_LONGEST_VALUE, _MOST_VALUES = 500, 100  # of MLflow's parameters, and how many of them at a time


class Tracking:
    """Follows one run; without settings that ask for it, all methods do nothing.

    Args:
        mlflow: the package; None not to log there.
        wandb: the package, whose run is to be ended; None if there is none. Trainers log to it.
        energy: a tracker of CodeCarbon; None not to measure.
        country: whose electricity that is.
    """

    def __init__(self, mlflow: Any, wandb: Any, energy: Any, country: str | None) -> None:
        self._mlflow, self._wandb, self._energy, self._country = mlflow, wandb, energy, country

    def validated(self, epoch: int, score: float) -> None:
        """Take the validation score of an epoch."""
        if self._mlflow is not None:
            self._mlflow.log_metric("valid_score", score, step=epoch)

    def finished(self, result: dict[str, Any], losses: Mapping[int, float]) -> None:
        """Take the result, to which the energy is added as ``energy``, and the training loss of each epoch."""
        if self._energy is not None:
            self._energy.stop()
            used = self._energy.final_emissions_data
            result["energy"] = {"kwh": used.energy_consumed, "co2_kg": used.emissions, "country": self._country}
            self._energy = None
        if self._mlflow is not None:
            for epoch, loss in losses.items():
                self._mlflow.log_metric("train_loss", loss, step=epoch)
            found = {**result["test"], **{f"best_valid.{name}": value for name, value in result["best_valid"].items()}}
            found |= {f"energy.{name}": result["energy"][name] for name in ("kwh", "co2_kg") if "energy" in result}
            self._mlflow.log_metrics({name.replace("@", "_at_"): value for name, value in found.items()})

    def closed(self, status: str) -> None:
        """End, however the run has ended: ``FINISHED`` or ``FAILED``."""
        if self._energy is not None:
            self._energy.stop()
        if self._mlflow is not None:
            self._mlflow.end_run(status)
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(status != "FINISHED"))


@contextmanager
def tracked(config: XLingConfig) -> Iterator[Tracking]:
    """Follow a run as ``log_wandb``, ``log_mlflow`` and ``energy_country`` say, in its first process.

    Raises:
        ConfigError: the package for it is not installed, does not know the country, or W&B cannot begin a run.
    """
    main, country = is_main_process(config), config["energy_country"]
    mlflow = _package("mlflow", "log_mlflow") if main and config["log_mlflow"] else None
    wandb = _package("wandb", "log_wandb") if main and config["log_wandb"] else None
    carbon = _package("codecarbon", "energy_country") if main and country else None
    if carbon:  # it would take the average of the world in silence
        known = import_module("codecarbon.input").DataSource().get_global_energy_mix_data()
        if country not in known:
            raise ConfigError(unknown_name("energy_country", country, known))
    energy = carbon and carbon.OfflineEmissionsTracker(
        country_iso_code=country, save_to_file=False, allow_multiple_runs=True, log_level="error"
    )
    following = Tracking(mlflow, _begin(wandb, config), energy, country)
    if mlflow is not None:
        mlflow.start_run(run_name=Path(config["run_dir"]).name)
    status = "FAILED"
    try:
        if energy is not None:
            energy.start()
        if mlflow is not None:
            settings = [(key, str(value)[:_LONGEST_VALUE]) for key, value in plain_settings(config).items()]
            for at in range(0, len(settings), _MOST_VALUES):
                mlflow.log_params(dict(settings[at : at + _MOST_VALUES]))
        yield following
        status = "FINISHED"
    finally:
        following.closed(status)


def _begin(wandb: Any, config: XLingConfig) -> Any:
    """Begin a run of W&B and return the package, or None if there is a run already, such as that of a sweep's agent.

    RecBole's trainers would begin one without its settings' names, and log the next run of the process to it as well.
    """
    if wandb is None or wandb.run is not None:
        return None
    try:
        wandb.init(project=config["wandb_project"], name=Path(config["run_dir"]).name, config=plain_settings(config))
    except wandb.Error as error:
        told = str(error).splitlines()[0]
        raise ConfigError(f"log_wandb: {told}: 'wandb login', or WANDB_MODE=offline in the environment") from error
    return wandb


def _package(name: str, setting: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"{setting} needs {name}: pip install 'recbole-xling[{name}]'") from error
