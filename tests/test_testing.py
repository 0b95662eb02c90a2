"""recbole_xling.testing: the contract finds what is wrong with a model, the checks what is wrong with files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from made import write

from recbole_xling.quick_start.build import Run
from recbole_xling.testing import ModelContract, check_dataset, check_loading


@pytest.fixture
def parts(small_dataset: Callable[..., Path], build_small: Callable[..., Run]) -> Run:
    """Data and a model that keeps the contract."""
    small_dataset()
    return build_small()


def loss_per_row(model: Any) -> None:
    loss = model.calculate_loss
    model.calculate_loss = lambda rows: loss(rows).repeat(3)


def loss_without_gradient(model: Any) -> None:
    model.calculate_loss = lambda rows: torch.zeros((), requires_grad=True) + 1


def predict_differs(model: Any) -> None:
    predict = model.predict
    model.predict = lambda rows: predict(rows) + 0.1


def padding_scored(model: Any) -> None:
    score = model.full_sort_predict
    model.full_sort_predict = lambda rows: score(rows).nan_to_num(neginf=10.0)


def rows_below_the_best(model: Any) -> None:
    score = model.full_sort_predict
    model.full_sort_predict = lambda rows: score(rows) - score(rows)[:, 1:].max()


@pytest.mark.parametrize(
    ("broken", "test", "message"),
    [
        (loss_per_row, "test_trains", "shape"),
        (loss_without_gradient, "test_trains", "no parameter gets a gradient"),
        (predict_differs, "test_predict_equals_full_sort_predict", "not close"),
        (padding_scored, "test_padding_item_is_never_recommended", "padding item"),
        (rows_below_the_best, "test_scores_do_not_depend_on_the_rest_of_the_batch", "not close"),
    ],
)
def test_the_contract_refuses_a_broken_model(
    parts: Run, broken: Callable[[Any], None], test: str, message: str
) -> None:
    contract = ModelContract()
    getattr(contract, test)(parts)
    parts.model.zero_grad()
    broken(parts.model)
    with pytest.raises(AssertionError, match=message):
        getattr(contract, test)(parts)


def test_the_module_without_pytest_names_the_extra() -> None:
    code = "import sys; sys.modules['pytest'] = None; import recbole_xling; import recbole_xling.testing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().splitlines()[-1].endswith("pip install 'recbole-xling[dev]'")


def test_check_dataset_refuses_a_file_with_a_row_too_few(tmp_path: Path) -> None:
    report = write(tmp_path)
    check_dataset(report)
    file = report.folder / "d.inter"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(AssertionError):
        check_dataset(report)
    with pytest.raises(AssertionError):
        check_loading(report, tmp_path)
