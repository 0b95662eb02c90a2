"""The answers of an export as tools for assistants (Model Context Protocol), over standard input and output."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from recbole_xling.errors import MissingExtraError, XlingError
from recbole_xling.serve.bodies import Alike, Asked, Sought, Wanted
from recbole_xling.serve.explanations import explain as explained
from recbole_xling.serve.served import Served

_Told = dict[str, Any]


def tools(served: Served) -> list[Callable[..., _Told]]:
    """Return the tools; what they are told to do is their documentation, and they change nothing.

    Args:
        served: what answers.
    """

    def about() -> dict[str, Any]:
        """Tell what is recommended here: the model, the number of items, and the languages of items and readers."""
        return {**served.about, **served.languages}

    def search_items(text: str, k: int = 10, reader: str | None = None) -> dict[str, Any]:
        """Find ids of items by words of their titles. reader: a language tag such as de, in which titles are read."""
        sought = Sought(text=text, k=k, reader=reader)
        found = served.recommender.search_titles(sought.text, sought.k, reader=sought.reader)
        return {"items": [{"item": item.item, "title": item.title, "language": item.language} for item in found]}

    def recommend(
        history: list[str], k: int = 10, reader: str | None = None, languages: list[str] | None = None
    ) -> dict[str, Any]:
        """Recommend items to somebody who has chosen these items.

        history: ids of items, the oldest first. reader: the language that they read. languages: those of the items
        that may be shown.
        """
        wanted = Wanted(histories=[history], k=k, reader=reader, languages=languages)
        answers = served.recommend([wanted])[0]
        if isinstance(answers, Exception):
            raise answers
        return answers[0].record()

    def similar_items(item: str, k: int = 10, language: str | None = None) -> dict[str, Any]:
        """Find the items that are most like an item, in one language or in all."""
        alike = Alike(item=item, k=k, language=language)
        return served.recommender.similar_items(alike.item, alike.k, language=alike.language).record()

    def explain(item: str, history: list[str], language: str = "en", reader: str | None = None) -> dict[str, Any]:
        """Tell why an item is recommended to somebody who has chosen the items of a history.

        language: of the sentence, one of da, de, en, es, fr, it, nl, pt.
        """
        asked = Asked(item=item, history=history, language=language, reader=reader)
        return explained(served.recommender, **asked.model_dump()).record()

    return [about, search_items, recommend, similar_items, explain]


def serve_mcp(folder: Path) -> None:
    """Answer over standard input and output until that ends.

    Raises:
        CheckpointError: the folder is no export, or damaged.
        MissingExtraError: the package mcp is not installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.server.mcpserver.exceptions import ToolError
    except ImportError as error:
        raise MissingExtraError("mcp", "mcp") from error

    def told(tool: Callable[..., _Told]) -> Callable[..., _Told]:
        @wraps(tool)
        def call(*given: Any, **named: Any) -> _Told:
            try:
                return tool(*given, **named)
            except (XlingError, ValueError) as error:  # pydantic's errors are ValueErrors
                raise ToolError(str(error)) from error

        return call

    server = MCPServer("recbole-xling", instructions="Recommendations over a catalog of items in several languages.")
    for tool in tools(Served(folder)):
        server.add_tool(told(tool))
    server.run("stdio")
