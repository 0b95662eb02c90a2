"""A server of an export: recommendations over HTTP, with metrics, limits, and a change of the export while it runs."""

from __future__ import annotations

import base64
import json
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from recbole_xling.errors import MissingExtraError, XlingError
from recbole_xling.serve.answers import Answer
from recbole_xling.serve.asking import MOST_BYTES
from recbole_xling.serve.batches import Batches, CrowdedError
from recbole_xling.serve.bodies import Alike, Asked, Change, Sought, Wanted
from recbole_xling.serve.explanations import SENTENCES, explain
from recbole_xling.serve.served import Served

try:
    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fastapi.encoders import jsonable_encoder
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise MissingExtraError(error.name or "fastapi", "serve") from error

_MOST_TOGETHER = 32  # requests that are answered at once
_MOST_WAITING = 1000  # requests
_MOST_CONNECTIONS = 2000
_LOCAL = ("127.0.0.1", "localhost", "[::1]")  # names of this machine in requests
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)  # seconds
_PAGE = Path(__file__).parent / "page.html"


class _Json(Response):
    """Plain data as JSON, as they are: FastAPI would look at each value first.

    What is no Unicode, which answers name as requests have it, is escaped as JSON does.
    """

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(errors="backslashreplace")


def create_app(folder: Path, hosts: tuple[str, ...] = _LOCAL) -> FastAPI:
    """Return the application.

    Args:
        folder: of the export.
        hosts: names under which it may be asked; others are refused, so that no page of the web asks for its visitor.

    Raises:
        CheckpointError: the folder is no export, or damaged.
    """
    served, n_threads = Served(folder), max(1, (os.cpu_count() or 1) // 2)
    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="answers")
    further = ThreadPoolExecutor(2, thread_name_prefix="others")  # so that slow requests do not stop the many
    sizes: dict[str, Any] = {
        "threads": threads,
        "n_threads": n_threads,
        "most": _MOST_TOGETHER,
        "waiting": _MOST_WAITING,
    }
    batches: Batches[Wanted, list[Answer]] = Batches(served.recommend, **sizes)
    others: Batches[Callable[[], Any], Any] = Batches(_each, **{**sizes, "threads": further, "n_threads": 2, "most": 1})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        yield
        threads.shutdown()
        further.shutdown()

    app = FastAPI(
        title="recbole-xling", description="Recommendations of an export of recbole-xling.", lifespan=lifespan
    )
    _add_answers(app, served, batches, others)
    _add_changes(app, served, others)
    _add_page(app, served)
    _add_metrics(app, served)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))

    @app.exception_handler(XlingError)
    async def refuse(request: Request, error: XlingError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=400)

    @app.exception_handler(RequestValidationError)
    async def explain_refusal(request: Request, error: RequestValidationError) -> Response:
        # without the input, which may be what JSON cannot say: NaN
        problems = [{name: part for name, part in one.items() if name != "input"} for one in error.errors()]
        return _Json({"detail": jsonable_encoder(problems)}, status_code=422)

    @app.exception_handler(CrowdedError)
    async def put_off(request: Request, error: CrowdedError) -> JSONResponse:
        return JSONResponse({"detail": "too many requests wait"}, status_code=503, headers={"retry-after": "1"})

    return app


def _each(calls: Any) -> list[Any]:
    """Call some functions, and return their results or errors."""
    found: list[Any] = []
    for call in calls:
        try:
            found.append(call())
        except XlingError as error:
            found.append(error)
    return found


# ---- requests -------------------------------------------------------------------------------------------------


