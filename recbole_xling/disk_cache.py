"""What the caches of vectors and of translations share: a folder per identity, and clear errors where it is written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from recbole_xling.errors import XlingError


def identity_folder(root: Path, identity: Mapping[str, Any]) -> Path:
    """Return the folder below ``root`` of what has this identity, named after its hash; it need not exist yet."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return root / sha256(text.encode()).hexdigest()[:16]


def identity_text(identity: Mapping[str, Any]) -> bytes:
    """Return the file that tells people whose folder it is."""
    text = json.dumps(identity, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "surrogatepass")


@contextmanager
def clear_write_errors(folder: Path, cache: str, kept: str) -> Iterator[None]:
    """Say what to do where the disk refuses a write.

    Args:
        folder: where is written.
        cache: what the cache holds, for the message.
        kept: what becomes of what is stored already, for the message.

    Raises:
        XlingError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise XlingError(
            f"cannot write the {cache} cache {folder}: {error.strerror or error}. Make room there or choose another "
            f"folder, then run again: {kept}"
        ) from error
