"""Pickles are read without being run: what they describe is found, and they can do no harm."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import python2_pickles
from generated import generated
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from minidl.data.pickles import Described, bytes_array, read_pickle

DUMPS = {
    "Python 3, protocol 1": lambda value: pickle.dumps(value, 1),
    "Python 3, protocol 2": lambda value: pickle.dumps(value, 2),
    "Python 2, protocol 1": lambda value: python2_pickles.dumps(value, 1),
    "Python 2, protocol 2": lambda value: python2_pickles.dumps(value, 2),
}
every_way = pytest.mark.parametrize("dumps", DUMPS.values(), ids=DUMPS)


# -- what is described is found ----------------------------------------------------------------

text = st.text(st.characters(max_codepoint=255), max_size=300)
leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | text
values = st.recursive(
    leaves,
    lambda inside: (
        st.lists(inside, max_size=5)
        | st.lists(inside, max_size=5).map(tuple)
        | st.dictionaries(text, inside, max_size=5)
    ),
    max_leaves=20,
)


@generated
@given(value=values)
def test_values_come_as_they_went_in(value):
    read = read_pickle(pickle.dumps(value, 2), "x")
    assert repr(read) == repr(value)  # which tells True from 1, and tuples from lists


@every_way
def test_strings_and_bytes_come_as_text_of_a_character_a_byte(dumps):
    content = bytes(range(256)) * 3
    read = read_pickle(dumps({b"key": [b"x", content, "caf\u00e9", content]}), "x")
    same = content.decode("latin-1")
    assert read == {"key": ["x", same, "caf\u00e9", same]}


def test_no_bytes_at_all():
    value = {b"": np.zeros((0, 3), np.uint8)}
    read = read_pickle(python2_pickles.dumps(value), "x")
    assert bytes_array(read[""], "x").shape == (0, 3)
    # Python 3 has bytes() called for them, which is refused like any other call.
    with pytest.raises(ValueError, match=r"it names '__builtin__\.bytes'"):
        read_pickle(pickle.dumps(value, 2), "x")


@every_way
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(5, 7), (4,), (2, 3, 4), ()])
def test_arrays_of_bytes(dumps, shape, order):
    count = int(np.prod(shape))
    array = np.asarray(np.arange(count, dtype=np.uint8).reshape(shape) * 19, np.uint8, order=order)

    described = read_pickle(dumps({"data": array, "again": array}), "x")

    assert described["data"] is described["again"]
    assert isinstance(described["data"], Described)
    read = bytes_array(described["data"], "x")
    assert read.dtype == np.uint8
    assert read.shape == shape
    assert_array_equal(read, array)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.int8),
        np.zeros((2, 3), np.uint16),
        np.zeros((2, 3), bool),
        np.zeros((2, 3)),
        np.array([b"text"]),
        np.zeros(2, [("a", "u1")]),
        np.array([None, 1]),
    ],
    ids=lambda array: str(array.dtype),
)
def test_other_arrays_are_refused(array):
    described = read_pickle(python2_pickles.dumps(array), "x")
    with pytest.raises(ValueError, match=r"^x: expected an array of uint8, got one of another"):
        bytes_array(described, "x")


@pytest.mark.parametrize("value", [None, 5, "text", b"bytes", [1], {"a": 1}, (1,)])
def test_what_is_no_array_is_refused(value):
    with pytest.raises(ValueError, match=r"^x: expected a NumPy array, got a (\w+)$"):
        bytes_array(read_pickle(pickle.dumps([value], 2), "x")[0], "x")


def array_pickle(shape=b"K\x02\x85", data=b"U\x02ab", fortran=b"\x89", dtype=b"U\x02u1", **more):
    """The pickle of an array of two bytes, put together by hand, with parts to exchange."""
    name = more.get("name", b"cnumpy.core.multiarray\n_reconstruct\n")
    called = more.get("called", b"cnumpy\ndtype\n(" + dtype + b"K\x00K\x01tR")
    state = more.get("state", b"(K\x01" + shape + called + fortran + data + b"t")
    return (
        b"\x80\x02"
        + more.get("before", b"")
        + name
        + b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + state
        + b"b."
    )


def test_the_array_put_together_by_hand_is_one():
    assert pickle.loads(array_pickle(), encoding="latin1").tolist() == list(b"ab")
    assert bytes_array(read_pickle(array_pickle(), "x"), "x").tolist() == list(b"ab")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"name": b"cnumpy\ndtype\n"}, "expected a NumPy array, got a Described"),
        ({"state": b"(K\x01t"}, "expected a NumPy array, got a Described"),
        ({"state": b"]"}, "expected a NumPy array, got a Described"),
        ({"state": b"N"}, "expected a NumPy array, got a Described"),
        ({"called": b"N"}, "expected an array with a dtype, got a NoneType for it"),
        ({"called": b"cnumpy\ndtype\n"}, "expected an array with a dtype, got a Described for it"),
        ({"called": b"cnumpy\nndarray\nU\x02u1\x85R"}, "with a dtype, got a Described for it"),
        ({"dtype": b"(U\x02u1t"}, "expected an array of uint8, got one of another dtype"),
        ({"dtype": b"U\x02i1"}, "expected an array of uint8, got one of another dtype"),
        ({"shape": b"K\x03\x85"}, "expected as many bytes as its shape says, got 2"),
        ({"shape": b"K\x01\x85"}, "expected as many bytes as its shape says, got 2"),
        ({"shape": b"(K\x01K\x01K\x01t"}, "expected as many bytes as its shape says, got 2"),
        ({"shape": b"J\xff\xff\xff\xffJ\xfe\xff\xff\xff\x86"}, "bytes as its shape says, got 2"),
        ({"shape": b"\x88\x88\x86"}, "expected a shape of whole numbers, got a tuple"),
        ({"shape": b"K\x02"}, "expected a shape of whole numbers, got a int"),
        ({"shape": b"(K\x02\x85\x85t"}, "expected a shape of whole numbers, got a tuple"),
        ({"data": b"N"}, "expected an array's bytes, got a NoneType"),
        ({"data": b"(U\x01aU\x01bt"}, "expected an array's bytes, got a tuple"),
        ({"fortran": b"K\x00"}, "expected an array's bytes, got a str"),
        ({"data": b"X\x04\x00\x00\x00a\xe2\x82\xac"}, "array that NumPy can hold: .*can't encode"),
        ({"shape": b"(K\x02" + b"K\x01" * 70 + b"t"}, "expected an array that NumPy can hold"),
    ],
)
def test_descriptions_that_are_wrong_in_one_place(parts, message):
    with pytest.raises(ValueError, match=f"^x: .*{message}"):
        bytes_array(read_pickle(array_pickle(**parts), "x"), "x")


# -- nothing is run ----------------------------------------------------------------------------


class Calls:
    """Pickled, the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


