"""sentence-transformers models: the vectors are transformers' own, and the identity follows the weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_gguf import write_tiny_gguf

from recbole_xling.encode import EmbeddingCache, create_encoder
from recbole_xling.encode.hub import find_model
from recbole_xling.encode.sentence_transformers import SentenceTransformersEncoder, computes_in_bfloat16
from recbole_xling.errors import EncoderError
from recbole_xling.testing import make_tiny_encoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentence_transformers = pytest.importorskip("sentence_transformers")

_TEXTS = ["the matrix", "der pate", "a film about a shark am strand", "love", "star war unknown"]
_EXACT: dict[str, Any] = {"dtype": "float32", "device": "cpu"}


def _token_vectors(folder: Path, text: str) -> np.ndarray:
    """Last hidden states of one text without any padding, ``(L, H)``, by transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()


@pytest.mark.parametrize(
    ("pooling", "pool"),
    [(None, lambda t: t.mean(0)), ("mean", lambda t: t.mean(0)), ("cls", lambda t: t[0]), ("last", lambda t: t[-1])],
)
def test_a_bare_transformer_is_pooled_as_asked(
    bert_folder: Path, pooling: str | None, pool: Callable[[np.ndarray], np.ndarray]
) -> None:
    encoder = create_encoder(str(bert_folder), pooling=pooling, normalize=False, batch_size=3, **_EXACT)
    expected = np.stack([pool(_token_vectors(bert_folder, text)) for text in _TEXTS])
    vectors = encoder.encode(_TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(_TEXTS), encoder.dimension)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)


def test_a_model_with_its_own_configuration_is_used_as_it_is(xlmr_folder: Path) -> None:
    encoder = create_encoder("sentence_transformers", model=xlmr_folder, **_EXACT)
    expected = sentence_transformers.SentenceTransformer(str(xlmr_folder), device="cpu").encode(_TEXTS)
    expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(encoder.encode(_TEXTS), expected, atol=1e-5)
    assert encoder.dimension == 20
    with pytest.raises(EncoderError, match="brings its own pooling: drop pooling='mean'"):
        create_encoder(str(xlmr_folder), pooling="mean")


def test_code_in_a_model_folder_is_not_run(xlmr_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(xlmr_folder, tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_text())
    modules[-1]["type"] = "evil.Module"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\nclass Module: pass\n")
    with pytest.raises(EncoderError, match=r"code of its own \(evil\.Module\)"):
        create_encoder(str(folder), **_EXACT).encode(_TEXTS)
    assert not (tmp_path / "run").exists()


def test_a_prompt_stands_before_every_text(xlmr_folder: Path) -> None:
    prompted = create_encoder(str(xlmr_folder), prompt="query ", **_EXACT).encode(_TEXTS)
    plain = create_encoder(str(xlmr_folder), **_EXACT)
    np.testing.assert_allclose(prompted, plain.encode([f"query {text}" for text in _TEXTS]), atol=1e-5)
    assert not np.allclose(prompted, plain.encode(_TEXTS), atol=1e-2)


def test_max_length_cuts_in_tokens_and_long_texts_never_fail(bert_folder: Path) -> None:
    shark = "the film about a shark"
    cut = create_encoder(str(bert_folder), max_length=4, **_EXACT)  # [CLS] the film [SEP]
    whole = create_encoder(str(bert_folder), **_EXACT)
    np.testing.assert_allclose(cut.encode([shark]), whole.encode(["the film"]), atol=1e-5)
    assert np.isfinite(whole.encode([f"{shark} " * 100])).all()
    too_long = create_encoder(str(bert_folder), max_length=64, **_EXACT)  # the model has 32 positions
    with pytest.raises(EncoderError, match=r"'tiny-bert' failed on 1 texts.*lower max_length=64"):
        too_long.encode([f"{shark} " * 100])


def test_batches_hold_texts_of_one_length_and_rows_keep_their_order(bert_folder: Path) -> None:
    encoder = SentenceTransformersEncoder(bert_folder, batch_size=4, **_EXACT)
    texts = ["love " * (1 + 7 * (number % 4)) + "star" for number in range(16)]
    padded: list[int] = []
    encoder._model[0].register_forward_pre_hook(
        lambda module, inputs: padded.append(int((inputs[0]["attention_mask"] == 0).sum()))
    )
    together = encoder.encode(texts)
    assert padded == [0, 0, 0, 0]
    np.testing.assert_allclose(together, np.concatenate([encoder.encode([text]) for text in texts]), atol=1e-5)


def test_vectors_have_unit_length_in_float32_even_where_the_model_computes_in_bfloat16(bert_folder: Path) -> None:
    vectors = create_encoder(str(bert_folder), dtype="bfloat16", device="cpu").encode(_TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    exact = create_encoder(str(bert_folder), **_EXACT).encode(_TEXTS)
    assert not np.array_equal(vectors, exact)
    assert (vectors * exact).sum(axis=1).min() > 0.99


def test_no_texts(bert_folder: Path) -> None:
    assert create_encoder(str(bert_folder), **_EXACT).encode([]).shape == (0, 16)


# ---- which number format ----


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"avx2": True, "avx512_bf16": False, "architecture": "x86_64"}, "float32"),
    ],
)
def test_auto_takes_bfloat16_only_where_the_cpu_has_it(
    bert_folder: Path, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], dtype: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert create_encoder(str(bert_folder), device="cpu").identity["dtype"] == dtype


