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