class TakesState:
    """Pickled, an object of a class that is given a state."""

    def __init__(self):
        self.state = "state"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_call_of_the_system_is_refused(tmp_path, protocol):
    proof = tmp_path / "proof"
    hostile = pickle.dumps({"data": Calls(os.system, f"touch {proof}")}, protocol)
    with pytest.raises(ValueError, match=r"^x: not a pickle that can be read safely, at byte"):
        read_pickle(hostile, "x")
    assert not proof.exists()
    pickle.loads(hostile)
    assert proof.exists()  # it would have done it


@pytest.mark.parametrize(
    "value",
    [
        Calls(eval, "1"),
        Calls(getattr, "text", "upper"),
        Calls(bytes, "x", "utf-8"),
        Calls(np.frombuffer, b"abc"),
        Calls(np.load, "/dev/null", None, True),
        Calls(np.dtype, Calls(eval, "1")),
        TakesState(),
        os.system,
        np.float64(1),
        {1, 2},
        1.5,
        2**4000,
        bytearray(b"x"),
        complex(1, 2),
    ],
    ids=lambda value: str(getattr(value, "call", value))[:40],
)
def test_names_and_opcodes_that_no_batch_needs_are_refused(value):
    with pytest.raises(
        ValueError, match=r"^x: not a pickle that can be read safely, at byte \d+: "
    ):
        read_pickle(pickle.dumps([value], 2), "x")


