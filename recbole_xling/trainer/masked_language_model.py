"""Continued pre-training of a text encoder: masked language model over the catalog's texts in all their languages."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast
from zlib import crc32

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader

from recbole_xling.data.catalog import dataset_catalog
from recbole_xling.data.identity import fingerprint
from recbole_xling.encode.hub import HubModel, LocalModel, find_model, quiet_loading
from recbole_xling.errors import ConfigError, DataError, EncoderError
from recbole_xling.model.text_encoder.adapters import AdapterConfig, add_adapters
from recbole_xling.model.text_encoder.loading import longest_input
from recbole_xling.text.template import TextTemplate
from recbole_xling.utils.files import replacing
from recbole_xling.utils.run_folder import versions, write_config, write_result

logger = logging.getLogger(__name__)

_HELD_OUT = 20  # one text of so many is held out
_IGNORED = -100  # label of a token that is not to be predicted, as the collator of transformers writes it
# What sentence-transformers keeps beside the Transformer: pooling, dense layers, prompts.
_SENTENCE_FILES = ("modules.json", "*sentence*.json", "[0-9]_*/*.json", "[0-9]_*/*.safetensors", "[0-9]_*/*.bin")


class PretrainingConfig(AdapterConfig):
    """Settings of the stage ``pretrain``; those of adapters as for XLingTwoTower."""

    section: ClassVar[str] = "continued pre-training"

    peft: Literal["lora", "ia3", "full"] = Field("lora", description="Which weights of the encoder are trained.")
    epochs: int = Field(3, ge=1, description="Epochs of the pre-training.")
    learning_rate: float = Field(0.0005, gt=0, description="Learning rate of the first step, which decays to zero.")
    train_batch_size: int = Field(64, ge=1, description="Texts per batch.")
    encoder_max_length: int = Field(64, ge=3, description="Longest text in tokens.")
    mlm_probability: float = Field(0.15, gt=0, lt=1, description="Share of tokens that are to be predicted.")


def pretraining_settings(config: Any, settings: PretrainingConfig) -> dict[str, Any]:
    """Return all that the stage's encoder depends on."""
    shared = ("dataset", "encoder", "encoder_options", "encoder_prompt", "text_fields", "text_template", "seed")
    made_of = {"encoder_fingerprint": _source(config).fingerprint, "data": fingerprint(config)}
    return {**{key: config[key] for key in shared}, **settings.model_dump(), **made_of}


def _source(config: Any) -> LocalModel | HubModel:
    return find_model(config["encoder"], (config["encoder_options"] or {}).get("revision"))


def pretrain(config: Any, settings: PretrainingConfig, folder: Path) -> dict[str, Any]:
    """Train a masked language model on the catalog's texts, starting from an encoder (Gururangan et al., "Don't Stop
    Pretraining: Adapt Language Models to Domains and Tasks", ACL 2020).

    The head that predicts tokens is the encoder's own where its checkpoint has one. Otherwise its output layer is the
    (frozen) table of word embeddings, and the layer before it starts at the identity and is trained; the head is not
    kept. An interrupted training goes on after its last whole epoch.

    Args:
        config: settings of the run: dataset, encoder, texts, device.
        settings: of this stage.
        folder: becomes ``config.yaml``, ``adapter/`` (PEFT's format; not with ``peft: full``), ``encoder/`` (the
            encoder with its adapters merged, for transformers and sentence-transformers) and ``result.json``.

    Returns:
        The content of ``result.json``: ``held_out_loss`` has the loss of texts that were not trained on, before and
        after.

    Raises:
        ConfigError: a setting does not fit the encoder.
        DataError: the catalog has too few texts.
        EncoderError: the encoder cannot be loaded, or is no masked language model.
    """
    with quiet_loading():
        return _pretrain(config, settings, folder)


