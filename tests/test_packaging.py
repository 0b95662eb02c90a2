"""What is declared for installation is what is there."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from recbole_xling.utils.paths import package_folder

ROOT = Path(__file__).resolve().parent.parent

if not (ROOT / "setup.cfg").is_file():
    pytest.skip("not a checkout", allow_module_level=True)


def test_setup_cfg_declares_every_package():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    declared = set(setup["options"]["packages"].split())
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "recbole_xling").rglob("*.py")}
    mapped = {"recbole_xling.datasets", "recbole_xling.properties"}
    assert declared == found | mapped


def test_bundled_settings_and_titles_are_found():
    assert (package_folder("properties") / "model" / "LLMSASRec.yaml").is_file()
    assert (package_folder("datasets") / "ml-100k-xling" / "titles.tsv").is_file()


def test_bundled_titles_cover_600_films_in_seven_languages_and_more():
    rows = (package_folder("datasets") / "ml-100k-xling" / "titles.tsv").read_text(encoding="utf-8").splitlines()[1:]
    titles = [row.split("\t") for row in rows]
    assert len({(movie, language) for movie, language, _ in titles}) == len(titles)
    assert len({movie for movie, _, _ in titles}) >= 600
    assert {"de", "es", "fr", "it", "pt", "ja", "zh"} <= {language for _, language, _ in titles}
