"""XLingTwoTower: items read by a multilingual encoder, users known by what they have read."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xling.data.dataset import XLingDataset
from recbole_xling.data.language_balance import LanguageBalance
from recbole_xling.data.loader import FIRST_WEIGHT, TARGET_LIST, TARGET_WEIGHT
from recbole_xling.data.parallel_texts import ParallelTexts
from recbole_xling.errors import CheckpointError, ConfigError
from recbole_xling.evaluator.streaming import Factors
from recbole_xling.model.base import WindowsConfig, XLingRecommender
from recbole_xling.model.layers.item_gate import ItemGate, ItemGateConfig
from recbole_xling.model.layers.language_embedding import language_numbers
from recbole_xling.model.layers.reader_views import ReaderViews, TrainingViews
from recbole_xling.model.layers.score_bias import ScoreBias, ScoreBiasConfig
from recbole_xling.model.layers.user_tower import UserTower, UserTowerConfig, last_states
from recbole_xling.model.loss.adversarial import AdversarialConfig, adversarial_loss
from recbole_xling.model.loss.alignment import alignment_loss
from recbole_xling.model.loss.anchor import anchor_loss
from recbole_xling.model.loss.auxiliary_tasks import ALIGNMENT, NEXT_ITEM, AuxiliaryTasks, AuxiliaryTasksConfig
from recbole_xling.model.loss.in_batch_softmax import InBatchSoftmaxConfig, in_batch_softmax, prefixes
from recbole_xling.model.loss.language_adversary import LanguageAdversary, LanguageAdversaryConfig
from recbole_xling.model.sampling.catalog_negatives import CatalogNegatives, CatalogNegativesConfig
from recbole_xling.model.sampling.hard_negatives import HardNegatives, HardNegativesConfig
from recbole_xling.model.sampling.in_batch import BatchWindows, adjust_logits, in_batch
from recbole_xling.model.sampling.met_items import MetItems
from recbole_xling.model.sampling.parallel_pairs import ParallelPairs
from recbole_xling.model.text_encoder.adapters import AdapterConfig, scale_settings
from recbole_xling.model.text_encoder.distinct_texts import DistinctTexts
from recbole_xling.model.text_encoder.encoder import TextEncoderConfig, build_encoder, check_encoder
from recbole_xling.model.text_encoder.item_texts import ItemTable, ItemTexts
from recbole_xling.utils.devices import to_device
from recbole_xling.utils.distributed import gather_rows, process

logger = logging.getLogger(__name__)

_MAP = "encoder.projection"  # the learned map, where there is one
_MAX_SCALE = 100.0  # of the inverse temperature, as in CLIP (Radford et al., ICML 2021)


class XLingTwoTowerConfig(
    TextEncoderConfig,
    UserTowerConfig,
    ScoreBiasConfig,
    ItemGateConfig,
    CatalogNegativesConfig,
    HardNegativesConfig,
    InBatchSoftmaxConfig,
    AuxiliaryTasksConfig,
    AdversarialConfig,
    LanguageAdversaryConfig,
    WindowsConfig,
):
    """All settings of XLingTwoTower."""

    section: ClassVar[str] = "objective and training"

    centering: bool = Field(True, description="Take from vectors what all texts of their language have in common.")
    temperature: float = Field(
        0.1, ge=1 / _MAX_SCALE, description="Divides the inner product of the towers; at least 0.01."
    )
    learn_temperature: bool = Field(False, description="Train it.")
    logq_correction: bool = Field(True, description="Correct in-batch candidates by how often their texts occur.")
    anchor_weight: float = Field(
        0.0, ge=0, description="Weight of the loss that keeps texts near their vectors of before the adapters."
    )
    alignment_weight: float = Field(0.0, ge=0, description="Weight of the loss that brings parallel texts together.")
    alignment_file: str | None = Field(
        None, description="Table of sentences and translations, drawn like the items' own parallel texts."
    )
    alignment_pairs: int = Field(64, ge=1, description="Pairs of parallel texts drawn with each batch.")
    train_neg_sample_args: dict[str, Any] | None = Field(
        None, description="RecBole's own negative sampling is not used."
    )
    init_adapter_from: str | None = Field(None, description="Run folder whose adapters (and projection) to start from.")
    init_user_tower_from: str | None = Field(None, description="Run folder whose user tower to start from.")
    learning_rate: float = Field(0.0003, gt=0, description="Of the adapters.")
    learning_rates: dict[str, float] | None = Field(
        {_MAP: 0.001, "user_tower": 0.001, "user_tower.pooling.recency": 0.03},
        description="Of the other parts. Where `learning_rate` is given and these are not, it is the map's as well.",
        examples=[{"user_tower": 0.001}],
    )
    train_batch_size: int = Field(512, ge=1, description="Targets per batch.")
    epochs: int = Field(60, ge=0, description="Epochs at most.")
    stopping_step: int = Field(5, ge=0, description="Patience of early stopping.")

    @classmethod
    def adjust_defaults(cls, settings: dict[str, Any], given: Mapping[str, Any]) -> None:
        """Let a ``learning_rate`` that is given count for the map; refuse settings of adapters where there are none."""
        adapters = [name for name in AdapterConfig.model_fields if given.get(name) is not None]
        if adapters and "peft" not in given and settings["peft"] == "frozen":
            raise ConfigError(f"{adapters[0]} is for adapters, and peft: frozen, the default, has none: set peft: lora")
        if "learning_rate" in given and "learning_rates" not in given and settings["learning_rates"]:
            rates = settings["learning_rates"]
            settings["learning_rates"] = {part: rates[part] for part in rates if part != _MAP}

    @model_validator(mode="after")
    def _encoder_as_it_was(self) -> XLingTwoTowerConfig:
        if self.untuned_count and self.peft == "full":
            raise ConfigError("untuned_count needs the encoder as it was, which peft=full changes: take lora")
        if self.anchor_weight and self.peft in ("frozen", "full"):
            raise ConfigError(
                f"anchor_weight keeps adapters near the encoder, but with peft={self.peft} there are none: take lora"
            )
        return self


class XLingTwoTower(XLingRecommender):
    r"""Two towers over texts: items and users have no parameters of their own, so new ones are scored like all others.

    - Item tower: a Transformer encoder of the XLM-R family, pooled, with a learned map over it or PEFT adapters
      (:class:`~recbole_xling.model.text_encoder.encoder.TextEncoder`), without what all texts of its language share
      (:class:`~recbole_xling.model.layers.language_centering.LanguageCentering`), of unit length.
    - User tower: a mean, attention or a small causal Transformer over the vectors of the history
      (:class:`~recbole_xling.model.layers.user_tower.UserTower`).
    - Score: the towers' inner product over the temperature, plus what
      :class:`~recbole_xling.model.layers.score_bias.ScoreBias` adds.
    - Training: at every position of a history, softmax over the texts of the batch in both directions
      (:func:`~recbole_xling.model.loss.in_batch_softmax.in_batch_softmax`); a distinct text is encoded once per batch.
    - Alignment: InfoNCE over parallel texts, which are drawn for each batch.

    Args:
        config: RecBole or recbole-xling configuration; :class:`XLingTwoTowerConfig` lists the keys.
        dataset: the training split.

    Raises:
        ConfigError: a setting is not allowed.
        EncoderError: the encoder cannot be loaded.
    """

    config_class: ClassVar = XLingTwoTowerConfig
    ranks_without_history = True
    optional_parts: ClassVar[tuple[str, ...]] = (_MAP,)
    warm_start_parts: ClassVar[Mapping[str, str]] = {
        "init_adapter_from": "encoder",
        "init_user_tower_from": "user_tower",
    }

    @classmethod
    def network_settings(cls, config: Any) -> list[str]:
        """Return which settings change what weights mean, but not their shapes."""
        return ["centering", *(["n_heads"] if config["user_tower"] == "transformer" else []), *scale_settings(config)]

    def __init__(self, config: Any, dataset: XLingDataset) -> None:
        super().__init__(config, dataset)
        settings = XLingTwoTowerConfig.of(config)
        self.seed: int = config["seed"]
        self.anchor_weight = settings.anchor_weight
        self._n_heads = settings.n_heads if settings.user_tower == "transformer" else None
        self._lora_alpha = settings.lora_alpha if scale_settings(config) else None
        self.autocast: bool = bool(config["enable_amp"])
        self.adversarial: AdversarialConfig = settings
        self.encoder = build_encoder(config)
        settings.check_sizes(self.encoder.size)
        self.hardness, self.sizes = settings.hardness, tuple(settings.matryoshka_sizes or ())
        self.score_size = settings.score_size or self.encoder.size
        trains = len(dataset.inter_feat) > 0  # and does not only rank another dataset
        aligns = settings.alignment_weight and trains
        parallel = ParallelTexts.of(dataset.catalog, settings.alignment_file) if aligns else None
        self.views, self.training_views = ReaderViews(dataset), TrainingViews(dataset)
        n_views = self.views.number, self.training_views.number
        further, centering = parallel.texts if parallel else (), settings.centering
        self.texts = ItemTexts(dataset.catalog, self.encoder.tokenize, n_views, further, centering=centering)
        self.pairs = ParallelPairs(parallel, self.texts.further, settings.alignment_pairs) if parallel else None
        self.register_buffer("user_language", language_numbers(dataset.readers.stated), persistent=False)
        self.score_bias = ScoreBias(config, dataset, by_text=True)
        balance = LanguageBalance(config, dataset)
        n_batches = max(1.0, int(balance.targets.sum()) / settings.train_batch_size)
        counts, chance = self.training_views.train_counts(dataset), self.training_views.chance  # (n_views, n_items)
        occurs = self.training_views.train_counts(dataset, balance.shown)  # (n_views, n_items)
        units, prior, by_chance = self.texts.trained, self.score_bias.prior, chance is not None
        frozen = settings.peft == "frozen"
        self.catalog_negatives = CatalogNegatives(settings, counts, units.of_item, frozen=frozen, by_chance=by_chance)
        correction, rate = n_batches if settings.logq_correction else None, self.catalog_negatives.rate
        logit_adjustment = adjust_logits(units.of_item, units.number, counts, prior, correction, chance, rate, occurs)
        self.register_buffer("logit_adjustment", logit_adjustment, persistent=False)
        met = (counts > 0) & (True if chance is None else chance > 0)  # (n_views, n_items)
        others = {NEXT_ITEM: 1.0, ALIGNMENT: settings.alignment_weight}
        self.tasks = AuxiliaryTasks(settings, dataset, self.encoder.size, others)
        self.language_adversary: LanguageAdversary | None = None
        if settings.language_adversary_weight:
            shown = self.texts.languages_of(units.texts_of(torch.unique(units.of_item[met]))) if trains else None
            self.language_adversary = LanguageAdversary(self.encoder.size, settings.language_adversary_weight, shown)
        self.user_tower = UserTower(
            self.encoder.size,
            self.max_seq_length,
            settings,
            item_languages=self.texts.trained_language[met],
            user_languages=self.user_language[dataset.inter_feat[self.USER_ID]],
        )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(settings.temperature)))
        self.log_scale.requires_grad_(settings.learn_temperature)
        # a window may show a part of what its user has met in training: the rest is looked up
        most = min(self.max_seq_length, settings.train_batch_size)
        whole = int(dataset.segments.n_targets.max(initial=0)) <= most and not dataset.states_histories
        whole &= not (settings.history_crop or settings.history_mask)
        mines = settings.hard_negatives and trains
        self._mines_in_vain = bool(mines and self.catalog_negatives.are_all)
        mines = mines and not self._mines_in_vain
        met_items = MetItems(dataset) if trains and (mines or not whole) else None
        self.met_items = None if whole else met_items
        languages, of_user = self.texts.item_language, self.views.of_user
        self.hard_negatives = (
            HardNegatives(config, dataset, languages, of_user, met_items) if met_items and mines else None
        )
        self._step = self._draws = 0
        self._table = ItemTable(self.texts, self.encoder.forward, autocast=self.autocast)
        self.untuned_count = settings.untuned_count
        self.gate: ItemGate | None = None
        if self.untuned_count:
            untuned = ItemTable(self.texts, self.encoder.untuned)
            item_counts = torch.from_numpy(dataset.train_item_counts)
            self.gate = ItemGate(item_counts, settings, untuned, self.user_tower.of_other_vectors)

    @classmethod
    def bound_to_data(cls, config: Any) -> list[str]:
        """Return an empty list: the weights belong to texts and languages, which every dataset has."""
        return []

    @property
    def scale(self) -> Tensor:
        """The inverse temperature, at most 100."""
        return self.log_scale.exp().clamp(max=_MAX_SCALE)

    # ---- training ---------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Return the loss of a batch of windows: that of its positions, and that of the parallel texts drawn for it.

        Args:
            interaction: users ``(B,)``, their histories ``(B, L)``, and for each position the target and its weight,
                as :class:`~recbole_xling.data.loader.WindowLoader` makes them. Under several processes each has its
                share of the batch; all of them return the loss of the whole batch.
        """
        self._table.clear()
        users, item_seq = interaction[self.USER_ID], interaction[self.ITEM_SEQ]  # (B,), (B, L)
        target, weight = interaction[TARGET_LIST], interaction[TARGET_WEIGHT]  # (B, L)
        self._draws += 1
        batch = self.seed, self._step, self._draws
        drawn_views = self.training_views.draw(*batch)  # of items, on the CPU
        seen, scored = (None if view is None else to_device(view, item_seq.device) for view in drawn_views)
        units_of = self.texts.trained.of
        view, in_history = self.training_views.seen(users, item_seq, seen), item_seq > 0  # (B, L) each
        read = units_of(item_seq, view)  # (B, L)
        history = units_of(item_seq, self.training_views.seen(users, item_seq, scored))  # (B, L), as candidates
        target = units_of(target, self.training_views.seen(users, target, scored))  # (B, L)
        inputs, trained = in_history.nonzero(as_tuple=True), weight.nonzero(as_tuple=True)  # looked up once
        chosen = [history[inputs], target[trained]]
        if self.hard_negatives:
            negative = self.hard_negatives.items[users]  # (B, hard_negatives)
            chosen.append(units_of(negative, self.training_views.seen(users, negative, scored))[negative > 0])
        drawn = to_device(self.catalog_negatives.draw(drawn_views[1], *batch), item_seq.device)  # (K,)
        chosen.append(drawn[process()[0] :: process()[1]])  # all processes draw alike, and each encodes its share
        candidates = torch.unique(torch.cat(chosen))  # (C,)
        present = torch.unique(torch.cat([candidates, read[inputs]]))  # (V,)
        drawn_pairs = self.pairs.draw(*batch) if self.pairs else ()
        pairs = [to_device(part, item_seq.device) for part in drawn_pairs]  # two texts and the item of each, (P,)

        own = self.texts.trained.texts_of(present)
        texts = torch.unique(torch.cat([own, *pairs[:2]])) if pairs else own  # (U,)
        pooled = self.encoder.pooled_together(self.texts.tokens, texts)  # (U, H)
        encoded = DistinctTexts(texts, self.encoder.project(pooled))  # (U, D)
        centered = self.texts.centered(encoded, own)  # (U, D)
        units = DistinctTexts(present, self.texts.trained.vectors(present, centered))  # (V, D)

        met = [(inputs[0], item_seq[inputs]), (trained[0], interaction[TARGET_LIST][trained])]  # windows, items
        met += [self.met_items.of(users)] if self.met_items is not None else []
        windows_met, items_met = (torch.cat(parts) for parts in zip(*met, strict=True))  # (M,)
        same, same_met = self.texts.trained.same, self.texts.trained.same_of_item[items_met]
        user_language = self.user_language[users]  # (B,)
        candidate_vectors = DistinctTexts(candidates, units.look_up(candidates))  # (C, D)

        def match(items: Tensor) -> Tensor:  # (B, L, D)
            states = self.user_tower(items, self.texts.trained_language[view, item_seq], user_language)  # (B, L, D)
            windows = BatchWindows(
                states=states,
                empty=self.user_tower.empty(user_language),  # (B, D)
                empty_weight=interaction[FIRST_WEIGHT],
                history=history,
                inputs=inputs,
                target=target,
                weight=weight,
                trained=trained,
            )
            own = windows_met, same_met
            whole = in_batch(windows, candidate_vectors, self.logit_adjustment, same, drawn, own)
            of_target = self.tasks(states[trained], interaction[TARGET_LIST][trained], weight[trained])
            of_batch = gather_rows(of_target[None]).mean()  # each process has counted its own windows
            loss = in_batch_softmax(whole, self.scale, self.hardness, self.sizes)
            return self.tasks.weighed(NEXT_ITEM, loss) + of_batch

        loss = self.tasks.penalty() + adversarial_loss(self.adversarial, match, units.look_up(read, in_history))
        return loss + self._loss_of_texts(DistinctTexts(texts, pooled), encoded, centered, pairs)

    def _loss_of_texts(
        self, pooled: DistinctTexts, encoded: DistinctTexts, centered: DistinctTexts, pairs: list[Tensor]
    ) -> Tensor | float:
        """Return what is asked of the vectors of the batch's texts, whoever chose them.

        Args:
            pooled: vectors of before the learned map, ``(U, H)``.
            encoded: of after it, ``(U, D)``.
            centered: without what all texts of their language have in common, ``(U, D)``.
            pairs: two parallel texts and the item of each, ``(P,)``; empty for no alignment.
        """
        loss: Tensor | float = 0.0
        if pairs:
            first, second = (gather_rows(encoded.look_up(side)) for side in pairs[:2])  # (P, D)
            item = gather_rows(pairs[2])
            parts = prefixes(first, second, sizes=self.sizes)
            aligned = [alignment_loss(one, other, item, self.scale, self.hardness) for one, other in parts]
            loss = loss + self.tasks.weighed(ALIGNMENT, torch.stack(aligned).mean())
        if self.anchor_weight:
            untuned = self.encoder.untuned(self.texts.tokens, pooled.texts)  # (U, H)
            loss = loss + self.anchor_weight * anchor_loss(pooled.texts, pooled.vectors, untuned)
        if self.language_adversary is not None:
            language = self.texts.languages_of(centered.texts)  # (U,)
            loss = loss + self.language_adversary(centered.vectors, language, self._step, centered.texts)
        return loss + self.encoder.regularization()

    # ---- hooks, called by the trainer -------------------------------------------------------------------------------

    def begin_training(self, total_steps: int, step: int) -> None:
        """Prepare for optimizer steps, ``step`` of which are done."""
        self._step = step
        if self.language_adversary is not None:
            self.language_adversary.total_steps = total_steps
        with torch.autocast(device_type=self.log_scale.device.type, enabled=self.autocast):
            self.encoder.start_projection(self.texts.tokens)
        self.encoder.begin_training(total_steps)
        if self._mines_in_vain:
            logger.warning("hard_negatives change nothing: each batch has all items of training (catalog_negatives)")
        if self.hard_negatives and step == 0:
            self._draw_hard_negatives(self.hard_negatives, -1)

    def end_step(self, step: int) -> None:
        """Follow an optimizer step, before the gradients are cleared."""
        self.encoder.end_step(step)
        self._step, self._draws = step + 1, 0

    def _place_cold_items(self) -> None:
        as_new = [] if self.gate is None else [self.gate.as_new]
        self.score_bias.calibrate(self.full_sort_predict, *as_new)

    def follow_settings(self, before: Mapping[str, Any]) -> None:
        """Set the offset of cold items again where other settings of scores are given than training had."""
        self.score_bias.follow_settings(before, self._place_cold_items)

    def end_epoch(self, epoch: int) -> None:
        """Set the offset of cold items by what training users are shown, and resample hard negatives."""
        if process()[1] > 1:  # all are here, as they need not be later
            self._table(0, self._version, together=True)
        self._place_cold_items()
        if self.hard_negatives and self.hard_negatives.due(epoch):
            self._draw_hard_negatives(self.hard_negatives, epoch)

    @torch.no_grad()
    def _draw_hard_negatives(self, negatives: HardNegatives, epoch: int) -> None:
        training = self.training
        self.eval()
        negatives.draw(lambda rows: self.views.scores(rows.to(self.device), self._matches), epoch)
        self.train(training)

    # ---- scoring ----------------------------------------------------------------------------------------------

    def forward(
        self, item_seq: Tensor, item_seq_len: Tensor, user_language: Tensor, table: Tensor, view: int = 0
    ) -> Tensor:
        """Return the user after the whole history.

        Args:
            item_seq: ``(B, L)`` item ids, oldest first, padded with 0 on the right.
            item_seq_len: ``(B,)`` their number; 0 for a user without a history.
            user_language: ``(B,)`` language numbers.
            table: ``(n_items, D)`` item vectors.
            view: of the users.

        Returns:
            ``(B, D)`` of unit length.
        """
        item_seq = item_seq[:, : max(1, int(item_seq_len.max()))]
        states = self.user_tower(table[item_seq], self.texts.item_language[view][item_seq], user_language)  # (B, L, D)
        return torch.where(
            item_seq_len[:, None] > 0, last_states(states, item_seq_len), self.user_tower.empty(user_language)
        )

    @classmethod
    def idle_settings(cls, config: Any) -> list[str]:
        """Return what no popularity in scores leaves without effect."""
        return [] if XLingTwoTowerConfig.of(config).has_prior(by_text=True) else ["popularity_weight"]

    @torch.no_grad()
    def item_table(self, view: int = 0) -> Tensor:
        """Return the vectors of all items in a view by which they are scored, ``(n_items, score_size)``."""
        return self._cut(self._table(view, self._version))

    @torch.no_grad()
    def language_means(self) -> Tensor | None:
        """Return what is taken from the vectors of texts of each language, ``(languages, D)``; None for nothing."""
        return self._table.means(self._version)

    @property
    def _version(self) -> object:
        """The version of the weights; in training no vectors are kept."""
        return object() if self.training else tuple(weight._version for weight in self.encoder.parameters())

    @torch.no_grad()
    def _towers(self, rows: Interaction, view: int) -> tuple[Tensor, Tensor]:
        """Return users of one view and all items, ``(B, D)`` and ``(n_items, D)``, whose inner products are matches."""
        history = rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN]
        items = self._table(view, self._version)
        users = self._cut(self.forward(*history, self.user_language[rows[self.USER_ID]], items, view))
        items = self._cut(items)
        return (users, items) if self.gate is None else self.gate(users, items, view, *history)

    def _cut(self, vectors: Tensor) -> Tensor:
        """Return the dimensions that scores use, of unit length, ``(n, score_size)``."""
        cut = self.score_size < vectors.shape[1]
        return F.normalize(vectors[:, : self.score_size], dim=-1) if cut else vectors

    def predict(self, interaction: Interaction) -> Tensor:
        """Score one given item per history, ``(B,)``."""

        def score(rows: Interaction, view: int) -> Tensor:
            (users, items), item = self._towers(rows, view), rows[self.ITEM_ID]
            weight = self.score_bias.weight(rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN])
            scores = self.scale * (users * items[item]).sum(dim=-1) + weight[:, 0] * self.score_bias()[item]
            return scores.masked_fill(item == 0, float("-inf"))

        return self.views.scores(interaction, score)

    def factors(self, interaction: Interaction) -> list[tuple[Tensor, Factors]]:
        """Return users over the temperature, item vectors and the bias of scores, for the rows of each view."""
        return self.views.factors(interaction, self._scored)

    def _scored(self, rows: Interaction, view: int) -> Factors:
        users, items = self._towers(rows, view)
        weight = self.score_bias.weight(rows[self.ITEM_SEQ], rows[self.ITEM_SEQ_LEN])
        return Factors(users * self.scale, items, self.score_bias(), weight)

    def known_items(self) -> Tensor | None:
        """Return the items by which histories tell how much popularity counts."""
        return self.score_bias.known

    @torch.no_grad()
    def history_vectors(self, view: int = 0) -> Tensor:
        """Return the vectors of all items, beside them those of the untuned encoder where the gate needs them."""
        items = self._table(view, self._version)
        return items if self.gate is None else torch.cat([items, self.gate.untuned(view)], dim=1)

    @torch.no_grad()
    def vectors_of_texts(
        self, texts: Sequence[str], languages: Sequence[str], encode: Callable[[Sequence[str]], Tensor]
    ) -> Tensor:
        """Return vectors of new texts as :meth:`history_vectors` has them; the model reads them itself."""
        tokens, numbers = self.encoder.tokenize(texts), language_numbers(languages).to(self.log_scale.device)
        items = self._table.of_new(tokens, numbers, self._version)
        return items if self.gate is None else torch.cat([items, self.gate.untuned.of_new(tokens, numbers)], dim=1)

    def vectors_of_items(
        self,
        texts: Sequence[Sequence[str]],
        languages: Sequence[Sequence[str]],
        encode: Callable[[Sequence[str]], Tensor],
    ) -> Tensor:
        """Return vectors of new items: of several texts the mean, of unit length."""
        flat = [text for of_item in texts for text in of_item], [tag for tags in languages for tag in tags]
        own = self.vectors_of_texts(*flat, encode)
        item = torch.tensor([place for place, of_item in enumerate(texts) for _ in of_item], device=own.device)
        total = own.new_zeros(len(texts), own.shape[1]).index_add_(0, item, own)
        parts = total.split([self.encoder.size, own.shape[1] - self.encoder.size], dim=1)
        return torch.cat([F.normalize(part, dim=-1) for part in parts], dim=1)

    def scores_of_new(self) -> tuple[int, float] | None:
        """Return the bias of cold items, and that the untuned encoder alone scores them if there is a gate.

        With ``score_size`` new items are not scored: their vectors are whole.
        """
        if self.score_size < self.encoder.size:
            return None
        return (0 if self.gate is None else self.encoder.size), float(self.score_bias.cold_offset)

    def user_of_vectors(
        self, items: Tensor, item_seq_len: Tensor, item_language: Tensor, user_language: Tensor
    ) -> Tensor:
        """Return users over the temperature by the vectors of histories, ``(B, D)``, with the gate ``(B, D + H)``."""
        tuned = items[:, :, : self.encoder.size]
        states = self.user_tower(tuned, item_language, user_language)  # (B, L, D)
        has_history = item_seq_len[:, None] > 0
        users = torch.where(has_history, last_states(states, item_seq_len), self.user_tower.empty(user_language))
        users = self._cut(users)
        if self.gate is not None:
            others = self.gate.pooled(items[:, :, self.encoder.size :], item_seq_len)
            users = torch.cat([users, others], dim=1)
        return users * self.scale

    @torch.no_grad()
    def attention_of_vectors(self, items: Tensor, item_seq_len: Tensor, item_language: Tensor) -> Tensor:
        """Return how much the last position of the user tower makes of each item, ``(B, L)``."""
        found = self.user_tower.attention(items[:, :, : self.encoder.size], item_language)
        return last_states(found, item_seq_len)

    def _matches(self, rows: Interaction, view: int) -> Tensor:
        """Return how well each item matches users of one view, ``(B, n_items)``, its popularity left out."""
        users, items = self._towers(rows, view)
        return users @ items.T

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def other_parameter(self) -> dict[str, Any]:
        """Return what a checkpoint keeps besides weights: the base encoder, the adapters' state, hard negatives."""
        negatives = self.hard_negatives.items if self.hard_negatives else None
        return {
            "encoder": self.encoder.identity,
            "adapters": self.encoder.adapter_state(),
            "hard_negatives": negatives,
            "untuned_count": self.untuned_count,
            "n_heads": self._n_heads,
            "lora_alpha": self._lora_alpha,
        }

    def check_warm_start(self, part: str, other_parameter: Mapping[str, Any]) -> None:
        """Check that the weights of an earlier run fit.

        Args:
            part: ``encoder`` or ``user_tower``.
            other_parameter: what the earlier run's :meth:`other_parameter` returned.

        Raises:
            CheckpointError: adapters were trained on another base encoder or at another scale, or the tower has another
                number of heads.
        """
        if part == "encoder":
            check_encoder(self.encoder, other_parameter["encoder"])
            then = other_parameter.get("lora_alpha")
            if None not in (then, self._lora_alpha) and then != self._lora_alpha:
                raise CheckpointError(f"the adapters were trained with lora_alpha={then}, not {self._lora_alpha}")
        elif (then := other_parameter.get("n_heads", self._n_heads)) != self._n_heads:
            raise CheckpointError(f"the user tower was trained with n_heads={then}, not {self._n_heads}")

    def load_other_parameter(self, para: dict[str, Any]) -> None:
        """Restore what :meth:`other_parameter` returned.

        Raises:
            CheckpointError: the weights were trained on another base encoder, or cold items placed with another gate.
        """
        check_encoder(self.encoder, para["encoder"])
        if (count := para.get("untuned_count", 0.0)) != self.untuned_count:
            raise CheckpointError(
                f"the run placed cold items with untuned_count={count:g}, which fits no other: train with "
                f"untuned_count={self.untuned_count:g}"
            )
        self.encoder.load_adapter_state(para["adapters"])
        if self.hard_negatives and para["hard_negatives"] is not None:
            drawn = para["hard_negatives"]
            self.hard_negatives.items[: len(drawn)] = drawn  # users that training did not have get none