def _add_answers(app: FastAPI, served: Served, batches: Batches[Wanted, list[Answer]], others: Batches) -> None:
    @app.post("/recommend")
    async def recommend(wanted: Wanted) -> Response:
        """Recommend to users, by histories, or by the histories of users."""
        return _Json({"answers": [answer.record() for answer in await batches.ask(wanted)]})

    @app.post("/similar")
    async def similar(alike: Alike) -> Response:
        """Find the items that are most like an item."""
        item, k, language = alike.item, alike.k, alike.language
        answer = await others.ask(lambda: served.recommender.similar_items(item, k, language=language))
        return _Json(answer.record())

    @app.post("/explain")
    async def explained(asked: Asked) -> Response:
        """Tell what speaks for an item: what its score loses without each item of a history, and more."""
        found = await others.ask(lambda: explain(served.recommender, **asked.model_dump()))
        return _Json(found.record())

    @app.post("/search")
    async def search(sought: Sought) -> Response:
        """Find items by words of their titles."""
        text, k, reader = sought.text, sought.k, sought.reader
        items = await others.ask(lambda: served.recommender.search_titles(text, k, reader=reader))
        return _Json({"items": [{"item": item.item, "title": item.title, "language": item.language} for item in items]})


def _add_changes(app: FastAPI, served: Served, others: Batches) -> None:
    @app.post("/items")
    async def items(change: Change) -> Response:
        """Add items, withdraw items, and show others again, for good."""
        return _Json(await others.ask(lambda: served.change(change)))

    @app.post("/reload")
    async def reload() -> Response:
        """Serve what the folder holds now; requests under way are answered by what was served before."""
        return _Json(await others.ask(served.reload))


def _add_page(app: FastAPI, served: Served) -> None:
    page = _PAGE.read_text(encoding="utf-8")
    hashes = {
        kind: " ".join(
            f"'sha256-{base64.b64encode(sha256(part.encode()).digest()).decode()}'"
            for part in re.findall(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        )
        for kind in ("script", "style")
    }
    policy = (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def show() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": policy, "x-content-type-options": "nosniff"})

    @app.get("/health")
    async def health() -> Response:
        """Tell what is served, in which languages, and the languages of explanations."""
        return _Json({"status": "ok", **served.about, **served.languages, "sentences": sorted(SENTENCES)})


# ---- metrics and limits ---------------------------------------------------------------------------------------


def _add_metrics(app: FastAPI, served: Served) -> None:
    registry = CollectorRegistry()
    requests = Counter("requests", "Requests", ["path", "status"], namespace="recbole_xling", registry=registry)
    seconds = Histogram(
        "seconds", "Seconds per request", ["path"], namespace="recbole_xling", registry=registry, buckets=_BUCKETS
    )
    shown = Gauge("items_shown", "Items that are shown", namespace="recbole_xling", registry=registry)
    shown.set_function(lambda: served.about["shown"])

    def measure(scope: Scope, status: int, duration: float) -> None:
        path = getattr(scope.get("route"), "path", "other")  # not what anybody may write
        requests.labels(path, str(status)).inc()
        seconds.labels(path).observe(duration)

    app.add_middleware(_Limits, measure=measure)

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        """Tell Prometheus the numbers of requests and how long they took."""
        return PlainTextResponse(generate_latest(registry))


class _Limits:
    """Refuses requests that are too large, whose length must be known before they are read, and measures all others."""

    def __init__(self, app: ASGIApp, measure: Callable[[Scope, int, float], None]) -> None:
        self._app, self._measure = app, measure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        if b"chunked" in headers.get(b"transfer-encoding", b"") or not length.isdigit():
            refused = JSONResponse({"detail": "a request must state its length"}, status_code=411)
        elif int(length) > MOST_BYTES:
            refused = JSONResponse({"detail": f"a request has at most {MOST_BYTES:,} bytes"}, status_code=413)
        else:
            refused = None
        try:
            await (refused or self._app)(scope, receive, sent)
        finally:
            self._measure(scope, status, time.perf_counter() - started)


def serve(folder: Path, host: str, port: int) -> None:
    """Serve an export until the process is stopped; requests under way are answered first.

    Raises:
        CheckpointError: the folder is no export, or damaged.
    """
    app = create_app(folder, _LOCAL if host in ("127.0.0.1", "localhost", "::1") else ("*",))
    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, limit_concurrency=_MOST_CONNECTIONS)
