"""Constrained decoding: which tokens may come next, so that calls and JSON are always valid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper
from torch import Tensor

from omni.errors import InputError
from omni.llm.grammar import calls_rules, json_rule, words_rule
from omni.llm.tools import ToolFormat
from omni.types import ToolUse

_KEPT = 32
"""Compiled grammars that are kept; one is small, and compiling takes a few milliseconds."""


class _Tokenizer(Protocol):
    vocabulary: int
    eos_ids: frozenset[int]

    @property
    def controls(self) -> dict[str, int]: ...

    @property
    def tool_format(self) -> ToolFormat: ...

    def token_bytes(self, token: int) -> bytes: ...

    def encode(self, text: str) -> list[int]: ...


class Grammars:
    """Makes the `Constraint` of each answer for one tokenizer.

    ``lenient`` is for small models, which leave the marker of a call out and repeat what tools say
    with its markup: a JSON object at the start of an answer is a call, and words do not begin as
    markup.
    """

    def __init__(self, tokenizer: _Tokenizer, *, lenient: bool = False) -> None:
        self._tokenizer = tokenizer
        self.lenient = lenient
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()

    def constraint(
        self, use: ToolUse, schema: Mapping[str, Any] | None = None
    ) -> Constraint | None:
        """What an answer has to follow; None when it is free.

        Raises `InputError` for a tool that is not there or a schema that cannot be followed.
        """
        speaks_of_tools = use.tools or use.choice == "none"
        format = self._tokenizer.tool_format if speaks_of_tools else None
        if use.choice == "required":
            tools = [t for t in use.tools if use.name in (None, t.name)]
            if not tools:
                raise InputError(
                    f"tool_choice asks for {use.name or 'a tool'!r}, which is not among the tools; "
                    "send it with the tools or choose another",
                    param="tool_choice",
                )
        else:
            tools = list(use.tools) if use.choice == "auto" else []
        if format is None or not tools:
            calls = spelled = ""
        else:
            controls = self._tokenizer.controls
            calls = calls_rules(tools, format, controls, use.parallel)
            spelled = calls_rules(tools, format, {}, use.parallel)
        if use.choice == "required":
            return Constraint(self, self._start(f"start: calls\n{calls}"), in_call=True)
        if schema is not None:
            if calls and format is not None and not format.marker:
                raise InputError(
                    "calls of this model are plain JSON and cannot be told from an answer in "
                    "JSON; send either a response format or tools",
                    param="response_format",
                )
            rules = f"start: {'calls | ' if calls else ''}schema\nschema: {json_rule(schema)}"
            return Constraint(self, self._start(f"{rules}\n{calls}"))
        if format is None:
            return None
        if not calls:
            return Constraint(
                self, self._start(f"start: WORDS\n{words_rule(format, self.lenient)}")
            )
        return Constraint(
            self,
            None,
            calls=self._start(f"start: calls\n{calls}"),
            spelled=self._start(f"start: calls\n{spelled}"),
            marker=format.marker,
        )

    def warm_up(self) -> None:
        """Prepare the vocabulary, which takes about a second, before the first answer needs it."""
        _ = self._vocabulary, self.bare, self.markup

    def _start(self, grammar: str) -> LLMatcher:
        matcher = self._compiled.get(grammar)
        if matcher is None:
            matcher = LLMatcher(self._vocabulary, grammar, log_level=0)
            if matcher.is_error():
                raise InputError(
                    f"the tools or the schema cannot be followed: {matcher.get_error()}",
                    param="tools",
                )
            self._compiled[grammar] = matcher
        self._compiled.move_to_end(grammar)
        while len(self._compiled) > _KEPT:
            self._compiled.popitem(last=False)
        return matcher.deep_copy()

    @property
    def vocabulary(self) -> int:
        """Number of ids that a mask covers."""
        return self._tokenizer.vocabulary

    @cached_property
    def bare(self) -> Tensor:
        """Ids of tokens that begin a JSON object."""
        return self._beginning(b"{")

    @cached_property
    def markup(self) -> Tensor:
        """Ids of tokens that begin markup: small models repeat a tool's output with its tags."""
        return self._beginning(b"<")

    def _beginning(self, text: bytes) -> Tensor:
        spelled = (self._tokenizer.token_bytes(i).lstrip() for i in range(self.vocabulary))
        return torch.tensor([i for i, s in enumerate(spelled) if s.startswith(text)])

    def bytes_as_tokens(self, text: bytes) -> list[int]:
        """One token for each byte."""
        return [self._single[bytes([byte])] for byte in text]

    def spell(self, token: int) -> bytes:
        """What a token adds to the text."""
        return self._tokenizer.token_bytes(token)

    @cached_property
    def _single(self) -> dict[bytes, int]:
        ids = range(self.vocabulary)
        return {s: i for i in ids if len(s := self._tokenizer.token_bytes(i)) == 1}

    @cached_property
    def _vocabulary(self) -> LLTokenizer:
        end, *others = sorted(self._tokenizer.eos_ids)
        return LLTokenizer(
            TokenizerWrapper(_Vocabulary(self._tokenizer, end)),
            n_vocab=self.vocabulary,
            eos_token=[end, *others],
        )


