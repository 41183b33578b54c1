"""One option table per job: the command line, `job.star`, the web form and the documentation are generated from it."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from aurefine.errors import InputError

Kind = Literal["switch", "int", "float", "text", "file", "optional_text"]
Effect = Literal["used", "ignored", "unsupported"]

_NEGATIVE_NUMBER = re.compile(r"^-(\d|\.\d)")


@dataclass(frozen=True)
class Option:
    """One option of a job.

    `kind` "switch" takes no value and stores `value`; "optional_text" may stand without a value (an empty text).
    `effect` "ignored" is accepted with one line saying why (`help`); "unsupported" is an error that says why (`help`).
    """

    name: str  # the Python name under which the value is handed on
    flag: str  # as on RELION's command line, with its dashes
    label: str
    tab: str
    default: Any
    kind: Kind = "text"
    help: str = ""
    range: tuple[float, float, float] | None = None  # smallest, largest, step of a slider
    value: Any = True  # what a switch stores
    effect: Effect = "used"
    unit: str = ""
    takes_value: bool = True  # of an ignored or unsupported option


@dataclass(frozen=True)
class FormField:
    """One row of a job's form in RELION's GUI and `job.star`: its key, label, tab, default and slider.

    `flag` and what follows say how the row is read back from a command line (jobs/form.py); rows without a flag are not.
    """

    key: str
    label: str
    tab: str
    default: str  # as `job.star` prints it: "Yes", "No", a number or a text
    kind: Literal["bool", "float", "text", "file", "choice"] = "text"
    range: tuple[float, float, float] | None = None
    choices: tuple[str, ...] = ()
    flag: str = ""  # of a bool: the flag that is there when it is Yes
    inverted: bool = False  # of a bool: the flag is there when it is No
    absent: str | None = None  # the value when the flag is not there; None: the default (of a bool: the opposite of "flag is there")
    from_flag: Callable[[str], str] | None = None  # the form's value from the flag's, where they differ
    required: bool = False
    variable: str = ""  # of the environment: gives the default where it is set, as to RELION's GUI
    since: int = 3  # RELION versions whose GUI has this row
    until: int = 5


class _Parser(argparse.ArgumentParser):
    """An argparse parser that raises InputError and leaves unknown options to the caller."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {message}. `{self.prog} --help` lists every option.")


def parser(program: str, summary: str, options: Sequence[Option]) -> argparse.ArgumentParser:
    """The argparse parser of a job, its help grouped by tab; only options that were given appear in the result."""
    result = _Parser(
        prog=program, usage=f"{program} [options]", description=summary, allow_abbrev=False, argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=38, width=130),
    )  # fmt: skip
    groups: dict[str, Any] = {}
    for option in options:
        if option.tab not in groups:
            groups[option.tab] = result.add_argument_group(option.tab)
        _add(groups[option.tab], option)
    return result


def help_text(program: str, summary: str, options: Sequence[Option]) -> str:
    """The job's help, grouped by tab; at its end the flags that are accepted or refused but do nothing."""
    described = parser(program, summary, [option for option in options if option.effect == "used"])
    text = described.format_help()
    for effect, title in (("ignored", "accepted, without effect here"), ("unsupported", "not supported")):
        flags = [option.flag for option in options if option.effect == effect]
        if flags:
            import textwrap  # only here

            text += "\n" + textwrap.fill(f"{title}: {' '.join(flags)}", 110, subsequent_indent="  ", break_on_hyphens=False) + "\n"
    return text


def _add(group: Any, option: Option) -> None:
    hidden = option.effect != "used"
    text = argparse.SUPPRESS if hidden else _help_text(option)
    flags = [option.flag]
    if hidden and not option.takes_value:
        group.add_argument(*flags, dest=option.flag, action="store_const", const=True, help=text)
    elif hidden:
        group.add_argument(*flags, dest=option.flag, nargs="?", const="", help=text)
    elif option.kind == "switch":
        group.add_argument(*flags, dest=option.name, action="store_const", const=option.value, help=text)
    else:
        kind = {"int": _integer, "float": _number}.get(option.kind, str)
        extra: dict[str, Any] = {"nargs": "?", "const": ""} if option.kind == "optional_text" else {}
        group.add_argument(*flags, dest=option.name, type=kind, help=text, metavar=_metavar(option), **extra)


def _metavar(option: Option) -> str:
    return {"int": "N", "float": option.unit or "X", "file": "FILE"}.get(option.kind, "TEXT")


def _help_text(option: Option) -> str:
    text = option.help or option.label
    if option.kind != "switch" and option.default not in ("", None):
        text += f" (default {option.default:g})" if isinstance(option.default, float) else f" (default {option.default})"
    return text.replace("%", "%%")


def _integer(text: str) -> int:
    """An integer; RELION also takes `3.0` where an integer is meant."""
    number = _number(text)
    if number != int(number):
        raise argparse.ArgumentTypeError(f"a whole number was expected, not {text!r}")
    return int(number)


def _number(text: str) -> float:
    """A finite number: no option means anything by nan, and one that is infinite is one that was left out."""
    try:
        number = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"a number was expected, not {text!r}") from error
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"a finite number was expected, not {text!r}")
    return number


def _join_negative_numbers(arguments: Sequence[str]) -> list[str]:
    """`--tau2_fudge -1` to `--tau2_fudge=-1`, so that argparse does not take the value for an option."""
    joined: list[str] = []
    for argument in arguments:
        if _NEGATIVE_NUMBER.match(argument) and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += "=" + argument
        else:
            joined.append(argument)
    return joined


def parse(program: str, summary: str, options: Sequence[Option], arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values that were given (name -> value), and one line for each option that has no effect here.

    Raises InputError for an unknown option (with the nearest names), a wrong value, or an option that is not supported.
    """
    namespace, unknown = parser(program, summary, options).parse_known_args(_join_negative_numbers(arguments))
    if unknown:
        raise InputError(_unknown(program, unknown[0], options))
    return _separate(program, vars(namespace), options)


def _separate(program: str, values: dict[str, Any], options: Sequence[Option]) -> tuple[dict[str, Any], list[str]]:
    """Take the options without effect out of `values`; one line for each."""
    notes = []
    for option in options:
        if option.effect == "used" or option.flag not in values:
            continue
        given = values.pop(option.flag)
        if option.effect == "ignored":
            if option.help:
                notes.append(f"{option.flag} has no effect here: {option.help}")
        elif _is_on(given, option.default):
            raise InputError(f"{program}: {option.flag} is not supported: {option.help}")
    return values, notes


def _is_on(given: Any, default: Any) -> bool:
    """Whether an unsupported option was given a value other than the one that switches it off."""
    if isinstance(default, int | float) and not isinstance(default, bool):
        try:
            return float(given) != default
        except (TypeError, ValueError):
            return True
    return given != default


def _unknown(program: str, argument: str, options: Iterable[Option]) -> str:
    name = argument.split("=")[0]
    if not name.startswith("-"):
        return f"{program}: {argument!r} does not follow an option that takes a value. `{program} --help` lists every option."
    nearest = nearest_names(name, [option.flag for option in options])
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else f"`{program} --help` lists every option."
    return f"{program}: unknown option {name}. {hint}"


def nearest_names(name: str, names: Sequence[str]) -> list[str]:
    """At most three of `names` that look most like `name`, the nearest first."""
    import difflib  # only for a name that is wrong

    bare = {candidate.lower(): candidate for candidate in names}
    return [bare[match] for match in difflib.get_close_matches(name.lower(), list(bare), n=3, cutoff=0.6)]
