"""`python -m aurefine` is the same as the command `aurefine`."""

from __future__ import annotations

from aurefine.cli.main import command

command()
