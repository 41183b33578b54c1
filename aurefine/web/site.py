"""What the handlers of one server share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aurefine.project.pipeline import Process
from aurefine.project.project import Project
from aurefine.web import project_data
from aurefine.web.folder import Folder
from aurefine.web.starting import Starter


@dataclass
class Site:
    """The project that is served, its folder as the browser may see it, and what starts jobs."""

    project: Project
    folder: Folder
    starter: Starter = field(init=False)

    def __post_init__(self) -> None:
        """One starter a server."""
        self.starter = Starter(self.project)

    def job(self, path: dict[str, str]) -> Process:
        """The job that an address names; Missing where there is none."""
        return project_data.find(self.project, f"{path['type']}/{path['job']}")


Handler = Callable[[Site, Request, dict[str, Any]], Response | dict[str, Any]]  # what answers a request: its body is {} for GET
