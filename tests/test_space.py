import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from vmaptune.errors import ConfigError
from vmaptune.settings import Count, Positive, Rate, Setting
from vmaptune.space import Axis, Space, axis_from_table

# ---------------------------------------------------------------------------------------------------------- strategies
# Ends keep to numbers that a setting can have: float32 that is neither subnormal nor near overflow.
NUMBERS = st.just(0.0) | st.floats(1e-30, 1e30) | st.floats(-1e30, -1e-30)
GENES = st.lists(
    st.floats(0, 1, width=32) | st.sampled_from([0.0, float(np.nextafter(np.float32(1), np.float32(0))), 1.0]),
    min_size=8,
    max_size=8,
)
EDGES = [0.0, float(np.nextafter(np.float32(0), np.float32(1))), 0.25, 0.5, 0.75, 1 - 2**-24, 1.0, 1.0]


def _apart(low: float, high: float) -> bool:
    """Whether at least two float32 numbers lie in low..high."""
    inside = np.float32(low)
    inside = inside if float(inside) >= low else np.nextafter(inside, np.float32(np.inf))
    return float(np.nextafter(inside, np.float32(np.inf))) <= high


@st.composite
def intervals(draw, numbers=NUMBERS):
    low, high = sorted((draw(numbers), draw(numbers)))
    assume(_apart(low, high))
    return low, high


@st.composite
def linear_axes(draw):
    return Axis(*draw(intervals()))


@st.composite
def log_axes(draw):
    return Axis(*draw(intervals(st.floats(1e-30, 1e30))), scale="log")


@st.composite
def integer_axes(draw):
    scale = draw(st.sampled_from(["linear", "log"]))
    low = draw(st.integers(1 if scale == "log" else -1000, 10_000))
    return Axis(float(low), float(low + draw(st.integers(1, 10_000))), scale, integer=True)


@st.composite
def choice_axes(draw):
    return Axis(choices=tuple(draw(st.lists(NUMBERS, min_size=2, max_size=6, unique_by=np.float32))))


AXES = linear_axes() | log_axes() | integer_axes() | choice_axes()


@functools.cache
def _decoder(scale: str, integer: bool, choices: int):
    """A jitted decode of one axis of a kind; the numbers come in as arguments."""
    axis = Axis(choices=tuple(map(float, range(choices)))) if choices else Axis(1.0, 2.0, scale, integer)
    return jax.jit(Space({"x": axis}).decode)


def decode(axis: Axis, genes) -> np.ndarray:
    """Values f32[n] of one axis, compiled once a kind of axis."""
    genotype = jnp.asarray(np.asarray(genes, np.float32)[:, None])
    return np.asarray(_decoder(axis.scale, axis.integer, len(axis.choices))(genotype, Space({"x": axis}).arrays)["x"])


# ------------------------------------------------------------------------------------------------------------- decoding


@given(AXES, GENES)
@example(Axis(1e-4, 1e-1, "log"), EDGES)
@example(Axis(0.1, 0.3), EDGES)
@example(Axis(0.2, 0.7), EDGES)
@example(Axis(1.0, 10.0, integer=True), EDGES)
@example(Axis(1.0, 10.0, "log", integer=True), EDGES)
def test_decode_never_leaves_the_bounds(axis, genes):
    """Compared as Python floats: what a user reads in a table must lie within what the user wrote."""
    values = [float(v) for v in decode(axis, genes)]
    if axis.choices:
        assert set(values) <= {float(np.float32(c)) for c in axis.choices}
    else:
        assert all(axis.low <= v <= axis.high for v in values)
        assert not axis.integer or all(v.is_integer() for v in values)


@given(linear_axes() | log_axes())
@example(Axis(1e-4, 1e-1, "log"))
@example(Axis(0.1, 0.3))
def test_the_float32_bounds_are_the_outermost_inside(axis):
    low, high = axis.low32, axis.high32
    assert float(low) >= axis.low
    assert float(np.nextafter(low, np.float32(-np.inf))) < axis.low
    assert float(high) <= axis.high
    assert float(np.nextafter(high, np.float32(np.inf))) > axis.high


