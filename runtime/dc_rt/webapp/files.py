"""Results on their way to a browser: its own, and no others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from dc_rt.serve.zipped import zipped
from dc_rt.webapp.desk import Desk
from dc_rt.webapp.gate import PAGE, RESULTS

# The player of the service's page is this page's too.
_SHARED = Path(__file__).parents[1] / "serve" / "page"
_PARTS = {
    name: folder / name
    for folder, names in ((PAGE, ("app.js", "app.css", "sign_in.css")), (_SHARED, ("player.js", "dom.js", "icon.svg")))
    for name in names
}


def routes(desk: Desk, browser_of: Callable[[dict[str, str]], str]) -> list[Route]:
    """Of results and of what the page is made of; `browser_of` names the browser of a request by its cookies."""

    def result(request: Request) -> Response:
        job = desk.find(browser_of(request.cookies), request.path_params["id"])
        file = job.find(request.path_params["name"]) if job else None
        if file is None or not file.path.exists():  # it is being removed
            return PlainTextResponse("There is no such result, or it was removed.", 404)
        if file.kind == "folder":
            headers = {
                "Content-Disposition": FileResponse(file.path, filename=file.name).headers["content-disposition"]
            }
            return StreamingResponse(zipped(file.path), media_type=file.media_type, headers=headers)
        name = file.name.rpartition("/")[2]
        headers = {"Cache-Control": "private, no-cache"}
        return FileResponse(file.path, media_type=file.media_type, filename=name, headers=headers)

    def part(request: Request) -> Response:
        path = _PARTS.get(request.path_params["name"])
        return FileResponse(path, headers={"Cache-Control": "no-cache"}) if path else PlainTextResponse("", 404)

    return [Route(f"{RESULTS}/{{id}}/{{name:path}}", result), Route("/page/{name}", part)]
