"""Uploading an export: to a stand-in of Hugging Face's interface, and what is said where that cannot be."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest

from recbole_xling.cli.main import call
from recbole_xling.errors import CheckpointError, ConfigError, MissingExtraError, XlingError
from recbole_xling.serve.folder import checksums
from recbole_xling.serve.push import push

huggingface_hub = pytest.importorskip("huggingface_hub")
from huggingface_hub import errors

REAL = huggingface_hub.HfApi


class Hub:
    """Keeps what is uploaded; each call must be one that the real interface takes."""

    def __init__(self):
        self.files: dict[str, set[str]] = {}
        self.private: dict[str, bool] = {}
        self.fails: dict[str, Exception] = {}
        self.told: dict = {}

    def __call__(self):
        return self

    def _check(self, name, *args, **options):
        inspect.signature(getattr(REAL, name)).bind(self, *args, **options)
        if name in self.fails:
            raise self.fails[name]

    def whoami(self):
        self._check("whoami")

    def create_repo(self, repo_id, **options):
        self._check("create_repo", repo_id, **options)
        self.private.setdefault(repo_id, options["private"])
        self.files.setdefault(repo_id, {".gitattributes"})
        return f"https://huggingface.co/{repo_id}"

    def repo_info(self, repo_id, **options):
        self._check("repo_info", repo_id, **options)
        return SimpleNamespace(private=self.private[repo_id])

    def upload_folder(self, **options):
        self._check("upload_folder", **options)
        folder = Path(options["folder_path"])
        new = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        kept = set(huggingface_hub.utils.filter_repo_objects(
            self.files[options["repo_id"]], ignore_patterns=options["delete_patterns"]))  # fmt: skip
        self.files[options["repo_id"]] = kept | new
        self.told = options


@pytest.fixture
def hub(monkeypatch):
    found = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", found)
    return found


@pytest.fixture
def export(tmp_path):
    """Return a function that writes a folder which looks like an export."""

    def write(name="export", users=None, **files):
        folder = tmp_path / name
        (folder / "encoder").mkdir(parents=True)
        for file, text in {"README.md": "card", "bias.npy": "0", "encoder/config.json": "{}", **files}.items():
            (folder / file).write_text(text)
        manifest = {"format": 1, "model": "LLMSASRec", "dataset": "shop", "users": users, "files": checksums(folder)}
        (folder / "export.json").write_text(json.dumps(manifest))
        return folder

    return write


def test_an_export_takes_the_place_of_the_one_before(hub, export):
    before = export("before", users=3, **{"users.jsonl": "{}", "index.0.faiss": "x"})
    assert push(before, "me/shop", with_users=True) == "https://huggingface.co/me/shop"
    assert "users.jsonl" in hub.files["me/shop"]
    assert call("push", [str(export()), "me/shop"]) == "Uploaded: https://huggingface.co/me/shop"
    expected = {".gitattributes", "README.md", "bias.npy", "encoder/config.json", "export.json"}
    assert hub.files["me/shop"] == expected
    assert hub.told["commit_message"] == "Export of LLMSASRec on shop"


def test_users_and_public_repositories(hub, export):
    folder = export(users=1234, **{"users.jsonl": "{}"})
    with pytest.raises(ConfigError, match=r"(?s)1,234 users.*--without-users.*--with-users"):
        push(folder, "me/shop")
    assert not hub.files
    push(folder, "me/hidden", private=True, with_users=True)
    assert hub.private["me/hidden"]
    hub.private["me/known"] = False
    with pytest.raises(ConfigError, match="'me/known' exists and is public"):
        push(folder, "me/known", private=True, with_users=True)
    assert hub.files["me/known"] == {".gitattributes"}


def test_a_card_that_was_written_on_is_uploaded(hub, export):
    folder = export()
    (folder / "README.md").write_text("card, with the license of the data")
    push(folder, "me/shop")
    assert "README.md" in hub.files["me/shop"]


def test_what_is_damaged_is_not_uploaded(hub, export, tmp_path):
    folder = export()
    (folder / "bias.npy").write_text("1")
    with pytest.raises(CheckpointError, match="missing, new or damaged"):
        push(folder, "me/shop")
    with pytest.raises(CheckpointError, match="not the folder of an export"):
        push(tmp_path, "me/shop")


def refused(status):
    response = httpx2.Response(status, request=httpx2.Request("POST", "https://huggingface.co/api"))
    return errors.HfHubHTTPError(f"{status} Client Error", response=response)


@pytest.mark.parametrize(
    ("where", "error", "message"),
    [
        ("whoami", errors.LocalTokenNotFoundError("no token"), r"nobody is logged in .*hf auth login"),
        ("whoami", errors.OfflineModeIsEnabled("offline"), r"cannot be reached: OfflineModeIsEnabled.*HF_HUB_OFFLINE"),
        ("create_repo", errors.HFValidationError("Repo id must"), "is no name of a repository: Repo id must"),
        ("create_repo", ConnectionError("Name or service not known"), "cannot be reached: ConnectionError: Name"),
        ("upload_folder", refused(403), r"refuses 'me/shop' \(403\).*a token that may write"),
        ("upload_folder", refused(500), r"refuses 'me/shop' \(500\): 500"),
    ],
)
def test_what_fails_is_said_in_a_line(hub, export, where, error, message):
    hub.fails[where] = error
    with pytest.raises(XlingError, match=message) as told:
        push(export(), "me/shop")
    assert len(str(told.value).splitlines()) == 1


def test_without_a_token_or_the_package(export, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(XlingError, match=r"nobody is logged in|cannot be reached"):
        push(export(), "me/shop")  # the real interface
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"'huggingface_hub': pip install 'recbole-xling\[export\]'"):
        push(export("other"), "me/shop")
