"""The cache encodes a text once, survives kills, damage and full disks, and never serves a wrong vector."""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import signal
import subprocess
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tqdm import tqdm

from recbole_xling.encode import EmbeddingCache, Identity, Vectors, create_encoder, shard
from recbole_xling.errors import EncoderError, XlingError

_TEXTS = [f"title {number}" for number in range(10)]


class CountingEncoder:
    """The hashing encoder, with a record of what it was asked for and a hand on what it returns."""

    languages = None

    def __init__(self, dimension: int = 16) -> None:
        self._inner = create_encoder("hashing", dimension=dimension)
        self.asked: list[str] = []
        self.spoil: dict[str, float] = {}

    @property
    def identity(self) -> Identity:
        return self._inner.identity

    @property
    def dimension(self) -> int:
        return self._inner.dimension

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.asked += texts
        vectors = self._inner.encode(texts)
        for row, text in enumerate(texts):
            vectors[row, 0] = self.spoil.get(text, vectors[row, 0])
        return vectors


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


def _shards(cache: EmbeddingCache) -> list[Path]:
    return list(shard.sidecars(cache.folder(CountingEncoder())))


def _check(cache: EmbeddingCache, texts: list[str], newly_encoded: Sequence[str]) -> None:
    """Ask a fresh encoder for ``texts``: right vectors, and only ``newly_encoded`` are encoded."""
    encoder = CountingEncoder()
    np.testing.assert_array_equal(cache.vectors(encoder, texts), CountingEncoder().encode(texts))
    assert sorted(encoder.asked) == sorted(newly_encoded)


def test_only_new_texts_are_encoded_and_duplicates_once(cache: EmbeddingCache) -> None:
    _check(cache, ["b", "a", "b", "b"], ["a", "b"])
    _check(cache, ["a", "c", "a", "b", "c"], ["c"])
    _check(cache, ["c", "b", "a"], [])


def test_any_order_and_chunk_size_gives_rows_in_the_order_of_the_texts(cache: EmbeddingCache) -> None:
    texts = [f"{'x' * (number % 13)} {number % 150}" for number in range(700)]
    vectors = cache.vectors(CountingEncoder(), texts, chunk_size=64)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, CountingEncoder().encode(texts))
    _check(cache, texts[::-1], [])


def test_a_chunk_larger_than_a_progress_step_is_one_shard(cache: EmbeddingCache) -> None:
    _check(cache, [f"title {number}" for number in range(600)], [f"title {number}" for number in range(600)])
    assert len(_shards(cache)) == 1


def test_no_texts(cache: EmbeddingCache) -> None:
    assert cache.vectors(CountingEncoder(), []).shape == (0, 16)
    assert cache.status(CountingEncoder(), []) == (0, 0)
    assert not cache.root.exists()


def test_empty_odd_and_surrogate_texts_are_texts_like_others(cache: EmbeddingCache) -> None:
    texts = ["", " ", "\0", "\ud800", "e\u0301", "\u00e9"]
    _check(cache, texts, texts)
    _check(cache, texts, [])


def test_status_counts_distinct_texts(cache: EmbeddingCache) -> None:
    assert cache.status(CountingEncoder(), ["a", "b", "a"]) == (0, 2)
    cache.vectors(CountingEncoder(), ["a", "z"])
    assert cache.status(CountingEncoder(), ["a", "b", "a"]) == (1, 1)


def test_encoders_with_another_identity_do_not_share_vectors(cache: EmbeddingCache) -> None:
    cache.vectors(CountingEncoder(16), ["a"])
    other = CountingEncoder(8)
    assert cache.folder(other) != cache.folder(CountingEncoder(16))
    assert cache.vectors(other, ["a"]).shape == (1, 8)
    assert other.asked == ["a"]


def test_the_identity_can_be_read_in_the_folder(cache: EmbeddingCache) -> None:
    cache.vectors(CountingEncoder(), ["a"])
    folder = cache.folder(CountingEncoder())
    assert json.loads((folder / "encoder.json").read_text("utf-8")) == CountingEncoder().identity
    (folder / "encoder.json").write_text("{")
    _check(cache, ["a", "b"], ["b"])
    assert json.loads((folder / "encoder.json").read_text("utf-8")) == CountingEncoder().identity


