"""What the system refuses ends in one line and exit code 2, and every file stays as it was."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from interrupted import replace_in_os, state

from recbole_xling.cli import main as cli
from recbole_xling.config import XLingConfig
from recbole_xling.errors import ConfigError

_LONG = "x" * 300
_UPPER = f"{sys.executable} -c 'import sys; sys.stdout.write(sys.stdin.read().upper())' {{source}}"


@pytest.fixture
def typed(small_dataset, settings, tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Run a command that must fail, beside the small dataset; returns its error line."""
    small_dataset()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "settings.yaml").write_text(json.dumps(settings))
    (tmp_path / "file").write_text("mine")
    (tmp_path / "clicks.csv").write_text("u,i\n" + "".join(f"u{n % 3},i{n % 5}\n" for n in range(30)))
    (tmp_path / "shop.csv").write_text("id,name\n" + "".join(f"i{n},Titel {n}\n" for n in range(5)))

    def run(words: list[str]) -> str:
        before = state(tmp_path)
        assert cli.main(words) == 2
        assert state(tmp_path) == before
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("recbole-xling:")]
        return line

    return run


def convert(output: str = "data", name: str = "small") -> list[str]:
    words = "convert table --input clicks.csv --user u --item i --in-order --items shop.csv --item-id id".split()
    return [*words, "--text", "title=name", "--output", output, "--name", name]


def translate(cache: str = "translations", data: str = "data") -> list[str]:
    words = ["translate", "small", "--to", "es", "--system", "command", "--data_path", data, "--cache_dir", cache]
    return [*words, "--option", f"command={_UPPER}"]


def card(output: str = "data/small") -> list[str]:
    return ["card", "small", "--config_files", "settings.yaml", "--output", output]


def encode(cache: str = "cache") -> list[str]:
    return ["encode", "-d", "small", "--config_files", "settings.yaml", f"--embedding_cache_dir={cache}"]


_IN_THE_WAY = {
    "convert": convert(output="file"),
    "translate, data": translate(data="file"),
    "translate, cache": translate(cache="file"),
    "card": card(output="file"),
    "encode": encode(cache="file/cache"),
}


@pytest.mark.parametrize("words", _IN_THE_WAY.values(), ids=_IN_THE_WAY.keys())
def test_a_file_in_the_place_of_a_folder(typed, words) -> None:
    assert re.search(r"\bfile\b", typed(words))


_LONG_NAMES = {
    "convert": convert(name=_LONG),
    "convert, its longest file": convert(name=_LONG[:250]),
    "translate": translate(data=_LONG),
    "card": card(output=_LONG),
    "encode": encode(cache=_LONG),
}


@pytest.mark.parametrize("words", _LONG_NAMES.values(), ids=_LONG_NAMES.keys())
def test_a_name_that_is_too_long(typed, words) -> None:
    assert "File name too long" in typed(words)


@pytest.mark.parametrize("words", [convert(), card()], ids=["convert", "card"])
@pytest.mark.parametrize("operation", ["fsync", "mkdir", "replace"])
def test_a_full_disk(typed, monkeypatch, full_disk, operation, words) -> None:
    replace_in_os(monkeypatch, operation, full_disk)
    line = typed(words)
    assert "No space left on device: 'data" in line and "free space" in line


def test_a_full_disk_while_a_dataset_is_translated(typed, monkeypatch, full_disk, capsys) -> None:
    before = state(Path("data"))
    monkeypatch.setattr("recbole_xling.translate.dataset._append", full_disk)
    assert cli.main(translate()) == 2
    assert "No space left on device: 'data/small'" in capsys.readouterr().err
    assert state(Path("data")) == before


def test_a_full_disk_at_the_end_of_a_run_leaves_the_model_and_no_half_table(typed, monkeypatch, capsys) -> None:
    def full(table: pl.DataFrame, file: Path) -> None:  # as polars tells it
        Path(file).write_bytes(b"half")
        raise pl.exceptions.ComputeError("No space left on device (os error 28)")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    words = ["run", "--model=LLMSASRec", "--dataset=small", "--config_files=settings.yaml", "--epochs=1"]
    assert cli.main(words) == 2
    assert "No space left on device" in capsys.readouterr().err
    (folder,) = [path.parent for path in Path().rglob("model.pt")]
    assert not list(folder.glob("*.parquet"))
    assert not (folder / "result.json").exists()


def test_processes_are_no_setting_of_a_run() -> None:
    with pytest.raises(ConfigError, match="nproc is no setting of a run"):
        XLingConfig("BPR", "small", config_dict={"nproc": 2})


def test_memory_that_is_used_up(typed, monkeypatch) -> None:
    monkeypatch.setattr("recbole_xling.cli.card.run", lambda *_: (_ for _ in ()).throw(MemoryError))
    assert "memory is used up" in typed(card())


@pytest.mark.parametrize("key", ["nproc", "world_size", "port"])
def test_processes_are_named_on_the_command_line_alone(typed, key) -> None:
    Path("more.yaml").write_text(f"{key}: 2\n")
    words = ["run", "--model=LLMSASRec", "--dataset=small", "--config_files=settings.yaml more.yaml"]
    assert f"give --{key}=" in typed(words)
