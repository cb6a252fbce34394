"""Ray Tune: population-based training on its fast path.

That is a class `Trainable` whose actors are reused, no loggers, no dashboard, no syncing; one trial a core. Quantile,
resampling and factors are Ray's defaults. Workers import jax, the driver does not.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
from work import LEARNING_RATE, WEIGHT_DECAY, Work, asked, report, trained

os.environ |= {
    "PYTHONPATH": str(Path(__file__).parent),  # the workers import `work` and `network`
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",  # a trial a core: they would be in each other's way
}

import ray
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining


class Member(tune.Trainable):
    """A trial: one network, a generation a step."""

    def setup(self, config: dict[str, Any]) -> None:
        from network import Solo

        self.work: Work = config["work"]
        if not hasattr(self, "solo"):  # a reused actor has compiled already
            self.solo = Solo(self.work.seed, self.work.steps)
        self.number = int(self.trial_id.rpartition("_")[2])
        self.state = self.solo.new(self.number)

    def step(self) -> dict[str, float]:
        settings = self.config["learning_rate"], self.config["weight_decay"]
        generation = self.iteration + 1
        self.state, accuracy = self.solo.train(self.state, self.number, generation, *settings)
        trained(self.work.count, self.work.steps, accuracy, generation)
        return {"accuracy": accuracy}

    def save_checkpoint(self, folder: str) -> None:
        self.solo.save(Path(folder) / "member.npz", self.state, self.iteration)

    def load_checkpoint(self, folder: str) -> None:
        self.state, _ = self.solo.load(Path(folder) / "member.npz")

    def reset_config(self, config: dict[str, Any]) -> bool:
        self.config = config
        self.setup(config)
        return True


def main() -> None:
    work = asked()
    random.seed(work.seed)  # Ray's PBT draws from the global generators
    np.random.seed(work.seed)  # noqa: NPY002
    begun = time.perf_counter()
    ray.init(
        num_cpus=len(os.sched_getaffinity(0)),
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address="127.0.0.1",  # or it looks for an address that a machine without a network lacks
        _temp_dir=str(work.folder / "ray"),
    )
    started = time.perf_counter()
    space = {"learning_rate": tune.loguniform(*LEARNING_RATE), "weight_decay": tune.loguniform(*WEIGHT_DECAY)}
    pbt = PopulationBasedTraining(
        time_attr="training_iteration",
        metric="accuracy",
        mode="max",
        perturbation_interval=1,
        hyperparam_mutations=space,
        log_config=False,
    )
    results = tune.Tuner(
        tune.with_resources(Member, {"cpu": 1}),
        param_space={"work": work, **space},
        tune_config=tune.TuneConfig(scheduler=pbt, num_samples=work.members, reuse_actors=True),
        run_config=tune.RunConfig(
            stop={"training_iteration": work.generations}, storage_path=str(work.folder / "results"), name="pbt", verbose=0
        ),
    ).fit()
    search_s = time.perf_counter() - started
    perturbations = pbt._num_perturbations
    report(work, search_s, daemons_s=round(started - begun, 3), perturbations=perturbations, errors=results.num_errors)
    ray.shutdown()


if __name__ == "__main__":
    main()
