"""Where a model comes from, a folder or the Hugging Face hub, and what pins its weights."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from recbole_xling.encode.base import require_package
from recbole_xling.errors import EncoderError, unknown_name
from recbole_xling.utils.files import file_digest
from recbole_xling.utils.json_text import parse_json

logger = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"[A-Za-z0-9_-][\w.-]*/[\w.-]+")
_CONFIG_FILES = ("modules.json", "config.json")  # the first exists for sentence-transformers models only
_PROMPTS_FILE = "config_sentence_transformers.json"
_ADAPTER_FILE = "adapter_config.json"  # of PEFT
_NOT_MODEL = frozenset({".md", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".pdf", ".log"})


@dataclass(frozen=True)
class LocalModel:
    """A model in a folder."""

    folder: Path
    gguf_file: str | None = None
    """File of the folder with quantized weights, which transformers reads as full ones."""

    @property
    def name(self) -> str:
        """The folder's own name, so that moving it keeps its vectors."""
        return self.folder.name

    @property
    def revision(self) -> None:
        """Folders have no revisions."""
        return None

    @property
    def load_from(self) -> str:
        """What the library loads."""
        return str(self.folder)

    @property
    def fingerprint(self) -> str:
        """Hash of names and contents of the model's files: all but hidden ones, documents and pictures.

        What links lead to and, of an adapter, the model below it are among them.
        """
        return _folder_fingerprint(self.folder)

    @property
    def plain(self) -> bool:
        """Whether it is a bare transformer, that says nothing about pooling."""
        return not (self.folder / _CONFIG_FILES[0]).is_file()

    @property
    def supposed_plain(self) -> bool:
        """Whether nothing tells if it is; a folder always does."""
        return False

    def file(self, name: str) -> Path:
        """Return the path of one of the model's files, which need not be there."""
        return self.folder / name


@dataclass(frozen=True)
class HubModel:
    """A model on the Hugging Face hub or in the hub's cache on this machine."""

    name: str
    asked_revision: str | None = None
    gguf_file: str | None = None
    """File of the repository with quantized weights, which transformers reads as full ones."""

    @property
    def load_from(self) -> str:
        """What the library loads."""
        return self.name

    @property
    def fingerprint(self) -> str:
        """The commit that the asked revision means now."""
        return self._found[0]

    @property
    def revision(self) -> str:
        """The commit, to be loaded and no other, even if the hub's branch moves on in between."""
        return self._found[0]

    @property
    def plain(self) -> bool:
        """Whether it is a bare transformer, that says nothing about pooling."""
        return self._found[1] != _CONFIG_FILES[0]

    @property
    def supposed_plain(self) -> bool:
        """Whether nothing tells if it is, as the hub cannot be asked and the cache has a part: it is taken for one."""
        return self._found[2]

    def file(self, name: str) -> Path:
        """Return the path of one of the model's files, from the hub or its cache.

        Raises:
            EncoderError: it is in neither.
        """
        from huggingface_hub import hf_hub_download

        cache_folder = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
        try:
            return Path(hf_hub_download(self.name, name, revision=self.revision, cache_dir=cache_folder))
        except Exception as error:
            raise EncoderError(
                f"cannot get '{name}' of the model '{self.name}', which says how it pools: {error}. Check the network, "
                "or set pooling to mean, cls or last"
            ) from error

    @cached_property
    def _found(self) -> tuple[str, str, bool]:
        """The commit, the configuration file it was told from, and whether the cache may lack the one before that.

        Asks the hub, or its cache without a network.
        """
        from huggingface_hub import hf_hub_download, try_to_load_from_cache
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        cache_folder = os.environ.get("SENTENCE_TRANSFORMERS_HOME")  # as the library does
        cause: Exception | None = None
        offline = False
        for file in (*_CONFIG_FILES, *([self.gguf_file] if self.gguf_file else [])):
            try:
                path = hf_hub_download(
                    self.name, file, revision=self.asked_revision, cache_dir=cache_folder, local_files_only=offline
                )
                commit = Path(path).parent.name  # .../snapshots/<commit>/<file>
                known = try_to_load_from_cache(self.name, _CONFIG_FILES[0], cache_dir=cache_folder, revision=commit)
                supposed = offline and known is None  # neither in the cache nor known not to exist
                return commit, file, supposed
            except LocalEntryNotFoundError as error:
                offline, cause = True, error  # no need to wait for the network a second time
            except EntryNotFoundError as error:
                cause = error
            except Exception as error:
                cause = error
                break
        at = f" at revision '{self.asked_revision}'" if self.asked_revision else ""
        raise EncoderError(
            f"cannot find the model '{self.name}'{at} on the Hugging Face hub or in its cache here: {cause}. Check the "
            "name and the network, or give a local folder"
        ) from cause


