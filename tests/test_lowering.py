"""Rewritten convolutions compute what JAX's own compute, and are in the jaxpr what they were meant to become."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, PartitionSpec

from vmaptune import lowering
from vmaptune.errors import VmaptuneWarning
from vmaptune.lowering import canonical, has_convolutions, has_loops, im2col
from vmaptune.models import from_nnx

NHWC, NCHW = ("NHWC", "HWIO", "NHWC"), ("NCHW", "OIHW", "NCHW")
NWC, NCDHW = ("NWC", "WIO", "NWC"), ("NCDHW", "OIDHW", "NCDHW")
CASES = {
    "1-D": ((2, 7, 3), (3, 3, 4), {"dimension_numbers": NWC}),
    "2-D": ((2, 6, 5, 3), (3, 3, 3, 4), {"dimension_numbers": NHWC}),
    "3-D": ((2, 2, 4, 4, 3), (3, 2, 2, 3, 2), {"dimension_numbers": NCDHW}),
    "no spatial axis": ((2, 3), (4, 3), {"dimension_numbers": ("NC", "OI", "NC"), "window_strides": (), "padding": ()}),
    "channels first": ((2, 3, 6, 5), (4, 3, 3, 2), {"dimension_numbers": NCHW}),
    "odd layout": ((6, 3, 2, 5), (3, 4, 2, 3), {"dimension_numbers": ("HCNW", "IOWH", "WNHC")}),
    "strided": ((2, 6, 5, 3), (3, 3, 3, 4), {"dimension_numbers": NHWC, "window_strides": (2, 3)}),
    "valid": ((2, 6, 5, 3), (3, 2, 3, 4), {"dimension_numbers": NHWC, "padding": "VALID"}),
    "padded": ((2, 6, 5, 3), (3, 3, 3, 4), {"dimension_numbers": NHWC, "padding": [(2, 0), (1, 3)]}),
    "cropped": ((2, 6, 5, 3), (2, 2, 3, 4), {"dimension_numbers": NHWC, "padding": [(-1, -1), (0, -2)]}),
    "dilated kernel": ((2, 6, 7, 3), (3, 2, 3, 4), {"dimension_numbers": NHWC, "rhs_dilation": (2, 3)}),
    "dilated input": ((2, 4, 3, 3), (3, 3, 3, 4), {"dimension_numbers": NHWC, "lhs_dilation": (2, 3), "padding": [(1, 2)] * 2}),
    "all at once": (
        (2, 4, 5, 4),
        (3, 2, 2, 6),
        {
            "dimension_numbers": NHWC,
            "window_strides": (2, 1),
            "padding": [(-1, 2), (3, -1)],
            "lhs_dilation": (2, 3),
            "rhs_dilation": (1, 2),
            "feature_group_count": 2,
        },
    ),
    "grouped": ((2, 6, 5, 4), (3, 3, 2, 6), {"dimension_numbers": NHWC, "feature_group_count": 2}),
    "depthwise": ((2, 6, 5, 3), (3, 3, 1, 3), {"dimension_numbers": NHWC, "feature_group_count": 3}),
    "depthwise, two each": ((2, 3, 6, 5), (6, 1, 3, 3), {"dimension_numbers": NCHW, "feature_group_count": 3}),
    "one pixel": ((2, 6, 5, 3), (1, 1, 3, 4), {"dimension_numbers": NHWC}),
}
LEFT_BY_IM2COL = {
    "batch groups": ((4, 6, 5, 3), (3, 3, 3, 4), {"dimension_numbers": NHWC, "batch_group_count": 2}),
    "129 taps": ((2, 130, 3), (129, 3, 4), {"dimension_numbers": NWC}),
}
X = jax.random.normal(jax.random.key(0), (2, 3, 6, 6))
K = jax.random.normal(jax.random.key(1), (3, 3, 3, 3))
KS = jax.random.normal(jax.random.key(2), (4, 3, 3, 3, 3))


def convolve(x, k, **options):
    """Strides of one and SAME padding, unless told."""
    options = {"window_strides": (1,) * (x.ndim - 2), "padding": "SAME"} | options
    return lax.conv_general_dilated(x, k, **options)


def operands(x_shape, k_shape, dtype=jnp.float32):
    return (jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate((x_shape, k_shape)))


def conv(x, k):
    """Channels first, which no CPU kernel takes, and with as many as before: it can be iterated."""
    return jnp.tanh(convolve(x, k, dimension_numbers=NCHW))


def squared(fn):
    """A scalar with a derivative that depends on everything."""
    return lambda *args, **kwargs: jnp.sum(jnp.square(fn(*args, **kwargs).astype(jnp.float32)))


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


def layouts(fn, *args):
    """The dimension numbers of every convolution in a function, at any depth."""
    found = [e for e in equations(jax.make_jaxpr(fn)(*args).jaxpr) if e.primitive.name == "conv_general_dilated"]
    return [tuple(e.params["dimension_numbers"]) for e in found]


def names(fn, *args):
    return {eqn.primitive.name for eqn in equations(jax.make_jaxpr(fn)(*args).jaxpr)}


def is_canonical(layout):
    lhs, rhs, out = layout
    n = len(lhs)
    return lhs == out == (0, n - 1, *range(1, n - 1)) and rhs == (n - 1, n - 2, *range(n - 2))


def close(tree, other, tolerance=2e-5):
    """Equal up to rounding, which is as large as the largest number of an array makes it."""

    def compare(a, b):
        a, b = np.float64(a), np.float64(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0.0)))

    jax.tree.map(compare, tree, other)


def same_types(fn, other, *args):
    """Shapes, dtypes and weak types of results."""
    assert jax.make_jaxpr(fn)(*args).out_avals == jax.make_jaxpr(other)(*args).out_avals


def check(plain, transposed, sliced, *args, **tolerance):
    """All three compute the same; the second holds only canonical convolutions, the third none."""
    close(jax.jit(transposed)(*args), expected := jax.jit(plain)(*args), **tolerance)
    close(jax.jit(sliced)(*args), expected, **tolerance)
    same_types(plain, transposed, *args)
    same_types(plain, sliced, *args)
    assert not all(map(is_canonical, layouts(plain, *args)))
    assert all(map(is_canonical, layouts(transposed, *args)))
    assert len(layouts(transposed, *args)) == len(layouts(plain, *args))
    assert layouts(sliced, *args) == []


def check_gradient(fn, *args, **tolerance):
    both = partial(jax.value_and_grad, argnums=(0, 1))
    check(both(fn), canonical(both(fn)), both(im2col(fn)), *args, **tolerance)


@pytest.mark.parametrize(("x", "k", "options"), CASES.values(), ids=CASES)
def test_value_and_gradients_of_a_convolution(x, k, options):
    check_gradient(squared(partial(convolve, **options)), *operands(x, k))


@pytest.mark.parametrize("lower", [canonical, im2col])
def test_a_convolution_that_nothing_comes_out_of(lower):
    fn = partial(convolve, dimension_numbers=NCHW, padding="VALID")
    assert lower(fn)(X[:, :, :2], K).shape == (2, 3, 0, 4)


@pytest.mark.parametrize(("x", "k", "options"), CASES.values(), ids=CASES)
def test_a_convolution_over_members_and_their_kernels(x, k, options):
    x, k = operands((3, *x), (3, *k))

    def members(fn):
        return jax.vmap(jax.value_and_grad(fn, argnums=(0, 1)))

    fn = squared(partial(convolve, **options))
    check(members(fn), canonical(members(fn)), members(im2col(fn)), x, k)


@pytest.mark.parametrize(("x", "k", "options"), [CASES[c] for c in ("2-D", "channels first", "grouped", "depthwise")])
def test_bfloat16(x, k, options):
    fn = squared(partial(convolve, **options))
    check_gradient(fn, *operands(x, k, jnp.bfloat16), tolerance=0.02)


@pytest.mark.parametrize("case", ["channels first", "depthwise, two each"])
def test_the_result_has_the_element_type_that_was_asked_for(case):
    x, k, options = CASES[case]
    fn = partial(convolve, preferred_element_type=jnp.float32, precision="highest", **options)
    x, k = operands(x, k, jnp.bfloat16)
    check(fn, canonical(fn), im2col(fn), x, k)
    assert im2col(fn)(x, k).dtype == jnp.float32


def test_the_matmul_has_the_convolution_s_precision():
    fn = partial(convolve, dimension_numbers=NCHW, precision=("highest", "default"))
    dots = [e for e in equations(jax.make_jaxpr(im2col(fn))(X, K).jaxpr) if e.primitive.name == "dot_general"]
    assert [dot.params["precision"] for dot in dots] == [(lax.Precision.HIGHEST, lax.Precision.DEFAULT)]


def test_a_depthwise_sum_is_as_wide_as_a_matmul_s():
    x, k, options = CASES["depthwise"]
    jaxpr = jax.make_jaxpr(im2col(partial(convolve, **options)))(*operands(x, k, jnp.bfloat16)).jaxpr
    terms = [eqn for eqn in equations(jaxpr) if eqn.primitive.name == "mul"]
    assert [eqn.outvars[0].aval.dtype for eqn in terms] == [jnp.float32] * 9
    assert jaxpr.outvars[0].aval.dtype == jnp.bfloat16


@pytest.mark.parametrize(("x", "k", "options"), LEFT_BY_IM2COL.values(), ids=LEFT_BY_IM2COL)
def test_what_would_not_gain_stays_a_convolution(x, k, options):
    fn = squared(partial(convolve, **options))
    grad = jax.grad(fn, argnums=(0, 1))
    x, k = operands(x, k)
    assert jax.make_jaxpr(im2col(fn))(x, k).pretty_print() == jax.make_jaxpr(fn)(x, k).pretty_print()
    close(jax.jit(canonical(grad))(x, k), jax.jit(grad)(x, k), tolerance=1e-4)
    assert all(map(is_canonical, layouts(canonical(grad), x, k)))
    assert not all(map(is_canonical, layouts(grad, x, k)))


@pytest.mark.parametrize("case", ["1-D", "2-D", "channels first", "strided", "dilated kernel"])
def test_canonical_is_to_the_bit_what_xla_does_outside_of_loops(case):
    x, k, options = CASES[case]
    grad = jax.value_and_grad(squared(partial(convolve, **options)), argnums=(0, 1))
    x, k = operands(x, k)
    jax.tree.map(np.testing.assert_array_equal, jax.jit(canonical(grad))(x, k), jax.jit(grad)(x, k))


def cropped_and_padded(x, k, options):
    """The convolution by padding the input itself: jax 0.10 on a CPU reads outside of inputs that are to be cropped."""
    axes, kernel_axes, _ = options["dimension_numbers"]
    space = [axis for axis in kernel_axes if axis not in "OI"]  # the order of a convolution's options
    edges = {axis: (*edge, d - 1) for axis, edge, d in zip(space, options["padding"], options["lhs_dilation"], strict=True)}
    config = [edges.get(axis, (0, 0, 0)) for axis in axes]
    return convolve(lax.pad(x, 0.0, config), k, **(options | {"padding": "VALID", "lhs_dilation": None}))


@pytest.mark.parametrize("dimension_numbers", [NHWC, ("NCHW", "HWIO", "NCHW")])
@pytest.mark.parametrize("lower", [canonical, im2col])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1)])
def test_an_axis_that_is_padded_and_cropped(lower, dimension_numbers, dilation):
    x = (2, 6, 5, 3) if dimension_numbers == NHWC else (2, 3, 6, 5)
    options = {"dimension_numbers": dimension_numbers, "padding": [(-1, 1), (0, -2)], "lhs_dilation": dilation}
    x, k = operands(x, (2, 2, 3, 4))
    out = jax.jit(lower(lambda x, k: lax.map(lambda k: convolve(x, k, **options), k[None])[0]))(x, k)
    close(out, cropped_and_padded(x, k, options))


@st.composite
def configurations(draw):
    """Any convolution that has a result, of one or two axes."""
    n = draw(st.integers(1, 2))
    small = st.integers(1, 3)
    each = partial(st.lists, min_size=n, max_size=n)
    groups = draw(small)
    window, space = draw(each(small)), draw(each(st.integers(1, 6)))
    options = {
        "window_strides": draw(each(small)),
        "lhs_dilation": draw(each(small)),
        "rhs_dilation": draw(each(small)),
        "padding": draw(each(st.tuples(st.integers(-2, 3), st.integers(-2, 3)))),
        "feature_group_count": groups,
    }
    for axis in range(n):  # pad what is too short for its kernel
        low, high = options["padding"][axis]
        extent = (space[axis] - 1) * options["lhs_dilation"][axis] + 1 + low + high
        options["padding"][axis] = (low, high + max(0, (window[axis] - 1) * options["rhs_dilation"][axis] + 1 - extent))
    x, k = draw(st.permutations("NC" + "HW"[:n])), draw(st.permutations("OI" + "HW"[:n]))
    out = draw(st.permutations(x))
    order = [axis for axis in k if axis in "HW"]
    inputs, multiplier = draw(small), draw(small)
    size = {"N": 2, "C": groups * inputs, "O": groups * multiplier, "I": inputs}
    x_shape = [size.get(axis) or space[order.index(axis)] for axis in x]
    k_shape = [size.get(axis) or window[order.index(axis)] for axis in k]
    return tuple(x_shape), tuple(k_shape), options | {"dimension_numbers": ("".join(x), "".join(k), "".join(out))}


@settings(max_examples=12)
@given(configurations())
def test_value_and_gradients_of_any_convolution(configuration):
    x, k, options = configuration
    fn = squared(partial(convolve, **options))
    reference = squared(partial(cropped_and_padded, options=options))
    grad = partial(jax.value_and_grad, argnums=(0, 1))
    run = jax.jit(lambda *args: (grad(reference)(*args), canonical(grad(fn))(*args), grad(im2col(fn))(*args)))
    x, k = operands(x, k)
    plain, transposed, sliced = run(x, k)
    close(transposed, plain)
    close(sliced, plain)
    assert all(map(is_canonical, layouts(canonical(grad(fn)), x, k)))
    assert not has_convolutions(grad(im2col(fn)), x, k)


def twice(x, k):
    return conv(conv(x, k), k)


PROGRAMS = {
    "jit": ({"jit"}, lambda x, k: jax.jit(twice)(x, k)),
    "nested jit": ({"jit"}, lambda x, k: jax.jit(lambda x: jax.jit(conv)(x, k) + x)(x)),
    "scan": ({"scan"}, lambda x, k: lax.scan(lambda c, w: (conv(c, w), c.sum()), x, jnp.stack([k, -k]))[0]),
    "scan over a weak type": (
        {"scan"},
        lambda x, k: x * lax.scan(lambda c, _: (c * 0.5, jnp.mean(conv(x, k)) * c), 1.0, None, length=2)[1].sum(),
    ),
    "map": ({"scan"}, lambda x, k: lax.map(lambda w: conv(x, w), jnp.stack([k, -k]))),
    "fori": ({"scan"}, lambda x, k: lax.fori_loop(0, 2, lambda _, c: conv(c, k), x)),
    "cond": ({"cond"}, lambda x, k: lax.cond(x[0, 0, 0, 0] > 0, conv, lambda x, _: x, x, k)),
    "switch": ({"cond"}, lambda x, k: lax.switch(jnp.int32(x[0, 0, 0, 0] > 0) + 1, [lambda x, _: x, conv, twice], x, k)),
    "remat": ({"remat2", "checkpoint"}, lambda x, k: jax.checkpoint(twice)(x, k)),
    "remat in scan": (
        {"scan"},
        lambda x, k: lax.scan(jax.checkpoint(lambda c, w: (conv(c, w), None)), x, jnp.stack([k, -k]))[0],
    ),
    "activations": (set(), lambda x, k: jax.nn.silu(conv(jax.nn.relu(conv(x, k)), k))),
    "vmap in scan": (
        {"scan"},
        lambda x, k: lax.scan(lambda c, _: (jax.vmap(conv, (0, None))(c, k), None), jnp.stack([x, -x]), None, length=2)[0],
    ),
    "scan in cond in scan": (
        {"scan", "cond"},
        lambda x, k: lax.scan(
            lambda c, i: (lax.cond(i > 0, lambda c: lax.map(lambda w: conv(c, w), k[None])[0], lambda c: c, c), None),
            x,
            jnp.arange(2),
        )[0],
    ),
}


@pytest.mark.parametrize(("kept", "fn"), PROGRAMS.values(), ids=PROGRAMS)
def test_convolutions_anywhere_in_a_program(kept, fn):
    check_gradient(squared(fn), X, K)
    assert not kept or kept & names(canonical(fn), X, K)
    assert not kept or kept & names(im2col(fn), X, K)


def test_convolutions_in_the_body_and_in_the_condition_of_a_while_loop():
    def fn(x, k):
        def more(carry):
            return (carry[0] < 3) & (jnp.sum(jnp.square(conv(carry[1], k))) > 0)

        return lax.while_loop(more, lambda carry: (carry[0] + 1, conv(carry[1], k)), (0, x))[1]

    check(fn, canonical(fn), im2col(fn), X, K)
    assert "while" in names(canonical(fn), X, K)
    assert len(layouts(fn, X, K)) == 2


def test_a_step_of_a_population_in_a_loop():
    def train(lower_step, lower_loss):
        loss = lower_loss(squared(lambda k, x: jax.nn.relu(conv(x, k))))
        step = lower_step(jax.vmap(lambda k, x: k - 0.01 * jax.grad(loss)(k, x), (0, None)))
        return lambda ks, xs: lax.scan(lambda ks, x: (step(ks, x), None), ks, xs)[0]

    def same(fn):
        return fn

    check(train(same, same), train(canonical, same), train(same, im2col), KS, jnp.stack([X, -X]))


def test_a_function_with_a_derivative_of_its_own_keeps_it_under_im2col():
    @jax.custom_jvp
    def odd(x, k):
        return conv(x, k)

    odd.defjvp(lambda primals, tangents: (conv(*primals), 3.0 * tangents[0] + jnp.sum(tangents[1])))

    @jax.custom_vjp
    def even(x, k):
        return conv(x, k)

    even.defvjp(lambda x, k: (conv(x, k), (x, k)), lambda saved, g: (conv(g, saved[1]), jnp.cos(saved[1])))
    for custom in (odd, even):
        fn = squared(lambda x, k, custom=custom: conv(custom(x, k), k))
        grad = partial(jax.grad, argnums=(0, 1))
        plain = grad(fn)(X, K)
        close(grad(im2col(fn))(X, K), plain, tolerance=1e-4)
        close(canonical(grad(fn))(X, K), plain, tolerance=1e-4)
        assert max(float(jnp.abs(a - b).max()) for a, b in zip(plain, grad(squared(twice))(X, K), strict=True)) > 0.1
        assert not all(map(is_canonical, layouts(grad(fn), X, K)))
        assert all(map(is_canonical, layouts(canonical(grad(fn)), X, K)))
        assert all(map(is_canonical, layouts(canonical(fn), X, K)))
        close(jax.grad(canonical(fn), argnums=(0, 1))(X, K), plain, tolerance=1e-4)
        assert len(layouts(im2col(fn), X, K)) == 1


@pytest.mark.parametrize("lower", [canonical, im2col])
def test_arrays_that_are_closed_over(lower):
    def outer(x, k):
        def body(c, w):
            return lower(lambda c: conv(c, w) + jnp.sum(k))(c), None

        return lax.scan(body, x, jnp.stack([k, -k]))[0]

    def plain(x, k):
        return lax.scan(lambda c, w: (conv(c, w) + jnp.sum(k), None), x, jnp.stack([k, -k]))[0]

    close(jax.jit(outer)(X, K), jax.jit(plain)(X, K))
    if lower is im2col:  # differentiated by what it closes over too
        close(jax.jit(jax.grad(squared(outer), argnums=(0, 1)))(X, K), jax.jit(jax.grad(squared(plain), argnums=(0, 1)))(X, K))
        assert not has_convolutions(jax.grad(squared(outer), argnums=(0, 1)), X, K)


def test_one_function_called_in_two_traces_does_not_mix_them():
    held = {}

    @canonical
    def fn(x):
        return conv(x, held["k"])

    def use(x, k):
        held["k"] = k
        return fn(x)

    for k in (K, 2 * K):
        close(jax.jit(lambda x, k: use(x, k))(X, k), conv(X, k))


@pytest.mark.parametrize("around", [True, False], ids=["around the loop over members", "inside it"])
def test_on_two_devices(around):
    mesh = jax.make_mesh((2,), ("population",), axis_types=(AxisType.Auto,))
    slots, everywhere = PartitionSpec("population"), PartitionSpec()

    def run(lower_step, lower_loss):
        gradient = jax.grad(lower_loss(squared(lambda k, x: conv(x, k))))

        def block(ks, x):
            if around:
                one = lower_step(lambda ks: lax.map(lambda k: k - 0.01 * gradient(k, x), ks))
            else:
                one = partial(lax.map, lower_step(lambda k: k - 0.01 * gradient(k, x)))
            return lax.scan(lambda ks, _: (one(ks), None), ks, None, length=2)[0]

        return jax.shard_map(block, mesh=mesh, in_specs=(slots, everywhere), out_specs=slots, check_vma=False)

    def same(fn):
        return fn

    check(run(same, same), run(canonical, same), run(same, im2col), KS, X)


def test_random_keys_pass_through():
    def fn(k, x, keys):
        def body(c, key):
            new, draw = jax.random.split(key)
            return conv(c * jax.random.bernoulli(draw, 0.5, c.shape), k), new

        out, keys = lax.scan(body, x, keys)
        return jnp.sum(jnp.square(out)), jax.random.wrap_key_data(jax.random.key_data(keys))

    keys = jax.random.split(jax.random.key(3), 2)
    plain = partial(jax.value_and_grad, has_aux=True)
    (loss, new), gradient = jax.jit(plain(fn))(K, X, keys)
    for lowered in (canonical(plain(fn)), plain(im2col(fn))):
        (lowered_loss, lowered_new), lowered_gradient = jax.jit(lowered)(K, X, keys)
        close((lowered_loss, lowered_gradient), (loss, gradient))
        np.testing.assert_array_equal(jax.random.key_data(lowered_new), jax.random.key_data(new))


@pytest.mark.parametrize("lower", [canonical, im2col])
def test_what_is_no_array_is_passed_on_as_it_is(lower):
    def fn(state, scale, *, train, mode):
        if train and mode == "twice" and isinstance(scale, float):
            return {"out": twice(state["x"], state["k"]) * scale, "none": None}
        raise ValueError("not what was given")

    out = jax.jit(lambda x, k: lower(fn)({"x": x, "k": k}, 2.0, train=True, mode="twice"))(X, K)
    assert out["none"] is None
    close(out["out"], 2.0 * twice(X, K))
    assert lower(fn).__name__ == "fn"


@pytest.mark.parametrize("lower", [canonical, im2col])
def test_a_function_without_convolutions_is_called_and_no_more(lower):
    def fn(x):
        return jax.nn.silu(x) @ x.T, 2

    x = jnp.ones((3, 2))
    assert jax.make_jaxpr(lower(fn))(x).pretty_print() == jax.make_jaxpr(fn)(x).pretty_print()
    assert type(lower(fn)(x)[1]) is int  # evaluated from a jaxpr, it would be an array


def test_a_convolution_that_is_canonical_already_is_no_reason_to_rewrite():
    fn = partial(convolve, dimension_numbers=NHWC)
    x, k = operands(*CASES["2-D"][:2])
    assert jax.make_jaxpr(canonical(lambda x, k: (fn(x, k), 2)))(x, k).out_avals[1].weak_type
    assert type(canonical(lambda x, k: (fn(x, k), 2))(x, k)[1]) is int


@pytest.mark.parametrize("lower", [canonical, im2col])
def test_a_function_that_is_called_twice_stays_one(lower):
    inner = jax.jit(conv)
    jaxpr = jax.make_jaxpr(lower(lambda x, k: inner(inner(x, k), k)))(X, K)
    first, second = (eqn.params["jaxpr"] for eqn in jaxpr.jaxpr.eqns)
    assert first is second


@pytest.mark.parametrize("lower", [canonical, im2col])
def test_effects_happen_once(lower):
    seen = []

    def fn(x, k):
        jax.debug.callback(lambda total: seen.append(float(total)), jnp.sum(x))
        return conv(x, k)

    jax.block_until_ready(jax.jit(lower(fn))(X, K))
    jax.effects_barrier()
    assert seen == pytest.approx([float(jnp.sum(X))])


def unknown(x, k):
    """A convolution inside a primitive that is not entered."""
    return jax.custom_derivatives.linear_call(lambda k, x: conv(x, k), lambda k, g: g, k, x)


@pytest.mark.parametrize("lower", [canonical, im2col])
def test_an_unknown_primitive_is_left_alone_with_a_warning(lower):
    def fn(x, k):
        return conv(unknown(unknown(x, k), k), k)

    with pytest.warns(VmaptuneWarning, match=rf"^{lower.__name__}: convolutions in 'linear_call' are left as they are") as seen:
        out = lower(fn)(X, K)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    close(out, fn(X, K))
    with pytest.warns(VmaptuneWarning):
        found = layouts(lower(fn), X, K)
    assert len(found) == (3 if lower is canonical else 2)
    assert sum(map(is_canonical, found)) == (1 if lower is canonical else 0)


def test_the_same_warning_is_shown_once():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            canonical(unknown)(X, K)
    assert [w.category for w in seen] == [VmaptuneWarning]


@pytest.mark.parametrize("lower", [canonical, im2col])
@pytest.mark.parametrize("result", [RuntimeError("a\nb"), lambda x, k: x.sum(), lambda x, k: x.astype(jnp.bfloat16)])
def test_a_rewrite_that_fails_leaves_the_convolution(monkeypatch, lower, result):
    def treat(_):
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(lowering, f"_as_{lower.__name__}", treat)
    fn = jax.jit(lambda x, k: lax.map(lambda w: conv(x, w), k[None]))
    with pytest.warns(VmaptuneWarning, match=r"'conv_general_dilated' are left as they are: \w+Error: [^\n]+$"):
        out = lower(fn)(X, K)
    np.testing.assert_array_equal(out, fn(X, K))


@pytest.mark.parametrize("broken", ["_trace", "core.jaxpr_as_fun"])
@pytest.mark.parametrize("lower", [canonical, im2col])
def test_any_other_failure_falls_back_on_the_function(monkeypatch, lower, broken):
    def fail(*_):
        raise RuntimeError("JAX has changed")

    monkeypatch.setattr(f"vmaptune.lowering.{broken}", fail)
    with pytest.warns(VmaptuneWarning, match="in the function are left as they are: RuntimeError: JAX has changed"):
        out = lower(conv)(X, K)
    np.testing.assert_array_equal(out, conv(X, K))


@pytest.mark.parametrize("lower", [canonical, im2col])
def test_an_error_of_the_function_s_own_comes_through(lower):
    error = KeyError("mine")

    def fn(x, k):
        conv(x, k)
        raise error

    with pytest.raises(KeyError) as caught:
        lower(fn)(X, K)
    assert caught.value is error
    assert error.__cause__ is None


def test_whether_a_function_has_convolutions():
    x, k = (jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (X, K))
    assert has_convolutions(conv, x, k)
    assert has_convolutions(conv, X, K)
    assert all(has_convolutions(fn, x, k) for _, fn in PROGRAMS.values())
    assert has_convolutions(unknown, x, k)
    assert has_convolutions(lambda pair, deep: conv(*pair) if deep else pair[0], (x, k), True)
    assert not has_convolutions(lambda pair, deep: conv(*pair) if deep else pair[0], (x, k), False)
    without = lambda x, k: jax.nn.silu(x) + jnp.sum(lax.map(jnp.sin, k))  # noqa: E731
    assert not has_convolutions(without, x, k)
    assert has_loops(without, x, k)  # of the map
    assert not has_loops(conv, x, k)


class Pixels(nnx.Module):
    """Two convolutions, one of them strided, with batch statistics and dropout."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.second = nnx.Conv(4, 6, (3, 3), strides=2, feature_group_count=2, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.gelu(self.norm(self.first(x)))
        return self.head(self.drop(nnx.relu(self.second(x)).mean(axis=(1, 2))))


def test_a_flax_network_trains_alike_under_every_lowering():
    model = from_nnx(lambda rngs: Pixels(rngs=rngs))
    images = jax.random.normal(jax.random.key(0), (3, 4, 6, 6, 1))
    params, state = jax.vmap(model.init)(jax.random.split(jax.random.key(1), 2))

    def train(lower_step, lower_loss):
        def loss(params, state, x, key):
            out, state = model.apply(params, state, x, key, train=True)
            return jnp.mean(jnp.square(out)), state

        def step(params, state, x, key):
            (value, state), gradient = jax.value_and_grad(lower_loss(loss), has_aux=True)(params, state, x, key)
            return jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient), state, value

        population = lower_step(jax.vmap(step, (0, 0, None, None)))

        def body(carry, x):
            params, state, value = population(*carry, x, jax.random.key(2))
            return (params, state), value

        return lambda params, state, images: lax.scan(body, (params, state), images)

    def same(fn):
        return fn

    check(train(same, same), train(canonical, same), train(same, im2col), params, state, images, tolerance=1e-4)
