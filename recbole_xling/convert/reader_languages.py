"""Readers whose language is drawn: an experiment in which groups of readers differ in nothing but their language."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from hashlib import blake2b

from recbole_xling.convert.reading.numbers import written_number
from recbole_xling.errors import ConfigError
from recbole_xling.language.tags import UNDETERMINED, asked_language
from recbole_xling.utils.arguments import comma_list

_ROUNDED = 0.01  # what the sum of three shares of .333 lacks, and more


class ReaderLanguages:
    """Draws a language for readers by a hash, so that the same reader has the same one on every machine.

    Args:
        shares: positive share by language; they need not sum to 1. None for no language at all.
        by: what is hashed, as a reader of the report understands it.

    Raises:
        ConfigError: a share is not positive, or a language is not a tag.
    """

    def __init__(self, shares: Mapping[str, float] | None, by: str) -> None:
        shares = shares or {}
        if any(share <= 0 for share in shares.values()):
            raise ConfigError("--reader-language needs a positive share of each language, as in it=.5,da=.5")
        whole = sum(shares.values())
        self.shares = {asked_language(tag): share / whole for tag, share in shares.items()}
        self.by = by

    @staticmethod
    def add_argument(parser: argparse._ArgumentGroup, by: str) -> None:
        """Declare ``--reader-language``."""
        explanation = (
            f"a controlled experiment: give users a language by a hash of {by}, with these shares (de=.3,it=.2,da=.5)"
        )
        parser.add_argument("--reader-language", type=_shares, metavar="SHARES", help=explanation)

    def draw(self, key: str, of: str = "reader") -> str:
        """Return the language of what ``key`` names; ``of`` tells apart several draws for the same key."""
        place = int.from_bytes(blake2b(f"{of}\t{key}".encode(), digest_size=8).digest(), "big") / 2**64
        below = 0.0
        for language, share in self.shares.items():
            below += share
            if place < below:
                return language
        return next(reversed(self.shares), UNDETERMINED)  # shares may sum to a little less than 1

    def note(self) -> str:
        """Say in the report of a conversion what these languages are."""
        shares = ", ".join(f"{tag} {share:.0%}" for tag, share in self.shares.items())
        return (
            f"a controlled experiment: users' languages ({shares}) are drawn by a hash of {self.by}, and tell nothing "
            "about real readers"
        )


def _shares(text: str) -> dict[str, float]:
    shares: dict[str, float] = {}
    for word in comma_list(text):
        tag, equals, number = word.partition("=")
        share = written_number(number)
        if not (tag and equals) or share is None or tag in shares:
            raise argparse.ArgumentTypeError(f"{text!r} is not written like de=.3,it=.7, each language once")
        shares[tag] = share
    if shares and abs(sum(shares.values()) - 1) > _ROUNDED:
        raise argparse.ArgumentTypeError(f"the shares in {text!r} must sum to 1, not {sum(shares.values()):g}")
    return shares
