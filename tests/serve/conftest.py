"""An export of a small run, and a server of it in a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from shop import write_shop

import recbole_xling
from recbole_xling.quick_start.serving_export import export_run

_SERVE = "import sys; from recbole_xling.cli.main import script_main; script_main()"


@pytest.fixture(scope="package")
def shop_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the export of a shop whose readers see it in their languages; the title of an item is HTML."""
    pytest.importorskip("onnxscript")
    root = tmp_path_factory.mktemp("shop")
    folder = write_shop(root / "data", silent=2)
    texts = folder / "shop.itemtext.jsonl"
    lines = [json.loads(line) for line in texts.read_text(encoding="utf-8").splitlines()]
    for line in lines:
        if line["item_id"] == "i3":
            line["fields"]["title"] = "<img src=x onerror=alert(1)> " + line["fields"]["title"]
    texts.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id", "user_language"], "item": ["item_id"]}
    settings = {"data_path": str(root / "data"), "checkpoint_dir": str(root), "encoder": "hashing", "epochs": 1}
    settings |= {"embedding_cache_dir": str(root / "cache"), "encoder_options": {"dimension": 16}, "load_col": columns}
    settings |= {"text_view": "reader", "reader_vectors": "reader", "item_representation": "text_only", "topk": [5, 10]}
    settings |= {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "show_progress": False}
    run = recbole_xling.run("LLMSASRec", "shop", config_dict=settings)["run_dir"]
    export_run(run, root / "export")
    return root / "export"


@contextmanager
def serving(export: Path) -> Iterator[str]:
    """Serve an export in a process of its own, and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", _SERVE, "serve", str(export), "--port", str(port)])
    try:
        address = f"http://127.0.0.1:{port}/"
        for _ in range(600):
            assert process.poll() is None, "the server has ended"
            try:
                urllib.request.urlopen(f"{address}health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="package")
def address(shop_export: Path) -> Iterator[str]:
    """Yield the address of a server of the shop."""
    pytest.importorskip("fastapi")
    with serving(shop_export) as found:
        yield found
