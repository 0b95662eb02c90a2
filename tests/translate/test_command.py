"""Programs that read lines and write lines: what they are given, and every way in which they go wrong."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from recbole_xling.errors import TranslationError
from recbole_xling.translate import Translator, create_translator, translator_names

UPPER = "import sys\nfor line in sys.stdin.buffer: sys.stdout.buffer.write(line.decode().upper().encode())"


def program(code: str, *arguments: str, **options: object) -> Translator:
    return create_translator("command", command=[sys.executable, "-c", code, *arguments], **options)


def test_a_program_gets_one_line_per_text_whatever_is_in_it() -> None:
    texts = ["straße", "two\nlines", "a\r\nb\x0bc\x85d\u2028e", "  x\n", "七人の侍", '"; rm {x}']
    expected = ["STRASSE", "TWO LINES", "A B C D E", "X", "七人の侍", '"; RM {X}']
    assert program(UPPER).translate(texts, "de", "es") == expected
    assert program(UPPER, blank_lines=False).translate(texts, "de", "es") == expected
    assert program(UPPER).translate([], "de", "es") == []


def test_empty_lines_keep_a_program_from_joining_texts() -> None:
    # like Apertium it moves words within a paragraph
    turns = "import sys; blocks = sys.stdin.read().split('\\n\\n')\n"
    turns += "sys.stdout.write('\\n\\n'.join('\\n'.join(reversed(block.strip().split('\\n'))) for block in blocks))"
    assert program(turns).translate(["a", "b", "c"], "de", "es") == ["a", "b", "c"]
    assert program(turns, blank_lines=False).translate(["a", "b", "c"], "de", "es") == ["c", "b", "a"]


def test_a_program_gets_more_lines_than_fit_in_a_pipe() -> None:
    texts = [f"text {number} {'x' * 200}" for number in range(5000)]
    assert program(UPPER).translate(texts, "de", "es") == [text.upper() for text in texts]


def test_placeholders_of_a_command_are_replaced_by_languages() -> None:
    echo = "import sys; sys.stdin.read(); print(' '.join(sys.argv[1:])); print()"
    system = program(echo, "{source}-{target}", "-x={target}", "{other}", codes={"en": "eng", "es": "spa"})
    assert system.translate(["a"], "en-GB", "fr") == ["eng-fr -x=fr {other}"]


def test_a_command_is_split_like_a_shell_would_but_no_shell_runs_it(tmp_path: Path) -> None:
    echo = "import sys; sys.stdin.read(); print(sys.argv[1:]); print()"
    command = f"""{sys.executable} -c "{echo}" 'a b' ; touch {tmp_path}/made > $HOME"""
    made = create_translator("command", command=command).translate(["a"], "en", "es")
    assert made == [str(["a b", ";", "touch", f"{tmp_path}/made", ">", "$HOME"])]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "options", "message"),
    [
        ("print('a')", {}, "wrote 1 lines for 4"),
        (UPPER + "\nprint()", {}, "wrote 5 lines for 4"),
        ("pass", {"blank_lines": False}, "wrote 1 lines for 2"),
        ("import sys; sys.stdin.read(); print('a\\nb\\nc\\nd')", {}, "blank_lines=False"),
        ("import sys; sys.exit('no such pair')", {}, "ended with code 1: no such pair"),
        ("import os; os._exit(3)", {}, "ended with code 3: it said nothing"),
        ("import sys; sys.stdin.read(); sys.stdout.buffer.write(b'\\xff\\n\\n\\n\\n')", {}, "not UTF-8"),
        ("import time; time.sleep(60)", {"timeout": 0.3}, "ran longer than timeout=0.3 seconds"),
    ],
)
def test_a_failing_program_is_reported_with_what_it_did_wrong(
    code: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(TranslationError, match=message):
        program(code, **options).translate(["a", "b"], "de", "es")


def test_a_program_that_runs_too_long_is_ended_with_all_it_has_started(tmp_path: Path) -> None:
    child = "import os, subprocess, sys, pathlib\n"
    child += "process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    child += "pathlib.Path(sys.argv[1]).write_text(str(process.pid)); process.wait()"
    note = tmp_path / "pid"
    with pytest.raises(TranslationError, match="ran longer"):
        program(child, str(note), timeout=2).translate(["a"], "de", "es")
    pid = int(note.read_text())
    for _ in range(50):  # until the system has cleaned up
        if not _runs(pid):
            break
        time.sleep(0.1)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    return not state.is_file() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_missing_program_is_named() -> None:
    system = create_translator("command", command="no-such-program {source}-{target}")
    with pytest.raises(TranslationError, match="the program 'no-such-program' was not found"):
        system.check_pairs([("en", "es")])
    with pytest.raises(TranslationError, match="cannot run 'no-such-program en-es': No such file"):
        system.translate(["a"], "en", "es")


def test_a_command_for_one_pair_is_not_used_for_others() -> None:
    program(UPPER).check_pairs([("en", "es")])
    with pytest.raises(TranslationError, match=r"has no \{source\}, but is to translate from de, en"):
        program(UPPER, "{target}").check_pairs([("en", "es"), ("de", "es")])
    with pytest.raises(TranslationError, match=r"has no \{target\}, but is to translate into es, fr"):
        program(UPPER, "{source}").check_pairs([("en", "es"), ("en", "fr")])
    program(UPPER, "{source}-{target}").check_pairs([("en", "es"), ("de", "fr")])


def test_a_translator_has_the_name_of_its_program_unless_another_is_given() -> None:
    assert create_translator("command", command="/usr/bin/apertium -u {source}-{target}").name == "apertium"
    other = create_translator("command", command="apertium eng-spa", name="apertium-3.8")
    assert other.name == "apertium-3.8"
    assert other.identity != create_translator("command", command="apertium eng-spa").identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs the option 'command'"),
        ({"command": ""}, "must be a program"),
        ({"command": []}, "must be a program"),
        ({"command": ["a", 1]}, "must be a program"),
        ({"command": "a 'b"}, "cannot be split"),
        ({"command": 7}, "cannot be split"),
        ({"command": "a", "timeout": 0}, "'timeout' is 0"),
        ({"command": "a", "name": "two words"}, "cannot be the name of a translator"),
        ({"command": "a", "codes": {"es": 1}}, "codes must be written"),
        ({"command": "a", "time_out": 1}, "Did you mean 'timeout'"),
    ],
)
def test_malformed_options_of_a_command_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(TranslationError, match=message):
        create_translator("command", **options)


def test_an_unknown_translator_is_refused_with_the_nearest_and_all_names() -> None:
    with pytest.raises(TranslationError, match=r"unknown translator 'comand'.*Did you mean 'command'") as caught:
        create_translator("comand")
    assert all(name in str(caught.value) for name in translator_names())
    with pytest.raises(TranslationError, match="names a model already"):
        create_translator("owner/name", model="other/name")
