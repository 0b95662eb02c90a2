"""``recbole-xling push``."""

from __future__ import annotations

import argparse

DESCRIPTION = "Upload the folder of an export to a repository of Hugging Face."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("export", help="the folder of the export")
    parser.add_argument("repository", help="such as name/shop-recommender; made where it does not exist")
    parser.add_argument("--private", action="store_true", help="let others not see it")
    parser.add_argument("--with-users", action="store_true", help="ids and histories of users may be uploaded")
    parser.add_argument("--message", help="of the commit")


def run(options: argparse.Namespace) -> str:
    """Upload, and say where it is.

    Raises:
        XlingError: the export is damaged, or Hugging Face cannot be used.
    """
    from recbole_xling.serve.push import push

    address = push(
        options.export,
        options.repository,
        private=options.private,
        with_users=options.with_users,
        message=options.message,
    )
    return f"Uploaded: {address}"
