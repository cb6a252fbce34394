"""What a setting is: the annotation is the contract.

Optimizers, schedules, losses, tasks and selectors are plain functions with keyword-only settings. `settings(fn)` reads
them from the signature: a `float` is a traced scalar that may differ per member, a `tuple[float, ...]` a traced vector whose
length is the same for all, anything else (`int`, `bool`, `str`, other tuples) is a shape or a branch and is the same for all,
and so is a float that is marked `Static`.
Ranges are `msgspec.Meta` in the annotation, so a value is checked by the type it is declared with; a `Usual` beside it says
where people search. Config, `vmaptune list`, docs and tests read this, and nothing is declared twice.
"""

from __future__ import annotations

import functools
import inspect
import math
import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
import numpy as np

from vmaptune.errors import ConfigError


class Usual(NamedTuple):
    """Where a float setting is usually searched, in its annotation: `Annotated[float, Meta(gt=0), Usual(0.1, 10, "log")]`.

    Attributes:
        low: Smallest value, included.
        high: Largest value, included.
        scale: "linear" or "log".
    """

    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"


class Static:
    """Marks a float that is the same for all members, in its annotation: `Annotated[float, Meta(gt=0, lt=1), Static()]`."""


class StaticFloat(float):
    """A value of a setting that is marked so: by its type, it is told from one that may differ per member."""


Positive = Annotated[float, msgspec.Meta(gt=0)]
NonNegative = Annotated[float, msgspec.Meta(ge=0)]
Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
Rate = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Count = Annotated[int, msgspec.Meta(ge=1)]
Natural = Annotated[int, msgspec.Meta(ge=0)]
Seed = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
Share = Annotated[float, msgspec.Meta(gt=0, lt=1), Static()]  # of the data: nothing that members could differ in

_NOT_SETTINGS = frozenset({"train"})  # keyword-only parameters that the engine, not the user, fills in


@dataclass(frozen=True)
class Setting:
    """One keyword-only parameter of a table entry.

    Attributes:
        name: The parameter's name, as in TOML.
        annotation: The type that a value must convert to, ranges included.
        default: The default, or `inspect.Parameter.empty` when a value must be given.
        traced: True for a `float` (not `Static`) or a vector of them: one value per member, and an axis may stand in a
            number's place.
        help: Its line in the function's `Args:` section.
    """

    name: str
    annotation: Any
    default: Any
    traced: bool
    help: str

    @property
    def required(self) -> bool:
        """True when there is no default."""
        return self.default is inspect.Parameter.empty

    @property
    def vector(self) -> bool:
        """True for a traced list of numbers."""
        return self.traced and _base(self.annotation) is not float

    @property
    def number(self) -> Setting:
        """The setting of one number of a vector; of a scalar, itself."""
        if not self.vector:
            return self
        annotation = get_args(_base(self.annotation))[0]
        return Setting(self.name, annotation, inspect.Parameter.empty, True, self.help)

    @property
    def usual(self) -> Usual | None:
        """Where it is usually searched: as declared, or its whole range if that has two ends; else None."""
        metas = get_args(self.annotation)[1:] if get_origin(self.annotation) is Annotated else ()
        for meta in metas:
            if isinstance(meta, Usual):
                return meta
        low, high = (
            next((getattr(m, end, None) for m in metas if getattr(m, end, None) is not None), None) for end in ("ge", "le")
        )
        return Usual(low, high) if self.traced and low is not None and high is not None else None

    @property
    def type_name(self) -> str:
        """The annotation as a user would write it: `float > 0`, `shared | independent`, `int >= 1`."""
        return _describe(self.annotation)


def settings(fn: Callable[..., Any]) -> dict[str, Setting]:
    """Reads the settings of a function (or dataclass) from its signature: every keyword-only parameter.

    Args:
        fn: Any callable whose keyword-only parameters are annotated.

    Returns:
        Settings by name, in the order of the signature.

    Raises:
        ConfigError: A keyword-only parameter has no annotation, so nobody could tell whether it is traced.
    """
    documented = fn
    while isinstance(documented, functools.partial):
        documented = documented.func
    helps = _argument_lines(inspect.getdoc(documented) or "")
    found = {}
    for name, parameter in inspect.signature(fn, eval_str=True).parameters.items():
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY or name in _NOT_SETTINGS:
            continue
        if parameter.annotation is inspect.Parameter.empty:
            raise ConfigError(
                f"{_name_of(fn)}: setting {name!r} has no annotation; write float (traced) or int/bool/str (static)"
            )
        base = _base(parameter.annotation)
        traced = base is float or (get_origin(base) is tuple and _base(get_args(base)[0]) is float)
        traced &= not _is_marked(parameter.annotation)
        found[name] = Setting(name, parameter.annotation, parameter.default, traced, helps.get(name, ""))
    return found


