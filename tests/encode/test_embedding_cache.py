"""The cache encodes a text once and gives the vectors in the order of the texts."""

from __future__ import annotations

import io
import json
import os
import subprocess
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from tqdm import tqdm

from recbole_xling.encode import EmbeddingCache, Encoder, create_encoder, shards
from recbole_xling.encode.cache import claimed, text_digests
from recbole_xling.errors import EncoderError

_Check = Callable[[list[str], list[str]], None]


def test_only_new_texts_are_encoded_and_duplicates_once(check_vectors: _Check) -> None:
    check_vectors(["b", "a", "b", "b"], ["a", "b"])
    check_vectors(["a", "c", "a", "b", "c"], ["c"])
    check_vectors(["c", "b", "a"], [])


def test_any_order_and_chunk_size_gives_rows_in_the_order_of_the_texts(
    cache: EmbeddingCache, counting_encoder: type, check_vectors: _Check
) -> None:
    texts = [f"{'x' * (number % 13)} {number % 150}" for number in range(700)]
    vectors = cache.vectors(counting_encoder(), texts, chunk_size=64)
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, counting_encoder().encode(texts))
    check_vectors(texts[::-1], [])


def test_a_chunk_larger_than_a_progress_step_is_one_shard(
    cache: EmbeddingCache, counting_encoder: type, check_vectors: _Check
) -> None:
    check_vectors([f"title {number}" for number in range(600)], [f"title {number}" for number in range(600)])
    assert len(list(shards.sidecars(cache.folder(counting_encoder())))) == 1


def test_no_texts(cache: EmbeddingCache, counting_encoder: type) -> None:
    assert cache.vectors(counting_encoder(), []).shape == (0, 16)
    assert cache.status(counting_encoder(), []) == (0, 0)
    assert not cache.root.exists()


def test_empty_odd_and_surrogate_texts_are_texts_like_others(check_vectors: _Check) -> None:
    texts = ["", " ", "\0", "\ud800", "e\u0301", "\u00e9"]
    check_vectors(texts, texts)
    check_vectors(texts, [])


def test_status_counts_distinct_texts(cache: EmbeddingCache, counting_encoder: type) -> None:
    assert cache.status(counting_encoder(), ["a", "b", "a"]) == (0, 2)
    cache.vectors(counting_encoder(), ["a", "z"])
    assert cache.status(counting_encoder(), ["a", "b", "a"]) == (1, 1)


def test_encoders_with_another_identity_do_not_share_vectors(cache: EmbeddingCache, counting_encoder: type) -> None:
    cache.vectors(counting_encoder(16), ["a"])
    other = counting_encoder(8)
    assert cache.folder(other) != cache.folder(counting_encoder(16))
    assert cache.vectors(other, ["a"]).shape == (1, 8)
    assert other.asked == ["a"]


