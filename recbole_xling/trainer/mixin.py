"""XLingTrainerMixin: safe checkpoints and exact, per-user results for any RecBole trainer."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import recbole.trainer.trainer as recbole_trainer
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType, ModelType, WandbLogger, calculate_valid_score, set_color
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm.auto import tqdm

from recbole_xling.config import plain_settings
from recbole_xling.data.catalog import catalog_of
from recbole_xling.data.identity import DataIdentity
from recbole_xling.data.pinned_ids import PinnedIds
from recbole_xling.errors import CheckpointError, DataError
from recbole_xling.evaluator.collector import XLingCollector
from recbole_xling.evaluator.evaluator import XLingEvaluator
from recbole_xling.evaluator.slices import metric_of_rows, over_languages
from recbole_xling.evaluator.streaming import Pairs
from recbole_xling.language.tags import UNDETERMINED
from recbole_xling.language.users import Readers
from recbole_xling.model.factors import factors_of
from recbole_xling.trainer.checkpoint import (
    check_ids,
    data_of,
    load_checkpoint,
    load_trainable,
    random_states,
    restore_random_states,
    save_checkpoint,
    trainable_state,
)
from recbole_xling.utils.chunks import score_chunks
from recbole_xling.utils.devices import on_device, to_device
from recbole_xling.utils.distributed import is_main_process
from recbole_xling.utils.plain_data import from_plain, to_plain
from recbole_xling.utils.run_folder import MODEL_FILE, taking_from


@contextmanager
def _tensorboard_in_run_folder(config: Any) -> Iterator[None]:
    """Choose where RecBole's trainers record, whose constructor names a folder below the current one.

    The first process records in the run folder, if the run has one; further processes do not record.
    """
    original = recbole_trainer.get_tensorboard
    if not is_main_process(config):
        recbole_trainer.get_tensorboard = lambda logger: _SilentWriter()
    elif config["run_dir"]:
        recbole_trainer.get_tensorboard = lambda logger: SummaryWriter(str(Path(config["run_dir"]) / "tensorboard"))
    try:
        yield
    finally:
        recbole_trainer.get_tensorboard = original


@contextmanager
def _same_random_numbers(seed: int) -> Iterator[None]:
    """Let models that score with random numbers (ADMMSLIM, KTUP, Random) use the same ones in every evaluation.

    Training goes on with its own ones, as if there had been no evaluation.
    """
    states = random_states()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore_random_states(states)


def _within(pairs: tuple[Tensor, Tensor], part: slice) -> tuple[Tensor, Tensor]:
    """Return the pairs of some rows, which are numbered from 0 then; pairs are in order of rows."""
    begin, end = torch.searchsorted(pairs[0].contiguous(), torch.tensor([part.start, part.stop])).tolist()
    return pairs[0][begin:end] - part.start, pairs[1][begin:end]


def _readers_of(dataset: Any) -> Readers:
    """Return the users of a dataset as readers of its items."""
    return catalog_of(dataset).readers([str(token) for token in dataset.field2id_token[dataset.uid_field]])


class _SilentWriter:
    """Accepts every call of a ``SummaryWriter`` and writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class XLingTrainerMixin:
    """Put before a RecBole ``Trainer`` class: replaces its checkpoints and its evaluation.

    Attributes:
        eval_collector: collects the rows of an evaluation.
        evaluator: has the exact and per-user values of the last evaluation.
        epoch_seconds: time of each training epoch; empty where RecBole's own loop trains.
    """

    config: Any
    model: Any
    device: torch.device
    saved_model_file: str
    _data_state: dict[str, Any] | None = None
    _readers: Readers | None = None
    item_tensor: Any
    tot_item_num: Any

    def __init__(self, config: Any, model: Any) -> None:
        processes = not config["single_spec"]
        if processes:  # RecBole would wrap the model for GPUs of its own choice; gradients are averaged here instead
            config["single_spec"] = True
        if not is_main_process(config):
            config["log_wandb"] = False  # or each process would begin a run there
        with _tensorboard_in_run_folder(config):
            super().__init__(config, model)  # type: ignore[call-arg]
        if processes:
            config["single_spec"] = False
            for tensor in model.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)
        if config["run_dir"]:
            self.saved_model_file = str(Path(config["run_dir"]) / MODEL_FILE)
        self.eval_collector = XLingCollector(config)
        self.evaluator = XLingEvaluator(config)
        self.epoch_seconds: list[float] = []

    # ---- checkpoints ------------------------------------------------------------------------------------------

    def _remember(self, train_data: Any) -> None:
        """Let checkpoints name the data; plain datasets of RecBole's do not know what theirs are.

        Raises:
            DataError: ``valid_metric`` asks for languages, and there are none.
        """
        if isinstance(train_data._dataset, PinnedIds):
            self._data_state = DataIdentity.of(train_data._dataset).state()
        if "_" in self.config["valid_metric"]:
            self._readers = _readers_of(train_data._dataset)
            if set(self._readers.names) <= {UNDETERMINED}:
                raise self._no_languages(train_data._dataset)

    def _no_languages(self, dataset: Any) -> DataError:
        return DataError(
            f"valid_metric {self.config['valid_metric']} needs languages, and no item to predict in "
            f"'{dataset.dataset_name}' has one: add the column item_language to its .item file, or leave out "
            f"'_{self._over_languages}'"
        )

    @property
    def _over_languages(self) -> str:
        """``macro``, ``worst`` or nothing, from ``valid_metric``."""
        name: str = self.config["valid_metric"]
        return name.lower().partition("@")[0].partition("_")[2]

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Write the model as plain data: settings, trainable weights and what else the model must remember."""
        if not is_main_process(self.config):
            return
        path = Path(kwargs.get("saved_model_file", self.saved_model_file))
        save_checkpoint(path, {**self._model_state(), "epoch": epoch})
        if verbose:
            self.logger.info(set_color("Saving current", "blue") + f": {path}")  # type: ignore[attr-defined]

    def _model_state(self) -> dict[str, Any]:
        other = self.model.other_parameter()
        # SASRecF, FDSA, DIN and others name modules there, whose weights are in the state dict
        other = {name: value for name, value in other.items() if not isinstance(value, torch.nn.Module)}
        return {
            "model": str(self.config["model"]),
            "config": to_plain(plain_settings(self.config)),
            "best_valid_score": float(self.best_valid_score),  # type: ignore[attr-defined]
            "state_dict": trainable_state(self.model),
            "other_parameter": to_plain(other, "other_parameter"),
            "data": self._data_state,
        }

    def _load_model(self, path: Path, dataset: Any = None) -> dict[str, Any]:
        """Load the weights of a checkpoint; where a dataset is given, its ids must be those of the checkpoint."""
        state = load_checkpoint(path, self.device)
        with taking_from(path):
            if state["model"] != self.config["model"]:
                raise CheckpointError(f"checkpoint '{path}' is of {state['model']}, not of {self.config['model']}")
            if dataset is not None:
                check_ids(data_of(state), dataset)
            load_trainable(self.model, state["state_dict"], path)
            self.model.load_other_parameter(from_plain(state["other_parameter"]))
        return state

    # ---- evaluation -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: str | None = None, show_progress: bool = False
    ) -> OrderedDict[str, float] | None:
        """Evaluate as RecBole does; under several processes on exactly the rows one process would see.

        Returns:
            The metrics rounded to ``metric_decimal_place``; ``evaluator.exact`` and ``evaluator.per_user`` have
            the unrounded ones. None if ``eval_data`` is empty.
        """
        if not eval_data:
            return None
        if load_best_model:
            if not self.config["single_spec"]:
                torch.distributed.barrier()  # the first process may still be writing the file
            path = Path(model_file or self.saved_model_file)
            self._load_model(path, eval_data._dataset)
            self.logger.info("Loading model structure and parameters from %s", path)  # type: ignore[attr-defined]
        self.model.eval()
        full = isinstance(eval_data, FullSortEvalDataLoader)
        if full and self.item_tensor is None:
            self.item_tensor = eval_data._dataset.get_item_feature().to(self.device)
        absent: Any = ()
        if self.config["eval_type"] == EvaluatorType.RANKING:
            self.tot_item_num = eval_data._dataset.item_num
            absent = getattr(eval_data._dataset, "absent", {}).get(eval_data._dataset.iid_field, ())
        batches = tqdm(eval_data, desc="Evaluate", ncols=100, leave=False) if show_progress else eval_data
        with _same_random_numbers(self.config["seed"]):
            for batch in batches:
                if full:
                    self._collect_full_ranking(batch, absent)
                    continue
                interaction, scores, positive_u, positive_i = self._neg_sample_batch_eval(batch)  # type: ignore[attr-defined]
                if len(absent):  # the model was trained on them, but nobody can choose them now
                    scores[:, absent] = float("-inf")
                self.eval_collector.eval_batch_collect(scores, interaction, positive_u, positive_i)
        self.eval_collector.model_collect(self.model)
        result = self.evaluator.evaluate(self.eval_collector.finish(eval_data.sample_size))
        if self._over_languages:
            self._readers = self._readers or _readers_of(eval_data._dataset)
            rows, name = self.eval_collector.rows, self.config["valid_metric"].lower()
            assert rows is not None
            values = self.evaluator.per_user[metric_of_rows(name)]
            value = over_languages(self._over_languages, values, rows, self._readers)
            if value is not None:  # another dataset than that of training may have no languages
                self.evaluator.exact[name] = value
                result[name] = round(value, self.config["metric_decimal_place"])
        self.wandblogger.log_eval_metrics(result, head="eval")  # type: ignore[attr-defined]
        return result

    def _collect_full_ranking(self, batch: Any, absent: Any) -> None:
        """Rank all items for the rows of a batch; memory is bounded, whatever the sizes of batch and catalog.

        Args:
            batch: a batch of RecBole's ``FullSortEvalDataLoader``.
            absent: items that are not ranked.
        """
        interaction, history, positive_u, positive_i = batch
        interaction = on_device(interaction, self.device)
        groups = factors_of(self.model, interaction)
        if groups is not None:
            rows = torch.arange(len(interaction), device=self.device)
            gone = to_device(torch.as_tensor(absent, dtype=torch.long), self.device)
            left_out = Pairs(rows.repeat_interleave(len(gone)), gone.repeat(len(rows)))
            if history is not None:
                more = Pairs(*history).on(self.device)
                left_out = Pairs(*(torch.cat(both) for both in zip(left_out, more, strict=True)))
            self.eval_collector.collect_factors(groups, interaction, left_out, positive_u, positive_i)
            return
        for part in self._rows_at_once(len(interaction)):
            rows = interaction[part]
            known = None if history is None else Pairs(*_within(history, part)).on(self.device)
            cut = (rows, known, *_within((positive_u, positive_i), part))
            _, scores, *positives = self._full_sort_batch_eval(cut)  # type: ignore[attr-defined]
            if len(absent):  # the model was trained on them, but nobody can choose them now
                scores[:, absent] = float("-inf")
            self.eval_collector.eval_batch_collect(scores, rows, *positives)

    def _rows_at_once(self, n_rows: int) -> Iterator[slice]:
        """Yield which rows a model scores at once that has no factors: as many as RecBole would for general models."""
        if self.config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
            yield from score_chunks(n_rows, self.tot_item_num)
            return
        step = max(1, self.config["eval_batch_size"] // self.tot_item_num)
        yield from (slice(at, min(at + step, n_rows)) for at in range(0, n_rows, step))

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, OrderedDict[str, float]]:
        """Evaluate on the validation data; the score that decides is the unrounded one.

        Raises:
            DataError: ``valid_metric`` asks for languages, and no row has one.
        """
        result = self.evaluate(valid_data, load_best_model=False, show_progress=show_progress)
        assert result is not None
        if self._over_languages and self.config["valid_metric"].lower() not in self.evaluator.exact:
            raise self._no_languages(valid_data._dataset)
        return calculate_valid_score(self.evaluator.exact, self.valid_metric), result  # type: ignore[attr-defined]


class Evaluation(XLingTrainerMixin, Trainer):
    """Only ``evaluate`` of our trainers, without optimizer, TensorBoard and files.

    Args:
        config: the configuration.
        model: on its device.
        trained_on: the dataset of training, for metrics that ask how popular items are.
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
