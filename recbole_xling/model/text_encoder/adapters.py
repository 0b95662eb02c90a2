"""Which weights of a pretrained encoder are trained: small adapters next to frozen ones, all of them, or none."""

from __future__ import annotations

import math
import warnings
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from recbole_xling.errors import CheckpointError, ConfigError, unknown_name
from recbole_xling.model.text_encoder.layer_split import modules_above, transformer_layers
from recbole_xling.utils.typed_config import TypedConfig

_FIRST_RANK = 1.5  # AdaLoRA starts with a multiple of the final rank, as its paper does
# How architectures call these layers. PEFT 0.21 has such a table by architecture, which lacks four of the seven in
# layer_split.py (for IA3 five, and there "output.dense" matches the attention's output layer too).
_QUERY_VALUE = (("query", "value"), ("q_lin", "v_lin"), ("attn.q", "attn.v"), ("q_proj", "v_proj"), ("Wqkv",),
                ("qkv_proj",), ("query_key_value",))  # fmt: skip
_KEY_VALUE = (("key", "value"), ("k_lin", "v_lin"), ("attn.k", "attn.v"), ("k_proj", "v_proj"))

Method = Literal["frozen", "lora", "adalora", "ia3", "full"]


class AdapterConfig(TypedConfig):
    """Which weights of the encoder are trained.

    The methods: ``lora`` (Hu et al., ICLR 2022), ``adalora`` (Zhang et al., ICLR 2023), ``ia3`` (Liu et al., NeurIPS
    2022), ``full`` and ``frozen``. ``target_modules`` are named by the end of their names; if not set, they are those
    of the methods' papers: queries and values, for ``ia3`` keys, values and the feed-forward's second layer. With
    ``full``, embeddings are trained only where ``adapter_layers`` is not set.
    """

    section: ClassVar[str] = "adapters"

    peft: Method = Field("frozen", description="Which weights of the encoder are trained.")
    lora_rank: int = Field(16, ge=1, description="Rank of LoRA; the final mean rank of AdaLoRA.")
    lora_alpha: int = Field(32, ge=1, description="Scale of LoRA's update, as a multiple of 1 / rank.")
    lora_dropout: float = Field(0.05, ge=0, lt=1, description="Dropout of LoRA's input.")
    target_modules: list[str] | None = Field(
        None,
        description="Linear layers that get adapters; queries and values if not set.",
        examples=[["query", "value"]],
    )
    adapter_layers: int | None = Field(
        None, ge=1, description="Tune only so many layers, from the top; all if not set."
    )


def scale_settings(config: Any) -> list[str]:
    """Return the settings of adapters that change what their weights mean, but not their shapes."""
    return ["lora_alpha"] if config["peft"] in ("lora", "adalora") else []


def add_adapters(model: nn.Module, config: AdapterConfig) -> nn.Module:
    """Freeze what is not to be trained, and add adapters.

    Args:
        model: of transformers; changed in place.
        config: what to train.

    Returns:
        The model wrapped by PEFT, or for ``full`` and ``frozen`` the model itself.

    Raises:
        ConfigError: unknown linear layers, or more layers than the encoder has.
    """
    n_lower = n_frozen_layers(model, config)
    if config.peft in ("full", "frozen"):
        model.requires_grad_(config.peft == "full" and config.adapter_layers is None)
        if config.peft == "full" and config.adapter_layers is not None:
            for module in modules_above(model, n_lower):
                module.requires_grad_(True)
        return model
    import peft

    trained: tuple[str, ...] = ("",)  # how the names of trained layers begin
    if config.adapter_layers is not None:
        trained = tuple(f"{name}." for name, _ in transformer_layers(model)[n_lower:])
    named = model.named_modules()
    linear = {name: module for name, module in named if isinstance(module, nn.Linear) and name.startswith(trained)}
    settings = _peft_config(config, linear, _targets(config, linear))
    with warnings.catch_warnings():  # PEFT asks transformers for an attribute by its old name
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        return cast(nn.Module, peft.get_peft_model(cast(Any, model), settings))


def n_frozen_layers(model: nn.Module, config: AdapterConfig) -> int:
    """Return the number of layers below the trained ones; 0 where all are trained, and where nothing is.

    Raises:
        ConfigError: ``adapter_layers`` is out of range, or the architecture's layers are not known.
    """
    if config.adapter_layers is None or config.peft == "frozen":
        return 0
    n_layers = len(transformer_layers(model))
    if not 1 <= config.adapter_layers <= n_layers:
        raise ConfigError(f"adapter_layers must be between 1 and the encoder's {n_layers}, not {config.adapter_layers}")
    return n_layers - config.adapter_layers


def _targets(config: AdapterConfig, linear: dict[str, nn.Linear]) -> list[str]:
    """Return the layers that get adapters, by their full names: PEFT would match an ending in all layers."""
    if config.target_modules is not None:
        for end in config.target_modules:
            if not _ending_with((end,), linear):
                raise ConfigError(unknown_name("linear layer in target_modules", end, _kinds(linear)))
        return _ending_with(tuple(config.target_modules), linear)
    choices = _KEY_VALUE if config.peft == "ia3" else _QUERY_VALUE
    for ends in choices:
        names = _ending_with(ends, linear)
        if names:
            return names + (_feed_forward(linear) if config.peft == "ia3" else [])
    raise ConfigError(
        "cannot tell which linear layers should get adapters: name them in target_modules, from "
        f"{', '.join(_kinds(linear))}"
    )


