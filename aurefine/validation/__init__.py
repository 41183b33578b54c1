"""Validation of a refinement as reviewers ask for it: `validate(options) -> Validation`; docs/validation.md says what each figure means."""

from aurefine.validation.options import ValidateOptions
from aurefine.validation.result import Measure, Validation
from aurefine.validation.run import validate

__all__ = ["Measure", "ValidateOptions", "Validation", "validate"]
