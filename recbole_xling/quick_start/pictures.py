"""What a loaded run shows in a notebook: the figures of the report, and a summary of the run."""

from __future__ import annotations

from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recbole_xling.report.content import RunContent


class Pictures:
    """Figures of plotly, of a run that has finished and was loaded from its folder.

    ``metric`` is the one that a figure shows, such as ``ndcg@10``; if not given, the run's ``valid_metric``. All raise
    a CheckpointError if the folder has no results, and a ConfigError if it has none of that metric.
    """

    config: Any

    @cached_property
    def _content(self) -> RunContent:
        from recbole_xling.quick_start.report import finished_content

        return finished_content(Path(self.config["run_dir"] or ""))

    @cached_property
    def _content_with_model(self) -> RunContent:
        from recbole_xling.quick_start.report import with_model

        return with_model(self._content, self)  # type: ignore[arg-type]

    def _metric(self, metric: str | None) -> str:
        from recbole_xling.quick_start.report import shown_metric

        return shown_metric([self._content], metric)

    def plot_curves(self, kind: str = "loss") -> Any:
        """Draw the training ``loss`` or the ``validation`` score by epoch."""
        from recbole_xling.report.figures import plot_curves

        return plot_curves([self._content], kind)

    def plot_languages(self, metric: str | None = None, column: str = "target_language") -> Any:
        """Draw a metric by the language of the target, or by ``user_language``, with 95% intervals over users."""
        from recbole_xling.report.figures import plot_languages

        return plot_languages([self._content], self._metric(metric), column)

    def plot_pairs(self, metric: str | None = None) -> Any:
        """Draw a metric by the reader's language and the target's."""
        from recbole_xling.report.figures import plot_pairs

        return plot_pairs(self._content, self._metric(metric))

    def plot_popularity(self, metric: str | None = None) -> Any:
        """Draw a metric by how often the target occurs in training, with 95% intervals over users."""
        from recbole_xling.report.figures import plot_popularity

        return plot_popularity([self._content], self._metric(metric))

    def plot_items(self) -> Any:
        """Draw the items in the plane, colored by language.

        Raises:
            ConfigError: the model has no vectors of items.
        """
        from recbole_xling.report.figures import plot_items

        return plot_items(self._content_with_model)

    def _repr_html_(self) -> str:
        """Return what notebooks show of the run: model, data and results; all names are escaped."""
        from recbole_xling.errors import XlingError

        facts = {"data": self.size}  # type: ignore[attr-defined]
        try:
            content = self._content
            intervals = content.result.get("intervals", {})  # which earlier releases did not measure
            for metric, value in content.result["test"].items():
                between = "{:.4f} to {:.4f}".format(*intervals[metric]) if metric in intervals else ""
                facts[metric] = f"{value:.4f}" + f" (95% interval {between})" * bool(between)
            facts["folder"] = str(content.folder)
        except XlingError as error:
            facts["results"] = str(error)
        title = f"{self.config['model']} on {self.config['dataset']}"
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in facts.items()
        )
        return f"<table><caption><b>{escape(title)}</b></caption>{rows}</table>"
