"""The cache survives spoilt vectors, damage, full disks and kills, and never serves a wrong vector."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest
from interrupted import restore, states_before_each_change

from recbole_xling.encode import EmbeddingCache, shards
from recbole_xling.encode import cache as cache_module
from recbole_xling.errors import EncoderError, XlingError

_Check = Callable[[list[str], list[str]], None]

_TEXTS = [f"title {number}" for number in range(10)]


def _shards(cache: EmbeddingCache) -> list[Path]:
    return [sidecar for folder in cache.root.glob("*") for sidecar in shards.sidecars(folder)]


# ---- encoders that return rubbish ----


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_and_not_stored(
    cache: EmbeddingCache, counting_encoder: type, check_vectors: _Check, value: float
) -> None:
    encoder = counting_encoder()
    encoder.spoil = {"title 3": value}
    with pytest.raises(EncoderError, match=r"NaN or infinity for 1 of .*'title 3'"):
        cache.vectors(encoder, _TEXTS, chunk_size=2)
    assert cache.status(encoder, _TEXTS) == (2, 8)  # the chunk before the bad one
    check_vectors(_TEXTS, _TEXTS[2:])


@pytest.mark.parametrize("shape", [(9, 16), (10, 15), (10,), (10, 16, 1)])
def test_vectors_of_another_shape_are_refused(
    cache: EmbeddingCache, counting_encoder: type, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(counting_encoder, "encode", lambda self, texts: np.zeros(shape, dtype=np.float32))
    with pytest.raises(EncoderError, match="shape"):
        cache.vectors(counting_encoder(), _TEXTS)
    assert _shards(cache) == []


# ---- damage ----


def _truncate_vectors(sidecar: Path) -> None:
    path = sidecar.with_suffix(".npy")
    path.write_bytes(path.read_bytes()[:-4])


def _flip_a_bit_of_the_vectors(sidecar: Path) -> None:
    path = sidecar.with_suffix(".npy")
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    os.utime(path, (time.time() + 5,) * 2)  # file systems with coarse clocks


def _delete_vectors(sidecar: Path) -> None:
    sidecar.with_suffix(".npy").unlink()


def _truncate_sidecar(sidecar: Path) -> None:
    sidecar.write_bytes(sidecar.read_bytes()[:-20])


def _garble_sidecar(sidecar: Path) -> None:
    sidecar.write_bytes(b"\xff\x00 no JSON")


def _sidecar_of_another_kind(sidecar: Path) -> None:
    sidecar.write_text("[1, 2]")


def _change_a_digest(sidecar: Path) -> None:
    content = json.loads(sidecar.read_text())
    first = content["digests"][0]
    content["digests"] = ("B" if first == "A" else "A") + content["digests"][1:]
    sidecar.write_text(json.dumps(content))


def _change_the_count(sidecar: Path) -> None:
    content = json.loads(sidecar.read_text())
    sidecar.write_text(json.dumps({**content, "count": content["count"] - 1}))


_DAMAGES = [
    _truncate_vectors,
    _flip_a_bit_of_the_vectors,
    _delete_vectors,
    _truncate_sidecar,
    _garble_sidecar,
    _sidecar_of_another_kind,
    _change_a_digest,
    _change_the_count,
]


@pytest.mark.parametrize("damage", _DAMAGES)
@pytest.mark.parametrize("read_before", [False, True])
def test_a_damaged_shard_is_noticed_reported_and_encoded_again(
    cache: EmbeddingCache,
    counting_encoder: type,
    check_vectors: _Check,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    read_before: bool,
) -> None:
    cache.vectors(counting_encoder(), _TEXTS[:4])
    (victim,) = _shards(cache)
    cache.vectors(counting_encoder(), _TEXTS[4:])
    if read_before:  # checksums are taken once per process: a later change has to be noticed all the same
        check_vectors(_TEXTS, [])
    damage(victim)
    with caplog.at_level(logging.WARNING):
        check_vectors(_TEXTS, _TEXTS[:4])
    assert "damaged shard" in caplog.text
    assert victim.name in caplog.text
    assert not victim.exists()
    assert not victim.with_suffix(".npy").exists()
    check_vectors(_TEXTS, [])


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_flipped_bit_never_gives_a_wrong_vector(cache: EmbeddingCache, counting_encoder: type, suffix: str) -> None:
    expected = cache.vectors(counting_encoder(), _TEXTS)
    (sidecar,) = _shards(cache)
    whole = {path: path.read_bytes() for path in (sidecar, sidecar.with_suffix(".npy"))}
    victim, draw, repaired = sidecar.with_suffix(suffix), Random(0), 0
    for number in range(300):
        damaged = bytearray(whole[victim])
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        victim.write_bytes(damaged)
        os.utime(victim, (number,) * 2)  # file systems with coarse clocks
        again = counting_encoder()
        assert np.array_equal(cache.vectors(again, _TEXTS), expected)
        repaired += bool(again.asked)
        for other in cache.folder(again).iterdir():
            other.unlink()
        for path, content in whole.items():
            path.write_bytes(content)
    assert repaired > 200


def test_a_process_killed_at_any_change_leaves_a_cache_that_serves_right_vectors(
    cache: EmbeddingCache, counting_encoder: type, tmp_path: Path
) -> None:
    expected = EmbeddingCache(tmp_path / "whole").vectors(counting_encoder(), _TEXTS)
    killed = states_before_each_change(
        cache.root, lambda: cache.vectors(counting_encoder(), _TEXTS, chunk_size=4, show_progress=False)
    )
    assert len(killed) > 10
    for number, found in enumerate(killed):
        restore(tmp_path / str(number), found)
        for _ in range(2):
            again = counting_encoder()
            left = EmbeddingCache(tmp_path / str(number))
            assert np.array_equal(left.vectors(again, _TEXTS, show_progress=False), expected)
        assert again.asked == []


def test_status_does_not_count_damaged_shards(cache: EmbeddingCache, counting_encoder: type) -> None:
    cache.vectors(counting_encoder(), _TEXTS)
    _flip_a_bit_of_the_vectors(_shards(cache)[0])
    assert cache.status(counting_encoder(), _TEXTS) == (0, 10)


# ---- disks ----


@pytest.mark.parametrize("failing_call", [0, 1])  # the vectors, the sidecar
def test_a_full_disk_is_said_clearly_and_leaves_nothing_half_written(
    cache: EmbeddingCache,
    counting_encoder: type,
    check_vectors: _Check,
    monkeypatch: pytest.MonkeyPatch,
    failing_call: int,
) -> None:
    cache.vectors(counting_encoder(), _TEXTS[:2])
    calls = iter(range(100))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == 1 + failing_call:  # the first call is encoder.json's
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(XlingError, match=r"cannot write the embedding cache .*No space left.*Make room"):
            cache.vectors(counting_encoder(), _TEXTS)
    (kept,) = _shards(cache)
    folder = cache.folder(counting_encoder())
    assert set(folder.iterdir()) == {kept, kept.with_suffix(".npy"), folder / "encoder.json"}
    check_vectors(_TEXTS, _TEXTS[2:])


def test_a_folder_that_cannot_be_made_fails_before_anything_is_encoded(counting_encoder: type, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    encoder = counting_encoder()
    with pytest.raises(XlingError, match="cannot write the embedding cache"):
        EmbeddingCache(tmp_path / "file" / "cache").vectors(encoder, ["a"])
    assert encoder.asked == []


def test_a_cache_that_holds_everything_need_not_be_writable(
    cache: EmbeddingCache, counting_encoder: type, check_vectors: _Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.vectors(counting_encoder(), _TEXTS)

    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(shards, "replacing", refuse)
    for write in ("mkdir", "write_bytes"):
        monkeypatch.setattr(Path, write, refuse)
    check_vectors(_TEXTS, [])


def test_an_unreadable_shard_is_left_alone(
    cache: EmbeddingCache,
    counting_encoder: type,
    check_vectors: _Check,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache.vectors(counting_encoder(), _TEXTS)
    (victim,) = _shards(cache)
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == victim:
            raise OSError(errno.EIO, "the disk is asleep")
        return real(path)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Path, "read_bytes", read_bytes)
        check_vectors(_TEXTS, _TEXTS)
    assert "cannot read" in caplog.text
    assert victim.exists()


# ---- other processes ----


def test_a_shard_that_another_process_deletes_meanwhile_is_no_matter(
    cache: EmbeddingCache,
    counting_encoder: type,
    check_vectors: _Check,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cache.vectors(counting_encoder(), _TEXTS)
    listed = [cache.folder(counting_encoder()) / "gone.json", *_shards(cache)]
    monkeypatch.setattr(cache_module, "sidecars", lambda folder: listed)
    with caplog.at_level(logging.WARNING):
        check_vectors(_TEXTS, [])
    assert caplog.text == ""


_WORKER = """
import os, signal
from recbole_xling.encode import EmbeddingCache, create_encoder
root, first, last, mode, at = sys.argv[1], *map(int, sys.argv[2:4]), sys.argv[4], int(sys.argv[5])
encoder = create_encoder("hashing", dimension=16)
calls = 0
def strike(function):
    def counted(*arguments):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return counted
