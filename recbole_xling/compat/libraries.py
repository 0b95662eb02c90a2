"""Names that newer releases of numpy, scipy and setuptools have removed and RecBole 1.2.1 still uses; and KSR."""

from __future__ import annotations

import importlib.abc
import importlib.metadata
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

from recbole_xling.compat.hooks import edit, keep_during_import, when_imported

#: Removed in numpy 2.0; each is an alias of its value here.
NUMPY_ALIASES = {"float_": "float64", "complex_": "complex128", "unicode_": "str_", "bool8": "bool_"}


def install() -> None:
    """Fix numpy and scipy when they are imported, and answer ray's ``import pkg_resources`` if nothing else does."""
    when_imported("numpy", restore_numpy_aliases)
    when_imported("scipy.sparse", restore_dok_update)
    keep_anomaly_mode()
    when_imported("recbole.model.sequential_recommender.ksr", fix_ksr)
    if not any(isinstance(finder, _PkgResourcesForRay) for finder in sys.meta_path):
        sys.meta_path.append(_PkgResourcesForRay())


def restore_numpy_aliases(numpy: ModuleType) -> None:
    """Bring back four aliases that numpy 2.0 removed.

    ``Config.compatibility_settings`` reads ``np.float_``, ``np.complex_`` and ``np.unicode_``
    (recbole/config/configurator.py:630-635, RecBole issue #2034); ``ray.tune`` 2.6.3 reads ``np.bool8``
    (ray/tune/logger/tensorboardx.py:41).
    """
    if int(numpy.__version__.split(".")[0]) < 2:
        return
    for alias, name in NUMPY_ALIASES.items():
        if not hasattr(numpy, alias):
            setattr(numpy, alias, getattr(numpy, name))


def restore_dok_update(sparse: ModuleType) -> None:
    """Bring back ``dok_matrix._update``, which scipy removed when dok_matrix stopped being a dict.

    LightGCN, NGCF, NCL, GCMC, SpectralCF, KGIN and MCCLK fill their adjacency matrix with it
    (recbole/model/general_recommender/lightgcn.py:111).
    """
    if not hasattr(sparse.dok_matrix, "_update"):
        sparse.dok_matrix._update = _dok_update


def keep_anomaly_mode() -> None:
    """Undo that RecBole switches on autograd's anomaly detection for the whole program.

    ``recbole/model/sequential_recommender/sine.py:25`` does so when it is imported, which is whenever any sequential
    model is asked for. Every backward pass then looks for NaN after every operation, which costs up to half its time.
    """

    def read() -> bool:
        import torch

        return torch.is_anomaly_enabled()

    def write(enabled: bool) -> None:
        import torch

        torch.autograd.set_detect_anomaly(enabled)

    keep_during_import("recbole.model.sequential_recommender.sine", read, write)


def fix_ksr(module: ModuleType) -> None:
    """Let KSR multiply its hidden state with the relations' vectors, which RecBole leaves in double precision.

    recbole/model/sequential_recommender/ksr.py:151; torch does not multiply float32 with float64.
    """
    edit(module.KSR.memory_read, {"attrs = self.relation_Matrix": "attrs = self.relation_Matrix.float()"})


def _dok_update(matrix: Any, data: Mapping[tuple[int, int], Any]) -> None:
    """Set many entries of a ``dok_matrix`` at once; unlike scipy's old method it checks the positions first.

    Raises:
        IndexError: a (row, column) pair is outside the matrix, which is not changed then.
    """
    import numpy as np

    if not data:
        return
    positions = np.array(list(data))  # (entries, 2)
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.dtype.kind not in "iu":
        raise IndexError("dok_matrix._update: the keys must be (row, column) pairs of integers")
    if (positions < 0).any() or (positions >= np.array(matrix.shape)).any():
        raise IndexError(f"dok_matrix._update: a (row, column) pair is outside the shape {matrix.shape}")
    convert = matrix.dtype.type
    matrix._dict.update((key, convert(value)) for key, value in data.items())


class _PkgResourcesForRay(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answers ``import pkg_resources`` for ray <= 2.6.3 where setuptools is absent or >= 81 and no longer has it.

    It comes last in ``sys.meta_path``, so a real ``pkg_resources`` always wins, and it answers only once ray is being
    imported, so that other packages' ``except ImportError`` still works. ray 2.6.3 uses ``pkg_resources.packaging``
    (ray/air/_internal/remote_storage.py:8), ``get_distribution("numpy").version`` (ray/_private/parameter.py:423) and
    ``pkg_resources._vendor.packaging.version`` (ray/_private/utils.py:1761); setuptools >= 71 lacks the last as well.

    That is enough to import ``recbole.quick_start``, which imports ``ray.tune``. Running Ray Tune starts processes that
    do not import this package: trials need ``setuptools<81`` and ``numpy<2``.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if "ray" not in sys.modules or fullname not in ("pkg_resources", "pkg_resources._vendor"):
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def exec_module(self, module: ModuleType) -> None:
        import packaging.version  # a dependency of ray

        def get_distribution(name: str) -> SimpleNamespace:
            return SimpleNamespace(version=importlib.metadata.version(name))  # all that ray reads of it

        def fixup_namespace_packages(path_item: str, parent: str | None = None) -> None:
            """Do nothing: no namespace package was declared here. pytest calls this when it changes ``sys.path``."""

        def missing(name: str) -> Any:
            raise AttributeError(
                f"pkg_resources.{name} is missing: this setuptools has no pkg_resources, and recbole_xling provides "
                "only what ray 2.6.3 uses of it. pip install 'setuptools<81' brings the real one."
            )

        if module.__name__ == "pkg_resources":
            content = {"packaging": packaging, "get_distribution": get_distribution, "__getattr__": missing}
            vars(module).update(content, fixup_namespace_packages=fixup_namespace_packages)
        else:
            vars(module)["packaging"] = packaging
            sys.modules[f"{module.__name__}.packaging"] = packaging
            sys.modules[f"{module.__name__}.packaging.version"] = packaging.version
