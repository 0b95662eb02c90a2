from __future__ import annotations

import pytest

from recbole_xling.convert.sources.film_titles import article_in_front, split_title


@pytest.mark.parametrize(
    ("text", "title", "alternatives", "year"),
    [
        ("Toy Story (1995)", "Toy Story", (), "1995"),
        ("Postino, Il (Postman, The) (1994)", "Il Postino", ("The Postman",), "1994"),
        ("From Dusk Till Dawn 2: Texas Blood Money (1999) ", "From Dusk Till Dawn 2: Texas Blood Money", (), "1999"),
        ("Babylon 5", "Babylon 5", (), ""),
        ("Death Note: Desu nôto (2006–2007)", "Death Note: Desu nôto", (), "2006"),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers", (), "1975"),
        ("Doctor Who (2005– )", "Doctor Who", (), "2005"),
        ("Das Millionenspiel (1970", "Das Millionenspiel", (), "1970"),
        ("Seven (a.k.a. Se7en) (1995)", "Seven", ("Se7en",), "1995"),
        ("Bicycle Thieves (a.k.a. The Bicycle Thief) (Ladri di biciclette) (1948)", "Bicycle Thieves",
         ("The Bicycle Thief", "Ladri di biciclette"), "1948"),
        ("City of Lost Children, The (Cité des enfants perdus, La) (1995)", "The City of Lost Children",
         ("La Cité des enfants perdus",), "1995"),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", (), "2009"),
        ("Blade Runner 2049 (2017)", "Blade Runner 2049", (), "2017"),
        ("1984 (1956)", "1984", (), "1956"),
        ("(1995)", "(1995)", (), ""),
        ("Untitled () (1999)", "Untitled", (), "1999"),
    ],
)  # fmt: skip
def test_a_title_is_taken_apart(text: str, title: str, alternatives: tuple[str, ...], year: str) -> None:
    assert split_title(text) == (title, alternatives, year)


@pytest.mark.parametrize(
    ("behind", "front"),
    [
        ("Lord of the Rings: The Return of the King, The", "The Lord of the Rings: The Return of the King"),
        ("Fish Called Wanda, A", "A Fish Called Wanda"),
        ("Avventura, L'", "L'Avventura"),
        ("Soliti ignoti, I", "I Soliti ignoti"),
        ("Mariachi, El", "El Mariachi"),
        ("Olvidados, Los", "Los Olvidados"),
        ("Boot, Das", "Das Boot"),
        ("Eneste ene, Den", "Den Eneste ene"),
        ("Paris, Texas", "Paris, Texas"),
        ("I Love You, I Love You Not", "I Love You, I Love You Not"),
    ],
)
def test_an_article_behind_the_title_goes_in_front(behind: str, front: str) -> None:
    assert article_in_front(behind) == front
