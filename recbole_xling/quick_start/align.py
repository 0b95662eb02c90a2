"""Cross-lingual correspondence: does a text in one language find its translation in another by its vector?"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recbole_xling.config import XLingConfig, plain_settings
from recbole_xling.data.catalog import ItemCatalog, catalog_of, encode_texts
from recbole_xling.errors import CheckpointError, ConfigError, DataError
from recbole_xling.evaluator.correspondence import MIN_PAIRS, Side, correspondence
from recbole_xling.quick_start.build import build_model, open_data
from recbole_xling.quick_start.export import tuned_encoder
from recbole_xling.quick_start.item_views import before_and_after
from recbole_xling.quick_start.trained import read_trained, settings_for
from recbole_xling.utils.run_folder import (
    MODEL_FILE,
    create_run_folder,
    versions,
    write_evaluation,
    write_json,
)

_OF_FILES = frozenset("model dataset seed use_gpu gpu_id device".split())
"""Settings that a run which encodes files may be given."""

FilePair = tuple[str | os.PathLike[str], str | os.PathLike[str]]
Places = NDArray[np.int64]
Pairs = dict[tuple[str, str], tuple[Places, Places, NDArray[np.bool_]]]


class _Texts(NamedTuple):
    """Texts with their vectors, and which of them are translations.

    Attributes:
        vectors: by name of what made them, ``(n, D)`` each.
        language: of each text, ``(n,)``.
        pairs: by pair of languages, the places of their translations and which of these are asked for.
    """

    vectors: dict[str, NDArray[np.float32]]
    language: NDArray[np.str_]
    pairs: Pairs


def align(
    source: str | os.PathLike[str],
    files: Sequence[FilePair] = (),
    *,
    dataset: str | None = None,
    centered: bool = False,
    most_items: int = 5000,
    output: str | os.PathLike[str] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
) -> dict[str, Any]:
    """Measure how well texts find their translations among all texts of another language by their vectors.

    Without files, the texts are those of a run's items, in the languages in which the run shows them: in several where
    ``reader_vectors: reader`` applies. Their vectors are those of the frozen encoder and those of the trained model.

    Args:
        source: a run folder; or, with files, a run of XLingTwoTower, the name of an encoder or its folder.
        files: pairs of UTF-8 files with a sentence in each line; equal lines are translations of each other. A file's
            language is the end of its name, such as ``tatoeba.deu-eng.deu``.
        dataset: name of another dataset for a run; its own if not given.
        centered: also measure the vectors without the mean of their language.
        most_items: how many items, drawn by ``seed``, are measured at most.
        output: JSON file of the results; that of a run's items are in a folder of the run too.
        config_dict: settings that replace the run's, or settings of the encoder such as ``encoder_max_length``. A run
            that encodes files takes ``device`` and ``seed`` alone.
        arguments: command-line arguments ``--key=value``, which replace them as well.

    Returns:
        ``vectors``: by name of the vectors, what :func:`~recbole_xling.evaluator.correspondence.correspondence` returns
        for all pairs of languages; ``left_out``: pairs that have too few translations, with their number. Pairs whose
        texts are the same word for word are candidates, but not asked for.

    Raises:
        CheckpointError: the folder is no run, or tunes no encoder for files.
        ConfigError: a setting is wrong, or the model's items have no vectors.
        DataError: the dataset or a file cannot be used, or no two languages have ten pairs.
        EncoderError: there is no such encoder.
    """
    is_run = (Path(source) / MODEL_FILE).is_file()
    if output is not None and not Path(output).parent.is_dir():  # said before hours of encoding
        raise ConfigError(f"there is no folder '{Path(output).parent}' to write '{output}' to: make it first")
    if files:
        settings = {} if is_run else {"encoder": str(source)}
        config = XLingConfig("LLMSASRec", "files", config_dict={**(config_dict or {}), **settings}, arguments=arguments)
        if is_run and (more := sorted(config.external_config_dict.keys() - _OF_FILES)):
            raise ConfigError(f"a run reads files as it was trained: leave out {', '.join(more)}, or give an encoder")
        texts = _of_files(source, files, config, is_run)
        result: dict[str, Any] = {"source": str(source), "files": [[str(path) for path in pair] for pair in files]}
    else:
        if not is_run:
            raise CheckpointError(
                f"'{source}' is not a run folder ({MODEL_FILE} is missing); an encoder needs aligned files: "
                "--files FILE FILE"
            )
        trained = read_trained(Path(source) / MODEL_FILE)
        config = settings_for(trained, dataset, config_dict, arguments)
        _, base = open_data(trained, config)
        catalog = catalog_of(base)
        texts = _of_items(build_model(trained, config, base), catalog, most_items, config["seed"])
        result = {"source": str(source), "model": config["model"], "dataset": config["dataset"]}
    result |= _measure(texts, centered, config["seed"])
    result |= {"seed": config["seed"], "versions": versions()}
    if not files:
        folder = create_run_folder(Path(source), "align", config["dataset"])
        write_evaluation(folder, plain_settings(config), result, None)
    if output is not None:
        write_json(Path(output), result)
    return result


def _measure(texts: _Texts, centered: bool, seed: int) -> dict[str, Any]:
    """Measure all pairs of languages that have enough translations."""
    few = {f"{a}-{b}": int(asked.sum()) for (a, b), (_, _, asked) in texts.pairs.items() if asked.sum() < MIN_PAIRS}
    if len(few) == len(texts.pairs):
        found = ", ".join(f"{name} {n}" for name, n in few.items())
        found = found or f"items in {', '.join(np.unique(texts.language))}"
        raise DataError(
            f"no two languages have {MIN_PAIRS} pairs of different texts; found: {found}. Where items have texts in "
            "several languages, text_view: reader with reader_vectors: reader shows them in each of these"
        )
    vectors = dict(texts.vectors)
    if centered:
        vectors |= {f"{name}_centered": _center(values, texts.language) for name, values in vectors.items()}
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in vectors}
    for name, values in vectors.items():
        for (a, b), (left, right, asked) in texts.pairs.items():
            if f"{a}-{b}" not in few:
                lines[name] += correspondence(Side(a, values[left]), Side(b, values[right]), asked, seed=seed)
    return {"vectors": lines, "left_out": few}


def _center(vectors: NDArray[np.float32], language: NDArray[np.str_]) -> NDArray[np.float32]:
    """Return vectors of unit length without the mean of their language."""
    units = _units(vectors)
    for name in np.unique(language):
        own = language == name
        units[own] -= units[own].mean(axis=0)  # as it is, however few they are: a model would shrink it
    return _units(units)


def _units(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=1).numpy()
    return found


# ---- texts ----------------------------------------------------------------------------------------------------


def _of_items(model: Any, catalog: ItemCatalog, most_items: int, seed: int) -> _Texts:
    """Return the items of a trained model: the same item in two languages is a pair."""
    views, vectors = before_and_after(model, catalog, most_items, seed)
    texts = catalog.texts_of_views
    pairs: Pairs = {}
    for a, b in itertools.combinations(np.unique(views.languages).tolist(), 2):
        in_a, in_b = (np.flatnonzero(views.languages == language) for language in (a, b))
        _, place_a, place_b = np.intersect1d(views.items[in_a], views.items[in_b], return_indices=True)
        left, right = in_a[place_a], in_b[place_b]
        if len(left):
            shown = [[texts[views.views[place]][views.items[place]] for place in side] for side in (left, right)]
            pairs[a, b] = (left, right, _differ(*shown))
    return _Texts(vectors, views.languages, pairs)


def _of_files(source: str | os.PathLike[str], files: Sequence[FilePair], config: XLingConfig, is_run: bool) -> _Texts:
    """Return the sentences of aligned files with their vectors by an encoder."""
    sentences: list[str] = []
    languages: list[str] = []
    pairs: Pairs = {}
    for pair in files:
        sides = list(_aligned_lines(pair))
        names = [Path(path).suffix[1:] or Path(path).name for path in pair]
        if names[0] == names[1]:
            names = [Path(path).name for path in pair]
        places = [np.arange(len(lines)) + len(sentences) + number * len(lines) for number, lines in enumerate(sides)]
        if {(names[0], names[1]), (names[1], names[0])} & pairs.keys():
            raise DataError(f"two pairs of files are in {names[0]} and {names[1]}: measure one after the other")
        pairs[names[0], names[1]] = (places[0], places[1], _differ(*sides))
        for name, lines in zip(names, sides, strict=True):
            sentences += lines
            languages += [name] * len(lines)
    if is_run:
        encoder = tuned_encoder(source).to(config["device"])
        tokens = encoder.tokenize(sentences)
        vectors = encoder.encode_all(tokens)[tokens.text_of_row].cpu().numpy()
    else:
        vectors = encode_texts(config, sentences)
    return _Texts({"sentence_vectors": vectors}, np.array(languages), pairs)


def _aligned_lines(pair: FilePair) -> Iterator[list[str]]:
    """Yield the lines of each of two files, without those that are empty in one of them.

    Raises:
        DataError: a file cannot be read, or they differ in their numbers of lines.
    """
    try:
        # by line breaks alone: splitlines() also divides a line at separators within its text
        texts = [Path(path).read_text(encoding="utf-8-sig").removesuffix("\n") for path in pair]
        sides = [[line.strip() for line in text.split("\n")] for text in texts]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"aligned files '{pair[0]}' and '{pair[1]}' cannot be read as UTF-8 text: {error}") from error
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"'{pair[0]}' has {len(sides[0]):,} lines and '{pair[1]}' {len(sides[1]):,}: equal lines must be "
            "translations of each other"
        )
    filled = [place for place, both in enumerate(zip(*sides, strict=True)) if all(both)]
    for lines in sides:
        yield [lines[place] for place in filled]


def _differ(left: Sequence[str], right: Sequence[str]) -> NDArray[np.bool_]:
    return np.array([a.casefold() != b.casefold() for a, b in zip(left, right, strict=True)], dtype=bool)
