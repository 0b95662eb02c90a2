"""Reading text files and tables line by line, raw: without quoting rules, missing-value markers or guessing.

``pandas.read_csv`` swallows rows after a leading ``"`` and turns ``NA`` and ``null`` into missing values, which would
damage free text. Every error names file and line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from recbole_xling.errors import ConfigError, DataError

LONGEST_LINE = 1 << 24
"""Bytes of the longest line that is read: a longer one is no text."""

MISSING_WORDS = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip
"""Cells that RecBole's reader (pandas) takes for a missing value."""


def text_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    r"""Yield line number (from 1) and content of every line that is not empty; only ``\n`` and ``\r\n`` end a line.

    Raises:
        ConfigError: the encoding is unknown or not a superset of ASCII.
        DataError: the file is missing, or a line is longer than :data:`LONGEST_LINE`, contains a NUL byte or is not
            valid in the encoding.
    """
    try:
        ascii_based = b"\t\n".decode(encoding) == "\t\n"
    except LookupError:
        raise ConfigError(f"unknown text encoding '{encoding}'; use utf-8") from None
    except UnicodeDecodeError:
        ascii_based = False
    if not ascii_based:
        raise ConfigError(f"files in '{encoding}' cannot be read line by line; convert them to UTF-8")
    try:
        file = open(path, "rb")  # noqa: SIM115
    except FileNotFoundError:
        raise DataError(f"file {path} does not exist") from None
    with file:
        for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
            if len(raw) > LONGEST_LINE:
                raise DataError(f"{path}:{number}: a line of more than {LONGEST_LINE >> 20} MiB; is it a text file?")
            if b"\0" in raw:
                raise DataError(f"{path}:{number}: the line contains a NUL byte; remove it")
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: byte {error.start + 1} is not valid {encoding}; convert the file to UTF-8"
                ) from None
            line = (line.removeprefix("\ufeff") if number == 1 else line).removesuffix("\n").removesuffix("\r")
            if line:
                yield number, line


def table_columns(path: Path, *, separator: str = "\t", encoding: str = "utf-8") -> list[str]:
    """Return the column names in the first line of a table, without RecBole's types (``title:token_seq``).

    Raises:
        DataError: the file is missing or empty, or a column is named twice.
    """
    for number, line in text_lines(path, encoding):
        columns = [cell.partition(":")[0] for cell in line.split(separator)]
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise DataError(f"{path}:{number}: column '{twice[0]}' appears twice; rename one")
        return columns
    raise DataError(f"{path} is empty; its first line must name the columns")


def table_rows(
    path: Path,
    required: Sequence[str],
    *,
    optional: Sequence[str] = (),
    separator: str = "\t",
    encoding: str = "utf-8",
) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of the wanted columns for each row below the header.

    Args:
        path: a table whose first line names the columns.
        required: columns that must be there.
        optional: columns whose cells are empty strings if the table lacks them.
        separator: of the cells.
        encoding: encoding of the file.

    Raises:
        DataError: a required column is missing, or a row has more or fewer cells than the header.
    """
    columns = table_columns(path, separator=separator, encoding=encoding)
    absent = [column for column in required if column not in columns]
    if absent:
        raise DataError(f"{path}: no column '{absent[0]}'; its columns are {', '.join(columns)}")
    places = [columns.index(column) if column in columns else -1 for column in (*required, *optional)]
    lines = text_lines(path, encoding)
    next(lines)
    for number, line in lines:
        cells = line.split(separator)
        if len(cells) != len(columns):
            raise DataError(
                f"{path}:{number}: {len(cells)} cells, but the header has {len(columns)}; "
                "a text may contain neither the separator nor a line break"
            )
        yield number, [cells[place] if place >= 0 else "" for place in places]
