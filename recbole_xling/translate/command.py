"""Any program that reads lines and writes their translations, such as Apertium (https://apertium.org)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from recbole_xling.encode.base import Identity
from recbole_xling.errors import TranslationError
from recbole_xling.language.model_codes import check_codes, lookup
from recbole_xling.translate.base import TRANSLATORS, Pair, check_name

_SOURCE, _TARGET = "{source}", "{target}"


class CommandTranslator:
    """A program that is run on some hundred texts at a time: UTF-8, one text per line, one translation per line.

    Line breaks inside a text are replaced by spaces. An empty line follows each text, which keeps programs from taking
    neighboring texts for one sentence: Apertium moves words from one line to the next otherwise.

    Args:
        command: program and arguments, as a list or as one text that is split like a shell would; no shell runs it.
            ``{source}`` and ``{target}`` stand for the languages. Example: ``apertium -u {source}-{target}``.
        name: what records call it; the program's name if not given. Another name starts a cache of its own: the
            program's version is not known here.
        codes: what the program calls a language, ``{"en": "eng"}``; the tag itself if not given.
        timeout: longest run of the program, in seconds.
        blank_lines: put an empty line after each text; the program has to write an empty line for it.

    Raises:
        TranslationError: an option is malformed.
    """

    def __init__(
        self,
        command: str | Sequence[str],
        *,
        name: str | None = None,
        codes: Mapping[str, str] | None = None,
        timeout: float = 600,
        blank_lines: bool = True,
    ) -> None:
        try:
            words = shlex.split(command) if isinstance(command, str) else list(command)
        except (TypeError, ValueError) as error:
            raise TranslationError(f"the command {command!r} cannot be split into words: {error}") from None
        if not words or not words[0] or not all(isinstance(word, str) and "\0" not in word for word in words):
            raise TranslationError(f"the command {command!r} must be a program and its arguments, as texts")
        self._words = words
        self._codes = check_codes(codes)
        TRANSLATORS.check_positive(whole=False, timeout=timeout)
        self._timeout = timeout
        self._blank_lines = blank_lines
        self.name = check_name(Path(self._words[0]).name if name is None else name)

    @property
    def identity(self) -> Identity:
        """Everything that changes the translations but the program itself."""
        return {
            "backend": "command",
            "name": self.name,
            "command": json.dumps(self._words, ensure_ascii=False),
            "codes": json.dumps(self._codes, sort_keys=True, ensure_ascii=False),
            "blank_lines": self._blank_lines,
        }

    def check_pairs(self, pairs: Collection[Pair]) -> None:
        """Raise :class:`TranslationError` if the program is missing or the command lacks a placeholder it needs."""
        for place, (placeholder, what) in enumerate([(_SOURCE, "from"), (_TARGET, "into")]):
            languages = sorted({pair[place] for pair in pairs})
            if len(languages) > 1 and not any(placeholder in word for word in self._words):
                raise TranslationError(
                    f"the command '{shlex.join(self._words)}' has no {placeholder}, but is to translate {what} "
                    f"{', '.join(languages)}: put {placeholder} in place of the language, or choose one language"
                )
        for source, target in pairs:
            program = self._command(source, target)[0]
            if shutil.which(program) is None:
                raise TranslationError(f"the program '{program}' was not found: install it, or give its path")

    def translate(self, texts: Sequence[str], source: str, target: str) -> list[str]:
        """Return one translation per text; see :class:`Translator`.

        Raises:
            TranslationError: the program is missing, fails, runs too long, or writes another number of lines.
        """
        if not texts:
            return []
        words, end = self._command(source, target), "\n\n" if self._blank_lines else "\n"
        output = self._run(words, "".join(" ".join(text.splitlines()) + end for text in texts).encode())
        try:
            lines = output.decode().removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            raise TranslationError(f"the output of '{shlex.join(words)}' is not UTF-8: set its encoding") from None
        expected = len(texts) * len(end)
        if len(lines) != expected or (self._blank_lines and any(line.strip() for line in lines[1::2])):
            advice = " (empty ones for empty ones; blank_lines=False leaves these out)" if self._blank_lines else ""
            raise TranslationError(
                f"'{shlex.join(words)}' wrote {len(lines)} lines for {expected}: it must write one line for each line "
                f"it reads{advice}"
            )
        return [line.strip() for line in lines[:: len(end)]]

    def _command(self, source: str, target: str) -> list[str]:
        codes = {_SOURCE: lookup(self._codes, source) or source, _TARGET: lookup(self._codes, target) or target}
        words = self._words
        for placeholder, code in codes.items():
            words = [word.replace(placeholder, code) for word in words]
        return words

    def _run(self, words: list[str], data: bytes) -> bytes:
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except OSError as error:
            raise TranslationError(f"cannot run '{shlex.join(words)}': {error.strerror or error}") from None
        with process:
            try:
                output, errors = process.communicate(data, timeout=self._timeout)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise TranslationError(
                    f"'{shlex.join(words)}' ran longer than timeout={self._timeout} seconds: raise it, or fix the "
                    "program"
                ) from None
            except BaseException:
                _kill(process)
                raise
        if process.returncode:
            said = errors.decode(errors="replace").strip()[-300:] or "it said nothing"
            raise TranslationError(f"'{shlex.join(words)}' ended with code {process.returncode}: {said}")
        return output


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and those it has started, which would keep its pipes open."""
    with suppress(ProcessLookupError):  # it has just ended
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
