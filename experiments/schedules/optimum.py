"""How far the schedules that a study of the oracle found are from the best of all schedules, by their expected losses.

    vmaptune schedules oracle.toml --shapes 64 --lrs 7 --seeds 16 --confirm 96 --out /tmp/oracle
    python optimum.py /tmp/oracle

The best of all schedules is found by gradient descent on the closed form, a free learning rate at each step.
"""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import optax

from vmaptune.tasks import expected_loss


@click.command()
@click.argument("study", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(study: Path) -> None:
    """Prints the expected loss of each family's schedule, and its distance to the optimum."""
    config = tomllib.loads((study / "config.toml").read_text())
    problem = {k: config["task"][k] for k in ("dimension", "decay_percent", "noise_percent")} | {
        "batch_size": config["batch"]["size"]
    }
    found = {path.stem: learning_rates(path) for path in (study / "families").glob("*.csv")}
    last = jax.jit(lambda rates: expected_loss(rates, **problem)[-1])
    steps = len(next(iter(found.values())))

    @jax.jit
    def descend(logs: jax.Array) -> jax.Array:
        adam = optax.adam(0.01)

        def step(carry: tuple[jax.Array, optax.OptState], _: None) -> tuple[tuple[jax.Array, optax.OptState], None]:
            logs, state = carry
            gradient = jax.grad(lambda logs: jnp.log(expected_loss(jnp.exp(logs), **problem)[-1]))(logs)
            updates, state = adam.update(gradient, state)
            return (logs + updates, state), None

        return jax.lax.scan(step, (logs, adam.init(logs)), None, length=6000)[0][0]

    best = float(last(jnp.exp(descend(jnp.full(steps, jnp.log(0.3))))))
    print(f"best of all schedules: {best:.6f}")
    for loss, family in sorted((float(last(jnp.array(rates))), family) for family, rates in found.items()):
        print(f"{family:20} {loss:.6f}  +{100 * (loss / best - 1):.1f} %")


def learning_rates(path: Path) -> list[float]:
    """The learning rate at each step."""
    with path.open() as file:
        return [float(row["optimizer.learning_rate"]) for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
