"""``recbole-xling serve``: an address that cannot be listened on is told in one line."""

from __future__ import annotations

import socket

import pytest

from recbole_xling.cli.main import main

pytest.importorskip("fastapi")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--port", "99999999"], "--port must be between 1 and 65535, not 99999999"),
        (["--port", "-1"], "--port must be between 1 and 65535, not -1"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1:8000: "),  # reserved for documentation
        (["--host", "no host"], "cannot listen on no host:8000: "),
    ],
)
def test_an_address_that_is_none(words, message, capsys):
    assert main(["serve", "nowhere", *words]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) <= 3


def test_a_port_that_is_taken(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "nowhere", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}: " in capsys.readouterr().err
    assert main(["serve", "nowhere", "--port", str(port)]) == 2
    assert "is not the folder of an export" in capsys.readouterr().err
