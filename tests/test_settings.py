import functools
import inspect
import math
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmaptune.choices import Choice
from vmaptune.errors import ConfigError
from vmaptune.settings import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Rate,
    Seed,
    Setting,
    Share,
    Usual,
    convert,
    settings,
    show,
    with_settings,
)


def row(
    x: float,
    *,
    rate: Rate = 0.9,
    scale: Positive,
    plain: float = 1.0,
    steps: Count = 3,
    nesterov: bool = False,
    mode: Literal["fast", "exact"] = "fast",
    hidden: tuple[Count, ...] = (8, 8),
    train: bool = True,
) -> float:
    """A row of a table.

    Args:
        x: Not a setting.
        rate: Decay of the mean,
            over two lines.
        scale: Size: a colon in its help.
        steps: How many.

    Returns:
        hidden: not an argument line.
    """
    return x * rate * scale * plain


@dataclass(frozen=True, kw_only=True)
class Table:
    """A section.

    Attributes:
        size: Members.
        order: shared: one for all;
            independent: one each.
    """

    size: Count = 4
    order: Literal["shared", "independent"] = "shared"
    seed: Seed


def rules(*, clip: Positive = math.inf, rate: Rate = 0.1) -> float:
    """Rules.

    Args:
        clip: Largest norm.
        rate: The rule's own rate.
    """
    return clip + rate


def test_settings_are_the_keyword_only_parameters_in_order():
    assert list(settings(row)) == ["rate", "scale", "plain", "steps", "nesterov", "mode", "hidden"]


def test_only_floats_are_traced():
    assert [name for name, s in settings(row).items() if s.traced] == ["rate", "scale", "plain"]


def test_a_marked_float_is_static():
    def task(*, share: Share = 0.2, rate: float = 0.2):
        return share, rate

    known = settings(task)
    assert {name: setting.traced for name, setting in known.items()} == {"share": False, "rate": True}
    values = {name: convert(setting, 0.25, name) for name, setting in known.items()}
    assert values == {"share": 0.25, "rate": 0.25}
    choice = Choice("task", values)
    assert (choice.static, choice.traced) == ({"share": 0.25}, {"rate": 0.25})
    assert type(choice.tree["share"]) is float  # as a file would have it
    with pytest.raises(ConfigError, match=r"^share: expected float > 0 and < 1; given: 1\.0$"):
        convert(known["share"], 1.0, "share")


def test_a_setting_without_default_is_required():
    assert [name for name, s in settings(row).items() if s.required] == ["scale"]
    assert settings(row)["scale"].default is inspect.Parameter.empty


def test_defaults_are_kept():
    assert {name: s.default for name, s in settings(row).items() if not s.required} == {
        "rate": 0.9,
        "plain": 1.0,
        "steps": 3,
        "nesterov": False,
        "mode": "fast",
        "hidden": (8, 8),
    }


def test_help_comes_from_the_args_section():
    assert {name: s.help for name, s in settings(row).items()} == {
        "rate": "Decay of the mean, over two lines.",
        "scale": "Size: a colon in its help.",
        "plain": "",
        "steps": "How many.",
        "nesterov": "",
        "mode": "",
        "hidden": "",
    }


def test_a_function_without_docstring_has_settings_without_help():
    def bare(*, a: float = 1.0) -> float:
        return a

    assert settings(bare) == {"a": Setting("a", float, 1.0, True, "")}


def test_no_settings():
    assert settings(lambda x, y=2: x + y) == {}


def test_a_dataclass_is_read_like_a_function():
    found = settings(Table)
    assert list(found) == ["size", "order", "seed"]
    assert found["size"] == Setting("size", Count, 4, False, "Members.")
    assert found["order"].help == "shared: one for all; independent: one each."
    assert found["seed"].required


