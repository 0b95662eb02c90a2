"""What checkpoints remember of data: files by content, ids as tensors."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from recbole.utils import ModelType

from recbole_xling.data.identity import DataIdentity, changes, fingerprint
from recbole_xling.errors import CheckpointError


def _identity(*tokens, languages=()):
    vocabulary = {"item_id": np.array(["[PAD]", *tokens])}
    sample = (np.array(["u1", "u2"]), np.array(["a", "b"]))
    files = {"inter": {"bytes": 1, "lines": 1, "sha256": "0"}}
    counts = np.arange(len(tokens) + 1)
    return DataIdentity(files, vocabulary, {}, tuple(languages), sample, "item_id", counts)


@pytest.mark.parametrize(
    "tokens", [["a", "b"], ["ключ", "日本", "🙂", "e\u0301"], ["x" * 300, "", "y"], ["\ud800"], []]
)
def test_ids_come_back_as_they_were(tmp_path, tokens):
    torch.save(_identity(*tokens, languages=["de"]).state(), tmp_path / "state.pt")
    back = DataIdentity.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert back.vocabulary["item_id"].tolist() == ["[PAD]", *tokens]
    assert [part.tolist() for part in back.sample] == [["u1", "u2"], ["a", "b"]]
    assert back.languages == ("de",)
    assert back.counts_of([*reversed(tokens), "unknown"]).tolist() == [*range(len(tokens), 0, -1), 0]


def test_a_million_ids_take_a_byte_per_letter_and_one_each():
    packed = _identity(*map(str, range(10_000, 20_000))).state()["vocabulary"]["item_id"]
    assert sum(tensor.nbytes for tensor in packed.values()) == 10_000 * 6 + 6


def _encoded_by(**changed):
    encoder = {"model": "e5", "fingerprint": "12", "dtype": "float32", "prompt": None, **changed}
    return SimpleNamespace(catalog=SimpleNamespace(encoded_by=encoder))


def test_an_encoder_is_the_same_under_another_name_and_on_another_device(tmp_path, caplog):
    torch.save(replace(_identity("a"), encoder=_encoded_by().catalog.encoded_by).state(), tmp_path / "state.pt")
    known = DataIdentity.from_state(torch.load(tmp_path / "state.pt", weights_only=True))
    known.check_encoder(_encoded_by(model="moved", prompt="query: "))
    known.check_encoder(SimpleNamespace(catalog=None))
    _identity("a").check_encoder(_encoded_by())
    assert not caplog.records
    known.check_encoder(_encoded_by(dtype="bfloat16"))
    assert "bfloat16" in caplog.text
    with pytest.raises(CheckpointError, match=r"'fingerprint': '12', 'model': 'e5'.*'13'"):
        known.check_encoder(_encoded_by(model="moved", fingerprint="13"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state["vocabulary"]["item_id"]["lengths"].add_(1),
        lambda state: state["vocabulary"]["item_id"].pop("text"),
        lambda state: state["vocabulary"]["item_id"]["text"].fill_(255),
        lambda state: state.update(sample=3),
        lambda state: state.update(item_counts=torch.ones(2, dtype=torch.int32)),
        lambda state: state.update(item_counts=-torch.ones(3, dtype=torch.int32)),
        lambda state: state.update(item_counts=[0, 1, 2]),
        lambda state: state.update(item_field="user_id"),
        lambda state: state.update(encoder="usem3"),
        lambda state: state.update(vocabulary=[1, 2]),
        lambda state: state.pop("files"),
        lambda state: state.update(files={"inter": {"bytes": 1, "lines": b"x", "sha256": "0"}}),
        lambda state: state.update(files={"inter": {"bytes": float("inf"), "lines": 1, "sha256": "0"}}),
    ],
)
def test_damaged_ids_are_an_error(damage):
    state = _identity("a", "b").state()
    damage(state)
    with pytest.raises(CheckpointError, match="damaged"):
        DataIdentity.from_state(state)


def test_the_fingerprint_names_files_by_what_they_are_and_follows_their_content(small_dataset, build_small):
    folder = small_dataset()
    config = build_small().config
    before = fingerprint(config)
    assert set(before) == {"inter", "item", "itemtext.jsonl"}
    content = (folder / "small.item").read_bytes()
    assert (before["item"]["bytes"], before["item"]["lines"]) == (len(content), 31)
    (folder / "small.item").write_bytes(content.replace(b"i1\ten", b"i1\tfr"))
    (folder / "small.user").write_text("user_id:token\nu1\n")
    (folder / "small.itemtext.jsonl").unlink()
    text = "; ".join(changes(before, fingerprint(config)))
    size = f"31 lines, {len(content)} bytes"
    for part in (
        f".item (other content in {size})",
        ".user (nothing before, 2 lines, 17 bytes now)",
        "s before, nothing now)",
    ):
        assert part in text
    assert ".inter" not in text


def test_other_files_of_a_run_are_in_the_fingerprint(small_dataset, settings):
    folder = small_dataset()
    for name in ("small.train.inter", "small.test.inter", "small.kg", "small.link", "small.extra"):
        (folder / name).write_text("x\n")
    (folder.parent / "parallel.tsv").write_text("en\tde\n")
    config = {
        "data_path": str(folder),
        "dataset": "small",
        "MODEL_TYPE": ModelType.KNOWLEDGE,
        "benchmark_filename": ["train", "test"],
        "additional_feat_suffix": ["extra"],
        "alignment_file": str(folder.parent / "parallel.tsv"),
    }
    names = {"train.inter", "test.inter", "item", "itemtext.jsonl", "extra", "alignment_file"}
    assert set(fingerprint(config)) == names | {"kg", "link"}
    assert set(fingerprint({**config, "MODEL_TYPE": ModelType.GENERAL})) == names
