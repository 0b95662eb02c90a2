"""Many runs from one file: models x datasets x seeds, each in a process of its own, none of them twice."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from pydantic import Field, field_validator

from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError, XlingError, unknown_name
from recbole_xling.quick_start.build import find_dataset
from recbole_xling.quick_start.compare import compare
from recbole_xling.quick_start.processes import exception_on_sigterm
from recbole_xling.quick_start.reuse import asked_of, is_asked, placeless_settings, start_of, starts_alike
from recbole_xling.trainer.trainer import RESUME_FILE
from recbole_xling.utils.files import locked
from recbole_xling.utils.run_folder import (
    RESULT_FILE,
    STAGES_FILE,
    read_json,
    read_result,
    taking_from,
    versions,
    write_json,
)
from recbole_xling.utils.typed_config import TypedConfig
from recbole_xling.utils.yaml_text import as_words, settings_text

logger = logging.getLogger(__name__)

RESULTS_FILE = "benchmark.json"
_CELL_FILE = "cell.json"
_STARTED, FINISHED, FAILED = "started", "finished", "failed"


class BenchmarkConfig(TypedConfig):
    """What a benchmark consists of; the first model is the one that all others are compared with."""

    section: ClassVar[str] = "benchmark"

    common: dict[str, Any] = Field({}, description="Settings of all runs.")
    datasets: dict[str, dict[str, Any]] = Field(
        min_length=1, description="Name: settings on top of the common ones; `dataset` if its name is another one."
    )
    models: dict[str, dict[str, Any]] = Field(
        min_length=1,
        description="Name: settings on top of those; `model` if its name is another one, `seeds` of its own.",
    )
    seeds: list[int] = Field([2020], min_length=1, description="One run of each model on each dataset for each.")

    @field_validator("models")
    @classmethod
    def _seeds_are_numbers(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, settings in value.items():
            seeds = settings.get("seeds", [0])
            if not (isinstance(seeds, list) and seeds and all(type(seed) is int for seed in seeds)):
                raise ConfigError(f"models[{name!r}]: seeds must be a list such as [2020, 2021], not {seeds!r:.40}")
        return value


@dataclass
class Cell:
    """One run of a benchmark.

    Attributes:
        dataset, model: names in the file.
        seed: of the run.
        settings: all that the file says for it.
        folder: where its run folder and its log go.
        state: what is known of it: ``status``, ``run_dir``, ``seconds``, ``peak_memory`` in bytes, ``error``.
        place: of the model in the file; all others are compared with the first one.
    """

    dataset: str
    model: str
    seed: int
    settings: dict[str, Any]
    folder: Path
    state: dict[str, Any]
    place: int

    @property
    def is_finished(self) -> bool:
        """Whether it has a result."""
        return self.state.get("status") == FINISHED


def read_benchmark(
    file: str | os.PathLike[str], output: str | os.PathLike[str], only: Sequence[str] = ()
) -> list[Cell]:
    """Return the runs of a benchmark's file, all of one seed before those of the next.

    Args:
        file: the YAML file, a :class:`BenchmarkConfig`.
        output: folder of the benchmark.
        only: names of models or datasets; those of a kind that is not named are all taken.

    Raises:
        ConfigError: the file is wrong, or a name is not in it.
    """
    plan = BenchmarkConfig.from_file(file)
    for name in only:
        if name not in (*plan.models, *plan.datasets):
            raise ConfigError(unknown_name("model or dataset of the benchmark", name, (*plan.models, *plan.datasets)))
    models = [name for name in plan.models if name in only] or list(plan.models)
    datasets = [name for name in plan.datasets if name in only] or list(plan.datasets)
    seeds = list(dict.fromkeys([*plan.seeds, *(s for m in models for s in plan.models[m].get("seeds", ()))]))
    place = {model: number for number, model in enumerate(plan.models)}
    cells = []
    for seed in seeds:
        for dataset in datasets:
            for model in models:
                own = dict(plan.models[model])
                if seed in own.pop("seeds", plan.seeds):
                    names = {"dataset": dataset, "model": model}
                    settings = {**names, **plan.common, **plan.datasets[dataset], **own, "seed": seed}
                    folder = Path(output) / _word(dataset) / _word(model) / str(seed)
                    cells.append(Cell(dataset, model, seed, settings, folder, {}, place[model]))
    if len({cell.folder for cell in cells}) < len(cells):
        raise ConfigError(f"'{file}': two names of models or datasets differ in signs only")
    return cells


def benchmark(
    file: str | os.PathLike[str], output: str | os.PathLike[str], only: Sequence[str] = ()
) -> tuple[list[Cell], dict[str, pd.DataFrame | str]]:
    """Run what has not been run, compare all, and write ``benchmark.json`` into the benchmark's folder.

    A run that has finished with the same settings on the same data is not repeated; one that was killed goes on where
    it stopped; one that fails does not keep the others from running. ``benchmark.json`` has all runs of the file that
    are known, those that are left out here as earlier calls have left them.

    Args:
        file: as for :func:`read_benchmark`.
        output: as for :func:`read_benchmark`.
        only: as for :func:`read_benchmark`.

    Returns:
        The runs that ``only`` names; and by their datasets what
        :func:`~recbole_xling.quick_start.compare.compare` says of all known ones, or why it cannot.

    Raises:
        ConfigError: the file is wrong, or another process runs a benchmark in the folder.
    """
    every, chosen = read_benchmark(file, output), {cell.folder for cell in read_benchmark(file, output, only)}
    cells = [cell for cell in every if cell.folder in chosen]
    widths = [max(len(cell.dataset) for cell in cells), max(len(cell.model) for cell in cells)]
    with only_one(Path(output)):
        for cell in every:
            cell.state = _known(cell)
        compared = {cell.dataset: _comparison(every, cell.dataset) for cell in every if cell.state}
        for number, cell in enumerate(cells, start=1):
            known = _run(cell)
            names = f"{cell.dataset:<{widths[0]}}  {cell.model:<{widths[1]}}  {cell.seed}"
            logger.info("[%*d/%d] %s  %s", len(str(len(cells))), number, len(cells), names, _told(cell, known))
            compared[cell.dataset] = _comparison(every, cell.dataset)
            _write(Path(output) / RESULTS_FILE, str(file), [cell for cell in every if cell.state], compared)
    return cells, {cell.dataset: compared[cell.dataset] for cell in cells}


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Make a folder, and keep others who ask for it out of it meanwhile: they would do the same work there.

    Raises:
        ConfigError: another process works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    told = "another benchmark or search is at work: wait until it has ended, or name another folder (--output)"
    with locked(folder, ConfigError(f"'{folder}': {told}")):
        yield


def _known(cell: Cell) -> dict[str, Any]:
    """Return what is known of a cell from earlier calls; nothing if its result is gone, or of other settings."""
    file = cell.folder / _CELL_FILE
    if not file.is_file():
        return {}
    try:
        state = _read_state(file)
        if not _is_of(cell, state):
            return {}
        if state.get("status") == FINISHED:
            if not (Path(state["run_dir"]) / RESULT_FILE).is_file():
                return {}
            read_result(Path(state["run_dir"]))
    except (XlingError, OSError, KeyError) as error:
        return {"status": FAILED, "error": str(error)}
    return state


def _is_of(cell: Cell, state: Mapping[str, Any]) -> bool:
    """Tell whether a run is what the file says now; settings that its release did not have are left aside."""
    try:
        config = XLingConfig(config_dict=as_words(cell.settings))
    except XlingError:  # told when its turn comes
        return True
    now, stored = placeless_settings(config), state.get("settings", {})
    named = cell.settings.keys() & now.keys()
    same = named <= stored.keys() and all(now[key] == value for key, value in stored.items() if key in now)
    return not stored or (same and starts_alike(state, start_of(config)))


def _comparison(every: Sequence[Cell], dataset: str) -> pd.DataFrame | str:
    """Return the comparison of the finished runs of one dataset, or why there is none."""
    cells = [cell for cell in every if cell.dataset == dataset and cell.state]  # others were never asked for
    cells.sort(key=lambda cell: cell.place)
    groups: dict[str, list[str]] = {}
    for cell in cells:
        if cell.is_finished:
            groups.setdefault(cell.model, []).append(cell.state["run_dir"])
    if sum(map(len, groups.values())) < 2:
        return "fewer than two runs have finished"
    if cells[0].model not in groups:
        return f"'{cells[0].model}', which all others are compared with, has not finished"
    try:
        return compare(groups)
    except XlingError as error:
        return str(error)


def _write(path: Path, file: str, cells: Sequence[Cell], compared: dict[str, pd.DataFrame | str]) -> None:
    content = {
        "file": file,
        "versions": versions(),
        "runs": [
            {"dataset": cell.dataset, "model": cell.model, "seed": cell.seed, **_without_data(cell.state)}
            for cell in cells
        ],
        "comparison": {
            name: found
            if isinstance(found, str)
            else found.astype(object).where(found.notna(), None).to_dict("records")
            for name, found in compared.items()
        },
    }
    write_json(path, content)


def _without_data(state: dict[str, Any]) -> dict[str, Any]:
    kept = {
        key: value for key, value in state.items() if key not in ("data", "settings", "encoder", "init_from", "others")
    }
    if state.get("status") == FINISHED:
        kept["test"] = read_result(Path(state["run_dir"]))["test"]
    return kept


def _word(name: str) -> str:
    return re.sub(r"[^\w.+=-]+", "-", name).strip("-.") or "-"


# ---- one run --------------------------------------------------------------------------------------------------


def _run(cell: Cell) -> bool:
    """Bring a cell's run to its end, and return whether that was done before."""
    file = cell.folder / _CELL_FILE
    try:
        before = _read_state(file) if file.is_file() else {}
        config = XLingConfig(config_dict=as_words(cell.settings))
        find_dataset(config)
    except (XlingError, OSError) as error:
        cell.state = {"status": FAILED, "error": str(error)}
        return False
    asked = asked_of(config)
    same = is_asked(before, asked)
    if same and before.get("encoder"):
        asked["encoder"] = asked["encoder"] or before["encoder"]  # it is away: what is known of it stays known
    if same and before.get("status") == FINISHED and (Path(before["run_dir"]) / RESULT_FILE).is_file():
        cell.state = before
        return True
    goes_on = same and before.get("status") == _STARTED
    earlier = {cell.folder / path.relative_to(cell.folder).parts[0] for path in cell.folder.rglob(RESUME_FILE)}
    others = before.get("others", []) if same else sorted(path.name for path in earlier)  # of other settings or data
    open_runs = [path for path in sorted(earlier) if goes_on and path.name not in others]
    open_runs = [path for path in open_runs if _result_folder(path) is None]
    spent = float(before.get("seconds", 0)) if open_runs else 0.0
    cell.state = {**asked, "status": _STARTED, "seconds": spent, "others": others}
    cell.folder.mkdir(parents=True, exist_ok=True)
    write_json(file, cell.state)
    finished_before = _results(cell)
    words = [f"--resume={open_runs[-1]}"] if open_runs else [f"--config_files={_settings_file(cell)}"]
    cell.state |= _in_process(words, cell.folder / "output.txt", spent)
    new = sorted(_results(cell) - finished_before)
    if cell.state["status"] == FINISHED and new:
        cell.state["run_dir"] = str(new[-1])
    elif cell.state["status"] == FINISHED:
        cell.state |= {"status": FAILED, "error": f"no result; see '{cell.folder / 'output.txt'}'"}
    write_json(file, cell.state)
    return False


