"""The folder of an export: its files, and the way back into a Recommender."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.errors import CheckpointError, MissingExtraError, XlingError
from recbole_xling.serve.added import ADDED_FILE, read_added, with_added
from recbole_xling.serve.catalog import Catalog, Users
from recbole_xling.serve.indexes import index_file, open_index
from recbole_xling.serve.new_items import Intake
from recbole_xling.serve.recommender import Recommender
from recbole_xling.serve.text_encoder import ExportedEncoder
from recbole_xling.serve.vectors import Tower, VectorScorer, View
from recbole_xling.serve.withdrawn import WITHDRAWN_FILE, read_withdrawn
from recbole_xling.utils.files import file_digest
from recbole_xling.utils.json_text import parse_json

FORMAT = 1
MANIFEST_FILE = "export.json"
CARD_FILE = "README.md"
ITEMS_FILE = "items.jsonl"
USERS_FILE = "users.jsonl"
TOWER_FILE = "user_tower.onnx"
USER_VECTORS_FILE = "user_vectors.npy"
BIAS_FILE = "bias.npy"
ENCODER_FOLDER = "encoder"
MEANS_FILE = "language_means.npy"


def vectors_file(kind: str, view: int) -> str:
    """Return the name of the file of a view's vectors, of ``items`` or ``histories``."""
    return f"{kind}.{view}.npy"


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is one that export wrote."""
    return (Path(folder) / MANIFEST_FILE).is_file()


def checksums(folder: Path) -> dict[str, dict[str, Any]]:
    """Return size and SHA-256 of each file of a folder, by its path inside, but for those that may change."""
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in (MANIFEST_FILE, WITHDRAWN_FILE, ADDED_FILE)
        and path != folder / CARD_FILE  # which is for people to write on
    )
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_digest(path)}
        for path in files
    }


def load_export(folder: str | os.PathLike[str], *, verify: bool = True) -> Recommender:
    """Return what answers from the folder of an export; it needs neither torch nor RecBole.

    Args:
        folder: that ``recbole-xling export`` wrote.
        verify: whether to compare all files with their checksums first.

    Raises:
        CheckpointError: the folder is none, or a file of it is missing or damaged.
        MissingExtraError: onnxruntime or the index's package is not installed.
        XlingError: langcodes or language_data is not installed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for package in ("langcodes", "language_data"):  # which tell what a tag means, in one request of many
        try:
            import_module(package)
        except ImportError as error:
            raise XlingError(f"this needs the package '{package}': pip install langcodes language_data") from error
    try:
        for name, known in manifest["files"].items():
            path = folder / name
            is_whole = path.is_file() and path.stat().st_size == known["bytes"]
            if not is_whole or (verify and file_digest(path) != known["sha256"]):
                raise CheckpointError(f"'{path}' is not what export wrote: it is missing or damaged. Export again")
        recommender = _recommender(folder, manifest)
    except (XlingError, OSError):
        raise
    except Exception as error:  # whatever numpy, json or onnxruntime make of a file of another kind
        raise CheckpointError(f"the export '{folder}' cannot be read: {type(error).__name__}: {error}") from error
    return as_remembered(recommender, folder)


