"""Kinds of splits: what is accepted, and what is refused with a list of the options."""

from __future__ import annotations

import pytest

from recbole_xling.config import XLingConfig, plain_settings
from recbole_xling.data.splits.settings import ColdItems, GlobalTime, LanguageTransfer, read_split
from recbole_xling.errors import ConfigError

TRANSFER = {"source": ["de"], "target": ["en", "fr"], "by": "item"}


@pytest.mark.parametrize(
    ("split", "setting"),
    [
        ({"LS": "valid_and_test"}, None),
        ({"RS": [5, 3, 2]}, None),
        ({"TS": [0.8, 0.1, 0.1]}, None),
        ({"GT": [6, 3, 1]}, GlobalTime(shares=(0.6, 0.3, 0.1))),
        ({"GT": [100, 200.5]}, GlobalTime(points=(100.0, 200.5))),
        ({"GT": ["1970-01-02", "1970-01-02T00:00:10+00:00"]}, GlobalTime(points=(86400.0, 86410.0))),
        ({"GT": ["1970-01-02T01:00:00+01:00", "1970-01-03T00:00:00Z"]}, GlobalTime(points=(86400.0, 172800.0))),
        ({"CI": [8, 0, 2]}, ColdItems((0.8, 0.0, 0.2))),
        ({"LT": TRANSFER}, LanguageTransfer(("de",), ("en", "fr"), "item")),
        ({"LT": {**TRANSFER, "users": 5}}, LanguageTransfer(("de",), ("en", "fr"), "item", users=5)),
        ({"LT": {**TRANSFER, "test": "both"}}, LanguageTransfer(("de",), ("en", "fr"), "item", test="both")),
    ],
)
def test_a_split_setting_is_read(split, setting):
    assert read_split(split) == setting


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (None, "'CI'.*'LT'"),
        ({"GT": [0.8, 0.1, 0.1], "CI": [0.8, 0.1, 0.1]}, "one of"),
        ({"GS": [0.8, 0.1, 0.1]}, "unknown split 'GS'.*CI, GT, LS, LT, RS, TS"),
        ({"LS": "test"}, "valid_and_test"),
        ({"RS": [0.8, 0.2]}, "three shares"),
        ({"GT": [0.8]}, "three shares"),
        ({"GT": [0.8, 0.2, 0]}, "share for training and one for the test"),
        ({"GT": [0.8, "0.1", 0.1]}, "three shares"),
        ({"GT": ["2024-06-01", "2024-05-01"]}, "in order"),
        ({"GT": ["May", "June"]}, "dates or time stamps.*'May'"),
        ({"CI": [0, 0.5, 0.5]}, "share for training"),
        ({"CI": [0.8, -0.1, 0.3]}, "three shares"),
        ({"CI": [True, 0.1, 0.1]}, "three shares"),
        ({"CI": 0.2}, "three shares"),
        ({"LT": "de"}, "source, target and by"),
        ({"LT": {"source": ["de"], "by": "user"}}, "target: a list of languages"),
        ({"LT": {**TRANSFER, "source": "de"}}, "source: a list"),
        ({"LT": {**TRANSFER, "source": ["en"]}}, "differ"),
        ({"LT": {"source": ["de"], "target": ["en"]}}, "by: user, item"),
        ({"LT": {**TRANSFER, "user": 5}}, "unknown key of split LT 'user'.*'users'"),
        ({"LT": {**TRANSFER, "users": 0}}, "users"),
        ({"LT": {**TRANSFER, "test": "source"}}, "unknown value of test in split LT 'source'"),
        ({"LT": {**TRANSFER, "interactions": 1.5}}, "interactions"),
        ({"LT": {**TRANSFER, "users": 5, "interactions": 5}}, "either users or interactions"),
    ],
)
@pytest.mark.parametrize("model", ["LLMSASRec", "BPR"])
def test_a_wrong_split_setting_is_named_before_anything_runs(split, message, model):
    with pytest.raises(ConfigError, match=message):
        XLingConfig(model, "small", config_dict={"eval_args": {"split": split}})


def test_splits_in_time_are_refused_without_time_order():
    with pytest.raises(ConfigError, match="time order"):
        XLingConfig("BPR", "small", config_dict={"eval_args": {"split": {"CI": [8, 1, 1]}, "order": "RO"}})


def test_dates_of_a_split_in_yaml_stay_text(tmp_path):
    (tmp_path / "config.yaml").write_text("eval_args:\n  split: {GT: [2024-05-01, 2024-06-01]}\n")
    config = XLingConfig("BPR", "small", [tmp_path / "config.yaml"])
    assert plain_settings(config)["eval_args"]["split"] == {"GT": ["2024-05-01", "2024-06-01"]}
