"""The encoder of an export, by which new items and texts are read; it needs sentence-transformers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import CheckpointError, MissingExtraError
from recbole_xling.serve.catalog import IntArray
from recbole_xling.serve.scorer import unit
from recbole_xling.utils.json_text import parse_json

FloatArray = NDArray[np.float32]
_PARTS = {f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Dense", "Normalize")}
_LINEAR = "torch.nn.modules.linear.Identity"


class ExportedEncoder:
    """Vectors of texts as those of the catalog's items are made; the encoder is loaded when it is first asked.

    Args:
        folder: of the encoder.
        means: what is taken from the vectors of each language, by its number, ``(languages, size)``; None for nothing.
        numbers: returns the numbers of languages.
    """

    def __init__(self, folder: Path, means: FloatArray | None, numbers: Callable[[Sequence[str]], IntArray]) -> None:
        self._folder, self._means, self._numbers = folder, means, numbers

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise MissingExtraError("sentence-transformers", "encoders") from error
        _check(self._folder)
        try:
            return SentenceTransformer(str(self._folder), device="cpu", local_files_only=True)
        except Exception as error:  # whatever the library makes of a folder of another release
            raise CheckpointError(f"the encoder '{self._folder}' cannot be loaded: {error!r:.200}") from error

    def vectors_of_texts(self, texts: Sequence[str], languages: Sequence[str]) -> FloatArray:
        """Return the vectors of texts, ``(n, size)``."""
        found: FloatArray = np.asarray(self._model.encode(list(texts), show_progress_bar=False), dtype=np.float32)
        if self._means is not None:
            found = unit(found - self._means[self._numbers(languages)])
        return found

    def vectors_of_items(self, texts: Sequence[Sequence[str]], languages: Sequence[Sequence[str]]) -> FloatArray:
        """Return the vectors of items, ``(n, size)``: the mean of those of their texts, of unit length."""
        flat = [text for of_item in texts for text in of_item], [tag for tags in languages for tag in tags]
        own = self.vectors_of_texts(*flat)
        starts = np.cumsum([0, *(len(of_item) for of_item in texts[:-1])])
        return unit(np.add.reduceat(own, starts, axis=0)) if len(own) else own


def _check(folder: Path) -> None:
    """Refuse an encoder that export did not write: the library would run what its files name.

    Raises:
        CheckpointError: it has other parts, or weights that are no safetensors.
    """
    try:
        parts = parse_json((folder / "modules.json").read_text(encoding="utf-8"))
        kinds = {part["type"] for part in parts}
        dense = folder / "2_Dense" / "config.json"
        activation = (
            parse_json(dense.read_text(encoding="utf-8"))["activation_function"] if dense.is_file() else _LINEAR
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"the encoder '{folder}' is damaged: {error!r:.100}") from error
    others = [path.name for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".py")]
    if not kinds <= _PARTS or activation != _LINEAR or others:
        raise CheckpointError(f"the encoder '{folder}' is not as export writes one, and might run code: export again")
