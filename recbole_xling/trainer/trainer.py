"""XLingTrainer: RecBole's Trainer with exact resume, accumulation, schedules and learning rates per group."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from recbole.trainer import Trainer
from recbole.utils import dict2str, early_stopping, init_seed, set_color
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils.data.distributed import DistributedSampler
from tqdm.auto import tqdm

from recbole_xling.config import current_names
from recbole_xling.data.checks import FILTERS
from recbole_xling.errors import CheckpointError, ConfigError, unknown_name
from recbole_xling.model.base import hooks_of
from recbole_xling.trainer.averaging import CheckpointAverage
from recbole_xling.trainer.checkpoint import (
    check_ids,
    check_trained,
    data_of,
    load_checkpoint,
    random_states,
    restore_random_states,
    save_checkpoint,
    warm_start,
)
from recbole_xling.trainer.continuing import Continuation, Matches, told
from recbole_xling.trainer.lazy_adam import for_clipping
from recbole_xling.trainer.mixin import XLingTrainerMixin
from recbole_xling.trainer.optimizer import build_optimizer, build_schedule, parameter_groups
from recbole_xling.trainer.plain_state import PlainState
from recbole_xling.utils.devices import on_device
from recbole_xling.utils.distributed import average_gradients, is_main_process, process, share_buffers
from recbole_xling.utils.files import file_digest
from recbole_xling.utils.plain_data import from_plain
from recbole_xling.utils.precision import prepare_autocast
from recbole_xling.utils.run_folder import MODEL_FILE, simple, taking_from

logger = logging.getLogger(__name__)

RESUME_FILE = "last.pt"
_FIXED = (
    *FILTERS,
    *("eval_args", "seed", "benchmark_filename", "valid_metric", "valid_users", "exclude_history"),
    *("learner", "learning_rate", "learning_rates", "weight_decay", "loss_type"),
    *("popularity_prior", "popularity_weight", "cold_exposure"),
    *("languages", "language_of", "train_on_validation", "train_history"),
    *("text_fields", "text_template", "text_view", "reader_vectors", "train_text_view", "train_text_languages"),
    "train_text_translations",
)
"""Settings that a resumed run keeps."""


class XLingTrainer(XLingTrainerMixin, Trainer):
    """Trains any RecBole model whose training is a loop over batches with one optimizer.

    Settings beyond RecBole's: ``accumulation_steps``, ``lr_schedule``, ``warmup_steps``, ``learning_rates``,
    ``average_checkpoints``, ``init_from`` and ``l2_sp``. Inside a run folder the whole state is written after every
    epoch, and :meth:`resume_checkpoint` continues from it as if the run had never stopped.

    Attributes:
        matches: how many items and users are those of the run that ``init_from`` names, once training has begun.
    """

    learner: str
    learning_rate: float
    weight_decay: float
    best_valid_score: float
    best_valid_result: Any
    cur_step: int
    started_from: str | None = None  # hash of the model file of ``init_from``
    _sparse: Sequence[torch.nn.Parameter] = ()  # parameters with sparse gradients

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self.hooks = hooks_of(model)
        self.accumulation_steps: int = config["accumulation_steps"] or 1
        self.schedule: torch.optim.lr_scheduler.LambdaLR | None = None
        scales = self.enable_amp and prepare_autocast(self.device)  # here as well: RecBole's own Config does not
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.enable_scaler or scales)
        self._resumed: tuple[Path, dict[str, Any]] | None = None
        if config["torch_compile"]:
            self._compile(config["torch_compile"])
        self._plain_state = PlainState(model)
        self._average = CheckpointAverage(model, config["average_checkpoints"] or 1)
        self.matches: Matches = {}
        self._start: list[tuple[torch.nn.Parameter, Tensor]] = []  # what is trained, and the weights of init_from

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        """Build the optimizer with its groups; RecBole's keyword arguments are understood."""
        learner = kwargs.get("learner", self.learner)
        rate = kwargs.get("learning_rate", self.learning_rate)
        decay = kwargs.get("weight_decay", self.weight_decay)
        if "params" in kwargs:
            return build_optimizer(learner, [{"params": list(kwargs["params"]), "lr": rate}], decay)
        if learner == "sparse_adam":
            learner = self._sparse_where_possible()
        groups = parameter_groups(self.model, rate, self.config["learning_rates"])
        return build_optimizer(learner, groups, decay) if groups else torch.optim.SGD([torch.zeros(())], lr=rate)

    def _sparse_where_possible(self) -> str:
        """Let the model's gradients be sparse, and return the learner: plain ``adam`` where none of them can be.

        Raises:
            ConfigError: every step reaches all rows.
        """
        if self.config["l2_sp"]:
            raise ConfigError(
                "learner=sparse_adam updates the rows of a batch alone: l2_sp reaches all rows of the embeddings; set "
                "learner=adam"
            )
        self._sparse = hooks_of(self.model).take_sparse_gradients()
        if self._sparse:
            return "sparse_adam"
        self.logger.warning("learner=sparse_adam is plain Adam here: a step reaches all rows of the embeddings")
        return "adam"

    def _compile(self, backend: str) -> None:
        """Let torch compile what the model names; shapes change from batch to batch.

        Raises:
            ConfigError: torch has no such backend.
        """
        known = [*torch.compiler.list_backends(), "eager", "aot_eager"]
        if backend not in known:
            raise ConfigError(unknown_name("backend of torch_compile", backend, known))
        parts = self.hooks.compiled_parts()
        if not parts:
            self.logger.warning("torch_compile has no effect: %s does not say what to compile", self.config["model"])
        for part in parts:
            part.compile(backend=backend, dynamic=True)

    # ---- the loop ---------------------------------------------------------------------------------------------

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train until ``epochs`` or until ``stopping_step`` evaluations in a row are not better.

        Args:
            train_data: training loader.
            valid_data: validation loader; without it all epochs are trained and the last one is kept.
            verbose: whether epochs are logged.
            saved: whether the best model is written.
            show_progress: whether progress bars are shown.
            callback_fn: called with epoch and validation score after each evaluation.

        Returns:
            The best (unrounded) validation score and its metrics; ``(-1, None)`` without validation data.
        """
        self._remember(train_data)
        self.eval_collector.data_collect(train_data)
        self._load_start(train_data)
        if self.config["train_neg_sample_args"].get("dynamic", False):
            train_data.get_model(self.model)
        steps = -(-len(train_data) // self.accumulation_steps) * self.epochs
        options = (self.config["lr_schedule"] or "constant", self.config["warmup_steps"] or 0)
        self.schedule = build_schedule(self.optimizer, *options, steps)
        stopped = self._restore(train_data)
        self.hooks.begin_training(steps, self.schedule.last_epoch)
        for epoch in range(self.start_epoch, self.epochs):
            if stopped:
                break
            self._seek(train_data, epoch)
            started = time.perf_counter()
            loss = self._train_epoch(train_data, epoch, show_progress=show_progress)
            share_buffers(self.model)
            self.model.eval()
            self._average.add()
            with self._average.applied():
                with torch.no_grad():
                    self.hooks.end_epoch(epoch)  # before the model is evaluated and saved
                self.epoch_seconds.append(time.perf_counter() - started)
                self._report_training(epoch, loss)
                validates = bool(valid_data) and self.eval_step > 0 and (epoch + 1) % self.eval_step == 0
                if verbose and not validates:
                    self.logger.info(self._training_line)
                if validates:
                    stopped = self._validate(epoch, valid_data, verbose, saved, show_progress, callback_fn)
                elif saved and (not valid_data or self.eval_step <= 0):
                    self._save_checkpoint(epoch, verbose=verbose)
            if saved:
                self._save_resume_state(epoch, stopped, train_data)
        if saved and not Path(self.saved_model_file).exists():  # no epochs at all: the untrained model
            self._save_checkpoint(-1, verbose=verbose)
        if self._average.load_mean():  # a model that is not saved is tested as it is now
            self.model.eval()
            with torch.no_grad():
                self.hooks.end_epoch(max(self.train_loss_dict))  # what follows from weights is still the last epoch's
        self._add_hparam_to_tensorboard(self.best_valid_score)
        return (self.best_valid_score, self.best_valid_result) if valid_data else (-1, None)

    def _load_start(self, train_data: Any) -> None:
        """Start from the weights of earlier runs, or remember them where the run goes on: ``l2_sp`` leads back there.

        Raises:
            CheckpointError: the weights belong to another model, or cannot be used with the items and users of now.
            ConfigError: ``init_from`` is not a run folder, or ``l2_sp`` has no run to lead back to.
        """
        folder = self.config["init_from"]
        if self.config["l2_sp"] and not folder:
            raise ConfigError("l2_sp is the distance to the weights of init_from: set that as well, or l2_sp: 0")
        if folder:
            file = Path(folder) / MODEL_FILE
            if not file.is_file():
                raise ConfigError(f"init_from: '{folder}' is not a run folder ({MODEL_FILE} is missing)")
            checkpoint = load_checkpoint(file, self.device)
            resumed, now = self._resumed, file_digest(file)
            self.started_from = now if resumed is None else resumed[1].get("init_from_sha256")
            if self.config["l2_sp"] and self.started_from not in (now, None):
                raise CheckpointError(
                    f"cannot resume: l2_sp leads back to the weights of '{folder}', and these are no longer those that "
                    f"this run started from. Put its {MODEL_FILE} back, or start a new run"
                )
            start = Continuation(file, checkpoint, self.model, train_data._dataset, self.config)
            self.matches = start.matches
            if self._resumed is None:
                start.load()
                if not self.epochs:  # no epoch ends, after which new items would be placed
                    self.model.eval()
                    with torch.no_grad(), taking_from(file):
                        self.hooks.follow_settings(from_plain(checkpoint["config"]))
                self.logger.info("Starting from '%s': %s", folder, told(start.matches) or "its ids are not known")
            if self.config["l2_sp"]:
                trained = [(name, own) for name, own in self.model.named_parameters() if own.requires_grad]
                with taking_from(file):
                    self._start = [(own, start.weights[name]) for name, own in trained]
        if self._resumed is None:
            warm_start(self.model, self.config)

    def _validate(
        self,
        epoch: int,
        valid_data: Any,
        verbose: bool,
        saved: bool,
        show_progress: bool,
        callback_fn: Callable[[int, float], None] | None,
    ) -> bool:
        """Evaluate after an epoch, keep the best model, and return whether to stop."""
        started = time.perf_counter()
        score, result = self._valid_epoch(valid_data, show_progress=show_progress)
        self.best_valid_score, self.cur_step, stop, better = early_stopping(
            score, self.best_valid_score, self.cur_step, max_step=self.stopping_step, bigger=self.valid_metric_bigger
        )
        if verbose:
            evaluated = set_color("evaluating", "green") + f" [{time.perf_counter() - started:.2f}s]"
            self.logger.info(f"{self._training_line}, {evaluated} valid_score: {score:.6f}, {dict2str(result)}")
        self.tensorboard.add_scalar("Valid_score", score, epoch)
        self.wandblogger.log_metrics({**result, "valid_step": epoch}, head="valid")
        if better:
            self.best_valid_result = result
            if saved:
                self._save_checkpoint(epoch, verbose=False)
        if callback_fn:
            callback_fn(epoch, score)
        if stop and verbose:
            best = epoch - self.cur_step * self.eval_step
            self.logger.info("Finished training, best eval result in epoch %d", best)
        return bool(stop)

    def _report_training(self, epoch: int, loss: Any) -> None:
        self.train_loss_dict[epoch] = sum(loss) if isinstance(loss, tuple) else loss
        self._training_line = self._generate_train_loss_output(epoch, 0.0, self.epoch_seconds[-1], loss)
        self._add_train_loss_to_tensorboard(epoch, loss)
        self.wandblogger.log_metrics({"epoch": epoch, "train_loss": loss, "train_step": epoch}, head="train")

    def _seek(self, train_data: Any, epoch: int) -> None:
        """Tell the loader, or its sampler, which epoch comes, if its batches depend on it."""
        for loader in _loaders(train_data).values():
            for part in (loader, getattr(loader, "sampler", None)):
                if isinstance(part, DistributedSampler):
                    part.seed = self.config["seed"]  # which RecBole does not tell it
                if part is not None and hasattr(part, "set_epoch"):
                    part.set_epoch(epoch)

    # ---- one epoch --------------------------------------------------------------------------------------------

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Callable[[Any], Any] | None = None,
        show_progress: bool = False,
    ) -> float | tuple[float, ...]:
        """Train one epoch and return the sum of the batches' losses (a tuple where the model returns several)."""
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        self.optimizer.zero_grad(set_to_none=True)  # RecVAE's optimizers take turns, and each leaves the other's grads
        totals: Tensor | None = None
        several = False
        for batch, last_of_group, size in self._groups(train_data, epoch_idx, show_progress):
            with torch.autocast(device_type=self.device.type, enabled=self.enable_amp):
                losses = loss_func(batch if self.hooks.trains_on_host else on_device(batch, self.device))
            several = isinstance(losses, tuple)
            parts = torch.stack([part.float().reshape(()) for part in (losses if several else (losses,))])
            self.scaler.scale(parts.sum() / size).backward()
            totals = parts.detach() if totals is None else totals + parts.detach()
            if last_of_group:
                self._step()
        if totals is None:
            return 0.0
        self._check_nan(totals.sum())
        values = totals.tolist()
        return tuple(values) if several else values[0]

    def _groups(self, train_data: Any, epoch: int, show_progress: bool) -> Iterator[tuple[Any, bool, int]]:
        """Yield batches, whether each ends a group that shares an optimizer step, and the size of its group."""
        n_batches, per_step = len(train_data), self.accumulation_steps
        batches = train_data
        if show_progress:
            batches = tqdm(train_data, total=n_batches, ncols=100, desc=f"Train {epoch:>5}", leave=False)
        for index, batch in enumerate(batches):
            last = (index + 1) % per_step == 0 or index + 1 == n_batches
            size = min(per_step, n_batches - index // per_step * per_step)
            yield batch, last, size

    def _step(self) -> None:
        """Average gradients over processes, unscale, check, clip, and step: in this order."""
        if not self.config["single_spec"]:
            average_gradients(self.model.parameters(), self._sparse)
        self.scaler.unscale_(self.optimizer)
        for parameter, start in self._start:  # gradient of the penalty (L2-SP: Li, Grandvalet & Davoine, ICML 2018)
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - start, alpha=self.config["l2_sp"])
        if self.clip_grad_norm:
            clip_grad_norm_(for_clipping(self.model.parameters()), **self.clip_grad_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        assert self.schedule is not None
        self.hooks.end_step(self.schedule.last_epoch)
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)

    # ---- resume -----------------------------------------------------------------------------------------------

    def _save_resume_state(self, epoch: int, stopped: bool, train_data: Any) -> None:
        if not self.config["run_dir"]:
            return
        assert self.schedule is not None
        loaders = {name: generator.get_state() for name, generator in _generators(train_data).items()}
        own = {"random": random_states(), "loaders": loaders}
        processes = [own]
        if not self.config["single_spec"]:
            processes = [{} for _ in range(torch.distributed.get_world_size())]
            torch.distributed.all_gather_object(processes, own)
        if not is_main_process(self.config):
            return
        state = {
            **self._model_state(),
            "epoch": epoch,
            "stopped": stopped,
            "init_from_sha256": self.started_from,
            "cur_step": self.cur_step,
            "best_valid_result": dict(self.best_valid_result or {}),
            "losses": {int(key): float(value) for key, value in self.train_loss_dict.items()},
            "epoch_seconds": self.epoch_seconds,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self._optimizers().items()},
            "plain_state": self._plain_state.changed(),
            "epochs_to_average": self._average.state(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "processes": processes,
        }
        save_checkpoint(Path(self.config["run_dir"]) / RESUME_FILE, state)

    def resume_checkpoint(self, resume_file: str | Path) -> None:
        """Load the ``last.pt`` of a run folder; the next :meth:`fit` continues as if the run had never stopped.

        Raises:
            CheckpointError: the file is missing or damaged, belongs to another model, or has weights only.
        """
        state = self._load_model(Path(resume_file))
        if "processes" not in state:
            raise CheckpointError(
                f"'{resume_file}' is a trained model without the state of its training: resume from {RESUME_FILE}"
            )
        with taking_from(Path(resume_file)):
            self._check_continued(Path(resume_file), from_plain(state["config"]))
            self.start_epoch = int(state["epoch"]) + 1
            self.cur_step, self.best_valid_score = int(state["cur_step"]), float(state["best_valid_score"])
            self.best_valid_result = dict(state["best_valid_result"]) or None
            self.train_loss_dict = {int(epoch): float(loss) for epoch, loss in state["losses"].items()}
            self.epoch_seconds = [float(seconds) for seconds in state["epoch_seconds"]]
            self._load_optimizers(state)
            self._plain_state.load(state.get("plain_state", {}))
            self._average.load_state(state.get("epochs_to_average", []))
            self.scaler.load_state_dict(state["scaler"])
        self._resumed = Path(resume_file), state
        self.logger.info("Resuming from '%s' at epoch %d", resume_file, self.start_epoch)

    def _check_continued(self, file: Path, then: Mapping[str, Any]) -> None:
        """Raise a CheckpointError if settings make the other half of a run train or compare otherwise than the first.

        The optimizer has its rates from the file, the best epoch so far was found by the metric and the rows of then,
        and rows that are split anew are tested after they were trained on.
        """

        def meaning(key: str, value: Any) -> Any:
            if key == "languages":
                return sorted(value or ())
            return str(value).lower() if key == "valid_metric" else simple(value) or None

        then, now = current_names(then, type(self.model)), self.config
        changed = [key for key in _FIXED if key in then and meaning(key, then[key]) != meaning(key, now[key])]
        if changed:
            told = "; ".join(f"{key} was {then[key]} and is {now[key]}" for key in changed)
            raise CheckpointError(
                f"cannot resume '{file.parent}' with other settings of what is trained, split or validated: {told}. "
                "Leave them out, or start a new run, from this one's weights by init_from"
            )

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the optimizers that train: RecBole's special trainers may have others in place of the usual one."""
        found = {name: value for name, value in vars(self).items() if isinstance(value, torch.optim.Optimizer)}
        return {name: value for name, value in found.items() if name != "optimizer"} or found

    def _load_optimizers(self, state: dict[str, Any]) -> None:
        stored = state["optimizers"] if "optimizers" in state else {"optimizer": state["optimizer"]}  # older files
        for name, optimizer in self._optimizers().items():
            optimizer.load_state_dict(stored[name])

    def _restore(self, train_data: Any) -> bool:
        """Restore what exists only once training begins; return whether the run had stopped already."""
        rank, world_size = (0, 1) if self.config["single_spec"] else process()
        if self._resumed is None:
            if rank:  # the models are alike by now, and what they drop and draw shall not be
                init_seed(self.config["seed"] + rank, self.config["reproducibility"])
            return False
        (file, state), self._resumed = self._resumed, None
        assert self.schedule is not None
        with taking_from(file):
            known, dataset = data_of(state), train_data._dataset
            check_ids(known, dataset)
            check_trained(self.model, from_plain(state["config"]), known, dataset)
            if state["best_valid_result"] and not (model := Path(self.saved_model_file)).is_file():
                raise CheckpointError(
                    f"cannot resume '{file.parent}': {model.name}, the model of the best epoch so far, is missing: "
                    "put it back, or start a new run"
                )
            self.schedule.load_state_dict(state["schedule"])
            self._load_optimizers(state)  # because building a schedule sets the rates of step zero
            if len(state["processes"]) != world_size:
                raise CheckpointError(f"the run was started with {len(state['processes'])} processes, not {world_size}")
            own = state["processes"][rank]
            restore_random_states(own["random"])
            # older files have one generator
            stored = own["loaders"] if "loaders" in own else {"": own["loader"]}
            for name, generator in _generators(train_data).items():
                generator.set_state(stored[name].cpu())
            return bool(state["stopped"]) and self.cur_step > self.stopping_step  # which may have more patience now


