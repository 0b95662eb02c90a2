from __future__ import annotations

from pathlib import Path

import pytest

from recbole_xling.convert.reading import compressed as files
from recbole_xling.convert.reading.text_table import Layout
from recbole_xling.convert.sources.book_crossing import find_layout
from recbole_xling.errors import DataError


@pytest.mark.parametrize(
    ("data", "layout"),
    [
        (b'"a";"b"\n"1";"x, y, z"\n', Layout(";")),
        (b'a,b\n1,"x; ""y"""\n', Layout(",")),
        (b'"a";"b"\n"1";"the \\"real\\" one"\n', Layout(";", escape="\\")),
        (b'a,b\n1,"the \\"real\\" one"\n', Layout(",", escape="\\")),
        (b'a,b\n1,"the \\""real\\"" one\\"\n"2\\",x\n', Layout(",")),  # backslashes that are text
        ('a,b\n1,"Müll"\n'.encode(), Layout(",")),
        ('a,b\n1,"Müll"\n'.encode("latin-1"), Layout(",", encoding="latin-1")),
        (b"", Layout(",")),
    ],
)
def test_layout(tmp_path: Path, data: bytes, layout: Layout) -> None:
    (tmp_path / "t.csv").write_bytes(data)
    assert find_layout(tmp_path / "t.csv") == layout


def test_damaged_lines_do_not_change_the_encoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK_BYTES", 64)
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n" + "1,Müll\n".encode() * 9 + b"2,M\xfcll\n")
    assert find_layout(path).encoding == "utf-8"
    path.write_bytes(b"a,b\n" + "1,Müll\n".encode() * 8 + b"2,M\xfcll\n")
    assert find_layout(path).encoding == "latin-1"


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        find_layout(tmp_path / "t.csv")
