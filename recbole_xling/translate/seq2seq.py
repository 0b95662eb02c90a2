"""Sequence-to-sequence models that the transformers library loads: NLLB, M2M100, Marian (OPUS-MT)."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from recbole_xling.encode.base import Identity, require_package
from recbole_xling.encode.model_source import HubModel, LocalModel, find_model
from recbole_xling.errors import EncoderError, TranslationError, unknown_name
from recbole_xling.translate.base import Pair, check_name, check_positive
from recbole_xling.translate.families import DIRECTIONS, Direction
from recbole_xling.translate.languages import check_codes

logger = logging.getLogger(__name__)

EXTRA = "translate"
_DTYPES = ("bfloat16", "float16", "float32")


class Seq2SeqTranslator:
    """A translation model; its weights are loaded when its first text is translated.

    Args:
        model: local folder, or hub name of the form ``owner/name``.
        revision: branch, tag or commit on the hub.
        name: what records call it; the model's name where not given.
        codes: the model's code of a language where ours is wrong or missing, ``{"de": "deu_Latn"}``.
        num_beams: width of the beam search; 1 is greedy.
        max_length: longest input and output in tokens; what is beyond is cut.
        batch_size: texts per step; texts of about one length go together.
        dtype: of the weights, ``float32``, ``float16`` or ``bfloat16``.
        device: ``cpu``, ``cuda``, ...; None takes a GPU if there is one.

    Raises:
        TranslationError: an option is not one of those above, or the model cannot be found.
        MissingExtraError: transformers is not installed.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        name: str | None = None,
        codes: Mapping[str, str] | None = None,
        num_beams: int = 4,
        max_length: int = 256,
        batch_size: int = 16,
        dtype: str = "float32",
        device: str | None = None,
    ) -> None:
        require_package("transformers", "transformers", EXTRA)
        check_positive(num_beams=num_beams, max_length=max_length, batch_size=batch_size)
        if dtype not in _DTYPES:
            raise TranslationError(unknown_name("translator dtype", str(dtype), _DTYPES))
        self._source = _find(model, revision)
        self._codes = check_codes(codes)
        self._num_beams, self._max_length, self._batch_size = num_beams, max_length, batch_size
        self._dtype, self._asked_device = dtype, device
        self.name = check_name(self._source.name.rpartition("/")[2] if name is None else name)

    @cached_property
    def identity(self) -> Identity:
        """Everything that changes the translations: for a folder the hash of its files, for a hub name the commit."""
        return {
            "backend": "seq2seq",
            "model": self._source.name,
            "fingerprint": self._source.fingerprint,
            "codes": json.dumps(self._codes, sort_keys=True, ensure_ascii=False),
            "num_beams": self._num_beams,
            "max_length": self._max_length,
            "dtype": self._dtype,
        }

    def check_pairs(self, pairs: Collection[Pair]) -> None:
        """Raise :class:`TranslationError` if the model does not translate between one of the pairs."""
        for source, target in pairs:
            self._direction(source, target)

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Return one translation per text; see :class:`Translator`.

        Raises:
            TranslationError: the model does not know a language, cannot be loaded, or fails.
        """
        direction = self._direction(source, target)
        by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]), reverse=True)
        translations = [""] * len(texts)
        cut = 0
        for start in range(0, len(texts), self._batch_size):
            places = by_length[start : start + self._batch_size]
            try:
                batch, n_cut = self._generate([direction.prefix + texts[place] for place in places], direction)
            except (IndexError, RuntimeError, ValueError) as error:
                raise TranslationError(
                    f"the model '{self._source.name}' failed on {len(places)} texts: {error}. If memory ran out, lower "
                    f"batch_size={self._batch_size}; if positions did, lower max_length={self._max_length}"
                ) from error
            cut += n_cut
            for place, translation in zip(places, batch, strict=True):
                translations[place] = translation
        if cut:
            logger.warning("%d texts fill max_length=%d tokens; what is beyond is cut off", cut, self._max_length)
        return translations

    def _generate(self, texts: list[str], direction: Direction) -> tuple[list[str], int]:
        """Translate one batch; return translations and the number of inputs that fill ``max_length``."""
        import torch

        model, tokenizer = self._model, self._tokenizer
        if direction.source_code is not None:
            tokenizer.src_lang = direction.source_code
        inputs = tokenizer(texts, return_tensors="pt", padding=True, truncation=True, max_length=self._max_length)
        tokens, mask = inputs["input_ids"], inputs["attention_mask"]  # (B, L), (B, L)
        forced = {} if direction.first_token is None else {"forced_bos_token_id": direction.first_token}
        with torch.inference_mode():
            output = model.generate(
                input_ids=tokens.to(model.device),
                attention_mask=mask.to(model.device),
                num_beams=self._num_beams,
                max_length=self._max_length,
                do_sample=False,
                **forced,
            )  # (B, L')
        n_cut = int((mask.sum(dim=1) >= self._max_length).sum())
        return [text.strip() for text in tokenizer.batch_decode(output, skip_special_tokens=True)], n_cut

    def _direction(self, source: str, target: str) -> Direction:
        kind = self._config.model_type
        if kind not in DIRECTIONS:
            raise TranslationError(
                unknown_name("family of translation models", kind, DIRECTIONS) + f" ('{self._source.name}' is one)"
            )
        return DIRECTIONS[kind](self._tokenizer, source, target, self._codes)

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        return self._load(AutoConfig)

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return self._load(AutoTokenizer)

    @cached_property
    def _model(self) -> Any:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        device = self._asked_device or ("cuda" if torch.cuda.is_available() else "cpu")
        logger.info("loading %s (%s, %s)", self._source.load_from, device, self._dtype)
        model = self._load(AutoModelForSeq2SeqLM)
        return model.to(device=device, dtype=getattr(torch, self._dtype)).eval()

    def _load(self, auto_class: Any) -> Any:
        try:
            return auto_class.from_pretrained(
                self._source.load_from, revision=self._source.revision or "main", trust_remote_code=False
            )
        except Exception as error:  # the library and those below it raise many kinds
            raise TranslationError(
                f"cannot load the model '{self._source.load_from}': {error}. If a package is missing, "
                f"pip install 'recbole-xling[{EXTRA}]'"
            ) from error


def _find(model: str | Path, revision: str | None) -> LocalModel | HubModel:
    try:
        return find_model(model, revision)
    except EncoderError as error:
        raise TranslationError(str(error)) from None
