"""The tools of an export for assistants: what they tell, and the protocol where its package is installed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from recbole_xling.errors import ConfigError, MissingExtraError
from recbole_xling.serve import explain, load_export

pytest.importorskip("fastapi")


@pytest.fixture(scope="module")
def tools(shop_export):
    from recbole_xling.serve.mcp_tools import tools
    from recbole_xling.serve.served import Served

    return {tool.__name__: tool for tool in tools(Served(shop_export))}


def test_tools_tell_what_the_export_does(tools, shop_export):
    own = load_export(shop_export)
    expected = own.recommend_histories([["i1", "i2"]], 4, reader="fr")[0].record()
    assert tools["recommend"](["i1", "i2"], k=4, reader="fr") == expected
    assert tools["similar_items"]("i5", 3, "fr") == own.similar_items("i5", 3, language="fr").record()
    told = tools["explain"]("i9", ["i1", "i2"], language="de")
    assert told == explain(own, "i9", history=["i1", "i2"], language="de").record()
    assert [item["item"] for item in tools["search_items"]("HEMD rot")["items"]] == ["i4", "i10", "i16", "i22"]
    assert tools["search_items"]("chemise 4", reader="fr")["items"][0]["item"] == "i4"
    assert tools["about"]()["items"] == 24 and tools["about"]()["readers"] == ["de", "en", "fr"]


def test_wrong_words_are_refused(tools):
    with pytest.raises(ConfigError, match="unknown language of items 'xx'"):
        tools["recommend"](["i1"], languages=["xx"])
    for wrong in (lambda: tools["recommend"](["i1"], k=0), lambda: tools["search_items"]("x" * 1000)):
        with pytest.raises(ValueError, match=r"k|text"):
            wrong()


def test_the_protocol(shop_export):
    try:
        import mcp.server.mcpserver  # noqa: F401
    except ImportError:
        from recbole_xling.serve.mcp_tools import serve_mcp

        with pytest.raises(MissingExtraError, match=r"recbole-xling\[mcp\]"):
            serve_mcp(shop_export)
        pytest.skip("mcp is not installed")
    code = "import sys; from recbole_xling.cli.main import script_main; script_main()"
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen([sys.executable, "-c", code, "serve", str(shop_export), "--mcp"], **options)

    def ask(number, method, **params):
        message = {"jsonrpc": "2.0", "method": method, "params": params}
        server.stdin.write(json.dumps(message if number is None else {**message, "id": number}) + "\n")
        server.stdin.flush()
        return None if number is None else json.loads(server.stdout.readline())["result"]

    client = {"name": "test", "version": "1"}
    ask(1, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=client)
    ask(None, "notifications/initialized")
    names = {tool["name"] for tool in ask(2, "tools/list")["tools"]}
    assert names == {"about", "search_items", "recommend", "similar_items", "explain"}
    told = ask(3, "tools/call", name="recommend", arguments={"history": ["i1"], "k": 2})
    expected = load_export(shop_export).recommend_histories([["i1"]], 2)[0].record()
    assert json.loads(told["content"][0]["text"]) == expected and not told.get("isError")
    refused = ask(4, "tools/call", name="similar_items", arguments={"item": "gone"})
    assert refused["isError"] and "no item 'gone'" in refused["content"][0]["text"]
    server.stdin.close()
    assert server.wait(30) == 0