def test_everything_stored_means_no_weights_are_loaded(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.vectors(CountingEncoder(), ["a"])

    def load(self: CountingEncoder) -> int:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(CountingEncoder, "dimension", property(load))
    assert cache.vectors(CountingEncoder(), ["a", "a"]).shape == (2, 16)


def test_the_progress_bar_counts_what_is_to_be_encoded(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.vectors(CountingEncoder(), ["title 1"])
    bars: list[tqdm] = []

    class Bar(tqdm):
        def __init__(self, *arguments: object, **options: object) -> None:
            # without a terminal the bar is off: open it on a file that is none
            super().__init__(*arguments, **{**options, "disable": bool(options["disable"]), "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr("recbole_xling.encode.cache.tqdm", Bar)
    texts = [f"title {number}" for number in range(600)] * 2
    cache.vectors(CountingEncoder(), texts, chunk_size=400)
    assert (bars[0].total, bars[0].n) == (599, 599)
    cache.vectors(CountingEncoder(), ["another"], show_progress=False)
    assert bars[1].disable


# ---- encoders that return rubbish ----


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_and_not_stored(cache: EmbeddingCache, value: float) -> None:
    encoder = CountingEncoder()
    encoder.spoil = {"title 3": value}
    with pytest.raises(EncoderError, match=r"NaN or infinity for 1 of .*'title 3'"):
        cache.vectors(encoder, _TEXTS, chunk_size=2)
    assert cache.status(encoder, _TEXTS) == (2, 8)  # the chunk before the bad one
    _check(cache, _TEXTS, _TEXTS[2:])


@pytest.mark.parametrize("shape", [(9, 16), (10, 15), (10,), (10, 16, 1)])
def test_vectors_of_another_shape_are_refused(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(CountingEncoder, "encode", lambda self, texts: np.zeros(shape, dtype=np.float32))
    with pytest.raises(EncoderError, match="shape"):
        cache.vectors(CountingEncoder(), _TEXTS)
    assert _shards(cache) == []


def test_one_identity_with_two_dimensions_is_refused(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.vectors(CountingEncoder(16), ["a"])
    identity = CountingEncoder(16).identity
    monkeypatch.setattr(CountingEncoder, "identity", identity)
    with pytest.raises(EncoderError, match=r"length 8.*length 16.*delete"):
        cache.vectors(CountingEncoder(8), ["a", "b"])
    assert len(_shards(cache)) == 1


@pytest.mark.parametrize("texts", [["a", None], ["a", float("nan")], ["a", b"b"]])
def test_what_is_no_string_is_named(cache: EmbeddingCache, texts: list[str]) -> None:
    with pytest.raises(EncoderError, match="text 1 is"):
        cache.vectors(CountingEncoder(), texts)


def test_one_string_in_place_of_a_list_is_refused(cache: EmbeddingCache) -> None:
    with pytest.raises(EncoderError, match="one string"):
        cache.vectors(CountingEncoder(), "abc")


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
    cache: EmbeddingCache, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], read_before: bool
) -> None:
    cache.vectors(CountingEncoder(), _TEXTS[:4])
    (victim,) = _shards(cache)
    cache.vectors(CountingEncoder(), _TEXTS[4:])
    if read_before:  # checksums are taken once per process: a later change has to be noticed all the same
        _check(cache, _TEXTS, [])
    damage(victim)
    with caplog.at_level(logging.WARNING):
        _check(cache, _TEXTS, _TEXTS[:4])
    assert "damaged shard" in caplog.text
    assert victim.name in caplog.text
    assert not victim.exists()
    assert not victim.with_suffix(".npy").exists()
    _check(cache, _TEXTS, [])


def test_status_does_not_count_damaged_shards(cache: EmbeddingCache) -> None:
    cache.vectors(CountingEncoder(), _TEXTS)
    _flip_a_bit_of_the_vectors(_shards(cache)[0])
    assert cache.status(CountingEncoder(), _TEXTS) == (0, 10)


def test_a_checksum_is_taken_once_per_process(cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.vectors(CountingEncoder(), _TEXTS)
    sums: list[int] = []
    real = zlib.crc32

    def crc32(data: bytes, start: int = 0) -> int:
        sums.append(len(data))
        return real(data, start)

    monkeypatch.setattr(zlib, "crc32", crc32)
    vectors_size = _shards(cache)[0].with_suffix(".npy").stat().st_size
    for _ in range(3):
        EmbeddingCache(cache.root).vectors(CountingEncoder(), _TEXTS)
    assert sums.count(vectors_size) == 1


# ---- disks ----


@pytest.mark.parametrize("failing_call", [0, 1])  # the vectors, the sidecar
def test_a_full_disk_is_said_clearly_and_leaves_nothing_half_written(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    cache.vectors(CountingEncoder(), _TEXTS[:2])
    calls = iter(range(100))
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if next(calls) == 1 + failing_call:  # the first call is encoder.json's
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(XlingError, match=r"cannot write the embedding cache .*No space left.*Make room"):
            cache.vectors(CountingEncoder(), _TEXTS)
    (kept,) = _shards(cache)
    folder = cache.folder(CountingEncoder())
    assert set(folder.iterdir()) == {kept, kept.with_suffix(".npy"), folder / "encoder.json"}
    _check(cache, _TEXTS, _TEXTS[2:])


def test_a_folder_that_cannot_be_made_fails_before_anything_is_encoded(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    encoder = CountingEncoder()
    with pytest.raises(XlingError, match="cannot write the embedding cache"):
        EmbeddingCache(tmp_path / "file" / "cache").vectors(encoder, ["a"])
    assert encoder.asked == []


def test_a_cache_that_holds_everything_need_not_be_writable(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.vectors(CountingEncoder(), _TEXTS)

    def refuse(*arguments: object) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    monkeypatch.setattr(shard, "write_synced", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    _check(cache, _TEXTS, [])


def test_an_unreadable_shard_is_left_alone(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.vectors(CountingEncoder(), _TEXTS)
    (victim,) = _shards(cache)
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path == victim:
            raise OSError(errno.EIO, "the disk is asleep")
        return real(path)

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(Path, "read_bytes", read_bytes)
        _check(cache, _TEXTS, _TEXTS)
    assert "cannot read" in caplog.text
    assert victim.exists()


# ---- other processes ----


def test_a_shard_that_another_process_deletes_meanwhile_is_no_matter(
    cache: EmbeddingCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.vectors(CountingEncoder(), _TEXTS)
    listed = [cache.folder(CountingEncoder()) / "gone.json", *_shards(cache)]
    monkeypatch.setattr(shard, "sidecars", lambda folder: listed)
    with caplog.at_level(logging.WARNING):
        _check(cache, _TEXTS, [])
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
    cache: EmbeddingCache, start_python: Callable[..., subprocess.Popen[str]], mode: str, at: int, finished: int
) -> None:
    worker = start_python(_WORKER, cache.root, 0, 10, mode, at)
    worker.communicate("go\n", timeout=60)
    assert worker.returncode == -signal.SIGKILL
    assert cache.status(CountingEncoder(), _TEXTS) == (finished, 10 - finished)
    _check(cache, _TEXTS, _TEXTS[finished:])


def test_two_processes_fill_one_cache_without_spoiling_it(
    cache: EmbeddingCache, start_python: Callable[..., subprocess.Popen[str]], caplog: pytest.LogCaptureFixture
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
        _check(cache, [f"title {number}" for number in range(200)], [])
    assert caplog.text == ""


def test_what_killed_runs_left_goes_after_a_day_and_not_before(cache: EmbeddingCache) -> None:
    cache.vectors(CountingEncoder(), ["a"])
    folder = cache.folder(CountingEncoder())
    old, young = [[folder / f"{age}.npy", folder / f"{age}.tmp"] for age in ("old", "young")]
    for path in old + young:
        path.write_bytes(b"half")
    for path in [*old, *folder.glob("*.json"), *(path.with_suffix(".npy") for path in _shards(cache))]:
        os.utime(path, (time.time() - 90_000,) * 2)
    _check(cache, ["a", "b"], ["b"])
    assert [path.exists() for path in old + young] == [False, False, True, True]
