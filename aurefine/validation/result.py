"""What a validation finds: figures with their verdicts, and the curves behind them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Verdict = Literal["good", "warning", "poor", "info", "missing"]


@dataclass(frozen=True)
class Measure:
    """One figure: its value (None where it was not computed, and `text` says why), what it means here, and where it comes from."""

    key: str
    label: str
    value: float | None
    unit: str
    verdict: Verdict
    text: str
    source: str

    def shown(self) -> str:
        """The value as the table has it."""
        if self.value is None:
            return "not computed"
        return f"{self.value:.2f} {self.unit}" if self.unit in ("A", "A^2") else f"{self.value:.3f} {self.unit}".rstrip()


@dataclass
class Validation:
    """All measures in the order of the table, and curves: table name -> column -> values [rows]; `notes` say what was measured on what."""

    measures: list[Measure] = field(default_factory=list)
    curves: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # further ones, by name
    arrays: dict[str, Any] = field(default_factory=dict)  # for the picture: maps over the sphere, the 3D FSC

    def add(self, *measures: Measure) -> None:
        """Append rows to the table."""
        self.measures.extend(measures)

    def missing(self, label: str, key: str, reason: str, source: str) -> None:
        """A row for what could not be computed."""
        self.add(Measure(key, label, None, "", "missing", reason, source))

    def value(self, key: str) -> float | None:
        """The value of a measure; None where it is missing or was not computed."""
        return next((each.value for each in self.measures if each.key == key), None)


def graded(value: float, good: float, poor: float) -> Verdict:
    """Verdict of a figure that is better when larger: at least `good`, below `poor`, or between."""
    return "good" if value >= good else "poor" if value < poor else "warning"
