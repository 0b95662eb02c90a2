"""Whoever is killed while it replaces files of a dataset: the next command finds them all old or all new."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from interrupted import State, restore, state, states_before_each_change, visible
from made import frame, text, write

from recbole_xling.card import build_card, write_card
from recbole_xling.convert.base import Item
from recbole_xling.data.catalog import dataset_catalog
from recbole_xling.errors import DataError, XlingError
from recbole_xling.quick_start.build import find_dataset
from recbole_xling.text.store import ItemTextStore
from recbole_xling.translate import translate_dataset
from recbole_xling.utils import staging
from recbole_xling.utils.staging import reading, settle, staged


class Upper:
    """Translates into capitals."""

    name = "upper"
    identity = {"backend": "upper"}

    def check_pairs(self, pairs):
        pass

    def translate(self, texts, source, target):
        return [title.upper() for title in texts]


def convert_old(root: Path) -> None:
    items = [Item(item, "en") for item in "abc"]
    clicks = [frame(*((f"u{n % 2}", "abc"[n % 3], 1.0, float(n)) for n in range(9)))]
    write(root, items=items, texts=[text(item, "en", f"old {item}") for item in "abc"], interactions=clicks)


def convert_new(root: Path) -> None:
    items = [Item(item, "de") for item in "wxyz"]
    clicks = [frame(*((f"u{n % 3}", "wxyz"[n % 4], 1.0, float(n)) for n in range(12)), ("u9", "gone", 1.0, 1.0))]
    texts = [text(item, "de", f"neu {item}") for item in "wxyz"]
    write(root, users=[], items=items, texts=texts, interactions=clicks)


def convert_in_vain(root: Path) -> None:
    with pytest.raises(DataError, match="no items"):
        write(root, items=[])


def translate(root: Path) -> None:
    translate_dataset(root / "d", "d", Upper(), ["fr"], cache_dir=root / "cache", show_progress=False)


def card(root: Path) -> None:
    write_card(build_card(root / "d", "d"), root / "d")


def read(root: Path) -> None:
    settle(root / "d")


def fresh(root: Path) -> Path:
    """Return the folder that datasets are written to, empty."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    return root


def states(root: Path, writer: Callable[[Path], None], first: State | None) -> list[State]:
    restore(fresh(root) / "d", first or {})
    if first is None:
        (root / "d").rmdir()
    return states_before_each_change(root / "d", lambda: writer(root))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> State:
    root = tmp_path_factory.mktemp("old")
    convert_old(root)
    return state(root / "d")


