from __future__ import annotations

import pytest

from recbole_xling.errors import ConfigError
from recbole_xling.utils.paths import package_folder


@pytest.mark.parametrize("name", ["datasets", "properties"])
def test_package_folder_finds_the_folders_that_ship(name: str) -> None:
    assert (package_folder(name) / "__init__.py").is_file()


def test_package_folder_refuses_an_unknown_name_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'datasets'"):
        package_folder("dataset")
