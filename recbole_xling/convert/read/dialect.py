"""How a text table was written, where copies of it differ: told from its bytes."""

from __future__ import annotations

import re
from pathlib import Path

from recbole_xling.convert.read.files import blocks
from recbole_xling.convert.read.table import Layout

_ESCAPED_QUOTE = re.compile(rb'\\"[^",;\r\n]')
_UTF8_SHARE = 0.9


def find_layout(path: Path) -> Layout:
    r"""Return the layout of a table whose first line names its columns; the whole file is looked at, a block at a time.

    - The separator is ``;`` or ``,``, whichever is in the first line more often.
    - A backslash escapes if a ``\"`` stands in front of text. Where quotes are doubled that does not happen: a quote
      after a backslash is followed by another one, or ends its cell.
    - The encoding is UTF-8 if at least nine of ten lines beyond ASCII are valid in it, so that a damaged line becomes a
      bad row, and otherwise Latin-1, in which every line is valid.

    Raises:
        DataError: the file cannot be read.
    """
    separator, escaped, valid, invalid = "", False, 0, 0
    for block in blocks(path):
        if not separator:
            header = block.partition(b"\n")[0]
            separator = ";" if header.count(b";") > header.count(b",") else ","
        escaped = escaped or _ESCAPED_QUOTE.search(block) is not None
        if not block.isascii():
            lines = [line for line in block.split(b"\n") if not line.isascii()]
            good = sum(_is_utf8(line) for line in lines)
            valid, invalid = valid + good, invalid + len(lines) - good
    encoding = "utf-8" if valid >= _UTF8_SHARE * (valid + invalid) else "latin-1"
    return Layout(separator or ",", escape="\\" if escaped else None, encoding=encoding)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
