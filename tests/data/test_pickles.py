"""Pickles are read without running anything: what numpy writes comes back, all else is refused."""

import os
import pickle
import pickletools
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from flowbrush.data.pickles import loads
from flowbrush.errors import UserError

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def back(value: object, protocol: int = 4) -> object:
    return loads(pickle.dumps(value, protocol), "x")


# -- what comes back


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("code", ["<f2", "<f4", ">f4", "<f8", "<i8", ">i2", "|u1", "|b1", "<U3"])
def test_arrays_come_back_in_every_protocol(code, protocol):
    array = np.arange(12).reshape(3, 2, 2).astype(code)
    again = back({"latent": array}, protocol)["latent"]
    assert again.dtype == array.dtype and (again == array).all()


ORDERS = {
    "by rows": lambda a: a,
    "by columns": np.asfortranarray,
    "with its axes turned": lambda a: a.transpose(1, 2, 0),
    "with holes": lambda a: a[::2, :, 1:],
    "backwards": lambda a: a[::-1],
    "empty": lambda a: a[:0],
    "a number": lambda a: np.array(a[0, 0, 0]),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("order", ORDERS)
def test_arrays_come_back_in_every_order_of_memory(order, protocol):
    array = ORDERS[order](np.arange(24, dtype=np.float32).reshape(2, 3, 4))
    again = back([array], protocol)[0]
    assert again.shape == array.shape and (again == array).all()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        {"label": 3, "short_caption": "a cat", "long_caption": "赤い猫"},
        [1, 2.5, None, True, b"\x00\xff", ("a", ("b", []))],
        2**100,
        "",
        b"",
        {1: {2: {3: 4}}},
    ],
)
def test_plain_values_come_back(value, protocol):
    assert back(value, protocol) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "number", [np.float32(0.5), np.int64(-7), np.uint8(255), np.bool_(True), np.str_("猫")]
)
def test_numbers_of_numpy_become_plain_ones(number, protocol):
    again = back(number, protocol)
    assert again == number.item() and type(again) is type(number.item())


def test_what_is_shared_is_still_shared():
    array = np.zeros(3)
    one, other = back([array, array])
    assert one is other


def test_the_names_of_older_numpy_are_known():
    data = pickle.dumps(np.arange(3), 2).replace(b"numpy._core", b"numpy.core")
    assert loads(data, "x").tolist() == [0, 1, 2]


def test_text_of_python_2_comes_as_bytes():
    """What cPickle of Python 2 wrote for {"data": array([[1, 2]], uint8), "labels": [6]}."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
        b"(K\x01K\x01K\x02\x86cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x01\x02tb"
    )
    found = loads(b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x06eu.", "x")
    assert found[b"data"].tolist() == [[1, 2]] and found[b"labels"] == [6]


# -- what is refused


class Calls:
    """Asks its reader to call a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def ran(path: Path) -> None:
    path.write_text("it ran")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_command_is_refused_and_not_run(tmp_path, protocol):
    data = pickle.dumps({"latent": Calls(os.system, f"touch {tmp_path}/ran")}, protocol)
    with pytest.raises(UserError, match=r"bad\.pkl: this pickle asks for posix\.system, which"):
        loads(data, "bad.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_code_is_refused_and_not_run(tmp_path, protocol):
    code = f"open({str(tmp_path / 'ran')!r}, 'w')"
    with pytest.raises(UserError, match=r"(builtins|__builtin__)\.eval"):
        loads(pickle.dumps(Calls(eval, code), protocol), "x")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "asked",
    [
        "builtins exec",
        "builtins getattr",
        "builtins __import__",
        "__builtin__ eval",
        "nt system",
        "subprocess Popen",
        "numpy load",
        "numpy fromfile",
        "numpy ndarray.tofile",
        "numpy memmap",
        "numpy.f2py compile",
        "numpy.testing rundocs",
        "numpy._core.multiarray fromstring",
        "numpy._core.multiarray array",
        "numpy.core.multiarray _reconstruct.__globals__",
        "numpy.random _pickle",
        "pickle loads",
        "functools partial",
        "operator attrgetter",
        "copyreg _reconstructor",
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "flowbrush.data.pickles _array",
    ],
)
def test_every_other_name_is_refused_by_name(asked):
    module, name = asked.split()
    written = b"".join(b"\x8c" + bytes([len(w)]) + w.encode() for w in (module, name))
    with pytest.raises(UserError, match="refused") as refused:
        loads(b"\x80\x04" + written + b"\x93.", "x")
    assert f"{module}.{name}" in str(refused.value) and "\n" not in str(refused.value)


