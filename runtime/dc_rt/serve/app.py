"""The application: the routes, what becomes of errors, and what runs beside."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from dc_rt._version import __version__
from dc_rt.errors import UserError
from dc_rt.serve.checks import DiskFull
from dc_rt.serve.errors import BUG, Refused, refusal, usual_sentence
from dc_rt.serve.guard import COOKIE, Guard
from dc_rt.serve.routes import open_routes, routes
from dc_rt.serve.service import Service
from dc_rt.serve.store import remove_expired

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0


def create_app(service: Service) -> ASGIApp:
    """The service as an ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.crew.start()
        expiry = asyncio.create_task(remove_expired(service.store, service.settings.limits.keep_days))
        yield
        expiry.cancel()
        await asyncio.to_thread(service.crew.close, _CLOSE_SECONDS)

    app = FastAPI(
        title="DepthCrafter-RT",
        summary="Consistent depth for long videos.",
        version=__version__,
        lifespan=lifespan,
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    app.include_router(open_routes)
    schemes = [Security(HTTPBearer(auto_error=False)), Security(APIKeyCookie(name=COOKIE, auto_error=False))]
    app.include_router(routes, dependencies=schemes if service.settings.token else [])
    _handle_errors(app)
    _describe(app)
    return Guard(app, service.settings, service.metrics.refused)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return error.response()

    @app.exception_handler(UserError)
    async def wrong(_: Request, error: UserError) -> Response:
        return refusal(507 if isinstance(error, DiskFull) else 422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "request"
        return refusal(422, f"The {where} is not as it must be ({first['msg']}); GET /openapi.json says how.")

    @app.exception_handler(HTTPException)
    async def answered(request: Request, error: HTTPException) -> Response:
        status = error.status_code
        if status < 400:
            return Response(status_code=status)
        headers = {"Allow": _allowed(request)} if status == 405 else error.headers
        return refusal(status, error.detail if error.detail.endswith(".") else usual_sentence(status), headers)

    @app.exception_handler(OSError)
    async def disk(_: Request, error: OSError) -> Response:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return refusal(507, "The disk is full; try again when there is room.")
        log.error("a request failed", exc_info=error)
        return refusal(500, BUG)

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return refusal(500, BUG)  # the server beneath logs it


def _allowed(request: Request) -> str:
    """All methods that an address takes: Starlette names those of the first route alone."""
    path = request.scope["path"]
    at = (route for route in (*open_routes.routes, *routes.routes) if isinstance(route, APIRoute))
    return ", ".join(sorted({method for route in at if route.path_regex.match(path) for method in route.methods or ()}))


def _describe(app: FastAPI) -> None:
    """Have errors described as they are, in JSON, whatever the route gives otherwise."""
    usual = app.openapi

    def openapi() -> dict[str, Any]:
        described = usual()
        for operation in (each for path in described["paths"].values() for each in path.values()):
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    response["content"] = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        return described

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
