"""Choosing which of an item's texts a model sees: the setting ``text_view``."""

from __future__ import annotations

from collections.abc import Iterator

from recbole_xling.errors import ConfigError
from recbole_xling.language.tags import UNDETERMINED, covers, is_language
from recbole_xling.text.record import DISPLAY, PARALLEL, ItemText
from recbole_xling.text.store import ItemTextStore
from recbole_xling.text.template import TextTemplate

AUTO = "auto"
READER = "reader"
LANGUAGE = "language"
PIVOT = "pivot"

OWN, RANDOM, ALL = "own", "random", "all"
"""Values of ``train_text_view``, besides ``reader``."""


class TextView:
    """A choice among the texts of an item.

    - ``display``: the display text; so do ``reader`` and ``auto`` for users who state no language.
    - ``language:<x>``: the item's own text in language x (``display`` or ``parallel``, never a translation), else its
      display text.
    - ``pivot:<x>``: the item's own text in x, else a translation into x, the first in the file.

    Language x is a BCP 47 tag that covers its variants: ``en`` takes ``en-GB`` as well, but prefers ``en``. Own
    texts go before translations, then an exact tag before variants, then the display text before parallel ones.

    Args:
        setting: the value of ``text_view``.

    Raises:
        ConfigError: the setting has none of these forms.
    """

    def __init__(self, setting: str) -> None:
        self.kind, colon, self.language = setting.partition(":") if isinstance(setting, str) else ("", "", "")
        plain = self.kind in (AUTO, DISPLAY, READER) and not colon
        if not plain and not (self.kind in (LANGUAGE, PIVOT) and is_language(self.language)):
            raise ConfigError(
                "text_view must be 'auto', 'display', 'reader', 'language:<x>' or 'pivot:<x>' with a BCP 47 tag such "
                f"as 'en' for x, not {setting!r}"
            )

    def render(self, store: ItemTextStore, item_id: str, template: TextTemplate) -> tuple[str, str] | None:
        """Return the text of an item and its language.

        An item without any text gives ``""`` and ``und``. An item that is shown in some language but has no text in
        the pivot language gives None.
        """
        if not self.language:
            language, fields = store.display_fields(item_id)
            rendered = template.render(fields)
            return (rendered, language) if rendered.strip() else ("", UNDETERMINED)
        for text in self._candidates(store, item_id):
            rendered = template.render(text.fields)
            if rendered.strip():
                return rendered, text.language
        if self.kind == PIVOT:
            shown = store.display(item_id)
            if shown is not None and template.render(shown.fields).strip():
                return None
        return "", UNDETERMINED

    def choose(self, store: ItemTextStore, item_id: str, template: TextTemplate) -> ItemText | None:
        """Return the text of an item whose rendering is shown; None if there is none that is not empty."""
        texts = self._candidates(store, item_id)
        return next((text for text in texts if template.render(text.fields).strip()), None)

    def _candidates(self, store: ItemTextStore, item_id: str) -> Iterator[ItemText]:
        """Yield the texts that may be taken, in order of preference."""
        shown = store.display(item_id)
        if self.language:
            texts = [] if shown is None else [shown]
            texts += store.parallel(item_id)
            fitting = [text for text in texts if covers(self.language, text.language)]
            if self.kind == LANGUAGE:
                fitting = [text for text in fitting if text.source in (DISPLAY, PARALLEL)]
            yield from sorted(fitting, key=self._rank)
        if self.kind != PIVOT and shown is not None:
            yield shown

    def _rank(self, text: ItemText) -> tuple[bool, bool, bool]:
        """Order the texts in the language: lower ones are preferred."""
        variant = text.language.lower() != self.language.lower()
        return text.source not in (DISPLAY, PARALLEL), variant, text.source != DISPLAY