@given(linear_axes() | log_axes() | integer_axes())
def test_the_ends_of_a_gene_are_the_ends_of_the_axis(axis):
    low, high = (float(v) for v in decode(axis, [0.0, 1.0]))
    scale = max(abs(axis.low), abs(axis.high)) if axis.scale == "linear" else 1.0
    if axis.scale == "log":
        low, high = low / axis.low - 1, high / axis.high - 1
    else:
        low, high = low - axis.low, high - axis.high
    assert abs(low) <= 2e-5 * scale
    assert abs(high) <= 2e-5 * scale


@given(AXES, GENES)
def test_decode_grows_with_the_gene(axis, genes):
    values = decode(axis, sorted(genes))
    order = [axis.choices.index(min(axis.choices, key=lambda c: abs(c - float(v)))) for v in values] if axis.choices else values
    assert (np.diff(np.asarray(order, np.float64)) >= 0).all()


@given(linear_axes(), GENES)
def test_a_linear_axis_is_a_straight_line(axis, genes):
    expected = axis.low + np.asarray(genes, np.float64) * (axis.high - axis.low)
    scale = max(abs(axis.low), abs(axis.high))
    np.testing.assert_allclose(np.asarray(decode(axis, genes), np.float64), expected, rtol=0, atol=4e-7 * scale)


@given(log_axes(), GENES)
def test_a_log_axis_is_a_straight_line_of_logarithms(axis, genes):
    expected = math.log(axis.low) + np.asarray(genes, np.float64) * (math.log(axis.high) - math.log(axis.low))
    logs = np.log(np.asarray(decode(axis, genes), np.float64))
    np.testing.assert_allclose(logs, expected, rtol=0, atol=3e-5)


@given(log_axes())
def test_the_middle_of_a_log_axis_is_the_geometric_mean(axis):
    (middle,) = decode(axis, [0.5])
    np.testing.assert_allclose(float(middle), math.sqrt(axis.low) * math.sqrt(axis.high), rtol=3e-5)


@pytest.mark.parametrize(("low", "high"), [(1, 2), (0, 4), (-3, 3), (1, 10), (8, 512)])
def test_each_integer_of_a_linear_axis_has_an_equal_share(low, high):
    count = high - low + 1
    genes = (np.arange(count * 100) + 0.5) / (count * 100)  # 100 a share, none on a border
    values, shares = np.unique(decode(Axis(low, high, integer=True), genes), return_counts=True)
    assert values.tolist() == list(range(low, high + 1))
    assert shares.tolist() == [100] * count


@pytest.mark.parametrize(("low", "high"), [(1, 2), (1, 20), (16, 64)])
def test_each_integer_of_a_log_axis_has_the_share_of_its_step(low, high):
    genes = (np.arange(100_000) + 0.5) / 100_000
    values, counts = np.unique(decode(Axis(low, high, "log", integer=True), genes), return_counts=True)
    whole = np.arange(low, high + 1)
    assert values.tolist() == whole.tolist()
    shares = np.log((whole + 0.5) / (whole - 0.5)) / math.log((high + 0.5) / (low - 0.5))
    np.testing.assert_allclose(counts / 100_000, shares, atol=1e-4)


@given(integer_axes(), st.data())
def test_every_integer_is_reachable(axis, data):
    value = float(data.draw(st.integers(int(axis.low), int(axis.high))))
    assert decode(axis, Space({"x": axis}).encode({"x": value})) == [value]


@given(choice_axes())
def test_each_choice_has_an_equal_share(axis):
    count = len(axis.choices)
    genes = (np.arange(count * 10) + 0.5) / (count * 10)
    assert decode(axis, genes).tolist() == np.repeat(np.float32(axis.choices), 10).tolist()