def tell_if_supposed(source: LocalModel | HubModel) -> None:
    """Warn where a model's vectors are means of its tokens' because nothing says that it was made otherwise."""
    if source.supposed_plain:
        logger.warning(
            "the model '%s' is taken for a bare transformer, whose token vectors are averaged: the hub cannot be "
            "asked, and its cache here does not tell. Run once with a network; or, if it is a model of "
            "sentence-transformers, fetch all of it (hf download %s)",
            *(source.name, source.name),
        )


def gguf_options(source: LocalModel | HubModel) -> dict[str, Any]:
    """Return what ``from_pretrained`` of a model of transformers needs besides its name to read a file of weights.

    Raises:
        MissingExtraError: there is such a file, and the package that reads it is not installed.
    """
    if source.gguf_file is None:
        return {}
    require_package("gguf", "gguf", "encoders")
    import transformers

    options: dict[str, Any] = {"gguf_file": source.gguf_file}
    if hasattr(transformers, "GgufConfig"):  # releases that have it may leave weights packed, in layers of their own
        options["quantization_config"] = transformers.GgufConfig(dequantize=True)
    return options


def load_config(source: LocalModel | HubModel, num_hidden_layers: int | None = None, **options: Any) -> Any:
    """Load the configuration of a model of transformers.

    Args:
        source: the model.
        num_hidden_layers: keep so many of its layers, from the bottom.
        options: further arguments of ``from_pretrained``.

    Raises:
        EncoderError: the model does not have that many layers.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(source.load_from, **options)
    if num_hidden_layers is not None:
        all_layers = int(getattr(config, "num_hidden_layers", 0))
        if isinstance(num_hidden_layers, bool) or num_hidden_layers not in range(1, all_layers + 1):
            raise EncoderError(
                f"num_hidden_layers must be a whole number from 1 to the {all_layers} that {source.name} has, "
                f"not {num_hidden_layers!r}"
            )
        config.num_hidden_layers = num_hidden_layers
    return config


@contextmanager
def quiet_loading(*, reports: bool = False) -> Iterator[None]:
    """Keep transformers from showing progress, and from reporting weights that are left out on purpose.

    Args:
        reports: log what it reports; it would write it to the terminal itself, with colors even in a file.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    if reports:
        logging.disable_default_handler()
        logging.enable_propagation()
    else:
        logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if reports:
            logging.disable_propagation()
            logging.enable_default_handler()
        if bars:
            logging.enable_progress_bar()


def find_model(model: str | Path, revision: str | None = None, gguf_file: str | None = None) -> LocalModel | HubModel:
    """Tell a folder from a hub name.

    Args:
        model: the folder or the name.
        revision: branch, tag or commit on the hub.
        gguf_file: name of a file with quantized weights in it (GGUF, the format of llama.cpp).

    Raises:
        EncoderError: it is neither, or the folder does not contain a model.
    """
    folder, gguf_file = Path(model).expanduser(), None if gguf_file is None else str(gguf_file)
    if folder.is_dir():
        if revision is not None:
            raise EncoderError(f"the model folder {folder} has no revisions: drop revision='{revision}'")
        if gguf_file is not None and not (folder / gguf_file).is_file():
            there = sorted(path.name for path in folder.glob("*.gguf"))
            raise EncoderError(f"the folder {folder}: {unknown_name('gguf_file', gguf_file, there)}")
        if gguf_file is None and not any((folder / file).is_file() for file in _CONFIG_FILES):
            raise EncoderError(
                f"the folder {folder} does not contain a model: modules.json and config.json are missing"
            )
        return LocalModel(folder.resolve(), gguf_file)
    if _HUB_NAME.fullmatch(str(model)):
        return HubModel(str(model), revision, gguf_file)
    raise EncoderError(f"the model '{model}' is neither an existing folder nor a hub name of the form owner/name")