def after(root: Path, found: State, follower: Callable[[Path], None]) -> State:
    """Return the visible files after the next command in a folder that a killed one left."""
    restore(fresh(root) / "d", found)
    follower(root)
    left = state(root / "d")
    assert not any(name.startswith(".xling") for name in left) or follower is read
    return visible(left)


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
@pytest.mark.parametrize("writer", [convert_new, translate, card])
def test_a_killed_writer_leaves_the_old_files_or_the_new_ones(
    tmp_path, monkeypatch, full_disk, old, writer, links
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", full_disk)
    found = states(tmp_path / "out", writer, old)
    new = visible(found[-1])
    sides = []
    for killed in found:
        left = after(tmp_path / "out", killed, read)
        assert left in (old, new)
        assert after(tmp_path / "out", killed, convert_in_vain) == left
        sides.append(left == new)
    assert sides == sorted(sides) and len(set(sides)) == 2  # up to some change the old ones, then the new ones


def test_a_killed_first_conversion_leaves_no_dataset_or_a_whole_one(tmp_path) -> None:
    found = states(tmp_path / "out", convert_new, None)
    left = [after(tmp_path / "out", killed, read) for killed in found]
    assert all(files in ({}, visible(found[-1])) for files in left) and {} in left


@pytest.mark.parametrize("follower", [convert_old, translate, card])
@pytest.mark.parametrize("writer", [convert_new, translate, card])
def test_after_a_killed_writer_every_command_ends_well(tmp_path, old, writer, follower) -> None:
    found = states(tmp_path / "out", writer, old)
    expected = [after(tmp_path / "out", side, follower) for side in (old, visible(found[-1]))]
    during = [killed for killed in found if ".xling.staging/replacing.json" in killed]
    assert len(during) > 1
    for killed in during:
        assert after(tmp_path / "out", killed, follower) in expected


def test_readers_never_meet_a_mixture(tmp_path, old, settings, monkeypatch) -> None:
    from recbole_xling.config import XLingConfig
    from recbole_xling.data.dataset import XLingDataset

    found = states(tmp_path / "out", convert_new, old)
    sizes = set()
    for killed in found:
        if ".xling.staging/replacing.json" in killed:
            for first in (XLingDataset, dataset_catalog, find_dataset):
                restore(fresh(tmp_path / "out") / "d", killed)
                config = XLingConfig("LLMSASRec", "d", config_dict={**settings, "data_path": str(tmp_path / "out")})
                first(config)
                dataset, store = XLingDataset(config), ItemTextStore.load(tmp_path / "out" / "d" / "d.itemtext.jsonl")
                sizes.add((dataset.inter_num, dataset.item_num - 1, len(store)))
    assert sizes == {(9, 3, 3)}


# ---- what older releases left ----------------------------------------------------------------------------------


def left_by_older_release(folder: Path, label: str, old: State, new: State, moved: int) -> None:
    """Make what an older release left that was killed after some moves."""
    path = folder / f".{label}.staging"
    restore(folder, old)
    (path / "old").mkdir(parents=True)
    (path / "new").mkdir()
    if label == "d" and len(new) > 1:
        (path / "records").mkdir()
    names = [name for name in (*old, *new) if name in new or (label == "d" and name.startswith("d."))]
    (path / "replacing").write_text("\n".join(name for name in dict.fromkeys(names) if name in old))
    for name in old:
        if name in names:
            os.link(folder / name, path / "old" / name)
    for number, (name, content) in enumerate(new.items()):
        (path / "new" / name).write_bytes(content or b"")
        if number < moved:
            os.replace(path / "new" / name, folder / name)


@pytest.mark.parametrize("follower", [read, convert_in_vain])
@pytest.mark.parametrize("moved", range(4))
def test_what_an_older_release_left_is_undone(tmp_path, old, follower, moved) -> None:
    root, mine = tmp_path / "out", old | {"notes.txt": b"mine", "d.extra": b"mine"}
    new = dict.fromkeys(("d.itemtext.jsonl", "d.imp", "d.inter"), b"new")
    left_by_older_release(fresh(root) / "d", "d", mine, new, moved)
    follower(root)
    assert state(root / "d") == mine
    one = {"d.itemtext.jsonl": b"new"}
    shutil.rmtree(root / "d")
    left_by_older_release(root / "d", "d", {"d.itemtext.jsonl": b"old", "d.inter": b"old"}, one, moved)
    follower(root)
    assert state(root / "d") == {"d.itemtext.jsonl": b"old", "d.inter": b"old"}
    shutil.rmtree(root / "d")
    card_files = {"card.html": b"new", "card.json": b"new"}
    left_by_older_release(root / "d", "card", {"card.json": b"old", "d.inter": b"old"}, card_files, moved)
    follower(root)
    assert state(root / "d") == {"card.json": b"old", "d.inter": b"old"}


# ---- other processes and folders that cannot be written ---------------------------------------------------------


def interrupted(folder: Path) -> State:
    """Make a folder of two old files, one of which is replaced already; return the old ones."""
    folder.mkdir()
    for name in ("d.inter", "d.item"):
        (folder / name).write_text("old")
    before = state(folder)

    def commit() -> None:
        with staged(folder, ["d.inter", "d.item"]) as new:
            for name in ("d.inter", "d.item"):
                (new.new / name).write_text("new")
            new.commit()

    half = next(found for found in states_before_each_change(folder, commit) if _is_mixed(found))
    shutil.rmtree(folder)
    restore(folder, half)
    return before


def _is_mixed(found: State) -> bool:
    return len(set(visible(found).values())) == 2


def test_a_reader_waits_for_a_writer_that_moves_its_files(tmp_path, monkeypatch) -> None:
    pytest.importorskip("fcntl")
    interrupted(tmp_path / "d")
    monkeypatch.setattr(staging, "_PATIENCE", 0.1)
    mixed = visible(state(tmp_path / "d"))
    with staging._locked(tmp_path / "d"), pytest.raises(DataError, match="another process is writing to"):
        settle(tmp_path / "d")
    assert visible(state(tmp_path / "d")) == mixed


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs permissions")
def test_a_reader_who_may_not_write_says_what_to_do(tmp_path, monkeypatch) -> None:
    before = interrupted(tmp_path / "d")
    replace = os.replace

    def refuse(source, target) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DataError, match=r"was interrupted.*Permission denied.*run any command"):
        settle(tmp_path / "d")
    monkeypatch.setattr(os, "replace", replace)
    settle(tmp_path / "d")
    assert state(tmp_path / "d") == before


def test_a_reader_without_locks_leaves_another_process_alone(tmp_path, monkeypatch) -> None:
    before = interrupted(tmp_path / "d")
    monkeypatch.setattr("recbole_xling.utils.files.fcntl", None)
    with pytest.raises(DataError, match=r"was interrupted.*run that command again"):
        settle(tmp_path / "d")
    with staged(tmp_path / "d", ["d.inter"]):
        assert visible(state(tmp_path / "d")) == before


def test_a_dataset_that_changes_while_it_is_read_is_noticed(tmp_path) -> None:
    convert_old(tmp_path)
    with pytest.raises(DataError, match="has changed the dataset"), reading(tmp_path / "d", "d"):
        convert_new(tmp_path)
    with reading(tmp_path / "d", "d"):
        (tmp_path / "d" / "card.json").write_text("{}")


def test_folders_that_were_made_for_nothing_are_gone(tmp_path) -> None:
    with pytest.raises(XlingError), staged(tmp_path / "a" / "b", []):
        raise XlingError("stop")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError), staged(tmp_path / "file" / "b", []):
        pass
    assert json.dumps([path.name for path in tmp_path.iterdir()]) == '["file"]'