if mode == "encode":
    encoder.encode = strike(encoder.encode)
if mode == "replace":
    os.replace = strike(os.replace)
print("ready", flush=True)
sys.stdin.readline()
EmbeddingCache(root).vectors(encoder, [f"title {n}" for n in range(first, last)], chunk_size=3, show_progress=False)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("mode", "at", "finished"),
    [("encode", 3, 6), ("replace", 4, 6)],  # while encoding the third chunk; between its vectors and its sidecar
)
def test_a_killed_run_goes_on_from_its_last_finished_chunk(
    cache: EmbeddingCache,
    counting_encoder: type,
    check_vectors: _Check,
    start_python: Callable[..., subprocess.Popen[str]],
    mode: str,
    at: int,
    finished: int,
) -> None:
    worker = start_python(_WORKER, cache.root, 0, 10, mode, at)
    worker.communicate("go\n", timeout=60)
    assert worker.returncode == -signal.SIGKILL
    assert cache.status(counting_encoder(), _TEXTS) == (finished, 10 - finished)
    check_vectors(_TEXTS, _TEXTS[finished:])


def test_two_processes_fill_one_cache_without_spoiling_it(
    cache: EmbeddingCache,
    check_vectors: _Check,
    start_python: Callable[..., subprocess.Popen[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    workers = [start_python(_WORKER, cache.root, first, last, "", 0) for first, last in ((0, 120), (60, 200))]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors
        assert errors == ""
    with caplog.at_level(logging.WARNING):
        check_vectors([f"title {number}" for number in range(200)], [])
    assert caplog.text == ""