def test_choices_keep_their_order():
    axis = Axis(choices=(0.5, 0.1, 0.9))
    assert decode(axis, [0.0, 0.3, 0.4, 0.6, 0.7, 1.0]).tolist() == np.float32([0.5, 0.5, 0.1, 0.1, 0.9, 0.9]).tolist()


def test_constants_pass_through():
    space = Space({"a": 0.25, "x": Axis(1.0, 2.0), "b": 3, "c": math.inf})
    assert space.names == ("x", "a", "b", "c")
    assert space.dimension == 1
    assert space.constants == {"a": 0.25, "b": 3.0, "c": math.inf}
    values = space.decode(jnp.array([[0.0], [1.0]]))
    assert {name: value.tolist() for name, value in values.items()} == {
        "x": [1.0, 2.0],
        "a": [0.25, 0.25],
        "b": [3.0, 3.0],
        "c": [math.inf, math.inf],
    }
    assert all(value.dtype == jnp.float32 for value in values.values())


def test_no_axes_is_a_space_too():
    space = Space({"a": 0.5})
    genotype = space.sample(jax.random.key(0), 3)
    assert genotype.shape == (3, 0)
    assert space.decode(genotype)["a"].tolist() == [0.5, 0.5, 0.5]
    assert space.decode(genotype[0])["a"].tolist() == 0.5
    assert space.encode({"a": 0.5}).shape == (0,)


def test_an_empty_space_has_no_values():
    assert Space({}).decode(jnp.zeros((3, 0))) == {}


MIXED = Space(
    {
        "linear": Axis(-1.0, 2.0),
        "fixed": 0.5,
        "log": Axis(1e-4, 1e-1, "log"),
        "whole": Axis(1, 7, integer=True),
        "wholes": Axis(8, 512, "log", integer=True),
        "pick": Axis(choices=(0.0, 0.1, 0.5)),
        "pair": Axis(choices=(3.0, 1.0)),
    }
)


def test_each_gene_moves_its_own_axis():
    genotype = jnp.full(MIXED.dimension, 0.25)
    base = MIXED.decode(genotype)
    for d, name in enumerate(MIXED.axes):
        moved = MIXED.decode(genotype.at[d].set(0.99))
        assert [n for n in MIXED.names if moved[n] != base[n]] == [name]


def test_decode_of_a_population_equals_its_rows():
    genotype = MIXED.sample(jax.random.key(1), 16)
    rows = [MIXED.decode(row) for row in genotype]
    stacked = {name: np.stack([row[name] for row in rows]) for name in MIXED.names}
    together = [MIXED.decode(genotype), jax.jit(MIXED.decode)(genotype), jax.jit(jax.vmap(MIXED.decode))(genotype)]
    for values in together:
        assert set(values) == set(MIXED.names)
        for name in MIXED.names:
            np.testing.assert_allclose(values[name], stacked[name], rtol=2e-6)


def test_decode_takes_any_leading_axes():
    genotype = MIXED.sample(jax.random.key(2), 12)
    flat, folded = MIXED.decode(genotype), MIXED.decode(genotype.reshape(3, 4, -1))
    for name in MIXED.names:
        assert folded[name].shape == (3, 4)
        np.testing.assert_array_equal(folded[name].reshape(12), flat[name])


def test_traced_arrays_decode_like_constants():
    genotype = MIXED.sample(jax.random.key(3), 16)
    traced = jax.jit(MIXED.decode)(genotype, MIXED.arrays)
    baked = jax.jit(lambda g: MIXED.decode(g))(genotype)
    for name in MIXED.names:
        np.testing.assert_allclose(traced[name], baked[name], rtol=2e-6)
    for name in ("whole", "wholes", "pick", "pair", "fixed"):
        np.testing.assert_array_equal(traced[name], baked[name])


