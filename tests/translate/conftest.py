"""A translator that counts, and tiny translation models with random weights, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest

from recbole_xling.encode import Identity
from recbole_xling.errors import TranslationError


class CountingTranslator:
    """Translates ``Heat`` into ``Heat>es``, with a record of what it was asked for and a hand on what it does."""

    def __init__(self, name: str = "fake", hook: Callable[[Sequence[str]], None] | None = None) -> None:
        self.name = name
        self.asked: list[tuple[str, str, str]] = []
        self.spoil: dict[str, str] = {}
        self.unknown: set[str] = set()
        self.hook = hook

    @property
    def identity(self) -> Identity:
        return {"backend": "counting", "name": self.name}

    def check_pairs(self, pairs: Collection[tuple[str, str]]) -> None:
        for pair in pairs:
            if self.unknown & set(pair):
                raise TranslationError(f"unknown language in {pair}")

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        if self.hook is not None:
            self.hook(texts)
        self.asked += [(text, source, target) for text in texts]
        return [self.spoil.get(text, f"{text}>{target}") for text in texts]


@pytest.fixture
def counting_translator() -> type[CountingTranslator]:
    """The class of the translator that counts."""
    return CountingTranslator


_WORDS = ["der", "pate", "ein", "hai", "am", "strand", "film", "the", "godfather", "shark", "el", "padrino"]


@pytest.fixture(scope="session")
def nllb_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NLLB model whose tokenizer knows single letters and four languages."""
    transformers = pytest.importorskip("transformers")
    languages = ["deu_Latn", "eng_Latn", "spa_Latn", "zho_Hant"]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = transformers.NllbTokenizer(
        vocab={piece: place for place, piece in enumerate(pieces)}, merges=[], additional_special_tokens=languages
    )
    return _save(tmp_path_factory, "tiny-nllb", tokenizer, transformers.M2M100Config, transformers)


@pytest.fixture(scope="session")
def m2m100_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An M2M100 model with a sentencepiece tokenizer."""
    transformers = pytest.importorskip("transformers")
    sentencepiece = pytest.importorskip("sentencepiece")
    import json

    folder = tmp_path_factory.mktemp("spm")
    (folder / "corpus.txt").write_text("\n".join(_WORDS * 20), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "corpus.txt"),
        model_prefix=str(folder / "spm"),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spm.model"))
    pieces = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces += [piece for piece in map(model.id_to_piece, range(len(model))) if piece not in pieces]
    (folder / "vocab.json").write_text(json.dumps({piece: place for place, piece in enumerate(pieces)}))
    tokenizer = transformers.M2M100Tokenizer(str(folder / "vocab.json"), str(folder / "spm.model"))
    n_tokens = len(pieces) + len(tokenizer.lang_code_to_id)
    return _save(tmp_path_factory, "tiny-m2m100", tokenizer, transformers.M2M100Config, transformers, n_tokens)


@pytest.fixture(scope="session")
def marian_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Marian model that translates German into Spanish, with a word-level tokenizer."""
    transformers = pytest.importorskip("transformers")
    tokenizer = _word_tokenizer(transformers, [], source_lang="de", target_lang="es")
    return _save(tmp_path_factory, "opus-mt-de-es", tokenizer, transformers.MarianConfig, transformers)


@pytest.fixture(scope="session")
def marian_group_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Marian model that translates from any language into Spanish or French, named before each text."""
    transformers = pytest.importorskip("transformers")
    tokenizer = _word_tokenizer(transformers, [">>es<<", ">>fra<<"], source_lang="mul", target_lang="ROMANCE")
    return _save(tmp_path_factory, "opus-mt-mul-ROMANCE", tokenizer, transformers.MarianConfig, transformers)


def _word_tokenizer(transformers, labels: list[str], **stated: str):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["<pad>", "</s>", "<unk>", *labels, *_WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", **stated
    )


def _save(tmp_path_factory, name: str, tokenizer, config_class, transformers, n_tokens: int | None = None) -> Path:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    start = tokenizer.pad_token_id if config_class is transformers.MarianConfig else tokenizer.eos_token_id
    config = config_class(
        vocab_size=n_tokens or len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_position_embeddings=64,
        init_std=1.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
        decoder_start_token_id=start,
    )
    folder = tmp_path_factory.mktemp("models") / name
    transformers.AutoModelForSeq2SeqLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
