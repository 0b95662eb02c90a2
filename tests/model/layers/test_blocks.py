"""Blocks of layers and rotary positions against their equations written out, and what all of them must keep."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.attention import rotated
from recbole_xling.model.layers.hstu import HSTULayer, time_buckets
from recbole_xling.model.layers.ligr import LiGRLayer
from recbole_xling.model.layers.transformer import SequenceEncoder

SIZES = {"max_length": 9, "hidden_size": 8, "n_layers": 2, "n_heads": 2, "inner_size": 12, "hidden_act": "gelu"}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "layer_norm_eps": 1e-12}
KINDS = [(block, positions) for block in ("sasrec", "ligr", "hstu") for positions in ("learned", "rotary")]


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """Give all parameters, gates and constants included, values that matter."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return module.eval()


@pytest.mark.parametrize(("block", "positions"), KINDS)
def test_a_position_sees_nothing_that_comes_after_it(block, positions):
    encoder = randomized(SequenceEncoder(**SIZES, **NO_DROPOUT, block=block, positions=positions))
    items = torch.randn(3, 7, 8)
    changed = items.clone()
    changed[:, 4:] = torch.randn(3, 3, 8)
    every = torch.ones(3, 7, dtype=torch.bool)
    with torch.no_grad():
        before, after = (encoder(x, every).view(3, 7, 8) for x in (items, changed))
        some = encoder(items, every.clone().index_fill_(1, torch.tensor([0, 3, 5]), False))
        short = encoder(items[:, :4], every[:, :4]).view(3, 4, 8)
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.isclose(before[:, 4:], after[:, 4:]).all(dim=2).any()
    torch.testing.assert_close(some.view(3, 4, 8), before[:, [1, 2, 4, 6]])
    torch.testing.assert_close(short, before[:, :4])  # padding on the right changes nothing


@pytest.mark.parametrize(("block", "positions"), KINDS)
def test_the_order_of_the_history_matters(block, positions):
    encoder = randomized(SequenceEncoder(**SIZES, **NO_DROPOUT, block=block, positions=positions))
    items = torch.randn(1, 5, 8)
    last = torch.tensor([[False, False, False, False, True]])
    with torch.no_grad():
        assert not torch.allclose(encoder(items, last), encoder(items[:, [2, 0, 1, 3, 4]], last), atol=1e-3)


@pytest.mark.parametrize(("block", "positions"), KINDS)
def test_all_weights_get_gradients(block, positions):
    encoder = SequenceEncoder(**SIZES, **{**NO_DROPOUT, "hidden_dropout_prob": 0.2}, block=block, positions=positions)
    every = torch.ones(4, 9, dtype=torch.bool)
    (encoder(torch.randn(4, 9, 8), every) * torch.randn(36, 8)).sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())
    assert ("position_embedding.weight" in encoder.state_dict()) == (positions == "learned")


def test_the_default_has_the_weights_that_it_had_and_no_others():
    names = set(SequenceEncoder(**SIZES, **NO_DROPOUT).state_dict())
    parts = ["attention.query_key_value", "attention.dense", "attention_norm", "feed_forward.0", "feed_forward.2"]
    parts = ["input_norm", *(f"layers.{n}.{part}" for n in (0, 1) for part in (*parts, "feed_forward_norm"))]
    want = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert names == want | {"position_embedding.weight"}


def test_rotary_scores_depend_on_the_distance_alone():
    query, key = torch.randn(6), torch.randn(6)
    at = [rotated(x.expand(12, 6)) for x in (query, key)]
    scores = at[0] @ at[1].T  # of each pair of positions
    for distance in range(-11, 12):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-5)
    assert scores[0].std() > 0.1
    want = torch.empty(6)  # Su et al., equation 15, of position 5
    for i in range(3):
        angle = 5 * 10_000 ** (-2 * i / 6)
        want[i] = query[i] * math.cos(angle) - query[i + 3] * math.sin(angle)
        want[i + 3] = query[i + 3] * math.cos(angle) + query[i] * math.sin(angle)
    torch.testing.assert_close(at[0][5], want)


