"""A server of an export: recommendations over HTTP, with metrics, limits, and a change of the export while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from recbole_xling.errors import ConfigError, MissingExtraError, XlingError
from recbole_xling.serve.catalog import Filters
from recbole_xling.serve.explanations import explain
from recbole_xling.serve.folder import load_export, read_manifest
from recbole_xling.serve.recommender import Recommender
from recbole_xling.serve.withdrawn import read_withdrawn, withdraw

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.responses import JSONResponse, PlainTextResponse
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from pydantic import BaseModel, ConfigDict, Field, model_validator
    from starlette.middleware.trustedhost import TrustedHostMiddleware
except ImportError as error:
    raise MissingExtraError(error.name or "fastapi", "serve") from error

_MOST_BYTES = 1 << 20  # of a request
_LOCAL = ("127.0.0.1", "localhost", "[::1]")  # names of this machine in requests
_Id = Annotated[str, Field(min_length=1, max_length=1000)]
_Ids = Annotated[list[_Id], Field(max_length=10_000)]
_Length = Annotated[int, Field(ge=1, le=1000)]
_History = Annotated[list[_Id], Field(max_length=1000)]
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)  # seconds


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Wanted(_Body):
    """What is to be recommended, and to whom."""

    users: Annotated[list[_Id], Field(max_length=256)] | None = None
    histories: Annotated[list[_History], Field(max_length=256)] | None = None
    reader: _Id | None = None
    k: _Length = 10
    exclude_seen: bool = True
    languages: _Ids | None = None
    items: _Ids | None = None
    block: _Ids = []
    where: dict[str, _Ids] = {}

    @model_validator(mode="after")
    def _somebody(self) -> Wanted:
        if not self.users and not self.histories:
            raise ValueError("give users, histories, or one user for each history")
        return self


class Alike(_Body):
    """An item, and what is to be like it."""

    item: _Id
    k: _Length = 10
    language: _Id | None = None


class Asked(_Body):
    """An item, and by whose history it is to be explained."""

    item: _Id
    user: _Id | None = None
    history: _History | None = None
    reader: _Id | None = None
    language: _Id = "en"

    @model_validator(mode="after")
    def _somebody(self) -> Asked:
        if self.user is None and self.history is None:
            raise ValueError("give a user or a history")
        return self


class Change(_Body):
    """Items to withdraw, and others to show again."""

    withdraw: _Ids = []
    restore: _Ids = []


class Served:
    """The export that is served now; another one takes its place at once, and requests under way end with the old one.

    Args:
        folder: of the export; may be a link, which leads elsewhere later.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._now = self._loaded()

    def reload(self) -> dict[str, Any]:
        """Load what the folder holds now, and return what that is; what was withdrawn stays so in another folder.

        Raises:
            XlingError: it cannot be loaded; the old one is served on.
        """
        with self._lock:
            found, before = self._loaded(), self._now[0]
            folder, _, recommender = found
            if folder != before and (items := recommender.catalog.number.keys() & set(read_withdrawn(before))):
                withdraw(recommender.catalog, folder, add=items)
            self._now = found
            return self.about

    def _loaded(self) -> tuple[Path, dict[str, Any], Recommender]:
        folder = self.folder.resolve()
        return folder, read_manifest(folder), load_export(folder)

    @property
    def recommender(self) -> Recommender:
        """What answers."""
        return self._now[2]

    @property
    def about(self) -> dict[str, Any]:
        """Model, dataset and size of what is served."""
        _, manifest, recommender = self._now
        shown = int(recommender.catalog.shown.sum())
        return {"model": manifest["model"], "dataset": manifest["dataset"], "items": manifest["items"], "shown": shown}

    def change(self, change: Change) -> list[str]:
        """Withdraw items and show others again; return what is withdrawn then.

        Raises:
            ConfigError: there is no such item, or the folder is another one now.
        """
        with self._lock:
            folder, _, recommender = self._now
            if self.folder.resolve() != folder:
                raise ConfigError(f"'{self.folder}' is another export now: reload it first")
            return withdraw(recommender.catalog, folder, add=change.withdraw, remove=change.restore)


