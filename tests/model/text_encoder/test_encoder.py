"""The item tower: vectors are transformers' own, gradients do not depend on how texts are cut into parts."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from recbole_xling.errors import ConfigError, EncoderError
from recbole_xling.model.text_encoder import tokens as buckets
from recbole_xling.model.text_encoder.encoder import TextEncoder
from recbole_xling.model.text_encoder.tokens import TokenizedTexts

_Build = Callable[..., TextEncoder]
_WORDS = "the film about a shark love star war der pate am strand matrix beach".split()
_TEXTS = ["", *(" ".join(_WORDS[i % 5 : i % 5 + 1 + 5 * i % 9]) + f" {i}" for i in range(23))]


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut even a few short texts by their length."""
    monkeypatch.setattr(buckets, "_LEAST_TOKENS", {"cpu": 8})


def _gradients(encoder: TextEncoder, tokens: TokenizedTexts, text_ids: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """Gradients of a loss in which every text meets every other one."""
    encoder.train()
    encoder.zero_grad()
    torch.manual_seed(seed)
    vectors = encoder(tokens, text_ids)
    torch.nn.functional.cross_entropy(vectors @ vectors.T.roll(1, 0) / 0.1, torch.arange(len(vectors))).backward()
    return {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}


def _assert_equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    assert left.keys() == right.keys()
    largest = max(float(gradient.abs().max()) for gradient in left.values())
    for name, gradient in left.items():
        torch.testing.assert_close(gradient, right[name], atol=2e-5 * largest, rtol=1e-3)


# ---- vectors ----


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [("mean", lambda states: states.mean(0)), ("cls", lambda states: states[0]), ("last", lambda states: states[-1])],
)
def test_vectors_are_those_of_transformers(
    build_encoder: _Build, tiny_encoder: Path, pooling: str, pool: Callable[[Tensor], Tensor]
) -> None:
    encoder = build_encoder(pooling=pooling, encoder_prompt="query: ", encoder_max_length=9)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny_encoder)
    model = transformers.AutoModel.from_pretrained(tiny_encoder).eval()
    expected = []
    for text in _TEXTS:
        inputs = tokenizer("query: " + text, truncation=True, max_length=9, return_tensors="pt")
        with torch.no_grad():
            expected.append(pool(model(**inputs).last_hidden_state[0]))
    tokens = encoder.tokenize(_TEXTS)
    vectors = encoder.encode_all(tokens)[tokens.text_of_row]
    torch.testing.assert_close(vectors, torch.nn.functional.normalize(torch.stack(expected), dim=1), atol=1e-5, rtol=0)


def test_rows_come_in_the_order_asked_for_and_repeated_ones_too(build_encoder: _Build) -> None:
    encoder = build_encoder(embedding_size=5)
    tokens = encoder.tokenize(_TEXTS)
    table = encoder.encode_all(tokens)
    assert table.shape == (24, encoder.size) == (24, 5)
    text_ids = torch.tensor([7, 0, 7, 23, 3, 3])
    encoder.eval()
    torch.testing.assert_close(encoder(tokens, text_ids), table[text_ids], atol=1e-6, rtol=1e-5)
    assert encoder(tokens, text_ids[:0]).shape == (0, 5)
    encoder.train()
    assert encoder.encode_all(tokens).equal(table), "no dropout"
    assert encoder.training


@pytest.mark.parametrize("settings", [{"adapter_layers": 2}, {"peft": "full", "adapter_layers": 1}, {"peft": "frozen"}])
def test_cutting_off_frozen_layers_changes_no_vector_and_keeping_them_hardly(
    build_encoder: _Build, stir: Any, settings: dict[str, Any], tmp_path: Path
) -> None:
    encoder = build_encoder(**settings, embedding_size=6)
    kept = build_encoder(**settings, embedding_size=6, lower_layer_cache_gb=1.0, cache_dir=tmp_path)
    stir(encoder)
    stir(kept)
    tokens = encoder.tokenize(_TEXTS)
    _, mask = inputs = tokens.batch(torch.arange(tokens.n_texts))
    with torch.no_grad():
        states = encoder.eval().transformer(input_ids=inputs[0], attention_mask=mask).last_hidden_state
        pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        expected = torch.nn.functional.normalize(encoder.projection(pooled), dim=1)
    torch.testing.assert_close(encoder.encode_all(tokens), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(kept.encode_all(tokens), expected, atol=4e-3, rtol=0)
    _assert_close_direction(_gradients(encoder, tokens, torch.arange(24)), _gradients(kept, tokens, torch.arange(24)))


def _assert_close_direction(left: dict[str, Tensor], right: dict[str, Tensor]) -> None:
    """Dropout is on in layers that are trained, and falls the same way: gradients agree but for rounding."""
    assert left.keys() == right.keys()
    flat = [torch.cat([gradients[name].flatten() for name in left]) for gradients in (left, right)]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0) > 0.999


# ---- training ----


