"""The model card of an export: a README with the metadata that Hugging Face reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from recbole_xling.data.identity import changes
from recbole_xling.errors import shown
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.quick_start.build import Run
from recbole_xling.quick_start.compare import leaves_out_history, mode_of

_ENCODER = """
`encoder/` is the text encoder, with the learned map or adapters merged: sentence-transformers loads it, and
transformers without the map.
`adapters/`, where there is one, has the adapters alone, in PEFT's format, for `{base}`.
"""
_WITH_OTHER_SETTINGS = "Those of the run, which this folder serves with other settings: {}."
_OF_OTHER_FILES = (
    "Those of the run on the files of its training, which have changed since ({}): users, items and histories here are "
    "of now."
)
_SAMPLED = "A test row ranks its items among a few drawn ones (mode `{}`), not among all: such values are far higher."
_KNOWN = "The test ranked what users know already as well, which this folder leaves out by default."


def card_text(
    run: Run,
    settings: Mapping[str, Any],
    result: Mapping[str, Any],
    manifest: Mapping[str, Any],
    license_id: str | None,
) -> str:
    """Return the model card.

    Args:
        run: that is exported.
        settings: with which it was trained and tested.
        result: of its test.
        manifest: what the export holds.
        license_id: as Hugging Face writes it; None if nobody has stated one.
    """
    catalog = run.recommender.catalog
    languages = sorted({str(tag) for of_view in catalog.languages for tag in of_view[1:]} - {UNDETERMINED})
    dataset, model = manifest["dataset"], manifest["model"]
    others = ", ".join(f"{key}: {value}" for key, value in manifest["settings"].items())
    files = result.get("data", {}).get("files")
    changed = changes(files, run.dataset.fingerprint) if files else []
    mode = str(mode_of(settings))
    elsewhere = {
        _WITH_OTHER_SETTINGS.format(_plain(others)): bool(others),
        _OF_OTHER_FILES.format(_plain("; ".join(changed))): bool(changed),
        _SAMPLED.format(_plain(mode)): mode not in ("full", "labeled"),
    }
    ranks_known = mode == "full" and not leaves_out_history(settings)
    told = [text for text, holds in {**elsewhere, _KNOWN: ranks_known}.items() if holds]
    notes = "".join(f"\n{text}\n" for text in told)
    scores = [{"type": name, "value": float(value)} for name, value in result["test"].items()]
    task = {"type": "recommendation", "name": "Recommendation"}
    about = {"task": task, "dataset": {"type": dataset, "name": dataset, "split": "test"}, "metrics": scores}
    facts: dict[str, Any] = {
        "library_name": "recbole-xling",
        "tags": ["recommendation", "cross-lingual", "recbole"],
        "language": sorted({tag.partition("-")[0] for tag in languages}),
        "license": license_id,
        # metadata cannot say that results are of something else than what this folder serves on all items
        "model-index": None if any(elsewhere.values()) else [{"name": f"{model} on {dataset}", "results": [about]}],
    }
    facts = {key: value for key, value in facts.items() if value}
    metrics = "\n".join(f"| {name} | {value:.4f} |" for name, value in result["test"].items())
    index = manifest["index"]
    search = "All items are scored." if index is None else f"An index finds the best items: {_said(index)}."
    stated = license_id or "not stated; whoever publishes this folder has to check the license of the data"
    encoder = _ENCODER.format(base=_plain(str(run.config["encoder"]))) if model == "XLingTwoTower" else ""
    users = (
        "" if manifest["users"] is None else f" `users.jsonl` has the ids and histories of {manifest['users']:,} users."
    )
    return f"""---
{yaml.safe_dump(facts, allow_unicode=True, sort_keys=False)}---

# {model} on {_plain(dataset)}

Recommends {catalog.shown.sum():,} items to readers of several languages. Languages of the items:
{", ".join(languages) or "unknown"}. License: {stated}.

```python
from recbole_xling.serve import load_export

recommender = load_export("this folder")
recommender.recommend_histories([["an item", "another one"]], k=10)
```

{search}{users}
{encoder}
## Data

`{_plain(dataset)}`: {run.size}. Settings that differ between datasets are in the run's `config.yaml`; the seed was
{result.get("seed", settings.get("seed"))}.

## Results on the test
{notes}
| metric | value |
|---|---|
{metrics}
"""


def _said(index: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3f}" if isinstance(value, float) else str(value)
        for name, value in index.items()
        if name != "weights"  # of the index itself
    )


def _plain(text: str) -> str:
    """Return a name without what Markdown or a terminal would act on."""
    return re.sub(r"[`<>|\n\r]", " ", shown(text))
