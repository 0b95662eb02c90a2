"""A Hugging Face encoder cut in two: the lower layers, which stay as they are, and the upper ones, which are trained.

Each part is a shallow copy of the model, in which some children are exchanged: it is of the model's own class and runs
its own code. It shares all other modules, and with them all weights, with the whole model, so that nothing is in memory
or in a checkpoint twice.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from recbole_xling.errors import ConfigError, unknown_name


@dataclass(frozen=True)
class _Layout:
    """Where a family of encoders keeps its layers, the norm after the last one, if any, and its embeddings."""

    layers: str
    final_norm: str | None = None
    embeddings: str | None = "embeddings"
    """None: the model leaves them out by itself where ``inputs_embeds`` are given, as language models do."""


_BERT = _Layout("encoder.layer")
_DECODER = _Layout("layers", "norm", None)
_LAYOUTS = {  # by config.model_type
    "bert": _BERT,
    "camembert": _BERT,
    "distilbert": _Layout("transformer.layer"),
    "modernbert": _Layout("layers", "final_norm"),
    "mpnet": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text", "llama", "mistral", "qwen2", "qwen3"), _DECODER),
}

_SCALING = ("gemma", "gemma2")
"""transformers before release 5 multiplies whatever is given as ``inputs_embeds`` by the root of their size."""


class _GivenEmbeddings(nn.Module):
    """Replaces the embeddings where the hidden states are given."""

    def forward(self, input_ids: None, inputs_embeds: Tensor, *_: Any, **__: Any) -> Tensor:
        return inputs_embeds


def transformer_layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return names and modules of the layers, the lowest first.

    Raises:
        ConfigError: the architecture is unknown.
    """
    layout = _layout_of(model)
    return [(f"{layout.layers}.{i}", layer) for i, layer in enumerate(_layers(model, layout))]


def modules_above(model: nn.Module, n_lower: int) -> list[nn.Module]:
    """Return the modules above the lowest ``n_lower`` layers."""
    norm = _layout_of(model).final_norm
    above = [layer for _, layer in transformer_layers(model)[n_lower:]]
    return above + ([model.get_submodule(norm)] if norm else [])


def lower_part(model: nn.Module, n_lower: int) -> nn.Module:
    """Return the embeddings and the lowest ``n_lower`` layers as a model."""
    layout = _layout_of(model)
    part = _exchange(model, layout.layers, _layers(model, layout)[:n_lower])
    return _exchange(part, layout.final_norm, nn.Identity()) if layout.final_norm else part


def upper_part(model: nn.Module, n_lower: int) -> nn.Module:
    """Return all above the lowest ``n_lower`` layers as a model; its ``inputs_embeds`` are the lower part's states."""
    layout = _layout_of(model)
    part = _exchange(model, layout.layers, _layers(model, layout)[n_lower:])
    if layout.embeddings is not None:
        return _exchange(part, layout.embeddings, _GivenEmbeddings())
    config = copy.copy(cast(Any, model.config))
    config.__dict__["use_cache"] = False  # keys and values are kept by the layer's number in the whole model
    if getattr(config, "layer_types", None):  # the kind of attention is asked for by the number in this part
        config.__dict__["layer_types"] = config.layer_types[n_lower:]
    if config.model_type in _SCALING:
        config.__dict__["hidden_size"] = 1
    part.__dict__["config"] = config
    return part


def _layers(model: nn.Module, layout: _Layout) -> nn.ModuleList:
    return cast(nn.ModuleList, model.get_submodule(layout.layers))


def _exchange(module: nn.Module, path: str, new: nn.Module) -> nn.Module:
    """Return a shallow copy of ``module`` with another module at ``path``."""
    name, _, rest = path.partition(".")
    child = _exchange(module.get_submodule(name), rest, new) if rest else new
    part = copy.copy(module)
    part.__dict__["_modules"] = {**module._modules, name: child}
    return part


def _layout_of(model: nn.Module) -> _Layout:
    kind = str(cast(Any, model.config).model_type)
    if kind not in _LAYOUTS:
        known = unknown_name("architecture for adapter_layers", kind, _LAYOUTS)
        raise ConfigError(
            f"{known}. Leave adapter_layers empty to train all layers, or take an encoder of one of these"
        )
    return _LAYOUTS[kind]
