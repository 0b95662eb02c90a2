from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from dumps.ml100k import write_table

from recbole_xling.convert.base import Item, SourceText, User
from recbole_xling.convert.reading.rejects import Rejects
from recbole_xling.convert.sources.ml100k import MovieLens100K, display_language, english_title
from recbole_xling.convert.writing.dataset import write_dataset
from recbole_xling.errors import ConfigError, DataError
from recbole_xling.text.raw_tables import table_rows
from recbole_xling.text.record import ItemText
from recbole_xling.text.store import ItemTextStore, find_item_text
from recbole_xling.text.template import TextTemplate
from recbole_xling.utils.paths import package_folder

LANGUAGES = ("de", "es", "fr", "it", "ja", "pt", "zh")
GENRES = [
    *("Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
]


@pytest.fixture
def rejects(tmp_path: Path) -> Rejects:
    return Rejects(tmp_path / "rejects.jsonl")


@pytest.fixture
def made(tmp_path: Path) -> MovieLens100K:
    """Five films, two users, three ratings."""
    source, tables = tmp_path / "source", tmp_path / "tables"
    write_table(
        source / "ml-100k.item",
        "item_id:token|movie_title:token_seq|release_year:token|class:token_seq",
        "1|Big Blue, The (Grand bleu, Le)|1988|Adventure Drama",
        "2|unkonwn|unkonwn|unknown",
        "3|Misérables, Les|1995|Drama",
        "4|Kolya|1996|Drama",
        "5|Alien (a) (b)|V|Horror",
    )
    write_table(source / "ml-100k.user", "user_id:token|age:token|gender:token|occupation:token|zip_code:token",
                "7|24|M|technician|T8H1N", "8|53|F|none|09043")  # fmt: skip
    write_table(source / "ml-100k.inter", "user_id:token|item_id:token|rating:float|timestamp:float",
                "8|5|3|881250949", "7|1|4.5|881250948", "8|4|1|881250947")  # fmt: skip
    write_table(tables / "titles.tsv", "movie_id|language|title", "1|fr|Le Grand Bleu", '1|de|"Im Rausch der Tiefe"',
                "3|en|Les Miserables", "4|cs|Kolja", "4|ja|コーリャ", "99|de|Nicht da")  # fmt: skip
    write_table(tables / "original_languages.tsv", "movie_id|language", "1|fr", "3|fr", "4|cs")
    write_table(tables / "genres.tsv", "genre|en|fr|de|ja", "Adventure|Adventure|Aventure|Abenteuer|",
                "Drama|Drama|Drame|Drama|ドラマ", "Horror|Horror|Épouvante|Horror|ホラー")  # fmt: skip
    return MovieLens100K(input=source, tables=tables)


def test_films_have_a_text_for_each_title_they_are_known_by(made: MovieLens100K, rejects: Rejects) -> None:
    assert list(made.texts(rejects)) == [
        SourceText("1", "fr", {"title": "Le Grand Bleu", "year": "1988", "genres": "Aventure, Drame"}, "display"),
        SourceText(
            "1", "de", {"title": '"Im Rausch der Tiefe"', "year": "1988", "genres": "Abenteuer, Drama"}, "parallel"
        ),
        SourceText("1", "en", {"title": "The Big Blue", "year": "1988", "genres": "Adventure, Drama"}, "parallel"),
        SourceText("2", "en", {"title": "unkonwn"}, "display"),
        SourceText("3", "en", {"title": "Les Miserables", "year": "1995", "genres": "Drama"}, "display"),
        SourceText("4", "cs", {"title": "Kolja", "year": "1996"}, "display"),
        SourceText("4", "en", {"title": "Kolya", "year": "1996", "genres": "Drama"}, "parallel"),
        SourceText("4", "ja", {"title": "コーリャ", "year": "1996", "genres": "ドラマ"}, "parallel"),
        SourceText("5", "en", {"title": "Alien", "genres": "Horror"}, "display"),
    ]


def test_items_interactions_and_users_are_those_of_the_source(made: MovieLens100K, rejects: Rejects) -> None:
    assert list(made.items(rejects)) == [
        Item("1", "fr", {"release_year": "1988", "genres": ("Adventure", "Drama")}),
        Item("2", "en", {"release_year": "", "genres": ("unknown",)}),
        Item("3", "en", {"release_year": "1995", "genres": ("Drama",)}),
        Item("4", "cs", {"release_year": "1996", "genres": ("Drama",)}),
        Item("5", "en", {"release_year": "", "genres": ("Horror",)}),
    ]
    (frame,) = made.interactions(rejects)
    assert frame.select("line", "user_id", "item_id", "rating", "timestamp").rows() == [
        (2, "8", "5", 3.0, 881250949.0),
        (3, "7", "1", 4.5, 881250948.0),
        (4, "8", "4", 1.0, 881250947.0),
    ]
    assert list(made.users(rejects))[1] == User(
        "8", {"age": "53", "gender": "F", "occupation": "none", "zip_code": "09043"}
    )


def test_users_get_languages_by_a_hash_of_their_id(tmp_path: Path, rejects: Rejects) -> None:
    drawn = [
        [user.features["user_language"] for user in MovieLens100K(reader_language={"en": 1, "ja": 1}).users(rejects)]
        for _ in range(2)
    ]
    assert drawn[0] == drawn[1]
    assert set(drawn[0]) == {"en", "ja"}
    assert 420 < drawn[0].count("ja") < 520  # of 943
    assert "user_language" not in next(MovieLens100K().users(rejects)).features


@pytest.mark.parametrize(
    ("shares", "message"), [({"en": 1, "sw": 1}, "language of titles 'sw'"), ({"en": 0}, "positive")]
)
def test_reader_languages_that_make_no_sense_are_refused(
    rejects: Rejects, shares: dict[str, float], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        next(MovieLens100K(reader_language=shares).items(rejects))


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Toy Story", "Toy Story"),
        ("English Patient, The", "The English Patient"),
        ("Fish Called Wanda, A", "A Fish Called Wanda"),
        ("Unforgettable Summer, An", "An Unforgettable Summer"),
        ("Adventures of Priscilla, Queen of the Desert, The", "The Adventures of Priscilla, Queen of the Desert"),
        ("Enfer, L'", "L'Enfer"),
        ("Boot, Das", "Das Boot"),
        ("Postino, Il", "Il Postino"),
        ("Mariachi, El", "El Mariachi"),
        ("Misérables, Les", "Les Misérables"),
        ("City of Lost Children, The (Cité des enfants perdus, La)", "The City of Lost Children"),
        ("Cité des enfants perdus, La (City of Lost Children, The)", "La Cité des enfants perdus"),
        ("Mrs. Brown (Her Majesty, Mrs. Brown)", "Mrs. Brown"),
        ("Paris, Texas", "Paris, Texas"),
        ("I Love You, I Love You Not", "I Love You, I Love You Not"),
        ("(Bracketed)", "(Bracketed)"),
        (
            "Land Before Time III: The Time of the Great Giving (1995)",
            "Land Before Time III: The Time of the Great Giving",
        ),
    ],
)
def test_an_english_title_has_its_article_in_front_and_no_brackets(title: str, expected: str) -> None:
    assert english_title(title) == expected


