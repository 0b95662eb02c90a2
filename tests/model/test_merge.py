"""A merged encoder: sentence-transformers and transformers load it and return the item tower's vectors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from recbole_xling.encode.model_source import find_model
from recbole_xling.errors import ConfigError, XlingError
from recbole_xling.model import merge
from recbole_xling.model.layers.text_encoder import TextEncoder
from recbole_xling.model.merge import merge_to_folder

_Build = Callable[..., TextEncoder]
_TEXTS = ["the film about a shark", "", "der pate am strand ein hai " * 5, "love"]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"peft": "adalora", "pooling": "cls", "adapter_layers": 2},
        {"peft": "ia3", "embedding_size": 6, "encoder_prompt": "query: "},
        {"peft": "full", "pooling": "last", "encoder_max_length": 9},
        {"peft": "frozen", "embedding_size": 6, "encoder_prompt": "ein "},
    ],
)
def test_sentence_transformers_returns_the_same_vectors(
    build_encoder: _Build, stir: Any, tmp_path: Path, settings: dict[str, Any]
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = build_encoder(**settings)
    stir(encoder)
    merge_to_folder(encoder, tmp_path / "runs" / "merged")
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "runs" / "merged"), device="cpu")
    vectors = torch.from_numpy(loaded.encode(_TEXTS))
    tokens = encoder.tokenise(_TEXTS)
    torch.testing.assert_close(vectors, encoder.encode_all(tokens)[tokens.text_of_row], atol=1e-5, rtol=0)
    assert loaded.max_seq_length == encoder.config.encoder_max_length
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["merged"]


def test_it_can_be_tuned_again(build_encoder: _Build, stir: Any, tmp_path: Path) -> None:
    encoder = build_encoder()
    stir(encoder)
    merge_to_folder(encoder, tmp_path / "merged")
    assert type(transformers.AutoModel.from_pretrained(tmp_path / "merged")) is transformers.XLMRobertaModel
    again = build_encoder(folder=tmp_path / "merged", peft="ia3")
    tokens = encoder.tokenise(_TEXTS)
    torch.testing.assert_close(again.encode_all(again.tokenise(_TEXTS)), encoder.encode_all(tokens), atol=1e-5, rtol=0)
    assert not find_model(tmp_path / "merged").plain, "it brings its own pooling"


def test_nothing_is_overwritten(build_encoder: _Build, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    merge_to_folder(build_encoder(), tmp_path / "merged")  # an empty folder is filled
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(ConfigError, match=r"merged' exists and is not empty"):
        merge_to_folder(build_encoder(), tmp_path / "merged")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_a_full_disk_leaves_nothing_behind(
    build_encoder: _Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merge, "_write_settings", fail)
    with pytest.raises(XlingError, match=r"cannot write the encoder to .*merged.*No space left.*Free space"):
        merge_to_folder(build_encoder(), tmp_path / "merged")
    assert not list(tmp_path.iterdir())


def test_loading_a_damaged_folder_says_which(build_encoder: _Build, tiny_encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_encoder, tmp_path / "broken"))
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(XlingError, match=r"cannot load the encoder '.*broken'"):
        build_encoder(folder=folder)
