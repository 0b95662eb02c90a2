"""``recbole-xling demo``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_xling.errors import ConfigError
from recbole_xling.utils.launched import is_launched

DESCRIPTION = (
    "Train and test LLMSASRec on the bundled dataset, which is built first where it is missing; further --key=value "
    "are settings as those of run."
)
MODEL = "LLMSASRec"
DATASET = "ml-100k-xling"
READERS = "ml-100k-readers"

CONVERT = {
    DATASET: ["ml-100k"],
    READERS: ["ml-100k", "--name", READERS, "--reader-language", "en=.5,ja=.5"],
}
"""Words after ``recbole-xling convert`` that write a bundled dataset."""

# At the content, and without what all texts of a language have in common: docs/strategies/start-at-content.md
_CONTENT = {"text_projection_init": "whitened", "text_centering": True, "epochs": 40}
_ARMS: dict[str, dict[str, Any]] = {
    "popularity": {"model": "LanguagePop", "allow_unknown_keys": True},
    "EASE (ids alone)": {"model": "HistoryEASE", "allow_unknown_keys": True},
    "texts as readers see them": {"model": MODEL, **_CONTENT, "train_text_view": "own"},
    "texts in all languages": {"model": MODEL, **_CONTENT, "train_text_view": "random"},
}
_BAR = 28


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--languages``; all others are settings."""
    explanation = (
        "instead: half of the users read English and are trained on, the others read Japanese; train on texts as these "
        "readers see them, then on texts in all languages, and draw what each language gets"
    )
    parser.add_argument("--languages", action="store_true", help=explanation)


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Run the demonstration.

    Raises:
        XlingError: settings cannot be used, or a file cannot be written.
    """
    from recbole_xling.cli.main import call

    if not options.languages:
        return call("run", [f"--model={MODEL}", f"--dataset={DATASET}", *settings])
    return _languages(settings)


def write_bundled(dataset: str) -> None:
    """Write a bundled dataset into ``datasets/`` unless it is there.

    Raises:
        XlingError: it cannot be written.
    """
    from recbole_xling.cli.main import call, tell

    if not (Path("datasets") / dataset / f"{dataset}.inter").is_file():
        if is_launched():
            words = " ".join(CONVERT[dataset])
            raise ConfigError(f"several processes cannot write one dataset: first run 'recbole-xling convert {words}'")
        tell(call("convert", CONVERT[dataset]))


def _languages(settings: Sequence[str]) -> str:
    """Train with texts in one language and in all, and return what readers of each language get, as a picture."""
    from recbole_xling.cli.main import call, tell
    from recbole_xling.quick_start.train import run

    write_bundled(READERS)
    found: dict[str, dict[str, Any]] = {}
    for name, own in _ARMS.items():
        tell(f"\n{name}")
        own = dict(own)
        found[name] = run(own.pop("model"), READERS, config_dict=own, arguments=settings)
    report = call("report", [found[name]["run_dir"] for name in list(_ARMS)[2:]])
    return f"\n{_picture(found)}\n\n{report}"


def _picture(found: dict[str, dict[str, Any]]) -> str:
    """Return bars of a metric by the reader's language, one line per run."""
    first = next(iter(found.values()))
    metric = "ndcg@10" if "ndcg@10" in first["test"] else next(iter(first["test"]))
    languages = {
        name: f"{name.replace('user_language=', 'readers of ')} ({values['transfer']}, {values['n']})"
        for name, values in first["slices"].items()
        if name.startswith("user_language=")
    }
    values = {run_name: [result["slices"][name][metric] for name in languages] for run_name, result in found.items()}
    most = max(max(row) for row in values.values()) or 1.0
    wide = max(map(len, values))
    lines = [" " * wide + "".join(f"  {name:<{_BAR + 7}}" for name in languages.values())]
    for run_name, row in values.items():
        bars = "".join(f"  {'█' * round(_BAR * value / most):<{_BAR}} {value:.4f}" for value in row)
        lines.append(f"{run_name:<{wide}}{bars}")
    return "\n".join([f"{metric} by the reader's language", "", *(line.rstrip() for line in lines)])
