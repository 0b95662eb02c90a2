"""What a trained model remembers of its data: the files, the ids in the order of their numbers, some interactions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from recbole.utils import ModelType
from torch import Tensor

from recbole_xling.errors import CheckpointError

logger = logging.getLogger(__name__)

Fingerprint = dict[str, dict[str, Any]]
"""Size in bytes, lines and SHA-256 of each file, by its suffix: datasets of other names and folders can be equal."""

Tokens = NDArray[np.str_]
IntArray = NDArray[np.int64]

_READ = frozenset({"max_length", "prompt"})  # what an encoder reads of a text: compared as settings
# what may differ in little: in rounding, or in nothing where a cache did not tell what a model is
_ROUNDING = frozenset({"dtype", "package_version", "runtime", "supposed_plain", "trust_remote_code"})

_SAMPLE = 1000  # interactions that are remembered
_SAME_DATA = 0.5  # share of them that the run's own data still have; data of other users and items have next to none


# ---- files ----------------------------------------------------------------------------------------------------


def fingerprint(config: Any) -> Fingerprint:
    """Return size, lines and hash of the files that a run reads of its dataset.

    Args:
        config: the configuration; ``data_path`` is the dataset's folder, as RecBole completes it.
    """
    interactions = [f"{part}.inter" for part in config["benchmark_filename"] or ()] or ["inter"]
    graph = ("kg", "link") if config["MODEL_TYPE"] == ModelType.KNOWLEDGE else ()
    others = ("user", "item", "itemtext.jsonl", *graph, *(config["additional_feat_suffix"] or ()))
    folder, name = Path(config["data_path"]), config["dataset"]
    files = {suffix: folder / f"{name}.{suffix}" for suffix in (*interactions, *others)}
    if config["alignment_file"]:
        files["alignment_file"] = Path(config["alignment_file"])
    return {suffix: _of_file(path) for suffix, path in files.items() if path.is_file()}


def _of_file(path: Path) -> dict[str, Any]:
    size = lines = 0
    content = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size += len(block)
            lines += block.count(b"\n")
            content.update(block)
    return {"bytes": size, "lines": lines, "sha256": content.hexdigest()}


def changes(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Return what has changed of each file, such as ``.inter (120 lines, 3,214 bytes before, 121 lines, ... now)``."""

    def size(found: Mapping[str, Any] | None) -> str:
        return f"{found['lines']:,} lines, {found['bytes']:,} bytes" if found else "nothing"

    found = []
    for suffix in {**before, **now}:
        old, new = before.get(suffix), now.get(suffix)
        if old != new:
            what = f"{size(old)} before, {size(new)} now" if size(old) != size(new) else f"other content in {size(new)}"
            found.append(f".{suffix} ({what})")
    return found


