"""Gradients over two processes are those of one."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

TWO = """
import sys, torch
import torch.distributed as dist
from recbole_xling.utils.distributed import average_gradients
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
weights = [torch.nn.Parameter(torch.zeros(5, 2)) for _ in range(5)]
everywhere, table, late, reached, untouched = weights
everywhere.grad = torch.full((5, 2), 1.0 + rank)
ids = torch.tensor([[1, 3, 3], [3, 4, 1]][rank])
torch.nn.functional.embedding(ids, table, sparse=True).sum().backward()
if rank == 1:
    torch.nn.functional.embedding(ids[:1], late, sparse=True).sum().backward()
    reached.grad = torch.ones(5, 2)
average_gradients(weights, [table, late])
assert table.grad.is_sparse and table.grad.coalesce().indices().tolist() == [[1, 3, 4]]
torch.save([weight.grad.to_dense() for weight in weights], f"{folder}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


BUFFERS = """
import sys, torch
import torch.distributed as dist
from recbole_xling.utils.distributed import share_buffers
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
model = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1))
torch.nn.init.constant_(model[1].weight, rank)
model(torch.arange(12.0).view(4, 3) * (1 + rank))
share_buffers(model)
torch.save(model.state_dict(), f"{folder}/{rank}.pt")
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_have_the_means_of_normalized_batches_that_the_first_one_saves(tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", BUFFERS, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    torch.testing.assert_close(first["0.running_mean"], 0.1 * torch.tensor([4.5, 5.5, 6.5]))
    for name in ("0.running_mean", "0.running_var", "0.num_batches_tracked"):
        torch.testing.assert_close(second[name], first[name])
    assert (first["1.weight"] == 0).all() and (second["1.weight"] == 1).all()


@pytest.mark.slow
def test_two_processes_have_the_mean_of_their_gradients_also_where_only_rows_are_reached(tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", TWO, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]

    def rows(**values):
        table = torch.zeros(5, 2)
        for row, value in values.items():
            table[int(row[1:])] = value
        return table

    wanted = [
        torch.full((5, 2), 1.5),
        rows(r1=1.0, r3=1.5, r4=0.5),  # of both: 1, 3, 3 and 3, 4, 1
        rows(r3=0.5),
        torch.full((5, 2), 0.5),
        torch.zeros(5, 2),
    ]
    for rank in range(2):
        for got, want in zip(torch.load(tmp_path / f"{rank}.pt"), wanted, strict=True):
            torch.testing.assert_close(got, want)
