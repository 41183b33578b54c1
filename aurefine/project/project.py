"""A RELION project's folder: its pipeline under lock, the `.Nodes` folder that the GUI's browser reads, and aliases (ALGORITHM.md 6.9)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aurefine.errors import InputError
from aurefine.project import pipeline as pipelines
from aurefine.project.lock import WAIT_SECONDS, project_lock
from aurefine.project.pipeline import Pipeline, Process

CHANGED = ".pipeline_has_changed"  # RELION's GUI looks at its time
NODES = ".Nodes"
GUI = ".gui_projectdir"  # without it RELION's GUI asks whether this is to be a project
GENERATIONS = {"3": 3, "3.1": 3, "4": 4, "4.0": 4, "5": 5, "5.0": 5}


class Project:
    """A project by its folder; every name inside is relative to it."""

    def __init__(self, root: str | Path = ".", wait_seconds: float = WAIT_SECONDS) -> None:
        self.root = Path(root)
        self.wait_seconds = wait_seconds

    @staticmethod
    def open(root: str | Path = ".", wait_seconds: float = WAIT_SECONDS) -> Project:
        """The project in a folder; InputError where there is none."""
        if not (Path(root) / pipelines.FILE).is_file():
            where = Path(root).resolve()
            raise InputError(
                f"{where}: no RELION project ({pipelines.FILE} is missing). Go to the folder where RELION's GUI was started, "
                "or start a project here with `aurefine run --new_project 5 ...` (3.1, 4 or 5: the RELION whose GUI shall open it)"
            )
        return Project(root, wait_seconds)

    @staticmethod
    def create(root: str | Path, version: str) -> Project:
        """A project without jobs for the GUI of RELION 3.1, 4 or 5; InputError for another version, or where there is one."""
        project = Project(root)
        if version not in GENERATIONS:
            raise InputError(f"--new_project {version}: 3.1, 4 or 5 was expected")
        if (project.root / pipelines.FILE).exists():
            raise InputError(f"{project.root.resolve()}: there is a RELION project already ({pipelines.FILE}); leave --new_project out")
        pipelines.new(GENERATIONS[version]).write(project.root / pipelines.FILE)
        (project.root / GUI).touch()
        return project

    def read(self) -> Pipeline:
        """The pipeline as it is now; to change it, use `edit`."""
        pipeline = pipelines.read(self.root / pipelines.FILE)
        for process in pipeline.processes:  # job directories are written to: a pipeline from elsewhere may not name other folders
            for name in (process.name, process.alias):
                if _leads_outside(name):
                    raise InputError(f"{self.root / pipelines.FILE}: the job {name!r} lies outside the project; repair the file, or restore a backup")
        return pipeline

    @contextmanager
    def edit(self, purpose: str) -> Iterator[Pipeline]:
        """The pipeline under RELION's lock; it is written when the block ends without an error and has changed something."""
        with project_lock(self.root, f"aurefine: {purpose}", self.wait_seconds):
            pipeline = self.read()
            before = dict(pipeline.tables)  # tables are never changed, only replaced
            yield pipeline
            if len(before) != len(pipeline.tables) or any(table is not before[name] for name, table in pipeline.tables.items()):
                pipeline.write(self.root / pipelines.FILE)
                (self.root / CHANGED).touch()

    def show_nodes(self, pipeline: Pipeline, process: Process, scheduled: bool = False) -> None:
        """Mirror the job's files under `.Nodes`; those of a scheduled job before they exist, so that the next job can be pointed at them."""
        kinds = pipeline.nodes()
        outputs = pipeline.outputs(process.name)
        for node in [*pipeline.inputs(process.name), *outputs]:
            if node not in kinds:  # an edge of a damaged pipeline
                continue
            shown = os.path.join(kinds[node], self._shown(pipeline, node))
            if ((self.root / node).is_file() or (scheduled and node in outputs)) and not _leads_outside(shown):
                mirror = self.root / NODES / shown
                mirror.parent.mkdir(parents=True, exist_ok=True)
                mirror.touch()

    def _shown(self, pipeline: Pipeline, node: str) -> str:
        """A file of a job that has an alias is shown under the alias."""
        for process in pipeline.processes:
            if process.alias != "None" and node.startswith(process.name):
                return process.alias + node.removeprefix(process.name)
        return node.lstrip("/")

    def link_alias(self, process: Process) -> None:
        """The link by which an alias is a directory (Refine3D/best -> ../Refine3D/job019/); InputError where the name is taken."""
        link = self.root / process.alias.rstrip("/")
        if link.is_symlink() or link.exists():
            raise InputError(f"{link}: there is a job or file of this name already; choose another alias")
        link.symlink_to(os.path.join("..", process.name))


def _leads_outside(name: str) -> bool:
    return name.startswith("/") or ".." in Path(name).parts or "\0" in name


def check_alias(name: str, job: str) -> str:
    """The alias of a job as the pipeline has it (Refine3D/best/); InputError for a name that RELION refuses."""
    refused = sorted(set(name) & set('*?()/"\\|#<>&%{}$ '))
    if refused or len(name) < 2 or name.startswith("job"):
        what = f"it may not hold {' '.join(map(repr, refused))}" if refused else "two letters at least, not starting with 'job'"
        raise InputError(f"--alias {name!r}: {what}; choose another name")
    return f"{job}/{name}/"
