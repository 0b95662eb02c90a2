"""Autocast on GPUs: bfloat16 where they have it, else float16 with a scaled loss."""

from __future__ import annotations

import pytest
import torch

from recbole_xling.utils.precision import prepare_autocast


@pytest.fixture(autouse=True)
def dtype_as_it_was():
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_dtype("cuda", torch.float16)  # PyTorch's own choice
    yield
    torch.set_autocast_dtype("cuda", before)


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "scales", "dtype"),
    [
        ("cpu", True, False, torch.float16),
        ("cuda", True, False, torch.bfloat16),
        ("cuda", False, True, torch.float16),
    ],
)
def test_a_gpu_without_bfloat16_needs_a_scaled_loss(monkeypatch, device, has_bfloat16, scales, dtype):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True: has_bfloat16)
    assert prepare_autocast(torch.device(device)) is scales
    assert torch.get_autocast_dtype("cuda") is dtype
