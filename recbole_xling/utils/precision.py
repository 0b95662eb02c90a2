"""In what type autocast computes on a GPU."""

from __future__ import annotations

import torch


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
