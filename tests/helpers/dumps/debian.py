"""A package index with translations, as apt keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import md5
from pathlib import Path

from packing import pack

ARCHIVE = "deb.debian.org_debian_dists_bookworm_main_"

SHORT = {
    "2ping": "Ping utility",
    "chess": "Play chess\n A game for two.\n .\n Rules:\n  * white begins",
    "chess-doc": "Rules of chess",
    "go": "Board game",
    "gimp": "Image editor\n Paints.",
    "krita": "Pixel-based image manipulation",
    "vim": "Editor",
}
ITALIAN = {
    "chess": "Gioca a scacchi\n Per due.",
    "go": "Gioco da tavolo",
    "gimp": "Editor di immagini",
    "krita": "Manipolazione di immagini",
    "vim": "Editore",
}
PORTUGUESE = {"chess": "Jogue xadrez", "vim": "Editor de texto"}

PACKAGES = f"""Package: 2ping
Section: net
Recommends: chess (>= 1.0), chess-doc | go, perl:any, go
Suggests: chess, gimp [amd64], vim <!nocheck>
Tag: interface::commandline, role::program,
 works-with::network-traffic
Description: Ping utility
Description-md5: {md5(b"Ping utility" + bytes([10])).hexdigest()}

Package: chess
Section: games
Suggests: chess-doc, go, gimp, krita
Description: Play chess
Description-md5: {md5(SHORT["chess"].encode() + bytes([10])).hexdigest()}

Package: chess-doc
Source: chess (1.0-2)
Section: doc
Recommends: chess
Description: Rules of chess

Package: go
Section: games
Recommends: chess, gimp
Description: {SHORT["go"]}

Package: gimp
Section: graphics
Suggests: krita,
 vim,
 go
Description: {SHORT["gimp"]}

Package: krita
Section: graphics
Recommends: gimp
Description: {SHORT["krita"]}

Package: vim
Section: editors
Description: {SHORT["vim"]}
"""


def translation(tag: str, texts: Mapping[str, str], digests: Mapping[str, str] | None = None) -> str:
    """Return a file of translations; ``digests`` are those of English descriptions that are not the present ones."""
    present = {name: md5(f"{text}\n".encode()).hexdigest() for name, text in SHORT.items()}
    digests = {**present, **(digests or {})}
    paragraphs = (f"Package: {n}\nDescription-md5: {digests[n]}\nDescription-{tag}: {t}\n" for n, t in texts.items())
    return "\n".join(paragraphs)


def write(folder: Path, suffix: str = "") -> None:
    """Write the files with the names that apt gives them, compressed as the suffix says."""
    english = {name: SHORT[name] for name in ("2ping", "chess", "gimp", "krita", "vim")}
    files = {
        "binary-amd64_Packages": PACKAGES,
        "i18n_Translation-en": translation("en", english),
        "i18n_Translation-it": translation("it", ITALIAN),
        "i18n_Translation-pt_BR": translation("pt_BR", PORTUGUESE),
    }
    for name, content in files.items():
        (folder / f"{ARCHIVE}{name}{suffix}").write_bytes(pack(content.encode(), suffix))
    (folder / "lock").touch()
    (folder / "deb.debian.org_debian_dists_bookworm_InRelease").write_text("Origin: Debian\n")