def test_without_torchs_own_word_the_cpu_flags_of_the_system_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    for flags, expected in (("fpu avx512f avx512_bf16", True), ("fpu avx512f avx512_vbmi", False)):
        monkeypatch.setattr(Path, "read_text", lambda path, encoding, flags=flags: f"flags\t: {flags}\n")
        assert computes_in_bfloat16("cpu") is expected


# ---- identity ----


def test_every_setting_that_changes_vectors_changes_the_identity(bert_folder: Path) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"prompt": "query: "},
        {"prompt": ""},
        {"max_length": 8},
        {"normalize": False},
        {"pooling": "cls"},
        {"dtype": "bfloat16"},
        {"dtype": "auto", "backend": "onnx"},
        {"model_kwargs": {"attn_implementation": "eager"}},
    ]
    encoders = [create_encoder(str(bert_folder), **{**_EXACT, **setting}) for setting in settings]
    identities = {json.dumps(encoder.identity, sort_keys=True) for encoder in encoders}
    assert len(identities) == len(settings)
    same = create_encoder(str(bert_folder), batch_size=1, **_EXACT)
    assert same.identity == encoders[0].identity


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_changed_file_of_the_model_changes_the_identity(bert_folder: Path, tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / bert_folder.name))
    before = create_encoder(str(folder), **_EXACT).identity
    assert before == create_encoder(str(bert_folder), **_EXACT).identity, "moving a folder keeps its vectors"
    (folder / "README.md").write_text("about")
    assert create_encoder(str(folder), **_EXACT).identity == before
    (folder / file).write_bytes((folder / file).read_bytes() + b"\n")
    assert create_encoder(str(folder), **_EXACT).identity != before


def test_weights_behind_a_link_and_those_below_an_adapter_are_part_of_the_model(
    bert_folder: Path, tmp_path: Path
) -> None:
    weights = Path(shutil.copytree(bert_folder, tmp_path / "weights"))
    linked, adapter = tmp_path / "linked", tmp_path / "adapter"
    linked.mkdir()
    (linked / "modules.json").write_text("[]")
    (linked / "0_Transformer").symlink_to(weights, target_is_directory=True)
    adapter.mkdir()
    (adapter / "config.json").write_text("{}")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(weights)}))
    before = [find_model(folder).fingerprint for folder in (linked, adapter)]
    assert before == [find_model(folder).fingerprint for folder in (linked, adapter)]
    (weights / "model.safetensors").write_bytes(b"others")
    after = [find_model(folder).fingerprint for folder in (linked, adapter)]
    assert after[0] != before[0] and after[1] != before[1]


