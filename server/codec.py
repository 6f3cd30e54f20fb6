"""Bytes to plain values and back: JSON or msgpack, chosen by media type.

Knows nothing of HTTP servers and of what the values mean. msgpack carries numbers, strings, lists and maps; extension
types are refused. An array may be sent as a map: {"__ndarray__": true, "data": bytes, "dtype": "<f4", "shape": [...]};
the keys may be bytes, as openpi writes them, and {"__npgeneric__": true, "data": 1.5, "dtype": "<f8"} is a number.
"""

import json
import math
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

JSON = "application/json"
MSGPACK = "application/msgpack"
_MSGPACK_NAMES = frozenset({MSGPACK, "application/x-msgpack", "application/vnd.msgpack"})
_ARRAY_KEYS = frozenset({"__ndarray__", "data", "dtype", "shape"})
_NUMBER_KEYS = frozenset({"__npgeneric__", "data", "dtype"})
_MAX_DIMENSIONS = 8


def media_type(header: str | None) -> str | None:
    """JSON or MSGPACK for a Content-Type header, None if it names neither."""
    name = (header or "").partition(";")[0].strip().lower()
    if name in _MSGPACK_NAMES:
        return MSGPACK
    return JSON if name == JSON else None


def accepted(header: str | None, default: str) -> str:
    """The first of JSON and MSGPACK that an Accept header names, else `default`."""
    for part in (header or "").split(","):
        if (known := media_type(part)) is not None:
            return known
    return default


def decode(data: bytes, media: str) -> Any:
    """The value in `data`; arrays come as numpy arrays. Raises ValueError saying what is malformed."""
    try:
        if media == MSGPACK:
            return msgpack.unpackb(data, object_hook=_array_or_map, ext_hook=_refuse_extension)
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("lists or maps are nested too deep") from error
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(str(error) or type(error).__name__) from error


def encode(value: Any, media: str) -> bytes:
    """Bytes of a value made of None, bool, int, finite float, str, list and map. Raises ValueError on NaN in JSON."""
    if media == MSGPACK:
        return bytes(msgpack.packb(value))
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()


def array_map(array: NDArray[Any]) -> dict[str, Any]:
    """An array as the map that `decode` turns back into it (msgpack only). Raises ValueError if it is not numeric."""
    _check_kind(array.dtype)
    return {"__ndarray__": True, "data": array.tobytes(), "dtype": array.dtype.str, "shape": list(array.shape)}


def _array_or_map(value: dict[Any, Any]) -> Any:
    if b"__ndarray__" in value or b"__npgeneric__" in value:  # openpi's keys are bytes
        value = {key.decode() if isinstance(key, bytes) else key: entry for key, entry in value.items()}
    if "__npgeneric__" in value:
        return _number(value)
    if "__ndarray__" not in value:
        return value
    if value.keys() != _ARRAY_KEYS:
        raise ValueError(f"an array map has the keys {sorted(_ARRAY_KEYS)}, got {sorted(map(str, value))}")
    data, name, shape = value["data"], value["dtype"], value["shape"]
    if not isinstance(data, bytes) or not isinstance(name, str) or not isinstance(shape, list):
        raise ValueError("an array map needs data as bytes, dtype as string and shape as list")
    if len(shape) > _MAX_DIMENSIONS or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"an array's shape is at most {_MAX_DIMENSIONS} sizes of at least 0, got {shape!r:.80}")
    dtype = _dtype(name)
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} and dtype {name!r} cannot have {len(data)} bytes")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _number(value: dict[Any, Any]) -> bool | int | float:
    """A scalar of numpy, as openpi writes it."""
    if value.keys() != _NUMBER_KEYS or not isinstance(value["dtype"], str):
        raise ValueError(f"a number map has the keys {sorted(_NUMBER_KEYS)}, got {sorted(map(str, value))}")
    _dtype(value["dtype"])
    if not isinstance(value["data"], (bool, int, float)):
        raise ValueError(f"a number map needs a number as data, got {type(value['data']).__name__}")
    number: bool | int | float = value["data"]
    return number


def _dtype(name: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(f"unknown array dtype {name!r:.40}") from error
    _check_kind(dtype)
    return dtype


def _check_kind(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf" or dtype.shape:
        raise ValueError(f"an array's dtype must be boolean, integer or float, got {str(dtype)!r:.40}")


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"msgpack extension type {code} is not accepted")