@dataclass(frozen=True)
class SentenceParts:
    """What a model says that its vectors are made of, where it is more than a bare transformer.

    Attributes:
        pooling: ``mean``, ``cls``, ``last`` or another one that sentence-transformers knows; None if it says nothing.
        further: kinds of its modules that are neither transformer, pooling nor a scaling to unit length.
        prompt: what it puts before each text unless it is told otherwise.
    """

    pooling: str | None = None
    further: tuple[str, ...] = ()
    prompt: str = ""


POOLING_FLAGS = {"mean": "mean_tokens", "cls": "cls_token", "last": "lasttoken"}
"""Our name of a pooling -> the one in the flags ``pooling_mode_...`` of sentence-transformers."""
_POOLINGS = {flag: name for name, flag in POOLING_FLAGS.items()}


def sentence_parts(source: LocalModel | HubModel) -> SentenceParts:
    """Return what the files of sentence-transformers beside a transformer say.

    Raises:
        EncoderError: one of them is missing or damaged.
    """
    if source.plain:
        return SentenceParts()
    try:
        modules = [
            (str(module["type"]).rpartition(".")[2], str(module["path"]))
            for module in parse_json(source.file(_CONFIG_FILES[0]).read_text(encoding="utf-8"))
        ]
        pooling = None
        for kind, path in modules:
            if kind == "Pooling":
                pooling = _pooling_of(parse_json(source.file(f"{path}/config.json").read_text(encoding="utf-8")))
        prompt = _default_prompt(source)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise EncoderError(
            f"what sentence-transformers knows of the model '{source.name}' is damaged: {error!r:.100}. Restore its "
            "files, or set pooling to mean, cls or last"
        ) from error
    further = tuple(kind for kind, _ in modules if kind not in ("Transformer", "Pooling", "Normalize"))
    return SentenceParts(pooling, further, prompt)


def _default_prompt(source: LocalModel | HubModel) -> str:
    """Return the prompt that a model of sentence-transformers uses by itself; empty for none."""
    try:
        settings = parse_json(source.file(_PROMPTS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, EncoderError):  # not every model has it
        return ""
    return str((settings.get("prompts") or {}).get(settings.get("default_prompt_name")) or "")


def _pooling_of(settings: dict[str, Any]) -> str:
    """Return the pooling in either form: flags up to release 5 of sentence-transformers, then one or several names."""
    flags = [
        key.removeprefix("pooling_mode_") for key, value in settings.items() if key[:13] == "pooling_mode_" and value
    ]
    named = settings.get("pooling_mode") or flags or "mean"
    return "+".join(_POOLINGS.get(name, name) for name in ([named] if isinstance(named, str) else named))


def _folder_fingerprint(folder: Path, above: frozenset[Path] = frozenset()) -> str:
    """Return :attr:`LocalModel.fingerprint`.

    Args:
        folder: of the model.
        above: folders of adapters that lead here.
    """
    files: list[tuple[str, int, int]] = []
    visited: set[Path] = set()  # links may lead in a circle
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
        if (real := Path(place).resolve()) in visited:
            folders.clear()
            continue
        visited.add(real)
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            if path.is_file() and path.suffix.lower() not in _NOT_MODEL:
                state = path.stat()
                files.append((path.relative_to(folder).as_posix(), state.st_size, state.st_mtime_ns))
    own = _content_hash(folder, tuple(sorted(files)))
    adapters = sorted(folder / name for name, *_ in files if name.rpartition("/")[2] == _ADAPTER_FILE)
    below = [base for adapter in adapters if (base := _folder_below(adapter)) and base not in {folder, *above}]
    if not below:  # a base on the hub is pinned by the adapter's own file or not at all
        return own
    parts = [own, *(_folder_fingerprint(base, above | {folder}) for base in below)]
    return sha256("\0".join(parts).encode()).hexdigest()


def _folder_below(adapter: Path) -> Path | None:
    """Return the folder of the model that an adapter's configuration names; None if it names none that is there."""
    try:
        base = Path(parse_json(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"])
        return base.resolve() if base.is_dir() else None
    except (OSError, ValueError, LookupError, TypeError):
        return None  # such as of an adapter whose weights were merged since


@cache
def _content_hash(folder: Path, files: tuple[tuple[str, int, int], ...]) -> str:
    """Hash the files; sizes and times are in the key so that a process reads each state of the folder once."""
    total = sha256()
    for name, _, _ in files:
        total.update(f"{name}\0{file_digest(folder / name)}\n".encode())
    return total.hexdigest()
