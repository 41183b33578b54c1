"""`default_pipeline.star`, the graph of a project's jobs and files, as RELION 3, 4 and 5 write it (ALGORITHM.md 6.9).

What aurefine does not know in the file (columns, tables) is kept, and a file that is read and written again is the same to the byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from aurefine import star
from aurefine.errors import InputError
from aurefine.project.labels import STATUSES, node_code
from aurefine.regular_files import regular
from aurefine.star import Table

FILE = "default_pipeline.star"
_COUNTER = "rlnPipeLineJobCounter"
_TABLES = ("pipeline_general", "pipeline_processes", "pipeline_nodes", "pipeline_input_edges", "pipeline_output_edges")
_LABELS = {  # table -> its labels in RELION 4 and 5
    "pipeline_processes": ("rlnPipeLineProcessName", "rlnPipeLineProcessAlias", "rlnPipeLineProcessTypeLabel", "rlnPipeLineProcessStatusLabel"),
    "pipeline_nodes": ("rlnPipeLineNodeName", "rlnPipeLineNodeTypeLabel"),
    "pipeline_input_edges": ("rlnPipeLineEdgeFromNode", "rlnPipeLineEdgeProcess"),
    "pipeline_output_edges": ("rlnPipeLineEdgeProcess", "rlnPipeLineEdgeToNode"),
}
_NUMBERED = {  # label of RELION 4 and 5 -> of RELION 3
    "rlnPipeLineProcessTypeLabel": "rlnPipeLineProcessType",
    "rlnPipeLineProcessStatusLabel": "rlnPipeLineProcessStatus",
    "rlnPipeLineNodeTypeLabel": "rlnPipeLineNodeType",
}
_RELION_4 = "RELION 4"  # a comment: without jobs its file is RELION 3's
_DEPTH = "rlnPipeLineNodeTypeLabelDepth"


@dataclass(frozen=True)
class Process:
    """A job: its directory with a slash (Refine3D/job019/), alias (None where there is none), type and state as words or RELION 3's number."""

    name: str
    alias: str
    type: str
    status: str

    @property
    def number(self) -> int:
        """The job's number; 0 where the name has none."""
        match = re.search(r"/job(\d+)/?$", self.name)
        return int(match.group(1)) if match else 0


