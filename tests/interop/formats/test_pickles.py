import pickle
from collections import Counter, OrderedDict, defaultdict

import pytest
from torch_like import named, torch_is_there

from taming_jax.interop.formats.pickles import Global, Opaque, check_tree, load

PROTOCOLS = pytest.mark.parametrize("protocol", range(6))
SHARED = ["shared"]
PLAIN = {
    "none": None, "bools": (True, False), "float": -1.5e300, "complex": 1 - 2j,
    "integers": [0, 1, 255, 256, 65535, 65536, -1, 2**31, -(2**63), 2**80, -(2**500)],
    "strings": ["", "é", "\U0001f600", "a\nb\\'\"", "\udc80", "x" * 300],
    "bytes": [b"", b"\0\xff\n", b"y" * 300],
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "sets": [set(), {1, "a"}, frozenset(), frozenset({1, (2, 3)})],
    "dicts": [{}, {1: 2}, {(1, "a"): [None]}, {None: 1, 2.5: 2, b"k": 3}],
    "twice": [SHARED, SHARED], "many": list(range(2500)),
}  # fmt: skip


@PROTOCOLS
def test_plain_values_are_what_python_reads(protocol):
    written = pickle.dumps(PLAIN, protocol)
    assert load(written) == (PLAIN, len(written))


@PROTOCOLS
def test_mappings_of_the_standard_library_are_dicts(protocol):
    ordered, default = OrderedDict(a=1, b=[2]), defaultdict(list, c=3)
    ordered.hung_on = "dropped"
    value, _ = load(pickle.dumps([ordered, default], protocol))
    assert value == [{"a": 1, "b": [2]}, {"c": 3}]


@PROTOCOLS
def test_what_is_shared_stays_shared(protocol):
    first, second = load(pickle.dumps([SHARED, SHARED], protocol))[0]
    assert first is second


@PROTOCOLS
def test_objects_of_other_classes_are_read_past(protocol):
    kind = named("AttributeDict", "pytorch_lightning.utilities")
    made = kind()
    made.rate = 0.5
    with torch_is_there(kind):
        written = pickle.dumps({"class": kind, "object": made, "after": 1}, protocol)
    value, _ = load(written)
    assert value["class"] == Global("pytorch_lightning.utilities.AttributeDict")
    assert value["object"].kind == value["class"]
    assert value["object"].state == {"rate": 0.5}
    assert value["after"] == 1


@PROTOCOLS
def test_what_objects_hold_is_kept_beside_them(protocol):
    counted, _ = load(pickle.dumps(Counter("aab"), protocol))
    assert counted.name == "collections.Counter"
    assert counted.args == ({"a": 2, "b": 1},)


def test_a_mapping_of_another_class_keeps_its_pairs():
    kind = type("Namespace", (dict,), {"__module__": "somewhere"})
    with torch_is_there(kind):
        value, _ = load(pickle.dumps(kind(a=1), 2))
    assert value.pairs == [("a", 1)]


def test_strings_of_python_2_are_text_or_else_bytes():
    text, data = load(b"(U\x02abT\x02\0\0\0\xff\xfet.")[0]
    assert (text, data) == ("ab", b"\xff\xfe")


def test_classes_of_python_2_have_the_names_of_python_3():
    assert load(b"c__builtin__\neval\n.")[0] == Global("builtins.eval")


def test_old_ways_to_make_objects():
    for program in (b"(isomewhere\nThing\n.", b"(csomewhere\nThing\no."):
        value, _ = load(program)
        assert (value.name, value.args) == ("somewhere.Thing", ())


def test_known_calls_are_made_and_ids_resolved():
    calls = {"torch.Size": lambda axes: ("size", *axes)}
    written = b"(ctorch\nSize\n(K\x01K\x02t\x85RU\x03keyQPline\nt."
    value, _ = load(written, calls, persistent=str.upper)
    assert value == (("size", 1, 2), "KEY", "LINE")


@pytest.mark.parametrize(
    ("program", "value"),
    [(b"K\x01K\x020.", 1), (b"K\x01(NN1.", 1), (b"K\x012\x86.", (1, 1))],
)
def test_the_stack_is_dropped_from_and_doubled(program, value):
    assert load(program)[0] == pickle.loads(program) == value


def test_reading_begins_and_ends_where_it_should():
    first, second = pickle.dumps("first"), pickle.dumps("second")
    value, end = load(b"before" + first + second, begin=6)
    assert (value, end) == ("first", 6 + len(first))


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"", "cut short"),
        (b".", "nothing is on the stack"),
        (b"K", "cut short"),
        (b"\x80\x06N.", "protocol 6"),
        (b"\xff.", "255"),
        (b"h\x07.", "7"),
        (b"N)R.", "cannot be called"),
        (b"ca\nb\nNR.", "no tuple"),
        (b"(K\x01d.", "argument"),
        (b"]N\x85}s.", "no mapping"),
        (b"NN\x93.", "no string"),
        (b"N(0Q.", "elsewhere"),
        (b"t.", "empty list"),
        (b"]K\x01s.", "stack"),
        (b"}]K\x01s.", "unhashable"),
        (b"X\x05\0\0\0abc.", "5 bytes should follow"),
    ],
)
def test_broken_programs_are_refused_in_a_line(program, reason):
    with pytest.raises(ValueError, match=f"its pickle is broken.*{reason}") as caught:
        load(program)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"k": v}, lambda v: (v,)])
def test_trees_may_be_as_deep_as_they_are_in_practice(wrap):
    value = "leaf"
    for _ in range(50):
        value = wrap(value)
    check_tree(value)


def test_a_container_that_holds_itself_is_no_tree():
    value = []
    value.append({"again": value})
    with pytest.raises(ValueError, match="holds itself"):
        check_tree(value)


def test_what_unfolds_without_end_is_no_tree():
    value = ["ha"] * 10
    for _ in range(30):
        value = [value] * 10
    with pytest.raises(ValueError, match="unfolds"):
        check_tree(value)


def test_objects_read_past_are_leaves():
    value = Opaque(Global("somewhere.Thing"), ())
    value.state = {"parent": value}
    check_tree({"callbacks": value})