def test_links_and_adapters_that_lead_in_a_circle_end(bert_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert_folder, tmp_path / "model"))
    alone = find_model(folder).fingerprint
    for name in ("one", "two"):
        (folder / name).symlink_to(folder, target_is_directory=True)
    assert find_model(folder).fingerprint == alone
    other = Path(shutil.copytree(bert_folder, tmp_path / "other"))
    for one, base in ((folder, folder), (folder, other), (other, folder)):
        (one / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
        assert find_model(one).fingerprint == find_model(one).fingerprint
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "owner/on-the-hub"}))
    assert find_model(folder).fingerprint


def test_identity_and_cached_vectors_need_no_weights(bert_folder: Path, tmp_path: Path) -> None:
    cache = EmbeddingCache(tmp_path)
    vectors = cache.vectors(create_encoder(str(bert_folder), **_EXACT), _TEXTS)
    again = SentenceTransformersEncoder(bert_folder, **_EXACT)
    np.testing.assert_array_equal(cache.vectors(again, _TEXTS), vectors)
    assert "_model" not in vars(again)


# ---- hub names ----

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and no network."""
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def _download(hub_cache: Path, name: str, folder: Path) -> None:
    """Lay ``folder`` out as the hub's client does after a download of branch main."""
    repository = hub_cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / _COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(_COMMIT)


def test_a_downloaded_model_works_without_network_and_is_pinned_to_its_commit(
    hub_cache: Path, xlmr_folder: Path
) -> None:
    _download(hub_cache, "owner/tiny", xlmr_folder)
    encoder = create_encoder("owner/tiny", **_EXACT)
    assert (encoder.identity["model"], encoder.identity["fingerprint"]) == ("owner/tiny", _COMMIT)
    np.testing.assert_allclose(
        encoder.encode(_TEXTS), create_encoder(str(xlmr_folder), **_EXACT).encode(_TEXTS), atol=1e-6
    )
    with pytest.raises(EncoderError, match="brings its own pooling"):
        create_encoder("owner/tiny", pooling="cls")


def test_a_bare_transformer_of_the_hub_is_pooled_as_asked(hub_cache: Path, bert_folder: Path) -> None:
    _download(hub_cache, "owner/bare", bert_folder)
    options: dict[str, Any] = {"pooling": "cls", **_EXACT}
    vectors = create_encoder("owner/bare", revision="main", **options).encode(_TEXTS)
    np.testing.assert_allclose(vectors, create_encoder(str(bert_folder), **options).encode(_TEXTS), atol=1e-6)


