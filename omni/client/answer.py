"""The answer to one question as it comes, with the tools that it calls; and tools in live talk."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from omni.client.connection import Connection, Tap
from omni.client.events import Event, function_call
from omni.client.reply import Piece, Reply, ReplyBuilder
from omni.client.tools import Toolbox
from omni.errors import ConnectionClosedError, OmniError
from omni.types import ToolCall

MAX_TOOL_ROUNDS = 8
"""Responses in a row that may call tools; then the assistant has to answer in words."""
_ASK, _ROUND = "omni_ask", "omni_tool_round"
_TRANSCRIPT_WAIT = 2.0


class Answer:
    """An answer in the making: iterate for its pieces (:class:`Piece`), then read ``reply``.

    Made by :meth:`AsyncOmniClient.stream`.
    """

    def __init__(
        self,
        connection: Connection,
        tap: Tap,
        toolbox: Toolbox,
        content: Sequence[Mapping[str, str]],
        options: Mapping[str, Any],
    ) -> None:
        self._connection = connection
        self._tap = tap
        self._toolbox = toolbox
        self._content = content
        item_id = new_item_id()
        self._tag = {_ASK: item_id}
        self._options = dict(options)
        self._builder = ReplyBuilder(item_id, self._tag)
        self._rounds = 0
        self._asked = ""
        self._wanted = ""
        self._pieces: deque[Piece] = deque()
        self._reply: Reply | None = None

    def __aiter__(self) -> AsyncIterator[Piece]:
        return self

    async def __anext__(self) -> Piece:
        while not self._pieces:
            if self._reply is not None:
                raise StopAsyncIteration
            await self._go_on()
        return self._pieces.popleft()

    @property
    def reply(self) -> Reply:
        """The whole answer; RuntimeError before the iteration has come to its end."""
        if self._reply is None:
            raise RuntimeError("the answer is not complete yet; iterate to its end first")
        return self._reply

    async def read(self) -> Reply:
        """Read to the end and give back the whole answer."""
        async for _ in self:
            pass
        return self.reply

    async def begin(self) -> None:
        """Send the question."""
        item = {"type": "message", "role": "user", "content": list(self._content)}
        self._asked = await self._add_item({**item, "id": self._builder.item_id})
        await self._want_response()

    async def abandon(self, error: BaseException | None) -> None:
        """Stop what the server still makes, unless there is nothing to stop."""
        refused = self._wanted == getattr(error, "event_id", None)
        if self._wanted and self._builder.done is None and not refused and self._connection.online:
            extra = {"response_id": self._builder.response_id} if self._builder.response_id else {}
            with contextlib.suppress(OmniError):
                await self._connection.send({"type": "response.cancel", **extra})

    async def _add_item(self, item: Mapping[str, Any]) -> str:
        event = {"type": "conversation.item.create", "item": item}
        return await self._send(event)

    async def _want_response(self) -> None:
        options = dict(self._options)
        options["metadata"] = {**(options.get("metadata") or {}), **self._tag}
        options |= _tool_choice(self._rounds, options, self._connection.session)
        self._wanted = await self._send({"type": "response.create", "response": options})

    async def _send(self, event: Mapping[str, Any]) -> str:
        event_id = new_event_id()
        self._tap.sent.add(event_id)
        return await self._connection.send({"event_id": event_id, **event})

    async def _go_on(self) -> None:
        event = await self._tap.next()
        if event.type == "client.reconnected":
            self._come_back(event)
        piece = self._builder.add(event)
        if piece is not None:
            self._pieces.append(piece)
        if self._builder.done is not None and not await self._use_tools():
            await self._end()

    def _come_back(self, event: Event) -> None:
        if self._wanted in event.data["resent"]:
            self._builder.response_id = None
        elif self._wanted in event.data["broken"]:
            raise ConnectionClosedError(
                "the connection was lost in the middle of this answer; the session goes on with "
                "what the server kept of it: ask again"
            )

    async def _use_tools(self) -> bool:
        """Answer the calls of this round; whether another round follows."""
        calls = self._builder.calls
        known = [call for call in calls if call.name in self._toolbox]
        if not known or self._status != "completed":
            return False
        outputs = await self._toolbox.run(known)
        for call, output in zip(known, outputs, strict=True):
            self._pieces.append(self._builder.answer(call, output))
            await self._add_item(output_item(call, output))
        if len(known) < len(calls):
            return False
        self._rounds += 1
        self._builder.next_round()
        await self._want_response()
        return True

    @property
    def _status(self) -> str:
        return str((self._builder.done or {}).get("status") or "completed")

    async def _end(self) -> None:
        reply = self._builder.build()
        if any(part["type"] == "input_audio" for part in self._content) and self._transcribes:
            # The wire promises no order between the answer and the transcript of the question.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TRANSCRIPT_WAIT):
                    while not self._builder.heard:
                        self._builder.add(await self._tap.next())
            reply = self._builder.build()
        self._reply = reply

    @property
    def _transcribes(self) -> bool:
        audio = self._connection.session.get("audio") or {}
        return bool((audio.get("input") or {}).get("transcription"))


async def answer_calls(connection: Connection, toolbox: Toolbox) -> None:
    """Run the functions that are called in live talk, until the session ends or this is cancelled.

    An :class:`Answer` sees to its own calls. While the server makes another answer, because the
    user spoke meanwhile, the wish for one to the outputs waits for its end.
    """
    owed: int | None = None
    with connection.tap() as tap, contextlib.suppress(OmniError):
        while (event := await tap.box.get()) is not None:
            if event.type != "response.done":
                continue
            response = event.data["response"]
            metadata = response.get("metadata") or {}
            calls = [call for item in response.get("output") or () if (call := function_call(item))]
            known = [call for call in calls if call.name in toolbox]
            if known and _ASK not in metadata and response.get("status") == "completed":
                for call, output in zip(known, await toolbox.run(known), strict=True):
                    item = output_item(call, output)
                    await connection.send({"type": "conversation.item.create", "item": item})
                if len(known) == len(calls):
                    owed = int(metadata.get(_ROUND, 0)) + 1
            if owed is not None and connection.active_response is None:
                options = {"metadata": {_ROUND: str(owed)}}
                options |= _tool_choice(owed, {}, connection.session)
                await connection.send({"type": "response.create", "response": options})
                owed = None


def _tool_choice(
    rounds: int, options: Mapping[str, Any], session: Mapping[str, Any]
) -> dict[str, Any]:
    """What a response has to say of tools that follows ``rounds`` others that called some."""
    if rounds >= MAX_TOOL_ROUNDS:
        return {"tool_choice": "none"}
    choice = options.get("tool_choice") or session.get("tool_choice")
    if rounds and choice not in (None, "auto", "none"):
        return {"tool_choice": "auto"}  # what was required has been called
    return {}


def output_item(call: ToolCall, output: str) -> dict[str, Any]:
    """The item that tells the assistant what a tool gave back."""
    return {
        "id": new_item_id(),
        "type": "function_call_output",
        "call_id": call.id,
        "output": output,
    }


def new_item_id() -> str:
    """A fresh id for an item of this client."""
    return f"item_{uuid.uuid4().hex[:24]}"


def new_event_id() -> str:
    """A fresh id for a client event."""
    return f"event_{uuid.uuid4().hex}"
