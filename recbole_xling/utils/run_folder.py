"""The folder a run leaves behind: its name, settings, result and log."""

from __future__ import annotations

import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_xling.errors import CheckpointError, XlingError
from recbole_xling.utils.files import file_digest, locked, polars_os_errors, replacing, write_text
from recbole_xling.utils.json_text import parse_json
from recbole_xling.utils.terminal import PlainFormatter
from recbole_xling.utils.yaml_text import settings_text

if TYPE_CHECKING:
    import polars as pl

CONFIG_FILE = "config.yaml"
MODEL_FILE = "model.pt"
RESULT_FILE = "result.json"
USERS_FILE = "users.parquet"
STAGES_FILE = "stages.json"
LOG_FILE = "log.txt"
_STALE = {  # first what says that a run or all its stages have finished
    RESULT_FILE: "result.stale.json",
    STAGES_FILE: "stages.stale.json",
    USERS_FILE: "users.stale.parquet",
}

_PACKAGES = ("recbole-xling", "recbole", "torch", "numpy", "pandas", "transformers", "sentence-transformers", "peft")


def create_run_folder(root: Path, model: str, dataset: str) -> Path:
    """Create ``<root>/<model>-<dataset>-<time>``; a number is added if that name is taken."""
    stamp = datetime.now(timezone.utc).astimezone().strftime("%Y%m%d-%H%M%S")
    for attempt in range(1, 1000):
        folder = root / (f"{model}-{dataset}-{stamp}" + (f"-{attempt}" if attempt > 1 else ""))
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise XlingError(f"cannot create the run folder '{folder}': {error}; set checkpoint_dir") from error
        return folder
    raise XlingError(f"no free name for a run folder under '{root}'")


def model_file(folder: str | os.PathLike[str]) -> Path:
    """Return the file of a run's trained model.

    Raises:
        CheckpointError: the folder is not that of a run.
    """
    path = Path(folder) / MODEL_FILE
    if not path.is_file():
        raise CheckpointError(f"'{folder}' is not a run folder ({MODEL_FILE} is missing)")
    return path


