"""Tiny seeded models for the tests of the shared LLM."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 257,
    "pad_token_id": None,
}
ROPE3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
CONFIGS = {
    "qwen2-tied": Qwen2Config(**SIZES, tie_word_embeddings=True),
    "qwen2-untied": Qwen2Config(**SIZES, tie_word_embeddings=False),
    "llama-untied": LlamaConfig(**SIZES, tie_word_embeddings=False),
    "llama3-tied-bias": LlamaConfig(
        **SIZES, tie_word_embeddings=True, rope_parameters=ROPE3, attention_bias=True
    ),
}


def write_tokenizer(directory: Path, *, marker: bool = True, **settings: Any) -> None:
    """Bytes as tokens 0-255, then control tokens, a tool ``marker`` and padding up to 300."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    for text in ("<|im_start|>", "<|im_end|>"):
        tokenizer.add_special_tokens([AddedToken(text, normalized=False)])
    if marker:
        tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    tokenizer.add_tokens([f"[PAD{i}]" for i in range(259, 290)])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "eos_token": "<|im_end|>", **settings}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def write_model(directory: Path, name: str, *, scale: float = 1.0) -> Any:
    """Save a random model with every weight, norm and bias random; give the transformers one."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(deepcopy(CONFIGS[name]), dtype=torch.float32)
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.normal_(1.0 if "norm" in key else 0.0, 0.15 * scale)
    model.save_pretrained(directory)
    write_tokenizer(directory)
    return model.eval()
