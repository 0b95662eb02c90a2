"""The data card: what a data set holds, and what in it would spoil an experiment."""

from recbole_xling.card.build import build_card, build_configured_card
from recbole_xling.card.card import Card
from recbole_xling.card.reading import Columns
from recbole_xling.card.write import write_card

__all__ = ["Card", "Columns", "build_card", "build_configured_card", "write_card"]
