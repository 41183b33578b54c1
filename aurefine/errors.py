"""The one exception for a user's mistake: the command line prints it as one message and leaves with exit code 2."""


class InputError(Exception):
    """Bad input: the message names the file, the row or field, what was expected, and what to do about it."""
