"""``recbole-xling fuse``."""

from __future__ import annotations

import argparse

from recbole_xling.errors import ConfigError, XlingError

DESCRIPTION = "Fuse the rankings of several runs into one, and compare it with each of them."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders")
    parser.add_argument("--method", default="log_softmax", help="log_softmax (default), rrf, combsum, combmnz, rerank")
    parser.add_argument(
        "--weights", type=float, nargs="+", help="of the runs (default: log_softmax tunes them on validation)"
    )
    parser.add_argument(
        "--depth", type=int, help="length of the lists of rrf, combsum, combmnz (1000); candidates of rerank (100)"
    )
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="LANGUAGE", help="rank items in these; reader: his own"
    )
    parser.add_argument("--quota", nargs="+", default=[], metavar="LANGUAGE=N", help="at least N of each list")
    parser.add_argument("--calibration", type=float, default=0.0, help="0 to 1: follow the history's languages")
    parser.add_argument("--output", metavar="FOLDER", help="where the folder goes (default: beside the first run)")
    parser.add_argument("--data_path", help="folder of the dataset, if it has moved")


def run(options: argparse.Namespace) -> str:
    """Fuse runs and return the table of results, and how the fusion compares with each run.

    Raises:
        XlingError: the runs cannot be used, or do not fit each other.
    """
    from recbole_xling.evaluator.comparison_table import comparison_text
    from recbole_xling.evaluator.report import result_table
    from recbole_xling.quick_start.compare import compare
    from recbole_xling.quick_start.fuse import fuse

    quotas = {}
    for word in options.quota:
        language, _, number = word.partition("=")
        if not number.isdigit():
            raise ConfigError(f"--quota {word}: write it as language=number, such as fr=3")
        quotas[language] = int(number)
    settings = {"data_path": options.data_path} if options.data_path else {}
    result = fuse(
        options.runs,
        options.method,
        options.weights,
        depth=options.depth,
        only_languages=options.only,
        quotas=quotas,
        calibration=options.calibration,
        checkpoint_dir=options.output,
        **settings,
    )
    found = result["fusion"]
    weights = ", ".join(f"{weight:.3g}" for weight in found["weights"])
    kind = "tuned on validation" if found["weights_tuned"] else "given" if options.weights else "default"
    title = f"{found['method']} of {len(options.runs)} runs on {result['dataset']}, test; weights {weights} ({kind})"
    try:
        compared = comparison_text(compare([result["run_dir"], *options.runs], slices=()))
    except XlingError as error:  # the runs have been tested on other data than the fusion, or nothing has
        compared = f"not compared with the results of the runs: {error}"
    return f"\n{title}\n\n{result_table(result, list(result['test']))}\n\n{compared}\n\nFolder: {result['run_dir']}"
