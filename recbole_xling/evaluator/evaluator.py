"""RecBole's metrics, with the values per user kept and no rounding before the results are shown."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from recbole.evaluator import Evaluator
from recbole.evaluator.base_metric import LossMetric, TopkMetric
from recbole.evaluator.collector import DataStruct

from recbole_xling.errors import ConfigError

FloatArray = NDArray[np.float64]

_ALL_DIGITS = 17


class XLingEvaluator(Evaluator):
    """RecBole's ``Evaluator`` that also keeps exact values and values per user of the last :meth:`evaluate`.

    Attributes:
        exact: the metrics without rounding; early stopping compares these.
        per_user: value of each top-k metric for each evaluated row, ``(n_rows,)``; its mean is the metric.
        labeled: scores and labels of the rows, ``(n_rows,)`` each, where metrics compare these; else None.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.exact: dict[str, float] = {}
        self.per_user: dict[str, FloatArray] = {}
        self.labeled: tuple[FloatArray, FloatArray] | None = None
        for metric in self.metric_class.values():
            metric.decimal_place = _ALL_DIGITS
            if isinstance(metric, TopkMetric):
                metric.topk_result = self._keeping_values(metric)

    def _keeping_values(self, metric: TopkMetric) -> Any:
        """Wrap the last step of a RecBole metric, which turns the values per user into their mean."""
        mean_of = metric.topk_result

        def topk_result(name: str, value: Any) -> dict[str, float]:
            values = np.asarray(value, dtype=np.float64)
            if values.ndim == 2:  # metrics over the whole catalog (coverage, Gini) have no value per user
                self.per_user.update({f"{name}@{k}": values[:, k - 1] for k in metric.topk})
            result: dict[str, float] = mean_of(name, value)
            return result

        return topk_result

    def evaluate(self, dataobject: DataStruct) -> OrderedDict[str, float]:
        """Compute all metrics, rounded to ``metric_decimal_place`` as RecBole returns them.

        Raises:
            ConfigError: LogLoss is to be computed of scores that are not probabilities; RecBole would cut them off.
        """
        if "logloss" in self.metrics and (scores := dataobject.get("rec.score")).numel():
            low, high = float(scores.min()), float(scores.max())
            if low < 0 or high > 1:
                raise ConfigError(
                    f"LogLoss compares labels with probabilities, but scores of {self.config['model']} reach from "
                    f"{low:.3g} to {high:.3g}: use AUC, or a model that predicts labels"
                )
        self.per_user, self.labeled = {}, None
        if any(isinstance(metric, LossMetric) for metric in self.metric_class.values()):
            scores, labels = (dataobject.get(name).reshape(-1).double().numpy() for name in ("rec.score", "data.label"))
            self.labeled = scores, labels
        self.exact = {name: float(value) for name, value in super().evaluate(dataobject).items()}
        digits = self.config["metric_decimal_place"]
        return OrderedDict((name, round(value, digits)) for name, value in self.exact.items())

    def of_labels(self, name: str, scores: FloatArray, labels: FloatArray) -> float | None:
        """Return a metric that compares scores with labels, for some rows.

        Args:
            name: of the metric, one of :attr:`exact`.
            scores: of the rows, ``(n,)``.
            labels: 0 or 1, ``(n,)``.

        Returns:
            The metric; None for an AUC of rows that all have the same label, which is not defined.
        """
        if name == "auc" and len(np.unique(labels)) < 2:
            return None
        return float(self.metric_class[name].metric_info(scores, labels))
