"""PyTorch: all members stacked, `torch.func.vmap(grad(loss))`, AdamW written by hand (torch's takes one learning rate), PBT.

Eager: `torch.compile` needs a C++ compiler and more seconds than it saves at this size.
"""

from __future__ import annotations

import time

import torch
from torch.func import functional_call, grad, stack_module_state, vmap
from work import BATCH, BOUNDS, CLASSES, FACTORS, FEATURES, HIDDEN, QUANTILE, asked, data, report, start_settings, trained

work = asked()
x_train, y_train, x_validation, y_validation = (torch.from_numpy(part) for part in data())
y_train, y_validation = y_train.long(), y_validation.long()
begun = time.perf_counter()
torch.manual_seed(work.seed)
cut = int(work.members * QUANTILE)
low, high = torch.tensor(BOUNDS)[:, :, None].swapaxes(0, 1)


def network() -> torch.nn.Module:
    """He's rule from a normal cut at two deviations, as the other peers begin."""
    layers = torch.nn.Linear(FEATURES, HIDDEN), torch.nn.Linear(HIDDEN, CLASSES)
    for layer in layers:
        deviation = (2 / layer.in_features) ** 0.5 / 0.87962566
        torch.nn.init.trunc_normal_(layer.weight, std=deviation, a=-2 * deviation, b=2 * deviation)
        torch.nn.init.zeros_(layer.bias)
    return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])


Params = dict[str, torch.Tensor]
stacked, _ = stack_module_state([network() for _ in range(work.members)])
params = {name: value.detach().clone() for name, value in stacked.items()}
mean = {name: torch.zeros_like(value) for name, value in params.items()}
square = {name: torch.zeros_like(value) for name, value in params.items()}
settings = torch.from_numpy(start_settings(work))
shape = network().to("meta")


def loss(params: Params, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(functional_call(shape, (params,), (x,)), y)


gradients = vmap(grad(loss))
outputs = vmap(lambda params: functional_call(shape, (params,), (x_validation,)))


def step(number: int) -> None:
    rows = torch.randint(0, len(x_train), (work.members, BATCH))
    gradient = gradients(params, x_train[rows], y_train[rows])
    for name, value in params.items():
        learning_rate, weight_decay = settings.view(2, -1, *(1,) * (value.dim() - 1))
        mean[name] = 0.9 * mean[name] + 0.1 * gradient[name]
        square[name] = 0.999 * square[name] + 0.001 * gradient[name] ** 2
        update = (mean[name] / (1 - 0.9**number)) / ((square[name] / (1 - 0.999**number)).sqrt() + 1e-8)
        params[name] = value - learning_rate * (update + weight_decay * value)


with torch.no_grad():
    for generation in range(1, work.generations + 1):
        for number in range((generation - 1) * work.steps + 1, generation * work.steps + 1):
            step(number)
        accuracy = (outputs(params).argmax(-1) == y_validation).float().mean(-1)
        trained(work.count, work.members * work.steps, float(accuracy.max()), generation)
        order = accuracy.argsort()
        worst, best = order[:cut], order[work.members - cut :]
        source = torch.arange(work.members)
        source[worst] = best[torch.randint(0, max(cut, 1), (cut,))]
        for tree in (params, mean, square):
            tree.update({name: value[source] for name, value in tree.items()})
        factor = torch.where(torch.rand(settings.shape) < 0.5, *FACTORS)
        shaken = (settings[:, source] * factor).clamp(low, high)
        settings[:, worst] = shaken[:, worst]
report(work, time.perf_counter() - begun, threads=torch.get_num_threads())
