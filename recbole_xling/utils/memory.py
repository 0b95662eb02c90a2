"""What takes memory: weights that are larger than the machine's, pages of files that have been read."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
from torch.nn.modules.module import register_module_parameter_registration_hook

from recbole_xling.errors import ConfigError


@contextmanager
def weights_in_memory(model: str) -> Iterator[None]:
    """Stop when the weights of the modules that are made meanwhile take more memory than there is.

    An allocation alone takes none yet: the system ends a process without a word when it writes to too much of it.

    Args:
        model: its name, for the message.

    Raises:
        ConfigError: they do.
    """
    memory, taken = psutil.virtual_memory().total, 0
    too_much = f"{model}: the weights alone need more than this machine's memory ({memory / 2**30:.0f} GiB)"
    advice = "choose smaller sizes or fewer layers"

    def count(module: Any, name: str, weight: Any) -> None:
        nonlocal taken
        if weight is not None and weight.device.type == "cpu":
            taken += weight.numel() * weight.element_size()
        if taken > memory:
            raise ConfigError(f"{too_much}, by '{name}' of {tuple(weight.shape)} at the latest: {advice}")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # torch's words for the refusal of the system
            raise ConfigError(f"{too_much}: {advice}") from error
        raise
    finally:
        hook.remove()


def give_back(file: object) -> None:
    """Return the pages of a mapped file to the system, where it takes them: what was read is no memory of ours then.

    What was written to a shared mapping is in the file, changes of a private one are lost.

    Args:
        file: a ``mmap.mmap``, such as the ``base`` of a mapped array; anything else has no pages to return.
    """
    if isinstance(file, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        file.madvise(mmap.MADV_DONTNEED)