def test_objects_of_numpy_hold_nothing_foreign(tmp_path):
    with pytest.raises(ValueError, match="of the kind 'O8'"):
        back(np.array([{"a": 1}], object))
    with pytest.raises((UserError, ValueError)):
        back(np.array([Calls(ran, tmp_path / "ran")], object))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("value", [{1, 2}, frozenset([1]), 1j, slice(1), range(3), np.dtype("f4")])
def test_other_kinds_of_values_are_refused(value):
    with pytest.raises((UserError, ValueError)):
        back(value)


def test_a_record_with_fields_is_refused():
    with pytest.raises(ValueError, match="of the kind 'V8'"):
        back(np.zeros(2, [("a", "f4"), ("b", "f4")]))


def array_pickle(
    code: bytes = b"u1",
    flags: bytes = b"K\x00",
    shape: bytes = b"K\x02\x85",
    data: bytes = b"\x01\x02",
    order: bytes = b"|",
    fields: bytes = b"NNN",
) -> bytes:
    """An array of two bytes, as numpy 1 writes it, or one that is forged in some part."""
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    dtype = b"cnumpy\ndtype\n(U" + bytes([len(code)]) + code + b"K\x00K\x01tR"
    dtype += b"(K\x03U\x01" + order + fields + b"K\xffK\xff" + flags + b"tb"
    state = b"(K\x01" + shape + dtype + b"\x89U" + bytes([len(data)]) + data + b"t"
    return b"\x80\x02" + made + state + b"b."


def test_the_forged_arrays_below_are_right_but_for_one_thing():
    assert loads(array_pickle(), "x").tolist() == [1, 2]


FORGED = {
    "objects for numbers": {"code": b"O8", "data": b"\x41" * 8, "shape": b"K\x01\x85"},
    "objects without their flags": {"code": b"O", "flags": b"K\x00", "data": b"\x41" * 8},
    "more numbers than bytes": {"shape": b"K\x03\x85"},
    "fewer numbers than bytes": {"shape": b"K\x01\x85"},
    "a negative length": {"shape": b"J\xff\xff\xff\xff\x85"},
    "a length that is text": {"shape": b"U\x012\x85"},
    "no shape": {"shape": b"K\x02"},
    "an unknown order of bytes": {"order": b"x"},
    "parts": {"fields": b"NK\x01N"},
    "a code": {"code": b"u1,u1"},
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_array_is_refused(how):
    with pytest.raises(ValueError, match="damaged"):
        loads(array_pickle(**FORGED[how]), "x")


@pytest.mark.parametrize(
    "state", [b"}U\x04makeNs", b"N}U\x04makeNs\x86", b"]", b"(K\x01K\x02t"], ids=str
)
@pytest.mark.parametrize("name", [b"ndarray", b"dtype"])
def test_a_pickle_cannot_change_its_reader(name, state):
    with pytest.raises(ValueError, match="damaged"):
        loads(b"\x80\x02cnumpy\n" + name + b"\n" + state + b"b.", "x")
    assert back(np.arange(3, dtype=np.int8)).tolist() == [0, 1, 2]


def test_bytes_are_made_of_text_only():
    with pytest.raises(ValueError, match="damaged"):
        loads(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00hex\x86R.", "x")


# -- what is damaged


def test_every_cut_of_a_pickle_is_damaged():
    data = pickle.dumps({"latent": np.zeros(4, np.float32), "label": 3}, 4)
    for length in range(len(data)):
        with pytest.raises(ValueError, match="damaged"):
            loads(data[:length], "x")


def test_a_flipped_byte_gives_a_value_or_an_error_of_the_two_kinds():
    data = bytearray(pickle.dumps({"latent": np.zeros(4, np.float32), "caption": "a cat"}, 4))
    for place in range(len(data)):
        spoiled = bytes(data[:place]) + bytes([data[place] ^ 0x15]) + bytes(data[place + 1 :])
        with suppress(UserError, ValueError):
            loads(spoiled, "x")


def test_a_pickle_does_not_claim_memory_that_it_does_not_fill():
    claims = b"\x80\x02Nr" + struct.pack("<I", 2**31) + b"."
    assert "LONG_BINPUT" in [code.name for code, _, _ in pickletools.genops(claims)]
    with pytest.raises(ValueError, match="beyond its end"):
        loads(claims, "x")


def test_lists_that_hold_each_other_a_billion_times_are_gone_through_once():
    value: list = [0]
    for _ in range(40):
        value = [value, value]
    assert len(back(value)) == 2


def test_a_list_that_holds_itself_is_damaged():
    value: list = []
    value.append(value)
    with pytest.raises(ValueError, match="too deep"):
        back(value)


def test_containers_too_deep_are_damaged():
    with pytest.raises(ValueError, match="damaged"):
        loads(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".", "x")
