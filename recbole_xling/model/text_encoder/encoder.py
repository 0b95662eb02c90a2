"""The item tower: texts become unit vectors, by a pretrained encoder with a learned map over it or adapters in it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from recbole_xling.config import EncodingConfig
from recbole_xling.encode.base import Identity
from recbole_xling.encode.hub import HubModel, LocalModel, find_model, sentence_parts, tell_if_supposed
from recbole_xling.errors import CheckpointError, ConfigError, EncoderError
from recbole_xling.model.layers.cpu_kernels import CpuTraining
from recbole_xling.model.text_encoder.adapters import AdapterConfig, RankAllocation, add_adapters, n_frozen_layers
from recbole_xling.model.text_encoder.frozen_layers import FrozenLayers
from recbole_xling.model.text_encoder.layer_split import lower_part, modules_above, upper_part
from recbole_xling.model.text_encoder.learned_map import LearnedMap
from recbole_xling.model.text_encoder.loading import load_pretrained, longest_input
from recbole_xling.model.text_encoder.tokens import TokenizedTexts, length_buckets
from recbole_xling.model.text_encoder.untuned import UntunedVectors
from recbole_xling.utils.devices import to_device
from recbole_xling.utils.distributed import gather_rows, process, sum_over_processes, take_from_first_process
from recbole_xling.utils.paths import user_cache_folder

logger = logging.getLogger(__name__)

_MAP_START = "map_start"  # of the state of adapters
_MOST_TEXTS_FOR_AXES = 10_000  # more would not move the axes


def mean_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the tokens of each text."""
    weight = mask[..., None].to(states.dtype)  # (N, T, 1)
    return (states * weight).sum(dim=1) / weight.sum(dim=1)