def _ending_with(ends: tuple[str, ...], linear: dict[str, nn.Linear]) -> list[str]:
    return [name for name in linear if any(name == end or name.endswith(f".{end}") for end in ends)]


def _feed_forward(linear: dict[str, nn.Linear]) -> list[str]:
    """Return the layers that bring the feed-forward's inner size back: (IA)3 scales their inputs."""
    return [name for name, layer in linear.items() if layer.in_features > layer.out_features]


def _kinds(linear: dict[str, nn.Linear]) -> list[str]:
    """Return the names of linear layers without the part up to their layer's number."""
    kinds = set()
    for name in linear:
        parts = name.split(".")
        numbers = [place for place, part in enumerate(parts) if part.isdigit()]
        kinds.add(".".join(parts[numbers[-1] + 1 :] if numbers else parts))
    return sorted(kinds)


def _peft_config(config: AdapterConfig, linear: dict[str, nn.Linear], names: list[str]) -> Any:
    import peft

    if config.peft == "ia3":
        inner = set(_feed_forward(linear))
        return peft.IA3Config(target_modules=names, feedforward_modules=[name for name in names if name in inner])
    shared: dict[str, Any] = {
        "target_modules": names,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
    }
    if config.peft == "lora":
        return peft.LoraConfig(r=config.lora_rank, **shared)
    first = math.ceil(_FIRST_RANK * config.lora_rank)
    # PEFT asks for the number of steps, which is not known yet: RankAllocation sets it when training begins
    return peft.AdaLoraConfig(init_r=first, target_r=config.lora_rank, total_step=1, **shared)


# ---- AdaLoRA -------------------------------------------------------------------------------------------------

_SCORES = ("ipt", "exp_avg_ipt", "exp_avg_unc")  # importance, its moving average, and that of its uncertainty
_MIN_STEPS = 10


class RankAllocation:
    """The rank allocator of an encoder with AdaLoRA adapters.

    The paper's proportions: full ranks for the first tenth of the steps, final ones for the last half, and between
    them the budget falls with the cube of the remaining part; ranks are re-allocated every 500th of the steps.

    Args:
        model: the encoder, wrapped by PEFT.
    """

    def __init__(self, model: Any) -> None:
        self._tuner = model.base_model
        self._config = model.peft_config[self._tuner.trainable_adapter_name]
        self._allocator = self._tuner.rankallocator

    def begin_training(self, total_steps: int) -> None:
        """Spread the schedule over the optimizer's steps.

        Raises:
            ConfigError: the steps are too few for a schedule.
        """
        if total_steps < _MIN_STEPS:
            raise ConfigError(f"peft: adalora needs at least {_MIN_STEPS} optimizer steps, not {total_steps}; use lora")
        self._config.tinit, self._config.tfinal = total_steps // 10, total_steps // 2
        self._config.deltaT = max(1, total_steps // 500)
        self._allocator.set_total_step(total_steps)

    @torch.no_grad()
    def end_step(self, step: int) -> None:
        """Update importances and take ranks away: after the optimizer's step ``step``, counted from 0."""
        done = step + 1
        if done < self._config.total_step - self._config.tfinal:
            gradients = [part.grad for name, part in self._tuner.model.named_parameters() if "lora_" in name]
            found = [gradient.isfinite().all() for gradient in gradients if gradient is not None]
            if len(found) < len(gradients) or not torch.stack(found).all():
                return  # the gradient scaler has left out this step
        self._tuner.update_and_allocate(done)

    def regularization(self) -> Tensor:
        """Return the term that keeps both factors of each update orthogonal, the paper's R, weighted and averaged."""
        gaps = []
        for name, factor in self._tuner.model.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                with torch.autocast(factor.device.type, enabled=False):
                    rows = factor if "lora_A" in name else factor.T  # (r, n)
                    gram = rows @ rows.T  # (r, r)
                    gaps.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
        return self._config.orth_reg_weight * torch.stack(gaps).mean()

    def state(self) -> dict[str, Any]:
        """Return what an exact resume needs besides the weights, as plain data and tensors."""
        scores = {kind: dict(getattr(self._allocator, kind)) for kind in _SCORES}
        return {"scores": scores, "rank_pattern": self._config.rank_pattern}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state` returned.

        Raises:
            CheckpointError: the state is not AdaLoRA's.
        """
        if state.keys() != {"scores", "rank_pattern"}:
            raise CheckpointError("the checkpoint has no ranks: it was trained with another peft method than adalora")
        device = next(self._tuner.parameters()).device
        for kind in _SCORES:
            setattr(self._allocator, kind, {name: score.to(device) for name, score in state["scores"][kind].items()})
        self._config.rank_pattern = state["rank_pattern"]
