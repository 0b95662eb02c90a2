"""Where pandas 3 breaks or changes what RecBole 1.2.1 reads, and the edits that keep the result as under pandas 2."""

from __future__ import annotations

from types import ModuleType

from recbole_xling.compat.hooks import edit, when_imported

#: pandas 3 hands ``Series.agg(len)`` the whole column (one number comes back); pandas 2 handed it each cell.
EACH_CELL = {".agg(len)": ".map(len)"}

#: Copy-on-write, the only mode of pandas 3, makes ``frame[field].fillna(..., inplace=True)`` fill a temporary copy.
FILL_SEQUENCES = {'df[field].fillna(value="", inplace=True)': 'df[field] = df[field].fillna(value="")'}
FILL_VALUES = {
    "feat[field].fillna(value=0, inplace=True)": "feat[field] = feat[field].fillna(value=0)",
    "feat[field].fillna(value=feat[field].mean(), inplace=True)": (
        "feat[field] = feat[field].fillna(value=feat[field].mean())"
    ),
}


#: ``.values`` is read-only in pandas 3, and ``torch.LongTensor`` would share that memory (with a UserWarning).
OWN_MEMORY = {"value = data[k].values": "value = data[k].to_numpy(copy=True)"}


def install() -> None:
    """Fix RecBole's dataset classes when they are imported."""
    when_imported("recbole.data.dataset.dataset", fix_dataset)
    when_imported("recbole.data.dataset.sequential_dataset", fix_sequential_dataset)
    when_imported("recbole.data.dataset.kg_dataset", fix_kg_dataset)


def _pandas_3() -> bool:
    import pandas as pd

    return int(pd.__version__.split(".")[0]) >= 3


def fix_dataset(module: ModuleType) -> None:
    """Fix ``Dataset`` (recbole/data/dataset/dataset.py).

    Missing values: ``_load_feat`` at line 501 (a missing sequence crashes), ``_fill_nan`` at 648 and 650 (missing
    tokens and numbers stay NaN). Lengths of sequences: ``_normalize`` at 712, ``_discretization`` at 792 and 809,
    ``_remap`` at 1217. Read-only arrays: ``_dataframe_to_interaction`` at 2199.
    """
    if not _pandas_3():
        return
    edit(module.Dataset._load_feat, FILL_SEQUENCES)
    edit(module.Dataset._fill_nan, FILL_VALUES)
    edit(module.Dataset._normalize, EACH_CELL)
    edit(module.Dataset._discretization, EACH_CELL)
    edit(module.Dataset._remap, EACH_CELL)
    edit(module.Dataset._dataframe_to_interaction, OWN_MEMORY)


def fix_sequential_dataset(module: ModuleType) -> None:
    """Fix ``SequentialDataset._benchmark_presets`` (recbole/data/dataset/sequential_dataset.py:165)."""
    if _pandas_3():
        edit(module.SequentialDataset._benchmark_presets, EACH_CELL)


def fix_kg_dataset(module: ModuleType) -> None:
    """Fix ``KnowledgeBasedDataset._reset_ent_remapID`` (recbole/data/dataset/kg_dataset.py:316)."""
    if _pandas_3():
        edit(module.KnowledgeBasedDataset._reset_ent_remapID, EACH_CELL)