def create_app(folder: Path, hosts: tuple[str, ...] = _LOCAL) -> FastAPI:
    """Return the application.

    Args:
        folder: of the export.
        hosts: names under which it may be asked; others are refused, so that no page of the web asks for its visitor.

    Raises:
        CheckpointError: the folder is no export, or damaged.
    """
    served = Served(folder)
    app = FastAPI(title="recbole-xling", description="Recommendations of an export of recbole-xling.")
    registry = CollectorRegistry()
    requests = Counter("requests", "Requests", ["path", "status"], namespace="recbole_xling", registry=registry)
    seconds = Histogram(
        "seconds", "Seconds per request", ["path"], namespace="recbole_xling", registry=registry, buckets=_BUCKETS
    )
    shown = Gauge("items_shown", "Items that are shown", namespace="recbole_xling", registry=registry)
    shown.set_function(lambda: served.about["shown"])

    @app.middleware("http")
    async def measure(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.perf_counter()
        response = await _limited(request, call)
        route = request.scope.get("route")
        path = getattr(route, "path", "other")  # not what anybody may write
        requests.labels(path, str(response.status_code)).inc()
        seconds.labels(path).observe(time.perf_counter() - started)
        return response

    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(XlingError)
    async def refuse(request: Request, error: XlingError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=400)

    @app.post("/recommend")
    def recommend(wanted: Wanted) -> dict[str, Any]:
        """Recommend to users, by histories, or by the histories of users."""
        filters = Filters(wanted.languages, wanted.items, wanted.block, wanted.where)
        options: dict[str, Any] = {"exclude_seen": wanted.exclude_seen, "filters": filters}
        if wanted.histories is None:
            answers = served.recommender.recommend(wanted.users or [], wanted.k, **options)
        else:
            options |= {"users": wanted.users, "reader": wanted.reader}
            answers = served.recommender.recommend_histories(wanted.histories, wanted.k, **options)
        return {"answers": [answer.record() for answer in answers]}

    @app.post("/similar")
    def similar(alike: Alike) -> dict[str, Any]:
        """Find the items that are most like an item."""
        return served.recommender.similar_items(alike.item, alike.k, language=alike.language).record()

    @app.post("/explain")
    def explained(asked: Asked) -> dict[str, Any]:
        """Tell what an item's score loses without each item of a history."""
        return explain(served.recommender, **asked.model_dump()).record()

    @app.post("/items")
    def items(change: Change) -> dict[str, Any]:
        """Withdraw items and show others again, for good."""
        return {"withdrawn": served.change(change)}

    @app.post("/reload")
    def reload() -> dict[str, Any]:
        """Serve what the folder holds now; requests under way are answered by what was served before."""
        return served.reload()

    @app.get("/health")
    def health() -> dict[str, Any]:
        """Tell what is served."""
        return {"status": "ok", **served.about}

    @app.get("/metrics", response_class=PlainTextResponse)
    def metrics() -> PlainTextResponse:
        """Tell Prometheus the numbers of requests and how long they took."""
        return PlainTextResponse(generate_latest(registry))

    return app


async def _limited(request: Request, call: Callable[[Request], Awaitable[Response]]) -> Response:
    """Answer a request, unless it is too large; its length must be known before it is read."""
    length = request.headers.get("content-length", "0")
    if "chunked" in request.headers.get("transfer-encoding", "") or not length.isdecimal():
        return JSONResponse({"detail": "a request must state its length"}, status_code=411)
    if int(length) > _MOST_BYTES:
        return JSONResponse({"detail": f"a request has at most {_MOST_BYTES:,} bytes"}, status_code=413)
    return await call(request)


def serve(folder: Path, host: str, port: int) -> None:
    """Serve an export until the process is stopped; requests under way are answered first.

    Raises:
        CheckpointError: the folder is no export, or damaged.
    """
    app = create_app(folder, _LOCAL if host in ("127.0.0.1", "localhost", "::1") else ("*",))
    uvicorn.run(app, host=host, port=port, log_level="warning")
