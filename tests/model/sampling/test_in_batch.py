"""Positions and candidates of a batch: what belongs to whom, and the same over two processes as over one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recbole_xling.model.loss.in_batch_softmax import in_batch_softmax
from recbole_xling.model.sampling.in_batch import BatchWindows, adjust_logits, in_batch
from recbole_xling.model.text_encoder.distinct_texts import DistinctTexts

N_TEXTS, SIZE = 9, 4


def make_windows(
    rows: slice | list[int] = slice(None), n_processes: int = 1
) -> tuple[BatchWindows, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return four windows of up to three inputs, their texts and vectors, and the table both come from.

    Weights are those of the loader, for 8 targets in all processes, or 7 where rows leave one out.
    """
    history = torch.tensor([[1, 2, 3], [2, 4, 0], [5, 0, 0], [6, 1, 7]])[rows]
    target = torch.tensor([[2, 3, 4], [4, 8, 0], [1, 0, 0], [0, 7, 2]])[rows]
    weight = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])[rows]
    weight *= n_processes / (8 if rows == slice(None) else 7)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(N_TEXTS, SIZE, generator=generator, dtype=torch.double).requires_grad_()
    in_history = history > 0
    texts = torch.unique(torch.cat([history[in_history], target[weight > 0]]))
    states = table[history].cumsum(dim=1)  # a user tower without weights
    empty = table[0].expand(len(history), SIZE)
    inputs, trained = in_history.nonzero(as_tuple=True), weight.nonzero(as_tuple=True)
    windows = BatchWindows(states, empty, weight.amax(dim=1), history, inputs, target, weight, trained)
    return windows, texts, table[texts], table


LOGIT_ADJUSTMENT = torch.linspace(-1, 1, N_TEXTS, dtype=torch.double)
EACH = torch.arange(N_TEXTS)


def test_positions_and_candidates_of_one_process():
    windows, texts, vectors, table = make_windows()
    batch = in_batch(windows, DistinctTexts(texts, vectors), LOGIT_ADJUSTMENT, EACH)
    chosen = [2, 3, 4, 4, 8, 1, 7, 2, 1, 2, 5, 6]  # of the windows, then the first inputs for users without a history
    assert texts[batch.target].tolist() == chosen
    assert batch.is_user.tolist() == [True] * 8 + [False] * 4
    torch.testing.assert_close(batch.items, table[texts])
    torch.testing.assert_close(batch.logit_adjustment, LOGIT_ADJUSTMENT[texts])
    assert batch.weight.sum().item() == pytest.approx(1)
    own = [set(texts[row].tolist()) for row in batch.accidental_hit_mask]
    assert own[0] == own[2] == own[8] == {1, 2, 3, 4}
    assert own[3] == {2, 4, 8}
    assert own[5] == {1, 5}
    assert own[11] == {1, 2, 6, 7}


def test_the_same_item_in_another_language_is_no_negative():
    windows, texts, vectors, _ = make_windows()
    same = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 3])  # 8 is 3 in another language
    batch = in_batch(windows, DistinctTexts(texts, vectors), LOGIT_ADJUSTMENT, same)
    own = [set(texts[row].tolist()) for row in batch.accidental_hit_mask]
    assert own[0] == {1, 2, 3, 4, 8}
    assert own[3] == {2, 3, 4, 8}
    assert own[5] == {1, 5}


def test_what_a_user_has_met_in_other_windows_is_no_negative():
    windows, texts, vectors, _ = make_windows()
    met = torch.tensor([0, 1, 1]), torch.tensor([5, 0, 6])  # 0 is no candidate
    batch = in_batch(windows, DistinctTexts(texts, vectors), LOGIT_ADJUSTMENT, EACH, None, met)
    own = [set(texts[row].tolist()) for row in batch.accidental_hit_mask]
    assert own[0] == own[2] == own[8] == {1, 2, 3, 4, 5}
    assert own[3] == {2, 4, 6, 8}
    assert own[5] == {1, 5} and own[11] == {1, 2, 6, 7}


def test_a_user_without_a_history_weighs_what_the_first_item_does():
    windows, texts, vectors, _ = make_windows()
    windows.weight[1] *= 3
    windows.empty_weight[1] *= 3
    batch = in_batch(windows, DistinctTexts(texts, vectors), LOGIT_ADJUSTMENT, EACH)
    torch.testing.assert_close(batch.weight * 12, torch.tensor([1.0] * 3 + [3] * 2 + [1] * 4 + [3, 1, 1]))
    windows.empty_weight[:2] = 0  # of other languages than those that are trained
    batch = in_batch(windows, DistinctTexts(texts, vectors), LOGIT_ADJUSTMENT, EACH)
    torch.testing.assert_close(batch.weight * 10, torch.tensor([1.0] * 3 + [3] * 2 + [1] * 3 + [0, 0, 1, 1]))


def test_a_process_may_have_no_windows():
    windows, *_ = make_windows(slice(0, 0))
    texts, table = make_windows()[1], make_windows()[3]
    batch = in_batch(windows, DistinctTexts(texts, table[texts]), LOGIT_ADJUSTMENT, EACH)
    assert len(batch.target) == 0 and len(batch.items) == len(texts)


TWO = """
import sys, torch
sys.path.insert(0, sys.argv[3])
from test_in_batch import LOGIT_ADJUSTMENT, loss_of, slice_of
import torch.distributed as dist
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}/meet", rank=rank, world_size=2)
loss, gradient = loss_of(slice_of(rank), 2)
dist.all_reduce(gradient)
torch.save({"loss": loss, "gradient": gradient / 2}, f"{sys.argv[2]}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()  # its threads would end the process with an error if they were still there
"""


def slice_of(rank: int) -> slice:
    return slice(rank, None, 2) if rank else slice(0, 1)  # 1 and 2 windows; window 2 is left out


def loss_of(rows: slice | list[int], n_processes: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    windows, texts, vectors, table = make_windows(rows, n_processes)
    loss = in_batch_softmax(in_batch(windows, DistinctTexts(texts, vectors), LOGIT_ADJUSTMENT, EACH), torch.tensor(2.0))
    loss.backward()
    return loss.detach(), table.grad


@pytest.mark.slow
def test_two_processes_have_the_loss_and_the_gradient_of_one(tmp_path):
    command = [sys.executable, "-c", TWO]
    others = [str(tmp_path), str(Path(__file__).parent)]
    started = [subprocess.Popen([*command, str(rank), *others]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    loss, gradient = loss_of([0, 1, 3])
    for rank in range(2):
        theirs = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(theirs["loss"], loss)
        torch.testing.assert_close(theirs["gradient"], gradient)


def test_a_shared_text_has_the_popularity_of_the_item_that_training_met():
    """Item 2 has the text of item 1, whether it is never chosen or less often."""
    of_item, prior = torch.tensor([[0, 1, 1, 2]]), torch.tensor([0.0, -4.0, 0.0, -1.0])
    never = adjust_logits(of_item, 3, torch.tensor([[0, 2, 0, 9]]), prior, None)
    seldom = adjust_logits(of_item, 3, torch.tensor([[0, 2, 1, 9]]), torch.tensor([0.0, -4.0, -5.0, -1.0]), None)
    assert never.tolist() == seldom.tolist() == [0.0, -4.0, -1.0]
