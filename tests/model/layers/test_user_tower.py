"""User towers: what they see, what they start from, and which languages they know."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from recbole_xling.errors import ConfigError
from recbole_xling.model.layers.language_embedding import LANGUAGES, LanguageEmbedding, language_numbers
from recbole_xling.model.layers.user_tower import POOLINGS, UserTower, UserTowerConfig


def make(kind: str, *, languages: bool = False, n_heads: int = 2) -> UserTower:
    config = UserTowerConfig(
        user_tower=kind, language_embedding=languages, n_layers=2, n_heads=n_heads, hidden_dropout_prob=0.0,
        attn_dropout_prob=0.0,
    )  # fmt: skip
    met = language_numbers(["de", "en"])
    return UserTower(8, 6, config, item_languages=met, user_languages=met)


def shaken(tower: UserTower) -> UserTower:
    """Return the tower with all weights moved away from where they start."""
    generator = torch.Generator().manual_seed(0)
    for parameter in tower.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.3
    return tower.eval()


@pytest.fixture
def history():
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))


NO_LANGUAGE = torch.zeros(3, 5, dtype=torch.long), torch.zeros(3, dtype=torch.long)


@pytest.mark.parametrize("kind", POOLINGS)
def test_every_tower_starts_as_the_mean_of_the_history_with_newer_items_weighing_more(kind, history):
    users = make(kind).eval()(history, *NO_LANGUAGE)
    for position in range(5):
        weight = 1 / torch.arange(position + 1, 0, -1)
        want = F.normalize((history[:, : position + 1] * weight[:, None]).sum(dim=1), dim=-1)
        torch.testing.assert_close(users[:, position], want)


@pytest.mark.parametrize("kind", POOLINGS)
def test_a_position_sees_nothing_that_comes_after_it(kind, history):
    tower = shaken(make(kind, languages=True))
    changed = history.clone()
    changed[:, 3:] += 5
    language, user = torch.full((3, 5), 30), torch.full((3,), 30)
    before, after = tower(history, language, user), tower(changed, language, user)
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


@pytest.mark.parametrize("kind", POOLINGS)
def test_newer_items_count_by_their_learned_weight(kind, history):
    tower = make(kind).eval()
    tower.pooling.recency.data[0] = 100  # the newest item alone
    torch.testing.assert_close(tower(history, *NO_LANGUAGE), F.normalize(history, dim=-1))


def test_a_language_never_met_is_treated_as_unknown():
    de, fr, nothing = (language_numbers([tag]) for tag in ("de", "fr", "tlh"))
    embedding = LanguageEmbedding(4, met=de).eval()
    embedding.weight.data += torch.arange(len(LANGUAGES) + 1.0)[:, None]
    assert nothing.item() == 0
    assert (embedding(fr) == embedding(nothing)).all()
    assert (embedding(de) != embedding(nothing)).all()


def test_the_unknown_language_is_trained_by_known_ones():
    embedding = LanguageEmbedding(4, met=language_numbers(["de"]), unknown_prob=0.5).train()
    torch.manual_seed(0)
    embedding(language_numbers(["de"] * 200)).sum().backward()
    assert 60 < embedding.weight.grad[0, 0] < 140
    assert embedding.weight.grad[0, 0] + embedding.weight.grad[language_numbers(["de"])[0], 0] == 200


def test_variants_of_a_language_share_a_vector():
    assert language_numbers(["pt-BR", "pt", "PT"]).unique().numel() == 1


def test_users_without_a_history_differ_by_language():
    users = make("mean").eval().empty(language_numbers(["de", "en", "fr"]))
    assert not torch.allclose(users[0], users[1])
    torch.testing.assert_close(users.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize(("kind", "heads", "named"), [("meen", 2, "mean"), ("transformer", 3, "n_heads")])
def test_wrong_settings_name_the_right_ones(kind, heads, named):
    with pytest.raises(ConfigError, match=named):
        make(kind, n_heads=heads)
