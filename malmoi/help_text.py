"""Docstrings of commands, as `--help` shows them."""

import re
from collections.abc import Callable
from typing import TypeVar

Command = TypeVar("Command", bound=Callable[..., object])
CONTINUED = re.compile(r"\n {12,}")
"""The second and later lines of an argument's text, below a function of a module."""


def unfolded(command: Command) -> Command:
    """The command with each argument's text on one line: tyro shows every line break of a docstring as one."""
    command.__doc__ = CONTINUED.sub(" ", command.__doc__ or "")
    return command