def test_a_partial_shows_the_bound_value_as_the_default():
    bound = functools.partial(row, scale=2.0, nesterov=True)
    assert list(settings(bound)) == list(settings(row))
    assert settings(bound)["scale"].default == 2.0
    assert not settings(bound)["scale"].required
    assert settings(bound)["nesterov"].default is True
    assert settings(bound)["rate"].default == 0.9
    assert settings(bound)["rate"].traced


def test_with_settings_borrows_what_a_function_passes_on():
    def both(x: float, *, own: Fraction = 0.5, **rest: float) -> float:
        """Both together.

        Args:
            own: Its own share.
        """
        return row(x, **rest) + own

    borrowed = with_settings(both, row, rules)
    assert borrowed is both
    assert list(settings(both)) == ["own", "rate", "scale", "plain", "steps", "nesterov", "mode", "hidden", "clip"]
    assert settings(both)["own"] == Setting("own", Fraction, 0.5, True, "Its own share.")
    assert settings(both)["rate"] == settings(row)["rate"]  # declared by both others: the first one counts
    assert settings(both)["clip"] == settings(rules)["clip"]
    assert both(2.0, scale=3.0) == 2.0 * 0.9 * 3.0 + 0.5


def test_with_settings_keeps_its_own_declaration():
    def own(*, rate: Fraction = 0.3, **rest: float) -> float:
        """Own.

        Args:
            rate: The function's own.
        """
        return rate

    assert settings(with_settings(own, rules)) == {
        "rate": Setting("rate", Fraction, 0.3, True, "The function's own."),
        "clip": settings(rules)["clip"],
    }


def test_with_settings_of_nothing_to_pass_on_keeps_the_summary():
    def plain(x: float, **rest: float) -> float:
        """What it does.

        Args:
            x: A number.
        """
        return x

    assert (inspect.getdoc(with_settings(plain, rules)) or "").splitlines()[0] == "What it does."


def test_a_setting_without_annotation_is_refused():
    def careless(*, gamma=0.5):
        return gamma

    with pytest.raises(ConfigError) as error:
        settings(careless)
    assert str(error.value) == ("careless: setting 'gamma' has no annotation; write float (traced) or int/bool/str (static)")


TYPE_NAMES = [
    (float, "float"),
    (int, "int"),
    (bool, "bool"),
    (str, "str"),
    (Positive, "float > 0"),
    (NonNegative, "float >= 0"),
    (Fraction, "float >= 0 and <= 1"),
    (Rate, "float >= 0 and < 1"),
    (Count, "int >= 1"),
    (Natural, "int >= 0"),
    (Seed, "int >= 0 and < 4294967296"),
    (Literal["shared", "independent"], "shared | independent"),
    (tuple[Count, ...], "list of int >= 1"),
    (Annotated[float, msgspec.Meta(gt=-2, le=0.5)], "float > -2 and <= 0.5"),
    (int | str, "int or str"),
]


@pytest.mark.parametrize(("annotation", "name"), TYPE_NAMES, ids=[name for _, name in TYPE_NAMES])
def test_type_name_is_what_a_user_would_write(annotation, name):
    assert Setting("x", annotation, 0, False, "").type_name == name


ACCEPTED = [
    (NonNegative, 1, 1.0),
    (NonNegative, 0.0, 0.0),
    (Positive, math.inf, math.inf),
    (Fraction, 1, 1.0),
    (Rate, 0.999, 0.999),
    (Count, 1, 1),
    (Seed, 2**32 - 1, 2**32 - 1),
    (bool, True, True),
    (Literal["a", "b"], "b", "b"),
    (tuple[Count, ...], [3, 4], (3, 4)),
    (tuple[Count, ...], [], ()),
]


@pytest.mark.parametrize(("annotation", "value", "result"), ACCEPTED)
def test_convert_accepts(annotation, value, result):
    converted = convert(Setting("x", annotation, 0, False, ""), value, "here")
    assert converted == result
    assert type(converted) is type(result)


