"""The page's application: routes, and how mistakes become answers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from aurefine.errors import InputError
from aurefine.project.project import Project
from aurefine.web import project_routes, run_routes
from aurefine.web.folder import Folder, Missing, Outside
from aurefine.web.guard import Guard, Session
from aurefine.web.site import Handler, Site

STATIC = Path(__file__).parent / "static"


def create_app(project: Project, session: Session) -> Starlette:
    """The application for one project; every request passes the guard first."""
    site = Site(project, Folder(project.root))
    reading: dict[str, Handler] = {**project_routes.GET, **run_routes.GET}
    routes = [
        Route("/", _index, methods=["GET"]),
        *(Route(f"/api/{path}", _answering(site, handler), methods=["GET"]) for path, handler in reading.items()),
        *(Route(f"/api/{path}", _answering(site, handler), methods=["POST"]) for path, handler in project_routes.POST.items()),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, session=session)])


async def _index(request: Request) -> Response:
    return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-store"})


class _Answer(JSONResponse):
    """JSON in UTF-8. Of a name in another encoding the bytes that are none are escaped: the browser shows a sign of replacement there."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def _answering(site: Site, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of a handler, which runs in a thread of its own: files are read there."""

    async def endpoint(request: Request) -> Response:
        try:
            body = await _body(request) if request.method == "POST" else {}
            answer = await run_in_threadpool(handler, site, request, body)
        except InputError as error:
            return _Answer({"error": str(error).replace(f"{site.folder.root}/", "")}, 400)
        except ValueError as error:
            return _Answer({"error": f"This request cannot be understood: {error}"}, 400)
        except Outside:
            return _Answer({"error": "Only files inside the project are shown."}, 403)
        except (Missing, FileNotFoundError) as error:
            return _Answer({"error": f"{Path(str(error.args[-1])).name}: there is no such job or file in the project."}, 404)
        except OSError as error:
            return _Answer({"error": f"{Path(str(error.filename or 'file')).name}: {error.strerror}"}, 400)
        if isinstance(answer, Response):
            return answer
        return _Answer(answer, headers={"Cache-Control": "no-store"})

    return endpoint


async def _body(request: Request) -> dict[str, Any]:
    data = json.loads(await request.body())
    if not isinstance(data, dict):
        raise ValueError("an object was expected")
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError("A name holds letters that are not UTF-8, which STAR files cannot keep: rename the file or folder.") from error
    return data
