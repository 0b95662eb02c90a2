"""Learned vectors of languages whose numbers are the same for every dataset."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# ISO 639-1, in alphabetical order
LANGUAGES = tuple(
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo "
    "es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka "
    "kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng "
    "nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su "
    "sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu".split()
)
_NUMBER = {tag: number for number, tag in enumerate(LANGUAGES, start=1)}


def language_numbers(tags: Sequence[str]) -> Tensor:
    """Return the numbers of BCP 47 tags, ``(len(tags),)``: that of the two-letter language, 0 for all others."""
    return torch.tensor([_NUMBER.get(tag.split("-")[0].lower(), 0) for tag in tags], dtype=torch.long)


class LanguageEmbedding(nn.Module):
    """A vector per language and one for unknown ones, all zero at first.

    In training some languages, drawn at random, count as unknown, so that the vector of the unknown language learns
    what languages have in common: it represents a language that training never met.

    Args:
        size: of the vectors.
        met: numbers of the languages that training meets; kept in checkpoints.
        unknown_prob: share of languages that count as unknown in a training step.
    """

    met: Tensor

    def __init__(self, size: int, met: Tensor, unknown_prob: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(LANGUAGES) + 1, size))
        self.register_buffer("met", torch.zeros(len(LANGUAGES) + 1, dtype=torch.bool).index_fill(0, met, True))
        self.unknown_prob = unknown_prob

    def forward(self, language: Tensor) -> Tensor:
        """Return the vectors of language numbers, ``(..., size)`` from ``(...)``."""
        language = language * self.met[language]
        if self.training:
            language = language * (torch.rand(language.shape, device=language.device) >= self.unknown_prob)
        return nn.functional.embedding(language, self.weight)


@contextmanager
def languages_kept(model: nn.Module) -> Iterator[None]:
    """Let languages that training meets now be learned beside those of the weights that are loaded meanwhile.

    New ones start as the unknown language, as which the weights know them.

    Args:
        model: to be trained on.
    """
    own = [(part, part.met.clone()) for part in model.modules() if isinstance(part, LanguageEmbedding)]
    yield
    for part, met in own:
        with torch.no_grad():
            part.weight[met & ~part.met] = part.weight[0].clone()
        part.met |= met
