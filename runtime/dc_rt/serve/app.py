"""The application: the routes, what becomes of errors, and what runs beside."""

from __future__ import annotations

import asyncio
import datetime
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
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
from dc_rt.serve.store import expired

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_EXPIRY_SECONDS = 600.0  # between two looks for jobs that are to be removed


def create_app(service: Service) -> ASGIApp:
    """The service as an ASGI application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.crew.start()
        expiry = asyncio.create_task(_remove_expired(service))
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
    return Guard(app, service.settings)


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
    async def answered(_: Request, error: HTTPException) -> Response:
        if error.status_code < 400:
            return Response(status_code=error.status_code)
        sentence = error.detail if error.detail.endswith(".") else usual_sentence(error.status_code)
        return refusal(error.status_code, sentence, error.headers)

    @app.exception_handler(OSError)
    async def disk(_: Request, error: OSError) -> Response:
        log.error("a file could not be read or written: %s", error)
        return refusal(507, "A file cannot be written; try again when the disk has room.")

    @app.exception_handler(Exception)
    async def bug(_: Request, error: Exception) -> Response:
        return refusal(500, BUG)  # the server beneath logs it


async def _remove_expired(service: Service) -> None:
    """Remove jobs that ended long ago, while the service runs."""
    days = service.settings.limits.keep_days
    while days:
        before = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        for job in expired(service.store.all(), before.isoformat()):
            try:
                await asyncio.to_thread(service.store.remove, job)
                log.info("job %s is removed: it ended %s", job.id, job.state.ended)
            except (Refused, OSError) as error:
                log.warning("job %s cannot be removed: %s", job.id, error)
        await asyncio.sleep(_EXPIRY_SECONDS)
