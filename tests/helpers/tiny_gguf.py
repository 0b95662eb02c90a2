"""A tiny language model with random weights as a GGUF file, the format of llama.cpp."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}  # how transformers and GGUF call the parts of a layer


def write_tiny_gguf(file: Path) -> Any:
    """Write a Qwen2 of 32 dimensions and 3 layers, and a tokenizer of single letters; return the model."""
    import gguf
    from transformers import AutoModel, Qwen2Config

    letters = string.ascii_lowercase
    tokens = ["<pad>", "<eos>", *letters, "\u0120", *("\u0120" + letter for letter in letters)]
    sizes: dict[str, int] = {"num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1}
    sizes |= {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
    torch.manual_seed(0)
    model = AutoModel.from_config(
        Qwen2Config(vocab_size=len(tokens), initializer_range=0.3, tie_word_embeddings=True, **sizes)
    ).eval()
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_block_count(sizes["num_hidden_layers"])
    writer.add_head_count(sizes["num_attention_heads"])
    writer.add_head_count_kv(sizes["num_key_value_heads"])
    writer.add_embedding_length(sizes["hidden_size"])
    writer.add_feed_forward_length(sizes["intermediate_size"])
    writer.add_context_length(sizes["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(model.config.rms_norm_eps)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, *[1] * (len(tokens) - 2)])
    writer.add_token_merges([f"\u0120 {letter}" for letter in letters])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in model.state_dict().items():
        renamed = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}.get(name)
        if renamed is None:
            _, number, part = name.split(".", 2)
            part, _, kind = part.rpartition(".")
            renamed = f"blk.{number}.{_LAYER[part]}.{kind}"
        writer.add_tensor(renamed, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model