def as_remembered(recommender: Recommender, folder: str | os.PathLike[str]) -> Recommender:
    """Return a Recommender with the items that were added to its folder, and without those that were withdrawn.

    Raises:
        CheckpointError: what the folder remembers is damaged, or does not fit the model.
    """
    found = with_added(recommender, read_added(folder))
    found.catalog.withdraw(read_withdrawn(folder))
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the file that says what an export holds.

    Raises:
        CheckpointError: the folder is no export, or one of another format.
    """
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise CheckpointError(f"'{folder}' is not the folder of an export ({MANIFEST_FILE} is missing)")
    try:
        manifest: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        found = manifest["format"]
        if "sha256" in manifest and manifest["sha256"] != _checksum(manifest):  # of earlier releases it is not known
            raise ValueError("it is not what export wrote")
        manifest["files"].pop(CARD_FILE, None)  # of earlier releases
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is damaged: {error!r}") from error
    if found != FORMAT:
        raise CheckpointError(f"'{folder}' has format {found!r}, but this version reads {FORMAT}")
    return manifest


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """Return what the file says that :func:`read_manifest` reads, with the checksum of all else in it."""
    return json.dumps({**manifest, "sha256": _checksum(manifest)}, indent=2, ensure_ascii=False) + "\n"


def _checksum(manifest: Mapping[str, Any]) -> str:
    text = json.dumps({key: value for key, value in manifest.items() if key != "sha256"}, sort_keys=True)
    return sha256(text.encode()).hexdigest()


def _recommender(folder: Path, manifest: Mapping[str, Any]) -> Recommender:
    records = list(_records(folder / ITEMS_FILE))
    tokens = ["[PAD]", *(record["id"] for record in records)]
    n_views = max([0, *manifest["view_of"].values()]) + 1
    titles = [["", *(_of_view(record["titles"], view) for record in records)] for view in range(n_views)]
    languages = [["und", *(_of_view(record["languages"], view) for record in records)] for view in range(n_views)]
    withdrawn = [place for place, record in enumerate(records, start=1) if record.get("withdrawn")]
    counts = np.array([0, *(record["count"] for record in records)], dtype=np.int64)
    met = [False, *(bool(record.get("known", record["count"] > 0)) for record in records)]
    known = np.array(met) if manifest.get("bias_by_history") else None  # in earlier releases popularity counts for all
    columns = {name: [[], *(record["columns"].get(name, []) for record in records)] for name in manifest["columns"]}
    catalog = Catalog(tokens, titles, languages, manifest["view_of"], counts, withdrawn, lambda: columns)

    views, index = [], manifest["index"] or {"kind": None}
    kind, weights = index["kind"], index.get("weights") or [1.0] * manifest["model_views"]
    for view in range(manifest["model_views"]):
        items = _mapped(folder / vectors_file("items", view))
        path = folder / vectors_file("histories", view)
        histories = _mapped(path) if path.is_file() else items
        read = ["und", *(_of_view(record.get("read", record["languages"]), view) for record in records)]
        tags = [tag.split("-")[0].lower() for tag in read]
        numbers = np.array([manifest["language_numbers"].get(tag, 0) for tag in tags], dtype=np.int64)
        search = open_index(kind, folder / index_file(kind, view), weights[view]) if kind else None
        indexed = np.flatnonzero(catalog.exists) if kind else np.empty(0, dtype=np.int64)
        views.append(View(items, histories, numbers, known, indexed, search))
    users = _tower(folder, manifest) if manifest["by_history"] else _mapped(folder / USER_VECTORS_FILE)
    reader = None
    if manifest.get("reads_texts") and isinstance(users, Tower):
        means = np.load(folder / MEANS_FILE) if (folder / MEANS_FILE).is_file() else None
        reader = ExportedEncoder(folder / ENCODER_FOLDER, means, users.numbers)
    scorer = VectorScorer(
        manifest["model"],
        views,
        np.load(folder / BIAS_FILE),
        manifest["vector_size"],
        users,
        without_history=manifest["without_history"],
        reader=reader,
    )
    intake = Intake(**manifest["new_items"]) if manifest.get("new_items") else None
    return Recommender(catalog, _users(folder / USERS_FILE, catalog, manifest["spoken"]), scorer, intake)


def _mapped(path: Path) -> NDArray[np.float32]:
    """Return the array of a file without reading it; what is not looked at costs no memory."""
    return np.asarray(np.load(path, mmap_mode="r"))


def _of_view(values: list[str], view: int) -> str:
    """Return the value of a view; a list of one value has that for all views."""
    return values[view if len(values) > 1 else 0]


def _users(path: Path, catalog: Catalog, spoken: list[str]) -> Users:
    """Read the users, unless they were left out."""
    records = list(_records(path)) if path.is_file() else []
    histories = [[catalog.number[item] for item in record["history"]] for record in records]
    starts = np.concatenate([[0, 0], np.cumsum([len(history) for history in histories], dtype=np.int64)])
    items = np.array([item for history in histories for item in history], dtype=np.int64)
    tokens = ["[PAD]", *(record["id"] for record in records)]
    languages = ["und", *(record["language"] for record in records)]
    missing = "" if path.is_file() else "the export holds no users"
    taught = np.array([False, *(not record.get("untaught") for record in records)])
    return Users(tokens, languages, starts.astype(np.int64), items, missing, spoken, taught)


def open_graph(path: Path) -> Any:
    """Open the graph of a user tower, which nobody is told of (onnxruntime would report to its makers).

    Raises:
        MissingExtraError: onnxruntime is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "serve") from error
    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # towers are small: threads would wait for each other longer than they compute
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _tower(folder: Path, manifest: Mapping[str, Any]) -> Tower:
    session = open_graph(folder / TOWER_FILE)
    wanted = [node.name for node in session.get_inputs()]

    def compute(given: Mapping[str, NDArray]) -> NDArray[np.float32]:
        users: NDArray[np.float32] = session.run(None, {name: given[name] for name in wanted})[0]
        return users

    return Tower(compute, manifest["longest_history"], manifest["language_numbers"])


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield parse_json(line)
