from __future__ import annotations

import copy
import importlib
import importlib.util
import logging
import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch
import yaml
from recbole.config import Config
from recbole.data import create_dataset
from recbole.utils import EvaluatorType, FeatureType, ModelType

import recbole_xling  # noqa: F401
from recbole_xling import compat
from recbole_xling.compat import checkpoint, hooks, libraries
from recbole_xling.compat.plain import Call, plain, restore_enum, restore_sparse
from recbole_xling.errors import CheckpointError

MATRIX = Path(__file__).parent / "matrix" / "recbole_models.py"


@pytest.fixture
def config(monkeypatch, tmp_path):
    """A function that makes RecBole's Config for a model and a data set below tmp_path."""
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.chdir(tmp_path)

    def make(model: str = "BPR", dataset: str = "toy", config_class: type = Config, **settings: object) -> Config:
        settings = {"data_path": str(tmp_path), "load_col": None, "state": "ERROR"} | settings
        return config_class(model=model, dataset=dataset, config_dict=settings)

    return make


def through_file(value: object, folder: Path) -> object:
    """Save and load as RecBole does, by plain torch.load."""
    torch.save(value, folder / "file.pth")
    return torch.load(folder / "file.pth")


# ---- the package -------------------------------------------------------------------------------------------------


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
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.stdout.strip() == "recbole_xling.compat.checkpoint", done.stderr


