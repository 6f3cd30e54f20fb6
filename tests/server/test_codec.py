"""Bytes to values and back, without sockets."""

import math

import msgpack
import numpy as np
import pytest

from forcing.server import codec


@pytest.mark.parametrize("media", [codec.JSON, codec.MSGPACK])
def test_floats_of_both_precisions_come_back_bit_for_bit(media: str) -> None:
    numbers = [0.1, 1 / 3, 5e-324, -0.0, float(np.float32(0.1)), 1.7976931348623157e308]
    back = codec.decode(codec.encode(numbers, media), media)
    assert np.array(back).tobytes() == np.array(numbers).tobytes()


def test_an_array_map_comes_back_as_the_same_array() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    back = codec.decode(codec.encode({"x": codec.array_map(array)}, codec.MSGPACK), codec.MSGPACK)["x"]
    assert back.dtype == array.dtype
    assert np.array_equal(back, array)


def array_map(**changes: object) -> dict[str, object]:
    return {"__ndarray__": True, "data": bytes(8), "dtype": "<f4", "shape": [2], **changes}


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (array_map(dtype="O"), "must be boolean, integer or float"),
        (array_map(dtype="<M8[s]", shape=[1]), "must be boolean, integer or float"),
        (array_map(dtype="<f4,<f4", shape=[1]), "must be boolean, integer or float"),
        (array_map(dtype="nonsense"), "unknown array dtype"),
        (array_map(shape=[3]), "cannot have 8 bytes"),
        (array_map(shape=[-2]), "sizes of at least 0"),
        (array_map(shape=[True, 2]), "sizes of at least 0"),
        (array_map(shape=[1] * 9), "at most 8 sizes"),
        (array_map(data="text"), "data as bytes"),
        (array_map(more=1), "has the keys"),
        (msgpack.ExtType(4, b"x"), "extension type 4"),
    ],
)
def test_msgpack_refuses_what_is_not_a_plain_numeric_array(value: object, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        codec.decode(bytes(msgpack.packb({"x": value})), codec.MSGPACK)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x92\x01", b"\x01\x02", b"\x81\x01\x02", b"\xa1\xff", b"\x91" * 5000])
def test_malformed_msgpack_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        codec.decode(data, codec.MSGPACK)


@pytest.mark.parametrize("data", [b"{", b"\xff", b"[1] 2", b"[" * 100_000])
def test_malformed_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        codec.decode(data, codec.JSON)


def test_nan_is_never_written_as_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        codec.encode([math.nan], codec.JSON)


def test_content_types_are_recognised_with_parameters_and_in_any_case() -> None:
    assert codec.media_type("Application/JSON; charset=utf-8") == codec.JSON
    assert codec.media_type("application/x-msgpack") == codec.MSGPACK
    assert codec.media_type("text/plain") is None
    assert codec.media_type(None) is None


def test_the_first_accepted_type_wins_over_the_default() -> None:
    assert codec.accepted("text/html, application/msgpack;q=0.9, application/json", codec.JSON) == codec.MSGPACK
    assert codec.accepted("*/*", codec.MSGPACK) == codec.MSGPACK
    assert codec.accepted(None, codec.JSON) == codec.JSON
