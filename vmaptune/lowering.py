"""How convolutions reach the compiler: two rewrites of a traced function that keep its results and change its speed.

XLA transposes a convolution to the layout its fast CPU kernels want only outside of loops. Inside a `scan`, every convolution
in another layout falls to a plain loop, about ten times slower: both gradients of any convolution, and any convolution that
`vmap` has turned into a grouped one. So what XLA does outside of loops is done here, before it sees the program.

`canonical` transposes. It belongs around the whole step, after `grad` and `vmap`, which make the convolutions it mends.
`im2col` replaces convolutions by slices and one matmul. It belongs around the loss, before `grad` and `vmap`, whose results
are then matmuls too.

Both trace a function to a jaxpr and edit that: an equation that holds no convolution stays the very object it was. What
cannot be rewritten is left alone, with a `VmaptuneWarning`; speed is lost then, never the result.

This is the only file of the package that knows what is inside JAX: `jax.extend`, which may change without notice, and
`jax.interpreters`. It holds for jax 0.10 to 0.12.
"""

from __future__ import annotations

import itertools
import math
import operator
import warnings
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jax.extend.core import primitives as p
from jax.extend.linear_util import wrap_init
from jax.interpreters.partial_eval import trace_to_jaxpr_dynamic

from vmaptune.errors import VmaptuneWarning

T = TypeVar("T")

Lowering = Literal["grouped", "canonical", "im2col"]
"""What becomes of convolutions: as JAX made them, transposed for the CPU's fast kernels, or matmuls."""

_CLOSED: Any = operator.attrgetter("ClosedJaxpr")(core)  # there in every version, but not in every version's types
_MOST_TAPS = 128  # kernel positions, a slice each; beyond it the program grows larger than the gain

# Primitives whose jaxprs are programs with the equation's own inputs and outputs: rewritten in place.
_ENTERED = frozenset({p.jit_p, p.closed_call_p, p.call_p, p.scan_p, p.while_p, p.cond_p, p.remat_p})
# These hold, beside such a jaxpr, a derivative that stands in for its own.
_CONVOLUTIONS, _LOOPS = frozenset({"conv_general_dilated"}), frozenset({"scan", "while"})
_CUSTOM = frozenset({p.custom_jvp_call_p, p.custom_vjp_call_p})

Body = Callable[[jax.Array, jax.Array], jax.Array]
"""A convolution of canonical operands: (N, spatial, C) and (spatial, I, O) to (N, spatial, O)."""


def canonical(fn: Callable[..., T]) -> Callable[..., T]:
    """Transposes every convolution to the layout that XLA's fast CPU kernels take, wherever in the function it stands.

    Args:
        fn: The function, with its `grad` and `vmap` inside; may close over traced arrays. Arrays in its arguments are
            traced, all else is passed on as it is.

    Returns:
        The same function of the same arguments. Differentiating it is correct, but makes new convolutions that are not
        rewritten.
    """
    return _rewritten(fn, "canonical", _as_canonical, _ENTERED | _CUSTOM)


def im2col(fn: Callable[..., T]) -> Callable[..., T]:
    """Replaces convolutions by slices and one matmul, so that gradients and `vmap` make no convolutions either.

    A depthwise convolution becomes a sum of products instead: faster, as each of its matmuls would have a single row.

    Left as they are: convolutions with `batch_group_count`, of more than 128 kernel positions, or inside a function with
    a custom derivative, which would otherwise lose it.

    Args:
        fn: The function, before its `grad` and `vmap`, such as a loss; may close over traced arrays. Arrays in its
            arguments are traced, all else is passed on as it is.

    Returns:
        The same function of the same arguments, up to rounding.
    """
    return _rewritten(fn, "im2col", _as_im2col, _ENTERED)


