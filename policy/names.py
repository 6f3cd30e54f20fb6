"""What to answer to a name that is not known."""

import difflib
from collections.abc import Iterable


class UnknownName(ValueError):
    """A name was given that names nothing."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """`did you mean 'x'?` for a near miss; else `otherwise`, by default the list of known names in their order."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are {', '.join(names) or 'none'}" if otherwise is None else otherwise