# ---- identity -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataIdentity:
    """The data that a model was trained on, as its checkpoint remembers them.

    Attributes:
        files: their fingerprint.
        vocabulary: the tokens of each token field in the order of RecBole's ids, the padding token first.
        renumbered: hash of the final order of the fields whose ids RecBole changes afterwards, by a knowledge graph.
        languages: languages of item texts in the order of their numbers, where the model numbers them.
        sample: users and items of some training interactions.
        item_field: the field of item ids.
        item_counts: training interactions of each of its tokens; None in older files.
        encoder: identity of the encoder whose text vectors the model read; None if it read none, and in older files.
        same_ids: whether ids mean the same in whatever data are read, because somebody says so.
    """

    files: Fingerprint
    vocabulary: dict[str, Tokens]
    renumbered: dict[str, str]
    languages: tuple[str, ...]
    sample: tuple[Tokens, Tokens]
    item_field: str = ""
    item_counts: IntArray | None = None
    encoder: Mapping[str, Any] | None = None
    same_ids: bool = False

    @classmethod
    def of(cls, train: Any) -> DataIdentity:
        """Return the identity of a training split, a :class:`~recbole_xling.data.pinned_ids.PinnedIds`."""
        table, catalog = train.inter_feat, vars(train).get("catalog")
        rows = np.unique(np.linspace(0, len(table) - 1, _SAMPLE).astype(np.int64))
        users, items = (
            train.field2id_token[field][np.asarray(table[field])[rows]] for field in (train.uid_field, train.iid_field)
        )
        languages = vars(catalog).get("language_names", ()) if catalog is not None else ()
        return cls(
            train.fingerprint,
            train.vocabulary,
            _renumbered(train),
            tuple(languages),
            (users, items),
            train.iid_field,
            train.train_item_counts,
            _encoder_of(train),
        )

    def state(self) -> dict[str, Any]:
        """Return the identity as plain data and tensors."""
        return {
            "files": self.files,
            "vocabulary": {field: _pack(tokens) for field, tokens in self.vocabulary.items()},
            "renumbered": self.renumbered,
            "languages": list(self.languages),
            "sample": [_pack(tokens) for tokens in self.sample],
            "item_field": self.item_field,
            "item_counts": None if self.item_counts is None else torch.from_numpy(self.item_counts.astype(np.int32)),
            "encoder": None if self.encoder is None else dict(self.encoder),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> DataIdentity:
        """Undo :meth:`state`.

        Raises:
            CheckpointError: the state is not what that method returns.
        """
        try:
            vocabulary = {field: _unpack(packed) for field, packed in state["vocabulary"].items()}
            users, items = (_unpack(packed) for packed in state["sample"])
            languages = tuple(str(language) for language in state["languages"])
            files = {
                str(suffix): {"bytes": int(of["bytes"]), "lines": int(of["lines"]), "sha256": str(of["sha256"])}
                for suffix, of in state["files"].items()
            }
            item_field, counts = str(state.get("item_field", "")), state.get("item_counts")
            if counts is not None:
                counts = counts.cpu().numpy().astype(np.int64)
                if counts.shape != vocabulary[item_field].shape or (counts < 0).any():
                    raise ValueError("numbers of interactions that are not those of the items")
            renumbered = dict(state["renumbered"])
            encoder = (
                None if state.get("encoder") is None else {str(key): value for key, value in state["encoder"].items()}
            )
            return cls(files, vocabulary, renumbered, languages, (users, items), item_field, counts, encoder)
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint is damaged: its ids cannot be read ({error!r})") from error

    @cached_property
    def _pairs(self) -> set[tuple[str, str]]:
        return set(zip(*(tokens.tolist() for tokens in self.sample), strict=True))

    def share_in(self, interactions: pd.DataFrame, user_field: str, item_field: str) -> float:
        """Return the share of the remembered interactions that a table of tokens has, from 0 to 1."""
        rows = interactions[interactions[user_field].isin({user for user, _ in self._pairs})]
        found = self._pairs.intersection(zip(rows[user_field], rows[item_field], strict=True))
        return len(found) / max(1, len(self._pairs))

    def is_of(self, files: Fingerprint, interactions: pd.DataFrame, user_field: str, item_field: str) -> bool:
        """Tell whether files are those of training, or a later state of them: ids alone can be alike by chance."""
        if self.same_ids or files == self.files:
            return True
        return self.share_in(interactions, user_field, item_field) >= _SAME_DATA

    def has_texts_of(self, files: Fingerprint) -> bool:
        """Tell whether files with these fingerprints have the same items with the same texts as those of training."""
        return "itemtext.jsonl" in files and files["itemtext.jsonl"] == self.files.get("itemtext.jsonl")

    def counts_of(self, tokens: Iterable[str]) -> IntArray:
        """Return the training interactions of items by their tokens, ``(n_items,)``; 0 for those without any."""
        assert self.item_counts is not None
        known = dict(zip(self.vocabulary[self.item_field].tolist(), self.item_counts.tolist(), strict=True))
        return np.array([known.get(str(token), 0) for token in tokens], dtype=np.int64)

    def check_encoder(self, dataset: Any) -> None:
        """Check that the text vectors that a model reads of a dataset are by the encoder of training.

        Raises:
            CheckpointError: they are by another one: what was learned from some vectors says nothing about others.
        """
        now = _encoder_of(dataset)
        if self.encoder is not None and now is not None:
            check_encoders(self.encoder, now)

    def new_tokens(self, dataset: Any) -> dict[str, Tokens]:
        """Return the tokens that a dataset with this vocabulary has beyond it, by field; fields without any left out.

        Raises:
            CheckpointError: the dataset numbers ids otherwise.
        """
        found = {field: dataset.vocabulary[field] for field in self.vocabulary if field in dataset.vocabulary}
        known = {field: self.vocabulary[field] for field in found}
        new = {field: tokens[len(known[field]) :] for field, tokens in found.items()}
        new = {field: tokens for field, tokens in new.items() if len(tokens)}
        moved = [field for field in found if not np.array_equal(found[field][: len(known[field])], known[field])]
        now = _renumbered(dataset)
        moved += [field for field in found if field not in new and self.renumbered.get(field) != now.get(field)]
        if moved:
            raise CheckpointError(
                f"the checkpoint numbers {', '.join(moved)} otherwise than '{dataset.dataset_name}' as it is loaded: "
                "load the run with load_run, and with the files it was trained on"
            )
        return new


def check_encoders(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that two identities are of one encoder: its text vectors are alike, but for rounding.

    Raises:
        CheckpointError: they are of two.
    """
    keys = (then.keys() | now.keys()) - _READ
    if now.get("fingerprint") and now["fingerprint"] == then.get("fingerprint"):
        keys -= {"model"}  # a folder that has been renamed
    changed = sorted(key for key in keys if then.get(key) != now.get(key))
    before, here = ({key: of.get(key) for key in changed} for of in (then, now))
    if not _ROUNDING.issuperset(changed):
        raise CheckpointError(
            f"the run was trained on text vectors of the encoder {before}, but this one is {here}: give the encoder of "
            "then (encoder, encoder_options; of a model of the hub its commit as revision), or train again"
        )
    if changed:
        logger.warning("text vectors were made with %s in training, and with %s now", before, here)


def _encoder_of(dataset: Any) -> Mapping[str, Any] | None:
    """Return the identity of the encoder whose vectors of a dataset's texts were asked for; None if none were."""
    found: Mapping[str, Any] | None = getattr(vars(dataset).get("catalog"), "encoded_by", None)
    return found


def _renumbered(dataset: Any) -> dict[str, str]:
    final = {field: dataset.field2id_token[field] for field in dataset.vocabulary}
    moved = {field for field, tokens in final.items() if tokens is not dataset.vocabulary[field]}
    return {
        field: sha256("\0".join(final[field].tolist()).encode("utf-8", "surrogatepass")).hexdigest() for field in moved
    }


def some(tokens: Iterable[Any], number: int = 3) -> str:
    """Return the first few of many names, for a message."""
    listed = [str(token) for token in tokens]
    return ", ".join(f"'{token}'" for token in listed[:number]) + (", ..." if len(listed) > number else "")


# ---- packing --------------------------------------------------------------------------------------------------


def _pack(tokens: Sequence[str] | Tokens) -> dict[str, Tensor]:
    """Return tokens as two tensors, one byte per letter and per length in the usual case."""
    texts = [str(token) for token in tokens]
    lengths = np.array([len(text) for text in texts], dtype=np.int32)
    if lengths.max(initial=0) < 256:
        lengths = lengths.astype(np.uint8)
    content = "".join(texts).encode("utf-8", "surrogatepass")
    return {
        "text": torch.from_numpy(np.frombuffer(content, dtype=np.uint8).copy()),
        "lengths": torch.from_numpy(lengths),
    }


def _unpack(packed: Mapping[str, Tensor]) -> Tokens:
    content = packed["text"].cpu().numpy().tobytes().decode("utf-8", "surrogatepass")
    ends = np.cumsum(packed["lengths"].cpu().numpy().astype(np.int64))
    if (ends[-1] if len(ends) else 0) != len(content):
        raise ValueError("lengths do not add up")
    return np.array([content[begin:end] for begin, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True)])
