"""Pickles from elsewhere, read without running anything that they ask for.

A pickle is a program: it may call whatever it can import. Here it can import the few names that
numpy's arrays and numbers are made with, and gets stand-ins for them that do nothing but check and
copy bytes. numpy's own are not used: their states can be forged so that they read foreign memory.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from flowbrush.errors import UserError

DEEPEST = 50  # containers within containers
_PLAIN = (str, bytes, bool, int, float, type(None))
_CODE = re.compile(r"b1|[iu][1248]|f[248]|[US]\d{1,7}")


def loads(data: bytes, name: str) -> Any:
    """What was pickled: dicts, lists, tuples, text, bytes, numbers and numpy's arrays of these.

    Text that Python 2 wrote comes as bytes. name: where it is from, for errors. Raises UserError,
    before anything is run, where it asks for another thing; ValueError where it is damaged.
    """
    try:
        for code, number, _ in pickletools.genops(data):
            # The reader would make room for as many objects as this number says.
            if "PUT" in code.name and number is not None and int(number) > len(data):
                raise ValueError("an object's number is beyond its end")
        return _plain(_Unpickler(data, name).load(), {}, 0)
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(f"damaged: {str(error) or type(error).__name__}") from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _KNOWN:
            raise UserError(
                f"{self._name}: this pickle asks for {module}.{name}, which is refused; write it "
                "again with numpy's arrays, numbers, text, lists and dicts only"
            )
        return _StandIn(_KNOWN[module, name])


class _StandIn:
    """Can be called, and neither be changed nor be looked into by a pickle."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *arguments: Any) -> Any:
        return self.make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("a state for what has none")


class _DType:
    """In place of np.dtype: of plain numbers and text, of either byte order."""

    __slots__ = ("dtype",)

    def __init__(self, code: str | bytes, *_: Any) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _CODE.fullmatch(code):
            raise ValueError(f"numbers of the kind {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order: Any = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(state[2:5]):
            raise ValueError("numbers with parts")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """In place of np.ndarray: empty until its state comes."""

    __slots__ = ("array",)

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, column_major, data = state
        self.array = _array(data, dtype, shape).reshape(shape, order="F" if column_major else "C")


def _array(data: Any, dtype: Any, shape: Any) -> np.ndarray:
    """Flat; the bytes are as many as belong to the shape."""
    if not isinstance(dtype, _DType) or not isinstance(data, bytes | bytearray):
        raise ValueError("an array of what are no plain numbers")
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array of shape {shape!r}")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise ValueError(f"{len(data):,} bytes for an array of {shape} {dtype.dtype}")
    return np.frombuffer(data, dtype.dtype) if data else np.empty(0, dtype.dtype)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> _Array:
    made, flat = _Array(), _array(data, dtype, shape)
    if order == "K":  # by rows, and turned
        made.array = flat.reshape(shape).transpose(axes)
    else:
        made.array = flat.reshape(shape, order="F" if order == "F" else "C")
    return made


def _number(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, ()).item()


def _bytes_of(text: Any = "", encoding: Any = "latin1") -> bytes:
    """How protocols below 3 write bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise ValueError("bytes of no text")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _bytes_of,
    ("builtins", "bytes"): _bytes_of,
    ("__builtin__", "bytes"): _bytes_of,
}
for _core in ("numpy.core", "numpy._core"):
    _KNOWN[f"{_core}.multiarray", "_reconstruct"] = _Array
    _KNOWN[f"{_core}.multiarray", "scalar"] = _number
    _KNOWN[f"{_core}.numeric", "_frombuffer"] = _from_buffer


def _plain(value: Any, done: dict[int, Any], depth: int) -> Any:
    """With arrays for the stand-ins. done: by id, so that what is shared is gone through once."""
    if depth > DEEPEST:
        raise ValueError("containers within containers, too deep")
    if type(value) in _PLAIN:
        return value
    if isinstance(value, bytearray):
        return bytes(value)
    if isinstance(value, _Array):
        return value.array
    if id(value) in done:
        return done[id(value)]
    if type(value) is dict:
        made: Any = {_key(k): _plain(v, done, depth + 1) for k, v in value.items()}
    elif type(value) in (list, tuple):
        made = type(value)(_plain(v, done, depth + 1) for v in value)
    else:
        raise ValueError(f"a {type(value).__name__}")
    done[id(value)] = made
    return made


def _key(key: Any) -> Any:
    if type(key) not in _PLAIN:
        raise ValueError(f"a {type(key).__name__} as a key")
    return key
