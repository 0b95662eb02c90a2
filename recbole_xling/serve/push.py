"""Uploading an export to a repository of Hugging Face."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_xling.errors import CheckpointError, ConfigError, MissingExtraError, XlingError
from recbole_xling.serve.folder import USER_VECTORS_FILE, USERS_FILE, checksums, read_manifest

# What an earlier export may have left in the repository, which this one does not have.
_OF_EXPORTS = (
    *(USERS_FILE, USER_VECTORS_FILE, "items.*", "histories.*", "index.*", "bias.npy", "user_tower.onnx"),
    *("language_means.npy", "encoder/*", "adapters/*", "withdrawn.json", "added.jsonl"),
)
_LOGIN = "log in with 'hf auth login', or set HF_TOKEN to a token that may write"


def push(
    folder: str | os.PathLike[str],
    repository: str,
    *,
    private: bool = False,
    with_users: bool = False,
    message: str | None = None,
) -> str:
    """Upload the folder of an export, in one commit, and return the address of the repository.

    Args:
        folder: that ``recbole-xling export`` wrote.
        repository: such as ``name/shop-recommender``; made where it does not exist.
        private: let others not see it.
        with_users: whether ids and histories of users, or vectors of them, may go with it.
        message: of the commit.

    Raises:
        CheckpointError: the folder is no export, or damaged.
        ConfigError: the export holds users and ``with_users`` does not say that they may go, the repository's name is
            wrong, or it is public though ``private`` is asked for.
        MissingExtraError: huggingface_hub is not installed.
        XlingError: nobody is logged in, Hugging Face cannot be reached or refuses.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if checksums(folder) != manifest["files"]:
        raise CheckpointError(f"'{folder}' is not what export wrote: a file is missing, new or damaged. Export again")
    if manifest["users"] and not with_users:
        raise ConfigError(
            f"'{folder}' holds ids and histories of {manifest['users']:,} users: export it --without-users, or say "
            "that they may be uploaded (--with-users)"
        )
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "export") from error
    api = HfApi()
    with _told(repository):
        api.whoami()
        made: Any = api.create_repo(repository, private=private, repo_type="model", exist_ok=True)
        if private and not api.repo_info(repository, repo_type="model").private:
            raise ConfigError(f"the repository '{repository}' exists and is public: make it private, or name another")
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            repo_type="model",
            commit_message=message or f"Export of {manifest['model']} on {manifest['dataset']}",
            ignore_patterns=[".xling-*"],
            delete_patterns=list(_OF_EXPORTS),
        )
    return str(made)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """Say what to do where Hugging Face's library fails; it raises what its client of HTTP does, too."""
    from huggingface_hub import errors

    try:
        yield
    except XlingError:
        raise
    except errors.HFValidationError as error:
        raise ConfigError(f"'{repository}' is no name of a repository: {_first_line(error)}") from error
    except errors.LocalTokenNotFoundError as error:
        raise XlingError(f"nobody is logged in to Hugging Face: {_LOGIN}") from error
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        advice = f"; {_LOGIN}" if status in (401, 403) else ""
        raise XlingError(f"Hugging Face refuses '{repository}' ({status}): {_first_line(error)}{advice}") from error
    except Exception as error:
        raise XlingError(
            f"Hugging Face cannot be reached: {type(error).__name__}: {_first_line(error)}. Nothing was uploaded; "
            "check the connection, and that HF_HUB_OFFLINE is not set"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300]
