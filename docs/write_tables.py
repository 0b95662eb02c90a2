"""Write the default settings in properties/ and the tables of keys in the documentation from the typed settings.

    python docs/write_tables.py      (or: make tables)

The settings are the fields of OverallConfig and of each model's config class.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from recbole_xling.config import OverallConfig
from recbole_xling.model.baselines import (
    BaselineConfig,
    ContentEASEConfig,
    ContentKNNConfig,
    HistoryEASEConfig,
    HistoryItemKNNConfig,
)
from recbole_xling.model.llmsasrec import LLMSASRecConfig
from recbole_xling.model.xlingcrossencoder import XLingCrossEncoderConfig
from recbole_xling.model.xlingmlp import XLingMLPConfig
from recbole_xling.model.xlingtwotower import XLingTwoTowerConfig
from recbole_xling.trainer.masked_language_model import PretrainingConfig
from recbole_xling.utils.typed_config import TypedConfig

ROOT = Path(__file__).resolve().parents[1]

PROPERTIES: dict[str, tuple[type[TypedConfig], str]] = {
    "overall": (
        OverallConfig,
        "Settings that recbole-xling adds to RecBole's or gives another default: see README.md.",
    ),
    "model/LLMSASRec": (
        LLMSASRecConfig,
        "LLMSASRec: SASRec whose items carry vectors of their text. See docs/models.md.",
    ),
    "model/XLingCrossEncoder": (
        XLingCrossEncoderConfig,
        "XLingCrossEncoder: an encoder that reads history and candidate. See docs/cross-encoder.md.",
    ),
    "model/XLingMLP": (XLingMLPConfig, "XLingMLP: a perceptron over ids, languages, text, columns. See docs/mlp.md."),
    "model/XLingTwoTower": (XLingTwoTowerConfig, "XLingTwoTower: two towers over item text. See docs/two-tower.md."),
    "model/ContentEASE": (ContentEASEConfig, "ContentEASE: EASE of texts and interactions. See docs/models.md."),
    "model/ContentKNN": (ContentKNNConfig, "ContentKNN: neighbors by frozen text vectors. See docs/models.md."),
    "model/HistoryEASE": (HistoryEASEConfig, "HistoryEASE: EASE on the history of the row. See docs/models.md."),
    "model/HistoryItemKNN": (HistoryItemKNNConfig, "HistoryItemKNN: ItemKNN on the row's history. See docs/models.md."),
    "model/LanguagePop": (BaselineConfig, "LanguagePop: popularity among readers of a language. See docs/models.md."),
}
TABLES: dict[str, dict[str, type[TypedConfig]]] = {
    "README.md": {"": OverallConfig, "LLMSASRec: ": LLMSASRecConfig},
    "docs/cross-encoder.md": {"": XLingCrossEncoderConfig},
    "docs/mlp.md": {"": XLingMLPConfig},
    "docs/two-tower.md": {"": XLingTwoTowerConfig},
    "docs/strategies/continued-pretraining.md": {"": PretrainingConfig},
}  # page -> how its headings begin, and the settings below them
BEGIN, END = "<!-- keys: written by make tables -->\n", "<!-- end of keys -->\n"


def sections(settings: type[TypedConfig]) -> Iterator[tuple[str, dict[str, FieldInfo]]]:
    """Yield headings and fields: those of the parts it inherits from, then its own.

    What a model's settings inherit from the shared ones is left out.
    """
    left = dict(settings.model_fields)
    own: list[tuple[str, dict[str, FieldInfo]]] = []
    for part in settings.__mro__:
        fields = {name: left.pop(name) for name in inspect.get_annotations(part) if name in left}
        if fields and (settings is OverallConfig or not issubclass(OverallConfig, part)):
            own.append((part.section, fields))
    yield from [*own[1:], own[0]]


def described(field: FieldInfo) -> tuple[str, str]:
    """Return a field's type in a word, and what it is for, with its choices."""
    several = get_origin(field.annotation) in (Union, UnionType)
    annotation: Any = get_args(field.annotation)[0] if several else field.annotation
    annotation = annotation.__origin__ if get_origin(annotation) is Annotated else annotation
    text = field.description or ""
    if get_origin(annotation) is not Literal:
        return (get_origin(annotation) or annotation).__name__, text
    *choices, last = (f"`{choice}`" for choice in get_args(annotation))
    return "str", f"{text.removesuffix('.')}: {', '.join(choices)} or {last}." if choices else f"{text} Only {last}."


def as_yaml(value: Any) -> str:
    """Return a default on one line, as RecBole writes it."""
    if value is None or isinstance(value, bool | int | float):
        return "~" if value is None else repr(value)
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")


def properties(settings: type[TypedConfig], title: str) -> str:
    """Return the text of a file of default settings."""
    lines = [f"# {title}", f'# Written by "make tables" from {settings.__module__}.{settings.__name__}.']
    for heading, fields in sections(settings):
        lines += ["", f"# ---- {heading}"]
        for name, field in fields.items():
            setting, comment = (
                f"{name}: {as_yaml(field.default)}",
                "# ({}) {}".format(*described(field)).replace("`", ""),
            )
            line = f"{setting:<35} {comment}"
            lines += [line] if len(line) <= 120 else [comment, setting]
    return "\n".join(lines) + "\n"


def table(settings: dict[str, type[TypedConfig]]) -> str:
    """Return the table of keys of a page."""
    lines = ["| key | default | meaning |", "|---|---|---|"]
    for title, part in settings.items():
        for heading, fields in sections(part):
            lines.append(f"| **{title}{heading}** | | |")
            for name, field in fields.items():
                default = "none" if field.default is None else f"`{as_yaml(field.default)}`"
                first, _, rest = described(field)[1].removesuffix(".").partition(" ")
                first = first.lower() if first.istitle() else first  # but not "RecBole's"
                lines.append(f"| `{name}` | {default} | {first} {rest} |")
    return "\n".join(lines) + "\n"


def contents() -> dict[Path, str]:
    """Return each file's path and what must be in it."""
    files = {ROOT / "properties" / f"{name}.yaml": properties(*what) for name, what in PROPERTIES.items()}
    for page, settings in TABLES.items():
        before, rest = (ROOT / page).read_text(encoding="utf-8").split(BEGIN)
        files[ROOT / page] = before + BEGIN + table(settings) + END + rest.split(END)[1]
    return files


if __name__ == "__main__":
    for path, content in contents().items():
        path.write_text(content, encoding="utf-8")