def _results(cell: Cell) -> set[Path]:
    """Return the folders with the results of a cell's runs."""
    return {found for run in cell.folder.glob("*/") if (found := _result_folder(run)) is not None}


def _result_folder(run: Path) -> Path | None:
    """Return the folder with the result of a run, that of its last stage if it has any; None if it has not finished."""
    if (run / STAGES_FILE).is_file():
        stages = read_json(run / STAGES_FILE)["stages"]
        run = run / next((stage["folder"] for stage in reversed(stages) if "test" in stage), "")
    return run if (run / RESULT_FILE).is_file() else None


def _read_state(file: Path) -> dict[str, Any]:
    """Return what is known of a run.

    Raises:
        CheckpointError: the file is damaged.
    """
    before = read_json(file)
    with taking_from(file):
        Path(before.get("run_dir", "")), float(before.get("seconds", 0)), int(before.get("peak_memory", 0))
        if not isinstance(before.get("others", []), list):
            raise TypeError("others is no list")
    return before


def _settings_file(cell: Cell) -> Path:
    """Write the settings for the process that runs them."""
    path = cell.folder / "settings.yaml"
    settings = {"show_progress": False, **cell.settings, "checkpoint_dir": str(cell.folder)}
    path.write_text(settings_text(settings), encoding="utf-8")
    return path