def write_config(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the complete settings of a run; naming the file with ``--config_files`` repeats it."""
    write_text(folder / CONFIG_FILE, settings_text(simple(settings), sort_keys=True))


def write_result(folder: Path, result: Mapping[str, Any]) -> dict[str, Any]:
    """Write ``result.json``, with the checksum of the table of rows if that is there already; return what it holds."""
    table = folder / USERS_FILE
    content = {**result, **({"users_sha256": file_digest(table)} if table.is_file() else {})}
    write_json(folder / RESULT_FILE, content)
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of results, all or nothing."""
    write_text(path, json.dumps(simple(content), indent=2, ensure_ascii=False) + "\n")


def write_table(path: Path, table: Any) -> None:
    """Write a table of polars as Parquet, all or nothing.

    Raises:
        OSError: the disk refuses it.
    """
    with replacing(path) as new, polars_os_errors(path):
        table.write_parquet(new)


def write_evaluation(
    folder: Path, settings: Mapping[str, Any], result: dict[str, Any], table: Any, table_file: str = USERS_FILE
) -> dict[str, Any]:
    """Write a new folder of results, whole or not at all, and return what its ``result.json`` holds, which comes last.

    Args:
        folder: exists already, and is empty.
        settings: for ``config.yaml``.
        result: gets ``run_dir``.
        table: of polars; None for no table.
        table_file: its name.

    Raises:
        OSError, XlingError: the disk refuses a file; the folder is gone.
    """
    result["run_dir"] = str(folder)
    try:
        write_config(folder, settings)
        if table is not None:
            write_table(folder / table_file, table)
        return write_result(folder, result)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def read_result(folder: Path) -> dict[str, Any]:
    """Read ``result.json``.

    Raises:
        CheckpointError: the folder is not that of a finished run, or the file is damaged.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        raise CheckpointError(f"'{folder}' is not the folder of a finished run ({RESULT_FILE} missing)")
    result = read_json(path)
    with taking_from(path):
        for name in ("test", "slices", "data", "seconds", "versions"):
            if not isinstance(result.get(name, {}), dict):
                raise TypeError(f"{name} is not an object")
    return result


def read_json(path: Path) -> dict[str, Any]:
    """Read what :func:`write_json` wrote.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is not a mapping")
    except ValueError as error:
        raise CheckpointError(
            f"'{path}' is damaged: {error}. Remove it, and what it belongs to can run again"
        ) from None
    return content


def read_users(folder: Path) -> pl.DataFrame:
    """Read ``users.parquet``, of which nothing else would tell that a bit has flipped.

    Raises:
        CheckpointError: the folder is not that of a finished run, or the file is not as it was written.
    """
    import polars as pl

    path, known = folder / USERS_FILE, read_result(folder).get("users_sha256")  # not in folders of earlier releases
    try:
        if known is not None and known != file_digest(path):
            raise CheckpointError(f"'{path}' is damaged: its checksum is another one than when it was written")
        return pl.read_parquet(path, glob=False)
    except pl.exceptions.PolarsError as error:
        raise CheckpointError(f"'{path}' is damaged: {error}") from error


@contextmanager
def taking_from(path: Path) -> Iterator[None]:
    """Say that a file of a run folder is damaged where what is taken from it is missing, or is something else.

    Raises:
        CheckpointError: instead of what Python or libraries raise then.
    """
    try:
        yield
    except XlingError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        told = " ".join(f"{error!r}".split())
        problem = told if len(told) < 200 else f"{told[:200]}..."
        raise CheckpointError(f"'{path}' is damaged or was not written by recbole-xling: {problem}") from error


def reopen(folder: Path) -> None:
    """Prepare the folder of a run that goes on: set its results aside, and remove what a killed process left.

    From here on the folder is that of an unfinished run, whatever happens to it.
    """
    for name, stale in _STALE.items():
        if (folder / name).exists():
            os.replace(folder / name, folder / stale)
    for path in folder.glob(".*.tmp"):  # of utils.files.replacing
        if path.is_file():
            path.unlink()


def remove_stale(folder: Path) -> None:
    """Remove results that were set aside, once there are new ones."""
    for stale in _STALE.values():
        (folder / stale).unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages that shape results."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**found, "python": platform.python_version()}


def simple(value: Any) -> Any:
    """Bring a value to what YAML and JSON can say."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, int) else str(key): simple(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [simple(item) for item in value]
    if isinstance(value, str | bool | int | float) or value is None:
        return float(value) if isinstance(value, float) else value
    return str(value)


class RunFileHandler(logging.FileHandler):
    """The handler that writes ``log.txt``; it knows its run folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / LOG_FILE, encoding="utf-8")
        self.run_folder = folder
        self.setFormatter(PlainFormatter("%(asctime)s %(levelname)-7s %(message)s"))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Go on where the disk is full: the run ends with its message when it writes a file that it needs."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep the run of a folder for this process meanwhile; who serves its model may change what is served.

    Raises:
        CheckpointError: the run is going on in another process.
    """
    log = folder / LOG_FILE  # a file that stays: others are replaced, and the folder is locked by who changes items
    log.touch()
    told = f"the run of '{folder}' is going on in another process: wait for it, or stop it first"
    with locked(log, CheckpointError(told)):
        yield


@contextmanager
def logging_to(folder: Path, level: str) -> Iterator[None]:
    """Write everything that is logged meanwhile to the folder's ``log.txt`` as well."""
    root = logging.getLogger()
    handler = RunFileHandler(folder)
    before = root.level
    root.addHandler(handler)
    root.setLevel(level.upper())
    try:
        yield
    finally:
        root.setLevel(before)
        root.removeHandler(handler)
        handler.close()
