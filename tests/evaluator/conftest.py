"""Tests by hand-made tensors run on the CPU; those marked ``device`` run where RecBole puts a model."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def cpu_unless_marked(request: pytest.FixtureRequest) -> None:
    """Hide a GPU unless the test is marked ``device``."""
    if not request.node.get_closest_marker("device"):
        request.getfixturevalue("cpu")