def cls_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of the first token of each text."""
    return states[:, 0]


def last_pooling(states: Tensor, mask: Tensor) -> Tensor:
    """Return the state of the last token of each text."""
    return states[torch.arange(len(states), device=states.device), mask.sum(dim=1) - 1]


_OPTIONS = ("revision", "gguf_file", "num_hidden_layers")  # of encoder_options

# name -> (N, T, H) hidden states and (N, T) mask, 1 for tokens, padded on the right -> (N, H)
POOLING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": cls_pooling,
    "last": last_pooling,
    "mean": mean_pooling,
}


def find_encoder(config: Any) -> LocalModel | HubModel:
    """Return where the item tower's encoder comes from, by all settings of a run; nothing is loaded.

    Raises:
        EncoderError: it cannot be found.
    """
    settings = TextEncoderConfig.of(config)
    options = settings.encoder_options or {}
    return find_model(settings.encoder, options.get("revision"), options.get("gguf_file"))


def build_encoder(config: Any) -> TextEncoder:
    """Build the item tower that the settings describe, with new adapters.

    Args:
        config: all settings of a run.

    Raises:
        ConfigError: a setting is not allowed or does not fit the encoder.
        EncoderError: the encoder cannot be found or loaded.
    """
    settings, source = TextEncoderConfig.of(config), find_encoder(config)
    if unread := [key for key in settings.encoder_options or {} if key not in _OPTIONS]:
        told = ", ".join(unread), config["model"], ", ".join(_OPTIONS)
        logger.warning("encoder_options: %s changes nothing for %s, which reads %s", *told)
    folder = Path(settings.embedding_cache_dir or user_cache_folder("embeddings"))
    folder.mkdir(parents=True, exist_ok=True)
    return TextEncoder(source, settings, folder)


def _pooling(source: LocalModel | HubModel, asked: str, prompt: str | None) -> str:
    """Return the pooling that is asked for or that the encoder was made with, and say what else of it is left out.

    Raises:
        ConfigError: it was made with a pooling that is not known here.
        EncoderError: what it says of itself is damaged.
    """
    try:
        parts = sentence_parts(source)
    except EncoderError:
        if asked == "auto":
            raise
        return asked
    if asked == "auto":
        tell_if_supposed(source)
    if parts.further:
        logger.warning(
            "of the encoder %s the transformer and its pooling alone are used: what follows them (%s) is left out",
            *(source.name, ", ".join(parts.further)),
        )
    if parts.prompt and prompt is None:
        logger.warning(
            "the encoder %s was made with %r before each text, and is read without: set encoder_prompt to that, or to "
            "'' if it is not wanted",
            *(source.name, parts.prompt),
        )
    made_with = parts.pooling or "mean"
    if asked == "auto" and made_with not in POOLING:
        raise ConfigError(
            f"the encoder {source.name} was made with pooling={made_with}: set pooling to mean, cls or last"
        )
    if asked not in ("auto", made_with):
        logger.warning("the encoder %s was made with pooling=%s, and is read with %s", source.name, made_with, asked)
    return made_with if asked == "auto" else asked


def check_encoder(encoder: TextEncoder, trained_on: Mapping[str, Any]) -> None:
    """Check that weights belong to an encoder.

    Args:
        encoder: the encoder.
        trained_on: identity of the encoder that the weights were trained on.

    Raises:
        CheckpointError: it is another encoder.
    """
    wrong = {key: value for key, value in encoder.identity.items() if trained_on.get(key) != value}
    if wrong:
        theirs = {key: trained_on.get(key) for key in wrong}
        raise CheckpointError(f"the checkpoint belongs to the encoder {theirs}, but this one is {wrong}")


class TextEncoderConfig(AdapterConfig, EncodingConfig):
    """How texts become vectors, by an encoder that is trained.

    The prompt and special tokens count for ``encoder_max_length``. ``encoder_batch_size`` is for what is not trained.
    """

    section: ClassVar[str] = "item tower"

    encoder: str = Field("intfloat/multilingual-e5-small", description="Model of the Hugging Face hub, or a folder.")
    encoder_max_length: int = Field(64, ge=1, description="Longest text in tokens.")
    pooling: Literal["auto", "mean", "cls", "last"] = Field(
        "auto", description="From token vectors to a text's vector; `auto` is what the encoder says, else `mean`."
    )
    embedding_size: Annotated[int, Field(ge=1)] | Literal["auto"] | None = Field(
        "auto",
        description="Size of a learned map of the pooled vectors; none for no map. `auto`: that of the vectors where "
        "the encoder is frozen, else no map.",
    )
    embedding_init: Literal["pca", "whitening", "random"] = Field(
        "pca", description="Where the map starts: principal axes (identity if it keeps the size), whitening, or random."
    )
    embedding_mlp_size: int = Field(0, ge=0, description="Hidden units of a perceptron beside the map; 0 for none.")
    embedding_l2_sp: float = Field(
        0.0, ge=0, description="Pull of the map's weights back to their start: half of it times the squared distance."
    )
    mini_batch_size: int = Field(64, ge=1, description="Texts encoded at a time in training; peak memory follows it.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations inside of the layers as well.")
    lower_layer_cache_gb: float = Field(4.0, ge=0, description="Disk for hidden states below the adapters; 0 for none.")

    @model_validator(mode="after")
    def _for_a_map(self) -> TextEncoderConfig:
        for key in ("embedding_mlp_size", "embedding_l2_sp"):
            if getattr(self, key) and not self.has_map:
                raise ConfigError(f"{key} is for the learned map, and there is none: set embedding_size as well")
        return self

    @property
    def has_map(self) -> bool:
        """Whether pooled vectors go through a learned map."""
        return self.peft == "frozen" if self.embedding_size == "auto" else self.embedding_size is not None


class TextEncoder(nn.Module):
    """A Transformer encoder of the hub, with adapters, pooling, an optional projection and L2 norm.

    Layers below all trained ones run without gradients and without dropout, in training too: the embeddings and lower
    layers with ``adapter_layers``, everything with ``peft: frozen``.

    Args:
        source: where the encoder comes from, see :func:`~recbole_xling.encode.hub.find_model`.
        config: how to build it.
        cache_dir: folder for tokens and for the states of frozen layers; None: tokens are not kept, and states are
            in the system's folder for temporary files.

    Raises:
        ConfigError: a setting does not fit the encoder.
        EncoderError: the encoder cannot be loaded.
    """

    def __init__(self, source: LocalModel | HubModel, config: TextEncoderConfig, cache_dir: Path | None = None) -> None:
        super().__init__()
        self.source, self.config, self._cache_dir = source, config, cache_dir
        self._n_layers: int | None = (config.encoder_options or {}).get("num_hidden_layers")
        model, self.tokenizer = load_pretrained(source, self._n_layers)
        longest = longest_input(model, self.tokenizer)
        if config.encoder_max_length > longest:
            raise ConfigError(
                f"encoder_max_length is {config.encoder_max_length}, but {source.name} takes {longest} tokens at most"
            )
        self._n_lower = n_frozen_layers(model, config)
        self.hidden_size = int(model.config.hidden_size)
        self.adapted = add_adapters(model, config)
        if config.gradient_checkpointing:
            again = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), CpuTraining())}
            self.transformer.gradient_checkpointing_enable(gradient_checkpointing_kwargs=again)
        self.projection: LearnedMap | None = None
        self.size = config.embedding_size if isinstance(config.embedding_size, int) else self.hidden_size
        if config.has_map:
            self.projection = LearnedMap(
                self.hidden_size,
                self.size,
                init=config.embedding_init,
                mlp_size=config.embedding_mlp_size,
                l2_sp=config.embedding_l2_sp,
            )
        self._ranks = RankAllocation(self.adapted) if config.peft == "adalora" else None
        self.pooling = _pooling(source, config.pooling, config.encoder_prompt)
        self._pool = POOLING[self.pooling]
        batch_size = config.encoder_batch_size
        self._untuned = UntunedVectors(
            self._run_untuned, self.tokenize, self.hidden_size, self.identity, batch_size, cache_dir
        )
        self._lower_layers: FrozenLayers | None = None
        if self._n_lower:
            max_bytes = int(config.lower_layer_cache_gb * 1e9)
            self._lower_layers = FrozenLayers(
                self._run_lower, self.hidden_size, max_bytes=max_bytes, batch_size=batch_size, folder=cache_dir
            )

    @property
    def transformer(self) -> Any:
        """The encoder itself, a model of transformers with the adapters in its layers."""
        adapted: Any = self.adapted
        return adapted.get_base_model() if hasattr(adapted, "get_base_model") else adapted

    @property
    def identity(self) -> Identity:
        """What the trained weights belong to: they do not fit an encoder of another identity."""
        further = {"gguf_file": self.source.gguf_file, "num_hidden_layers": self._n_layers}
        return {
            "name": self.source.name,
            "fingerprint": self.source.fingerprint,
            "pooling": self.pooling,
            "prompt": self.config.encoder_prompt,
            "max_length": self.config.encoder_max_length,
            **{key: value for key, value in further.items() if value is not None},
        }

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """Tokenize texts as this encoder reads them."""
        longest, prompt = self.config.encoder_max_length, self.config.encoder_prompt
        return TokenizedTexts.of(texts, self.tokenizer, longest, prompt, cache_dir=self._cache_dir)

    def train(self, mode: bool = True) -> TextEncoder:
        """Set training or evaluation; frozen lower layers stay in evaluation, without dropout."""
        super().train(mode)
        if self.config.peft == "frozen":
            self.adapted.eval()
        elif self._n_lower:
            self.transformer.eval()
            for module in modules_above(self.transformer, self._n_lower):
                module.train(mode)
        return self

    # ---- encoding ---------------------------------------------------------------------------------------------

    def forward(self, tokens: TokenizedTexts, text_ids: Tensor, *, together: bool = False) -> Tensor:
        """Encode some texts.

        Args:
            tokens: what :meth:`tokenize` returned.
            text_ids: ``(N,)`` numbers of its texts; repeated ones are encoded once.
            together: whether all processes are here, each with texts of its own: each text is then encoded by one.

        Returns:
            ``(N, size)`` float32 of unit length, on the encoder's device.
        """
        return self.project(self.pooled_together(tokens, text_ids) if together else self.pooled(tokens, text_ids))

    def pooled_together(self, tokens: TokenizedTexts, text_ids: Tensor) -> Tensor:
        """Return what :meth:`pooled` does, where all processes call it with texts of their own.

        Popular items are in the windows of several processes. Each text is encoded by one of them, always the same
        one; vectors and their gradients are exchanged.
        """
        rank, n_processes = process()
        if n_processes == 1 or self.config.peft == "frozen":
            return self.pooled(tokens, text_ids)
        text_ids = text_ids.to(self.device)
        everyone = torch.unique(gather_rows(text_ids))  # (V,)
        own = (everyone % n_processes == rank).nonzero().squeeze(1)
        # of a batch without texts of its own a process must still take part in the backward pass
        vectors = torch.zeros(
            len(everyone), self.hidden_size, device=self.device, requires_grad=torch.is_grad_enabled()
        )
        vectors = vectors.index_copy(0, own, self.pooled(tokens, everyone[own]))
        return sum_over_processes(vectors)[torch.searchsorted(everyone, text_ids)]

    def pooled(self, tokens: TokenizedTexts, text_ids: Tensor) -> Tensor:
        """Encode some texts, those of about one length together, without projection and norm.

        In training, activations of no more than ``mini_batch_size`` texts are in memory at a time: those of all other
        texts are computed again in the backward pass, bucket by bucket (Gao et al., "Scaling Deep Contrastive
        Learning Batch Size under Memory Limited Setup", RepL4NLP 2021). Random states are restored for it, so
        gradients are the plain ones with dropout too.

        Args:
            tokens: what :meth:`tokenize` returned.
            text_ids: ``(N,)`` numbers of its texts; repeated ones are encoded once.

        Returns:
            ``(N, H)`` float32, on the encoder's device.
        """
        if self.config.peft == "frozen":
            return self._untuned(tokens, text_ids, self.device)
        text_ids, place = torch.unique(text_ids.cpu(), return_inverse=True)
        if not len(text_ids):
            return torch.empty(0, self.hidden_size, device=self.device)
        training = torch.is_grad_enabled()
        most = self.config.mini_batch_size if training else self.config.encoder_batch_size
        buckets = length_buckets(tokens.length[text_ids], most, self.device)
        vectors, n_left = [], len(text_ids)
        for bucket in buckets:
            inputs, mask = tokens.batch(text_ids[bucket])  # (N, T) each
            if self._lower_layers is not None:
                inputs = self._lower_layers(tokens, text_ids[bucket], self.device)  # (N, T, H)
            inputs, mask = to_device(inputs, self.device), to_device(mask, self.device)
            if training and n_left > most:  # the last ones, the longest, stay in memory: their backward pass is first
                vectors.append(checkpoint(self._encode, inputs, mask, use_reentrant=False))
            else:
                vectors.append(self._encode(inputs, mask))
            n_left -= len(bucket)
        order = torch.argsort(torch.cat(buckets))  # text -> its row in vectors
        return torch.cat(vectors)[to_device(order[place], self.device)]

    def untuned(self, tokens: TokenizedTexts, text_ids: Tensor) -> Tensor:
        """Return vectors of before any training, ``(N, H)`` of unit length; not for ``peft: full``.

        Args:
            tokens: what :meth:`tokenize` returned.
            text_ids: ``(N,)`` numbers of its texts.
        """
        return F.normalize(self._untuned(tokens, text_ids, self.device), dim=-1)

    def project(self, pooled: Tensor) -> Tensor:
        """Return vectors of unit length, ``(N, size)`` float32, from pooled ones, ``(N, H)``."""
        projected = pooled if self.projection is None else self.projection(pooled)
        return F.normalize(projected.float(), dim=-1)

    @torch.no_grad()
    def encode_all(self, tokens: TokenizedTexts) -> Tensor:
        """Encode all texts without gradients or dropout, ``(n_texts, size)``."""
        mode = self.training
        self.eval()
        try:
            return self.forward(tokens, torch.arange(tokens.n_texts))
        finally:
            self.train(mode)
            torch.clear_autocast_cache()  # its casts of weights were made without gradients; training needs others

    @property
    def device(self) -> torch.device:
        """The device that the encoder is on."""
        return next(self.parameters()).device

    def _run_lower(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Return the states below the trained layers, ``(N, T, H)``."""
        part = lower_part(self.transformer, self._n_lower)
        return part(input_ids=input_ids, attention_mask=mask).last_hidden_state.float()

    def _run_untuned(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Return pooled vectors without adapters and dropout, ``(N, H)``, in full precision."""
        adapted: Any = self.adapted
        mode, device = self.training, self.device
        self.eval()
        with (
            adapted.disable_adapter() if hasattr(adapted, "disable_adapter") else nullcontext(),
            torch.autocast(device_type=device.type, enabled=False),
        ):
            states = self.transformer(input_ids=input_ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        self.train(mode)
        return self._pool(states.float(), mask.to(device))

    def _encode(self, inputs: Tensor, mask: Tensor) -> Tensor:
        """Run the trained layers, ``(N, H)``."""
        with CpuTraining():
            if self._n_lower:
                output = upper_part(self.transformer, self._n_lower)(inputs_embeds=inputs, attention_mask=mask)
            else:
                output = self.transformer(input_ids=inputs, attention_mask=mask)
        return self._pool(output.last_hidden_state.float(), mask)

    # ---- adapters ---------------------------------------------------------------------------------------------

    def start_projection(self, tokens: TokenizedTexts) -> None:
        """Start the projection at axes of the texts, where the settings say so and no earlier run has trained it.

        What it is pulled back to are its weights of now, be they of an earlier run, unless a checkpoint has told.
        """
        if self.projection is None:
            return
        if self.projection.needs_start:
            self._start_at_texts(self.projection, tokens)
        self.projection.remember_start()

    def _start_at_texts(self, projection: LearnedMap, tokens: TokenizedTexts) -> None:
        some = torch.linspace(0, tokens.n_texts - 1, min(tokens.n_texts, _MOST_TEXTS_FOR_AXES)).long()
        mode = self.training
        with torch.no_grad():
            projection.start_at(self.eval().pooled(tokens, some))
            for weight in (projection.weight, projection.bias):
                take_from_first_process(weight)  # which may have read other roundings of the texts' vectors
        self.train(mode)

    def begin_training(self, total_steps: int) -> None:
        """Spread AdaLoRA's schedule over the optimizer steps; other methods do not have one."""
        if self._ranks is not None:
            self._ranks.begin_training(total_steps)

    def end_step(self, step: int) -> None:
        """Re-allocate AdaLoRA's ranks after the optimizer's step ``step``, from 0, before gradients are cleared."""
        if self._ranks is not None:
            self._ranks.end_step(step)

    def regularization(self) -> Tensor | float:
        """Return what AdaLoRA and the learned map add to the loss."""
        of_ranks = 0.0 if self._ranks is None else self._ranks.regularization()
        return of_ranks + (0.0 if self.projection is None else self.projection.regularization())

    def adapter_state(self) -> dict[str, Any]:
        """Return what an exact resume needs besides the weights, as plain data and tensors."""
        start = {} if self.projection is None else self.projection.start_state()
        return ({} if self._ranks is None else self._ranks.state()) | ({_MAP_START: start} if start else {})

    def load_adapter_state(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`adapter_state` returned.

        Raises:
            CheckpointError: the state is that of another method.
        """
        if self.projection is not None:
            self.projection.load_start(state.get(_MAP_START, {}))
        if self._ranks is not None:
            self._ranks.load_state({name: part for name, part in state.items() if name != _MAP_START})

    def merged(self) -> Any:
        """Return a copy of the encoder with the adapters' updates added to its weights: a plain transformers model."""
        model: Any = copy.deepcopy(self.adapted)
        if hasattr(model, "merge_and_unload"):
            model = model.merge_and_unload()
        if self.config.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        return model.eval()
