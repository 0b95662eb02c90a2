"""``recbole-xling serve``."""

from __future__ import annotations

import argparse
import logging
import socket
from pathlib import Path

from recbole_xling.errors import ConfigError

DESCRIPTION = "Answer over HTTP by the folder of an export; http://127.0.0.1:8000/docs describes the requests."

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("export", help="the folder of the export, or a link to it")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="its port (8000)")
    parser.add_argument("--mcp", action="store_true", help="be tools for an assistant instead, over standard input")


def run(options: argparse.Namespace) -> str:
    """Serve until the process is stopped.

    Raises:
        XlingError: the folder is no export, a package is missing, or the address cannot be listened on.
    """
    if options.mcp:
        from recbole_xling.serve.mcp_tools import serve_mcp

        serve_mcp(Path(options.export))
        return "Stopped"
    from recbole_xling.serve.server import serve

    _check_address(options.host, options.port)
    logger.info("Serving %s on http://%s:%d", options.export, options.host, options.port)
    serve(Path(options.export), options.host, options.port)
    return "Stopped"


def _check_address(host: str, port: int) -> None:
    """Raise a ConfigError if nothing can listen there; the server's own error would be no sentence."""
    if not 0 < port < 1 << 16:
        raise ConfigError(f"--port must be between 1 and 65535, not {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does after a restart
            listener.bind(address)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error
