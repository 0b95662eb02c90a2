"""``recbole-xling serve``."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

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
        XlingError: the folder is no export, or a package is missing.
    """
    if options.mcp:
        from recbole_xling.serve.mcp_tools import serve_mcp

        serve_mcp(Path(options.export))
        return "Stopped"
    from recbole_xling.serve.server import serve

    logger.info("Serving %s on http://%s:%d", options.export, options.host, options.port)
    serve(Path(options.export), options.host, options.port)
    return "Stopped"
