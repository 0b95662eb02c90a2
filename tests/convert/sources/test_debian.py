"""Debian's package index in the layout of apt."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dumps.debian import ARCHIVE, PACKAGES, SHORT, translation, write
from made import lines, load_dataset

from recbole_xling.card import build_card
from recbole_xling.cli import main as cli
from recbole_xling.convert import ConvertReport, Filters
from recbole_xling.convert.sources.debian import Debian
from recbole_xling.errors import ConfigError, DataError, MissingExtraError
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore

Convert = Callable[..., ConvertReport]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "lists"
    folder.mkdir()
    write(folder)
    return folder


def histories(root: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for line in lines(root, "inter")[1:]:
        user, item, *_ = line.split("\t")
        found.setdefault(user, set()).add(item)
    return found


def users(root: Path) -> dict[str, list[str]]:
    return {line.split("\t")[0]: line.split("\t")[1:] for line in lines(root, "user")[1:]}


def texts(root: Path) -> ItemTextStore:
    return ItemTextStore.load(root / "out" / "d" / "d.itemtext.jsonl")


def text_in(root: Path, item: str, language: str) -> ItemText:
    (found,) = [text for text in texts(root).parallel(item) if text.language == language]
    return found


def test_an_index_becomes_a_dataset(source: Path, tmp_path: Path, convert: Convert) -> None:
    report = convert(Debian(input=source))
    assert (report.users, report.items, report.interactions, report.rejected) == (5, 7, 14, {})
    assert report.items_per_language == {"en": 7}
    assert report.texts_per_language == {"en": 7, "it": 5, "pt": 2}
    # versions, architectures and profiles do not count, and of alternatives the first does; perl is not listed
    assert histories(tmp_path) == {
        "2ping": {"chess", "chess-doc", "go", "gimp", "vim"},
        "chess": {"go", "gimp", "krita"},
        "go": {"chess", "gimp"},
        "gimp": {"krita", "vim", "go"},
        "krita": {"gimp"},
    }
    _, left_out = report.notes
    assert left_out == (
        "recommendations left out: 2 of a package built from the same source, 1 of packages that are not listed "
        "(virtual ones, for instance)"
    )
    assert lines(tmp_path, "item")[:2] == [
        "item_id:token\titem_language:token\tsection:token\tsource_package:token\ttags:token_seq",
        "2ping\ten\tnet\t2ping\tinterface::commandline role::program works-with::network-traffic",
    ]
    assert "chess-doc\ten\tdoc\tchess\t" in lines(tmp_path, "item")
    relations = {tuple(line.split("\t")[:2]): line.split("\t")[3] for line in lines(tmp_path, "inter")[1:]}
    assert relations["2ping", "chess"] == "recommends"  # the stronger one, of two
    assert relations["2ping", "gimp"] == "suggests"
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "user_language"]}
    _, dataset = load_dataset(tmp_path, columns)
    assert len(dataset.inter_feat) == 14


def test_texts_have_a_short_and_a_long_description(source: Path, tmp_path: Path, convert: Convert) -> None:
    convert(Debian(input=source))
    long = "A game for two.\n\nRules:\n* white begins"
    assert texts(tmp_path).display("chess") == ItemText(
        "chess", "en", {"title": "Play chess", "description": long}, "display"
    )
    assert texts(tmp_path).display("go") == ItemText("go", "en", {"title": "Board game"}, "display")
    italian = ItemText("chess", "it", {"title": "Gioca a scacchi", "description": "Per due."}, "parallel")
    assert text_in(tmp_path, "chess", "it") == italian


def test_the_order_is_by_chance_and_said_to_be(source: Path, tmp_path: Path, convert: Convert) -> None:
    report = convert(Debian(input=source))
    first = lines(tmp_path, "inter")
    assert report.arbitrary_order
    assert report.notes[0].startswith("no times in the source")
    warnings = {warning.name: warning.message for warning in build_card(tmp_path / "out" / "d", "d").warnings}
    assert "hash" in warnings["arbitrary_order"]
    path = source / f"{ARCHIVE}binary-amd64_Packages"
    path.write_text(PACKAGES.replace("go, gimp, krita", "krita, gimp, go"))
    convert(Debian(input=source))
    assert sorted(lines(tmp_path, "inter")) == sorted(first)  # another order of the list, the same time stamps


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2"])
def test_files_may_be_compressed(suffix: str, source: Path, tmp_path: Path, convert: Convert) -> None:
    convert(Debian(input=source))
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out" / "d").iterdir()}
    packed = tmp_path / "packed"
    packed.mkdir()
    write(packed, suffix)
    convert(Debian(input=packed))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "d").iterdir()} == expected


def test_lz4_needs_a_package_and_is_read_with_it(
    source: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = source / f"{ARCHIVE}binary-amd64_Packages"
    content = plain.read_bytes()
    plain.unlink()
    (source / f"{plain.name}.lz4").write_bytes(b"\x04\x22\x4d\x18 packed")
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(MissingExtraError, match=r"the package 'lz4': pip install 'recbole-xling\[lz4\]'"):
        convert(Debian(input=source))
    frames = ModuleType("lz4.frame")
    unpacked = source / "unpacked"
    unpacked.write_bytes(content)
    frames.open = lambda raw: unpacked.open("rb")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lz4", ModuleType("lz4"))
    monkeypatch.setitem(sys.modules, "lz4.frame", frames)
    assert convert(Debian(input=source)).interactions == 14


def test_a_file_that_is_there_twice_is_read_once(source: Path, convert: Convert) -> None:
    write(source, ".xz")
    report = convert(Debian(input=source))
    assert (report.users, report.items, report.interactions) == (5, 7, 14)
    assert len(report.notes) == 2


def test_packages_listed_again_are_counted(source: Path, convert: Convert) -> None:
    (source / f"{ARCHIVE}binary-i386_Packages").write_text(PACKAGES)
    report = convert(Debian(input=source))
    assert (report.items, report.interactions) == (7, 14)
    assert report.notes[-1].startswith("7 packages are listed again")


def test_the_translation_of_the_present_description_is_preferred(
    source: Path, tmp_path: Path, convert: Convert
) -> None:
    old = translation("it", {"vim": "Vecchio", "krita": "Altro"}, {"vim": "0" * 32, "krita": "1" * 32})
    path = source / f"{ARCHIVE}i18n_Translation-it"
    new = translation("it", {"vim": "Editore"})
    path.write_text(f"{old}\n{new}")
    report = convert(Debian(input=source))
    assert report.texts_per_language["it"] == 2
    assert [text_in(tmp_path, name, "it").fields["title"] for name in ("vim", "krita")] == ["Editore", "Altro"]


def test_one_language_is_one_whatever_its_country(source: Path, tmp_path: Path, convert: Convert) -> None:
    (source / f"{ARCHIVE}i18n_Translation-pt").write_text(translation("pt", {"vim": "Editor (pt)", "go": "Jogo"}))
    (source / f"{ARCHIVE}i18n_Translation-zh_CN").write_text(translation("zh_CN", {"vim": "编辑器"}))
    report = convert(Debian(input=source))
    assert report.texts_per_language == {"en": 7, "it": 5, "pt": 3, "zh": 1}
    assert text_in(tmp_path, "vim", "pt").fields["title"] == "Editor (pt)"


def test_packages_are_shown_in_a_language_that_they_have(source: Path, tmp_path: Path, convert: Convert) -> None:
    report = convert(Debian(input=source, display_language="it"))
    assert report.items_per_language == {"it": 5, "en": 2}
    assert texts(tmp_path).display("vim") == ItemText("vim", "it", {"title": "Editore"}, "display")
    assert texts(tmp_path).display("chess-doc").language == "en"


def test_items_may_need_texts(source: Path, tmp_path: Path, convert: Convert) -> None:
    report = convert(Debian(input=source, require_texts=["it", "pt"]))
    assert report.items == 2
    assert histories(tmp_path) == {"2ping": {"chess", "vim"}, "go": {"chess"}, "gimp": {"vim"}}
    assert "10 of packages without the texts asked for" in report.notes[1]


def test_users_get_languages_by_their_source_package(source: Path, tmp_path: Path, convert: Convert) -> None:
    extra = "\n".join(f"Package: p{n}-{k}\nSource: p{n}\nRecommends: vim\n" for n in range(200) for k in range(2))
    path = source / f"{ARCHIVE}binary-amd64_Packages"
    path.write_text(f"{PACKAGES}\n{extra}")
    report = convert(Debian(input=source, reader_language={"it": 3, "pt_BR": 1}))
    assert "a controlled experiment: users' languages (it 75%, pt 25%)" in report.notes[1]
    languages = {user: row[0] for user, row in users(tmp_path).items()}
    drawn = [languages[f"p{n}-0"] for n in range(200)]
    assert drawn == [languages[f"p{n}-1"] for n in range(200)]
    assert set(drawn) == {"it", "pt"}
    assert 120 < drawn.count("it") < 180
    assert lines(tmp_path, "user")[0] == (
        "user_id:token\tuser_language:token\tuser_section:token\tuser_source_package:token"
    )
    assert users(tmp_path)["p7-1"][1:] == ["", "p7"]


def test_without_shares_users_have_no_language(source: Path, tmp_path: Path, convert: Convert) -> None:
    report = convert(Debian(input=source))
    assert {row[0] for row in users(tmp_path).values()} == {"und"}
    assert not any("controlled experiment" in note for note in report.notes)


def test_catalogs_may_be_disjoint(source: Path, tmp_path: Path, convert: Convert) -> None:
    names = [f"i{n}" for n in range(40)]
    items = "\n".join(f"Package: {name}\nDescription: {name}\n" for name in names)
    readers = "\n".join(f"Package: u{n}\nRecommends: {', '.join(names)}\nDescription: u\n" for n in range(20))
    (source / f"{ARCHIVE}binary-amd64_Packages").write_text(f"{items}\n{readers}")
    convert(Debian(input=source, reader_language={"it": 1, "pt": 1}, disjoint_catalogs=True))
    catalogs: dict[str, set[str]] = {"it": set(), "pt": set()}
    for user, items_of_user in histories(tmp_path).items():
        catalogs[users(tmp_path)[user][0]] |= items_of_user
    assert not catalogs["it"] & catalogs["pt"]
    assert catalogs["it"] | catalogs["pt"] == set(names)
    assert min(map(len, catalogs.values())) > 8


def test_small_histories_and_unread_packages_leave_by_the_usual_filters(
    source: Path, tmp_path: Path, convert: Convert
) -> None:
    report = convert(Debian(input=source), filters=Filters(user_core=3, item_core=1))
    assert set(histories(tmp_path)) == {"2ping", "chess", "gimp"} == set(users(tmp_path))
    assert report.items == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input": None}, "debian needs --input"),
        ({"reader_language": {"it": 0.5, "da": 0}}, "needs a positive share"),
        ({"reader_language": {"it": 1}, "disjoint_catalogs": True}, "several languages"),
        ({"require_texts": ["it", "nolanguage"]}, "nolanguage"),
    ],
)
def test_options_that_make_no_sense_are_refused(source: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Debian(**{"input": source, **options})


@pytest.mark.parametrize("options", [{"reader_language": {"it": 1, "da": 1}}, {"display_language": "da"}])
def test_a_language_without_texts_is_refused(source: Path, convert: Convert, options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"lists: unknown language of the texts 'da'.*it, pt"):
        convert(Debian(input=source, **options))


def test_a_folder_without_packages_is_refused(tmp_path: Path, convert: Convert) -> None:
    with pytest.raises(DataError, match=r"no file Packages; apt keeps its files in /var/lib/apt/lists"):
        convert(Debian(input=tmp_path))


@pytest.mark.parametrize(
    ("paragraph", "reason"),
    [
        (b"Package: x\nSection: \xff\n", "not valid utf-8"),
        (b"Package: x\n<html>\n", "a line that neither begins a field nor goes on with one"),
        (b" Package: x\n", "a line that neither begins a field nor goes on with one"),
        (b"Package: x\nPackage: y\n", "a line that neither begins a field nor goes on with one"),
        (b"Section: net\n", "nothing in field 'Package'"),
        (b"Package:\n", "nothing in field 'Package'"),
    ],
)
def test_bad_paragraphs_are_listed_and_the_others_stay(
    source: Path, tmp_path: Path, convert: Convert, paragraph: bytes, reason: str
) -> None:
    path = source / f"{ARCHIVE}binary-amd64_Packages"
    path.write_bytes(paragraph + b"\n" + PACKAGES.encode())
    report = convert(Debian(input=source), max_bad=0.2)
    assert (report.items, report.interactions, report.rejected) == (7, 14, {reason: 1})
    assert report.rows_read == 8 + 5 + 5 + 2
    (rejected,) = (tmp_path / "out" / "d" / "d.rejects.jsonl").read_text().splitlines()
    assert (json.loads(rejected)["file"], json.loads(rejected)["line"]) == (str(path), 1)


def test_a_translation_without_a_description_and_an_odd_relation_are_listed(source: Path, convert: Convert) -> None:
    path = source / f"{ARCHIVE}i18n_Translation-it"
    path.write_text(f"{path.read_text()}\nPackage: vim\nDescription-md5: {'0' * 32}\n")
    packages = source / f"{ARCHIVE}binary-amd64_Packages"
    packages.write_text(PACKAGES.replace("Recommends: gimp", "Recommends: gimp, ${misc:Recommends}"))
    report = convert(Debian(input=source), max_bad=0.2)
    assert report.rejected == {"a translation without a description": 1}
    assert report.omitted == {"a name that is none in 'recommends'": 1}
    assert report.interactions == 14


def test_the_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", "debian", "--input", str(source), "--output", str(tmp_path), "--name", "debian-it"]
    assert cli.main([*words, "--reader-language", "it=.5,pt=.5", "--require-texts", "it", "--user-core", "2"]) == 0
    out = capsys.readouterr().out
    assert "debian-it: 4 users, 5 items, 12 interactions" in out
    assert "note: a controlled experiment: users' languages (it 50%, pt 50%)" in out
    with pytest.raises(SystemExit):
        cli.main([*words, "--reader-language", "it,pt"])
    assert "is not written like de=.3,it=.7" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main([*words, "--reader-language", "it=.7,pt=.5"])
    assert "the shares in 'it=.7,pt=.5' must sum to 1, not 1.2" in capsys.readouterr().err


def test_an_english_description_needs_no_file_of_translations(tmp_path: Path, convert: Convert) -> None:
    folder = tmp_path / "mirror"
    folder.mkdir()
    whole = PACKAGES.replace("Description: Play chess\n", f"Description: {SHORT['chess']}\n")
    (folder / "Packages").write_text(whole)
    report = convert(Debian(input=folder))
    assert report.texts_per_language == {"en": 7}
    assert texts(tmp_path).display("chess").fields["description"].startswith("A game for two.")