def test_one_identity_with_two_dimensions_is_refused(
    cache: EmbeddingCache, counting_encoder: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.vectors(counting_encoder(16), ["a"])
    identity = counting_encoder(16).identity
    monkeypatch.setattr(counting_encoder, "identity", identity)
    with pytest.raises(EncoderError, match=r"length 8.*length 16.*delete"):
        cache.vectors(counting_encoder(8), ["a", "b"])
    assert len(list(shards.sidecars(cache.folder(counting_encoder())))) == 1


def test_the_identity_can_be_read_in_the_folder(
    cache: EmbeddingCache, counting_encoder: type, check_vectors: _Check
) -> None:
    cache.vectors(counting_encoder(), ["a"])
    folder = cache.folder(counting_encoder())
    assert json.loads((folder / "encoder.json").read_text("utf-8")) == counting_encoder().identity
    (folder / "encoder.json").write_text("{")
    check_vectors(["a", "b"], ["b"])
    assert json.loads((folder / "encoder.json").read_text("utf-8")) == counting_encoder().identity


def test_everything_stored_means_no_weights_are_loaded(
    cache: EmbeddingCache, counting_encoder: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.vectors(counting_encoder(), ["a"])

    def load(self: Encoder) -> int:
        raise AssertionError("the weights were loaded")

    monkeypatch.setattr(counting_encoder, "dimension", property(load))
    assert cache.vectors(counting_encoder(), ["a", "a"]).shape == (2, 16)


def test_a_checksum_is_taken_once_per_process(
    cache: EmbeddingCache, counting_encoder: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f"title {number}" for number in range(10)]
    cache.vectors(counting_encoder(), texts)
    sums: list[int] = []
    real = zlib.crc32

    def crc32(data: bytes, start: int = 0) -> int:
        sums.append(len(data))
        return real(data, start)

    monkeypatch.setattr(zlib, "crc32", crc32)
    vectors_size = next(shards.sidecars(cache.folder(counting_encoder()))).with_suffix(".npy").stat().st_size
    for _ in range(3):
        EmbeddingCache(cache.root).vectors(counting_encoder(), texts)
    assert sums.count(vectors_size) == 1


def test_what_killed_runs_left_goes_after_a_day_and_not_before(
    cache: EmbeddingCache, counting_encoder: type, check_vectors: _Check
) -> None:
    cache.vectors(counting_encoder(), ["a"])
    folder = cache.folder(counting_encoder())
    old, young = [[folder / f"{age}.npy", folder / f"{age}.tmp"] for age in ("old", "young")]
    for path in old + young:
        path.write_bytes(b"half")
    for path in [*old, *folder.glob("*.json"), *(path.with_suffix(".npy") for path in shards.sidecars(folder))]:
        os.utime(path, (time.time() - 90_000,) * 2)
    check_vectors(["a", "b"], ["b"])
    assert [path.exists() for path in old + young] == [False, False, True, True]


def test_the_progress_bar_counts_what_is_to_be_encoded(
    cache: EmbeddingCache, counting_encoder: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.vectors(counting_encoder(), ["title 1"])
    bars: list[tqdm] = []

    class Bar(tqdm):
        def __init__(self, *arguments: object, **options: object) -> None:
            # without a terminal the bar is off: open it on a file that is none
            super().__init__(*arguments, **{**options, "disable": bool(options["disable"]), "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr("recbole_xling.encode.cache.tqdm", Bar)
    monkeypatch.setattr("recbole_xling.encode.cache.on_screen", lambda: True)
    texts = [f"title {number}" for number in range(600)] * 2
    cache.vectors(counting_encoder(), texts, chunk_size=400)
    assert (bars[0].total, bars[0].n) == (599, 599)
    cache.vectors(counting_encoder(), ["another"], show_progress=False)
    assert bars[1].disable


@pytest.mark.parametrize("texts", [["a", None], ["a", float("nan")], ["a", b"b"]])
def test_what_is_no_string_is_named(cache: EmbeddingCache, counting_encoder: type, texts: list[str]) -> None:
    with pytest.raises(EncoderError, match="text 1 is"):
        cache.vectors(counting_encoder(), texts)


def test_one_string_in_place_of_a_list_is_refused(cache: EmbeddingCache, counting_encoder: type) -> None:
    with pytest.raises(EncoderError, match="one string"):
        cache.vectors(counting_encoder(), "abc")


def test_chunks_that_another_process_encodes_are_read_when_it_has_stored_them(
    cache: EmbeddingCache, counting_encoder: type
) -> None:
    texts = [f"title {number}" for number in range(10)]
    want = counting_encoder().encode(texts)
    folder, encoder = cache.folder(counting_encoder()), counting_encoder()
    folder.mkdir(parents=True)
    digests = text_digests(texts)
    got: list[np.ndarray] = []
    worker = Thread(target=lambda: got.append(cache.vectors(encoder, texts, chunk_size=4)))
    with claimed(folder, digests[:4], wait=False) as ours:
        assert ours
        with claimed(folder, digests[:4], wait=False) as theirs:
            assert not theirs
        worker.start()
        deadline = time.monotonic() + 30
        while len(encoder.asked) < 6 and time.monotonic() < deadline:
            time.sleep(0.01)
        shards.write_shard(folder, digests[:4], want[:4])
    worker.join(30)
    np.testing.assert_array_equal(got[0], want)
    assert sorted(encoder.asked) == texts[4:]
    assert not list(folder.glob(".*"))


def test_a_chunk_whose_claim_ends_without_vectors_is_encoded_by_who_waits(
    cache: EmbeddingCache, counting_encoder: type
) -> None:
    texts = ["a", "b"]
    folder, encoder = cache.folder(counting_encoder()), counting_encoder()
    folder.mkdir(parents=True)
    worker = Thread(target=lambda: cache.fill(encoder, texts))
    with claimed(folder, text_digests(texts), wait=False):
        worker.start()
        time.sleep(0.1)
        assert not encoder.asked
    worker.join(30)
    assert sorted(encoder.asked) == texts
    assert cache.status(encoder, texts) == (2, 0)


_SHARING = """
from recbole_xling.encode import EmbeddingCache, create_encoder
encoder = create_encoder(sys.argv[2], batch_size=8, dtype="float32")
encoder.dimension
print("ready", flush=True)
sys.stdin.readline()
EmbeddingCache(sys.argv[1]).vectors(encoder, sys.argv[3].split("|"), show_progress=False, chunk_size=16)
"""


def test_what_others_store_meanwhile_is_not_encoded_again(cache: EmbeddingCache, counting_encoder: type) -> None:
    texts = [f"title {number}" for number in range(64)]

    class Beside(counting_encoder):  # type: ignore[misc]
        def encode(self, texts_of_step):
            if "title 0" in texts_of_step:  # another process takes the third and the last chunk meanwhile
                cache.vectors(other, texts[32:48])
                cache.vectors(other, texts[48:])
            return super().encode(texts_of_step)

    encoder, other = Beside(), counting_encoder()
    vectors = cache.vectors(encoder, texts, chunk_size=16)
    assert sorted(encoder.asked) == sorted(texts[:32])
    np.testing.assert_array_equal(vectors, counting_encoder().encode(texts))


@pytest.mark.slow
def test_two_processes_encode_each_text_once_and_to_the_bits_of_one(
    cache: EmbeddingCache,
    bert_folder: Path,
    tmp_path: Path,
    start_python: Callable[..., subprocess.Popen[str]],
) -> None:
    words = ["the film", "about", "shark beach", "matrix love star war", "der pate ein hai am strand"]
    texts = [f"{words[number % 5]} {words[number // 5 % 5]} {words[number // 25]}" for number in range(125)]
    workers = [start_python(_SHARING, cache.root, bert_folder, "|".join(texts)) for _ in range(2)]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        _, errors = worker.communicate("go\n", timeout=60)
        assert worker.returncode == 0, errors
    encoder = create_encoder(str(bert_folder), batch_size=8, dtype="float32")
    stored = [shards.read_sidecar(sidecar) for sidecar in shards.sidecars(cache.folder(encoder))]
    assert sorted(np.concatenate([shard.digests for shard in stored])) == sorted(text_digests(texts))
    alone = EmbeddingCache(tmp_path / "alone").vectors(encoder, texts, chunk_size=16)
    np.testing.assert_array_equal(cache.vectors(encoder, texts), alone)
