"""The schedule of a run's winner, to be used elsewhere: as an optax schedule, and as code for optax and for PyTorch."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vmaptune.analysis.closed_forms import expression, rise
from vmaptune.errors import ConfigError, StoreError, did_you_mean
from vmaptune.recipe import LEARNING_RATE
from vmaptune.schedules import SCHEDULES
from vmaptune.store.folder import RunFolder

if TYPE_CHECKING:
    import optax

_CLOSE = 1e-5  # relative; several roundings of float32, and a formula that is another one is further away
_A_LINE = 8  # numbers of a table


def read_schedule(run: str | Path, name: str = LEARNING_RATE) -> np.ndarray:
    """A hyperparameter at each step of the winner's lineage, as it was applied.

    Args:
        run: The run folder.
        name: Dotted name, a column of `best/schedule.csv`.

    Returns:
        f32[steps].

    Raises:
        StoreError: Not a run folder, or no winner yet.
        ConfigError: There is no such hyperparameter.
    """
    folder = RunFolder(run).require_run()
    try:
        with (folder.best / "schedule.csv").open(newline="", encoding="utf-8") as file:
            names, *rows = csv.reader(file)
    except FileNotFoundError:
        unfinished = f"finish it (vmaptune resume {folder.path})"
        raise StoreError(f"{folder.path}: the run has left no winner yet; {unfinished}") from None
    if name not in names[2:]:
        raise ConfigError(f"{folder.path}: there is no hyperparameter {name!r}{did_you_mean(name, names[2:])}")
    at = names.index(name)
    return np.array([row[at] for row in rows], np.float32)


def as_optax_schedule(run: str | Path, name: str = LEARNING_RATE) -> optax.Schedule:
    """The learning rate of a run's winner as it was applied: the same float32 at every step; the last one after the end.

    Args:
        run: The run folder.
        name: Of another hyperparameter, such as "optimizer.weight_decay".

    Returns:
        `step -> f32[]`, a pure function, which `jax.jit` and `jax.vmap` take.

    Raises:
        StoreError: Not a run folder, or no winner yet.
        ConfigError: There is no such hyperparameter.
    """
    import jax.numpy as jnp

    values = read_schedule(run, name)

    def schedule(count: jnp.ndarray | int) -> jnp.ndarray:
        return jnp.asarray(values)[jnp.clip(count, 0, len(values) - 1)]

    return schedule


def snippet(run: str | Path, library: str) -> str:
    """The winner's learning rate as code that needs nothing of this package.

    Where all its steps follow one formula (nothing was copied from another member on the way), the code is that formula;
    else a table between whose points it is linear, equal to what was applied to rounding of float32.

    Args:
        run: The run folder.
        library: "optax": a function `schedule`, to be passed as the learning rate. "torch": a function `multiplier`, for
            LambdaLR.

    Raises:
        StoreError: Not a run folder, or no winner yet.
        ConfigError: There is no such library.
    """
    if library not in ("optax", "torch"):
        raise ConfigError(f"expected optax or torch; given: {library!r}{did_you_mean(library, ('optax', 'torch'))}")
    values = read_schedule(run)
    body = _formula(RunFolder(run), values) or _table(values)
    head = f"# The learning rate of the best member of {RunFolder(run).path.name!a}, by step; {len(values)} steps."
    return f"{head}\n{_optax(body) if library == 'optax' else _torch(body, float(str(values.max())))}"


def _optax(body: str) -> str:
    body = body.replace("np.", "jnp.").replace("float(step)", "jnp.asarray(step, jnp.float32)")
    return f"import jax.numpy as jnp\n\n\ndef schedule(step):\n{body}\n\n# optimizer = optax.adamw(learning_rate=schedule)\n"


def _torch(body: str, peak: float) -> str:
    at = body.rindex("return ") + len("return ")
    body = f"{body[:at]}({body[at:].rstrip()}) / PEAK\n"
    use = [
        "optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK)",
        "scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, multiplier)",
    ]
    used = "\n".join(f"# {line}" for line in use)
    return f"import numpy as np\n\nPEAK = {peak or 1.0!r}\n\n\ndef multiplier(step):\n{body}\n\n{used}\n"


def _formula(folder: RunFolder, values: np.ndarray) -> str | None:
    """The body of a function of the step, if one formula says all of the values."""
    tree = tomllib.loads((folder.best / "hyperparameters.toml").read_text(encoding="utf-8"))
    knobs = {name: value for name, value in tree["schedule"].items() if not isinstance(value, dict)}
    family = knobs.pop("name")
    horizon = tree["population"]["segment_steps"] * tree["population"]["generations"]
    text = expression(family, knobs)
    if text is None:
        return None
    base = tree["optimizer"]["learning_rate"]
    progress = np.arange(len(values), dtype=np.float32) / np.float32(horizon)
    said = base * np.asarray(SCHEDULES[family](progress, **knobs))
    if not np.allclose(said, values, rtol=_CLOSE, atol=1e-7 * float(np.abs(values).max())):
        return None
    lines = [f"t = np.clip(float(step), 0, {len(values) - 1}) / {horizon}"]
    if risen := rise(knobs):
        lines += [f"x = np.clip((t - {knobs['warmup']!r}) / (1 - {knobs['warmup']!r}), 0, 1)"]
        lines += [f"rise = np.where(t < {knobs['warmup']!r}, {risen}, 1)"]
    else:
        lines += ["x = t"] * ("x" in text.replace("exp", ""))
    return "".join(f"    {line}\n" for line in [*lines, f"return {base!r} * ({text})" + " * rise" * bool(risen)])


def _table(values: np.ndarray) -> str:
    """The body of a function of the step that interpolates between points."""
    steps = knots(values)
    rates = values[steps]
    columns = (("steps", steps.tolist()), ("rates", [float(str(rate)) for rate in rates]))
    lines = []
    for name, numbers in columns:
        rows = [", ".join(map(repr, numbers[i : i + _A_LINE])) for i in range(0, len(numbers), _A_LINE)]
        lines += [f"{name} = [", *(f"    {row}," for row in rows), "]"]
    text = "".join(f"    {line}\n" for line in [*lines, "return np.interp(float(step), np.array(steps), np.array(rates))"])
    return text


def knots(values: np.ndarray) -> np.ndarray:
    """Steps between which values are linear, to one unit in the last place of float32.

    From each knot, a line goes on as long as it passes all values in between so closely.

    Args:
        values: f32[steps].

    Returns:
        i64[knots], the first and the last step among them.
    """
    exact, close = values.astype(np.float64), np.spacing(np.abs(values)).astype(np.float64)
    found, start = [0], 0
    while start < len(values) - 1:
        low, high, end = -np.inf, np.inf, start + 1
        for i in range(start + 1, len(values)):
            slope = (exact[i] - exact[start]) / (i - start)
            if not low <= slope <= high:
                break
            end = i
            low = max(low, (exact[i] - close[i] - exact[start]) / (i - start))
            high = min(high, (exact[i] + close[i] - exact[start]) / (i - start))
        found.append(end)
        start = end
    return np.array(found)
