"""Vectors of a catalog in one mapped file: those of the cache at unit scale, made once, checked, and shared."""

from __future__ import annotations

import os
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest
import torch

from recbole_xling.config import XLingConfig
from recbole_xling.data import catalog as catalogs
from recbole_xling.data.item_vectors import unit_norm
from recbole_xling.encode import EmbeddingCache
from recbole_xling.encode.cache import text_digests
from recbole_xling.encode.vector_table import read_blocks, vector_table
from recbole_xling.errors import EncoderError, XlingError
from recbole_xling.quick_start.build import build

TEXTS = [f"text {number}" for number in range(50)]
ROW = np.array([0, 3, 1, 0, 3, *range(1, 51)])


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    return EmbeddingCache(tmp_path / "cache")


def _files(cache: EmbeddingCache) -> list[Path]:
    return sorted(cache.root.glob("*/tables/*/vectors.npy"))


def test_a_table_has_the_vectors_of_items_at_unit_scale_to_the_last_bit(cache, counting_encoder):
    encoder = counting_encoder()
    vectors = np.concatenate([np.zeros((1, 16), np.float32), cache.vectors(encoder, TEXTS[:20])])
    vectors = np.concatenate([vectors, encoder._inner.encode(TEXTS[20:])])
    encoder.asked.clear()
    table = vector_table(cache, encoder, TEXTS, ROW)
    assert sorted(encoder.asked) == sorted(TEXTS[20:])  # what the cache lacked
    assert isinstance(table, np.memmap) and table.dtype == np.float32
    np.testing.assert_array_equal(table, vectors[ROW] / np.float32(unit_norm(vectors[ROW])))
    again = counting_encoder()
    np.testing.assert_array_equal(vector_table(cache, again, TEXTS, ROW), table)
    assert not again.asked and len(_files(cache)) == 1


def test_half_precision_takes_half_the_room_and_is_near(cache, counting_encoder):
    single, half = (vector_table(cache, counting_encoder(), TEXTS, ROW, dtype=d) for d in ("float32", "float16"))
    np.testing.assert_allclose(half, single, atol=1e-3)
    assert half.nbytes == single.nbytes // 2 and len(_files(cache)) == 2


def test_other_texts_or_places_have_another_file(cache, counting_encoder):
    first = vector_table(cache, counting_encoder(), TEXTS, ROW)
    moved = vector_table(cache, counting_encoder(), TEXTS, ROW[::-1].copy())
    np.testing.assert_array_equal(moved, first[::-1])
    vector_table(cache, counting_encoder(), TEXTS[::-1], ROW)
    assert len(_files(cache)) == 3


def test_a_text_that_two_processes_stored_is_there_once(cache, counting_encoder):
    encoder = counting_encoder()
    wanted = np.array(vector_table(cache, encoder, TEXTS, ROW))
    for shard in sorted(cache.folder(encoder).glob("*.npy")):
        for part in (shard, shard.with_suffix(".json")):
            part.with_stem(f"0{shard.stem[1:]}x").write_bytes(part.read_bytes())
    (path,) = _files(cache)
    rmtree(path.parent)
    again = counting_encoder()
    np.testing.assert_array_equal(vector_table(cache, again, TEXTS, ROW), wanted)
    assert not again.asked


def test_a_table_is_written_in_parts_from_several_shards(cache, counting_encoder, monkeypatch):
    encoder = counting_encoder()
    wanted = np.array(vector_table(EmbeddingCache(cache.root.parent / "other"), encoder, TEXTS, ROW))
    for start in range(0, 50, 7):
        cache.fill(encoder, TEXTS[start : start + 7])
    monkeypatch.setattr("recbole_xling.encode.vector_table._BLOCK", 8)
    np.testing.assert_array_equal(vector_table(cache, encoder, TEXTS, ROW), wanted)


