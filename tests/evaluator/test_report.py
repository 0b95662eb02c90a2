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
