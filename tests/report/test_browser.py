"""The pages as a browser shows them: on a phone and on a desk, light and dark."""

from __future__ import annotations

import pytest
from browser import find_browser, look_at

from recbole_xling.card import build_card, write_card
from recbole_xling.quick_start.report import report


@pytest.fixture(scope="module")
def pages(finished, finished_bpr, shop_settings, tmp_path_factory):
    find_browser()
    folder = tmp_path_factory.mktemp("pages")
    _, card = write_card(build_card(f"{shop_settings['data_path']}/shop", "shop"), folder)
    return {
        "one": report([finished], folder / "one.html"),
        "two": report([finished, finished_bpr], folder / "two.html"),
        "card": card,
    }


@pytest.mark.parametrize("page", ["one", "two", "card"])
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [True, False])
def test_plots_are_there_and_nothing_goes_wrong(pages, tmp_path, page, width, dark):
    seen = look_at(pages[page], tmp_path, width, dark=dark)
    assert seen["problems"] == []
    assert seen["scrolled"] <= seen["width"] == width
    assert len(seen["plots"]) == seen["figures"] >= 5
    for plot in seen["plots"]:
        assert plot["marks"] and plot["height"] > 100 and plot["cut"] == plot["overlaps"] == []
        assert plot["left"] >= 0 and plot["right"] <= width
    assert (seen["page"] < 0.05) if dark else (seen["page"] > 0.9)
    assert seen["contrast"] > 7 and seen["faintest"] > 4.5


def test_what_is_wrong_with_a_page_is_noticed(tmp_path):
    page = tmp_path / "wrong.html"
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'unsafe-inline'\">"
    wide = "<div style='width: 900px'>wide</div><img src='http://192.0.2.1/a.png'>"
    script = "<script>console.error('told'); nothing.there</script>"
    page.write_text(f"<!DOCTYPE html><html><head>{policy}</head><body>{wide}{script}</body></html>")
    seen = look_at(page, tmp_path, 390, dark=False)
    assert seen["scrolled"] > 800
    assert len(seen["problems"]) >= 3 and any("192.0.2.1" in problem for problem in seen["problems"])
