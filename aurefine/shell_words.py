"""Texts taken apart into words as a shell does."""

from __future__ import annotations

import shlex

from aurefine.errors import InputError


def words_of(text: str, what: str) -> list[str]:
    """The words of `text`, quotes taken off; InputError, which says `what` it is, where a quote is not closed."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(f"{what} {text!r}: a quote is not closed; close it, or put a backslash before it") from error