def test_spaces_that_differ_in_numbers_share_one_program():
    """The numbers are arguments, so that a second run with other bounds compiles nothing."""
    traces = []
    first = Space({"lr": Axis(1e-4, 1e-1, "log"), "n": Axis(1, 4, integer=True), "p": Axis(choices=(0.0, 1.0)), "wd": 0.1})
    other = Space({"lr": Axis(1e-5, 1e-2, "log"), "n": Axis(2, 9, integer=True), "p": Axis(choices=(5.0, 6.0)), "wd": 0.7})

    @jax.jit
    def program(genotype, arrays):
        traces.append(1)
        return first.decode(genotype, arrays)

    genotype = first.sample(jax.random.key(0), 4)
    program(genotype, first.arrays)
    values = program(genotype, other.arrays)
    assert len(traces) == 1
    expected = other.decode(genotype)
    for name in other.names:
        np.testing.assert_allclose(values[name], expected[name], rtol=2e-6)


# ------------------------------------------------------------------------------------------------------------- encoding


@given(AXES, st.floats(0, 1, width=32))
def test_encode_undoes_decode(axis, gene):
    space = Space({"x": axis})
    (value,) = decode(axis, [gene])
    genotype = space.encode({"x": float(value)})
    assert genotype.shape == (1,)
    assert genotype.dtype == np.float32
    assert 0 <= genotype[0] <= 1
    (again,) = decode(axis, genotype)
    if axis.choices or axis.integer:
        assert again == value
    elif axis.scale == "log":
        np.testing.assert_allclose(again, value, rtol=6e-5)
    else:
        np.testing.assert_allclose(again, value, rtol=0, atol=1e-6 * max(abs(axis.low), abs(axis.high)))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2))
def test_decode_undoes_encode(genes):
    """Genes of an interval come back; of a choice or an integer, the middle of the share does."""
    space = Space({"a": Axis(-1.0, 3.0), "b": Axis(1e-3, 1e1, "log")})
    values = {name: float(v) for name, v in space.decode(jnp.asarray(genes, jnp.float32)).items()}
    np.testing.assert_allclose(space.encode(values), genes, atol=2e-6)


def test_encode_gives_the_middle_of_a_share():
    space = Space({"n": Axis(1, 4, integer=True), "p": Axis(choices=(0.1, 0.2, 0.4, 0.8))})
    np.testing.assert_allclose(space.encode({"n": 2.0, "p": 0.4}), [3 / 8, 5 / 8], rtol=1e-6)


def test_encode_takes_a_float32_of_a_choice():
    space = Space({"p": Axis(choices=(0.1, 0.3))})
    assert space.encode({"p": np.float32(0.3)}) == np.float32([0.75])


ENCODE_ERRORS = [
    ({"x": Axis(0.0, 1.0)}, {"y": 0.5, "z": 1.0}, "x: no value given to encode; given: y, z"),
    ({"x": Axis(0.0, 1.0)}, {"x": 1.5}, "x: outside 0..1; given: 1.5"),
    ({"x": Axis(0.0, 1.0)}, {"x": math.nan}, "x: outside 0..1; given: nan"),
    ({"x": Axis(1e-4, 0.1, "log")}, {"x": 0.0}, "x: outside 0.0001..0.1; given: 0"),
    ({"x": Axis(choices=(1.0, 2.0))}, {"x": 1.5}, "x: not one of the choices [1.0, 2.0]; given: 1.5"),
    ({"x": Axis(1, 3, integer=True)}, {"x": 4}, "x: outside 1..3; given: 4"),
]


@pytest.mark.parametrize(("entries", "values", "sentence"), ENCODE_ERRORS)
def test_encode_refuses_what_lies_on_no_point(entries, values, sentence):
    with pytest.raises(ConfigError) as error:
        Space(entries).encode(values)
    assert str(error.value) == sentence


def test_encode_refuses_a_fraction_on_an_integer_axis():
    with pytest.raises(ConfigError):
        Space({"x": Axis(1, 3, integer=True)}).encode({"x": 1.4})


# ------------------------------------------------------------------------------------------------------------- sampling


def test_sampled_rows_do_not_depend_on_how_many():
    many = MIXED.sample(jax.random.key(7), 64)
    for n in (1, 2, 3, 8, 33, 63):
        np.testing.assert_array_equal(MIXED.sample(jax.random.key(7), n), many[:n])