def _in_process(words: Sequence[str], output: Path, spent: float) -> dict[str, Any]:
    """Run ``recbole-xling run`` in a process of its own, which may run out of memory; return how it went."""
    started = time.perf_counter()
    with output.open("wb") as file:
        command = [sys.executable, "-m", "recbole_xling", "run", *words]
        with exception_on_sigterm():
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                process.wait()
                raise
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    state = {"seconds": spent + time.perf_counter() - started, "peak_memory": usage.ru_maxrss * unit}
    if process.returncode == 0:
        return {**state, "status": FINISHED}
    lines = output.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    told = next((line for line in reversed(lines) if line.startswith("recbole-xling: ")), lines[-1] if lines else "")
    killed = f"killed by signal {-process.returncode}" if process.returncode < 0 else ""
    error = killed or told.removeprefix("recbole-xling: ")[:500]
    return {**state, "status": FAILED, "error": error}


def _told(cell: Cell, known: bool) -> str:
    """Say in a line how a run went."""
    if not cell.is_finished:
        return f"failed: {cell.state['error']}"
    result = read_result(Path(cell.state["run_dir"]))
    metric, value = next(iter(result["test"].items()), ("no result", float("nan")))
    cost = f"{cell.state['seconds']:.0f} s, {cell.state['peak_memory'] / 2**30:.1f} GiB"
    return f"{metric} {value:.4f}  {cost}" + (" (before)" if known else "")
