"""The page of the server in a browser: a history in, recommendations and their explanations out."""

from __future__ import annotations

import json

import pytest
from browser import Browser

_SHOWN = "[...document.querySelectorAll('#list .title')].map(title => title.textContent)"
_LIGHT = """
(() => {
  const light = color => {
    const linear = color.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255)
      .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const page = light(getComputedStyle(document.body).backgroundColor);
  const contrast = [...document.querySelectorAll("body, .quiet, .tag, label, .rank")].map(part => {
    const own = light(getComputedStyle(part).color);
    return (Math.max(page, own) + 0.05) / (Math.min(page, own) + 0.05);
  });
  return [page, Math.min(...contrast)];
})()
"""


@pytest.fixture
def browser(tmp_path, request):
    width, dark = request.param
    browser = Browser(tmp_path, width, dark=dark)
    yield browser
    browser.close()


def choose(browser, text):
    browser.run(f"""(() => {{
      const search = document.getElementById("search");
      search.value = {text!r};
      search.dispatchEvent(new Event("input", {{bubbles: true}}));
    }})()""")
    browser.wait_for("document.querySelector('#found button') !== null")
    browser.run("document.querySelector('#found button').click()")


@pytest.mark.parametrize("browser", [(390, True), (1280, False)], indirect=True, ids=["phone", "desk"])
def test_a_history_in_and_recommendations_out(address, browser, request):
    dark = "phone" in request.node.name
    browser.open(address)
    assert "24 items" in browser.wait_for(
        "/items/.test(document.getElementById('about').textContent) && document.getElementById('about').textContent"
    )
    choose(browser, "hose 3")
    browser.wait_for(f"{_SHOWN}.length === 10")
    assert browser.run("document.querySelector('#history .title').textContent").startswith("<img src=x")  # no HTML
    first = browser.run(_SHOWN)
    choose(browser, first[0])  # which is left out from now on
    browser.wait_for(f"!{_SHOWN}.includes({json.dumps(first[0])}) && {_SHOWN}.length === 10")

    browser.run("document.querySelector('#list button').click()")  # an explanation
    told = browser.wait_for("document.querySelector('.why p[lang]') && document.querySelector('.why').innerText")
    assert "<img src=x" in told or "Hemd" in told or "Nothing" in told
    assert browser.run("document.querySelectorAll('.why .bar').length") == 2
    browser.run(
        "(() => { const s = document.getElementById('sentence'); s.value = 'de'; "
        "s.dispatchEvent(new Event('change')); })()"
    )

    browser.run(
        "(() => { const s = document.getElementById('language'); s.value = 'de'; "
        "s.dispatchEvent(new Event('change')); })()"
    )
    browser.wait_for("[...document.querySelectorAll('#list .tag')].every(tag => tag.textContent === 'de')")
    browser.run(
        "(() => { const s = document.getElementById('language'); s.value = ''; "
        "s.dispatchEvent(new Event('change')); })()"
    )
    browser.run(
        "(() => { const s = document.getElementById('reader'); s.value = 'fr'; "
        "s.dispatchEvent(new Event('change')); })()"
    )
    browser.wait_for("[...document.querySelectorAll('#list .tag')].some(tag => tag.textContent === 'fr')")

    width, scrolled = browser.run("[document.documentElement.clientWidth, document.documentElement.scrollWidth]")
    assert scrolled <= width
    page, contrast = browser.run(_LIGHT)
    assert (page < 0.05) if dark else (page > 0.9)
    assert contrast > 4.5
    while browser.run("document.querySelector('#history button') !== null"):
        browser.run("document.querySelector('#history button').click()")
    browser.wait_for(f"{_SHOWN}.length === 0")
    choose(browser, "i5")  # by its id
    browser.wait_for(f"{_SHOWN}.length === 10")
    assert browser.problems == []
