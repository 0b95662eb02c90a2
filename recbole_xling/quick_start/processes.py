"""A run in several processes: started together, ended together."""

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
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

import torch

from recbole_xling.errors import ConfigError, XlingError, os_error_message
from recbole_xling.quick_start.stages import run_stages
from recbole_xling.quick_start.train import close_failed_folder, configure, open_folder, run_configured
from recbole_xling.utils.run_folder import read_result
from recbole_xling.utils.terminal import log_to_screen, prepare_terminal

_MOST_PER_CORE = 4
_DEFAULT_PORT = 5678  # of several machines, as in RecBole; on one machine a free port is chosen
_GRACE = 5.0  # seconds between asking a process to end and ending it


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
    devices = [device for device in config["gpu_id"].split(",") if device.strip()]
    if config["device"].type == "cuda" and len(devices) < group.nproc:
        raise ConfigError(f"nproc={group.nproc} needs a GPU for each process: gpu_id names {len(devices)}")
    settings = {**settings, "config_dict": {**(settings.get("config_dict") or {}), **of_group}}
    workers = _Workers()
    try:
        with _exception_on_sigterm():
            workers.start(group.nproc, settings)
            workers.wait()
    except BaseException:
        workers.stop()
        if workers.folder and resume is None and group.group_offset == 0:
            close_failed_folder(Path(workers.folder))
        raise
    return read_result(Path(workers.folder))


@contextmanager
def _exception_on_sigterm() -> Iterator[None]:
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
    """The processes of a run on this machine, and what they have reported.

    Attributes:
        folder: the run folder, once the first process has opened it.
    """

    def __init__(self) -> None:
        self.processes: list[Any] = []
        self._reports: list[Connection] = []
        self._errors: list[tuple[float, str]] = []  # time and message
        self.folder = ""

    def start(self, nproc: int, settings: dict[str, Any]) -> None:
        context = torch.multiprocessing.get_context("spawn")
        for rank in range(nproc):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(rank, settings, sender))
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
                # the first to fail says why: the others report that they lost their connection to it
                told = min(self._errors)[1] if self._errors and not killed else _died(*(killed or failed).popitem())
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
                    kind, text, when = report.recv()
                    if kind == "error":
                        self._errors.append((when, text))
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


def _work(rank: int, settings: dict[str, Any], reports: Connection) -> None:
    """Run in a process of its own; the parent decides about Ctrl-C, and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_terminal()
    log_to_screen(logging.INFO if rank == 0 else logging.ERROR)

    def report(kind: str, text: str) -> None:
        reports.send((kind, text, time.time()))

    try:
        config_dict = {**settings["config_dict"], "local_rank": rank}
        config, resume = configure(**{**settings, "config_dict": config_dict})
        folder = open_folder(config, resume)
        report("folder", str(folder))
        run_configured(config, folder, resume)
    except XlingError as error:
        report("error", str(error))
    except OSError as error:
        report("error", os_error_message(error))
    except BaseException as error:
        traceback.print_exc()
        report("error", f"process {rank} failed: {type(error).__name__}: {error}")
    else:
        return
    sys.stderr.flush()
    os._exit(1)  # at once: the usual way would wait for the other processes


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