def test_a_model_of_which_the_cache_has_a_part_is_not_taken_for_a_bare_transformer_in_silence(
    hub_cache: Path, xlmr_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _download(hub_cache, "owner/part", xlmr_folder)
    snapshot = hub_cache / "models--owner--part" / "snapshots" / _COMMIT
    (snapshot / "modules.json").rename(tmp_path / "modules.json")
    part = create_encoder("owner/part", **_EXACT).identity
    assert "taken for a bare transformer" in caplog.text and "hf download owner/part" in caplog.text
    caplog.clear()
    assert create_encoder("owner/part", pooling="cls", **_EXACT).identity["pooling"] == "cls"
    assert "taken for" not in caplog.text
    (tmp_path / "modules.json").rename(snapshot / "modules.json")
    assert create_encoder("owner/part", **_EXACT).identity != part, "vectors of the part are not those of the whole"


def test_a_model_that_is_known_to_be_a_bare_transformer_is_one(
    hub_cache: Path, bert_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _download(hub_cache, "owner/bare", bert_folder)
    told = hub_cache / "models--owner--bare" / ".no_exist" / _COMMIT / "modules.json"
    told.parent.mkdir(parents=True)
    told.touch()
    identity = create_encoder("owner/bare", **_EXACT).identity
    assert "taken for" not in caplog.text and "supposed_plain" not in identity


def test_a_model_that_is_nowhere_is_said_with_what_to_do(hub_cache: Path) -> None:
    encoder = create_encoder("owner/nothing", revision="v2")
    with pytest.raises(EncoderError, match=r"cannot find the model 'owner/nothing' at revision 'v2'.*local folder"):
        encoder.encode(["x"])


# ---- wrong settings ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat"}, "unknown encoder dtype 'bfloat'.*Did you mean 'bfloat16'"),
        ({"backend": "onx"}, "Did you mean 'onnx'"),
        ({"pooling": "max"}, "unknown pooling 'max'.*cls, last, mean"),
        ({"backend": "onnx", "dtype": "float16"}, "needs backend='torch'"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_length": -1}, "max_length"),
        ({"revision": "main"}, "no revisions"),
        ({"normalise": True}, "Did you mean 'normalize'"),
        ({"normalize": "maybe"}, "'normalize' is 'maybe': give True or False"),
        ({"pooling": ["mean"]}, "unknown pooling"),
        ({"model_kwargs": 3}, "'model_kwargs' is 3"),
        ({"device": "foo"}, "'device' is 'foo': give one such as 'cpu'"),
    ],
)
def test_a_wrong_setting_is_refused_at_once(bert_folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(EncoderError, match=message):
        create_encoder(str(bert_folder), **options).identity  # noqa: B018


def test_a_folder_without_a_model_and_one_with_a_broken_model_are_refused(bert_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="does not contain a model"):
        create_encoder(str(tmp_path))
    broken = Path(shutil.copytree(bert_folder, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(EncoderError, match=r"cannot load the model .*broken"):
        create_encoder(str(broken), **_EXACT).encode(["x"])


# ---- language models ----


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padding_on_the_left_changes_no_vector(tmp_path: Path, pooling: str) -> None:
    config = transformers.GPT2Config(
        vocab_size=300, n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3, pad_token_id=1
    )  # GPT-2 counts positions from the left end of a row, padding included
    folder = make_tiny_encoder(tmp_path / "gpt", config)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    encoder = create_encoder(str(folder), pooling=pooling, normalize=False, **_EXACT)
    expected = [_token_vectors(folder, text) for text in _TEXTS]
    pooled = [states[-1] if pooling == "last" else states.mean(0) for states in expected]
    np.testing.assert_allclose(encoder.encode(_TEXTS), np.stack(pooled), atol=1e-5)


def test_a_gguf_file_gives_the_vectors_of_its_model(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    model = write_tiny_gguf(tmp_path / "tiny.gguf")
    encoder = create_encoder(str(tmp_path), gguf_file="tiny.gguf", pooling="last", normalize=False, **_EXACT)
    assert encoder.identity["gguf_file"] == "tiny.gguf"
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="tiny.gguf")
    texts = ["ab cd", "shark", "a film"]
    with torch.inference_mode():
        expected = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1].numpy() for text in texts]
    np.testing.assert_allclose(encoder.encode(texts), np.stack(expected), atol=1e-5)
    with pytest.raises(EncoderError, match=r"gguf_file='tiny.gguf' needs backend='torch'"):
        create_encoder(str(tmp_path), gguf_file="tiny.gguf", backend="onnx")


def test_the_lowest_layers_alone_give_their_own_vectors(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=300, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, initializer_range=0.3, pad_token_id=1,
    )  # fmt: skip
    folder = make_tiny_encoder(tmp_path / "llama", config)
    encoder = create_encoder(str(folder), num_hidden_layers=2, normalize=False, **_EXACT)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    expected = []
    with torch.inference_mode():
        for text in _TEXTS:
            states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states[2]
            expected.append(model.norm(states)[0].mean(0).numpy())
    np.testing.assert_allclose(encoder.encode(_TEXTS), np.stack(expected), atol=1e-5)
    assert encoder.identity["num_hidden_layers"] == 2
    with pytest.raises(EncoderError, match="from 1 to the 3 that llama has, not 4"):
        create_encoder(str(folder), num_hidden_layers=4, **_EXACT).encode(_TEXTS)


def test_loading_shows_no_bar_and_writes_nothing_past_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    SentenceTransformersEncoder(make_tiny_encoder(tmp_path / "encoder")).encode(["film"])
    seen = capfd.readouterr()
    assert "Loading weights" not in seen.err and "LOAD REPORT" not in seen.err + seen.out
    assert "LOAD REPORT" in caplog.text  # the pooler's weights, which the folder lacks
