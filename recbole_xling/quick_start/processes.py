"""Work in several processes: started together, ended together."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch

from recbole_xling.config import DatasetConfig
from recbole_xling.data.catalog import dataset_catalog
from recbole_xling.errors import ConfigError, XlingError, os_error_message, shown
from recbole_xling.quick_start.stages import run_stages
from recbole_xling.quick_start.train import close_failed_folder, configure, open_folder, run_configured
from recbole_xling.utils.run_folder import read_result
from recbole_xling.utils.terminal import log_to_screen, prepare_terminal

logger = logging.getLogger(__name__)

_MOST_PER_CORE = 4
_DEFAULT_PORT = 5678  # of several machines, as in RecBole; on one machine a free port is chosen
_GRACE = 5.0  # seconds between asking a process to end and ending it

Task: TypeAlias = Callable[[int, dict[str, Any], Callable[[str, str], None]], None]
"""The part of a process: from its number, settings, and how to report something."""


class Group(NamedTuple):
    """Which processes work together.

    Attributes:
        nproc: processes on this machine.
        world_size: processes on all machines; ``nproc`` where it is not positive.
        ip: address of the first machine.
        port: its port; a free one is chosen for 0.
        group_offset: rank of this machine's first process in the group.
    """

    nproc: int = 1
    world_size: int = -1
    ip: str = "localhost"
    port: int = 0
    group_offset: int = 0

    def settings(self) -> dict[str, Any]:
        """Check the group and return RecBole's settings of it.

        Raises:
            ConfigError: numbers of processes do not fit each other or this machine, or the port is taken.
        """
        world_size = self.world_size if self.world_size > 0 else self.nproc
        cores = os.cpu_count() or 1
        if self.nproc < 1:
            raise ConfigError(f"nproc must be at least 1, not {self.nproc}")
        if self.nproc > _MOST_PER_CORE * cores:
            raise ConfigError(f"nproc={self.nproc} is too much for this machine, which has {cores} cores")
        if not 0 <= self.group_offset <= world_size - self.nproc:
            raise ConfigError(
                f"nproc={self.nproc}, world_size={self.world_size} and group_offset={self.group_offset} do not fit: "
                "group_offset + nproc must not exceed world_size"
            )
        port = self.port or (_free_port() if world_size == self.nproc else _DEFAULT_PORT)
        _check_address(self.ip, port, first=self.group_offset == 0)
        ours = {"nproc": self.nproc, "world_size": world_size, "offset": self.group_offset}
        return {**ours, "ip": self.ip, "port": str(port)}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
    return port


def _check_address(ip: str, port: int, first: bool) -> None:
    if not 1 <= port <= 65535:
        raise ConfigError(f"port must be between 1 and 65535, not {port}")
    try:
        socket.getaddrinfo(ip, port)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"ip: '{ip}' is not the address of a machine ({error})") from error
    if not first:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            advice = "name another one; on a single machine, none is needed"
            raise ConfigError(f"port {port} cannot be used ({error.strerror}): {advice}") from error


def run_processes(group: Group, settings: dict[str, Any]) -> dict[str, Any]:
    """Train and test in several processes; an error in any of them ends all, and so does the end of this one.

    Args:
        group: the processes.
        settings: arguments of :func:`~recbole_xling.quick_start.train.run`.

    Returns:
        The result of the run.

    Raises:
        XlingError: what a process raised.
    """
    of_group = group.settings()
    config, resume = configure(**settings)  # most errors come before anything is started
    if config["stages"]:
        return run_stages(config, resume, lambda **stage: run_processes(group, stage))
    settings = {**settings, "config_dict": {**(settings.get("config_dict") or {}), **of_group}}
    workers = _Workers()
    try:
        workers.work(group.nproc, _train, settings)
    except BaseException:
        if workers.folder and resume is None and group.group_offset == 0:
            close_failed_folder(Path(workers.folder))
        raise
    return read_result(Path(workers.folder))


def encode_in_processes(nproc: int, settings: dict[str, Any]) -> None:
    """Fill the embedding cache in several processes, which take the texts in turn.

    Args:
        nproc: processes on this machine.
        settings: arguments of :class:`~recbole_xling.config.DatasetConfig`.

    Raises:
        XlingError: what a process raised.
    """
    Group(nproc).settings()
    _Workers().work(nproc, _encode, settings)


def encode_part(config: DatasetConfig, rank: int) -> None:
    """Do the part of a process in encoding the texts of a dataset, on a GPU of its own where there are some.

    Args:
        config: names the dataset and the encoder.
        rank: the number of this process on this machine.
    """
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    if rank > 0:
        config["show_progress"] = False
    dataset_catalog(config).encode()


def run_launched(work: Callable[[], Any]) -> Any:
    """Do the part of a process that torchrun has started; an error ends the process at once.

    The first process that fails says why, and torchrun ends the others.

    Args:
        work: what to do.

    Returns:
        What ``work`` returns.
    """
    from torch.distributed.elastic.multiprocessing.errors import record

    rank = os.environ["RANK"]
    if rank != "0":
        logging.getLogger().setLevel(logging.ERROR)
    try:
        with exception_on_sigterm():
            result = record(work)()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        return result
    except XlingError as error:
        told = str(error)
    except OSError as error:
        told = os_error_message(error)
    except (SystemExit, KeyboardInterrupt):  # torchrun ends it, because another one has failed or somebody wants it
        os._exit(1)
    except BaseException as error:
        told = f"process {rank} failed: {type(error).__name__}: {error}"
    if _is_first_to_fail(rank):
        logger.error("recbole-xling: %s", shown(told))
    os._exit(2)  # at once: the usual way would wait for the other processes


def _is_first_to_fail(rank: str) -> bool:
    """Ask torchrun's store whether no other process has failed before: those report that they lost a connection."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    with suppress(RuntimeError):
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        connect: Any = torch.distributed.TCPStore  # type: ignore[attr-defined]
        store = connect(address, port, is_master=False, timeout=timedelta(seconds=_GRACE))
        key = f"recbole_xling/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
        return bool(store.compare_set(key, "", rank).decode() == rank)
    return True


