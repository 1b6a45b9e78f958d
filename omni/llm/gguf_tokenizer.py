"""The tokenizer inside a GGUF file, rebuilt as the upstream ``tokenizer.json`` has it.

A GGUF file holds vocabulary, merges and the *name* of the way text is split before merging; what
the name stands for is written down here, for byte-level BPE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from omni.errors import WeightsError

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer(fields: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer from a GGUF file's metadata.

    Tokens that the file marks as unused only fill the embedding matrix up and stay out of the
    vocabulary, as they do upstream.

    Raises:
        WeightsError: the tokenizer is not byte-level BPE, or splits text in an unknown way.

    """
    kind, split = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or split not in ("qwen2", "smollm"):
        raise WeightsError(
            f"cannot convert the GGUF tokenizer {kind!r} with splitting {split!r}; "
            "expected 'gpt2' with 'qwen2' or 'smollm'"
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]
    vocabulary = {
        token: i
        for i, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if type_ != UNUSED
    }
    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.decoder = decoders.ByteLevel()
    if split == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ == CONTROL
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken(token, special=False, normalized=False)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ == USER_DEFINED
        ]
    )
    return tokenizer


@dataclass(frozen=True)
class SpecialTokens:
    """The tokens with a role: (id, token) or None, the chat template, and where text may stop."""

    bos: tuple[int, str] | None
    eos: tuple[int, str] | None
    pad: tuple[int, str] | None
    unk: tuple[int, str] | None
    stop_ids: list[int]
    additional: list[str]
    add_bos: bool
    chat_template: str | None

    def ids(self) -> dict[str, int]:
        """Give the entries for ``config.json``."""
        named = {"bos_token_id": self.bos, "eos_token_id": self.eos, "pad_token_id": self.pad}
        return {key: token[0] for key, token in named.items() if token}

    def tokenizer_config(self) -> dict[str, Any]:
        """Give the whole ``tokenizer_config.json``."""
        named = {
            "bos_token": self.bos,
            "eos_token": self.eos,
            "pad_token": self.pad,
            "unk_token": self.unk,
        }
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "add_bos_token": self.add_bos,
            "additional_special_tokens": self.additional,
        }
        config |= {key: token[1] for key, token in named.items() if token}
        if self.chat_template:
            config["chat_template"] = self.chat_template
        return config


def special_tokens(fields: Mapping[str, Any]) -> SpecialTokens:
    """Read the tokens with a role from a GGUF file's metadata."""
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    types: list[int] = fields["tokenizer.ggml.token_type"]

    def named(role: str) -> tuple[int, str] | None:
        token_id = fields.get(f"tokenizer.ggml.{role}_token_id")
        return None if token_id is None else (int(token_id), tokens[token_id])

    eos = named("eos")
    control = {
        t: i for i, (t, type_) in enumerate(zip(tokens, types, strict=True)) if type_ == CONTROL
    }
    stops = [eos[0]] if eos else []
    # Chat models end a turn with their eos, but a text without turns ends with this one.
    if "<|endoftext|>" in control and control["<|endoftext|>"] not in stops:
        stops.append(control["<|endoftext|>"])
    return SpecialTokens(
        bos=named("bos"),
        eos=eos,
        pad=named("padding"),
        unk=named("unknown"),
        stop_ids=stops,
        additional=list(control),
        add_bos=bool(fields.get("tokenizer.ggml.add_bos_token", False)),
        chat_template=fields.get("tokenizer.chat_template"),
    )
