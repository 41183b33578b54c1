"""`aurefine gui`: the graphical page of the RELION project in this folder, in a browser on this machine or through `ssh -L`."""

from __future__ import annotations

from collections.abc import Sequence

from aurefine.jobs.options import Option, help_text, parse
from aurefine.project.project import Project

SUMMARY = "Show the RELION project in this folder in a browser: set up jobs, run them, watch them. Loopback only; Ctrl-C ends it."
OPTIONS = (
    Option("port", "--port", "Port on the loopback address; without it the first free one from 8770 on", "Page", 0, "int"),
    Option("new_project", "--new_project", "Start a project here, for the GUI of RELION 3.1, 4 or 5", "Page", ""),
)


def command_line(arguments: Sequence[str], jobs: object = None) -> int:
    """Run `aurefine gui`; InputError where there is no project, or no free port."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(help_text("aurefine gui", SUMMARY, OPTIONS))
        return 0
    given, _ = parse("aurefine gui", SUMMARY, OPTIONS, arguments)
    if given.get("new_project"):
        Project.create(".", given["new_project"])
    from aurefine.web.server import serve

    return serve(".", given.get("port", 0))