@dataclass
class Pipeline:
    """The tables of the file. `generation` is the RELION version (3, 4 or 5) whose layout it has, `version` the number in its comments."""

    tables: dict[str, Table] = field(default_factory=dict)
    generation: int = 5
    version: int = 50001
    comments: list[str] = field(default_factory=list)

    @property
    def counter(self) -> int:
        """The number that the next job gets."""
        return int(self.tables["pipeline_general"][_COUNTER][0])

    @counter.setter
    def counter(self, number: int) -> None:
        general = self.tables["pipeline_general"]
        self.tables["pipeline_general"] = general.with_columns({_COUNTER: np.array([number])})

    @property
    def processes(self) -> list[Process]:
        """All jobs in the order of the file."""
        table = self._table("pipeline_processes")
        columns = [table[label].tolist() if label in table else [] for label in self._labels("pipeline_processes")]
        return [Process(name, alias, str(kind), _status_word(status)) for name, alias, kind, status in zip(*columns, strict=True)]

    def process(self, name: str) -> Process | None:
        """The job of that directory or alias, with or without a final slash."""
        wanted = name.rstrip("/") + "/"
        return next((each for each in self.processes if wanted in (each.name, each.alias)), None)

    def nodes(self) -> dict[str, str]:
        """Name -> type of every file in the graph, the type as the file has it."""
        table = self._table("pipeline_nodes")
        name, kind = self._labels("pipeline_nodes")[:2]
        return dict(zip(table[name].tolist(), map(str, table[kind].tolist()), strict=True)) if name in table else {}

    def outputs(self, process: str) -> list[str]:
        """The files that a job makes."""
        return [node for source, node in self._rows("pipeline_output_edges") if source == process]

    def inputs(self, process: str) -> list[str]:
        """The files that a job takes."""
        return [node for node, target in self._rows("pipeline_input_edges") if target == process]

    def add_process(self, process: Process, code: int) -> None:
        """Append a job; `process.type` is the label of RELION 4 and 5, `code` RELION 3's number. ValueError if it is there already."""
        if self.process(process.name) is not None:
            raise ValueError(f"{process.name} is in the pipeline already")
        kind: object = process.type if self.generation > 3 else code
        status: object = process.status if self.generation > 3 else STATUSES.index(process.status)
        self._append("pipeline_processes", (process.name, process.alias, kind, status))

    def set_status(self, name: str, status: str) -> None:
        """Change the state of one job."""
        table = self._table("pipeline_processes")
        labels = self._labels("pipeline_processes")
        column = table[labels[3]].copy()
        column[table[labels[0]] == name] = status if self.generation > 3 else STATUSES.index(status)
        self.tables["pipeline_processes"] = table.with_columns({labels[3]: column})

    def set_alias(self, name: str, alias: str) -> None:
        """Change the alias of one job (Refine3D/best/; None where it is to have none)."""
        table, labels = self._table("pipeline_processes"), self._labels("pipeline_processes")
        column = table[labels[1]].copy()
        column[table[labels[0]] == name] = alias
        self.tables["pipeline_processes"] = table.with_columns({labels[1]: column})

    def remove(self, name: str) -> None:
        """Take a job out, with its edges and the files that it made."""
        gone = set(self.outputs(name))
        for table, column, values in (
            ("pipeline_processes", 0, {name}), ("pipeline_nodes", 0, gone), ("pipeline_input_edges", 1, {name}), ("pipeline_input_edges", 0, gone),
            ("pipeline_output_edges", 0, {name}),
        ):  # fmt: skip
            rows, label = self._table(table), self._labels(table)[column]
            if label in rows:
                self.tables[table] = rows.select(np.array([value not in values for value in rows[label]], dtype=bool))

    def dependents(self, name: str) -> list[str]:
        """The jobs that take what a job made, and those that take what these made, in the order of the file."""
        found, looked_at = {name}, 0
        while looked_at != len(found):
            looked_at = len(found)
            made = {node for process, node in self._rows("pipeline_output_edges") if process in found}
            found |= {process for node, process in self._rows("pipeline_input_edges") if node in made}
        return [process.name for process in self.processes if process.name in found - {name}]

    def add_input(self, node: str, label: str, process: str) -> None:
        """An edge from a file to a job; the file keeps the type that it has in the graph. Kinds that RELION 3 lacked are left out there."""
        if self._add_node(node, label) and node not in self.inputs(process):
            self._append("pipeline_input_edges", (node, process))

    def add_output(self, process: str, node: str, label: str) -> None:
        """An edge from a job to a file that it makes."""
        if self._add_node(node, label) and node not in self.outputs(process):
            self._append("pipeline_output_edges", (process, node))

    def part(self, process: str) -> Pipeline:
        """The part of the graph around one job, as RELION keeps it in `job_pipeline.star`."""
        part = replace(self, tables=dict(self.tables))
        nodes = {*self.inputs(process), *self.outputs(process)}
        for name, column, wanted in (
            ("pipeline_processes", 0, {process}), ("pipeline_nodes", 0, nodes), ("pipeline_input_edges", 1, {process}),
            ("pipeline_output_edges", 0, {process}),
        ):  # fmt: skip
            table, label = self._table(name), self._labels(name)[column]
            if label in table:
                part.tables[name] = table.select(np.array([value in wanted for value in table[label]], dtype=bool))
        return part

    def write(self, path: str | Path) -> None:
        """Write the file atomically, in the layout of its RELION version; empty tables are left out, as RELION does."""
        known = [self.tables[name] for name in _TABLES if name in self.tables]
        others = [table for name, table in self.tables.items() if name not in _TABLES]
        star.write(path, [table for table in known + others if table.count], self.comments, self.version)

    def _add_node(self, node: str, label: str) -> bool:
        """Whether the file is in the graph now."""
        if node in self.nodes():
            return True
        kind: object = label if self.generation > 3 else node_code(label)
        if kind is None:
            return False
        self._append("pipeline_nodes", (node, kind))
        return True

    def _rows(self, name: str) -> list[tuple[str, str]]:
        table = self._table(name)
        first, second = self._labels(name)
        return list(zip(table[first].tolist(), table[second].tolist(), strict=True)) if first in table else []

    def _table(self, name: str) -> Table:
        return self.tables.get(name, Table(name))

    def _labels(self, name: str) -> list[str]:
        return [_NUMBERED.get(label, label) if self.generation == 3 else label for label in _LABELS[name]]

    def _append(self, name: str, values: tuple[object, ...]) -> None:
        given: dict[str, object] = dict(zip(self._labels(name), values, strict=True))
        if name == "pipeline_nodes" and self.generation == 5:
            given[_DEPTH] = 1
        table = self._table(name)
        labels = list(table.columns) if table.count else list(given)
        columns = {label: _appended(table.columns.get(label), given.get(label, "None")) for label in labels}
        self.tables[name] = Table(name, columns)