# ---- hooks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def library(monkeypatch, tmp_path):
    """The name of a module on disk that is not imported yet."""
    (tmp_path / "compat_library.py").write_text(
        "def half(x):\n    # a comment\n    return x / 2\n\n\ndef broken(x):\n    y = x.size()\n    return y / 0\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "compat_library"
    sys.modules.pop("compat_library", None)


def test_action_waits_for_the_import_and_runs_once(library):
    seen = []
    hooks.when_imported(library, lambda module: seen.append(module.half(3)))
    assert importlib.util.find_spec(library) is not None  # looking a module up is not importing it
    assert seen == []
    module = importlib.import_module(library)
    assert seen == [1.5]
    importlib.reload(module)
    assert seen == [1.5]


def test_action_runs_at_once_on_an_imported_module(library):
    module, seen = importlib.import_module(library), []
    hooks.when_imported(library, seen.append)
    assert seen == [module]


def test_changed_module_differs_in_the_named_attributes_only():
    changed = hooks.ChangedModule(torch, save="other")
    assert changed.save == "other"
    assert changed.load is torch.load
    assert callable(torch.save)
    with pytest.raises(AttributeError):
        _ = changed.no_such_name


def test_edit_reaches_references_taken_before_and_keeps_line_numbers(library):
    module = importlib.import_module(library)
    half, broken = module.half, module.broken
    hooks.edit(module.half, {"x / 2": "x // 2"})
    hooks.edit(module.broken, {"x.size()": "len(x)"})
    assert half(3) == 1
    with pytest.raises(ZeroDivisionError) as error:
        broken("ab")
    assert traceback.extract_tb(error.tb)[-1].lineno == 8


def test_edit_leaves_an_unknown_version_alone_and_says_so(library, caplog):
    module = importlib.import_module(library)
    hooks.edit(module.half, {"x / 2": "x // 2", "x * 2": "x"})
    assert module.half(3) == 1.5
    assert "x * 2" in caplog.text


# ---- numpy, scipy, pkg_resources ---------------------------------------------------------------------------------


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


# ---- pandas ------------------------------------------------------------------------------------------------------

INTER = """user_id:token\titem_id:token\ttimestamp:float\tmood:token\ttags:token_seq
u1\ti1\t1\tgood\ta b
u1\ti2\t2\t\tb
u2\ti1\t3\tbad\t
"""
ITEM = """item_id:token\tyear:token\tprice:float\ttitle:token_seq\tvector:float_seq
i1\t1995\t10\tToy Story\t0.5 1.5
i2\tNA\t\t\t
i3\t1996\t20\tHeat\t2.5 3.5
"""


@pytest.fixture
def toy(config, tmp_path):
    """A function that reads a data set with missing values of every kind."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "toy.inter").write_text(INTER)
    (tmp_path / "toy" / "toy.item").write_text(ITEM)

    def read(**settings):
        return create_dataset(config(**({"filter_inter_by_user_or_item": False, "normalize_all": False} | settings)))

    return read


def test_missing_values_are_filled(toy):
    dataset = toy()
    assert dataset.inter_feat["mood"].tolist() == [1, 0, 2]
    assert [tags.tolist() for tags in dataset.inter_feat["tags"]] == [[1, 2], [2], []]
    items = dataset.item_feat  # row 0 is the padding item, of which everything is missing
    assert items["year"].tolist() == [0, 1, 0, 2]
    assert items["price"].tolist() == [15, 10, 15, 20]
    assert [len(title) for title in items["title"]] == [0, 2, 0, 1]
    dataset._change_feat_format()
    assert dataset.item_feat["title"].tolist() == [[0, 0], [1, 2], [0, 0], [3, 0]]
    assert dataset.item_feat["vector"].tolist() == [[0, 0], [0.5, 1.5], [0, 0], [2.5, 3.5]]
    assert dataset.item_feat["price"].dtype == torch.float32


def test_tensors_do_not_share_the_frame(toy):
    dataset = toy()
    frame = dataset.inter_feat
    tensor = dataset._dataframe_to_interaction(frame)["user_id"]
    tensor[0] = 99
    assert frame["user_id"].tolist() == [1, 1, 2] or int(pd.__version__.split(".")[0]) < 3


def test_normalised_and_discretised_sequences_keep_their_lengths(toy):
    normalised = toy(normalize_field=["vector"]).item_feat["vector"]
    assert [row.tolist() for row in normalised] == [[], pytest.approx([0, 1 / 3]), [], pytest.approx([2 / 3, 1])]
    settings = {"numerical_features": ["vector"], "discretization": {"vector": {"method": "ED", "bucket": 2}}}
    discretised = toy(**settings).item_feat["vector"]
    assert [len(index) for _, index in discretised] == [0, 2, 0, 2]
    plain_numerical = toy(numerical_features=["vector"]).item_feat["vector"]
    assert [len(index) for _, index in plain_numerical] == [0, 2, 0, 2]


def test_benchmark_sequences_get_their_lengths(config, tmp_path):
    (tmp_path / "ready").mkdir()
    for part in ("train", "valid", "test"):
        (tmp_path / "ready" / f"ready.{part}.inter").write_text(
            "user_id:token\titem_id_list:token_seq\titem_id:token\nu1\ti1 i2 i3\ti4\nu2\ti2\ti1\n"
        )
    settings = {"benchmark_filename": ["train", "valid", "test"], "alias_of_item_id": ["item_id_list"]}
    dataset = create_dataset(config("SASRec", "ready", train_neg_sample_args=None, **settings))
    assert dataset.inter_feat["item_length"].tolist() == [3, 1] * 3


def test_entity_sequences_keep_their_lengths():
    from recbole.data.dataset import KnowledgeBasedDataset

    frame = pd.DataFrame({"e": [np.array([1, 2]), np.array([], dtype=int), np.array([1])]})
    fields = SimpleNamespace(
        field2id_token={}, field2token_id={}, field2type={"e": FeatureType.TOKEN_SEQ}, field2feats=lambda _: [frame]
    )
    KnowledgeBasedDataset._reset_ent_remapID(fields, "e", np.array([0, 10, 20]), None, None)
    assert [row.tolist() for row in frame["e"]] == [[10, 20], [], [10]]


# ---- checkpoints: values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [None, True, 3, 0.1, "text", [1, (2, "x")], {"a": {1: None}}, {3, 4}, 2**40, torch.device("cpu"), torch.float16],
    ids=str,
)
def test_plain_values_come_back(value, tmp_path):
    loaded = through_file(plain(value, "it"), tmp_path)
    assert loaded == value
    assert type(loaded) is type(value)


def test_numbers_of_numpy_become_numbers_of_python(tmp_path):
    loaded = through_file(plain({np.str_("k"): [np.float64(0.5), np.int64(7), np.bool_(True)]}, "it"), tmp_path)
    assert loaded == {"k": [0.5, 7, True]}
    assert [type(item) for item in loaded["k"]] == [float, int, bool]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool", "complex64"])
def test_arrays_come_back(dtype, tmp_path):
    array = np.array([[0, 1, 2], [3, 4, 5]]).astype(dtype)
    array.flags.writeable = False
    for given in (array, array.T):
        loaded = through_file(plain(given, "it"), tmp_path)
        assert loaded.dtype == given.dtype
        assert np.array_equal(loaded, given)


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil", "dok"])
def test_sparse_matrices_come_back(layout, tmp_path):
    matrix = scipy.sparse.random(5, 7, density=0.3, dtype=np.float32, random_state=1).asformat(layout)
    loaded = through_file(plain(matrix, "it"), tmp_path)
    assert (loaded.format, loaded.dtype, loaded.shape) == (layout, np.float32, (5, 7))
    assert (loaded != matrix).nnz == 0


def test_enumerations_come_back(tmp_path):
    assert through_file(plain([ModelType.KNOWLEDGE, EvaluatorType.VALUE], "it"), tmp_path) == [
        ModelType.KNOWLEDGE,
        EvaluatorType.VALUE,
    ]


@pytest.mark.parametrize("value", [len, object(), np.array(["a"]), torch.nn.Linear(1, 1), logging.INFO.__add__])
def test_what_cannot_be_stored_safely_is_an_error_that_names_it(value):
    with pytest.raises(CheckpointError, match=r"other_parameter\['w'\]\[1\]"):
        plain({"w": [0, value]}, "other_parameter")


# ---- checkpoints: Config -----------------------------------------------------------------------------------------


def test_config_comes_back_whole(config, tmp_path, monkeypatch):
    original = config(learning_rate=0.123, topk=[1, 2])
    for name in ("float", "str"):
        monkeypatch.delattr(np, name, raising=False)  # as in a process that has not made a Config yet
    loaded = through_file({"config": original}, tmp_path)["config"]
    assert type(loaded) is Config
    assert loaded.final_config_dict == original.final_config_dict
    assert loaded.parameters == original.parameters
    assert str(loaded) == str(original)
    assert (loaded["MODEL_TYPE"], loaded["device"], loaded.model) == (ModelType.GENERAL, original["device"], "BPR")
    assert loaded.model_class is original.model_class
    assert yaml.load("1e-3", Loader=loaded.yaml_loader) == 0.001
    assert np.float is np.float64


class OtherConfig(Config):
    """A Config of a user, known to nobody."""


@compat.register_config_class
class KnownConfig(Config):
    """A Config with an attribute of its own."""

    extra = ("default",)


def test_subclasses_come_back_by_name_if_registered(config, tmp_path):
    known, other = config(config_class=KnownConfig), config(config_class=OtherConfig)
    known.extra = ["mine"]
    loaded = through_file([known, other], tmp_path)
    assert [type(item) for item in loaded] == [KnownConfig, Config]
    assert loaded[0].extra == ["mine"]
    assert loaded[1].final_config_dict == other.final_config_dict


def test_setting_that_cannot_be_stored_is_left_out_with_a_warning(config, tmp_path, caplog):
    checkpoint._warn.cache_clear()
    original = config()
    original["callback"] = print
    loaded = through_file(original, tmp_path)
    assert "callback" not in loaded
    assert loaded["learning_rate"] == original["learning_rate"]
    assert "'callback'" in caplog.text


def test_copies_and_ordinary_pickles_of_a_config_stay_as_they_were(config):
    original = config(config_class=OtherConfig)
    original["callback"] = print
    for twin in (copy.copy(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert type(twin) is OtherConfig
        assert twin["callback"] is print
        assert twin.model_class is original.model_class


# ---- checkpoints: files ------------------------------------------------------------------------------------------


def test_recbole_trainers_write_through_save_and_nobody_else():
    from recbole.trainer import trainer

    assert trainer.torch.save is checkpoint.save
    assert torch.save is not checkpoint.save
    assert trainer.torch.load is torch.load


def test_save_makes_a_trainer_state_loadable(config, tmp_path):
    layer = torch.nn.BatchNorm1d(2)
    matrix = scipy.sparse.identity(3, format="csr")
    state = {
        "config": config(),
        "best_valid_score": np.float64(0.25),
        "state_dict": layer.state_dict(),
        "optimizer": torch.optim.Adam(layer.parameters()).state_dict(),
        "other_parameter": {"w": matrix, "layer": layer},
    }
    checkpoint.save(state, tmp_path / "model.pth", pickle_protocol=4)
    loaded = torch.load(tmp_path / "model.pth", weights_only=True)
    assert loaded["best_valid_score"] == 0.25
    assert loaded["state_dict"]._metadata == state["state_dict"]._metadata
    assert loaded["other_parameter"].keys() == {"w"}  # the weights of "layer" are in the state dict
    assert (loaded["other_parameter"]["w"] != matrix).nnz == 0
    assert state["other_parameter"]["layer"] is layer
    assert [file.name for file in tmp_path.iterdir()] == ["model.pth"]


def test_failed_save_keeps_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "model.pth"
    checkpoint.save({"epoch": 1, "state_dict": {}}, file)
    with pytest.raises(CheckpointError, match="other_parameter"):
        checkpoint.save({"epoch": 2, "other_parameter": {"f": print}}, file)
    with pytest.raises(AttributeError, match="pickle"):
        checkpoint.save({"epoch": 2, "state_dict": {"f": lambda: 0}}, file)
    assert torch.load(file)["epoch"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize(
    "attack",
    [
        Call(os.mkdir, "attacked"),
        Call(eval, "__import__('os').mkdir('attacked')"),
        Call(Config, "BPR", "toy", None, {"seed": "__import__('os').mkdir('attacked')"}),
        Call(Call, os.mkdir, "attacked"),
    ],
    ids=["function", "eval", "Config", "class of this package"],
)
def test_file_that_runs_code_is_refused(attack, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test"])
    torch.save({"config": attack}, "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load("evil.pth")
    assert not Path("attacked").exists()
    if attack.function is not Call:  # the same file does harm when it is trusted, so the test is not empty
        torch.load("evil.pth", weights_only=False)
        assert Path("attacked").exists()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (Call(restore_enum, "sys", "path"), "enumerations"),
        (Call(restore_enum, "ModelType", "__class__"), "no member"),
        (Call(checkpoint.restore_config, "x", {"final_config_dict": {"model": "os.path"}}), "no settings"),
        (Call(checkpoint.restore_config, "x", ["final_config_dict"]), "no settings"),
        (Call(restore_sparse, "eval", [1, 1], *[torch.zeros(1)] * 3), "format"),
        (Call(restore_sparse, "csr", [1, 2], torch.ones(1), torch.tensor([9]), torch.tensor([0, 1])), "not valid"),
        (Call(restore_sparse, "csr", [1, 2], torch.ones(1), torch.tensor([0]), torch.tensor([0, 9])), "not valid"),
        (Call(restore_sparse, "csr", [1, 2], "x", "y", "z"), "stored as a str"),
    ],
)
def test_calls_that_recbole_does_not_make_are_refused(call, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        through_file(call, tmp_path)


# ---- RecBole's models --------------------------------------------------------------------------------------------


def load_matrix_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("recbole_models", MATRIX)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("model", list(load_matrix_script().MODELS))
def test_recbole_trains_saves_and_reloads_its_own_model(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_matrix_script().check(model)
