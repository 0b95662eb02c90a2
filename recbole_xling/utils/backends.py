"""Classes that are chosen by name and imported when they are used: text encoders and translators."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_xling.errors import XlingError, unknown_name


@dataclass(frozen=True)
class Backends:
    """A table of classes that do the same in different ways.

    Attributes:
        kind: what messages call one of them.
        package: the package of their modules.
        classes: by name: module of the package, and class.
        for_models: the name that stands for any hub name or folder of a model, which it takes as its option ``model``.
        error: the class of the errors raised.
    """

    kind: str
    package: str
    classes: Mapping[str, tuple[str, str]]
    for_models: str
    error: type[XlingError]

    def create(self, name: str, options: Mapping[str, Any], if_taken: Mapping[str, Any] | None = None) -> Any:
        """Build the backend called ``name``.

        Args:
            name: a name of the table; anything else that contains a "/" or is an existing folder is a model.
            options: what the backend takes; an option that is None counts as not given.
            if_taken: options that a backend may lack, because they do not change its results.

        Raises:
            XlingError: unknown name, an option that the backend does not take, or a missing one.
        """
        options = {option: value for option, value in options.items() if value is not None}
        if name not in self.classes and ("/" in name or Path(name).is_dir()):
            if "model" in options:
                raise self.error(
                    f"{self.kind} '{name}' names a model already: drop the option model='{options['model']}'"
                )
            name, options = self.for_models, {**options, "model": name}
        if name not in self.classes:
            raise self.error(unknown_name(self.kind, name, self.classes))
        module, class_name = self.classes[name]
        backend = getattr(importlib.import_module(f"{self.package}.{module}"), class_name)
        parameters = inspect.signature(backend).parameters
        if_taken = {option: value for option, value in (if_taken or {}).items() if option in parameters}
        for option in options:
            if option not in parameters:
                known = parameters.keys() - if_taken.keys()
                raise self.error(unknown_name(f"option of the {name} {self.kind}", option, known))
        for option, parameter in parameters.items():
            if parameter.default is parameter.empty and option not in options:
                raise self.error(f"the {name} {self.kind} needs the option '{option}'")
        return backend(**options, **if_taken)

    def check_positive(self, *, whole: bool = True, **values: float) -> None:
        """Raise the table's error for the first of the options ``values`` that is not a (whole) number above zero."""
        for option, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float) or not value > 0:
                number = "whole number" if whole else "number"
                raise self.error(f"the {self.kind} option '{option}' is {value!r}: give a {number} above zero")