def _appended(column: np.ndarray | None, value: object) -> np.ndarray:
    if column is None or not len(column):
        column = np.empty(0, dtype=object if isinstance(value, str) else np.int64)
    if column.dtype != object and isinstance(value, str):
        value = 0  # a column that aurefine does not know
    return np.concatenate([column, np.array([value], dtype=column.dtype)])


def _status_word(status: object) -> str:
    """RELION 4 and 5 write the word, RELION 3 its number."""
    if isinstance(status, str):
        return status
    return STATUSES[int(status)] if 0 <= int(status) < len(STATUSES) else str(status)  # type: ignore[call-overload]


def new(generation: int = 5) -> Pipeline:
    """The pipeline of a project without jobs."""
    table = Table.from_values("pipeline_general", {_COUNTER: 1})
    comments = [_RELION_4] if generation == 4 else []
    return Pipeline({"pipeline_general": table}, generation, 50001 if generation == 5 else 30001, comments)


def read(path: str | Path) -> Pipeline:
    """Read the file of RELION 3, 4 or 5; InputError when it is missing, damaged, or no pipeline."""
    tables = star.read(path)
    general = tables.get("pipeline_general")
    if general is None or _COUNTER not in general or general.count != 1:
        raise InputError(f"{path}: no pipeline of a RELION project (data_pipeline_general with _{_COUNTER} is missing); restore it from a backup")
    comments, version = _comments(path)
    pipeline = Pipeline(tables, _generation(tables, version, comments), version, comments)
    _check(path, pipeline)
    return pipeline


def _comments(path: str | Path) -> tuple[list[str], int]:
    """Comments before the first block, and the number of the `# version` line (30001 where there is none)."""
    comments, version = [], 30001
    with open(path, encoding="utf-8", errors="surrogateescape", opener=regular) as lines:
        for line in lines:
            match = re.match(r"#\s*version\s+(\d+)", line)
            if line.startswith("data_"):
                break
            if match:
                version = int(match.group(1))
            elif line.startswith("# "):
                comments.append(line[2:].rstrip("\n"))
    return comments, version


def _generation(tables: dict[str, Table], version: int, comments: list[str]) -> int:
    processes, nodes = tables.get("pipeline_processes"), tables.get("pipeline_nodes")
    if processes is None or not processes.columns:
        earlier = 4 if _RELION_4 in comments else 3  # RELION 4 reads RELION 3's file, not the other way round
        return 5 if version >= 50000 else earlier
    if "rlnPipeLineProcessTypeLabel" not in processes:
        return 3
    return 5 if version >= 50000 or (nodes is not None and _DEPTH in nodes) else 4


def _check(path: str | Path, pipeline: Pipeline) -> None:
    for name in _LABELS:
        table = pipeline.tables.get(name)
        if table is None or not table.columns:
            continue
        for label in pipeline._labels(name):
            if label not in table:
                expected = f"which RELION {pipeline.generation} writes; restore the file from a backup"
                raise InputError(f"{path}: data_{name} has no column _{label}, {expected}")
