"""What numpy, scipy and setuptools have removed is back for RecBole and for nobody else."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from recbole_xling.compat import libraries


def test_numpy_names_are_back():
    assert (np.float_, np.complex_, np.unicode_, np.bool8) == (np.float64, np.complex128, np.str_, np.bool_)


def test_numpy_1_and_existing_names_are_left_alone():
    old = SimpleNamespace(__version__="1.26.4", float64=float)
    libraries.restore_numpy_aliases(old)
    assert not hasattr(old, "float_")
    new = SimpleNamespace(__version__="2.4.0", float64=float, complex128=1, str_=2, bool_=3, float_="kept")
    libraries.restore_numpy_aliases(new)
    assert (new.float_, new.complex_, new.bool8) == ("kept", 1, 3)


def test_dok_update_sets_entries():
    matrix = scipy.sparse.dok_matrix((3, 4), dtype=np.float32)
    matrix._update({(np.int32(0), np.int32(3)): 1, (2, 1): 5})
    matrix._update({})
    assert matrix.toarray().tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 5, 0, 0]]
    assert (matrix > 0).sum(axis=1).ravel().tolist() == [[1, 0, 1]]


@pytest.mark.parametrize("key", [(3, 0), (0, 4), (-1, 0), (0.5, 1), (0, 1, 2)])
def test_dok_update_refuses_positions_outside_and_changes_nothing(key):
    matrix = scipy.sparse.dok_matrix((3, 4), dtype=np.float32)
    with pytest.raises(IndexError, match="row, column"):
        libraries._dok_update(matrix, {(0, 0): 1, key: 1} if len(key) == 2 else {key: 1})
    assert matrix.nnz == 0


@pytest.mark.parametrize("before", [False, True])
def test_importing_recboles_models_leaves_anomaly_detection_alone(before):
    code = f"""
import recbole_xling, torch
torch.autograd.set_detect_anomaly({before})
import recbole.model.sequential_recommender.sine
print(torch.is_anomaly_enabled())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(before)


def test_pkg_resources_stand_in_answers_ray_only(monkeypatch):
    finder = libraries._PkgResourcesForRay()
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    assert finder.find_spec("pkg_resources", None) is None
    monkeypatch.setitem(sys.modules, "ray", ModuleType("ray"))
    assert finder.find_spec("pkg_resources", None).loader is finder
    assert finder.find_spec("anything.else", None) is None


def test_pkg_resources_stand_in_offers_what_ray_reads():
    stand_in = ModuleType("pkg_resources")
    libraries._PkgResourcesForRay().exec_module(stand_in)
    assert stand_in.get_distribution("numpy").version == np.__version__
    stand_in.fixup_namespace_packages("somewhere")  # pytest calls it whenever it changes sys.path
    assert stand_in.packaging.version.parse("2.10") > stand_in.packaging.version.parse("2.9")
    with pytest.raises(AttributeError, match="setuptools<81"):
        _ = stand_in.resource_filename