def test_heads_of_odd_size_cannot_be_rotated():
    with pytest.raises(ConfigError, match="even"):
        SequenceEncoder(**{**SIZES, "hidden_size": 6}, **NO_DROPOUT, positions="rotary")


def test_ligr_equals_its_equations():
    layer = randomized(LiGRLayer(8, 2, 12, 0.0, 0.0, 1e-12))
    x = torch.randn(2, 5, 8)
    part = dict(layer.named_parameters())

    def norm(name: str, value: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(value, (8,), part[f"{name}.weight"], part[f"{name}.bias"], 1e-12)

    theirs = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": part["attention.query_key_value.weight"],
            "in_proj_bias": part["attention.query_key_value.bias"],
            "out_proj.weight": part["attention.dense.weight"],
            "out_proj.bias": part["attention.dense.bias"],
        }
    )
    ahead = torch.ones(5, 5, dtype=torch.bool).triu(1)
    y = norm("attention_norm", x)
    gate = torch.sigmoid(x @ part["attention_gate.weight"].T + part["attention_gate.bias"])
    x1 = x + gate * theirs(y, y, y, attn_mask=ahead, need_weights=False)[0]
    w1, w2 = part["gate_and_up.weight"].chunk(2)
    y = norm("feed_forward_norm", x1)
    fed = (F.silu(y @ w1.T) * (y @ w2.T)) @ part["down.weight"].T
    want = x1 + torch.sigmoid(x1 @ part["feed_forward_gate.weight"].T + part["feed_forward_gate.bias"]) * fed
    torch.testing.assert_close(layer(x), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("times", [False, True])
def test_hstu_equals_its_equations(times):
    layer = randomized(HSTULayer(8, 2, 9, 0.0, 0.0, 1e-12, times=times))
    x = torch.randn(1, 5, 8)
    seconds = [0.0, 1.0, 60.0, 60.0, 4e8]
    bucket = time_buckets((1000 * torch.tensor([seconds], dtype=torch.double)).long()) if times else None
    part = dict(layer.named_parameters())
    y = F.layer_norm(x, (8,), part["input_norm.weight"], part["input_norm.bias"], 1e-12)
    u, v, q, k = F.silu(y @ part["gate_value_query_key.weight"].T + part["gate_value_query_key.bias"])[0].chunk(4, -1)
    mixed = torch.zeros(5, 8)
    for head in (slice(0, 4), slice(4, 8)):
        for i in range(5):
            for j in range(i + 1):
                bias = part["distance"][i - j]
                if times:
                    bias = bias + part["time_bias"][int(math.log(max(1.0, seconds[i] - seconds[j])) / 0.301)]
                mixed[i, head] += F.silu(q[i, head] @ k[j, head] + bias) / 9 * v[j, head]
    mixed = F.layer_norm(mixed, (8,), part["mixed_norm.weight"], part["mixed_norm.bias"], 1e-12)
    want = x[0] + (mixed * u) @ part["dense.weight"].T + part["dense.bias"]
    torch.testing.assert_close(layer(x, bucket=bucket)[0], want, rtol=1e-4, atol=1e-5)


def test_times_beyond_all_buckets_are_in_the_last_one():
    assert time_buckets(torch.tensor([[0.0, 1e33]]))[0].tolist() == [[0, 127], [127, 0]]


def test_times_are_for_hstu_and_must_be_told():
    with pytest.raises(ConfigError, match="block=hstu, not sasrec"):
        SequenceEncoder(**SIZES, **NO_DROPOUT, positions="relative_time")
    encoder = SequenceEncoder(**SIZES, **NO_DROPOUT, block="hstu", positions="relative_time")
    with pytest.raises(ConfigError, match="nobody tells: train with positions=learned"):
        encoder(torch.randn(1, 3, 8))