def test_display_language_is_the_original_one_where_its_title_is_known() -> None:
    titles = dict.fromkeys([*LANGUAGES, "en"], "x")
    assert {display_language(str(i), titles, "it") for i in range(50)} == {"it"}
    assert {display_language(str(i), titles, "sv") for i in range(200)} == set(titles)
    assert {display_language(str(i), {"en": "x"}, "sv") for i in range(50)} == {"en"}


def test_display_languages_are_spread_evenly() -> None:
    titles = dict.fromkeys(["en", *LANGUAGES], "x")
    shown = Counter(display_language(str(i), titles) for i in range(4000))
    assert 0.37 < shown["en"] / 4000 < 0.43
    assert set(shown) == {"en", *LANGUAGES}
    assert all(0.06 < shown[language] / 4000 < 0.12 for language in LANGUAGES)


def test_a_new_title_moves_a_film_only_to_its_own_language() -> None:
    few = dict.fromkeys(["en", *LANGUAGES[:-1]], "x")
    moved: Counter[str] = Counter()
    for i in range(500):
        before = display_language(str(i), few)
        after = display_language(str(i), few | {"zh": "x"})
        assert after == display_language(str(i), {"zh": "x", **dict(reversed(few.items()))})
        if after != before:
            assert before != "en"
            moved[after] += 1
    assert set(moved) == {"zh"}