def test_samples_fill_the_unit_cube_evenly():
    genotype = np.asarray(MIXED.sample(jax.random.key(8), 4096))
    assert genotype.shape == (4096, MIXED.dimension)
    assert genotype.dtype == np.float32
    assert (genotype >= 0).all()
    assert (genotype < 1).all()
    counts = np.stack([np.histogram(column, bins=8, range=(0, 1))[0] for column in genotype.T])
    assert (abs(counts - 512) < 5 * math.sqrt(4096 * 7 / 64)).all()  # five standard deviations of a binomial
    assert (abs(np.corrcoef(genotype.T) - np.eye(MIXED.dimension)) < 5 / math.sqrt(4096)).all()


def test_another_key_draws_other_genotypes():
    assert (MIXED.sample(jax.random.key(1), 4) != MIXED.sample(jax.random.key(2), 4)).all()


# ---------------------------------------------------------------------------------------------------------- impossible

NAN, INF = math.nan, math.inf
IMPOSSIBLE = [
    ({"low": 2.0, "high": 1.0}, "axis: low must be below high; given: low = 2, high = 1"),
    ({"low": 0.5, "high": 0.5}, "axis: low must be below high; given: low = 0.5, high = 0.5"),
    ({"low": 0.0, "high": 1.0, "scale": "log"}, "axis: a log scale needs low > 0; given: low = 0"),
    ({"low": -1.0, "high": 1.0, "scale": "log"}, "axis: a log scale needs low > 0; given: low = -1"),
    ({}, "axis: an axis needs a finite low and high, or choices; given: low = nan, high = nan"),
    ({"low": 0.0}, "axis: an axis needs a finite low and high, or choices; given: low = 0.0, high = nan"),
    ({"low": NAN, "high": 1.0}, "axis: an axis needs a finite low and high, or choices; given: low = nan, high = 1.0"),
    ({"low": -INF, "high": 1.0}, "axis: an axis needs a finite low and high, or choices; given: low = -inf, high = 1.0"),
    ({"low": 0.0, "high": INF}, "axis: an axis needs a finite low and high, or choices; given: low = 0.0, high = inf"),
    ({"choices": (1.0,)}, "axis: choices must be two or more different finite numbers; given: [1.0]"),
    ({"choices": (1.0, 2.0, 1.0)}, "axis: choices must be two or more different finite numbers; given: [1.0, 2.0, 1.0]"),
    ({"choices": (1.0, NAN)}, "axis: choices must be two or more different finite numbers; given: [1.0, nan]"),
    ({"choices": (1.0, INF)}, "axis: choices must be two or more different finite numbers; given: [1.0, inf]"),
    (
        {"choices": (1.0, 2.0), "low": 0.0, "high": 3.0},
        "axis: an axis has either choices or low and high, not both; given: {'choices': [1.0, 2.0]} with bounds",
    ),
    (
        {"choices": (1.0, 2.0), "high": 3.0},
        "axis: an axis has either choices or low and high, not both; given: {'choices': [1.0, 2.0]} with bounds",
    ),
    (
        {"low": 1.5, "high": 4.0, "integer": True},
        "axis: an integer axis needs whole bounds; given: low = 1.5, high = 4",
    ),
    (
        {"low": 1.0, "high": 4.5, "integer": True},
        "axis: an integer axis needs whole bounds; given: low = 1, high = 4.5",
    ),
    (
        {"low": 1.0, "high": 2.0, "scale": "logg"},
        "axis: scale must be 'linear' or 'log'; did you mean 'log'?; given: 'logg'",
    ),
    ({"low": 1.0, "high": 2.0, "scale": "cubic"}, "axis: scale must be 'linear' or 'log'; known: linear, log; given: 'cubic'"),
    (
        {"low": 0.1, "high": 0.1 + 1e-12},
        "axis: low and high are the same float32 number; given: low = 0.1, high = 0.10000000000100001",
    ),
]


