"""Generation: many requests decode in one pass, and prompts are read in chunks in between.

A generation alone and the same one in a batch draw the same random numbers. Their logits may differ
in the last bits where another kernel or another chunk of the prompt was used, so texts can part at
a near tie of two tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from omni.errors import InputError
from omni.llm.cache import Cache, Feed, Output, common_prefix
from omni.llm.constraint import Constraint
from omni.llm.sampling import Sampler, sample
from omni.types import Sampling, Step


class _Tokenizer(Protocol):
    vocabulary: int
    eos_ids: frozenset[int]

    def token_bytes(self, token: int) -> bytes: ...


class Model(Protocol):
    """What generation needs of a `omni.llm.model.LanguageModel`."""

    max_context: int

    @property
    def tokenizer(self) -> _Tokenizer:
        """Knows where text ends and what tokens spell."""
        ...

    def new_cache(self) -> Cache:
        """An empty cache."""
        ...

    def run(
        self, feeds: Sequence[Feed], *, all_logits: bool = False, hidden: bool = False
    ) -> Output:
        """One pass."""
        ...


@dataclass(frozen=True, slots=True)
class Finished:
    """The end of a request. ``stop_text`` is the stop string that was met, which was streamed too.

    "length": ``max_tokens`` or the context is full. "failed": the constraint was too hard to
    follow, as ``error`` says. A finished prefill says "stop".
    """

    reason: Literal["stop", "length", "cancelled", "failed"]
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    stop_text: str | None = None
    error: str | None = None


@dataclass(slots=True)
class _Request:
    prompt: list[int]
    embeds: Tensor | None
    positions: Sequence[int] | None
    cache: Cache
    cached: int
    sampler: Sampler | None
    """None: only read the prompt."""
    end: int
    """Tokens of the prompt, or its highest position + 1 where that is more."""
    limit: int
    stop: tuple[bytes, ...]
    hidden: bool
    constraint: Constraint | None = None
    last: list[int] | None = None
    """The newest tokens, not in the cache yet; None while the prompt is read."""
    written: int = 0
    tail: bytes = b""
    ahead: Tensor | None = None
    """Logits (V,) after the prompt, where an earlier prefill of the same prompt left them."""

    def finished(
        self,
        reason: Literal["stop", "length", "cancelled", "failed"],
        stop_text: str | None = None,
        error: str | None = None,
    ) -> Finished:
        return Finished(reason, len(self.prompt), self.cached, self.written, stop_text, error)


Event = tuple[str, Step | Finished]


class BatchGenerator:
    """Runs requests side by side; whoever owns the device calls `step` until it is `idle`.

    A request owns its cache from `add` until its `Finished` event or `cancel`. What the cache
    holds then is always a whole prefix of prompt and answer (without the last token drawn), and is
    reused by the next request whose prompt begins alike.
    """

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options."""

        prefill_chunk: int = 128
        """Prompt tokens of all requests in one step: more is faster, less delays others less."""

    def __init__(self, model: Model, config: BatchGenerator.Config | None = None) -> None:
        self._model = model
        self._config = config or self.Config()
        self._requests: dict[str, _Request] = {}
        self._cancelled: list[Event] = []

    @property
    def idle(self) -> bool:
        """Whether `step` has nothing to do."""
        return not self._requests and not self._cancelled

    def add(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        cache: Cache,
        sampling: Sampling,
        *,
        embeds: Tensor | None = None,
        positions: Sequence[int] | None = None,
        hidden: bool = False,
        constraint: Constraint | None = None,
    ) -> None:
        """Begin a generation; ``embeds`` has a row for every negative id of the prompt.

        ``positions`` of the prompt are consecutive unless given; where a cache is reused, equal
        ids must have equal positions, as those of `omni.sequence` have.

        The cache is cropped to what it has in common with the prompt; at least the last token is
        read again, unless `add_prefill` has just read this very prompt. With ``hidden`` each `Step`
        carries the state that its token was drawn from; one that ``constraint`` left no choice
        about was not drawn and has none. Stop strings do not end a tool call.

        Raises `InputError` for an id or a cache in use, an empty prompt, one that leaves no room
        for an answer (code ``context_length_exceeded``), or settings out of range.
        """
        sampler = Sampler(sampling)
        if sampling.max_tokens is not None and sampling.max_tokens < 1:
            raise InputError(
                f"max_tokens is {sampling.max_tokens}; expected 1 or more, or None",
                param="max_tokens",
            )
        request = self._begin(request_id, prompt_ids, cache, embeds, positions, sampler, hidden)
        # The last token drawn is never fed, so that it needs no place.
        room = self._model.max_context - request.end + 1
        request.limit = room if sampling.max_tokens is None else min(room, sampling.max_tokens)
        request.stop = tuple(s.encode() for s in sampling.stop if s)
        request.constraint = constraint

    def add_prefill(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        cache: Cache,
        *,
        embeds: Tensor | None = None,
        positions: Sequence[int] | None = None,
    ) -> None:
        """Only read a prompt into the cache, for a request that may come. Errors as `add`."""
        self._begin(request_id, prompt_ids, cache, embeds, positions, None, False)

    def cancel(self, request_id: str) -> None:
        """Stop a request now: no more of its tokens come, its cache is free at once.

        `step` still reports its `Finished` ("cancelled"). An unknown id is ignored: it has ended.
        """
        request = self._requests.pop(request_id, None)
        if request is not None:
            self._cancelled.append((request_id, request.finished("cancelled")))

    def cancel_all(self) -> None:
        """`cancel` every request."""
        for request_id in list(self._requests):
            self.cancel(request_id)

    def step(self) -> list[Event]:
        """One pass of the model: a token for everyone who decodes, a chunk for who waits.

        Prompts are read in the order of `add`.
        """
        events, self._cancelled = self._cancelled, []
        feeds: list[Feed] = []
        drawing: list[str] = []
        budget = self._config.prefill_chunk
        for request_id, request in self._requests.items():
            if request.ahead is not None:
                continue
            if request.last is not None:
                feeds.append(Feed(request.cache, request.last))
                drawing.append(request_id)
            elif budget > 0:
                feed = self._chunk(request, budget)
                budget -= len(feed.tokens)
                feeds.append(feed)
                if feed.logits:
                    drawing.append(request_id)
        events.extend(self._draw_ahead())
        if not feeds:
            return events + self._end_prefills()
        hidden = any(self._requests[r].hidden for r in drawing)
        out = self._model.run(feeds, hidden=hidden)
        rows = [(i, r) for i, r in enumerate(drawing) if self._requests[r].sampler is not None]
        for i, request_id in enumerate(drawing):
            if self._requests[request_id].sampler is None:
                self._requests[request_id].cache.ahead = out.logits[i].clone()
        logits = out.logits[[i for i, _ in rows]]
        states = None if out.hidden is None else out.hidden[[i for i, _ in rows]]
        events.extend(self._draw([r for _, r in rows], logits, states))
        return events + self._end_prefills()

    def _draw_ahead(self) -> list[Event]:
        """The first tokens of requests whose whole prompt was read before."""
        events: list[Event] = []
        for request_id, request in list(self._requests.items()):
            if request.ahead is not None and request.sampler is not None:
                logits, request.ahead = request.ahead[None].clone(), None
                events.extend(self._draw([request_id], logits, None))
        return events

    def _draw(self, ids: list[str], logits_BV: Tensor, states_BD: Tensor | None) -> list[Event]:
        """A token for each of these requests; the logits are overwritten."""
        events: list[Event] = []
        rows, samplers = [], []
        for row, request_id in enumerate(ids):
            request = self._requests[request_id]
            assert request.sampler is not None
            try:
                if request.constraint is not None:
                    request.constraint.apply(logits_BV[row, : self._model.tokenizer.vocabulary])
                rows.append(row)
                samplers.append(request.sampler)
            except InputError as error:
                events.append(self._end(request_id, request.finished("failed", error=str(error))))
        if rows:
            tokens = sample(logits_BV[rows], samplers, self._model.tokenizer.vocabulary)
            for row, token in zip(rows, tokens, strict=True):
                state = None if states_BD is None else states_BD[row]
                events.extend(self._advance(ids[row], token, state))
        return events

    def _begin(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        cache: Cache,
        embeds: Tensor | None,
        positions: Sequence[int] | None,
        sampler: Sampler | None,
        hidden: bool,
    ) -> _Request:
        if request_id in self._requests:
            raise InputError(f"request {request_id!r} runs already; choose another id")
        if any(r.cache is cache for r in self._requests.values()):
            raise InputError("the cache is used by another request; cancel that one first")
        prompt = list(prompt_ids)
        if not prompt:
            raise InputError("the prompt is empty; expected at least one token", param="prompt")
        end = max([len(prompt), *(p + 1 for p in positions or ())])
        if end > self._model.max_context:
            raise InputError(
                f"the prompt has {end} tokens; the context holds "
                f"{self._model.max_context}: shorten it or drop old messages",
                param="prompt",
                code="context_length_exceeded",
            )
        ahead, cache.ahead = cache.ahead, None
        common = common_prefix(cache.tokens, prompt)
        if sampler is None or hidden or not common == len(prompt) == cache.length:
            ahead = None
        if ahead is None:
            cache.crop(min(common, len(prompt) - 1))
        request = _Request(
            prompt,
            embeds,
            positions,
            cache,
            cache.length,
            sampler,
            end,
            limit=0,
            stop=(),
            hidden=hidden,
        )
        request.ahead = ahead
        self._requests[request_id] = request
        return request

    def _chunk(self, request: _Request, budget: int) -> Feed:
        begin = request.cache.length
        tokens = request.prompt[begin : begin + budget]
        embeds = None
        if request.embeds is not None:
            before = sum(t < 0 for t in request.prompt[:begin])
            places = sum(t < 0 for t in tokens)
            embeds = request.embeds[before : before + places] if places else None
        positions = request.positions
        if positions is not None:
            positions = positions[begin : begin + len(tokens)]
        ends = begin + len(tokens) == len(request.prompt)
        return Feed(request.cache, tokens, embeds, positions, logits=ends)

    def _advance(self, request_id: str, token: int, state: Tensor | None) -> list[Event]:
        request = self._requests[request_id]
        if token in self._model.tokenizer.eos_ids:
            return [self._end(request_id, request.finished("stop"))]
        tokens = [token]
        events: list[Event] = []
        if request.constraint is not None:
            try:
                tokens += request.constraint.advance(token)
            except InputError as error:
                return [self._end(request_id, request.finished("failed", error=str(error)))]
        request.last = []
        for t in tokens:
            request.last.append(t)
            request.written += 1
            events.append((request_id, Step(t, state if request.hidden else None)))
            state = None
            if text := self._stop_text(request, t):
                return [*events, self._end(request_id, request.finished("stop", text))]
            if request.written >= request.limit:
                return [*events, self._end(request_id, request.finished("length"))]
        if request.constraint is not None and request.constraint.finished:
            events.append(self._end(request_id, request.finished("stop")))
        return events

    def _stop_text(self, request: _Request, token: int) -> str | None:
        if not request.stop or (request.constraint is not None and request.constraint.in_call):
            return None
        request.tail += self._model.tokenizer.token_bytes(token)
        if met := [s for s in request.stop if s in request.tail]:
            return min(met, key=request.tail.index).decode()
        request.tail = request.tail[-max(map(len, request.stop)) :]
        return None

    def _end(self, request_id: str, finished: Finished) -> Event:
        del self._requests[request_id]
        return request_id, finished

    def _end_prefills(self) -> list[Event]:
        done = [
            (request_id, request)
            for request_id, request in self._requests.items()
            if request.sampler is None and request.cache.length == len(request.prompt)
        ]
        return [self._end(request_id, request.finished("stop")) for request_id, request in done]


def generate(
    model: Model,
    prompt_ids: Sequence[int],
    sampling: Sampling,
    cache: Cache | None = None,
    stop_check: Callable[[int], bool] | None = None,
) -> Generator[Step, None, Finished]:
    """Answer one prompt, step by step; the generator returns `Finished`.

    ``stop_check`` sees every token after it was given out and ends the answer by True. Closing the
    generator stops at once; the cache stays usable.
    """
    batch = BatchGenerator(model)
    batch.add("", prompt_ids, model.new_cache() if cache is None else cache, sampling)
    while True:
        for _, event in batch.step():
            if isinstance(event, Finished):
                return event
            yield event
            if stop_check is not None and stop_check(event.token):
                batch.cancel("")


def prefill(model: Model, cache: Cache, prompt_ids: Sequence[int]) -> Finished:
    """Read a whole prompt into the cache; the next generation with it starts at once."""
    batch = BatchGenerator(model)
    batch.add_prefill("", prompt_ids, cache)
    while True:
        for _, event in batch.step():
            if isinstance(event, Finished):
                return event
