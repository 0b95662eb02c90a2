"""recbole-xling: cross-lingual recommendation for RecBole.

After ``import recbole_xling``, RecBole 1.2.1 runs on current libraries and knows the models of this package by name.
The import itself loads neither torch nor RecBole: the public names below are loaded when they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from recbole_xling import compat, registry
from recbole_xling.registry import register_model
from recbole_xling.utils.lazy import lazy_names

if TYPE_CHECKING:
    from recbole_xling.config import XLingConfig
    from recbole_xling.quick_start.align import align
    from recbole_xling.quick_start.build import load_run
    from recbole_xling.quick_start.compare import compare
    from recbole_xling.quick_start.evaluate import evaluate_run
    from recbole_xling.quick_start.fuse import fuse
    from recbole_xling.quick_start.probe import probe
    from recbole_xling.quick_start.train import run

compat.apply()
registry.install()

__all__ = ["XLingConfig", "align", "compare", "evaluate_run", "fuse", "load_run", "probe", "register_model", "run"]
__version__ = "0.1.0"

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "XLingConfig": "recbole_xling.config",
        "align": "recbole_xling.quick_start.align",
        "compare": "recbole_xling.quick_start.compare",
        "evaluate_run": "recbole_xling.quick_start.evaluate",
        "fuse": "recbole_xling.quick_start.fuse",
        "load_run": "recbole_xling.quick_start.build",
        "probe": "recbole_xling.quick_start.probe",
        "run": "recbole_xling.quick_start.train",
    },
)
