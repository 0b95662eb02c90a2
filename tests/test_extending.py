"""docs/extending.md: its examples run as they are printed."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xling.convert import write_dataset
from recbole_xling.testing import check_dataset, check_loading, write_small_dataset

_PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


@pytest.fixture(scope="module")
def blocks() -> dict[str, str]:
    """The page's blocks of Python by the file name at the beginning of each, in the order of the page."""
    found = re.findall(
        r'^```python\n("""(\w+\.py): .*?)^```', _PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return {name: block for block, name in found}


@pytest.fixture
def folder(blocks: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: one with the page's files."""
    for name, block in blocks.items():
        (tmp_path / name).write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_another_process(*words: str) -> str:
    """Run Python in the current folder and return the output: what the page registers must not stay in this process."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_block_of_python_names_its_file(blocks: dict[str, str]) -> None:
    assert _PAGE.read_text(encoding="utf-8").count("```python") == len(blocks) == 5


def test_a_model_and_its_test_fit_on_85_lines(blocks: dict[str, str]) -> None:
    assert len((blocks["mean_text.py"] + blocks["test_mean_text.py"]).splitlines()) <= 85


def test_the_model_trains_when_its_file_is_run(folder: Path) -> None:
    texts = write_small_dataset(folder / "datasets", "ml-100k-xling") / "ml-100k-xling.itemtext.jsonl"
    texts.write_text(texts.read_text().replace('"fields": {', '"fields": {"year": "1999", "genres": "Drama", '))
    assert re.search(r"'ndcg@10': 0\.\d*[1-9]", in_another_process("mean_text.py"))


@pytest.mark.slow
def test_the_model_passes_its_own_test(folder: Path) -> None:
    assert "7 passed" in in_another_process("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mean_text.py")


@pytest.mark.slow
def test_a_model_of_users_by_their_ids_passes_its_own_test(folder: Path) -> None:
    assert "6 passed, 1 skipped" in in_another_process("-m", "pytest", "-q", "-p", "no:cacheprovider", "factors.py")


def test_the_encoder_returns_vectors_of_the_printed_shape(
    folder: Path, blocks: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    runpy.run_path("counting.py", run_name="__main__")
    printed = re.search(r"print\(vectors\.shape\)  # (.*)", blocks["counting.py"])
    assert printed and capsys.readouterr().out.strip() == printed[1]


def test_the_converter_writes_a_dataset_that_loads(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "export").mkdir()
    (folder / "export" / "clicks.csv").write_text("user,product,time\nu1,p1,10\nu1,p2,20\nu2,p2,30\n")
    (folder / "export" / "products.csv").write_text("id,language,name,price\np1,de,Kanne,12.5\np2,en,Tea pot,9\n")
    converter = runpy.run_path("my_shop.py", run_name="__main__")["MyShop"]
    assert "2 users, 2 items, 3 interactions" in capsys.readouterr().out
    assert (folder / "datasets" / "my-shop" / "my-shop.item").read_text().splitlines()[1] == "p1\tde\t12.5"
    report = write_dataset(converter(input="export"), "again", "my-shop", show_progress=False)
    check_dataset(report)
    check_loading(report, folder)
