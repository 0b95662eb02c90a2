from __future__ import annotations

import pytest

from recbole_xling.convert.base import CONVERTERS, Converter, get_converter
from recbole_xling.errors import ConfigError


@pytest.mark.parametrize("name", sorted(CONVERTERS))
def test_every_converter_is_found_under_its_name(name: str) -> None:
    converter = get_converter(name)
    assert issubclass(converter, Converter)
    assert converter.name == name


def test_an_unknown_converter_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown converter 'ml100k'\. Did you mean 'ml-100k'\?"):
        get_converter("ml100k")
