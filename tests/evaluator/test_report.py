"""The printed table of results."""

from __future__ import annotations

from recbole_xling.evaluator.report import result_table


def test_every_slice_has_its_line_those_of_unknown_language_too():
    slices = {
        "target_language=de": {"n": 3, "ndcg@10": 0.5},
        "target_language=und": {"n": 2, "ndcg@10": 0.25},
        "user_language=da": {"n": 5, "ndcg@10": 0.1, "transfer": "zero-shot"},
        "user_language=und": {"n": 5, "ndcg@10": 0.4},
        "language_worst": {"language": "de", "n": 3, "ndcg@10": 0.5},
    }
    lines = [
        line.split("  ")
        for line in result_table({"test": {"ndcg@10": 0.4}, "n_test": 5, "slices": slices}, ["ndcg@10"]).splitlines()
    ]
    found = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert ["target in: de", "3", "0.5000"] in found
    assert ["target in: und", "2", "0.2500"] in found
    assert ["reader of: da (zero-shot)", "5", "0.1000"] in found
    assert ["reader of: und", "5", "0.4000"] in found
    assert ["worst language: de", "3", "0.5000"] in found


def test_without_a_test_the_table_says_so():
    assert result_table({"test": {}, "n_test": 0, "slices": {}}, []) == "The split leaves nothing to test on."


def test_intervals_are_below_all_users_and_the_gap_and_the_table_stays_narrow():
    metrics = [f"{name}@10" for name in ("recall", "mrr", "ndcg")]
    ends = {metric: [0.0123, 0.0456] for metric in metrics}
    gap = {
        **{"n": 5, "n_cross": 2, "n_same": 3, **dict.fromkeys(metrics, -0.2)},
        "intervals": {metric: [-0.3, 0.1] for metric in metrics},
    }
    slices = {
        "target_language=de": {**dict.fromkeys(metrics, 0.03), "n": 5, "intervals": ends},
        "cross_language=yes": {**dict.fromkeys(metrics, 0.03), "n": 5, "intervals": ends},
        "language_pair=de>fr": {**dict.fromkeys(metrics, 0.03), "n": 5, "intervals": ends},
        "language_gap": gap,
        "language_gap=de": gap,
    }
    result = {"test": dict.fromkeys(metrics, 0.03), "intervals": ends, "n_test": 5, "slices": slices}
    lines = [line.split() for line in result_table(result, metrics).splitlines()]
    first = lines.index(["all", "users", "5", "0.0300", "0.0300", "0.0300"])
    assert lines[first + 1 : first + 3] == [
        ["95%", "interval", "from", *["0.0123"] * 3],
        ["95%", "interval", "to", *["0.0456"] * 3],
    ]
    begin = lines.index(["gap:", "other", "language", "minus", "same", "5", *["-0.2000"] * 3])
    assert lines[begin + 1 : begin + 3] == [
        ["95%", "interval", "from", *["-0.3000"] * 3],
        ["95%", "interval", "to", *["0.1000"] * 3],
    ]
    assert ["gap", "of", "readers", "of:", "de", "5", *["-0.2000"] * 3] in lines
    assert "de>fr" not in result_table(result, metrics)
    assert result_table(result, metrics).count("95%") == 4  # that of readers of German would be two more
    assert max(map(len, result_table(result, metrics).splitlines())) <= 100
    earlier = {"target_language=de": {"n": 5, **dict.fromkeys(metrics, 0.03)}}  # a release without intervals
    assert "95%" not in result_table({"test": result["test"], "n_test": 5, "slices": earlier}, metrics)