def _pretrain(config: Any, settings: PretrainingConfig, folder: Path) -> dict[str, Any]:
    from transformers import DataCollatorForLanguageModeling, set_seed

    started = time.perf_counter()
    source = _source(config)
    mlm, tokenizer, head = _load(source)
    trained, held_out = _rows(config, settings, tokenizer, longest_input(mlm.base_model, tokenizer))
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, pretraining_settings(config, settings))
    logger.info("Pre-training on %d texts, %d held out; head: %s", len(trained), len(held_out), head)

    set_seed(config["seed"])
    adapted = add_adapters(mlm.base_model, settings)
    for name, parameter in mlm.named_parameters():
        if not name.startswith(mlm.base_model_prefix):
            parameter.requires_grad_(True)
    if settings.peft != "full":
        mlm.get_output_embeddings().weight.requires_grad_(False)  # the table of word embeddings
    mlm.to(config["device"])
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=settings.mlm_probability)
    size = settings.train_batch_size
    batches = [held_out[at : at + size] for at in range(0, len(held_out), size)]
    before = _held_out_loss(mlm, collator, batches)
    loss = _train(mlm, collator, trained, config, settings, folder / "checkpoints")
    after = _held_out_loss(mlm, collator, batches)
    logger.info("Loss of held-out texts: %.4f before, %.4f after", before, after)

    _write(adapted, tokenizer, source, folder)
    result = {
        "encoder": source.name,
        "data": {"files": fingerprint(config)},
        "texts": {"trained": len(trained), "held_out": len(held_out)},
        "head": head,
        "train_loss": loss,
        "held_out_loss": {"before": before, "after": after},
        "seconds": {"train": time.perf_counter() - started},
        "seed": config["seed"],
        "versions": versions(),
        "run_dir": str(folder),
    }
    write_result(folder, result)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result