class _Vocabulary:
    """The tokenizer as llguidance wants to see it."""

    bos_token_id = None

    def __init__(self, tokenizer: _Tokenizer, end: int) -> None:
        controls = {i: text for text, i in tokenizer.controls.items()}
        self.eos_token_id = end
        self.special_token_ids = list(controls)
        self.tokens = [
            controls[i].encode() if i in controls else tokenizer.token_bytes(i)
            for i in range(tokenizer.vocabulary)
        ]
        self._encode = tokenizer.encode

    def __call__(self, text: str) -> Sequence[int]:
        return self._encode(text)


class Constraint:
    """Follows one generation and says what may come next.

    With ``calls`` the text is free until a call begins: by the marker, or, where there is none or
    the grammars are lenient, by a JSON object at the very start. What is then drawn is the opening.
    """

    def __init__(
        self,
        grammars: Grammars,
        matcher: LLMatcher | None,
        *,
        calls: LLMatcher | None = None,
        spelled: LLMatcher | None = None,
        marker: str = "",
        in_call: bool = False,
    ) -> None:
        self._grammars = grammars
        self._matcher = matcher
        self._calls, self._spelled = calls, spelled
        self._marker = marker.encode()
        self._blank = True
        self._tail = b""
        self._mask = np.empty((grammars.vocabulary + 31) // 32, np.int32)
        self.in_call = in_call
        """Whether a call is being written, or may be from the next token on."""
        self.bias = 0.0
        """Added to the log odds that the answer begins with a call."""

    @property
    def finished(self) -> bool:
        """Whether nothing may follow but the end."""
        return self._matcher is not None and self._matcher.is_stopped()

    def apply(self, logits_V: Tensor) -> None:
        """Rule out, in place, what may not come next. Raises `InputError` when it is too hard."""
        if self._matcher is not None:
            matcher = self._matcher
            matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
            self._check(matcher)
            bits = np.unpackbits(self._mask.view(np.uint8), bitorder="little")
            allowed_V = torch.from_numpy(bits[: len(logits_V)].view(np.bool_))
            logits_V.masked_fill_(~allowed_V.to(logits_V.device), -torch.inf)
        elif self._blank and (self._grammars.lenient or not self._marker):
            ways = self._ways(logits_V)
            unwanted = [self._grammars.bare]
            if self._grammars.lenient:
                unwanted.append(self._grammars.markup)
            for ids in unwanted:
                logits_V[ids.to(logits_V.device)] = -torch.inf
            logits_V[self._opening] = ways.logsumexp(-1) + self.bias

    def advance(self, token: int) -> list[int]:
        """Take the token that was drawn; returns those that must follow and need not be drawn."""
        if self._matcher is not None:
            self._matcher.consume_token(token)
        elif not self._begins(token):
            return []
        assert self._matcher is not None
        self._check(self._matcher)
        forced: list[int] = self._matcher.compute_ff_tokens()
        self._matcher.consume_tokens(forced)
        return forced

    @property
    def chooses(self) -> bool:
        """Whether the model may choose between words and a call."""
        return self._calls is not None

    def odds(self, logits_V: Tensor) -> float:
        """Log odds that an answer that `chooses` begins with a call."""
        logits_V = logits_V[: self._grammars.vocabulary].double()
        call = float(self._ways(logits_V).logsumexp(-1) - logits_V.logsumexp(-1))
        return call - math.log1p(-min(math.exp(call), 1 - 1e-9))

    def _ways(self, logits_V: Tensor) -> Tensor:
        """Logits of all tokens that begin a call."""
        bare = self._grammars.bare.to(logits_V.device)
        return torch.cat((logits_V[bare], logits_V[self._opening][None]))

    @cached_property
    def _opening(self) -> int:
        assert self._calls is not None
        return int(self._calls.compute_ff_tokens()[0])

    def _begins(self, token: int) -> bool:
        """Whether a call has begun with ``token``; the matcher then has read its beginning."""
        text = self._grammars.spell(token)
        begun: list[int] | None = None
        if token == self._opening and (self._blank or text == self._marker):
            self._matcher, begun = self._calls, [token]
        elif self._marker:
            self._tail = (self._tail + text)[-len(self._marker) - len(text) :]
            at = self._tail.rfind(self._marker[: len(self._marker) // 2 + 1])
            # More than half of the marker is no accident.
            if at >= 0 and (self._marker.startswith(self._tail[at:]) or self._marker in self._tail):
                self._matcher = self._spelled
                begun = self._grammars.bytes_as_tokens(self._tail[at:])
        self._blank = self._blank and not text.strip()
        if begun is None or self._matcher is None:
            return False
        self.in_call = True
        self._matcher.consume_tokens(begun)
        return True

    def _check(self, matcher: LLMatcher) -> None:
        if matcher.is_error():
            raise InputError(
                f"the schema is too hard to follow here: {matcher.get_error()}; make it simpler",
                param="tools",
            )
