"""The exceptions that the command line knows: a user's mistake is printed as one message, exit code 2; what was told already is not told again."""


class InputError(Exception):
    """Bad input: the message names the file, the row or field, what was expected, and what to do about it."""


class AlreadyTold(Exception):
    """Something failed, and the user knows it: nothing is left but to end with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code
