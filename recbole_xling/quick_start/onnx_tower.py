"""The user tower of a model as a graph of ONNX, which returns the model's users or is not written."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_xling.errors import ConfigError, MissingExtraError
from recbole_xling.model.factors import UserOfVectors
from recbole_xling.model.layers.language_embedding import language_numbers
from recbole_xling.serve.folder import open_graph
from recbole_xling.serve.recommender import Recommender
from recbole_xling.serve.scorer import Rows

FloatArray = NDArray[np.float32]
_TOLERANCE = 1e-4
_CHECKED = 64  # users that the graph is compared on
_INPUTS = ("items", "item_seq_len", "item_language", "user_language")


def write_tower(
    tower: UserOfVectors, recommender: Recommender, histories: FloatArray, written: Sequence[str], path: Path
) -> float:
    """Write the user tower, and return how far its users are from the model's, as a share of their largest number.

    Args:
        tower: of the model, on its device.
        recommender: that answers by the model.
        histories: vectors that histories consist of in the first view, ``(n_items, size)``.
        written: languages of the texts that these are of, ``(n_items,)``.
        path: of the file.

    Raises:
        ConfigError: the graph cannot be made, or its users are others.
        MissingExtraError: a package is not installed.
    """
    name, rows = recommender.scorer.name, _examples(recommender)
    with torch.no_grad():
        expected = recommender.scorer.user_vectors(0, rows)
        inputs = _inputs(recommender, histories, written, rows)
        device = next(tower.parameters()).device
        _write_graph(tower, tuple(part.to(device) for part in inputs), path, name)
    session = open_graph(path)
    given = dict(zip(_INPUTS, inputs, strict=True))
    wanted = [node.name for node in session.get_inputs()]
    difference = 0.0
    for part in (slice(None), slice(0, 1)):  # of any number at a time
        found = session.run(None, {key: given[key][part].numpy() for key in wanted})[0]
        difference = float(np.maximum(difference, np.abs(found - expected[part]).max()))  # stays NaN, unlike by max()
    difference /= float(np.maximum(1.0, np.abs(expected).max()))
    if not difference <= _TOLERANCE:
        raise ConfigError(
            f"the user tower of {name} as ONNX returns other users than the model (up to {difference:.2g} apart, "
            f"{_TOLERANCE:g} is allowed): it is not exported"
        )
    return difference


def _examples(recommender: Recommender) -> Rows:
    """Return users of the first view with histories of 1 item and more, one with too many, and nobody with one item."""
    users, catalog, longest = recommender.users, recommender.catalog, recommender.scorer.longest
    exist = np.flatnonzero(catalog.exists)
    everybody = np.flatnonzero(np.diff(users.starts) > 0)
    known = [user for user in everybody.tolist() if users.languages[user] not in catalog.view_of][:_CHECKED]
    histories = [users.history(user)[: 1 + place] for place, user in enumerate(known)]
    histories += [np.resize(exist, longest + 3), exist[:1]]
    known += [0, 0]
    return Rows(np.array(known, dtype=np.int64), [users.languages[user] for user in known], histories)


def _inputs(recommender: Recommender, histories: FloatArray, written: Sequence[str], rows: Rows) -> tuple[Tensor, ...]:
    """Return the inputs of the tower for users of the first view."""
    longest = recommender.scorer.longest
    item_seq = torch.zeros(len(rows.histories), longest, dtype=torch.long)
    lengths = torch.tensor([min(len(history), longest) for history in rows.histories])
    for row, history in zip(item_seq, rows.histories, strict=True):
        recent = torch.from_numpy(np.asarray(history[-longest:]))
        row[: len(recent)] = recent
    of_items = language_numbers(written)[item_seq]
    return torch.from_numpy(histories)[item_seq], lengths, of_items, language_numbers(rows.languages)


def _write_graph(tower: UserOfVectors, inputs: tuple[Tensor, ...], path: Path, name: str) -> None:
    """Write a module as a graph for any number of rows.

    Raises:
        ConfigError: it does what ONNX cannot.
        MissingExtraError: a package is not installed.
    """
    for package in ("onnx", "onnxscript"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise MissingExtraError(package, "export") from error
    rows = torch.export.Dim("rows", min=1)
    try:
        with warnings.catch_warnings(), _silent(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                tower,
                inputs,
                str(path),
                input_names=list(_INPUTS),
                output_names=["users"],
                dynamic_shapes=tuple({0: rows} for _ in inputs),
                dynamo=True,
                external_data=False,
            )
    except Exception as error:  # whatever the model does that torch or onnx cannot follow
        cause = error.__cause__ or error
        if isinstance(cause, OSError):  # of the disk
            raise cause from None
        problem = " ".join(str(cause).split())
        raise ConfigError(
            f"the user tower of {name} cannot be written as ONNX, so it is not exported: {problem:.200}"
        ) from error


@contextmanager
def _silent() -> Iterator[None]:
    """Let torch's exporter not tell its steps."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