REFUSED = [
    (NonNegative, -1e-9, "optimizer.b1: expected float >= 0; given: -1e-09"),
    (NonNegative, True, "optimizer.b1: expected float >= 0; given: True"),
    (NonNegative, "0.1", "optimizer.b1: expected float >= 0; given: '0.1'"),
    (NonNegative, None, "optimizer.b1: expected float >= 0; given: None"),
    (NonNegative, [1.0], "optimizer.b1: expected float >= 0; given: [1.0]"),
    (float, math.nan, "optimizer.b1: expected float; given: nan"),
    (Rate, math.nan, "optimizer.b1: expected float >= 0 and < 1; given: nan"),
    (Rate, 1.0, "optimizer.b1: expected float >= 0 and < 1; given: 1.0"),
    (Rate, 1, "optimizer.b1: expected float >= 0 and < 1; given: 1"),
    (Fraction, 1.0000001, "optimizer.b1: expected float >= 0 and <= 1; given: 1.0000001"),
    (Positive, 0, "optimizer.b1: expected float > 0; given: 0"),
    (Positive, 10**400, "optimizer.b1: expected float > 0; given: 1" + "0" * 76 + "..."),
    (Count, 0, "optimizer.b1: expected int >= 1; given: 0"),
    (Count, 2.0, "optimizer.b1: expected int >= 1; given: 2.0"),
    (Count, True, "optimizer.b1: expected int >= 1; given: True"),
    (Count, "2", "optimizer.b1: expected int >= 1; given: '2'"),
    (Seed, 2**32, "optimizer.b1: expected int >= 0 and < 4294967296; given: 4294967296"),
    (Seed, -1, "optimizer.b1: expected int >= 0 and < 4294967296; given: -1"),
    (bool, 1, "optimizer.b1: expected bool; given: 1"),
    (bool, "true", "optimizer.b1: expected bool; given: 'true'"),
    (str, 3, "optimizer.b1: expected str; given: 3"),
    (Literal["a", "b"], "c", "optimizer.b1: expected a | b; given: 'c'"),
    (Literal["a", "b"], ["a"], "optimizer.b1: expected a | b; given: ['a']"),
    (tuple[Count, ...], 64, "optimizer.b1: expected list of int >= 1; given: 64"),
    (tuple[Count, ...], [64, 0], "optimizer.b1: expected list of int >= 1; given: [64, 0]"),
    (tuple[Count, ...], [64.5], "optimizer.b1: expected list of int >= 1; given: [64.5]"),
]


@pytest.mark.parametrize(("annotation", "value", "sentence"), REFUSED)
def test_convert_refuses_in_one_sentence(annotation, value, sentence):
    with pytest.raises(ConfigError) as error:
        convert(Setting("b1", annotation, 0, False, ""), value, "optimizer.b1")
    assert str(error.value) == sentence


@given(st.integers(-10, 10) | st.floats(), st.sampled_from([Positive, NonNegative, Fraction, Rate]))
def test_convert_accepts_exactly_the_declared_range(value, annotation):
    """The range holds for the number and for the float32 a member trains with, where subnormal numbers are zero."""

    def holds(x):
        return {Positive: x > 0, NonNegative: x >= 0, Fraction: 0 <= x <= 1, Rate: 0 <= x < 1}[annotation]

    representable = math.isinf(value) or abs(value) <= float(np.finfo(np.float32).max)
    trained = float(np.float32(value)) if representable and abs(value) >= float(np.finfo(np.float32).tiny) else 0.0
    legal = representable and holds(value) and holds(trained)
    setting = Setting("x", annotation, 0, True, "")
    if legal:
        assert convert(setting, value, "x") == float(value)
    else:
        with pytest.raises(ConfigError):
            convert(setting, value, "x")


# ------------------------------------------------------------------------------------------------------------ vectors

Multipliers = Annotated[tuple[Annotated[NonNegative, Usual(0.0, 1.0)], ...], msgspec.Meta(min_length=2)]


def curve(*, values: Multipliers = (1.0, 0.0), plain: tuple[float, ...] = (), widths: tuple[Count, ...] = (8,)) -> float:
    """A row with vectors."""
    return sum(values) + sum(plain) + sum(widths)


