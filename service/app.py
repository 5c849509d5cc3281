"""The application: endpoints, page, limits and errors put together around one engine."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from service import __version__, errors
from service.engine import Engine
from service.metrics import Metrics
from service.middleware.access import KeyHolders, OtherSites
from service.middleware.address import Below, OwnHosts
from service.middleware.admission import Admission, Gate
from service.middleware.limits import AnswerHead, LimitBody, SecureHeaders
from service.middleware.observe import Observe
from service.routes import (
    about,
    activations,
    claims,
    classify,
    collection,
    compare,
    duplicates,
    explain,
    invariance,
    items,
    layers,
    map,
    neighbors,
    pages,
    reports,
    units,
)
from service.routes.inputs import Inputs
from service.settings import ServiceSettings, is_loopback
from training.errors import BadValue

_log = logging.getLogger("fc7.service")
ROUTES: Final = (
    neighbors,
    compare,
    duplicates,
    classify,
    layers,
    map,
    units,
    claims,
    about,
    collection,
    activations,
    explain,
    invariance,
    items,
    pages,
    reports,
)  # the first is found first
THREADS = 8  # that answer what waits for the disk; forty would keep the event loop waiting for its turn
DESCRIPTION = """Classifies photographs with the two-GPU AlexNet of 2012, finds their nearest neighbours among an indexed
collection by the distance of 4096-d FC7 features or by Hamming distance of short codes, lets the collection grow and
shrink, and shows what the first layer has learned.

Errors are application/problem+json and name the field and the value."""


def create_app(settings: ServiceSettings) -> FastAPI:
    """The service for one model and one index; both are loaded when it starts. It starts without them too, and answers 503."""
    metrics, gate = Metrics(), Gate(settings.max_concurrent_requests)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not settings.allowed_hosts and not is_loopback(settings.host):
            _log.info("requests for any host are answered: allowed_hosts is not set")
        current_default_thread_limiter().total_tokens = THREADS
        engine = app.state.engine = await run_in_threadpool(Engine, settings, metrics)
        metrics.observe_model(lambda: (engine.model.fingerprint, engine.model.net.config.profile))
        metrics.observe_index(lambda: (engine.pair.store.version_number, len(engine.pair.store)))
        try:
            yield
        finally:
            await run_in_threadpool(engine.close)

    app = FastAPI(
        title="FC7",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to whatever host a request names
    )
    app.state.settings, app.state.metrics, app.state.gate = settings, metrics, gate
    errors.install(app, {settings.model: "FC7_MODEL", settings.index: "FC7_INDEX"})
    app.state.routes = []
    for module in ROUTES:
        app.include_router(module.router)
        app.state.routes += module.router.routes
    _check_root_path(app, settings.root_path)
    app.openapi = partial(_describe, app)  # type: ignore[method-assign]
    # the last is the outermost
    app.add_middleware(AnswerHead)
    app.add_middleware(Admission, settings=settings, metrics=metrics, gate=gate)
    app.add_middleware(LimitBody, settings=settings, metrics=metrics)
    app.add_middleware(KeyHolders, settings=settings, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(
            OtherSites,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "HEAD", "POST", "DELETE"],
            allow_headers=["Authorization", "X-API-Key", "X-Request-ID", "Content-Type"],
            expose_headers=["X-Request-ID", "Retry-After"],
        )
    app.add_middleware(OwnHosts, settings=settings)
    app.add_middleware(Observe, metrics=metrics)
    app.add_middleware(SecureHeaders, settings=settings)
    app.add_middleware(Below, root_path=settings.root_path)
    return app


def _check_root_path(app: FastAPI, root_path: str) -> None:
    """Raises BadValue for one that cannot be told from the paths below it."""
    own = {route.path.split("/")[1] for route in (*app.state.routes, *app.routes) if isinstance(route, Route)}
    if root_path and root_path.split("/")[1] in own:
        raise BadValue("root_path", root_path, "another path than the service's own")


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
        if root_path := app.state.settings.root_path:
            description["servers"] = [{"url": root_path}]
        app.openapi_schema = description
    return app.openapi_schema
