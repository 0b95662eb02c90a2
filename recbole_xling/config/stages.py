"""The setting ``stages``: what runs one after the other, each stage with settings of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from recbole_xling.errors import ConfigError, unknown_name

KINDS = ("pretrain", "joint", "refit", "finetune", "alone")
AFTER_JOINT = {"refit": "the best epoch", "finetune": "the weights"}
PER_LANGUAGE = ("finetune", "alone")


class Stage(NamedTuple):
    """One stage.

    Attributes:
        kind: one of :data:`KINDS`.
        language: of ``finetune`` and ``alone``; else empty.
        settings: those that replace the pipeline's.
    """

    kind: str
    language: str
    settings: dict[str, Any]

    @property
    def name(self) -> str:
        """As it is written in the setting."""
        return f"{self.kind}:{self.language}" if self.language else self.kind

    @property
    def folder(self) -> str:
        """Name of its folder."""
        return self.name.replace(":", "-")


def read_stages(value: Any) -> list[Stage]:
    """Read stages as they are written: ``[joint, {finetune:fr: {epochs: 5}}]``.

    Raises:
        ConfigError: a stage is unknown, is named twice, or comes before the one that it starts from.
    """
    if not isinstance(value, list | tuple) or not value:
        raise ConfigError(f"stages must be a list such as [joint, finetune:fr], not {value!r}")
    stages = [_stage(entry) for entry in value]
    names = [stage.name for stage in stages]
    for place, stage in enumerate(stages):
        if stage.name in names[:place]:
            raise ConfigError(f"stages: {stage.name} is there twice")
        if stage.kind == "pretrain" and place:
            raise ConfigError("stages: pretrain must be the first stage: the others start from its encoder")
        if stage.kind in AFTER_JOINT and "joint" not in names[:place]:
            raise ConfigError(
                f"stages: {stage.name} needs {AFTER_JOINT[stage.kind]} of joint, which must come before it"
            )
    return stages


def _stage(entry: Any) -> Stage:
    name, settings = entry, None
    if isinstance(entry, Mapping) and len(entry) == 1:
        ((name, settings),) = entry.items()
    if not isinstance(name, str) or not isinstance(settings, Mapping | None):
        raise ConfigError(
            f"stages: a stage is a name, or a name and its settings such as {{joint: {{epochs: 5}}}}, not {entry!r}"
        )
    kind, colon, language = name.partition(":")
    if kind not in KINDS:
        raise ConfigError(unknown_name("stage", kind, KINDS))
    if (kind in PER_LANGUAGE) != bool(language) or bool(colon) != bool(language):
        raise ConfigError(
            f"stages: write {kind}:<language>" if kind in PER_LANGUAGE else f"stages: {kind} has no language"
        )
    for key in settings or {}:
        if not isinstance(key, str):
            raise ConfigError(f"stages: {name}: a setting's name must be text, not {key!r}")
        if key in ("stages", "resume", "run_dir", "model", "dataset"):
            raise ConfigError(f"stages: {name} cannot set {key}, which is the same for all stages")
    return Stage(kind, language, dict(settings or {}))
