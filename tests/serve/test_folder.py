"""The manifest of an export: what is not as export wrote it is refused."""

from __future__ import annotations

import json

import pytest

from recbole_xling.errors import CheckpointError
from recbole_xling.serve.folder import FORMAT, MANIFEST_FILE, load_export, manifest_text, read_manifest

MANIFEST = {"format": FORMAT, "model": "LLMSASRec", "index": {"kind": "flat", "recall@10": 0.1 + 0.2}, "files": {}}


def test_a_manifest_says_what_was_written_or_nothing(tmp_path):
    file = tmp_path / MANIFEST_FILE
    file.write_text(manifest_text(MANIFEST), encoding="utf-8")
    assert {**read_manifest(tmp_path), "sha256": None} == {**MANIFEST, "sha256": None}
    file.write_text(manifest_text(MANIFEST).replace("flat", "hnsw"), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"is damaged: .*not what export wrote"):
        read_manifest(tmp_path)
    file.write_text(json.dumps(MANIFEST), encoding="utf-8")  # as earlier releases wrote it
    assert read_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize("content", ["", "[]", "null", "[" * 100_000, '{"format": 1, "files": 3}', '{"format": 1}'])
def test_a_damaged_manifest_is_one_error(tmp_path, content):
    (tmp_path / MANIFEST_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError):
        load_export(tmp_path)