@pytest.mark.parametrize(("fields", "sentence"), IMPOSSIBLE)
def test_an_impossible_axis_is_refused_in_one_sentence(fields, sentence):
    with pytest.raises(ConfigError) as error:
        Axis(**fields)
    assert str(error.value) == sentence


def test_choices_that_are_one_float32_are_refused():
    """Members would differ on paper and train alike."""
    with pytest.raises(ConfigError):
        Axis(choices=(0.1, 0.1 + 1e-12))


@pytest.mark.parametrize(
    "fields",
    [{"low": 0.0, "high": 1e39}, {"low": 1e300, "high": 2e300}, {"choices": (1.0, 1e300)}, {"low": -1e300, "high": 0.0}],
)
def test_numbers_beyond_float32_are_refused(fields):
    """Decoded values are float32: beyond 3.4e38 they would all be infinite."""
    with pytest.raises(ConfigError):
        Axis(**fields)


def test_a_log_axis_below_the_smallest_float32_is_refused_or_kept_in():
    """1e-40 is subnormal: a device that flushes subnormals to zero would decode it below its bound."""
    try:
        axis = Axis(1e-40, 1.0, "log")
    except ConfigError:
        return
    assert float(decode(axis, [0.0])[0]) >= 1e-40


def test_integers_beyond_float32_are_refused_or_kept_in():
    """Above 2**24 not every whole number is a float32."""
    try:
        axis = Axis(2**24 + 1, 2**24 + 4, integer=True)
    except ConfigError:
        return
    values = {float(v) for v in decode(axis, (np.arange(400) + 0.5) / 400)}
    assert values == {2.0**24 + i for i in range(1, 5)}


def test_the_widest_axis_decodes_to_finite_numbers():
    """`high - low` alone would overflow."""
    try:
        axis = Axis(-3e38, 3e38)
    except ConfigError:
        return
    assert np.isfinite(decode(axis, EDGES)).all()


def test_an_axis_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Axis(0.0, 1.0).low = 2.0


# --------------------------------------------------------------------------------------------------------------- tables

RATE = Setting("b1", Rate, 0.9, True, "")
POSITIVE = Setting("eps", Positive, 1e-8, True, "")
STATIC = Setting("size", Count, 1, False, "")

TABLES = [
    ({"low": 0, "high": 0.9}, Axis(0.0, 0.9)),
    ({"low": 0.1, "high": 0.9, "scale": "log"}, Axis(0.1, 0.9, "log")),
    ({"low": 0.1, "high": 0.9, "scale": "linear", "integer": False}, Axis(0.1, 0.9)),
    ({"choices": [0, 0.5]}, Axis(choices=(0.0, 0.5))),
    ({"choices": (0.9, 0.1, 0.5)}, Axis(choices=(0.9, 0.1, 0.5))),
]


@pytest.mark.parametrize(("table", "axis"), TABLES)
def test_a_table_reads_as_its_axis(table, axis):
    found = axis_from_table(table, RATE, "optimizer.b1")
    assert found == axis
    assert all(type(v) is float for v in (found.low, found.high, *found.choices))


def test_a_table_may_ask_for_integers():
    assert axis_from_table({"low": 1, "high": 8, "integer": True}, POSITIVE, "x") == Axis(1.0, 8.0, integer=True)


@given(AXES)
def test_an_axis_reads_back_from_its_table(axis):
    assert axis_from_table(axis.as_toml(), Setting("x", float, 0.0, True, ""), "x") == axis


def test_a_table_leaves_out_what_is_default():
    assert Axis(0.0, 1.0).as_toml() == {"low": 0.0, "high": 1.0}
    assert Axis(1.0, 4.0, "log", True).as_toml() == {"low": 1.0, "high": 4.0, "scale": "log", "integer": True}
    assert Axis(choices=(1.0, 2.0)).as_toml() == {"choices": [1.0, 2.0]}


