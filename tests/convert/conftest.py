"""The module ``made`` for the tests of this folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_spec = importlib.util.spec_from_file_location("made", Path(__file__).parent / "made.py")
assert _spec is not None and _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
sys.modules["made"] = _module
_spec.loader.exec_module(_module)