def has_convolutions(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether a function holds a convolution, at any depth. Traces it, computes nothing.

    Args:
        fn: The function.
        *args: Its arguments; a `jax.ShapeDtypeStruct` may stand for an array.
    """
    return _holds(_trace(fn, args, {}).closed.jaxpr, _CONVOLUTIONS)


def has_loops(fn: Callable[..., Any], *args: Any) -> bool:
    """Whether a function holds a loop, such as that of a recurrent layer over time, at any depth; see `has_convolutions`."""
    return _holds(_trace(fn, args, {}).closed.jaxpr, _LOOPS)


def bytes_computed(fn: Callable[..., Any], *args: Any) -> int:
    """Bytes of all that a function computes on its way, each once, as if nothing were overwritten; see `has_convolutions`."""
    return _bytes_computed(_trace(fn, args, {}).closed.jaxpr)


def _bytes_computed(jaxpr: core.Jaxpr) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        made: list[Any] = [v.aval for v in eqn.outvars if hasattr(v.aval, "shape")]
        total += sum(math.prod(aval.shape) * getattr(aval.dtype, "itemsize", 0) for aval in made)
        total += sum(map(_bytes_computed, core.jaxprs_in_params(eqn.params)))
    return total


class _Traced(NamedTuple):
    closed: Any
    arrays: list[jax.Array]
    out_tree: Any


def _trace(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Traced:
    """The jaxpr of a call. Only arrays become variables: a flag such as `train=True` must stay one."""
    leaves, tree = jax.tree.flatten((args, kwargs))
    where = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)]
    arrays = [leaves[i] for i in where]

    def flat(*arrays: Any) -> Any:  # made anew in every call, or JAX's cache would return an older call's closed-over tracers
        for i, array in zip(where, arrays, strict=True):
            leaves[i] = array
        args, kwargs = jax.tree.unflatten(tree, leaves)
        return fn(*args, **kwargs)

    closed, out = jax.make_jaxpr(flat, return_shape=True)(*arrays)
    return _Traced(closed, arrays, jax.tree.structure(out))


def _holds(jaxpr: core.Jaxpr, names: frozenset[str]) -> bool:
    return any(
        eqn.primitive.name in names or any(_holds(inner, names) for inner in core.jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def _rewritten(
    fn: Callable[..., T],
    name: str,
    treat: Callable[[core.JaxprEqn], Body | None],
    entered: frozenset[core.Primitive],
) -> Callable[..., T]:
    """The function with its convolutions treated, and itself where there is nothing to treat or something goes wrong."""

    @wraps(fn)
    def call(*args: Any, **kwargs: Any) -> T:
        rewriter = _Rewriter(treat, entered)
        outputs = None
        try:
            traced = _trace(fn, args, kwargs)
            closed = rewriter.rewrite(traced.closed)
            if closed is not traced.closed:
                outputs = core.jaxpr_as_fun(closed)(*traced.arrays)
        except Exception as error:
            rewriter.left = {"the function": _sentence(error)}
        # Nothing to rewrite, or an error. If it was the function's own, it comes again, as its caller would see it.
        result = fn(*args, **kwargs) if outputs is None else jax.tree.unflatten(traced.out_tree, outputs)
        for what, why in rewriter.left.items():
            warnings.warn(f"{name}: convolutions in {what} are left as they are: {why}", VmaptuneWarning, stacklevel=2)
        return result

    return call


class _Rewriter:
    """Edits jaxprs equation by equation. What need not change stays the same object, shared jaxprs stay shared.

    Attributes:
        left: Why, by the primitive whose convolutions are left as they are though they should not be.
    """

    def __init__(self, treat: Callable[[core.JaxprEqn], Body | None], entered: frozenset[core.Primitive]) -> None:
        self.left: dict[str, str] = {}
        self._treat = treat
        self._entered = entered
        self._done: dict[Any, Any] = {}

    def rewrite(self, jaxpr: Any) -> Any:
        """A jaxpr, closed or not, with its convolutions treated: itself, if there are none to treat."""
        if jaxpr not in self._done:
            self._done[jaxpr] = self._edited(jaxpr)
        return self._done[jaxpr]

    def _edited(self, jaxpr: Any) -> Any:
        if isinstance(jaxpr, _CLOSED) and jaxpr.jaxpr is not jaxpr:  # since jax 0.11 jaxprs close themselves
            inner = self.rewrite(jaxpr.jaxpr)
            return jaxpr if inner is jaxpr.jaxpr else jaxpr.replace(jaxpr=inner)
        eqns = [new for eqn in jaxpr.eqns for new in self._equation(eqn)]
        return jaxpr if _same(eqns, jaxpr.eqns) else jaxpr.replace(eqns=eqns)

    def _equation(self, eqn: core.JaxprEqn) -> list[core.JaxprEqn]:
        try:
            if eqn.primitive is p.conv_general_dilated_p:
                body = self._treat(eqn)
                return [eqn] if body is None else _spliced(eqn, body)
            if eqn.primitive in self._entered:
                params = {name: self._param(value) for name, value in eqn.params.items()}
                return [eqn] if _same(params.values(), eqn.params.values()) else [eqn.replace(params=params)]
        except Exception as error:
            self.left[repr(eqn.primitive.name)] = _sentence(error)
            return [eqn]
        if eqn.primitive not in _CUSTOM and any(_holds(inner, _CONVOLUTIONS) for inner in core.jaxprs_in_params(eqn.params)):
            self.left[repr(eqn.primitive.name)] = "this primitive is not known here"
        return [eqn]

    def _param(self, value: Any) -> Any:
        """A parameter of an entered equation: a jaxpr, a tuple of them, or anything else."""
        if isinstance(value, tuple):
            new = [self._param(each) for each in value]
            return value if _same(new, value) else tuple(new)
        return self.rewrite(value) if isinstance(value, core.Jaxpr | _CLOSED) else value


def _same(new: Any, old: Any) -> bool:
    return len(new) == len(old) and all(map(operator.is_, new, old))


def _sentence(error: Exception) -> str:
    """The first line of an error."""
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]


def _spliced(eqn: core.JaxprEqn, body: Body) -> list[core.JaxprEqn]:
    """Equations that compute by `body` what a convolution computes, from its inputs to its output."""
    lhs_spec, rhs_spec, out_spec = eqn.params["dimension_numbers"]

    def convolve(lhs: jax.Array, rhs: jax.Array) -> list[jax.Array]:
        lhs = lax.transpose(lhs, (lhs_spec[0], *lhs_spec[2:], lhs_spec[1]))
        rhs = lax.transpose(rhs, (*rhs_spec[2:], rhs_spec[1], rhs_spec[0]))
        return [lax.transpose(body(lhs, rhs), np.argsort((out_spec[0], *out_spec[2:], out_spec[1])))]

    info = core.DebugInfo("convolution", "convolve", ("lhs", "rhs"), None)
    with eqn.ctx.manager:  # the mesh, among others, under which the inputs have their types
        new, out, consts = trace_to_jaxpr_dynamic(wrap_init(convolve, debug_info=info), [v.aval for v in eqn.invars])
    if consts or out != [v.aval for v in eqn.outvars]:
        raise TypeError(f"rewritten to {out} with {len(consts)} constants")
    names = dict(zip((*new.invars, *new.outvars), (*eqn.invars, *eqn.outvars), strict=True))

    def renamed(atoms: Any) -> list[Any]:
        return [atom if isinstance(atom, core.Literal) else names.get(atom, atom) for atom in atoms]

    return [
        each.replace(invars=renamed(each.invars), outvars=renamed(each.outvars), source_info=eqn.source_info, ctx=eqn.ctx)
        for each in new.eqns
    ]


def _shape(atom: Any) -> tuple[int, ...]:
    return atom.aval.shape


def _as_canonical(eqn: core.JaxprEqn) -> Body | None:
    n = len(_shape(eqn.invars[0]))
    image = (0, n - 1, *range(1, n - 1))
    layout = lax.ConvDimensionNumbers(image, (n - 1, n - 2, *range(n - 2)), image)
    params = {**eqn.params, "dimension_numbers": layout}
    if min(itertools.chain(*params["padding"]), default=0) < 0:
        return partial(_cropped_first, params)
    return None if params == eqn.params else partial(p.conv_general_dilated_p.bind, **params)


def _cropped_first(params: dict[str, Any], lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """A convolution whose negative padding is cut off beforehand.

    The fast CPU kernels of jax 0.10 read outside of the input where an axis is padded on one side and cropped on the other.
    """
    crop = [
        (min(low, 0), min(high, 0), d - 1) for (low, high), d in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    lhs = lax.pad(lhs, np.zeros((), lhs.dtype), [(0, 0, 0), *crop, (0, 0, 0)])
    padding = tuple((max(low, 0), max(high, 0)) for low, high in params["padding"])
    return p.conv_general_dilated_p.bind(lhs, rhs, **{**params, "padding": padding, "lhs_dilation": (1,) * len(padding)})


def _as_im2col(eqn: core.JaxprEqn) -> Body | None:
    lhs, rhs = map(_shape, eqn.invars)
    taps = math.prod(rhs[axis] for axis in eqn.params["dimension_numbers"].rhs_spec[2:])
    empty = 0 in (*lhs, *rhs, *_shape(eqn.outvars[0]))
    if eqn.params["batch_group_count"] > 1 or taps > _MOST_TAPS or empty:
        return None
    depthwise = eqn.params["feature_group_count"] == lhs[eqn.params["dimension_numbers"].lhs_spec[1]] > 1
    return partial(_slices_and_products if depthwise else _slices_and_matmul, eqn.params)


def _slices(params: dict[str, Any], lhs: jax.Array, window: tuple[int, ...]) -> list[jax.Array]:
    """What each kernel position sees of the padded input: (N, spatial of the output, C)."""
    strides, dilation = params["window_strides"], params["rhs_dilation"]
    edges = [(low, high, d - 1) for (low, high), d in zip(params["padding"], params["lhs_dilation"], strict=True)]
    lhs = lax.pad(lhs, np.zeros((), lhs.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    n, *extent, channels = lhs.shape
    reach = [e - (w - 1) * d for e, w, d in zip(extent, window, dilation, strict=True)]  # how far a position slides
    seen = []
    for position in np.ndindex(*window):
        start = [i * d for i, d in zip(position, dilation, strict=True)]
        stop = [a + r for a, r in zip(start, reach, strict=True)]
        seen.append(lax.slice(lhs, (0, *start, 0), (n, *stop, channels), (1, *strides, 1)))
    return seen


def _slices_and_matmul(params: dict[str, Any], lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """A convolution as its slices side by side, times the kernel."""
    *window, inputs, outputs = rhs.shape
    groups = params["feature_group_count"]
    seen = _slices(params, lhs, tuple(window))
    places = seen[0].shape[:-1]
    last = len(places) + 1
    patches = lax.concatenate([lax.reshape(part, (*places, groups, inputs)) for part in seen], last)
    kernel = lax.reshape(rhs, (len(seen), inputs, groups, outputs // groups))
    kernel = lax.reshape(lax.transpose(kernel, (2, 0, 1, 3)), (groups, len(seen) * inputs, outputs // groups))
    product = lax.dot_general(
        patches,
        kernel,
        (((last,), (1,)), ((last - 1,), (0,))),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )
    return lax.reshape(lax.transpose(product, (*range(1, last), 0, last)), (*places, outputs))


def _slices_and_products(params: dict[str, Any], lhs: jax.Array, rhs: jax.Array) -> jax.Array:
    """A depthwise convolution as a sum over its slices: a matmul a channel would be one of a single row."""
    *window, _, outputs = rhs.shape
    dtype = params["preferred_element_type"] or lhs.dtype
    wide = jnp.promote_types(dtype, jnp.float32) if jnp.issubdtype(dtype, jnp.floating) else dtype  # as matmuls accumulate
    lhs = jnp.repeat(lhs.astype(wide), outputs // lhs.shape[-1], axis=-1)
    kernel = lax.reshape(rhs.astype(wide), (math.prod(window), *[1] * (lhs.ndim - 1), outputs))
    seen = _slices(params, lhs, tuple(window))
    terms = [part * lax.index_in_dim(kernel, i, keepdims=False) for i, part in enumerate(seen)]
    return sum(terms[1:], terms[0]).astype(dtype)
