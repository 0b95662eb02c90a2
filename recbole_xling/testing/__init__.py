"""What tests of one's own model or converter need: a contract, a small dataset, a tiny encoder, checks of files.

pytest comes with the extra ``dev``; no other part of the package imports it.
"""

from recbole_xling.errors import MissingExtraError

try:
    import pytest
except ImportError as error:
    raise MissingExtraError("pytest", "dev") from error

# A failed assertion in these modules then shows the values it compared, as it does in a test file.
pytest.register_assert_rewrite("recbole_xling.testing.model_contract", "recbole_xling.testing.written_dataset")

from recbole_xling.testing.model_contract import ModelContract  # noqa: E402
from recbole_xling.testing.small_dataset import small_settings, write_small_dataset  # noqa: E402
from recbole_xling.testing.tiny_encoder import make_tiny_encoder  # noqa: E402
from recbole_xling.testing.written_dataset import check_dataset, check_loading  # noqa: E402

__all__ = [
    "ModelContract",
    "check_dataset",
    "check_loading",
    "make_tiny_encoder",
    "small_settings",
    "write_small_dataset",
]
