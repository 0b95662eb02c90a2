"""Other processes, a counting encoder with a cache, and tiny transformers with random weights, made on the spot."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import recbole_xling.errors
from recbole_xling.encode import EmbeddingCache, Identity, Vectors, create_encoder

# The package's own __init__ loads RecBole, which encoders do without: a bare parent package saves those seconds.
_BARE_PACKAGE = """
import sys, types
package = types.ModuleType("recbole_xling")
package.__path__ = [sys.argv.pop(1)]
sys.modules["recbole_xling"] = package
"""


@pytest.fixture
def start_python() -> Callable[..., subprocess.Popen[str]]:
    """Start another process that runs some code with ``recbole_xling.encode`` at hand."""

    def start(code: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        package = Path(recbole_xling.errors.__file__).parent
        return subprocess.Popen(
            [sys.executable, "-c", _BARE_PACKAGE + code, str(package), *map(str, arguments)],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


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
def counting_encoder() -> type[CountingEncoder]:
    """The class of the encoder that counts."""
    return CountingEncoder


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    """An empty cache."""
    return EmbeddingCache(tmp_path / "cache")


@pytest.fixture
def check_vectors(cache: EmbeddingCache) -> Callable[..., None]:
    """A function that asks a fresh encoder for texts: right vectors, and only ``newly_encoded`` are encoded."""

    def check(texts: list[str], newly_encoded: Sequence[str]) -> None:
        encoder = CountingEncoder()
        np.testing.assert_array_equal(cache.vectors(encoder, texts), CountingEncoder().encode(texts))
        assert sorted(encoder.asked) == sorted(newly_encoded)

    return check


_WORDS = ["the", "a", "film", "about", "shark", "beach", "matrix", "love", "star", "war", "query", "title"]
_WORDS += ["der", "pate", "ein", "hai", "am", "strand"]


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare BERT with a word-level tokenizer, as transformers saves it: 32 positions, 16 dimensions."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(special + _WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(special) + len(_WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.5,
    )
    transformers.BertModel(config).save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def xlmr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An XLM-R with a unigram tokenizer, as sentence-transformers saves it: [CLS] pooling, 20 dimensions, a prompt."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = ["<s>", "<pad>", "</s>", "<unk>", *("\u2581" + word for word in _WORDS), "\u2581", *"abcdefghijklmnopqrst"]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    bare = tmp_path_factory.mktemp("models") / "bare-xlmr"
    torch.manual_seed(1)
    config = transformers.XLMRobertaConfig(
        vocab_size=len(pieces),
        hidden_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=66,
        type_vocab_size=1,
        initializer_range=0.5,
        pad_token_id=1,
    )
    transformers.XLMRobertaModel(config).save_pretrained(bare)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=64,
    ).save_pretrained(bare)
    model = sentence_transformers.SentenceTransformer(str(bare), device="cpu", prompts={"query": "query "})
    model[1] = type(model[1])(20, "cls")
    folder = bare.parent / "tiny-xlmr"
    model.save(str(folder))
    return folder
