"""Language models as encoders: vectors are transformers' own text by text, adapters train, GGUF files are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny_gguf import write_tiny_gguf
from torch import Tensor

from recbole_xling.encode.hub import find_model
from recbole_xling.errors import CheckpointError, ConfigError, EncoderError
from recbole_xling.model.text_encoder.encoder import TextEncoder, TextEncoderConfig, check_encoder
from recbole_xling.quick_start.export import merge_to_folder
from recbole_xling.testing import make_tiny_encoder

_TEXTS = ["the film about a shark", "love", "", "der pate am strand ein hai star war der pate am strand", "a b c d e f"]
_SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
    "pad_token_id": 1,
}
_MODELS: dict[str, Callable[[], Any]] = {
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **_SIZES, head_dim=8, sliding_window=4, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
    ),
    "llama": lambda: transformers.LlamaConfig(**_SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**_SIZES, head_dim=8),
}
_POOL: dict[str, Callable[[Tensor], Tensor]] = {"last": lambda states: states[-1], "mean": lambda s: s.mean(0)}


@pytest.fixture(scope="module", params=_MODELS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model whose tokenizer pads on the left, as those that write do."""
    folder = make_tiny_encoder(tmp_path_factory.mktemp("decoder") / request.param, _MODELS[request.param]())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.save_pretrained(folder)
    return folder


@torch.no_grad()
def _one_by_one(folder: Path, pooling: str, prompt: str = "") -> Tensor:
    """The vectors of the texts by transformers alone, without any padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    states = [model(**tokenizer(prompt + text, return_tensors="pt")).last_hidden_state[0] for text in _TEXTS]
    return torch.nn.functional.normalize(torch.stack([_POOL[pooling](state) for state in states]), dim=-1)


@pytest.mark.parametrize(
    ("pooling", "settings"),
    [
        ("mean", {}),
        ("last", {"encoder_prompt": "a film "}),
        ("last", {"adapter_layers": 1, "lower_layer_cache_gb": 0.01}),
        ("mean", {"peft": "frozen", "lower_layer_cache_gb": 0.01}),
    ],
)
def test_vectors_are_those_of_each_text_alone(
    folder: Path, build_encoder: Callable[..., TextEncoder], pooling: str, settings: dict[str, Any]
) -> None:
    encoder = build_encoder(folder, pooling=pooling, **settings)
    tokens = encoder.tokenize(_TEXTS)
    vectors = encoder.encode_all(tokens)[tokens.text_of_row]
    # what is kept of frozen layers has half precision
    atol = 3e-3 if "lower_layer_cache_gb" in settings else 1e-5
    torch.testing.assert_close(
        vectors, _one_by_one(folder, pooling, settings.get("encoder_prompt", "")), atol=atol, rtol=0
    )


def test_only_adapters_of_the_top_layers_learn(folder: Path, build_encoder: Callable[..., TextEncoder]) -> None:
    encoder = build_encoder(folder, pooling="last", adapter_layers=1, target_modules=["q_proj", "down_proj"])
    tokens = encoder.tokenize(_TEXTS)
    encoder.train()
    vectors = encoder(tokens, torch.arange(tokens.n_texts))
    (vectors @ vectors.T).square().sum().backward()
    learning = [name for name, weight in encoder.named_parameters() if weight.grad is not None]
    assert len(learning) == 4 and all(".layers.2." in name and "lora_" in name for name in learning), learning


def test_a_merged_language_model_gives_the_same_vectors(
    folder: Path, build_encoder: Callable[..., TextEncoder], stir: Any, tmp_path: Path
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = build_encoder(folder, pooling="last")
    stir(encoder)
    merge_to_folder(encoder, tmp_path / "merged")
    tokens = encoder.tokenize(_TEXTS)
    loaded = sentence_transformers.SentenceTransformer(str(tmp_path / "merged"), device="cpu")
    expected = encoder.encode_all(tokens)[tokens.text_of_row]
    torch.testing.assert_close(torch.from_numpy(loaded.encode(_TEXTS)), expected, atol=1e-5, rtol=0)


def test_texts_beyond_the_positions_of_the_model_are_refused(
    folder: Path, build_encoder: Callable[..., TextEncoder]
) -> None:
    with pytest.raises(ConfigError, match=r"encoder_max_length is 41, but .* takes 40 tokens at most"):
        build_encoder(folder, encoder_max_length=41)


def test_the_lowest_layers_alone_are_an_encoder(folder: Path, build_encoder: Callable[..., TextEncoder]) -> None:
    encoder = build_encoder(folder, adapter_layers=1, encoder_options={"num_hidden_layers": 2})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model.layers = model.layers[:2]
    expected = []
    with torch.no_grad():
        for text in _TEXTS:
            expected.append(model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0))
        tokens = encoder.tokenize(_TEXTS)
        vectors = encoder.encode_all(tokens)[tokens.text_of_row]
    torch.testing.assert_close(vectors, torch.nn.functional.normalize(torch.stack(expected), dim=-1), atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        check_encoder(encoder, build_encoder(folder).identity)
    with pytest.raises(EncoderError, match=r"from 1 to the 3 that .* has, not 4"):
        build_encoder(folder, encoder_options={"num_hidden_layers": 4})


# ---- GGUF -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gguf_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with nothing but a GGUF file, and the model that is in it."""
    pytest.importorskip("gguf")
    folder = tmp_path_factory.mktemp("gguf")
    return folder, write_tiny_gguf(folder / "tiny.gguf")


def test_a_gguf_file_is_tuned_and_saved_as_a_plain_model(
    gguf_model: tuple[Path, Any], tmp_path: Path, stir: Any
) -> None:
    folder, model = gguf_model
    settings = TextEncoderConfig(encoder_max_length=32, peft="full", lower_layer_cache_gb=0.0)
    encoder = TextEncoder(find_model(folder, gguf_file="tiny.gguf"), settings)
    for name, weight in encoder.transformer.state_dict().items():
        torch.testing.assert_close(weight, model.state_dict()[name], atol=0, rtol=0)
    stir(encoder)
    merge_to_folder(encoder, tmp_path / "merged")
    again = TextEncoder(find_model(tmp_path / "merged"), settings)
    texts = ["a b", "shark film", ""]
    expected, found = (one.encode_all(one.tokenize(texts)) for one in (encoder, again))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with pytest.raises(CheckpointError, match=r"gguf_file"):
        check_encoder(encoder, {**encoder.identity, "gguf_file": None})


def test_a_gguf_file_that_is_not_there_is_named_with_those_that_are(gguf_model: tuple[Path, Any]) -> None:
    with pytest.raises(EncoderError, match=r"unknown gguf_file 'tini.gguf'. Did you mean 'tiny.gguf'"):
        find_model(gguf_model[0], gguf_file="tini.gguf")