def test_more_shards_than_files_may_be_open_are_read(cache, counting_encoder):
    resource = pytest.importorskip("resource")
    encoder = counting_encoder()
    for text in TEXTS:
        cache.fill(encoder, [text])
    encoder.asked.clear()
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/dev/fd")) + 20, limit[1]))
    try:
        table = vector_table(cache, encoder, TEXTS, ROW)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert not encoder.asked and len(list(cache.folder(encoder).glob("*.npy"))) == 50
    other = EmbeddingCache(cache.root.parent / "other")
    np.testing.assert_allclose(table, vector_table(other, encoder, TEXTS, ROW), rtol=1e-5)


def test_texts_that_occur_twice_are_refused(cache, counting_encoder):
    texts = ["a", "b", "a"]
    with pytest.raises(EncoderError, match="1 texts occur a second time"):
        cache.blocks(counting_encoder(), texts, text_digests(texts))


def test_a_full_disk_leaves_no_table(cache, counting_encoder, full_disk, monkeypatch):
    monkeypatch.setattr("recbole_xling.encode.vector_table._rows", full_disk)
    with pytest.raises(XlingError, match=r"vector table.*No space left"):
        vector_table(cache, counting_encoder(), TEXTS, ROW)
    assert not _files(cache)


@pytest.mark.parametrize("damage", ["flip", "cut", "no checksum"])
def test_a_damaged_file_is_made_again(cache, counting_encoder, caplog, damage):
    wanted = np.array(vector_table(cache, counting_encoder(), TEXTS, ROW))
    (path,) = _files(cache)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if damage == "no checksum":
        (path.parent / "checksums.json").write_text("{}x")
    else:
        path.write_bytes(content if damage == "flip" else content[:-64])
    np.testing.assert_array_equal(vector_table(cache, counting_encoder(), TEXTS, ROW), wanted)
    assert "damaged and is made again" in caplog.text


def test_blocks_of_a_mapped_file_are_its_rows(cache, counting_encoder, monkeypatch):
    monkeypatch.setattr("recbole_xling.encode.vector_table._BLOCK", 8)
    table = vector_table(cache, counting_encoder(), TEXTS, ROW)
    parts = list(read_blocks(table))
    assert len(parts) == 7 and not any(isinstance(block, np.memmap) for _, block in parts)
    np.testing.assert_array_equal(np.concatenate([block for _, block in parts]), table)


def _model_and_loader(settings):
    run = build(XLingConfig("LLMSASRec", "small", config_dict=settings))
    run.model.begin_training(10, 0)
    return run.model, run.train_data


@pytest.mark.parametrize("changed", [{}, {"text_projection": "mlp"}, {"text_projection_init": "pca"}])
def test_a_model_trains_on_a_mapped_file_as_on_memory(small_dataset, settings, monkeypatch, changed):
    small_dataset()
    monkeypatch.setattr("recbole_xling.model.layers.item_representation._BLOCK", 16)
    made = []
    for least in (10**6, 1):
        monkeypatch.setattr(catalogs, "_MAPPED_FROM", least)
        model, loader = _model_and_loader({**settings, **changed})
        loss = model.calculate_loss(next(iter(loader)))
        loss.backward()
        gradient = next(model.items.text_projection.parameters()).grad
        table = model.eval().item_table().detach()
        with torch.no_grad():  # some rows at a time
            torch.testing.assert_close(model.item_table(), table)
        made.append((loss, gradient, table, model.items.is_mapped))
    (loss, gradient, table, mapped), (other, its_gradient, its_table, is_mapped) = made
    assert not mapped and is_mapped
    assert torch.equal(loss, other) and torch.equal(gradient, its_gradient) and torch.equal(table, its_table)


def test_half_precision_trains(small_dataset, settings, monkeypatch):
    small_dataset()
    monkeypatch.setattr(catalogs, "_MAPPED_FROM", 1)
    model, loader = _model_and_loader({**settings, "vector_dtype": "float16"})
    assert model.items.text_vectors.element_size() == 2
    assert model.calculate_loss(next(iter(loader))).isfinite()
