"""Optimizers, their parameter groups and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn, optim

from recbole_xling.errors import ConfigError
from recbole_xling.model.base import hooks_of
from recbole_xling.trainer.lazy_adam import LazyAdam

_LEARNERS: dict[str, type[optim.Optimizer]] = {
    "adam": optim.Adam,
    "adamw": optim.AdamW,
    "sgd": optim.SGD,
    "adagrad": optim.Adagrad,
    "rmsprop": optim.RMSprop,
    "sparse_adam": LazyAdam,
}
_FUSED = {"adam", "adamw", "sgd", "adagrad", "sparse_adam"}  # one kernel per step; the same mathematics


def parameter_groups(
    model: nn.Module, learning_rate: float, learning_rates: Mapping[str, float] | None
) -> list[dict[str, Any]]:
    """Group trainable parameters by learning rate.

    Args:
        model: the model.
        learning_rate: the rate of parameters that no prefix names.
        learning_rates: parameter name prefix to rate; the longest matching prefix wins.

    Raises:
        ConfigError: a prefix matches no parameter, and is not one of the model's ``optional_parts`` that settings
            leave out.
    """
    # "adaptor" was its name when checkpoints of the first release were written: they have their groups in this order
    length = {prefix: len(prefix.replace("items.text_projection", "items.adaptor")) for prefix in learning_rates or {}}
    prefixes = sorted(length, key=length.__getitem__, reverse=True)
    groups: dict[str, list[nn.Parameter]] = {prefix: [] for prefix in ["", *prefixes]}
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    optional = hooks_of(model).optional_parts
    for prefix in prefixes:
        if prefix not in optional and not any(name.startswith(prefix) for name in names):
            tops = sorted({".".join(name.split(".")[:2]) for name in names})
            raise ConfigError(
                f"learning_rates: no trainable parameter starts with '{prefix}'. Known: {', '.join(tops)}"
            )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[next((prefix for prefix in prefixes if name.startswith(prefix)), "")].append(parameter)
    rates = {"": learning_rate, **(learning_rates or {})}
    return [{"params": group, "lr": float(rates[prefix])} for prefix, group in groups.items() if group]


def build_optimizer(learner: str, groups: list[dict[str, Any]], weight_decay: float) -> optim.Optimizer:
    """Build the optimizer RecBole calls ``learner``.

    Raises:
        ConfigError: an unknown learner, or a weight decay with ``sparse_adam``.
    """
    name = learner.lower()
    if name not in _LEARNERS:
        raise ConfigError(f"unknown learner '{learner}'. Known: {', '.join(_LEARNERS)}")
    options: dict[str, Any] = {"weight_decay": weight_decay}
    parameters = [parameter for group in groups for parameter in group["params"]]
    if name in _FUSED and all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters):
        options["fused"] = True
    return _LEARNERS[name](groups, **options)


def build_schedule(
    optimizer: optim.Optimizer, schedule: str, warmup_steps: int, total_steps: int
) -> optim.lr_scheduler.LambdaLR:
    """Return a schedule to be stepped after each optimizer step.

    The schedules are those of ``transformers.get_scheduler``, except that warm-up begins with a rate above zero: there
    the first step of a run would train nothing.

    Args:
        optimizer: whose rates are scaled.
        schedule: ``constant``, ``linear`` or ``cosine`` (the last two decay to zero at ``total_steps``).
        warmup_steps: steps over which the rate rises linearly to its full value.
        total_steps: optimizer steps of all epochs.

    Raises:
        ConfigError: an unknown schedule.
    """
    decays = {
        "constant": lambda done: 1.0,
        "linear": lambda done: 1.0 - done,
        "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    }
    if schedule not in decays:
        raise ConfigError(f"unknown lr_schedule '{schedule}'. Known: {', '.join(decays)}")
    decay = decays[schedule]

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / (warmup_steps + 1)
        return decay(min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