def _loaders(train_data: Any) -> dict[str, Any]:
    """Return a loader and its parts by their names: RecBole's loader of knowledge graphs consists of two loaders."""
    parts = {name: getattr(train_data, name, None) for name in ("general_dataloader", "kg_dataloader")}
    return {"": train_data, **{name: part for name, part in parts.items() if part is not None}}


def _generators(train_data: Any) -> dict[str, torch.Generator]:
    """Return the random generators of a loader."""
    found = {name: getattr(loader, "generator", None) for name, loader in _loaders(train_data).items()}
    return {name: generator for name, generator in found.items() if generator is not None}


class PretrainingMixin:
    """Put before a RecBole ``PretrainTrainer`` class: pretraining leaves a model and can be resumed as any training."""

    pretrain_epochs: int
    epochs: int

    def pretrain(self, train_data: Any, verbose: bool = True, show_progress: bool = False) -> Any:
        """Train for ``pretrain_epochs``; RecBole writes a file every ``save_step`` epochs, this the run's model."""
        self.epochs = self.pretrain_epochs
        return XLingTrainer.fit(self, train_data, verbose=verbose, show_progress=show_progress)  # type: ignore[arg-type]

    def _model_state(self) -> dict[str, Any]:
        """Return what the next stage loads: all weights, those that this stage did not train as well."""
        state: dict[str, Any] = super()._model_state()  # type: ignore[misc]
        return {**state, "state_dict": self.model.state_dict()}  # type: ignore[attr-defined]