@pytest.mark.parametrize(
    ("table", "rows", "message"),
    [
        (
            "titles.tsv",
            ["movie_id|language|title", "1|de|a", "1|de|b"],
            r"titles\.tsv:3: film 1 has two titles in 'de'",
        ),
        ("titles.tsv", ["movie_id|language|title", "1|german|a"], r"titles\.tsv:2: language 'german'"),
        ("titles.tsv", ["movie_id|language|title", "1|de| "], r"titles\.tsv:2: the title is empty"),
        ("titles.tsv", ["1|de|a"], r"titles\.tsv: no column 'movie_id'"),
        ("original_languages.tsv", ["movie_id|language", "1|de", "1|fr"], r"languages\.tsv:3: film 1 has two original"),
        ("genres.tsv", ["genre|en", "Drama|Drama"], r"genres\.tsv: genre 'Adventure' has no row"),
    ],
)
def test_wrong_tables_are_named(
    made: MovieLens100K, rejects: Rejects, table: str, rows: list[str], message: str
) -> None:
    write_table(made.tables / table, *rows)
    with pytest.raises(DataError, match=message):
        list(made.texts(rejects))


def test_missing_files_are_an_error_and_wrong_numbers_bad_rows(
    made: MovieLens100K, rejects: Rejects, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"file .*titles\.tsv does not exist"):
        list(MovieLens100K(input=made.folder, tables=tmp_path).items(rejects))
    write_table(made.folder / "ml-100k.inter", "user_id:token|item_id:token|rating:float|timestamp:float", "1|1|good|1")
    assert list(made.interactions(rejects)) == []
    assert rejects.reasons == {"no number in column 'rating:float'": 1}


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dataset made of RecBole's MovieLens-100k and a title in every language for films 1 to 1000."""
    root = tmp_path_factory.mktemp("real")
    titles = [f"{i}|{language}|{language} {i}" for i in range(1, 1001) for language in LANGUAGES]
    write_table(root / "tables" / "titles.tsv", "movie_id|language|title", *titles)
    write_table(root / "tables" / "original_languages.tsv", "movie_id|language", "14|it", "1682|de")
    header = "|".join(["genre", "en", *LANGUAGES])
    names = ["|".join([genre, genre, *(f"{genre}-{language}" for language in LANGUAGES)]) for genre in GENRES]
    write_table(root / "tables" / "genres.tsv", header, *names)
    was_imported = "recbole" in sys.modules
    report = write_dataset(MovieLens100K(tables=root / "tables"), root, "ml-100k-xling", show_progress=False)
    assert ("recbole" in sys.modules) == was_imported
    assert (report.users, report.items, report.interactions, report.rejected) == (943, 1682, 100_000, {})
    assert report.texts_per_language == {"en": 1682} | dict.fromkeys(LANGUAGES, 1000)
    return root


@pytest.mark.parametrize(
    ("suffix", "rows", "first", "tenth", "last"),
    [
        ("inter", 100_000, "196|242|3|881250949", "6|86|3|883603013", "12|203|3|879959583"),
        ("user", 943, "1|24|M|technician|85711", "10|53|M|lawyer|90703", "943|22|M|student|77841"),
        ("item", 1682, "1|{}|1995|Animation Children's Comedy", "10|{}|1995|Drama War", "1682|en|1991|Drama"),
    ],
)
def test_the_real_source_gives_all_records(
    real: Path, suffix: str, rows: int, first: str, tenth: str, last: str
) -> None:
    lines = (real / "ml-100k-xling" / f"ml-100k-xling.{suffix}").read_text(encoding="utf-8").splitlines()
    assert len(lines) == rows + 1
    shown = [display_language(str(i), dict.fromkeys(LANGUAGES, "x")) for i in (1, 10)]
    assert lines[1] == first.replace("|", "\t").format(shown[0])
    assert lines[10] == tenth.replace("|", "\t").format(shown[1])
    assert lines[-1] == last.replace("|", "\t")


