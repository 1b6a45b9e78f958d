"""Conversation <-> token ids, by the model's own tokenizer and chat template.

What people type can never become a control token: ``<|im_end|>`` in a message is encoded as the
characters it consists of.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from omni.errors import InputError, WeightsError
from omni.llm.tools import (
    HERMES,
    Rendered,
    ToolFormat,
    add_own_text,
    declaration,
    detect_format,
    lay_out,
)
from omni.types import Message, Span, Tool

_CUT = "\ufdd0"
"""A Unicode noncharacter, so never part of text: marks where a control token is cut in two."""
_PLACE = "\ufdd1"
"""Another: on both sides of the number of a span that is read by its embeddings."""
_PIECES = re.compile(f"([^{_CUT}{_PLACE}]+)|{_PLACE}([0-9]+){_PLACE}")
_PADDING = re.compile(r"\[PAD\d+\]|<\|?(unused|reserved_special_token_)\d+\|?>")
_END_OF_TURN = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>")


class ChatTokenizer:
    """Tokenizer and chat template of one model directory."""

    vocabulary: int
    """Ids from here on are padding of the matrices and never text."""
    eos_ids: frozenset[int]
    """Any of these ends an answer."""

    def __init__(self, directory: Path) -> None:
        """Read ``tokenizer.json`` and its companions; convert other formats with transformers.

        Raises `WeightsError` when there is no tokenizer.
        """
        self._settings = _read_json(directory / "tokenizer_config.json")
        self._tokenizer, self._template_text = _load(directory, self._settings)
        self._template: jinja2.Template | None = None
        self._added = {
            i: t for i, t in sorted(self._tokenizer.get_added_tokens_decoder().items()) if t.content
        }
        self._special = frozenset(i for i, t in self._added.items() if t.special)
        self._silent = frozenset(
            i for i in self._special if "tool_call" not in self._added[i].content
        )
        self._cut_special = _any_of([t.content for t in self._added.values() if t.special])
        self._cut_added = _any_of([t.content for t in self._added.values()])
        self.vocabulary = self._tokenizer.get_vocab_size()
        while self.vocabulary and self._is_padding(self.vocabulary - 1):
            self.vocabulary -= 1
        self.eos_ids = self._find_eos(directory)
        decoder = self._tokenizer.decoder
        kind = b"" if decoder is None else decoder.__getstate__()
        self._byte_level = b'"ByteLevel"' in kind
        self._byte_of = _byte_level_alphabet() if self._byte_level else {}

    def encode(self, text: str) -> list[int]:
        """Ids of plain text: no control tokens are added or recognised in it."""
        return self._ids(_cut(text, self._cut_added))

    @property
    def controls(self) -> dict[str, int]:
        """Texts that are one token each and never part of plain text, and their ids."""
        return {token.content: i for i, token in self._added.items() if i < self.vocabulary}

    @cached_property
    def tool_format(self) -> ToolFormat:
        """How this model writes tool calls."""
        if self._template_text is None:
            return HERMES
        return detect_format(lambda messages, tools: self._render(messages, True, tools))

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        tools: Sequence[Tool] = (),
    ) -> list[int]:
        """Ids of a conversation; spans of other media are read by their text.

        A `Span.wordless` one is a single negative id: -1 the first of the conversation, -2 the
        second. `omni.sequence.chat` puts its rows there.

        Tools and tool calls are laid out as the chat template has them, else as `HERMES`. Raises
        `InputError` when the model has no chat template or it refuses the messages.
        """

        def clean(message: Message, text: str) -> str:
            # The model's own words may hold markup that is a token of its own.
            own_words = message.role in ("assistant", "system") and not message.tool_calls
            return _cut(text, self._cut_special if own_words else self._cut_added)

        places = itertools.count()

        def content(message: Message) -> str:
            pieces = (
                f"{_PLACE}{next(places)}{_PLACE}"
                if isinstance(part, Span) and part.wordless
                else clean(message, (part if isinstance(part, str) else part.text) or "")
                for part in message.parts
            )
            return "\n".join(filter(None, pieces))

        plain = not tools and not any(m.tool_calls or m.role == "tool" for m in messages)
        format = HERMES if plain else self.tool_format
        rendered = lay_out(messages, format, content, clean)
        declared = [declaration(tool, lambda text: _cut(text, self._cut_added)) for tool in tools]
        if declared and not format.native:
            rendered, declared = add_own_text(rendered, declared), []
        return self._ids(self._render(rendered, add_generation_prompt, declared))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; control tokens are left out, half characters become U+FFFD."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def token_bytes(self, token: int) -> bytes:
        """What one token adds to the text as UTF-8 bytes, which may be half a character.

        Control tokens add nothing, but for those that mark tool calls.
        """
        if token in self._silent or token >= self.vocabulary:
            return b""
        if token in self._added:
            return self._added[token].content.encode()
        piece = self._tokenizer.id_to_token(token)
        if piece is None:
            return b""
        if self._byte_level:
            return bytes(self._byte_of[c] for c in piece)
        if hexadecimal := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", piece):
            return bytes([int(hexadecimal[1], 16)])
        if "▁" in piece:
            return str(piece).replace("▁", " ").encode()
        return self.decode([token]).encode()

    def _ids(self, text: str) -> list[int]:
        # Pieces are encoded one by one, so that a cut control token does not grow together again.
        ids: list[int] = []
        for piece, place in _PIECES.findall(text):
            if place:
                ids.append(-1 - int(place))
            else:
                ids.extend(self._tokenizer.encode(piece, add_special_tokens=False).ids)
        return ids

    def _render(
        self,
        messages: list[Rendered],
        add_generation_prompt: bool,
        tools: list[Rendered],
    ) -> str:
        if self._template_text is None:
            raise InputError(
                "the model has no chat template, so it cannot hold a conversation; choose an "
                "instruction-tuned model, or put a chat_template.jinja into its directory",
                param="model",
            )
        try:
            if self._template is None:
                self._template = _environment().from_string(self._template_text)
            return self._template.render(
                messages=messages,
                tools=tools or None,
                add_generation_prompt=add_generation_prompt,
                **{k: _content(self._settings.get(k)) for k in ("bos_token", "eos_token")},
            )
        except jinja2.TemplateError as error:
            raise InputError(
                f"the model's chat template refuses the conversation: {error}", param="messages"
            ) from error

    def _is_padding(self, token: int) -> bool:
        piece = self._tokenizer.id_to_token(token)
        return piece is None or _PADDING.fullmatch(piece) is not None

    def _find_eos(self, directory: Path) -> frozenset[int]:
        found: set[int] = set()
        for name in ("generation_config.json", "config.json"):
            ids = _read_json(directory / name).get("eos_token_id")
            found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
        for text in (_content(self._settings.get("eos_token")), *_END_OF_TURN):
            token = self._tokenizer.token_to_id(text) if text else None
            if token is not None and (token in self._special or text not in _END_OF_TURN):
                found.add(token)
        return frozenset(found)


def _load(directory: Path, settings: dict[str, Any]) -> tuple[Tokenizer, str | None]:
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {t["name"]: t["template"] for t in template}
        template = named.get("default") or next(iter(named.values()), None)
    if (file := directory / "chat_template.jinja").exists():
        template = file.read_text(encoding="utf-8")
    if (file := directory / "tokenizer.json").exists():
        try:
            return Tokenizer.from_file(str(file)), template
        except Exception as error:
            raise WeightsError(f"{file} cannot be read ({error}); get the file again") from error
    from transformers import AutoTokenizer

    try:
        slow = AutoTokenizer.from_pretrained(directory)
        return slow.backend_tokenizer, template or slow.chat_template
    except Exception as error:
        raise WeightsError(f"{directory} has no tokenizer that can be read ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _content(token: Any) -> str:
    """Of an entry of tokenizer_config.json: a string, or an object with the string in it."""
    return str(token["content"]) if isinstance(token, dict) else (token or "")


def _any_of(texts: list[str]) -> re.Pattern[str] | None:
    longest_first = sorted((t for t in texts if len(t) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _cut(text: str, pattern: re.Pattern[str] | None) -> str:
    text = text.replace(_CUT, "").replace(_PLACE, "")
    return text if pattern is None else pattern.sub(lambda m: m[0][0] + _CUT + m[0][1:], text)


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as chat templates expect it (the same helpers as in transformers)."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _byte_level_alphabet() -> dict[str, int]:
    """Character -> byte of GPT-2's byte-level BPE (Radford et al., 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in printable]
    alphabet = {chr(b): b for b in printable}
    alphabet.update({chr(256 + i): b for i, b in enumerate(others)})
    return alphabet
