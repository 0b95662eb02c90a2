"""Evaluating a trained model without what a trainer sets up to train it."""

from __future__ import annotations

from logging import getLogger
from types import SimpleNamespace
from typing import Any

from recbole.trainer import Trainer
from recbole.utils import WandbLogger

from recbole_xling.evaluate.collector import XLingCollector
from recbole_xling.evaluate.evaluator import XLingEvaluator
from recbole_xling.train.base import XLingTrainerMixin


class Evaluation(XLingTrainerMixin, Trainer):
    """``evaluate`` of our trainers, and nothing else: no optimiser, no TensorBoard, no files.

    Args:
        config: the configuration.
        model: on its device.
        trained_on: the data set of training, for metrics that ask how popular items are.
    """

    def __init__(self, config: Any, model: Any, trained_on: Any) -> None:
        self.config, self.model, self.device = config, model, config["device"]
        self.logger = getLogger()
        self.test_batch_size = config["eval_batch_size"]
        self.gpu_available = False
        self.item_tensor = self.tot_item_num = None
        self.wandblogger = WandbLogger(config)
        self.eval_collector = XLingCollector(config)
        self.eval_collector.data_collect(SimpleNamespace(dataset=trained_on))
        self.evaluator = XLingEvaluator(config)
