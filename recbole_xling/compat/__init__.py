"""What RecBole 1.2.1 needs to run on current numpy, pandas, scipy, torch and setuptools.

RecBole 1.2.1 (February 2025) uses what newer releases of its dependencies have removed or changed. :func:`apply` fixes
exactly those places, in memory: no file of RecBole changes, nothing happens unless something is broken, and nothing is
imported that the program does not import anyway (each shim waits for its library).

======================  =============================================================  ======================
broken since            what RecBole 1.2.1 or its ray <= 2.6.3 does                    fixed in
======================  =============================================================  ======================
numpy 2.0               reads ``np.float_`` and three more removed names               :mod:`.libraries`
scipy 1.13              calls ``dok_matrix._update`` (LightGCN, NGCF and five more)    :mod:`.libraries`
setuptools 81           imports ``pkg_resources`` (ray)                                :mod:`.libraries`
always                  switches on autograd's anomaly detection (``sine.py``)         :mod:`.libraries`
always                  multiplies float32 with float64 (KSR)                          :mod:`.libraries`
pandas 3.0              fills missing values of a chained selection in place           :mod:`.frames`
torch 2.6               pickles objects, which ``torch.load`` refuses to read          :mod:`.checkpoint`
======================  =============================================================  ======================
"""

from __future__ import annotations

from recbole_xling.compat import checkpoint, frames, libraries
from recbole_xling.compat.checkpoint import register_config_class

__all__ = ["apply", "register_config_class"]

_applied = False


def apply() -> None:
    """Make RecBole 1.2.1 work with the installed libraries. Cheap, and a second call does nothing."""
    global _applied
    if _applied:
        return
    _applied = True
    libraries.install()
    frames.install()
    checkpoint.install()