@pytest.mark.parametrize("settings", [{}, {"adapter_layers": 2}, {"peft": "full"}, {"peft": "ia3"}])
@pytest.mark.parametrize("embedding_size", [None, 6])
def test_gradients_do_not_depend_on_the_parts(
    build_encoder: _Build, stir: Any, tiny_encoder: Path, settings: dict[str, Any], embedding_size: int | None
) -> None:
    found = []
    for size in (64, 5, 1):
        encoder = build_encoder(**settings, embedding_size=embedding_size, mini_batch_size=size)
        stir(encoder)
        _without_dropout(encoder)
        tokens = encoder.tokenize(_TEXTS)
        found.append(_gradients(encoder, tokens, torch.tensor([3, 9, 0, 14, 3, 22, 17, 8, 20, 1])))
    _assert_equal(found[0], found[1])
    _assert_equal(found[0], found[2])


def test_recomputed_parts_have_the_same_dropout(build_encoder: _Build, stir: Any) -> None:
    """Without it gradients would differ from those of a graph that is held whole; the parts are the same in both."""
    encoder = build_encoder(lora_dropout=0.3, mini_batch_size=4)
    stir(encoder)
    tokens, text_ids = encoder.tokenize(_TEXTS), torch.arange(24)
    recomputed = _gradients(encoder, tokens, text_ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recbole_xling.model.text_encoder.encoder.checkpoint", lambda run, *inputs, **_: run(*inputs))
        held = _gradients(encoder, tokens, text_ids)
    other = _gradients(encoder, tokens, text_ids, seed=1)
    _assert_equal(recomputed, held)
    name = next(iter(other))
    assert not torch.allclose(other[name], held[name], rtol=1e-2), "dropout matters"


@pytest.mark.parametrize("settings", [{}, {"adapter_layers": 2}, {"mini_batch_size": 3}])
def test_gradient_checkpointing_yields_the_same_gradients(
    build_encoder: _Build, stir: Any, settings: dict[str, Any]
) -> None:
    found = []
    for checkpointing in (False, True):
        encoder = build_encoder(**{"mini_batch_size": 64, **settings}, gradient_checkpointing=checkpointing)
        stir(encoder)
        found.append(_gradients(encoder, encoder.tokenize(_TEXTS), torch.arange(24)))
    _assert_equal(*found)
    assert all(gradient.abs().sum() > 0 for gradient in found[1].values())
    assert any("lora_A" in name for name in found[1])


def test_no_more_activations_are_held_than_those_of_a_part(build_encoder: _Build) -> None:
    held = {}
    for size in (64, 4):
        encoder = build_encoder(mini_batch_size=size).train()
        tokens = encoder.tokenize(_TEXTS)
        sizes: list[int] = []

        def pack(tensor: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encoder(tokens, torch.arange(24))
        held[size] = sum(sizes)
    assert held[4] < held[64] / 2


def test_frozen_layers_have_no_dropout_and_no_gradients_in_training(build_encoder: _Build) -> None:
    encoder = build_encoder(adapter_layers=1).train()
    layers = encoder.transformer.encoder.layer
    assert [layer.training for layer in layers] == [False, False, False, True]
    assert not encoder.transformer.embeddings.training
    assert not any(module.training for module in build_encoder(peft="frozen").train().adapted.modules())
    assert encoder.eval().transformer.encoder.layer[3].training is False


@pytest.mark.parametrize("settings", [{}, {"adapter_layers": 2, "lower_layer_cache_gb": 1.0}])
def test_works_in_bfloat16(build_encoder: _Build, settings: dict[str, Any]) -> None:
    encoder = build_encoder(**settings, embedding_size=6, mini_batch_size=4)
    tokens, text_ids = encoder.tokenize(_TEXTS), torch.arange(24)
    exact = encoder.encode_all(tokens)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        vectors = encoder.eval()(tokens, text_ids)
        encoder.encode_all(tokens)
        gradients = _gradients(encoder, tokens, text_ids)  # after encoding without gradients in the same context
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(24))
    torch.testing.assert_close(vectors, exact, atol=0.1, rtol=0)
    reached = [name for name, gradient in gradients.items() if gradient.abs().sum() > 0]
    assert all(name in reached for name in gradients if "lora_B" in name)
    assert {"projection.weight", "projection.bias"} <= set(reached)


# ---- weights ----


def test_state_holds_each_weight_once_and_survives_a_copy(build_encoder: _Build, stir: Any) -> None:
    encoder = build_encoder(adapter_layers=2, lower_layer_cache_gb=1.0)
    tokens = encoder.tokenize(_TEXTS)
    before = encoder.encode_all(tokens)
    assert len(encoder.state_dict()) == len({tensor.data_ptr() for tensor in encoder.state_dict().values()})
    other = copy.deepcopy(encoder)
    stir(encoder)
    assert other.encode_all(tokens).equal(before)
    assert not torch.allclose(encoder.encode_all(tokens), before, atol=1e-2)
    other.load_state_dict(encoder.state_dict())
    assert other.encode_all(tokens).equal(encoder.encode_all(tokens))


def test_identity_names_the_base_encoder_and_how_it_reads(build_encoder: _Build, tiny_encoder: Path) -> None:
    identity = build_encoder(encoder_prompt="query: ").identity
    assert identity.keys() == {"name", "fingerprint", "pooling", "prompt", "max_length"}
    assert (identity["name"], identity["prompt"], identity["max_length"]) == (tiny_encoder.name, "query: ", 32)
    assert build_encoder(pooling="cls").identity != build_encoder().identity


_LIBRARY = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token", "last": "pooling_mode_lasttoken"}


def _sentence_model(base: Path, folder: Path, pooling: dict[str, Any], kinds: Sequence[str] = ()) -> Path:
    """Return a copy of an encoder with what sentence-transformers writes beside it."""
    shutil.copytree(base, folder)
    parts = [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        *((f"{2 + n}_{kind}", kind) for n, kind in enumerate(kinds)),
    ]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in parts]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 8, **pooling}))
    return folder


