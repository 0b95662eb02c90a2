"""The model card of an export: a README with the metadata that Hugging Face reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from recbole_xling.errors import shown
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.quick_start.build import Run

_ENCODER = """
`encoder/` is the text encoder, with the learned map or adapters merged: sentence-transformers loads it, and
transformers without the map.
`adapters/`, where there is one, has the adapters alone, in PEFT's format, for `{base}`.
"""
_WITH_OTHER_SETTINGS = """
Those of the run, which this folder serves with other settings: {}.
"""


def card_text(run: Run, result: Mapping[str, Any], manifest: Mapping[str, Any], license_id: str | None) -> str:
    """Return the model card.

    Args:
        run: that is exported.
        result: of its test.
        manifest: what the export holds.
        license_id: as Hugging Face writes it; None if nobody has stated one.
    """
    catalog = run.recommender.catalog
    languages = sorted({str(tag) for of_view in catalog.languages for tag in of_view[1:]} - {UNDETERMINED})
    dataset, model = manifest["dataset"], manifest["model"]
    others = ", ".join(f"{key}: {value}" for key, value in manifest["settings"].items())
    scores = [{"type": name, "value": float(value)} for name, value in result["test"].items()]
    task = {"type": "recommendation", "name": "Recommendation"}
    about = {"task": task, "dataset": {"type": dataset, "name": dataset, "split": "test"}, "metrics": scores}
    facts: dict[str, Any] = {
        "library_name": "recbole-xling",
        "tags": ["recommendation", "cross-lingual", "recbole"],
        "language": sorted({tag.partition("-")[0] for tag in languages}),
        "license": license_id,
        # results are those of the run: of an export that scores otherwise they would be wrong
        "model-index": None if others else [{"name": f"{model} on {dataset}", "results": [about]}],
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

Recommends {manifest["items"]:,} items to readers of several languages. Languages of the items:
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
{run.config["seed"]}.

## Results on the test
{_WITH_OTHER_SETTINGS.format(_plain(others)) if others else ""}
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
