"""Arrays of one row a step, as files hold them by name, understood as streams. Knows no file."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from forcing.datasets.pixels import Pixels, pixels_of
from forcing.policy.types import Array, Role, StreamSpec


@dataclass(frozen=True, slots=True)
class Column:
    """An array of a recording and the stream that it becomes. source: its name there. pixels: how it is frames."""

    source: str
    stream: StreamSpec
    pixels: Pixels | None = None

    def rows(self, values: Array, where: str) -> Array:
        """Of the stream, out of the array's. Raises ValueError naming `where` if they have another shape or type."""
        numbers(values, where)
        if self.pixels is not None:
            values = self.pixels.frames(values, where)
        elif self.stream.shape == () and values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.shape[1:] != self.stream.shape:
            raise ValueError(
                f"{where}: a row must have shape {self.stream.shape} as in the first episode, got {values.shape[1:]}; "
                "read recordings of different robots each by itself"
            )
        return values


def column(name: str, source: str, role: Role, values: Array, where: str) -> Column:
    """What `values` [rows of one episode, *one step] are. Raises ValueError naming `where` if they can be no stream.

    A reward of one number a row is a number.
    """
    numbers(values, where)
    if any(size < 1 for size in values.shape[1:]):
        raise ValueError(f"{where}: a row must hold at least one number, got shape {values.shape[1:]}; leave it out")
    if role == "observation":
        pixels = pixels_of(values, where)
        shape = values.shape[1:] if pixels is None else pixels.frames(values[:1], where).shape[1:]
        return Column(source, StreamSpec(name=name, role=role, shape=tuple(shape)), pixels)
    shape = () if role == "reward" and values.shape[1:] == (1,) else values.shape[1:]
    return Column(source, StreamSpec(name=name, role=role, shape=tuple(shape)))


def observation_columns(
    arrays: Iterable[tuple[str, str, Array, str]], taken: Iterable[str]
) -> tuple[list[Column], dict[str, str]]:
    """The observations among `arrays`, and why each of the others is left out, by its name in the source.

    arrays: (name, name in the source, rows of the first episode, where) each. taken: names that are no observation's.
    Raises ValueError if one holds no numbers.
    """
    found, left_out, refused = list[Column](), dict[str, str](), set(taken)
    for wanted, source, values, where in arrays:
        name = identifier(wanted, refused)
        numbers(values, where)
        try:
            found.append(column(name, source, "observation", values, source))
        except ValueError as reason:
            left_out[source] = str(reason).removeprefix(f"{source}: ").removesuffix("; leave the stream out")
            continue
        refused.add(name)
    return found, left_out


def numbers(values: Array, where: str) -> None:
    """Raises ValueError naming `where` if these are no numbers, or of no rows."""
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{where}: must be an array of numbers, got dtype {values.dtype}; record it as numbers")
    if values.ndim == 0:
        raise ValueError(f"{where}: must have one row a step, got a single number; record it as an array")


def identifier(source: str, taken: Collection[str] = ()) -> str:
    """The name that a stream may have for `source`, and none of `taken` has."""
    plain = re.sub(r"\W+", "_", source).strip("_") or "stream"
    plain = plain if plain.isidentifier() else f"_{plain}"
    name, count = plain, 1
    while name in taken:
        count += 1
        name = f"{plain}_{count}"
    return name
