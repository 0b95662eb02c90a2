"""JSON that is nested too deeply is an error like any other."""

from __future__ import annotations

import pytest

from recbole_xling.errors import XlingError
from recbole_xling.serve.added import read_added
from recbole_xling.serve.withdrawn import read_withdrawn
from recbole_xling.utils.json_text import parse_json
from recbole_xling.utils.run_folder import read_result

DEEP = "[" * 200_000


@pytest.mark.parametrize("text", [DEEP, DEEP.encode(), "{", b"\xff"])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)
    assert parse_json('{"a": [1]}') == {"a": [1]}


@pytest.mark.parametrize(
    ("name", "read"), [("withdrawn.json", read_withdrawn), ("added.jsonl", read_added), ("result.json", read_result)]
)
def test_a_deep_file_of_a_folder_is_told_as_damaged(tmp_path, name, read):
    (tmp_path / name).write_text(DEEP)
    with pytest.raises(XlingError, match=name):
        read(tmp_path)
