"""The data card: what a dataset contains, and what in it would spoil an experiment."""

from recbole_xling.card.build import Columns, build_card, build_configured_card
from recbole_xling.card.page import write_card
from recbole_xling.card.schema import Card

__all__ = ["Card", "Columns", "build_card", "build_configured_card", "write_card"]
