"""Values that a command is given by name, out of modules of its user's own."""

import sys
from importlib import import_module
from typing import TypeVar

Kind = TypeVar("Kind")


def find_elsewhere(name: str, kind: type[Kind]) -> Kind | str:
    """The value of `my.module:NAME`, if it is of the kind; else what was found in its place, in words.

    The module may lie in the current directory, which Python looks in for `python -m` alone.
    """
    if "" not in sys.path:
        sys.path.append("")
    module, _, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        return str(error)
    return found if isinstance(found, kind) else type(found).__name__
