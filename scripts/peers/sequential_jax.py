"""A plain loop: one member after another through one compiled function, random settings, no selection. Not a tuner: a floor."""

from __future__ import annotations

import time

from network import Solo
from work import asked, report, start_settings, trained

work = asked()
begun = time.perf_counter()
solo = Solo(work.seed, work.steps)
for member, (learning_rate, weight_decay) in enumerate(start_settings(work).T):
    state = solo.new(member)
    for generation in range(1, work.generations + 1):
        state, accuracy = solo.train(state, member, generation, learning_rate, weight_decay)
        trained(work.count, work.steps, accuracy, generation)
report(work, time.perf_counter() - begun)
