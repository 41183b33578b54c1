"""The refinement. `aurefine.refine(particles, reference, options)` runs it: the module itself can be called.

A package and its main function share the name that users expect; making the module callable keeps both.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aurefine.refine.options import RefineOptions

__all__ = ["RefineOptions"]


class _Callable(ModuleType):
    def __call__(self, particles: Any, reference: str | None, options: RefineOptions, **further: Any) -> Any:
        """See `aurefine.refine.loop.refine`."""
        from aurefine.refine.loop import refine  # torch and Numba are only loaded for a real run

        return refine(particles, reference, options, **further)


def __getattr__(name: str) -> Any:
    """The options are loaded when they are asked for: other jobs use this room's console, and start without them."""
    if name == "RefineOptions":
        from aurefine.refine.options import RefineOptions

        return RefineOptions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.modules[__name__].__class__ = _Callable
