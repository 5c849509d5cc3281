"""The application: endpoints, page, limits and errors put together around one engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from service import __version__, errors
from service.engine import Engine
from service.metrics import Metrics
from service.middleware.access import KeyHolders
from service.middleware.admission import Admission, Gate
from service.middleware.limits import AnswerHead, LimitBody, SecureHeaders
from service.middleware.observe import Observe
from service.routes import about, classify, items, layers, neighbors
from service.routes.inputs import Inputs
from service.settings import ServiceSettings

WEB = Path(__file__).parent / "web"
THREADS = 8  # that answer what waits for the disk; forty would keep the event loop waiting for its turn
DESCRIPTION = """Classifies photographs with the two-GPU AlexNet of 2012, finds their nearest neighbours among an indexed
collection by Euclidean distance of 4096-d FC7 features or by Hamming distance of short codes, lets the collection grow and
shrink, and shows what the first layer has learned.

Errors are application/problem+json and name the field and the value."""


def create_app(settings: ServiceSettings) -> FastAPI:
    """The service for one model and one index; both are loaded when it starts. It starts without them too, and answers 503."""
    metrics, gate = Metrics(), Gate(settings.max_concurrent_requests)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        current_default_thread_limiter().total_tokens = THREADS
        engine = app.state.engine = await run_in_threadpool(Engine, settings, metrics)
        metrics.observe_model(lambda: (engine.model.fingerprint, engine.model.net.config.profile))
        metrics.observe_index(lambda: (engine.pair.store.version_number, len(engine.pair.store)))
        try:
            yield
        finally:
            await run_in_threadpool(engine.close)

    app = FastAPI(title="FC7", version=__version__, description=DESCRIPTION, lifespan=lifespan)
    app.state.settings, app.state.metrics, app.state.gate = settings, metrics, gate
    errors.install(app)
    for module in (neighbors, classify, layers, about, items):  # the first is found first
        app.include_router(module.router)
    app.add_api_route("/", _page, include_in_schema=False)
    app.mount("/web", StaticFiles(directory=WEB), name="web")
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    # the last is the outermost
    app.add_middleware(AnswerHead)
    app.add_middleware(Admission, settings=settings, metrics=metrics, gate=gate)
    app.add_middleware(LimitBody, settings=settings, metrics=metrics)
    app.add_middleware(KeyHolders, settings=settings, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Content-Type"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(Observe, metrics=metrics)
    app.add_middleware(SecureHeaders)
    return app


def _describe(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with the errors under the media type that they have, and the bodies that we read ourselves."""
    if app.openapi_schema is None:
        description = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = description["components"]["schemas"]
        ours = Inputs.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= ours.pop("$defs") | {"Inputs": ours}
        for path in description["paths"].values():
            for operation in path.values():
                for status, response in operation["responses"].items():
                    if status >= "400":
                        response["content"] = {errors.MEDIA_TYPE: response["content"]["application/json"]}
                    if status == "503":
                        response["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
        app.openapi_schema = description
    return app.openapi_schema


async def _page() -> FileResponse:
    return FileResponse(WEB / "index.html", headers={"Cache-Control": "no-cache"})