def test_what_is_refused_is_named():
    with pytest.raises(ValueError, match=r"at byte \d+: it names 'posix\.system', no array$"):
        read_pickle(pickle.dumps([Calls(os.system, "true")], 2), "x")
    with pytest.raises(ValueError, match=r"at byte 5: the opcode BINFLOAT has no place in it$"):
        read_pickle(pickle.dumps([1.5], 2), "x")
    with pytest.raises(ValueError, match=r"it names 'a{80}', no array$"):
        read_pickle(b"c" + b"a" * 1000 + b"\nb\n.", "x")


OPCODES_WITH_HOOKS = {
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nU\x04trueo.",
    "NEWOBJ": b"cos\nsystem\n)\x81.",
    "STACK_GLOBAL": b"\x8c\x02os\x8c\x06system\x93.",
    "PERSID": b"Pfile\n.",
    "BINPERSID": b"U\x04fileQ.",
    "EXT1": b"\x82\x01.",
    "BYTEARRAY8": b"\x96\x01\0\0\0\0\0\0\0x.",
}


@pytest.mark.parametrize("program", OPCODES_WITH_HOOKS.values(), ids=OPCODES_WITH_HOOKS)
def test_opcodes_that_reach_outside_are_refused(program):
    with pytest.raises(ValueError, match=r"has no place in it|names 'os\.system'"):
        read_pickle(program, "x")


def test_arrays_are_described_and_not_made():
    # numpy.dtype would refuse this, and __setstate__ that.
    read = read_pickle(b"cnumpy\ndtype\nU\x08nonsense\x85RU\x05stateb.", "x")
    assert (read.name, read.arguments, read.state) == ("numpy dtype", ("nonsense",), "state")


@pytest.mark.parametrize("encoding", ["'utf-8'", "'rot13'", "None"])
def test_only_latin_1_is_encoded(encoding):
    pushed = (
        b"N" if encoding == "None" else f"X{chr(len(encoding) - 2)}\0\0\0{encoding[1:-1]}".encode()
    )
    with pytest.raises(ValueError, match="encoded otherwise than Python does it"):
        read_pickle(b"c_codecs\nencode\nX\x01\0\0\0a" + pushed + b"\x86R.", "x")


# -- nothing damaged or endless does harm ------------------------------------------------------

WHOLE = python2_pickles.dumps(
    {
        b"data": np.arange(12, dtype=np.uint8).reshape(3, 4),
        b"labels": [1, 2, 300],
        b"x": (b"y", None),
    }
)


def test_every_truncation_is_refused():
    assert read_pickle(WHOLE, "x")["labels"] == [1, 2, 300]
    for length in range(len(WHOLE)):
        with pytest.raises(ValueError, match=r"^x: not a pickle"):
            read_pickle(WHOLE[:length], "x")