def _rows(
    config: Any, settings: PretrainingConfig, tokenizer: Any, longest: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the tokens of the distinct texts of all items in all languages: those to train on, those held out.

    A hash of a text decides to which it belongs.
    """
    if settings.encoder_max_length > longest:
        raise ConfigError(f"pretrain: encoder_max_length is {settings.encoder_max_length}, but {longest} is the most")
    catalog, template = dataset_catalog(config), TextTemplate(config["text_template"])
    rendered = (template.render(text.fields) for text in catalog.store.texts())
    texts = [(config["encoder_prompt"] or "") + text for text in dict.fromkeys(rendered) if text.strip()]
    parts: tuple[list[str], list[str]] = ([], [])
    for text in texts:
        parts[crc32(text.encode("utf-8", "surrogatepass")) % _HELD_OUT == 0].append(text)
    if not all(parts):
        raise DataError(f"pretrain: {len(texts)} texts are too few to train a language model on")
    options = {"truncation": True, "max_length": settings.encoder_max_length}
    trained, held_out = ([{"input_ids": ids} for ids in tokenizer(part, **options)["input_ids"]] for part in parts)
    return trained, held_out


def _load(source: LocalModel | HubModel) -> tuple[Any, Any, str]:
    """Return the encoder with a head that predicts tokens, its tokenizer, and where the head comes from."""
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    options = {} if source.revision is None else {"revision": source.revision}
    try:
        found = AutoModelForMaskedLM.from_pretrained(source.load_from, output_loading_info=True, **options)
        tokenizer = AutoTokenizer.from_pretrained(source.load_from, **options)
    except Exception as error:  # the library and those below it raise many kinds
        raise EncoderError(
            f"pretrain: '{source.load_from}' is no encoder with a masked language model: {error}"
        ) from error
    if tokenizer.mask_token_id is None:
        raise EncoderError(f"pretrain: the tokenizer of '{source.load_from}' has no token that masks others")
    mlm, missing = found[0].float(), set(found[1]["missing_keys"])
    new = {name for name, _ in mlm.named_parameters() if name in missing and not name.startswith(mlm.base_model_prefix)}
    for name, module in mlm.named_modules():
        if (
            isinstance(module, nn.Linear)
            and f"{name}.weight" in new
            and module.weight.shape[0] == module.weight.shape[1]
        ):
            nn.init.eye_(module.weight)
            nn.init.zeros_(module.bias)
    return mlm, tokenizer, "tied to the word embeddings, from the identity" if new else "the encoder's own"


class _MaskedPositions:
    """Lets a masked language model compute its head at the tokens to predict only: the vocabulary is large."""

    def __init__(self, mlm: Any) -> None:
        self._mlm, self._where = mlm, torch.empty(0)
        self._hook = mlm.base_model.register_forward_hook(self._select)

    def _select(self, module: nn.Module, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[self._where][None]  # (1, M, H)
        return output

    def loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses of the masked tokens of a batch, and their number."""
        labels = batch["labels"]  # (B, T)
        self._where = labels != _IGNORED
        logits = self._mlm(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]  # (M, V)
        return F.cross_entropy(logits.float(), labels[self._where], reduction="sum"), self._where.sum()

    def close(self) -> None:
        """Let the model be as it was."""
        self._hook.remove()


@torch.no_grad()
def _held_out_loss(mlm: Any, collator: Any, batches: Sequence[list[dict[str, Any]]]) -> float:
    """Return the mean loss of masked tokens, of the same ones each time."""
    mlm.eval()
    at, total, number = _MaskedPositions(mlm), 0.0, 0
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for rows in batches:
            loss, n_masked = at.loss({name: tensor.to(mlm.device) for name, tensor in collator(rows).items()})
            total, number = total + float(loss), number + int(n_masked)
    at.close()
    return total / max(1, number)


def _train(
    mlm: Any, collator: Any, rows: list[dict[str, Any]], config: Any, settings: PretrainingConfig, folder: Path
) -> float:
    """Train by the trainer of transformers, and return the mean loss of the steps."""
    from transformers import PrinterCallback, Trainer, TrainingArguments
    from transformers.trainer_utils import get_last_checkpoint

    at = _MaskedPositions(mlm)

    class MaskedTrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
            loss, number = at.loss(inputs)
            return loss / number.clamp(min=1)

        def get_train_dataloader(self) -> Any:
            # The library's own takes a folder called "datasets" in the current one for the package of that name.
            loader = DataLoader(cast(Any, rows), settings.train_batch_size, shuffle=True, collate_fn=collator)
            return self.accelerator.prepare(loader)

    options = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.train_batch_size,
        warmup_steps=0,
        save_strategy="epoch",
        save_total_limit=1,
        logging_strategy="epoch",
        seed=config["seed"],
        data_seed=config["seed"],
        use_cpu=config["device"].type == "cpu",
        report_to=[],
        disable_tqdm=not config["show_progress"],
        remove_unused_columns=False,
    )
    trainer = MaskedTrainer(model=mlm, args=options, train_dataset=rows, data_collator=collator)
    trainer.remove_callback(PrinterCallback)
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    if last is not None:
        logger.info("Pre-training goes on from '%s'", last)
    trainer.train(resume_from_checkpoint=last)
    at.close()
    # of all epochs, each of as many steps: the trainer's own mean has those since the last interruption alone
    return float(np.mean([entry["loss"] for entry in trainer.state.log_history if "loss" in entry]))


def _write(adapted: Any, tokenizer: Any, source: LocalModel | HubModel, folder: Path) -> None:
    """Write the adapters, and the encoder with them merged beside what sentence-transformers knows of its original."""
    if hasattr(adapted, "merge_and_unload"):
        adapted.save_pretrained(str(folder / "adapter"))
        adapted = adapted.merge_and_unload()
    root = Path(source.load_from)
    if isinstance(source, HubModel):
        from huggingface_hub import snapshot_download

        root = Path(snapshot_download(source.name, revision=source.revision, allow_patterns=list(_SENTENCE_FILES)))
    with replacing(folder / "encoder") as new:
        for path in (path for pattern in _SENTENCE_FILES for path in root.glob(pattern) if path.is_file()):
            copy = new / path.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        with quiet_loading():
            adapted.save_pretrained(new)
        tokenizer.save_pretrained(new)
        shutil.rmtree(folder / "encoder", ignore_errors=True)