def test_the_real_source_gives_texts_in_all_languages(real: Path) -> None:
    store = ItemTextStore.load(real / "ml-100k-xling" / "ml-100k-xling.itemtext.jsonl")
    assert len(store) == 1682
    assert store.text("1", "en") is not None
    displayed = [store.display(item_id) for item_id in store]
    assert all(text is not None for text in displayed)
    shown = Counter(text.language for text in displayed[:1000] if text is not None)
    assert 0.34 < shown["en"] / 1000 < 0.46
    assert all(0.05 < shown[language] / 1000 < 0.13 for language in LANGUAGES)
    assert {text.language for text in displayed[1000:] if text is not None} == {"en"}
    assert store.display("14") == ItemText(
        "14", "it", {"title": "it 14", "year": "1994", "genres": "Drama-it, Romance-it"}, "display"
    )
    assert store.display("1682") == ItemText(
        "1682", "en", {"title": "Scream of Stone", "year": "1991", "genres": "Drama"}, "display"
    )
    assert len(store.parallel("14")) == 7


def test_the_same_source_gives_the_same_files(real: Path, tmp_path: Path) -> None:
    write_dataset(MovieLens100K(tables=real / "tables"), tmp_path, "ml-100k-xling", show_progress=False)
    for path in (real / "ml-100k-xling").iterdir():
        assert (tmp_path / "ml-100k-xling" / path.name).read_bytes() == path.read_bytes()


TABLES = package_folder("datasets") / "ml-100k-xling"


@pytest.mark.skipif(not (TABLES / "titles.tsv").is_file(), reason="the tables are not there")
def test_the_tables_that_ship_fit_the_films(rejects: Rejects) -> None:
    converter = MovieLens100K()
    films = {item.item_id for item in converter.items(rejects)}
    for table in ("titles.tsv", "original_languages.tsv"):
        assert {movie_id for _, (movie_id,) in table_rows(TABLES / table, ["movie_id"])} <= films
    store = ItemTextStore(converter.texts(rejects))
    assert set(store) == films
    assert all(store.display(item_id) and store.text(item_id, "en") for item_id in store)
    assert {"en", *LANGUAGES} <= set(store.languages)


def test_the_dataset_loads_in_recbole_with_the_settings_that_ship(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compat = pytest.importorskip("recbole_xling.compat")
    compat.apply()
    from recbole.config import Config
    from recbole.data import create_dataset

    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.chdir(tmp_path)
    settings: dict[str, Any] = {"data_path": str(real), "checkpoint_dir": str(tmp_path), "use_gpu": False}
    properties = package_folder("properties") / "dataset" / "ml-100k-xling.yaml"
    config = Config("BPR", "ml-100k-xling", config_file_list=[str(properties)], config_dict=settings)
    dataset = create_dataset(config)
    dataset.build()
    assert (dataset.user_num, dataset.item_num, dataset.inter_num) == (944, 1683, 100_000)
    assert set(dataset.item_feat.columns) == {"item_id", "item_language", "release_year", "genres"}
    film = dataset.item_feat[int(dataset.token2id("item_id", "14"))]
    assert dataset.id2token("item_language", film["item_language"].item()) == "it"
    assert dataset.id2token("release_year", film["release_year"].item()) == "1994"
    assert [dataset.id2token("genres", genre) for genre in film["genres"].tolist() if genre] == ["Drama", "Romance"]
    unknown = dataset.item_feat[int(dataset.token2id("item_id", "267"))]
    assert dataset.id2token("release_year", unknown["release_year"].item()) == "[PAD]"

    store = find_item_text(real / "ml-100k-xling", "ml-100k-xling", config["text_fields"])
    text = store.display("14")
    assert text is not None
    assert TextTemplate(config["text_template"]).render(text.fields) == "it 14 (1994). Drama-it, Romance-it"
