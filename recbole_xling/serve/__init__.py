"""Answering from what was trained: recommendations and similar items, with numpy and without torch or RecBole.

The same :class:`~recbole_xling.serve.recommender.Recommender` answers from a run in memory, whose model scores, and
from a folder that ``recbole-xling export`` wrote, which needs numpy, onnxruntime and, for indexes, faiss alone.
"""

from recbole_xling.serve.answers import Answer, Recommendation
from recbole_xling.serve.catalog import Catalog, Filters, Users
from recbole_xling.serve.explanations import Explanation, explain
from recbole_xling.serve.folder import load_export
from recbole_xling.serve.recommender import Recommender
from recbole_xling.serve.scorer import Scorer

__all__ = [
    "Answer",
    "Catalog",
    "Explanation",
    "Filters",
    "Recommendation",
    "Recommender",
    "Scorer",
    "Users",
    "explain",
    "load_export",
]
