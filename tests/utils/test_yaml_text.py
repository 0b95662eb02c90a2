"""Settings as text: words mean on the command line what they mean in a file, and a fault in a file has its line."""

from __future__ import annotations

import math

import pytest
import yaml

from recbole_xling.errors import ConfigError
from recbole_xling.utils.yaml_text import SettingsLoader, as_words, parse_value, read_yaml_settings, settings_text


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("[query,value]", ["query", "value"]),
        ("{LS: valid_only}", {"LS": "valid_only"}),
        ("{'user': {'a': 1e-3}}", {"user": {"a": 0.001}}),
        ("[None, 'None']", [None, "None"]),
        *((word, False) for word in ("no", "No", "off", "OFF", "False", "false")),
        *((word, True) for word in ("yes", "on", "True", "true")),
        ("-1e-4", -0.0001),
        ("1_000", 1000),
        ("'no'", "no"),
        ('"0.5"', "0.5"),
        ("2024-05-01", "2024-05-01"),
    ],
)
def test_a_word_means_what_it_means_in_a_file(word, value):
    assert parse_value(word) == value and type(parse_value(word)) is type(value)
    assert yaml.load(f"key: {word}", Loader=SettingsLoader) == {"key": value}


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("(5, 10)", [5, 10]),
        ("5,10", [5, 10]),
        ("{'a': (1, 2)}", {"a": (1, 2)}),
        ("~", None),
        ("", ""),
        (" ", " "),
        ("[0,inf)", "[0,inf)"),
        ("query: ", "query: "),
        ("a # b", "a # b"),
        ("- a", "- a"),
        ("{title} ({year}). {genres}", "{title} ({year}). {genres}"),
        ("[1, 2", "[1, 2"),
        ("{a: 1, a: 2}", "{a: 1, a: 2}"),
        ("&a [*a]", "&a [*a]"),
        ("!!python/object/apply:os.getcwd []", "!!python/object/apply:os.getcwd []"),
        ("[" * 5000, "[" * 5000),
        ("1" * 5000, "1" * 5000),
    ],
)
def test_python_tuples_are_lists_and_what_is_no_value_stays_text(word, value):
    assert parse_value(word) == value


def test_infinity_has_a_point():
    assert math.isinf(parse_value("-.inf")) and parse_value("inf") == "inf"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"epochs: 1\nseed: 2\nepochs: 3\n", r":3: not valid YAML: 'epochs' is given twice, first in line 1"),
        (b"eval_args:\n  mode: full\n  mode: uni100\n", r":3: .*'mode' is given twice, first in line 2"),
        (b"eval_args:\n\tmode: full\n", r":2: not valid YAML: a tab where only spaces are allowed"),
        (b"- a\n- b\n", r":1: the file must consist of 'key: value' lines, and is a list"),
        (b"epochs\n", r":1: the file must consist of 'key: value' lines, and is 'epochs'"),
        (b"seed: 1\nencoder: gr\xfcn\n", r":2: the file is not UTF-8 text"),
        ("seed: 1\n".encode("utf-16"), r":1: the file is not UTF-8 text"),
        (b"seed: 1\nencoder: a\x07\n", r":2: not valid YAML: the character '\\x07' is not allowed"),
        (b"topk: [1,\n", r":2: not valid YAML"),
        (b"a: b: c\n", r":1: not valid YAML: mapping values are not allowed here"),
        (b"a: !!python/tuple [1]\n", r":1: .*leave out the tag"),
        (b"a: &a [*a]\n", r":1: not valid YAML"),
        (b"a: " + b"[" * 3000, r"nested too deeply"),
        (b"a: 1\n---\nb: 2\n", r":2: not valid YAML"),
    ],
)
def test_a_fault_in_a_file_is_one_line_with_its_place(tmp_path, content, message):
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"run\.yaml{message}" if message[0] == ":" else message) as raised:
        read_yaml_settings(file)
    assert len(str(raised.value).splitlines()) == 1


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match="is a folder"):
        read_yaml_settings(tmp_path)
    with pytest.raises(ConfigError, match="does not exist"):
        read_yaml_settings(tmp_path / "none.yaml")


def test_an_empty_file_a_mark_at_its_begin_and_anchors_are_fine(tmp_path):
    file = tmp_path / "run.yaml"
    for content, settings in {
        "": {},
        "# nothing\n": {},
        "\ufeffseed: 1\n": {"seed": 1},
        "a: &part {x: 1}\nb: {<<: *part, y: 2}\n": {"a": {"x": 1}, "b": {"x": 1, "y": 2}},
    }.items():
        file.write_text(content, encoding="utf-8")
        assert read_yaml_settings(file) == settings


@pytest.mark.parametrize(
    "text",
    ["no", "None", "'x'", '"x"', "1e3", "[a, b]", "{a: 1}", "'a\\n'", "(1, 2)", "query: ", "", "\ud83d", "é\t'", "x"],
)
def test_what_was_read_is_not_read_again(text):
    settings = {"model": "no", "dataset": "2024", "encoder_prompt": text, "topk": [5], "text_fields": ["no"]}
    again = {key: parse_value(value) if isinstance(value, str) else value for key, value in as_words(settings).items()}
    assert {**again, "model": "no", "dataset": "2024"} == settings
    assert (as_words(settings)["model"], as_words(settings)["dataset"]) == ("no", "2024")


def test_settings_that_are_written_read_back_as_they_were(tmp_path):
    texts = ["1e5", "0e5", "12e03", ".5e3", "None", "null", "~", "", "no", "2024-01-01", "1_000", "0x1f", "a: b", "007"]
    settings = {
        "texts": texts,
        "one": {text: text for text in texts},
        "numbers": [1e5, 1e-5, 3, None, True, float("inf")],
    }
    (tmp_path / "config.yaml").write_text(settings_text(settings), encoding="utf-8")
    assert read_yaml_settings(tmp_path / "config.yaml") == settings
