"""Translation by sequence-to-sequence models that transformers loads: NLLB, M2M100, Marian (OPUS-MT)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recbole_xling.encode.base import Identity, require_package
from recbole_xling.encode.hub import find_model, quiet_loading
from recbole_xling.errors import EncoderError, TranslationError, unknown_name
from recbole_xling.language.model_codes import (
    FLORES,
    check_codes,
    is_iso_code,
    iso_codes,
    lookup,
    m2m100_code,
    unusual_script,
)
from recbole_xling.translate.base import TRANSLATORS, Pair, check_name

logger = logging.getLogger(__name__)

EXTRA = "translate"
_DTYPES = ("bfloat16", "float16", "float32")


class Seq2SeqTranslator:
    """A translation model; its weights are loaded when its first text is translated.

    Args:
        model: local folder, or hub name of the form ``owner/name``.
        revision: branch, tag or commit on the hub.
        name: what records call it; the model's name if not given.
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
        TRANSLATORS.check_positive(num_beams=num_beams, max_length=max_length, batch_size=batch_size)
        if dtype not in _DTYPES:
            raise TranslationError(unknown_name("translator dtype", str(dtype), _DTYPES))
        try:
            self._source = find_model(model, revision)
        except EncoderError as error:
            raise TranslationError(str(error)) from None
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
            told = "%d texts or translations fill max_length=%d tokens; what is beyond is cut off"
            logger.warning(told, cut, self._max_length)
        return translations

    def _generate(self, texts: list[str], direction: Direction) -> tuple[list[str], int]:
        """Translate one batch; return translations and of how many the text or the translation fills ``max_length``."""
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
        is_cut = mask.sum(dim=1) >= self._max_length  # (B,)
        if output.shape[1] >= self._max_length:
            is_cut |= output[:, -1].cpu() != tokenizer.pad_token_id
        n_cut = int(is_cut.sum())
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
        return self._load(AutoModelForSeq2SeqLM, device=device, dtype=getattr(torch, self._dtype)).eval()

    def _load(self, auto_class: Any, **moved: Any) -> Any:
        try:
            with quiet_loading(reports=True):
                loaded = auto_class.from_pretrained(
                    self._source.load_from, revision=self._source.revision or "main", trust_remote_code=False
                )
            return loaded.to(**moved) if moved else loaded
        except Exception as error:  # the library and those below it raise many kinds
            raise TranslationError(
                f"cannot load the model '{self._source.load_from}': {error}. If a package is missing, "
                f"pip install 'recbole-xling[{EXTRA}]'"
            ) from error


# ---- directions of each family of models ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Direction:
    """What makes a model translate between two languages.

    Attributes:
        source_code: the tokenizer's ``src_lang``, None if it has none.
        first_token: id of the token each translation has to begin with (``forced_bos_token_id``), None if any.
        prefix: text put before every input.
    """

    source_code: str | None = None
    first_token: int | None = None
    prefix: str = ""


def multilingual_direction(tokenizer: Any, source: str, target: str, codes: Mapping[str, str]) -> Direction:
    """Return the direction for models with a token per language: M2M100 (``__de__``) and NLLB (``deu_Latn``).

    Sources: Fan et al., "Beyond English-Centric Multilingual Machine Translation" (JMLR 2021); NLLB Team, "No Language
    Left Behind" (2022).

    Raises:
        TranslationError: the model does not know a language.
    """
    source_code, _ = _language_token(tokenizer, source, codes)
    target_code, first_token = _language_token(tokenizer, target, codes)
    script = None if _is_named(target, codes) else unusual_script(target)
    if script is not None and not target_code.endswith(f"_{script}"):
        raise TranslationError(_in_another_script(target, target_code))
    return Direction(source_code=source_code, first_token=first_token)


def marian_direction(tokenizer: Any, source: str, target: str, codes: Mapping[str, str]) -> Direction:
    """Return the direction for Marian models (OPUS-MT): one pair per model, or a target named as in ``>>es<<``.

    Source: Tiedemann and Thottingal, "OPUS-MT - Building open translation services for the World" (EAMT 2020).

    Raises:
        TranslationError: the model is for other languages.
    """
    _check_side("from", tokenizer.init_kwargs.get("source_lang"), source)
    labels = sorted(token for token in tokenizer.get_vocab() if token.startswith(">>") and token.endswith("<<"))
    code = lookup(codes, target)
    script = None if _is_named(target, codes) else unusual_script(target)
    if not labels:
        _check_side("into", tokenizer.init_kwargs.get("target_lang"), target)
        if script is not None:
            raise TranslationError(_in_another_script(target))
        return Direction()
    wanted = iso_codes(target) | {lookup(FLORES, target)} if code is None else {code}
    if script is not None:
        wanted = {f"{iso}_{script}" for iso in iso_codes(target)} | (
            {code} if code and code.endswith(script) else set()
        )
    fitting = [label for label in labels if label[2:-2] in wanted]
    if not fitting:
        raise TranslationError(
            f"the model does not translate into {target}, only into {' '.join(labels)}: choose another model, or name "
            f"one of these with codes={{'{target}': '...'}}"
        )
    return Direction(prefix=f"{fitting[0]} ")


DIRECTIONS: Mapping[str, Callable[[Any, str, str, Mapping[str, str]], Direction]] = {
    "m2m_100": multilingual_direction,
    "marian": marian_direction,
    "nllb-moe": multilingual_direction,
}
"""By the ``model_type`` of a model's configuration."""


def _language_token(tokenizer: Any, tag: str, codes: Mapping[str, str]) -> tuple[str, int]:
    """Return the model's code of a language and the id of its token."""
    stated = lookup(codes, tag)
    candidates = [lookup(FLORES, tag), m2m100_code(tag)] if stated is None else [stated]
    for code in candidates:
        if code is not None:
            token = code if "_" in code else f"__{code}__"
            number = tokenizer.convert_tokens_to_ids(token)
            if number is not None and number != tokenizer.unk_token_id:
                return code, int(number)
    tried = " or ".join(str(code) for code in candidates if code is not None)
    raise TranslationError(
        f"the model does not know the language {tag} (as {tried}): name its code with codes={{'{tag}': '...'}}, or "
        "leave the language out"
    )


def _is_named(tag: str, codes: Mapping[str, str]) -> bool:
    """Tell whether the option ``codes`` names the code of this very tag, and not of the language alone."""
    return tag.lower() in {known.lower() for known in codes}


def _in_another_script(tag: str, code: str = "") -> str:
    named = f" but {code}" if code else ""
    return (
        f"the model does not say that it writes the script of {tag}{named}: if it does, name its code of the language "
        f"with codes={{'{tag}': '...'}}, otherwise leave the language out"
    )


def _check_side(what: str, stated: str | None, tag: str) -> None:
    """Refuse a language other than the one a tokenizer states; it may state a group or nothing at all."""
    if stated and is_iso_code(stated) and stated not in iso_codes(tag):
        raise TranslationError(
            f"the model translates {what} {stated}, not {what} {tag}: choose the model of this pair, or other languages"
        )
