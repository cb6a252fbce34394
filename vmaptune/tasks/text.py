"""Language models: a network predicts the next character of a text."""

from __future__ import annotations

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from vmaptune import models
from vmaptune.data import text as texts
from vmaptune.data.preparation import Preparation
from vmaptune.data.splits import Splits
from vmaptune.errors import ConfigError, did_you_mean
from vmaptune.models.recurrent import Recurrent
from vmaptune.models.transformer import Transformer
from vmaptune.settings import Count, Natural, Share, with_settings
from vmaptune.tasks.contract import Metrics, Serving, Task
from vmaptune.tasks.fitting import computed, outputs_of

DIRECTIONS: dict[str, Literal["max", "min"]] = {"bits_per_character": "min", "accuracy": "max", "loss": "min"}


def text(
    *,
    path: str = "",
    level: texts.Level = "char",
    limit: Natural = 0,
    length: Count = 64,
    context: Natural = 0,
    validation: Share = 0.1,
    test: Share = 0.1,
    model: Literal["gru", "lstm", "transformer"] = "gru",
    width: Count = 128,
    depth: Count = 1,
    embedding: Count = 32,
    heads: Count = 4,
    metric: Literal["bits_per_character", "accuracy", "loss"] = "bits_per_character",
) -> Task:
    """The next character of a text, predicted by a small network.

    The text is cut by position: training first, then validation, then test. Every window starts from nothing, so a longer one
    is predicted better.

    Args:
        path: A text file; empty: Python's own documentation, as `help()` shows it, which differs from version to version.
        level: char: a UTF-8 file, character by character. byte: any file, byte by byte.
        limit: Use so many characters from the start; 0: all.
        length: Characters of a window.
        context: Characters of each window of validation and test that are read only, because the window before it has
            predicted them.
        validation: Share of the text for validation.
        test: Share of the text for test.
        model: The network.
        width: Units of a layer.
        depth: Layers.
        embedding: Numbers that stand for a character in a GRU or LSTM; a transformer has `width`.
        heads: Of a transformer's attention; `width` must be a multiple.
        metric: What members are selected by.
    """
    given = texts.read_text(path, level)
    splits, vocabulary = texts.text_windows(
        given[: limit or None], length=length, validation=validation, test=test, context=context
    )
    shape = {"model": model, "width": width, "depth": depth, "embedding": embedding, "heads": heads}
    network = text_network((length,), len(vocabulary), **shape)  # type: ignore[arg-type]
    task = language_model(network, splits, metric=metric, context=context, where="task text")
    codes = vocabulary[1:].tolist()
    return task.prepared(classes=("", *map(chr, codes)) if level == "char" else (-1, *codes))


def text_network(
    shape: tuple[int, ...],
    outputs: int,
    *,
    model: Literal["gru", "lstm", "transformer"] = "gru",
    width: Count = 128,
    depth: Count = 1,
    embedding: Count = 32,
    heads: Count = 4,
) -> models.Model:
    """The network of a text: of windows of tokens, as many different ones as it has outputs."""
    if model == "transformer" and width % heads:
        raise ConfigError(f"task.width: expected a multiple of the {heads} heads; given: {width}")

    def network(rngs: nnx.Rngs) -> nnx.Module:
        if model == "transformer":
            return Transformer(outputs, width, outputs, length=shape[0], depth=depth, heads=heads, rngs=rngs)
        return Recurrent(outputs, width, outputs, layer=model, depth=depth, embedding=embedding, every_step=True, rngs=rngs)

    return models.from_nnx(network)


def language_model(
    model: models.Model,
    splits: Splits,
    *,
    metric: Literal["bits_per_character", "accuracy", "loss"] = "bits_per_character",
    context: int = 0,
    where: str = "task",
) -> Task:
    """A task that predicts a token at every step of a sequence: mean cross-entropy, in nats a token.

    Settings of the training are the model's own.

    Args:
        model: Pure functions whose outputs are logits f32[batch, time, tokens]; those of a step must not depend on later ones.
        splits: Parts of `(inputs, targets)`, targets i32[examples, time].
        metric: What members are selected by; all are measured. A bit is ln 2 nats.
        context: Steps at the beginning of an example that are not measured, but trained on.
        where: What to call the task in an error.

    Raises:
        ConfigError: There is no such metric, a split is empty or ragged, or inputs, targets and logits do not fit together.
    """
    if metric not in DIRECTIONS:
        raise ConfigError(f"{where}: there is no metric {metric!r}{did_you_mean(metric, DIRECTIONS)}")
    outputs = outputs_of(model, splits, where)
    _check_tokens(splits, outputs, where)

    def init(key: jax.Array, sample: Any) -> tuple[Any, Any]:
        del sample  # the model knows its own input shape
        return model.init(key)

    def loss(
        params: Any, model_state: Any, batch: Any, key: jax.Array, *, train: bool, **of_model: Any
    ) -> tuple[jax.Array, tuple[Any, Metrics]]:
        """What is paid for a batch, and its metrics."""
        inputs, targets = batch
        logits, model_state = computed(model, params, model_state, inputs, key, train=train, **of_model)
        paid, metrics = measured(logits, targets) if train else measured(logits[:, context:], targets[:, context:])
        return paid, (model_state, metrics)

    def measured(logits: jax.Array, targets: jax.Array) -> tuple[jax.Array, Metrics]:
        # Picked by a product: a lookup's gradient is a scatter, which is slow under vmap.
        picked = jnp.sum(logits * jax.nn.one_hot(targets, logits.shape[-1]), axis=-1)
        paid = jnp.mean(jax.nn.logsumexp(logits, axis=-1) - picked)
        hit = jnp.mean((jnp.argmax(logits, axis=-1) == targets).astype(jnp.float32))
        return paid, {"bits_per_character": paid / math.log(2), "accuracy": hit}

    def apply(params: Any, model_state: Any, inputs: Any) -> jax.Array:
        return computed(model, params, model_state, inputs, jax.random.key(0), train=False)[0]

    def judge(logits: jax.Array, data: Any) -> Metrics:
        paid, metrics = measured(logits[:, context:], data[1][:, context:])
        return {"loss": paid, **metrics}

    with_settings(loss, model.apply)
    length, tokens = splits.train[0].shape[1], outputs.shape[2]
    raw = Preparation("text", (length,), tokens, classes=tuple(range(tokens)), length=length)
    return Task(init, loss, splits, metric, DIRECTIONS[metric], serving=Serving(apply, judge, raw))


def _check_tokens(splits: Splits, logits: Any, where: str) -> None:
    """Raises `ConfigError` if targets and logits do not fit together."""
    targets = splits.train[1]
    if len(logits.shape) != 3 or logits.shape[:2] != (2, *targets.shape[1:]):
        raise ConfigError(
            f"{where}: the model must return logits of shape (batch, time, tokens); given: {logits.shape} for a batch of 2, "
            f"targets of shape {targets.shape}"
        )
    for part in Splits._fields:
        found = getattr(splits, part)[1]
        if not jnp.issubdtype(found.dtype, jnp.integer) or found.min() < 0 or found.max() >= logits.shape[2]:
            raise ConfigError(
                f"{where}: targets must be integers in 0..{logits.shape[2] - 1}, the model's outputs; "
                f"given: {found.dtype}, {found.min()}..{found.max()}, in the {part} split"
            )
