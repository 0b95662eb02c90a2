"""XLingCrossEncoder: an encoder that reads a history and a candidate together, and says bought or not bought."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import chain
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.config import EncodingConfig
from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.loader import TARGET_LIST, TARGET_WEIGHT
from recbole_xling.errors import ConfigError
from recbole_xling.model.base import WindowsConfig, XLingRecommender
from recbole_xling.model.layers.reader_views import ReaderViews, TrainingViews
from recbole_xling.model.sampling.target_negatives import TargetNegatives
from recbole_xling.model.text_encoder.adapters import AdapterConfig, Method, scale_settings
from recbole_xling.model.text_encoder.encoder import POOLING, build_encoder, check_encoder
from recbole_xling.model.text_encoder.pair_texts import PairTexts
from recbole_xling.model.text_encoder.tokens import TokenizedTexts, length_buckets
from recbole_xling.utils.devices import to_device

logger = logging.getLogger(__name__)

_PAIRS_AT_ONCE = 1 << 13  # of which those of about one length are encoded together
_MEASURED_HISTORIES = 1000


class XLingCrossEncoderConfig(AdapterConfig, EncodingConfig, WindowsConfig):
    """All settings of XLingCrossEncoder."""

    section: ClassVar[str] = "pairs and training"

    encoder: str = Field("intfloat/multilingual-e5-small", description="Model of the Hugging Face hub, or a folder.")
    encoder_max_length: int = Field(256, ge=8, description="Longest pair in tokens: history and candidate.")
    text_max_length: int = Field(32, ge=1, description="Longest text of an item in tokens.")
    pooling: Literal["mean", "cls", "last"] = Field("mean", description="From token vectors to a pair's vector.")
    reader_vectors: Literal["reader"] = Field(
        "reader", description="Under `text_view: reader` a pair has the text of an item that its user sees."
    )
    train_text_view: Literal["own", "reader", "random"] = Field(
        "own", description="Which text of an item training sees, as for all models; a pair cannot show several."
    )
    peft: Method = Field("lora", description="Which weights of the encoder are trained.")
    pair_loss: Literal["softmax", "binary"] = Field(
        "softmax", description="The target among its negatives, or each pair by itself."
    )
    train_negatives: int = Field(4, ge=1, description="Items drawn for each target that were not bought.")
    hard_negatives: int = Field(
        0, ge=0, description="Further ones from the 100 items nearest to the user's history by the frozen encoder."
    )
    train_neg_sample_args: dict[str, Any] | None = Field(
        None, description="RecBole's own negative sampling is not used."
    )
    max_ranked_pairs: int = Field(
        1_000_000, ge=1, description="Most pairs of a history and an item to score where all items are ranked."
    )
    mini_batch_size: int = Field(16, ge=1, description="Pairs encoded at a time in training; peak memory follows it.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations inside of the layers as well.")
    learning_rate: float = Field(0.0003, gt=0, description="Of the adapters.")
    learning_rates: dict[str, float] | None = Field(
        {"head": 0.001}, description="Of the other parts.", examples=[{"head": 0.001}]
    )
    train_batch_size: int = Field(32, ge=1, description="Targets per batch, each with its negatives.")
    epochs: int = Field(3, ge=0, description="Epochs at most.")
    stopping_step: int = Field(2, ge=0, description="Patience of early stopping.")


class XLingCrossEncoder(XLingRecommender):
    r"""A Transformer encoder that reads the texts of a history and of a candidate as one sequence, with one score.

    The newest texts of the history come first, as many as fit (:class:`PairTexts`); the pooled states of the pair go
    through a linear layer. So every word of the candidate can attend to every word of the history, which the towers of
    :class:`~recbole_xling.model.xlingtwotower.XLingTwoTower` cannot do, and every pair costs a pass of the encoder.

    - Pairs and the ``binary`` loss: monoBERT (Nogueira and Cho, "Passage Re-ranking with BERT", arXiv:1901.04085).
    - The ``softmax`` over a target and its negatives: localized contrastive estimation (Gao, Dai and Callan, "Rethink
      Training of BERT Rerankers in Multi-Stage Retrieval Pipeline", ECIR 2021).

    There is nothing but texts: new items, users and languages are scored like all others.

    Args:
        config: RecBole or recbole-xling configuration; :class:`XLingCrossEncoderConfig` lists the keys.
        dataset: the training split.

    Raises:
        ConfigError: a setting is not allowed, or two texts do not fit into one pair.
        EncoderError: the encoder cannot be loaded.
    """

    config_class: ClassVar = XLingCrossEncoderConfig
    ranks_without_history = True
    trains_on_host = True
    scores_pairs = True

    @classmethod
    def network_settings(cls, config: Any) -> list[str]:
        """Return which settings change what weights mean, but not their shapes."""
        return scale_settings(config)

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        settings = XLingCrossEncoderConfig.of(config)
        self.seed: int = config["seed"]
        self.pair_loss, self.max_ranked_pairs = settings.pair_loss, settings.max_ranked_pairs
        self.autocast: bool = bool(config["enable_amp"])
        self.encoder = build_encoder({**settings.model_dump(), "embedding_size": None, "lower_layer_cache_gb": 0.0})
        self.head = nn.Linear(self.encoder.hidden_size, 1)
        catalog = dataset.catalog
        self.views, self.training_views = ReaderViews(dataset), TrainingViews(dataset)
        self._trained_view = self.training_views.of_user  # (n_users,), stays on the CPU as batches do
        views = catalog.texts_of_views + (catalog.training_views.texts if catalog.training_views else [])
        lengths = (settings.encoder_max_length, settings.text_max_length)
        self.pairs = PairTexts([*chain.from_iterable(views)], self.encoder.tokenizer, *lengths, settings.encoder_prompt)
        if settings.text_max_length > self.pairs.most_tokens:
            raise ConfigError(
                f"encoder_max_length {settings.encoder_max_length} has room for two texts of {self.pairs.most_tokens} "
                f"tokens, not of text_max_length {settings.text_max_length}: raise the one or lower the other"
            )
        self.text_row = self.pairs.text_of_row.view(len(views), -1)  # (n_views, n_items), on the CPU like the tokens
        trains = len(dataset.inter_feat) > 0  # and does not only rank another dataset
        self.negatives = TargetNegatives(dataset, settings.train_negatives, settings.hard_negatives) if trains else None
        self._step = self._draws = 0
        if trains:
            self._report_fit(dataset)

    @classmethod
    def bound_to_data(cls, config: Any) -> list[str]:
        """Return an empty list: the weights belong to texts, which every dataset has."""
        return []

    @torch.no_grad()
    def _report_fit(self, dataset: XLingDataset) -> None:
        """Log how much of the histories the pairs have room for."""
        rows = dataset.last_histories(_MEASURED_HISTORIES)
        item_seq, length = rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN]
        if len(length):
            history = self._history(item_seq, length, self.views.of_user[rows[self.USER_ID]][:, None])
            n_fitting = self.pairs.fitting(history, history[:, 0]).sum(dim=1)
            logger.info(
                "Pairs of at most %d tokens have room for %.1f of the %.1f newest texts of a history on average",
                *(self.encoder.config.encoder_max_length, n_fitting.float().mean(), length.float().mean()),
            )

    def _history(self, item_seq: Tensor, length: Tensor, view: Tensor) -> Tensor:
        """Return the numbers of the texts of histories, the newest first, -1 behind the oldest, ``(B, L)``.

        Args:
            item_seq: ``(B, L)`` items, the oldest first.
            length: ``(B,)`` of the histories.
            view: in which the items are seen, ``(B, L)`` or ``(B, 1)``.
        """
        place = length[:, None] - 1 - torch.arange(max(1, int(length.max()) if len(length) else 1))  # (B, L)
        text = self.text_row[view, item_seq].gather(1, place.clamp_min(0))
        return text.masked_fill(place < 0, -1)

    def forward(self, history: Tensor, candidate: Tensor) -> Tensor:
        """Score pairs, those of about one length together.

        Args:
            history: numbers of texts, the newest first, -1 for none, ``(N, L)``, on the CPU.
            candidate: ``(N,)``.

        Returns:
            Logits, ``(N,)``.
        """
        tokens = self.pairs.pairs(history, candidate)
        if self.encoder.config.peft == "frozen":
            pooled = self._frozen(tokens)
        else:
            pooled = self.encoder.pooled(tokens, torch.arange(tokens.n_texts))  # (N, H)
        with torch.autocast(self.device.type, enabled=False):  # in 8 bits most candidates would score alike
            logits: Tensor = self.head(pooled.float()).squeeze(-1)
        return logits

    @torch.no_grad()
    def _frozen(self, tokens: TokenizedTexts) -> Tensor:
        """Return pooled states of a frozen encoder, ``(N, H)``: of pairs, unlike texts, nothing is kept."""
        config = self.encoder.config
        pooled = torch.empty(tokens.n_texts, self.encoder.hidden_size, device=self.device)
        for bucket in length_buckets(tokens.length, config.encoder_batch_size, self.device):
            inputs, mask = (to_device(part, self.device) for part in tokens.batch(bucket))  # (n, T) each
            states = self.encoder.transformer(input_ids=inputs, attention_mask=mask).last_hidden_state
            pooled[to_device(bucket, self.device)] = POOLING[config.pooling](states.float(), mask)
        return pooled

    # ---- training ---------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return the loss of the positions of a batch of windows, summed with their weights.

        Args:
            interaction: users ``(B,)``, their histories ``(B, L)``, and for each position the target and its weight,
                as :class:`~recbole_xling.data.loader.WindowLoader` makes them.
        """
        assert self.negatives is not None
        fields = (self.USER_ID, self.ITEM_SEQ, TARGET_LIST, TARGET_WEIGHT)
        users, item_seq, target, weight = (interaction[field].cpu() for field in fields)
        self._draws += 1
        batch = (self.seed, self._step, self._draws)
        row, step = torch.nonzero(weight > 0, as_tuple=True)  # (N,) each
        users, item_seq, target = users[row], item_seq[row], target[row, step]
        negative, wrong = self.negatives.draw(users, target, *batch)  # (N, n)
        candidate = torch.cat([target[:, None], negative], dim=1)  # (N, 1 + n)
        shown = F.pad(wrong, (1, 0), value=True)  # (N, 1 + n)

        views, first = self.training_views, self.training_views.first
        seen, scored = views.draw(*batch)
        of_user = self._trained_view[users][:, None]  # (N, 1)
        history = self._history(item_seq, step + 1, first + (of_user if seen is None else seen[item_seq]))  # (N, L)
        text = self.text_row[first + (of_user if scored is None else scored[candidate]), candidate]  # (N, 1 + n)
        shown[:, 1:] &= (text[:, 1:] != text[:, :1]).cpu()  # two items of one text are the same to this model
        pair, _ = torch.nonzero(shown, as_tuple=True)
        text, weight = text[shown], to_device(weight[row, step], self.device)
        shown = to_device(shown, self.device)
        logits = shown.new_full(shown.shape, float("-inf"), dtype=torch.float32)
        logits = logits.masked_scatter(shown, self.forward(history[pair], text))
        loss = (self._losses(logits, shown) * weight).sum()
        return loss + self.encoder.regularization()

    def _losses(self, logits: Tensor, shown: Tensor) -> Tensor:
        """Return the loss of each target, ``(N,)``, given logits of it and of its negatives, ``(N, 1 + n)``."""
        is_target = torch.zeros_like(shown, dtype=torch.float32)
        is_target[:, 0] = 1
        if self.pair_loss == "softmax":
            return -logits.log_softmax(dim=1)[:, 0]
        each = F.binary_cross_entropy_with_logits(logits.masked_fill(~shown, 0), is_target, reduction="none")
        return (each * shown).sum(dim=1) / shown.sum(dim=1)

    # ---- hooks, called by the trainer and the run loop ----------------------------------------------------------

    def begin_training(self, total_steps: int, step: int) -> None:
        """Prepare for optimizer steps, ``step`` of which are done."""
        self._step = step
        if self.negatives is not None:
            self.negatives.prepare()
        self.encoder.begin_training(total_steps)

    def end_step(self, step: int) -> None:
        """Follow an optimizer step, before the gradients are cleared."""
        self.encoder.end_step(step)
        self._step, self._draws = step + 1, 0

    def check_full_ranking(self, n_rows: int) -> None:
        """Log what ranking all items for so many rows costs, and refuse what is more than the settings allow.

        Raises:
            ConfigError: there are more than ``max_ranked_pairs`` pairs.
        """
        n_items = self.n_items - 1
        cost = f"{n_rows:,} histories x {n_items:,} items = {n_rows * n_items:,} passes of the encoder"
        if n_rows * n_items > self.max_ranked_pairs:
            raise ConfigError(
                f"ranking all items takes {cost}, more than max_ranked_pairs ({self.max_ranked_pairs:,}).\n"
                "Rank few candidates: sampled ones (eval_args={mode: uni100}), those of another run (fuse --method\n"
                "rerank) or of impressions (evaluate --impressions); or set valid_users, eval_step: 0, max_ranked_pairs"
            )
        logger.info("Ranking all items: %s", cost)

    # ---- scoring ----------------------------------------------------------------------------------------------

    def predict(self, interaction: Interaction) -> Tensor:
        """Score one given item per history, ``(B,)``."""
        item = interaction[self.ITEM_ID]
        rows = torch.arange(len(item))
        return self._score(interaction, rows, item.cpu()).masked_fill(item == 0, float("-inf"))

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Score all items per history, ``(B, n_items)``; the padding item gets minus infinity."""
        n_rows, n_items = len(interaction), self.n_items - 1
        rows = torch.arange(n_rows).repeat_interleave(n_items)
        items = torch.arange(1, self.n_items).repeat(n_rows)
        scores = self._score(interaction, rows, items).view(n_rows, n_items)
        return F.pad(scores, (1, 0), value=float("-inf"))

    def _score(self, interaction: Interaction, rows: Tensor, items: Tensor) -> Tensor:
        """Score pairs of rows of a batch and items, ``(N,)`` each, some thousand at a time."""
        item_seq, length = interaction[self.ITEM_SEQ].cpu(), interaction[self.ITEM_SEQ_LEN].cpu()
        view = torch.zeros(len(length), dtype=torch.long)
        if self.views.number > 1:  # otherwise rows need no users
            view = self.views.of_user[interaction[self.USER_ID]].cpu()
        history = self._history(item_seq, length, view[:, None])  # (B, L)
        candidate = self.text_row[view[rows], items]  # (N,)
        with torch.autocast(device_type=self.device.type, enabled=self.autocast):
            parts = [
                self.forward(history[row], text)
                for row, text in zip(rows.split(_PAIRS_AT_ONCE), candidate.split(_PAIRS_AT_ONCE), strict=True)
            ]
        return torch.cat(parts)

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def other_parameter(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides weights: the base encoder and the adapters' state."""
        return {"encoder": self.encoder.identity, "adapters": self.encoder.adapter_state()}

    def load_other_parameter(self, para: Mapping[str, Any]) -> None:
        """Restore what :meth:`other_parameter` returned.

        Raises:
            CheckpointError: the weights were trained on another base encoder.
        """
        check_encoder(self.encoder, para["encoder"])
        self.encoder.load_adapter_state(para["adapters"])
