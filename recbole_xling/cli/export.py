"""``recbole-xling export``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from recbole_xling.errors import ConfigError
from recbole_xling.utils.arguments import settings_of_words

_OF_THE_COMMAND = {f"--{name}" for name in ("run", "folder", "index", "with_users", "license_id", "dataset", "model")}

DESCRIPTION = "Write a run as a folder that recommends without torch, RecBole and the dataset."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments; further ones are settings that replace the run's."""
    parser.add_argument("run", help="the run folder")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="the new folder")
    parser.add_argument("--index", metavar="KIND", help="flat, hnsw, ivfpq or usearch (default: all items are scored)")
    parser.add_argument("--without-users", action="store_true", help="leave out the users' ids and histories")
    parser.add_argument("--license", metavar="ID", help="for the model card, such as cc-by-4.0")
    parser.add_argument("--push-to", metavar="NAME/REPOSITORY", help="upload it to Hugging Face (recbole-xling push)")
    parser.add_argument("--private", action="store_true", help="with --push-to: let others not see it")
    parser.add_argument("--with-users", action="store_true", help="with --push-to: users' ids and histories may go")
    parser.add_argument("--data_path", help="folder of the dataset, if it has moved")


def run(options: argparse.Namespace, settings: Sequence[str] = ()) -> str:
    """Write the folder.

    Raises:
        XlingError: the run cannot be exported, or the folder cannot be written.
    """
    from recbole_xling.quick_start.serving_export import export_run
    from recbole_xling.serve.push import push

    if clash := sorted({word.partition("=")[0] for word in settings} & _OF_THE_COMMAND):
        raise ConfigError(f"{', '.join(clash)} cannot be given here: an export is of the run and its own dataset")
    changed = settings_of_words([*settings, *([f"--data_path={options.data_path}"] if options.data_path else [])])
    if options.push_to and not (options.with_users or options.without_users):
        raise ConfigError("--push-to: say whether users' ids and histories may go: --with-users or --without-users")
    manifest = export_run(
        options.run,
        options.to,
        index=options.index,
        with_users=not options.without_users,
        license_id=options.license,
        **changed,
    )
    lines = [f"Export: {options.to}, {manifest['items']:,} items, {manifest['users'] or 'no'} users"]
    if (difference := manifest["largest_difference_of_users"]) is not None:
        lines.append(f"User tower as ONNX: users at most {difference:.1e} from the model's")
    if index := manifest["index"]:
        lines.append(f"Index {index['kind']}: it finds {index['recall@10']:.1%} of the ten best items")
    if options.push_to:
        lines.append(
            f"Uploaded: {push(options.to, options.push_to, private=options.private, with_users=options.with_users)}"
        )
    return "\n".join(lines)