def convert(setting: Setting, value: Any, where: str) -> Any:
    """Checks one value against a setting's type and range.

    Raises:
        ConfigError: It does not fit; the sentence names the place, what was expected and what was given.
    """
    try:
        converted = msgspec.convert(value, setting.annotation)
        if setting.vector:
            return tuple(convert(setting.number, number, f"{where}[{i}]") for i, number in enumerate(converted))
        if setting.traced and not math.isinf(converted):
            msgspec.convert(_as_float32(converted), setting.annotation)  # what a member would train with
    except (msgspec.ValidationError, OverflowError):
        converted = math.nan
    if converted != converted:  # NaN, given or not convertible: it would pass every range check
        raise ConfigError(f"{where}: expected {setting.type_name}; given: {show(value)}")
    return StaticFloat(converted) if _is_marked(setting.annotation) else converted


def _as_float32(value: float) -> float:
    """The value as a float32 on the device, where what is too small to be a normal number is zero.

    Raises:
        OverflowError: It is too large to be one.
    """
    limits = np.finfo(np.float32)
    if abs(value) > float(limits.max):
        raise OverflowError
    return float(np.float32(value)) if abs(value) >= float(limits.tiny) else 0.0


def with_settings(fn: Callable[..., Any], *others: Callable[..., Any]) -> Callable[..., Any]:
    """Gives `fn`, which takes `**settings`, the keyword-only parameters of `others` as its visible signature.

    A function that passes settings on to another must not declare them again; it borrows their declaration.
    """
    own = [p for p in inspect.signature(fn, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    names = {p.name for p in own}
    helps = _argument_lines(inspect.getdoc(fn) or "")
    for other in others:
        for p in inspect.signature(other, eval_str=True).parameters.values():
            if p.kind is p.KEYWORD_ONLY and p.name not in names:
                own.append(p)
                names.add(p.name)
        helps = _argument_lines(inspect.getdoc(other) or "") | helps
    fn.__signature__ = inspect.Signature(own)  # type: ignore[attr-defined]
    summary, _, rest = (inspect.getdoc(fn) or "").partition("\n\nArgs:")
    arguments = "\n".join(f"    {name}: {text}" for name, text in helps.items() if name in names)
    fn.__doc__ = "\n\n".join([f"{summary}\n\nArgs:\n{arguments}", *rest.split("\n\n")[1:]])
    return fn


def _is_marked(annotation: Any) -> bool:
    return any(isinstance(meta, Static) for meta in get_args(annotation)[1:])


def _base(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _describe(annotation: Any) -> str:
    if get_origin(annotation) is Annotated:
        base, *metas = get_args(annotation)
        signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
        parts = [f"{sign} {getattr(m, k)}" for m in metas for k, sign in signs.items() if getattr(m, k, None) is not None]
        parts += [f"at least {m.min_length} long" for m in metas if getattr(m, "min_length", None)]
        return " ".join([_describe(base), " and ".join(parts)]).strip()
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        return f"list of {_describe(get_args(annotation)[0])}"
    if isinstance(annotation, types.UnionType):
        return " or ".join(_describe(a) for a in get_args(annotation))
    return getattr(annotation, "__name__", str(annotation))


def _argument_lines(doc: str) -> dict[str, str]:
    """Reads `name: text` lines (continuations joined) of a Google-style `Args:` or `Attributes:` section."""
    section = re.search(r"^(?:Args|Attributes):\n((?:[ \t]+.*\n?|\n)+)", doc, re.MULTILINE)
    lines: dict[str, str] = {}
    name = None
    for line in section.group(1).splitlines() if section else []:
        start = re.match(r"\s{2,4}(\w+): (.*)", line)
        if start:
            name = start.group(1)
            lines[name] = start.group(2)
        elif name and line.strip():
            lines[name] += " " + line.strip()
    return lines


def _name_of(fn: Callable[..., Any]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


def show(value: Any) -> str:
    """A given value as it stands in an error, cut if it is long."""
    return repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
