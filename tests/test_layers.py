"""Imports between the package's folders point downwards, as docs/architecture.md says."""

from __future__ import annotations

import ast
from pathlib import Path

import recbole_xling

_PACKAGE = Path(recbole_xling.__file__).parent
_LAYERS = (
    ("errors",),
    ("utils",),
    ("compat", "encode", "language", "pages"),
    ("text",),
    ("convert", "data", "serve", "translate"),
    ("config", "evaluator"),
    ("model",),
    ("card", "report", "trainer"),
    ("registry",),
    ("quick_start",),
    ("cli", "testing"),
)
_LEVEL = {room: level for level, rooms in enumerate(_LAYERS) for room in rooms}


def imported_rooms(file: Path) -> set[str]:
    """Return the folders and files of the package that a module imports when it is imported itself."""
    rooms = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("recbole_xling"):
            package = node.module == "recbole_xling"
            rooms |= {alias.name for alias in node.names} if package else {node.module.split(".")[1]}
    return rooms


def test_no_folder_imports_from_one_above_it():
    upward = []
    for file in sorted(_PACKAGE.rglob("*.py")):
        room = file.relative_to(_PACKAGE).parts[0].removesuffix(".py")
        if not room.startswith("__"):
            found = imported_rooms(file) - {room}
            upward += [
                f"{file.relative_to(_PACKAGE)} imports {other}" for other in found if _LEVEL[other] >= _LEVEL[room]
            ]
    assert upward == []


def test_converters_import_neither_torch_nor_recbole():
    for file in sorted((_PACKAGE / "convert").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        names = {
            name.split(".")[0]
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert not names & {"torch", "recbole", "transformers"}, file
