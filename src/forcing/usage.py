"""How commands are registered, called and left: wrong usage in one line and exit code 2, failure in one line and 1."""

import contextlib
import functools
import io
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from tyro.extras import SubcommandApp

from forcing.policy.names import UnknownName, did_you_mean

Known = TypeVar("Known")
Function = TypeVar("Function", bound=Callable[..., None])


class UsageError(Exception):
    """The command was called wrongly: exit code 2."""


def command(group: SubcommandApp, name: str | None = None) -> Callable[[Function], Function]:
    """Registers a command. Parsing only binds its arguments, so that what the parser prints is known to be usage."""

    def register(function: Function) -> Function:
        @functools.wraps(function)
        def bound(*args: Any, **options: Any) -> Any:
            return functools.partial(function, *args, **options)

        group.command(name=name)(bound)
        return function

    return register


def run(app: SubcommandApp, description: str, arguments: Sequence[str] | None) -> None:
    """Runs the command that `arguments`, or the command line, name; leaves by SystemExit with 0, 1 or 2."""
    try:
        _parse(app, description, arguments)()
    except (UsageError, UnknownName) as error:
        _leave(2, str(error))
    except KeyboardInterrupt:
        _leave(1, "stopped")
    except BrokenPipeError:  # whoever read what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (ValueError, OSError, RuntimeError, ArithmeticError) as error:
        _leave(1, str(error))
    raise SystemExit(0)


def _parse(app: SubcommandApp, description: str, arguments: Sequence[str] | None) -> Callable[[], None]:
    """The command with its arguments. Raises UsageError in one line where the parser would draw a box."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            bound: Callable[[], None] = app.cli(prog="forcing", description=description, args=arguments)
    except SystemExit as leaving:
        if leaving.code != 2:
            raise
        lines = (re.sub(r"[\s\u2500-\u257f]+", " ", line).strip() for line in said.getvalue().splitlines())
        told = [line for line in lines if line]
        raise UsageError(_wrong_choice(" ".join(told)) or "; ".join(told)) from leaving
    return bound


def _wrong_choice(told: str) -> str | None:
    """What the parser says of a value that is none of an option's, in the words of all other refusals."""
    found = re.search(r"invalid choice '(.*)' for argument '--(.*?)'\. Expected one of \((.*?)\)", told)
    if found is None:
        return None
    value, option, choices = found.groups()
    known = re.findall(r"'(.*?)'", choices)
    return f"{option} must be one of {', '.join(known)}, got {value!r}; {did_you_mean(value, known, 'see --help')}"


def _leave(code: int, message: str) -> None:
    print(f"forcing: {message}", file=sys.stderr)
    raise SystemExit(code)


def known(name: str, among: Mapping[str, Known], what: str) -> Known:
    """What `name` stands for. Raises UnknownName with the nearest name there is."""
    if name in among:
        return among[name]
    raise UnknownName(f"unknown {what} {name!r}; {did_you_mean(name, among)}")


def at_least(least: int, **named: int) -> int:
    """The one named value. Raises UsageError if it is below `least`."""
    ((name, value),) = named.items()
    if value < least:
        raise UsageError(f"{name} must be at least {least}, got {value}")
    return value


def typed() -> str:
    """The command line as it was typed."""
    return shlex.join(["forcing", *sys.argv[1:]])
