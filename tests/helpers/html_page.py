"""Reading a page as a parser does."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """Collects tags, what is loaded, and the text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.policy = ""
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attributes if name in ("src", "href", "action", "data")]
        if ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = str(dict(attributes)["content"])

    def handle_data(self, data):
        if self.tags[-1:] != ["script"]:
            self.text += data
