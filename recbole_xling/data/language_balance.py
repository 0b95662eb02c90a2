"""Languages of training rows: training on some of them alone, and balancing large ones with small ones."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recbole_xling.data.catalog import catalog_of
from recbole_xling.data.mixin import take_rows
from recbole_xling.data.sequences import IntArray, TrainingWindows, mean_after_reordering, windows_of_places
from recbole_xling.errors import DataError

FloatArray = NDArray[np.float64]


class RowLanguages:
    """The language of a row, which is a user and the item to predict: that of the reader, or that of the item.

    A reader's language is the stated one, else the main one of the user's training interactions, so that no row of
    validation or test decides to which language it belongs. An item's language is the one in which the user sees it.

    Args:
        train: the training split.
        of: ``reader`` or ``target``.

    Attributes:
        names: the languages, ``und`` where unknown.
    """

    def __init__(self, train: Any, of: str) -> None:
        self._readers = catalog_of(train).readers([str(token) for token in train.field2id_token[train.uid_field]])
        self._of_user: IntArray | None = None
        self.names: tuple[str, ...] = self._readers.names
        if of == "reader":
            languages = self._readers.languages(*train.training_pairs())
            self.names = tuple(sorted(set(languages)))
            self._of_user = np.searchsorted(self.names, languages)

    def of(self, users: IntArray, items: IntArray) -> IntArray:
        """Return the language of each row as its place in :attr:`names`, ``(n,)`` like both arguments."""
        return self._readers.seen(users, items) if self._of_user is None else self._of_user[users]

    def within(self, users: IntArray, items: IntArray, languages: Sequence[str]) -> NDArray[np.bool_]:
        """Return which rows are of some languages, ``(n,)``."""
        return np.isin(np.array(self.names), languages)[self.of(users, items)]


def rows_of_languages(part: Any, languages: Sequence[str], known: RowLanguages) -> Any:
    """Return a part of a split with the rows of some languages.

    Raises:
        DataError: it has none.
    """
    users, items = (part.inter_feat[field].numpy() for field in (part.uid_field, part.iid_field))
    kept = known.within(users, items, languages)
    if len(kept) and not kept.any():
        found = sorted({known.names[number] for number in np.unique(known.of(users, items))})
        raise DataError(
            f"languages {list(languages)}: a part of '{part.dataset_name}' has no row of them; its languages are "
            f"{', '.join(found)} (language_of says whose; languages: ~ takes all)"
        )
    return part.copy(take_rows(part.inter_feat, np.flatnonzero(kept)))


def parts_of_languages(parts: Sequence[Any], train: Any, config: Any) -> list[Any]:
    """Return parts of a split with the rows of ``languages``, whose languages the training split ``train`` tells.

    Raises:
        DataError: a part has no row of them.
    """
    known = RowLanguages(train, config["language_of"])
    return [rows_of_languages(part, config["languages"], known) for part in parts]


class LanguageBalance:
    """How often the windows of a language are drawn in an epoch, and how much their targets weigh in the loss.

    Of a language with ``n`` of all ``N`` targets, an epoch has ``N p`` targets with ``p ~ n^(1/T)`` (temperature
    sampling: Arivazhagan et al., "Massively Multilingual Neural Machine Translation in the Wild", 2019). Every window
    is drawn as often as the next one of its language, give or take one. ``language_weights`` weighs targets by ``1 /
    n`` or by the inverse effective number ``(1 - beta) / (1 - beta^n)`` (Cui et al., "Class-Balanced Loss Based on
    Effective Number of Samples", CVPR 2019); the mean weight is 1. Inverse weights and an infinite temperature have
    equal gradients in expectation.

    Args:
        config: the configuration; without its settings nothing is balanced.
        dataset: the training split.

    Attributes:
        max_length, stride: of windows, see :func:`~recbole_xling.data.sequences.cut_windows`.
        reordered: share of each training history that comes in another order.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        self._dataset, self._seed, self._epochs = dataset, config["seed"], config["epochs"]
        self._languages, self._of = config["languages"], config["language_of"] or "reader"
        first, kind = config["language_temperature"], config["language_weights"]
        last = config["language_temperature_end"]
        self._first = 1.0 if first is None else float(first)
        self._last = self._first if last is None else float(last)
        self._kind, self._beta = kind or "none", config["language_weight_beta"]
        self.max_length: int = config["MAX_ITEM_LIST_LENGTH"]
        self.stride: int = config["train_stride"] or max(1, self.max_length // 2)
        self.reordered: float = 1.0 if config["train_history"] == "set" else config["history_reorder"] or 0.0

    @property
    def by_target(self) -> bool:
        """Whether positions of one history can differ in language, and that matters."""
        balanced = self._kind != "none" or (self._first, self._last) != (1.0, 1.0)
        return self._of == "target" and (balanced or bool(self._languages))

    # ---- positions of the flat sequence -----------------------------------------------------------------------

    @cached_property
    def _known(self) -> RowLanguages:
        return RowLanguages(self._dataset, self._of)

    @cached_property
    def _language(self) -> IntArray:
        """Language of each position of the sequence, as a target."""
        table = self._dataset.sequence
        return self._known.of(*(table[field].numpy() for field in (self._dataset.uid_field, self._dataset.iid_field)))

    @cached_property
    def is_trained(self) -> NDArray[np.bool_] | None:
        """Which positions of the sequence are of the languages that are trained; None for all."""
        if not self._languages:
            return None
        return np.isin(np.array(self._known.names), self._languages)[self._language]

    @cached_property
    def targets(self) -> NDArray[np.bool_]:
        """Which positions of the sequence are targets that are trained."""
        is_target: NDArray[np.bool_] = self._dataset.is_target
        return is_target if self.is_trained is None else is_target & self.is_trained

    @cached_property
    def _counts(self) -> IntArray:
        """Targets of each language."""
        return np.bincount(self._language[self.targets], minlength=len(self._known.names))

    @cached_property
    def weights(self) -> FloatArray | None:
        """Weight of each position of the sequence in the loss, as a target; None for 1."""
        return None if self._kind == "none" else self._weights_by(self._counts)

    @cached_property
    def first_weights(self) -> FloatArray | None:
        """Weight of each position of the sequence as the first item of a history; None for 1.

        Where languages are those of targets, they are balanced among first items by themselves: many histories may
        begin with items of a language that is seldom or never a target.
        """
        if self._kind == "none" or self._of == "reader":
            return self.weights
        start = self._dataset.segments.start
        if self.is_trained is not None:
            start = start[self.is_trained[start]]
        return self._weights_by(np.bincount(self._language[start], minlength=len(self._known.names)))

    def _weights_by(self, counts: IntArray) -> FloatArray:
        """Return the weight of each position by how often its language occurs; 1 for languages that do not."""
        n = np.maximum(counts, 1)
        each = 1.0 / n
        if self._kind == "effective":
            each = (1 - self._beta) / -np.expm1(n * np.log(self._beta))
        each *= counts.sum() / max(1e-300, (each * counts).sum())
        return np.asarray(np.where(counts > 0, each, 1.0)[self._language])

    @cached_property
    def shown(self) -> FloatArray:
        """How often an epoch shows each position of the sequence, on average over all epochs.

        Windows without a trained target are left out, and others come as often as their languages are drawn. Where a
        history has several windows, a position is the context of further ones; not counted is what cropping takes from
        that, and what dividing windows adds that train more targets than a batch has.
        """
        table = self._dataset
        if table.states_histories:
            return self._drawn
        shown = windows_of_places(table.segments, self.max_length, self.stride, len(table.sequence))
        return self._after_reordering(shown) * self._drawn

    @cached_property
    def trained(self) -> FloatArray:
        """How often an epoch trains the item of each position as a target, on average over all epochs."""
        return self._after_reordering(self._drawn * self.targets)

    def _after_reordering(self, often: FloatArray) -> FloatArray:
        """Return what items of positions have on average of what positions have."""
        if not self.reordered or self._dataset.states_histories:  # a stated target stays the target
            return often
        segments, found = self._dataset.segments, often.copy()
        sizes = segments.n_targets + 1
        place = segments.places(sizes)
        found[place] = mean_after_reordering(often[place], sizes, self.reordered)
        return found

    @cached_property
    def _drawn(self) -> FloatArray:
        """How often an epoch draws the targets of the history of each position, on average; 0 outside of training."""
        table = self._dataset
        segments, edges = table.segments, np.zeros(len(table.sequence) + 1)
        edges[segments.start] += 1
        edges[segments.start + segments.n_targets + 1] -= 1
        drawn = np.cumsum(edges)[:-1]
        temperatures = {self.temperature(epoch) for epoch in range(max(1, self._epochs))}
        if self.is_trained is None and temperatures == {1.0}:
            return drawn
        ratio = np.mean([self._ratio(temperature) for temperature in temperatures], axis=0)[self._language]
        owner, targets = table.owner, self.targets
        often = np.bincount(owner, ratio * targets) / np.maximum(1, np.bincount(owner, targets))
        return np.asarray(drawn * often[owner])

    def _ratio(self, temperature: float) -> FloatArray:
        """Return how often a target of each language is drawn, ``(n_languages,)``."""
        n = self._counts.astype(np.float64)
        if not n.any():
            return n
        share = np.where(n > 0, (n / n.max()) ** (1 / temperature), 0.0)
        return np.asarray(share / share.sum() * n.sum() / np.maximum(n, 1))

    # ---- windows ----------------------------------------------------------------------------------------------

    def n_targets(self, windows: TrainingWindows) -> IntArray:
        """Return the targets that each window trains, ``(n_windows,)``."""
        if self.is_trained is None:
            return windows.length - windows.loss_from
        return np.rint(_sums(self.is_trained, windows)).astype(np.int64)

    def temperature(self, epoch: int) -> float:
        """Return the temperature of an epoch, which changes evenly from the first to the last."""
        return self._first + (self._last - self._first) * min(1.0, epoch / max(1, self._epochs - 1))

    def draw(self, windows: TrainingWindows, epoch: int) -> TrainingWindows:
        """Return the windows of an epoch, without those that train nothing, and each as often as it is drawn."""
        if self.is_trained is not None:
            windows = windows.take(np.flatnonzero(self.n_targets(windows)))
        temperature = self.temperature(epoch)
        if temperature == 1.0 or not len(windows):
            return windows
        trained = self.is_trained if self.is_trained is not None else np.ones(len(self._language), dtype=bool)
        often = _sums(self._ratio(temperature)[self._language] * trained, windows) / self.n_targets(windows)
        # Systematic sampling, language after language: each has as many windows as it should, give or take one.
        rng = np.random.default_rng([self._seed, epoch, 1])
        order = rng.permutation(len(windows))
        order = order[np.argsort(often[order], kind="stable")]
        ends = np.floor(np.cumsum(often[order]) + rng.random()).astype(np.int64)
        return windows.take(np.sort(np.repeat(order, np.diff(ends, prepend=0))))


def _sums(values: NDArray[Any], windows: TrainingWindows) -> FloatArray:
    """Return the sum of the values at each window's targets, ``(n_windows,)``."""
    before = np.append(0.0, np.cumsum(values, dtype=np.float64))
    return before[windows.start + windows.length + 1] - before[windows.start + windows.loss_from + 1]
