"""What a list may look like by languages: filters, quotas, and calibration to the languages of the user's history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy.special
import torch
from numpy.typing import NDArray
from torch import Tensor

from recbole_xling.errors import ConfigError, unknown_name
from recbole_xling.evaluator.beyond_accuracy import SMOOTHING
from recbole_xling.evaluator.slices import EvalContext
from recbole_xling.language.tags import UNDETERMINED

READER = "reader"
"""In place of a language: that of the user."""

_CANDIDATES = 100  # best items from which a calibrated list is chosen


class LanguageRules:
    """Rules for the languages of lists, applied to scores: what they let through keeps its order.

    An item's language is the one in which its user sees it.

    Args:
        context: users and items with their languages.
        length: of the lists.
        only: languages of the items to rank, ``reader`` for that of the user; empty for all.
        quotas: least number of items of a list by language.
        calibration: from 0 (none) to 1: the weight of calibration against scores (Steck, *Calibrated Recommendations*,
            RecSys 2018): lists are chosen greedily by ``(1 - w) sum(score) - w KL(history's languages, list's)``, with
            scores scaled from 0 to 1.

    Raises:
        ConfigError: nothing is in a language, quotas exceed the list, or they meet calibration.
    """

    def __init__(
        self,
        context: EvalContext,
        length: int,
        only: Sequence[str] = (),
        quotas: Mapping[str, int] | None = None,
        calibration: float = 0.0,
    ) -> None:
        self.context, self.length, self.only = context, length, tuple(only)
        self.quotas, self.calibration = dict(quotas or {}), calibration
        names = context.readers.names
        for language in {*self.only, *self.quotas} - {READER}:
            if language not in names:
                raise ConfigError(unknown_name("language of items", language, names))
        if sum(self.quotas.values()) > length or min(self.quotas.values(), default=1) < 1:
            raise ConfigError(f"quotas {self.quotas} do not fit into a list of {length}")
        if not 0 <= calibration <= 1:
            raise ConfigError(f"calibration must be between 0 and 1, not {calibration}")
        if quotas and calibration:
            raise ConfigError("a list has either quotas or calibration")
        number = {name: place for place, name in enumerate(names)}
        n_views = 1 + len(context.readers.own)
        self._of_item = np.array([[number[name] for name in context.readers.seen_by(view)] for view in range(n_views)])

    def __call__(self, scores: Tensor, users: NDArray[np.int64]) -> Tensor:
        """Return scores, ``(B, n_items)``, under which the rules hold for the first items of each row."""
        if self.only:
            allowed = torch.from_numpy(np.stack([self._allowed(user) for user in users.tolist()]))
            scores = scores.masked_fill(~allowed.to(scores.device), -torch.inf)
        if not self.quotas and not self.calibration:
            return scores
        scores = scores.clone()
        for row, user in enumerate(users.tolist()):
            chosen = self._quota_list(scores[row], user) if self.quotas else self._calibrated(scores[row], user)
            if len(chosen):
                scores[row] -= scores[row].max()  # so that places are seen beside scores of any size
            scores[row, chosen] = torch.arange(len(chosen), 0, -1, device=scores.device).to(scores)
        return scores

    def _languages(self, user: int) -> NDArray[np.int64]:
        """Return the language of each item for a user, as a place in the readers' names, ``(n_items,)``."""
        found: NDArray[np.int64] = self._of_item[self.context.readers.view_of_user[user]]
        return found

    def _allowed(self, user: int) -> NDArray[np.bool_]:
        names = self.context.readers.names
        wanted = {self.context.user_languages[user] if name == READER else name for name in self.only}
        if UNDETERMINED in wanted:  # a reader of whom nothing is known may read anything
            return np.ones(self._of_item.shape[1], dtype=bool)
        return np.isin(self._languages(user), [place for place, name in enumerate(names) if name in wanted])

    def _quota_list(self, scores: Tensor, user: int) -> Tensor:
        """Return the list with the highest sum of scores that fills all quotas, the highest score first."""
        language = torch.from_numpy(self._languages(user)).to(scores.device)
        names = self.context.readers.names
        ranked = torch.argsort(scores, descending=True)
        ranked = ranked[scores[ranked] > -torch.inf]
        kept = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
        for name, least in self.quotas.items():
            kept[ranked[language[ranked] == names.index(name)][:least]] = True
        free = self.length - int(kept.sum())
        kept[ranked[~kept[ranked]][:free]] = True
        return ranked[kept[ranked]]

    def _calibrated(self, scores: Tensor, user: int) -> Tensor:
        """Return the list that scores and calibration choose, in the order of choice."""
        known = self.context.known_items[self.context.known_users == user]
        languages, names = self._languages(user), self.context.readers.names
        history = np.bincount(languages[known], minlength=len(names)).astype(np.float64)
        best, item = scores.topk(min(_CANDIDATES, len(scores)))
        item = item[best > -torch.inf]
        value = best[best > -torch.inf].double().cpu().numpy()
        if not history.sum() or not len(value):
            return item[: self.length]
        wanted = history / history.sum()
        value = (value - value[-1]) / max(float(value[0] - value[-1]), 1e-12)
        own = languages[item.cpu().numpy()]
        counts, chosen = np.zeros(len(names)), []
        free = np.ones(len(value), dtype=bool)
        for place in range(min(self.length, len(value))):
            shares = (counts + np.eye(len(names))) / (place + 1)  # of the list if the next item is in each language
            smooth = (1 - SMOOTHING) * shares + SMOOTHING * wanted
            divergence = scipy.special.rel_entr(wanted, smooth).sum(axis=1)
            gain = (1 - self.calibration) * value - self.calibration * divergence[own]
            best_place = int(np.where(free, gain, -np.inf).argmax())
            chosen.append(best_place)
            free[best_place] = False
            counts[own[best_place]] += 1
        return item[torch.as_tensor(chosen, device=item.device)]
