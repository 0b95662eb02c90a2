"""In what type autocast computes on a GPU."""

from __future__ import annotations

import torch
from torch import Tensor


def prepare_autocast(device: torch.device) -> bool:
    """Let autocast compute in bfloat16 on GPUs that have it, and return whether the loss must be scaled instead.

    PyTorch's own choice on a GPU, float16, ends at 6e-8. The gradients of a softmax over thousands of items are smaller
    and vanish without a word, so float16 needs a scaled loss (Micikevicius et al., *Mixed Precision Training*, ICLR
    2018); bfloat16 has the range of float32.

    Args:
        device: of the model; on anything but an NVIDIA or AMD GPU autocast computes in bfloat16 anyway.
    """
    if device.type != "cuda":
        return False
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        return True
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    return False


def exact_matches(first: Tensor, second: Tensor) -> Tensor:
    """Return the inner products of vectors ``(N, D)`` and ``(U, D)``, ``(N, U)``, in float32 under autocast as well.

    The three digits of bfloat16 are too few for cosines that are divided by a small temperature.
    """
    with torch.autocast(first.device.type, enabled=False):
        exact = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
        return first.to(exact) @ second.to(exact).T