def test_a_tuple_of_floats_is_a_traced_vector():
    known = settings(curve)
    assert {name: (s.traced, s.vector) for name, s in known.items()} == {
        "values": (True, True),
        "plain": (True, True),
        "widths": (False, False),
    }
    assert known["values"].default == (1.0, 0.0)
    assert known["values"].type_name == "list of float >= 0 at least 2 long"
    assert known["plain"].type_name == "list of float"
    assert not settings(row)["rate"].vector


def test_each_number_of_a_vector_is_a_setting_of_its_own():
    known = settings(curve)
    number = known["values"].number
    assert (number.name, number.traced, number.vector, number.required) == ("values", True, False, True)
    assert number.type_name == "float >= 0"
    assert number.usual == Usual(0.0, 1.0)
    assert known["plain"].number.annotation is float
    assert settings(row)["rate"].number == settings(row)["rate"]


def test_a_vector_is_converted_number_by_number():
    values = settings(curve)["values"]
    assert convert(values, [1, 0.5, 2], "here") == (1.0, 0.5, 2.0)
    assert {type(number) for number in convert(values, [1, 0], "here")} == {float}


@pytest.mark.parametrize("value", [[1.0], [], [1.0, -1.0], [1.0, "x"], 3, [1.0, True], None])
def test_a_bad_vector_is_refused_in_one_sentence(value):
    with pytest.raises(ConfigError) as error:
        convert(settings(curve)["values"], value, "schedule.values")
    assert str(error.value) == f"schedule.values: expected list of float >= 0 at least 2 long; given: {value!r}"


@pytest.mark.parametrize("value", [math.nan, 1e300])
def test_each_number_of_a_vector_is_one_that_a_member_can_train_with(value):
    with pytest.raises(ConfigError) as error:
        convert(settings(curve)["values"], [1.0, value], "schedule.values")
    assert str(error.value).startswith("schedule.values")
    assert str(error.value).count("expected") == 1


# -------------------------------------------------------------------------------------------------------------- usual


@pytest.mark.parametrize(
    ("annotation", "usual"),
    [
        (Annotated[float, msgspec.Meta(gt=0), Usual(0.1, 10.0, "log")], Usual(0.1, 10.0, "log")),
        (Annotated[Rate, Usual(0.5, 0.99)], Usual(0.5, 0.99)),
        (Annotated[Fraction, Usual(0.1, 0.2)], Usual(0.1, 0.2)),  # what is declared counts more than the range
        (Fraction, Usual(0, 1)),
        (Annotated[float, msgspec.Meta(ge=-2, le=3)], Usual(-2, 3)),
        (Rate, None),  # an open end is nowhere to search
        (Positive, None),
        (float, None),
        (Count, None),
        (Annotated[int, msgspec.Meta(ge=1, le=3)], None),  # not traced
    ],
)
def test_usual_is_where_a_setting_is_searched(annotation, usual):
    def fn(*, x):
        return x

    fn.__annotations__["x"] = annotation
    assert settings(fn)["x"].usual == usual


def test_what_is_usual_lies_in_the_range():
    """Of every row of every table, so that an axis over it is always accepted."""
    from vmaptune.optimizers import OPTIMIZERS
    from vmaptune.plateau import plateau
    from vmaptune.schedules import SCHEDULES

    seen = 0
    for fn in (*OPTIMIZERS.values(), *SCHEDULES.values(), plateau):
        for setting in settings(fn).values():
            if usual := setting.usual:
                ends = [convert(setting.number, end, "here") for end in usual[:2]]
                assert ends[0] < ends[1]
                assert usual.scale == "linear" or (usual.scale == "log" and ends[0] > 0)
                seen += 1
    assert seen > 100


def test_a_long_value_is_cut_in_an_error():
    assert show("a" * 78) == repr("a" * 78)
    assert show("a" * 79) == "'" + "a" * 76 + "..."
    assert len(show(list(range(1000)))) == 80