@contextmanager
def exception_on_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit meanwhile, so that the workers are ended; only the main thread can do that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Workers:
    """The processes on this machine, and what they have reported.

    Attributes:
        folder: the run folder, once the first process has opened it.
    """

    def __init__(self) -> None:
        self.processes: list[Any] = []
        self._reports: list[Connection] = []
        self._errors: list[tuple[float, str, str]] = []  # time, message, and where it happened if nobody foresaw it
        self.folder = ""

    def work(self, nproc: int, task: Task, settings: dict[str, Any]) -> None:
        """Start the processes, and wait until all have ended; an error in any of them ends all.

        Raises:
            XlingError: what a process raised.
        """
        try:
            with exception_on_sigterm():
                self.start(nproc, task, settings)
                self.wait()
        except BaseException:
            self.stop()
            raise

    def start(self, nproc: int, task: Task, settings: dict[str, Any]) -> None:
        """Start the processes, each of which does its part of a task."""
        context = torch.multiprocessing.get_context("spawn")
        for rank in range(nproc):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(rank, nproc, task, settings, sender))
            process.start()
            sender.close()
            self.processes.append(process)
            self._reports.append(receiver)

    def wait(self) -> None:
        """Wait until all have ended.

        Raises:
            XlingError: one of them failed; the others may still be there.
        """
        while alive := [process for process in self.processes if process.is_alive()]:
            wait([process.sentinel for process in alive])
            failed = {rank: code for rank, process in enumerate(self.processes) if (code := process.exitcode)}
            if failed:
                self._read()
                killed = {rank: code for rank, code in failed.items() if code < 0}
                if killed or not self._errors:
                    raise XlingError(_died(*(killed or failed).popitem()))
                # the first to fail says why: the others report that they lost their connection to it
                _, told, where = min(self._errors)
                sys.stderr.write(where)
                raise XlingError(told)
        self._read()

    def stop(self) -> None:
        """End those that are left; afterwards there are none."""
        for end in ("terminate", "kill"):
            for process in self.processes:
                if process.is_alive():
                    getattr(process, end)()
            for process in self.processes:
                process.join(_GRACE)
        self._read()

    def _read(self) -> None:
        for report in self._reports:
            try:
                while report.poll():
                    kind, text, where, when = report.recv()
                    if kind == "error":
                        self._errors.append((when, text, where))
                    else:
                        self.folder = self.folder or text
            except (EOFError, OSError):  # it has ended, and perhaps in the middle of a word
                continue


def _died(rank: int, code: int) -> str:
    if code > 0:
        return f"process {rank} ended with exit code {code} and did not say why"
    reason = "; did memory run out?" if -code == signal.SIGKILL else ""
    return f"process {rank} was ended by {signal.Signals(-code).name}{reason}"


# ---- the workers ----------------------------------------------------------------------------------------------


def _train(rank: int, settings: dict[str, Any], report: Callable[[str, str], None]) -> None:
    config, resume = configure(**{**settings, "config_dict": {**settings["config_dict"], "local_rank": rank}})
    folder = open_folder(config, resume)
    report("folder", str(folder))
    run_configured(config, folder, resume)


def _encode(rank: int, settings: dict[str, Any], report: Callable[[str, str], None]) -> None:
    encode_part(DatasetConfig(**settings), rank)


def _work(rank: int, nproc: int, task: Task, settings: dict[str, Any], reports: Connection) -> None:
    """Run in a process of its own; the parent decides about Ctrl-C, and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_terminal()
    log_to_screen(logging.INFO if rank == 0 else logging.ERROR)
    if "OMP_NUM_THREADS" not in os.environ:  # else each would start as many threads as there are cores
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // nproc))

    def report(kind: str, text: str, where: str = "") -> None:
        reports.send((kind, text, where, time.time()))

    try:
        task(rank, settings, report)
    except XlingError as error:
        report("error", str(error))
    except OSError as error:
        report("error", os_error_message(error))
    except BaseException as error:
        report("error", f"process {rank} failed: {type(error).__name__}: {error}", traceback.format_exc())
    else:
        return
    sys.stderr.flush()
    os._exit(1)  # at once: the usual way would wait for the other processes


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
