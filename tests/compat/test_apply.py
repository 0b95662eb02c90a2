"""The shims are installed once, whenever RecBole is imported, and import nothing themselves."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

from recbole_xling import compat


def test_apply_twice_changes_nothing():
    finders, save = list(sys.meta_path), importlib.import_module("recbole.trainer.trainer").torch.save
    compat.apply()
    assert sys.meta_path == finders
    assert importlib.import_module("recbole.trainer.trainer").torch.save is save


def test_import_leaves_ray_alone_and_mends_a_recbole_imported_before(tmp_path):
    code = (
        "import sys, recbole.trainer, recbole_xling; assert 'ray' not in sys.modules;"
        "print(recbole.trainer.trainer.torch.save.__module__)"
    )
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.stdout.strip() == "recbole_xling.compat.checkpoint", done.stderr
