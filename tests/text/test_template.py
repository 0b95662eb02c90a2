"""Templates: missing fields leave no debris, values are never altered."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from recbole_xling.errors import ConfigError
from recbole_xling.text.template import TextTemplate

FILM = TextTemplate("{title} ({year}). {genres}")
TOY_STORY = {"title": "Toy Story", "year": "1995", "genres": "Animation, Comedy"}


@pytest.mark.parametrize(
    ("present", "expected"),
    [
        ("title year genres", "Toy Story (1995). Animation, Comedy"),
        ("title genres", "Toy Story. Animation, Comedy"),
        ("title year", "Toy Story (1995)"),
        ("year genres", "(1995). Animation, Comedy"),
        ("title", "Toy Story"),
        ("year", "(1995)"),
        ("genres", "Animation, Comedy"),
        ("", ""),
    ],
)
def test_missing_fields_leave_no_debris(present: str, expected: str) -> None:
    fields = {name: TOY_STORY[name] for name in present.split()}
    assert FILM.render(fields) == expected
    blank = dict.fromkeys(TOY_STORY, "") | fields
    assert FILM.render(blank) == expected
    assert FILM.render(dict.fromkeys(TOY_STORY, " ") | fields) == expected


@pytest.mark.parametrize(
    "title",
    ["M*A*S*H (1970)", "{x}", "{year}", "%s {0.__class__}", '"Live" ()', "a  b", "..., --", "O'Brien ((", "七人の侍"],
)
def test_a_value_is_rendered_unaltered(title: str) -> None:
    assert FILM.render({"title": title, "year": "1970"}) == f"{title} (1970)"
    assert FILM.render({"title": title}) == title
    assert FILM.render({"genres": title}) == title
    assert FILM.render({"title": "A", "genres": title}) == f"A. {title}"


@pytest.mark.parametrize(
    ("template", "fields", "expected"),
    [
        ("{price}€ {title}", {"title": "T"}, "T"),
        ("{price}€ {title}", {"price": "3"}, "3€"),
        ("{price}€ {title}", {"price": "3", "title": "T"}, "3€ T"),
        ("{size}cm {title}", {"title": "T"}, "T"),
        ("{size} cm of {title}", {"title": "T"}, "cm of T"),
        ("{price}円 {title}", {"title": "T"}, "T"),
        ("{size}ГБ {title}", {"size": "3"}, "3ГБ"),
        ("{title}& {brand}", {"title": "T"}, "T"),
        ("{title}作者 {author}", {"title": "T"}, "T"),
        ("{title}作者 {author}", {"author": "A"}, "作者 A"),
        ("{title},{genres}", {"title": "Help!", "genres": "Comedy"}, "Help! Comedy"),
        ("{title}.{genres}", {"title": "Help", "genres": "Comedy"}, "Help.Comedy"),
        ("{title}。{genres}", {"title": "東京。", "genres": "劇"}, "東京。劇"),
    ],
)
def test_what_touches_a_field_is_left_out_with_it_and_words_are_not_glued(template, fields, expected) -> None:
    assert TextTemplate(template).render(fields) == expected


@pytest.mark.parametrize("title", ["Shall We Dance?", "...And Justice for All.", "Wait...", "Airplane!", "東京。"])
def test_punctuation_is_not_doubled_behind_a_value(title: str) -> None:
    assert FILM.render({"title": title, "genres": "Comedy"}) == f"{title} Comedy"
    assert TextTemplate("{title}.").render({"title": title}) == title


@pytest.mark.parametrize(
    "template",
    [
        "{title} ({year}). {genres}",
        "{title}, {year}. {genres}",
        "{title} - {year}: {genres}",
        "{title} [{year}; {genres}]",
        "{title} (({year}), {genres}).",
        "{title} | {year} / {genres}",
        '"{title}" {year} {genres}',
        "《{title}》（{year}）：{genres}。",
    ],
)
def test_no_subset_of_fields_leaves_debris_of_any_template(template: str) -> None:
    rendered = TextTemplate(template)
    values = {"title": "Aaa", "year": "1995", "genres": "Ggg"}
    for count in (1, 2):
        for names in combinations(values, count):
            text = rendered.render({name: values[name] for name in names})
            assert all(values[name] in text for name in names)
            assert not re.search(
                r"\(\)|\[\]|《》|（）|\"\"|\s\s|^[\s.,:;/|：-]|[\s,:;/|：-]$|[.,:;|/-]\s*[.,:;|/-]|[(\[][\s.,;)]", text
            ), text
    assert rendered.render(values) == template.format(**values)


def test_words_of_a_missing_field_are_left_out_with_it() -> None:
    template = TextTemplate("Title: {title}, directed by {director}, {minutes} min. Genres: {genres}.")
    assert template.render({"title": "A", "minutes": "90"}) == "Title: A, 90 min."
    assert template.render({"director": "B", "genres": "C"}) == "directed by B. Genres: C."
    assert template.render({"title": "A", "genres": "C"}) == "Title: A. Genres: C."


def test_double_braces_are_literal_and_unused_values_ignored() -> None:
    template = TextTemplate("{{{b}}} {a} {b}")
    assert template.fields == ("b", "a")
    assert template.render({"a": "1", "b": "2", "c": "3"}) == "{2} 1 2"


@pytest.mark.parametrize(
    "template",
    [
        "",
        "no field",
        "{}",
        "{title",
        "title}",
        "{a.b}",
        "{a[0]}",
        "{a!r}",
        "{a:>3}",
        "{0}",
        "({title}",
        "{title})",
        "{a{b}}",
    ],
)
def test_malformed_templates_are_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="text_template"):
        TextTemplate(template)


def test_a_template_that_is_not_a_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a text"):
        TextTemplate(None)  # type: ignore[arg-type]