TABLE_ERRORS = [
    ({"low": 0.0, "hi": 1.0}, RATE, "o.b1: an axis has no key 'hi'; did you mean 'high'?"),
    ({"low": 0.0, "step": 1.0}, RATE, "o.b1: an axis has no key 'step'; known: choices, high, integer, low, scale"),
    ({"low": 0.0}, RATE, "o.b1: an axis needs both low and high, or choices; given: {'low': 0.0}"),
    ({"high": 0.5}, RATE, "o.b1: an axis needs both low and high, or choices; given: {'high': 0.5}"),
    ({}, RATE, "o.b1: an axis needs both low and high, or choices; given: {}"),
    ({"low": 0.0, "high": 1.0}, RATE, "o.b1.high: expected float >= 0 and < 1; given: 1.0"),
    ({"low": -0.1, "high": 0.5}, RATE, "o.b1.low: expected float >= 0 and < 1; given: -0.1"),
    ({"low": "0", "high": 0.5}, RATE, "o.b1.low: expected float >= 0 and < 1; given: '0'"),
    ({"low": True, "high": 0.5}, RATE, "o.b1.low: expected float >= 0 and < 1; given: True"),
    ({"low": 0, "high": 1}, POSITIVE, "o.b1.low: expected float > 0; given: 0"),
    ({"low": 0.5, "high": 0.1}, RATE, "o.b1: low must be below high; given: low = 0.5, high = 0.1"),
    ({"low": 0.0, "high": 0.5, "scale": "log"}, RATE, "o.b1: a log scale needs low > 0; given: low = 0"),
    (
        {"low": 0.0, "high": 0.5, "scale": "Log"},
        RATE,
        "o.b1: scale must be 'linear' or 'log'; did you mean 'log'?; given: 'Log'",
    ),
    ({"low": 0.0, "high": 0.5, "scale": 3}, RATE, "o.b1: scale must be 'linear' or 'log'; known: linear, log; given: 3"),
    ({"low": 0.0, "high": 0.5, "integer": 1}, RATE, "o.b1.integer: expected true or false; given: 1"),
    ({"low": 0.0, "high": 0.5, "integer": True}, RATE, "o.b1: an integer axis needs whole bounds; given: low = 0, high = 0.5"),
    ({"choices": 0.5}, RATE, "o.b1.choices: expected a list of numbers; given: 0.5"),
    ({"choices": "0.5"}, RATE, "o.b1.choices: expected a list of numbers; given: '0.5'"),
    ({"choices": [0.5, "a"]}, RATE, "o.b1.choices: expected float >= 0 and < 1; given: 'a'"),
    ({"choices": [0.5, 1.5]}, RATE, "o.b1.choices: expected float >= 0 and < 1; given: 1.5"),
    ({"choices": [0.5]}, RATE, "o.b1: choices must be two or more different finite numbers; given: [0.5]"),
    ({"choices": [0.5, 0.5]}, RATE, "o.b1: choices must be two or more different finite numbers; given: [0.5, 0.5]"),
    ({"choices": []}, RATE, "o.b1: choices must be two or more different finite numbers; given: []"),
    (
        {"choices": [0.1, 0.5], "scale": "log"},
        RATE,
        "o.b1: an axis of choices has no scale; given: {'choices': [0.1, 0.5], 'scale': 'log'}",
    ),
    (
        {"choices": [0.1, 0.5], "low": 0.0},
        RATE,
        "o.b1: an axis of choices has no low; given: {'choices': [0.1, 0.5], 'low': 0.0}",
    ),
    (
        {"low": 1, "high": 4},
        STATIC,
        "o.b1: an axis cannot stand here, because size is static (int >= 1): it shapes the compiled program, "
        "which all members share; given: {'low': 1, 'high': 4}",
    ),
]


@pytest.mark.parametrize(("table", "setting", "sentence"), TABLE_ERRORS)
def test_a_bad_table_is_refused_in_one_sentence(table, setting, sentence):
    with pytest.raises(ConfigError) as error:
        axis_from_table(table, setting, "o.b1")
    assert str(error.value) == sentence
