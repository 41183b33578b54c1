"""Requests about the project, forms, files and jobs."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from aurefine.errors import InputError
from aurefine.project import job_types, manage
from aurefine.web import form_check, form_data, project_data
from aurefine.web.site import Handler, Site

Body = dict[str, Any]
_LOGS = ("run.out", "run.err", "note.txt")
_SHOWN_INLINE = {".png": "image/png", ".jpg": "image/jpeg"}
_TEXT = (".star", ".txt", ".out", ".err", ".job", ".bild", ".script", ".csv", ".json", ".log")


def project(site: Site, request: Request, body: Body) -> Body:
    """Jobs and graph."""
    site.starter.collect()
    return project_data.overview(site.project)


def types(site: Site, request: Request, body: Body) -> Body:
    """The forms of all job types."""
    return {"types": form_data.all_types(site.project.read().generation)}


def check(site: Site, request: Request, body: Body) -> Body:
    """What is wrong with a form, and its command line."""
    job_type = job_types.by_name(str(body.get("type", "")))
    values, pipeline = form_data.values_of(body.get("values", {})), site.project.read()
    going_on = None
    if body.get("continue"):
        process = project_data.find(site.project, str(body["continue"]))
        site.folder.path(process.name.rstrip("/"))
        going_on = partial(site.starter.going_on, process, _settings(body.get("changed", {})))
    return form_check.check(job_type, values, pipeline, site.folder, going_on)


def run(site: Site, request: Request, body: Body) -> Body:
    """Add a job, and start it unless it is only to be scheduled."""
    job_type = job_types.by_name(str(body.get("type", "")))
    values = form_data.values_of(body.get("values", {}))
    schedule = bool(body.get("schedule"))
    found = form_check.check(job_type, values, site.project.read(), site.folder)
    for problem in found["problems"]:
        waits = schedule and problem["text"].startswith("There is no such file")  # it may still be made
        if problem["level"] == "error" and not waits:
            raise InputError(f"{problem['key'] or job_type.name}: {problem['text']}")
    process = site.starter.add(job_type, values, str(body.get("alias", "")), waits=schedule)
    answer = "" if schedule else site.starter.start(process)
    return {"job": process.name.rstrip("/"), "message": answer}


def browse(site: Site, request: Request, body: Body) -> Body:
    """For a row of a form: the project's nodes of its kind, then what lies in a folder."""
    job_type = job_types.by_name(request.query_params.get("type", ""))
    row = form_data.field(job_type, request.query_params.get("key", ""))
    under = request.query_params.get("under", "").strip("/")
    kind = form_data.kind_of(job_type, row) if row else ""
    nodes = form_data.nodes_for(site.project.read(), kind)
    entries = [{"name": name, "folder": is_folder, "bytes": size} for name, is_folder, size in site.folder.entries(under)]
    return {"kind": kind, "endings": form_data.endings(kind), "nodes": nodes, "under": under, "entries": entries}


def job(site: Site, request: Request, body: Body) -> Body:
    """One job."""
    return project_data.job(site.project, site.folder, site.job(request.path_params))


def state(site: Site, request: Request, body: Body) -> Body:
    """What may have changed of a job."""
    return project_data.state(site.project, site.folder, site.job(request.path_params))


def log(site: Site, request: Request, body: Body) -> Body:
    """What was added to a job's log after a position."""
    name = request.query_params.get("file", "run.out")
    if name not in _LOGS:
        raise ValueError(f"the logs are {', '.join(_LOGS)}")
    path = site.folder.path(site.job(request.path_params).name + name)
    return project_data.tail(path, int(request.query_params.get("from", "0")))


def act(site: Site, request: Request, body: Body) -> Body:
    """Stop, start, continue, name, annotate or delete a job."""
    process = site.job(request.path_params)
    site.folder.path(process.name.rstrip("/"))  # a job that is a link to elsewhere is left alone
    action = request.path_params["action"]
    message = ""
    if action == "abort":
        manage.abort(site.project, process)
    elif action == "start":
        message = site.starter.start(process)
    elif action == "continue":
        message = site.starter.go_on(process, _settings(body.get("values", {})))
    elif action == "alias":
        manage.set_alias(site.project, process.name, str(body.get("alias", "")).strip())
    elif action == "note":
        manage.add_note(site.project, process, str(body.get("text", ""))[:20000])
    elif action == "delete":
        gone = manage.move_to_trash(site.project, process.name, [f"{name}/" for name in body.get("with", [])])
        message = f"Moved to Trash: {', '.join(name.rstrip('/') for name in gone)}."
    else:
        raise ValueError(f"there is no action {action!r}")
    return {"message": message}


def _settings(given: Any) -> dict[str, str]:
    """The rows that may change when a job goes on; keys are letters only, so that none is taken for a flag."""
    values = form_data.values_of(given)
    if not all(key.replace("_", "").isalnum() and key[0].isalpha() for key in values):
        raise ValueError("names of rows hold letters and digits only")
    return values


def file(site: Site, request: Request, body: Body) -> Response:
    """A file of the project: texts and pictures are shown, others come as downloads; nothing is ever run by the browser."""
    path = site.folder.file(request.query_params.get("path", ""))
    kind = _SHOWN_INLINE.get(path.suffix) or ("text/plain; charset=utf-8" if path.suffix in _TEXT else "")
    if kind and "download" not in request.query_params:
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name)}"}
    return FileResponse(path, media_type="application/octet-stream", headers=headers)


def table(site: Site, request: Request, body: Body) -> Body:
    """Rows of a STAR file."""
    query = request.query_params
    path = site.folder.file(query.get("path", ""))
    return project_data.star_table(path, query.get("table", ""), max(0, int(query.get("first", "0"))), 100)


GET: dict[str, Handler] = {
    "project": project,
    "types": types,
    "browse": browse,
    "file": file,
    "star": table,
    "job/{type}/{job}": job,
    "job/{type}/{job}/state": state,
    "job/{type}/{job}/log": log,
}
POST: dict[str, Handler] = {
    "form/check": check,
    "form/run": run,
    "job/{type}/{job}/{action}": act,
}
