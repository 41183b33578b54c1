"""Requests of the live view of a refinement."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.file_cache import stamp
from aurefine.project import job_star
from aurefine.reporting import documents, globes, plots, postprocess_plots, sheet, validation_plots
from aurefine.reporting import history as histories
from aurefine.reporting import methods as methods_of
from aurefine.reporting.globes import Globe
from aurefine.reporting.related import related
from aurefine.web import particle_table, pictures, refinement, reports
from aurefine.web.folder import Missing, Outside
from aurefine.web.site import Handler, Site

Body = dict[str, Any]
_KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}  # the address holds the version
_KINDS = ("map", "half1", "half2", "difference")


def history(site: Site, request: Request, body: Body) -> Body:
    """Iterations, plots and phase; only the phase where the page has the others already."""
    directory, status = _directory(site, request)
    if request.query_params.get("have") == refinement.version(directory):
        return {"version": request.query_params["have"], "unchanged": True, **refinement.progress(directory, status)}
    answer = refinement.history(directory, status)
    found = histories.iterations(refinement.root_of(directory))
    return {**answer, "plots": [plot.data() for plot in plots.all_plots(found)]}


def plot(site: Site, request: Request, body: Body) -> Response:
    """One plot as PNG, PDF or CSV."""
    directory, _ = _directory(site, request)
    name, kind = request.path_params["name"], request.path_params["kind"]
    if kind not in plots.FORMATS:
        raise Missing(f"{name}.{kind}")
    if name == "directions":
        root = refinement.root_of(directory)
        particles, found = histories.particles_of(root), histories.iterations(root)
        if particles is None:
            raise Missing(f"{root.name}_data.star")
        with reports.DRAWING:
            data = pictures.directions(particles, found[-1].symmetry if found else "C1", kind)
        return _download(data, f"{name}.{kind}", plots.FORMATS[kind], request)
    chosen = next((each for each in _plots(site, directory, name) if each.name == name), None)
    if chosen is None:
        raise Missing(name)
    with reports.DRAWING:
        data = (globes.to_files(chosen, [kind]) if isinstance(chosen, Globe) else plots.to_files(chosen, [kind]))[kind]
    return _download(data, f"{name}.{kind}", plots.FORMATS[kind], request)


def _plots(site: Site, directory: Path, name: str) -> Sequence[plots.Plot | Globe]:
    """Those of a validation or a post-processing with its local resolutions, else those of a refinement or its newest validation."""
    if (directory / validation_plots.FILE).is_file():
        return _validated(site, directory).drawn
    if (directory / postprocess_plots.FILE).is_file() or _local_resolutions(site, directory):
        return _postprocessed(site, directory)[1]
    root = refinement.root_of(directory)
    newest = related(root).validation if name.startswith("validation_") else None
    return _validated(site, newest.parent).drawn if newest else plots.all_plots(histories.iterations(root))


def _postprocessed(site: Site, directory: Path) -> tuple[list[tuple[str, str]], list[plots.Plot]]:
    """Facts and plots of a post-processing job."""
    facts: list[tuple[str, str]] = []
    shown = [_histogram(site, directory, path) for path in _local_resolutions(site, directory)[-1:]]
    if (directory / postprocess_plots.FILE).is_file() or not shown:
        found = postprocess_plots.read_curves(site.folder.file(site.folder.name(directory / postprocess_plots.FILE)))
        facts, shown = found.facts, [*found.plots, *shown]
    return facts, shown


def _local_resolutions(site: Site, directory: Path) -> list[Path]:
    return [site.folder.file(site.folder.name(path)) for path in sorted(directory.glob("*_locres.mrc"))]


def _histogram(site: Site, directory: Path, path: Path) -> plots.Plot:
    """Of local resolutions, in the mask that the job was given where it is there."""
    mask = None
    with suppress(InputError, Missing, Outside):  # without its form or mask: of all that was measured
        name = job_star.read(directory / "job.star").values.get("fn_mask", "")
        mask = mrc.read_map(site.folder.file(name))[0] if name else None
    return validation_plots.local_resolution(path, mask)


def curves(site: Site, request: Request, body: Body) -> Body:
    """Facts and curves of a post-processing job."""
    facts, shown = _postprocessed(site, _directory(site, request)[0])
    return {"facts": facts, "plots": [plot.data() for plot in shown]}


def _validated(site: Site, directory: Path) -> validation_plots.ValidationFound:
    return validation_plots.read_validation(site.folder.file(site.folder.name(directory / validation_plots.FILE)))


def validation(site: Site, request: Request, body: Body) -> Body:
    """What a validation job found; of a refinement, what the newest validation of it did, and the half map for a new one."""
    directory, _ = _directory(site, request)
    half = ""
    if not (directory / validation_plots.FILE).is_file():
        root = refinement.root_of(directory)
        path = histories.map_path(root, -1, "half1")
        half = site.folder.name(path) if path.is_file() else ""
        newest = related(root).validation
        if newest is None:
            return {"halfMap": half}
        directory = site.folder.path(site.folder.name(newest.parent))
    found = _validated(site, directory)
    name = site.folder.name(directory)
    job = name if site.project.read().process(name) else ""
    files = [{"name": path.name, "path": site.folder.name(path), "stamp": f"{stamp(path)[0]:x}"} for path in found.files]
    return {"job": job, "folder": name, "halfMap": half, "notes": found.notes, "files": files,
            "rows": [{**asdict(row), "word": row.word} for row in found.rows], "plots": [plot.data() for plot in found.plots],
            "globes": [globe.data() for globe in found.globes], "version": f"{stamp(found.folder / validation_plots.FILE)[0]:x}"}  # fmt: skip


def _download(data: bytes, name: str, media_type: str, request: Request) -> Response:
    shown = "show" in request.query_params and media_type.startswith("image/")
    headers = _KEPT if shown else {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type=media_type, headers=headers)


def methods(site: Site, request: Request, body: Body) -> Body:
    """The methods paragraph with its references, and how many pages the report has."""
    directory, _ = _directory(site, request)
    found, version = reports.of(site.folder, directory)
    facts = found.facts
    references = [entry for _, entry in methods_of.REFERENCES]
    return {"paragraph": methods_of.paragraph(facts), "references": references, "title": sheet.title(facts),
            "pages": len(found.pages), "version": version}  # fmt: skip


def report(site: Site, request: Request, body: Body) -> Response:
    """One file of the report."""
    directory, _ = _directory(site, request)
    name = request.path_params["name"]
    if name not in documents.KINDS:
        raise Missing(name)
    shown = name if name == "view.cxc" else f"{directory.name}_{name}"
    found, _ = reports.of(site.folder, directory)
    with reports.DRAWING:
        data = found.make(name)
    return _download(data, shown, documents.KINDS[name], request)


def section(site: Site, request: Request, body: Body) -> Response:
    """A section of a map as PNG."""
    query = request.query_params
    root, iteration, kind = _map(site, request)
    axis = query.get("axis", "z")
    if axis not in pictures.AXES:
        raise ValueError("the axes are x, y and z")
    position = min(max(float(query.get("position", "0.5")), 0.0), 1.0)
    return Response(pictures.section(root, iteration, kind, axis, position), media_type="image/png", headers=_KEPT)


def volume(site: Site, request: Request, body: Body) -> Response:
    """A map for the 3D view, as an MRC file."""
    root, iteration, kind = _map(site, request)
    path = site.folder.file(site.folder.name(histories.map_path(root, iteration, "half1" if kind == "difference" else kind)))
    data = pictures.volume(path, max(16, int(request.query_params.get("side", "128"))))
    return Response(data, media_type="application/octet-stream", headers=_KEPT)


def any_volume(site: Site, request: Request, body: Body) -> Response:
    """A map of the project for the 3D view, by its name."""
    data = pictures.volume(site.folder.file(request.query_params.get("path", "")), 128)
    return Response(data, media_type="application/octet-stream", headers=_KEPT)


def particles(site: Site, request: Request, body: Body) -> Body:
    """A page of the particle table."""
    directory, _ = _directory(site, request)
    query = request.query_params
    path = histories.particles_of(refinement.root_of(directory))
    if path is None:
        raise Missing("run_data.star")
    first = max(0, int(query.get("first", "0")))
    return particle_table.page(path, query.get("sort", "rlnLogLikeliContribution"), query.get("down", "1") == "1", first, 24)


def thumbnail(site: Site, request: Request, body: Body) -> Response:
    """One particle image as PNG, by its name in the STAR file (number@stack)."""
    number, at, name = request.query_params.get("image", "").partition("@")
    if not at or not number.isdecimal():
        raise ValueError("the name of an image is number@stack")
    return Response(pictures.thumbnail(site.folder.file(name), int(number)), media_type="image/png", headers=_KEPT)


def _directory(site: Site, request: Request) -> tuple[Path, str]:
    process = site.job(request.path_params)
    return site.folder.path(process.name.rstrip("/")), process.status


def _map(site: Site, request: Request) -> tuple[Path, int, str]:
    """Root, iteration (-1: the end) and kind of a map; Missing where the file is not there, or a link that leads out."""
    directory, _ = _directory(site, request)
    root = refinement.root_of(directory)
    iteration, kind = int(request.query_params.get("iteration", "-1")), request.query_params.get("kind", "half1")
    if kind not in _KINDS or not -1 <= iteration <= 999:
        raise ValueError(f"the maps are {', '.join(_KINDS)} of iterations 0 to 999, or -1 for the end")
    for part in ("half1", "half2") if kind == "difference" else (kind,):
        site.folder.file(site.folder.name(histories.map_path(root, iteration, part)))
    return root, iteration, kind


GET: dict[str, Handler] = {
    "job/{type}/{job}/refinement": history,
    "job/{type}/{job}/plot/{name}.{kind}": plot,
    "job/{type}/{job}/curves": curves,
    "job/{type}/{job}/validation": validation,
    "job/{type}/{job}/methods": methods,
    "job/{type}/{job}/report/{name}": report,
    "job/{type}/{job}/section": section,
    "job/{type}/{job}/volume": volume,
    "job/{type}/{job}/particles": particles,
    "thumbnail": thumbnail,
    "volume": any_volume,
}
