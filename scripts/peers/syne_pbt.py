"""Syne Tune: population-based training on its local backend, a process a trial, a trial a core.

Quantile, resampling and factors are its defaults. It ends when as many trials as there are members have reached the last
generation: trials that PBT replaces are stopped on the way.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from work import LEARNING_RATE, WEIGHT_DECAY, asked, report

work = asked()
os.environ["SYNETUNE_FOLDER"] = str(work.folder)  # else it writes to the home folder; read when it is imported
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"  # a trial a core: they would be in each other's way

from syne_tune import Tuner  # noqa: E402
from syne_tune.backend import LocalBackend  # noqa: E402
from syne_tune.config_space import loguniform  # noqa: E402
from syne_tune.optimizer.schedulers.pbt import PopulationBasedTraining  # noqa: E402

logging.getLogger().setLevel(logging.ERROR)
begun = time.perf_counter()
scheduler = PopulationBasedTraining(
    {
        "learning_rate": loguniform(*LEARNING_RATE),
        "weight_decay": loguniform(*WEIGHT_DECAY),
        "generations": work.generations,
        "steps": work.steps,
        "seed": work.seed,
        "count": str(work.count),
    },
    metric="accuracy",
    time_attr="generation",
    max_t=work.generations,
    do_minimize=False,
    population_size=work.members,
    perturbation_interval=1,
    random_seed=work.seed,
)


def ended(status: object) -> bool:
    """Whether enough trials have reached the last generation. Syne Tune's own criteria count replaced trials as well."""
    del status
    last = (result.get("generation") for result in tuner.last_seen_result_per_trial.values())
    return sum(generation == work.generations for generation in last) >= work.members


tuner = Tuner(
    trial_backend=LocalBackend(entry_point=str(Path(__file__).with_name("syne_trial.py"))),
    scheduler=scheduler,
    stop_criterion=ended,
    n_workers=len(os.sched_getaffinity(0)),
    sleep_time=0.1,
    print_update_interval=1e9,
    save_tuner=False,
)
tuner.run()
trials = len(tuner.last_seen_result_per_trial)
report(work, time.perf_counter() - begun, trials=trials, perturbations=scheduler.num_perturbations)