@pytest.mark.parametrize("form", ["flags", "name", "list"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_an_encoder_pools_as_it_was_made_to(
    build_encoder: _Build, tiny_encoder: Path, tmp_path: Path, pooling: str, form: str
) -> None:
    library = {"mean": "mean", "cls": "cls", "last": "lasttoken"}[pooling]
    flags = {flag: name == pooling for name, flag in _LIBRARY.items()}
    said = {"flags": flags, "name": {"pooling_mode": library}, "list": {"pooling_mode": [library]}}[form]
    encoder = build_encoder(_sentence_model(tiny_encoder, tmp_path / "made", said, ["Normalize"]))
    asked = build_encoder(pooling=pooling)
    assert (encoder.pooling, encoder.identity["pooling"]) == (pooling, pooling)
    tokens = encoder.tokenize(_TEXTS)
    torch.testing.assert_close(encoder.encode_all(tokens), asked.encode_all(tokens))


def test_a_bare_encoder_is_pooled_by_the_mean(build_encoder: _Build) -> None:
    assert build_encoder().pooling == "mean"


def test_what_an_encoder_has_behind_its_pooling_is_named(
    build_encoder: _Build, tiny_encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _sentence_model(tiny_encoder, tmp_path / "made", {"pooling_mode": "cls"}, ["Dense", "Normalize"])
    build_encoder(folder)
    assert "what follows them (Dense) is left out" in caplog.text and "is read with" not in caplog.text
    assert build_encoder(folder, pooling="mean").pooling == "mean"
    assert "made was made with pooling=cls, and is read with mean" in caplog.text


def test_a_prompt_that_an_encoder_was_made_with_is_told_where_it_is_not_put(
    build_encoder: _Build, tiny_encoder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _sentence_model(tiny_encoder, tmp_path / "made", {"pooling_mode": "mean"})
    prompts = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    for stated in ("query: ", ""):
        build_encoder(folder, encoder_prompt=stated)
    assert "before each text" not in caplog.text
    build_encoder(folder)
    assert "made with 'query: ' before each text, and is read without: set encoder_prompt" in caplog.text


def test_a_pooling_that_is_not_known_here_is_an_error(
    build_encoder: _Build, tiny_encoder: Path, tmp_path: Path
) -> None:
    both = {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    folder = _sentence_model(tiny_encoder, tmp_path / "made", both)
    with pytest.raises(ConfigError, match=r"made with pooling=cls\+max_tokens: set pooling to mean, cls or last"):
        build_encoder(folder)
    assert build_encoder(folder, pooling="cls").pooling == "cls"
    (folder / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(EncoderError, match=r"is damaged: .* Restore its files"):
        build_encoder(folder)
    shutil.rmtree(folder / "1_Pooling")
    with pytest.raises(EncoderError, match="set pooling to mean, cls or last"):
        build_encoder(folder)
    assert build_encoder(folder, pooling="mean").pooling == "mean", "as runs of earlier releases name it"


@pytest.mark.parametrize("method", ["lora", "adalora", "ia3", "full", "frozen"])
def test_merged_weights_are_plain_and_give_the_same_vectors(build_encoder: _Build, stir: Any, method: str) -> None:
    encoder = build_encoder(peft=method, gradient_checkpointing=True)
    stir(encoder)
    tokens = encoder.tokenize(_TEXTS)
    expected = encoder.encode_all(tokens)
    merged = encoder.merged()
    assert type(merged) is transformers.XLMRobertaModel
    assert not any("lora" in name or "ia3" in name for name in merged.state_dict())
    input_ids, mask = tokens.batch(torch.arange(tokens.n_texts))
    with torch.no_grad():
        states = merged(input_ids=input_ids, attention_mask=mask).last_hidden_state
    pooled = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    torch.testing.assert_close(torch.nn.functional.normalize(pooled, dim=1), expected, atol=1e-5, rtol=0)
    assert encoder.encode_all(tokens).equal(expected), "the encoder itself is as it was"


def _without_dropout(encoder: TextEncoder) -> None:
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
