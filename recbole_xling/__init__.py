"""recbole-xling: cross-lingual recommendation for RecBole.

After ``import recbole_xling``, RecBole 1.2.1 runs on current libraries and knows the models of this package by name.
"""

from recbole_xling import compat

compat.apply()

from recbole_xling.config import XLingConfig  # noqa: E402
from recbole_xling.quick_start.build import load_run  # noqa: E402
from recbole_xling.quick_start.evaluate import evaluate_run  # noqa: E402
from recbole_xling.quick_start.train import run  # noqa: E402
from recbole_xling.registry import install, register_model  # noqa: E402

install()

__all__ = ["XLingConfig", "evaluate_run", "load_run", "register_model", "run"]
__version__ = "0.1.0"