@generated
@given(places=st.dictionaries(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), max_size=6))
def test_damage_gives_another_value_or_a_refusal(places):
    damaged = bytearray(WHOLE)
    for place, byte in places.items():
        damaged[place] = byte
    try:
        read = read_pickle(bytes(damaged), "x")
        bytes_array(read["data"] if isinstance(read, dict) and "data" in read else read, "x")
    except ValueError as error:
        assert str(error).startswith("x: ")  # noqa: PT017 - not all damage is noticed


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (b".", "pop from empty list"),
        (b"\x85.", "the stack is empty"),
        (b"K\x01\x86.", "the stack is empty"),
        (b"]e.", "pop from empty list"),
        (b"(e.", "list index out of range"),
        (b"h\x05.", "at byte 0: 5"),
        (b"N(K\x01e.", "expected list, got a NoneType"),
        (b"](K\x01u.", "expected str, got a int"),
        (b"](U\x01ku.", "expected dict, got a list"),
        (b"}(U\x01ku.", "argument 2 is shorter"),
        (b"}K\x01K\x02s.", "expected str, got a int"),
        (b"NU\x01ab.", "expected Described, got a NoneType"),
        (b"NK\x01\x85R.", "expected Described, got a NoneType"),
        (b"cnumpy\ndtype\nK\x01R.", "expected tuple, got a int"),
        (b"c_codecs\nencode\nK\x01U\x06latin1\x86R.", "expected str, got a int"),
        (b"c_codecs\nencode\n)R.", "encoded otherwise"),
    ],
)
def test_programs_that_go_wrong(program, message):
    with pytest.raises(ValueError, match=rf"^x: not a pickle .*{message}"):
        read_pickle(program, "x")


def bomb(open_, close):
    """A container that holds one twice that holds one twice, and so on: 2**60 leaves."""
    program = b"\x80\x02U\x03BOMq\x00"
    for level in range(60):
        get = b"h" + bytes([level])
        program += open_ + get + get + close + b"q" + bytes([level + 1])
    return program


TUPLES = bomb(b"", b"\x86")
LISTS = bomb(b"](", b"e")


@pytest.mark.parametrize("program", [TUPLES, LISTS], ids=["tuples", "lists"])
def test_a_bomb_of_containers_stays_folded(program):
    read = read_pickle(program + b".", "x")
    assert read[0] is read[1]
    with pytest.raises(ValueError, match=r"expected a NumPy array, got a (tuple|list)$"):
        bytes_array(read, "x")


def test_a_bomb_is_no_key_and_no_argument():
    with pytest.raises(ValueError, match=r"expected str, got a tuple$"):
        read_pickle(b"\x80\x02}" + TUPLES[2:] + b"Ns.", "x")
    with pytest.raises(ValueError, match="encoded otherwise"):
        read_pickle(TUPLES + b"c_codecs\nencode\nU\x01ah\x3c\x86R.", "x")
    # As a dtype, shape, or bytes of an array, it is looked at no deeper than an array is.
    for part in ("dtype", "shape", "data", "fortran", "called"):
        program = array_pickle(before=TUPLES[2:], **{part: b"h\x3c"})
        with pytest.raises(ValueError, match=r"^x: expected an? (array|shape)"):
            bytes_array(read_pickle(program, "x"), "x")


def peak_of_refusal(program, message):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message):
            read_pickle(program, "x")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("opcode", [b"}", b"]", b"(", b"N", b")"])
def test_a_flood_of_opcodes_is_stopped(opcode):
    peak = peak_of_refusal(opcode * 5_000_000 + b".", "expected at most 100000 opcodes, got more")
    assert peak < 32 * 2**20


@pytest.mark.parametrize("opcode", [b"T", b"X", b"B"])
def test_a_length_that_lies_costs_no_memory(opcode):
    program = opcode + struct.pack("<I", 2**31 - 1) + b"short"
    assert peak_of_refusal(program, "expected 2147483647 bytes") < 2**20


def test_a_long_text_is_encoded_many_times_for_nothing():
    long = struct.pack("<I", 2**20) + b"a" * 2**20
    program = b"c_codecs\nencode\nq\x00X" + long + b"q\x01X\x06\0\0\0latin1q\x02"
    program += b"h\x00h\x01h\x02\x86R" * 10_000 + b"}."
    tracemalloc.start()
    try:
        assert read_pickle(program, "x") == {}
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
