"""What happens to files: each way of damage is drawn from a seeded generator."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from io import BytesIO
from random import Random

import polars as pl
from packing import PACKED, pack

Damage = Callable[[bytes, Random], bytes]


def cases(default: int) -> range:
    """Return the numbers of the cases that a test with random damage tries; one variable sets them for all such tests.

    ``RECBOLE_XLING_FUZZ=10000`` tries the first 10,000, ``RECBOLE_XLING_FUZZ=10000:20000`` those after them.
    """
    first, _, end = os.environ.get("RECBOLE_XLING_FUZZ", str(default)).rpartition(":")
    return range(int(first or 0), int(end))


ODD = [b"\0", b'"', b"'", b"\n", b"\r", b",", b";", b"\t", b"::", b" ", b"\xff", b"\xe2\x80\xa8", b"\xef\xbb\xbf",
       b"\\", b"\x1a", b"\x85", b"\xc3", b"{", b"[]", b"]", b"..."]  # fmt: skip
NUMBERS = [b"nan", b"inf", b"-inf", b"1e999", b"-1e400", b"-1", b"-0.0", b"9" * 40, b"1_000", b"0x10", b"1e18",
           b"1e-320", b"9" * 19, b"NA", b"null", b"None", b"", b"1,5", "١٢".encode(), b"1" * 4999]  # fmt: skip
VALUES = [None, True, [], {}, [[None]], {"a": 1}, "", " ", "\0", "\ud83d", "\t", "NA", '"', -1, 10**400, 1e308, 0.1,
          float("nan"), float("inf"), "x" * 200_000, ["a", 1, None, ["b"]]]  # fmt: skip
_LONGEST = 1_000_000
ENCODINGS = ["latin-1", "utf-16", "utf-16-le", "utf-8-sig", "utf-32", "cp037", "shift_jis"]

# ---- bytes ----------------------------------------------------------------------------------------------------


def _span(content: bytes, choice: Random, longest: int = 40) -> tuple[int, int]:
    start = choice.randrange(len(content) + 1)
    return start, min(len(content), start + choice.randint(1, longest))


def change_bytes(content: bytes, choice: Random) -> bytes:
    start, end = _span(content, choice, 4)
    return content[:start] + choice.randbytes(end - start) + content[end:]


def delete_bytes(content: bytes, choice: Random) -> bytes:
    start, end = _span(content, choice)
    return content[:start] + content[end:]


def insert_bytes(content: bytes, choice: Random) -> bytes:
    start, _ = _span(content, choice)
    return content[:start] + choice.choice([*ODD, choice.randbytes(8)]) + content[start:]


def repeat_bytes(content: bytes, choice: Random) -> bytes:
    start, end = _span(content, choice)
    return content[:end] + content[start:end] * choice.choice([1, 1, 50]) + content[end:]


def cut_off(content: bytes, choice: Random) -> bytes:
    return content[: choice.randrange(len(content) + 1)]


def blank_out(content: bytes, choice: Random) -> bytes:
    """As a crash of the file system does."""
    start, end = _span(content, choice, 200)
    return content[:start] + bytes(end - start) + content[end:]


def empty(content: bytes, choice: Random) -> bytes:
    return choice.choice([b"", b"\n", b"\0" * 100, b"\xef\xbb\xbf", b" "])


# ---- lines ----------------------------------------------------------------------------------------------------


def _lines(content: bytes) -> list[bytes]:
    return content.splitlines(keepends=True)


def delete_lines(content: bytes, choice: Random) -> bytes:
    share = choice.choice([0.1, 0.5])
    return b"".join(line for line in _lines(content) if choice.random() > share)


def repeat_lines(content: bytes, choice: Random) -> bytes:
    share, times = choice.random(), choice.choice([2, 2, 30])
    return b"".join(line * (times if choice.random() < share else 1) for line in _lines(content))


def shuffle_lines(content: bytes, choice: Random) -> bytes:
    lines = _lines(content)
    start = choice.choice([0, 1])
    return b"".join([*lines[:start], *choice.sample(lines[start:], len(lines[start:]))])


def drop_first_line(content: bytes, choice: Random) -> bytes:
    return content.partition(b"\n")[2]


def other_line_ends(content: bytes, choice: Random) -> bytes:
    return content.replace(b"\n", choice.choice([b"\r\n", b"\r", b"\n\n", b"\n\r", b" \n"]))


def _some_lines(content: bytes, choice: Random, change: Callable[[bytes], bytes]) -> bytes:
    """Change one line, some, or all of them."""
    lines = [line.removesuffix(b"\n") for line in _lines(content)]
    chosen = choice.choice([{choice.randrange(len(lines) + 1)}, {i for i in range(len(lines)) if choice.random() < 0.2},
                            set(range(len(lines)))])  # fmt: skip
    return b"".join((change(line) if i in chosen else line) + b"\n" for i, line in enumerate(lines))


# ---- cells ----------------------------------------------------------------------------------------------------


def _separator(content: bytes) -> bytes:
    head = content.partition(b"\n")[0]
    return max((b"\t", b"::", b";", b",", b" "), key=lambda separator: head.count(separator))


def drop_column(content: bytes, choice: Random) -> bytes:
    separator, number = _separator(content), choice.randrange(8)

    def drop(line: bytes) -> bytes:
        cells = line.split(separator)
        del cells[number % len(cells)]
        return separator.join(cells)

    return _some_lines(content, choice, drop)


def add_column(content: bytes, choice: Random) -> bytes:
    separator, cell = _separator(content), choice.choice([b"", b"more", b'"', b"1"])
    return _some_lines(content, choice, lambda line: line + separator + cell)


def swap_columns(content: bytes, choice: Random) -> bytes:
    separator = _separator(content)

    def swap(line: bytes) -> bytes:
        cells = line.split(separator)
        return separator.join(cells[1:] + cells[:1])

    return _some_lines(content, choice, swap)


def other_separator(content: bytes, choice: Random) -> bytes:
    separator, other = _separator(content), choice.choice([b";", b",", b"\t", b"|", b" "])
    return _some_lines(content, choice, lambda line: line.replace(separator, other))


def odd_cells(content: bytes, choice: Random) -> bytes:
    separator, cell, number = _separator(content), choice.choice([*NUMBERS, *ODD]), choice.randrange(8)

    def put(line: bytes) -> bytes:
        cells = line.split(separator)
        cells[number % len(cells)] = cell
        return separator.join(cells)

    return _some_lines(content, choice, put)


def break_quotes(content: bytes, choice: Random) -> bytes:
    kind, quote = choice.randrange(4), choice.choice([b'"', b"'", b'\\"', b'""'])
    if kind == 0:
        return content.replace(b'"', b"", choice.choice([1, -1]))
    if kind == 1:
        return content.replace(b'"', b'\\"', choice.choice([1, 2, -1]))
    separator = _separator(content)
    return _some_lines(content, choice, lambda line: line.replace(separator, separator + quote, kind - 1))


def long_cell(content: bytes, choice: Random) -> bytes:
    start, _ = _span(content, choice)
    return content[:start] + choice.choice([b"x", b"1", b'"', b"[", b"&"]) * 150_000 + content[start:]


def recode(content: bytes, choice: Random) -> bytes:
    encoding = choice.choice(ENCODINGS)
    lines = _lines(content)
    start = choice.choice([0, 0, choice.randrange(len(lines) + 1)])
    after = b"".join(lines[start:]).decode("utf-8", "replace").encode(encoding, "replace")
    return b"".join(lines[:start]) + after


# ---- JSON -----------------------------------------------------------------------------------------------------


def odd_values(content: bytes, choice: Random) -> bytes:
    """Put something else into JSON objects; other lines stay."""
    value, place, gone = choice.choice(VALUES), choice.randrange(12), choice.random() < 0.2

    def put(line: bytes) -> bytes:
        try:
            record = json.loads(line)
            key = list(record)[place % len(record)]
        except (ValueError, TypeError, ZeroDivisionError, RecursionError):
            return line
        if not isinstance(record, dict):
            return line
        if gone:
            del record[key]
        else:
            record[key] = value
        return json.dumps(record).encode()

    return _some_lines(content, choice, put)


def odd_json(content: bytes, choice: Random) -> bytes:
    """Replace lines by other JSON, or none."""
    line = choice.choice([b"[]", b"{}", b"null", b"1", b"[" * 100_000, b'{"a":' * 50_000, b"{'a': 1}", b"NaN",
                          b'"text"', b'{"asin": "B01"} {"asin": "B02"}', b"{"])  # fmt: skip
    return _some_lines(content, choice, lambda _: line)


TEXT: list[Damage] = [
    change_bytes, delete_bytes, insert_bytes, repeat_bytes, cut_off, blank_out, empty, delete_lines, repeat_lines,
    shuffle_lines, drop_first_line, other_line_ends, drop_column, add_column, swap_columns, other_separator, odd_cells,
    odd_cells, break_quotes, long_cell, recode,
]  # fmt: skip
JSON: list[Damage] = [*TEXT, odd_values, odd_values, odd_values, odd_json]

# ---- compressed files and Parquet -----------------------------------------------------------------------------


def wrong_archive(content: bytes, choice: Random) -> bytes:
    """Two files in an archive, one within another, none, or something after its end."""
    suffix = choice.choice(PACKED)
    packed = pack(content, suffix)
    made = [pack(packed, suffix), packed + choice.randbytes(20), packed + packed, pack(b"", suffix), packed[:4],
            pack(content, ".zip", names=("a", "b")), pack(content, ".zip", names=())]  # fmt: skip
    return choice.choice(made)


def other_columns(content: bytes, choice: Random) -> bytes:
    """Change the type of a Parquet column, take it away, rename it, or take away rows or cells."""
    try:
        frame = pl.read_parquet(BytesIO(content))
    except Exception:
        return content
    column = frame.columns[choice.randrange(frame.width)] if frame.width else ""
    changes: list[Callable[[], pl.DataFrame]] = [
        lambda: frame.drop(column),
        lambda: frame.rename({column: "other"}),
        lambda: frame.clear(),
        lambda: frame.with_columns(pl.when(pl.int_range(pl.len()) % 3 > 0).then(pl.col(column))),
        lambda: frame.with_columns(pl.lit(None).alias(column)),
        lambda: frame.with_columns(pl.struct(column).alias(column)),
        *(lambda v=value: frame.with_columns(v.alias(column)) for value in _other_values(column)),
    ]
    file = BytesIO()
    try:
        choice.choice(changes)().write_parquet(file)
    except pl.exceptions.PolarsError:
        return content
    return file.getvalue()


def _other_values(column: str) -> list[pl.Expr]:
    number = pl.int_range(pl.len())
    moment = pl.from_epoch(number * 10**9, time_unit="s")
    return [
        number, number.cast(pl.UInt8), number / 0, number.cast(pl.Float32), number > 3, number.cast(pl.Decimal(20, 2)),
        moment, moment.dt.date(), moment.dt.replace_time_zone("Asia/Tokyo"), pl.duration(days=number), moment.dt.time(),
        number.cast(pl.String).cast(pl.Categorical), number.cast(pl.String).cast(pl.Binary),
        pl.concat_list(number, number), pl.concat_list(number.cast(pl.String), pl.lit(None, pl.String)),
        pl.lit("\0"), pl.lit('"'), pl.lit(float("nan")), pl.lit(10**18) * number, pl.lit(b"\xff\xfe"),
    ]  # fmt: skip


BINARY: list[Damage] = [change_bytes, delete_bytes, insert_bytes, repeat_bytes, cut_off, blank_out, empty]
PARQUET: list[Damage] = [*BINARY, *[other_columns] * 8]

# ---- one file -------------------------------------------------------------------------------------------------


def damaged(name: str, content: bytes, choice: Random, *, packed: bool) -> tuple[str, bytes, str]:
    """Damage a file in one to three ways; one that may be ``packed`` is compressed, half of the time before that.

    Returns:
        Name, content, and the ways.
    """
    is_parquet = ".parquet" in name
    suffix = choice.choice(["", "", "", *PACKED]) if packed and not is_parquet else ""
    ways = PARQUET if is_parquet else JSON if ".json" in name else TEXT
    if suffix and choice.random() < 0.5:
        content, ways = pack(content, suffix), [*BINARY, wrong_archive]
        chosen = [choice.choice(ways)]
    else:
        chosen = choice.choices(ways, k=choice.randint(1, 3))
    for way in chosen:
        content = way(content, choice)[:_LONGEST]
    if suffix and ways in (TEXT, JSON):
        content = pack(content, suffix)
    return name + suffix, content, ", ".join(way.__name__ for way in chosen)
