"""Any model the sentence-transformers library loads: its own models, bare transformers, ONNX and OpenVINO exports.

Source: Reimers and Gurevych, "Sentence-BERT" (EMNLP 2019), https://www.sbert.net.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from recbole_xling.encode.base import ENCODERS, Identity, Vectors, require_package
from recbole_xling.encode.hub import (
    LocalModel,
    find_model,
    gguf_options,
    load_config,
    quiet_loading,
    tell_if_supposed,
)
from recbole_xling.errors import EncoderError, XlingError, unknown_name
from recbole_xling.utils.json_text import parse_json

logger = logging.getLogger(__name__)

_POOLING = {"mean": "mean", "cls": "cls", "last": "lasttoken"}  # our name -> the library's
_DTYPES = ("auto", "bfloat16", "float16", "float32")
_BACKENDS = ("onnx", "openvino", "torch")
_BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16", "bf16"})  # the last is ARM's


class SentenceTransformersEncoder:
    """A sentence-transformers model, loaded when its first vector is asked for.

    Args:
        model: local folder, or hub name of the form ``owner/name``.
        revision: branch, tag or commit on the hub.
        gguf_file: file of the model with quantized weights, which are read as full ones; the ``torch`` backend only.
        num_hidden_layers: keep so many layers of a bare transformer, from the bottom; in language models the vectors of
            a layer in the middle are better aligned across languages than the last one's.
        prompt: text put before every input ("query: " for E5); None leaves the model's own default, "" means none.
        max_length: longest input in tokens, the rest is cut; None leaves the model's own limit.
        batch_size: texts per forward pass; the library forms batches of texts of about one length.
        normalize: scale every vector to unit length.
        pooling: ``mean``, ``cls`` or ``last`` token; for bare transformers only, other models bring their own.
        dtype: of the weights: ``float32``, ``float16``, ``bfloat16``, or ``auto``: bfloat16 where the device
            computes in it, else float32. The ``torch`` backend only.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, ...; None takes a GPU if there is one.
        backend: ``torch``, ``onnx`` or ``openvino``.
        model_kwargs: passed on to the library for that backend (``file_name``, ``provider``, ``export``, ...).
        trust_remote_code: run Python code that comes with the model.

    Raises:
        EncoderError: an option is not one of those above, or the model cannot be found or loaded.
        MissingExtraError: sentence-transformers is not installed.
    """

    languages = None  # model cards state them too loosely to be relied on

    def __init__(
        self,
        model: str | Path,
        *,
        revision: str | None = None,
        gguf_file: str | None = None,
        num_hidden_layers: int | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_size: int = 64,
        normalize: bool = True,
        pooling: str | None = None,
        dtype: str = "auto",
        device: str | None = None,
        backend: str = "torch",
        model_kwargs: Mapping[str, Any] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        require_package("sentence_transformers", "sentence-transformers", "encoders")
        _check_choice("encoder dtype", dtype, _DTYPES)
        _check_choice("encoder backend", backend, _BACKENDS)
        if backend != "torch" and dtype != "auto":
            raise EncoderError(f"dtype='{dtype}' needs backend='torch'; with '{backend}' the model's file decides")
        ENCODERS.check_positive(batch_size=batch_size)
        if max_length is not None:
            ENCODERS.check_positive(max_length=max_length)
        for option, value in (("gguf_file", gguf_file), ("num_hidden_layers", num_hidden_layers)):
            if backend != "torch" and value is not None:
                raise EncoderError(f"{option}={value!r} needs backend='torch', not '{backend}'")
        self._source = find_model(model, revision, gguf_file)
        if num_hidden_layers is not None and not self._source.plain:
            raise EncoderError(f"the model '{model}' brings its own layers: drop num_hidden_layers={num_hidden_layers}")
        self._n_layers = num_hidden_layers
        if not isinstance(normalize, bool):
            raise EncoderError(f"the encoder option 'normalize' is {normalize!r}: give True or False")
        if model_kwargs is not None and not isinstance(model_kwargs, Mapping):
            raise EncoderError(f"the encoder option 'model_kwargs' is {model_kwargs!r}: give names with their values")
        if pooling is not None:
            _check_choice("pooling", pooling, _POOLING)
            if not self._source.plain:
                raise EncoderError(f"the model '{model}' brings its own pooling: drop pooling='{pooling}'")
        self._prompt, self._max_length, self._batch_size = prompt, max_length, batch_size
        self._normalize, self._pooling = normalize, pooling
        self._asked_dtype, self._asked_device, self._backend = dtype, device, backend
        self._model_kwargs = dict(model_kwargs or {})
        self._trust_remote_code = trust_remote_code

    @cached_property
    def identity(self) -> Identity:
        """Everything that changes the vectors: for a folder the hash of its files, for a hub name the commit."""
        if self._pooling is None:
            tell_if_supposed(self._source)
        further = {
            "gguf_file": self._source.gguf_file,
            "num_hidden_layers": self._n_layers,
            # its vectors are kept apart from those of the whole model
            "supposed_plain": (self._pooling is None and self._source.supposed_plain) or None,
        }
        return {
            "backend": "sentence_transformers",
            "model": self._source.name,
            "fingerprint": self._source.fingerprint,
            "runtime": self._backend,
            "model_kwargs": json.dumps(self._model_kwargs, sort_keys=True, default=str) if self._model_kwargs else None,
            "trust_remote_code": self._trust_remote_code,
            "prompt": self._prompt,
            "max_length": self._max_length,
            "pooling": self._pooling,
            "normalize": self._normalize,
            "dtype": self._dtype,
            **{key: value for key, value in further.items() if value is not None},
        }

    @cached_property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._embed(["a"]).shape[1])

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors, ``(len(texts), dimension)``."""
        if not len(texts):
            return np.empty((0, self.dimension), dtype=np.float32)
        vectors = self._embed(texts)
        if self._normalize:  # here, in float32, and not in the model's own dtype
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)  # (N, 1)
            vectors = vectors / np.maximum(norms, np.finfo(np.float32).tiny)
        return vectors

    def _embed(self, texts: Sequence[str]) -> Vectors:
        model = self._model
        try:  # the library sorts by length, cuts into batches and restores the order
            vectors = model.encode(
                list(texts), prompt=self._prompt, batch_size=self._batch_size, show_progress_bar=False
            )
        except (IndexError, RuntimeError, ValueError) as error:
            raise EncoderError(
                f"the model '{self._source.name}' failed on {len(texts)} texts: {error}. If memory ran out, lower "
                f"batch_size={self._batch_size}; if positions did, lower max_length={self._max_length}"
            ) from error
        return np.asarray(vectors, dtype=np.float32)

    @cached_property
    def _device(self) -> str:
        import torch

        device = self._asked_device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            return str(torch.device(device))
        except (RuntimeError, TypeError):
            raise EncoderError(
                f"the encoder option 'device' is {device!r}: give one such as 'cpu' or 'cuda:0'"
            ) from None

    @cached_property
    def _dtype(self) -> str | None:
        if self._backend != "torch":
            return None
        if self._asked_dtype != "auto":
            return self._asked_dtype
        return "bfloat16" if computes_in_bfloat16(self._device) else "float32"

    @cached_property
    def _model(self) -> Any:
        logger.info("loading %s (%s, %s, %s)", self._source.load_from, self._backend, self._device, self._dtype)
        try:
            self._refuse_code()
            model = self._loaded()
        except XlingError:
            raise
        except Exception as error:  # the library and those below it raise many kinds
            raise EncoderError(f"cannot load the model '{self._source.load_from}': {error}") from error
        tokenizer = getattr(model, "tokenizer", None)
        if self._source.plain and tokenizer is not None:
            # a language model is padded on the left to write on, and its vectors would change with the padding
            tokenizer.padding_side = "right"
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        if self._pooling is not None:  # replaces the pooling that the library chose for a bare transformer
            if len(model) != 2:
                raise EncoderError(
                    f"the model '{self._source.name}' has no pooling to be replaced by '{self._pooling}'"
                )
            ask = getattr(model, "get_embedding_dimension", None) or model.get_sentence_embedding_dimension
            model[1] = type(model[1])(ask(), _POOLING[self._pooling])
        if self._max_length is not None:
            model.max_seq_length = self._max_length
        return model

    def _loaded(self) -> Any:
        from sentence_transformers import SentenceTransformer

        dtype = {} if self._dtype is None else {"torch_dtype": self._dtype}
        of_file = {} if self._source.gguf_file is None else {"gguf_file": self._source.gguf_file}
        options: dict[str, Any] = {"model_kwargs": {**dtype, **gguf_options(self._source), **self._model_kwargs}}
        if of_file:
            renamed = "processor_kwargs" in inspect.signature(SentenceTransformer).parameters  # in release 5
            options["processor_kwargs" if renamed else "tokenizer_kwargs"] = options["config_kwargs"] = of_file
        if self._n_layers is not None:
            load_config(self._source, self._n_layers, revision=self._source.revision, **of_file)  # are there as many?
            options["config_kwargs"] = {**of_file, "num_hidden_layers": self._n_layers}
        with quiet_loading(reports="config_kwargs" not in options):
            return SentenceTransformer(
                self._source.load_from,
                revision=self._source.revision,
                device=self._device,
                backend=cast(Any, self._backend),
                trust_remote_code=self._trust_remote_code,
                **options,
            )

    def _refuse_code(self) -> None:
        """Raise an EncoderError for a folder with code of its own, which releases of the library before 5 just run."""
        modules = Path(self._source.load_from) / "modules.json"
        if self._trust_remote_code or not isinstance(self._source, LocalModel) or not modules.is_file():
            return
        kinds = [str(module["type"]) for module in parse_json(modules.read_text(encoding="utf-8"))]
        foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
        if foreign:
            raise EncoderError(
                f"the model folder '{self._source.load_from}' brings code of its own ({', '.join(foreign)}): "
                "trust_remote_code=True runs it"
            )


def computes_in_bfloat16(device: str) -> bool:
    """Tell whether ``device`` has instructions for bfloat16 and does not merely emulate it."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if kind != "cpu":
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", None)
    cpu_info = Path("/proc/cpuinfo")
    if capabilities is not None:  # torch 2.12 and later
        return any(capabilities().get(flag) is True for flag in _BFLOAT16_FLAGS)
    return cpu_info.is_file() and not _BFLOAT16_FLAGS.isdisjoint(cpu_info.read_text(encoding="utf-8").split())


def _check_choice(kind: str, value: str, known: Sequence[str] | Mapping[str, str]) -> None:
    if not isinstance(value, str) or value not in known:
        raise EncoderError(unknown_name(kind, str(value), known))
