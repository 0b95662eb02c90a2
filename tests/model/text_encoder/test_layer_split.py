"""An encoder cut in two computes what it computes in one piece, and shares all weights with it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers

from recbole_xling.errors import ConfigError
from recbole_xling.model.text_encoder.layer_split import lower_part, transformer_layers, upper_part

_SIZES: dict[str, Any] = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "initializer_range": 0.3}
_BERT: dict[str, Any] = {**_SIZES, "num_hidden_layers": 3, "intermediate_size": 24, "max_position_embeddings": 40}
_DECODER: dict[str, Any] = {**_BERT, "num_key_value_heads": 1, "pad_token_id": 1}
_SLIDING: dict[str, Any] = {
    **{**_DECODER, "head_dim": 8, "sliding_window": 3},
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_CONFIGS = {
    "bert": lambda: transformers.BertConfig(**_BERT),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**_BERT, pad_token_id=1),
    "mpnet": lambda: transformers.MPNetConfig(**_BERT, pad_token_id=1),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=50, dim=16, n_heads=2, n_layers=3, hidden_dim=24, max_position_embeddings=40, initializer_range=0.3
    ),
    "modernbert": lambda: transformers.ModernBertConfig(
        **_BERT, global_attn_every_n_layers=2, local_attention=4, pad_token_id=1, cls_token_id=0, sep_token_id=2
    ),
    "gemma": lambda: transformers.GemmaConfig(**_DECODER, head_dim=8),
    "gemma2": lambda: transformers.Gemma2Config(**_SLIDING),
    "gemma3": lambda: transformers.Gemma3TextConfig(**_SLIDING),
    "llama": lambda: transformers.LlamaConfig(**_DECODER),
    "mistral": lambda: transformers.MistralConfig(**_DECODER, sliding_window=3),
    "qwen2": lambda: transformers.Qwen2Config(**_DECODER),
    "qwen3": lambda: transformers.Qwen3Config(**_DECODER, head_dim=8),
}


def _model(kind: str) -> Any:
    torch.manual_seed(0)
    return transformers.AutoModel.from_config(_CONFIGS[kind]()).eval()


def _inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.arange(9) < torch.tensor([[9], [4], [1]])
    return {"input_ids": torch.randint(3, 50, (3, 9)).masked_fill(~mask, 1), "attention_mask": mask.long()}


@pytest.mark.parametrize("n_lower", [0, 1, 2])
@pytest.mark.parametrize("kind", _CONFIGS)
def test_the_parts_one_after_the_other_are_the_whole(kind: str, n_lower: int) -> None:
    model, inputs = _model(kind), _inputs()
    tokens = inputs["attention_mask"].bool()
    with torch.no_grad():
        expected = model(**inputs).last_hidden_state
        states = lower_part(model, n_lower)(**inputs).last_hidden_state
        assert not torch.allclose(states[tokens], expected[tokens], atol=1e-2), "the lower part is not the whole"
        states = states.masked_fill(~tokens[..., None], 0)  # what padding holds does not matter
        above = upper_part(model, n_lower)(inputs_embeds=states, attention_mask=inputs["attention_mask"])
    torch.testing.assert_close(above.last_hidden_state[tokens], expected[tokens], atol=1e-5, rtol=1e-4)
    assert len(transformer_layers(model)) == 3, "the model itself is not changed"


def test_the_parts_share_the_weights() -> None:
    model = _model("xlm-roberta")
    lower, upper = lower_part(model, 1), upper_part(model, 1)
    own = {id(parameter) for parameter in model.parameters()}
    parts = [{id(parameter) for parameter in part.parameters()} for part in (lower, upper)]
    assert parts[0] | parts[1] | {id(p) for p in getattr(model.pooler, "parameters", list)()} == own
    model.double()
    assert {parameter.dtype for part in (lower, upper) for parameter in part.parameters()} == {torch.float64}


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    config = transformers.GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1, n_positions=16)
    model = transformers.AutoModel.from_config(config)
    with pytest.raises(
        ConfigError, match=r"architecture for adapter_layers 'gpt2'.*modernbert.*xlm-roberta.*all layers"
    ):
        lower_part(model, 0)
