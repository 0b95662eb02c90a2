"""MovieLens latest-small, further titles, and films of TMDB."""

from __future__ import annotations

from pathlib import Path

MOVIES = """movieId,title,genres
1,Toy Story (1995),Adventure|Animation|Children
2,"Postino, Il (Postman, The) (1994)",Comedy|Drama
3,"Boot, Das (Boat, The) (1981)",Drama|War
4,Babylon 5,Sci-Fi
5,"Say ""Yes"" (2001) ",(no genres listed)
6,Amélie (2001),Comedy
7,Léon (1994),Crime
8,Run (1998),Action
9,Ran (1985),War
10,"Misérables, Les (1995)",Drama
11,Unseen (2000),Drama
"""
LINKS = "movieId,imdbId,tmdbId\n1,0114709,862\n2,0110877,11010\n3,0082096,387\n4,0105946,\n6,0211915,194\n10,1,99\n"
TITLES = "\n".join(
    [
        "movieId\tlanguage\ttitle\tis_original_language",
        "2\tes\tEl cartero\t0",
        "2\ten\tThe Postman!\t0",
        "1\tes\tToy story (juguetes)\t0",
        "3\tde\tDas Boot!\t1",
        "99\tde\tFremd\t1",
    ]
)
HEADER = "id;title;overview;release_date;vote_average"
FRENCH = "\r\n".join(
    [
        HEADER,
        "194;Le Fabuleux Destin d'Amélie Poulain;Amélie; une jeune serveuse; rêve.;2001-04-25;7.9",
        "99;'Les ''Misérables''';\"Il dit ; \"\"non\"\"\";1995-03-22;7",
    ]
)
GERMAN = "\n".join(
    [
        HEADER,
        "387;\"Das \"\"Boot\"\"; Teil 1\";'Ein U-Boot; es ist ''42''';1981-09-17;8.1",
        "broken",
        "194;Amelie;Doppelt.;2001-04-25;7",
    ]
)
ITALIAN = f"{HEADER}\n11010;Il postino;No overview found.;1994-09-22;7.6\n"


def ratings(number: int) -> list[tuple[int, int, float, int]]:
    return [(1 + i // 4, 1 + i % 10, 0.5 + i % 10 / 2, 1_000_000_000 - i) for i in range(number)]


def write_csv(folder: Path) -> None:
    """Write the CSV layout with 24 ratings, and further titles."""
    rows = "".join(f"{u},{m},{r},{t}\n" for u, m, r, t in ratings(24))
    (folder / "ratings.csv").write_text(f"userId,movieId,rating,timestamp\n{rows}")
    (folder / "movies.csv").write_text(MOVIES, encoding="utf-8")
    (folder / "links.csv").write_text(LINKS)
    (folder / "titles.tsv").write_text(TITLES)


def write_tmdb(folder: Path) -> None:
    """Write films as listed from TMDB in three languages."""
    for name, content in (("8000_french", FRENCH), ("6000_german", GERMAN), ("6000_italian", ITALIAN)):
        (folder / f"top{name}_films.csv").write_text(content, encoding="utf-8", newline="")
