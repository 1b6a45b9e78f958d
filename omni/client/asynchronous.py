"""The asyncio client of ``/v1/realtime``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from omni.client import media
from omni.client.answer import Answer, answer_calls, new_item_id, output_item
from omni.client.connection import Connection, EventStream
from omni.client.errors import OmniTimeoutError
from omni.client.handshake import Server, realtime_uri
from omni.client.media import AudioLike, ImageLike
from omni.client.reply import Reply
from omni.client.tools import Toolbox, ToolLike
from omni.errors import ConnectionClosedError, InputError
from omni.types import AudioChunk, ToolCall

_PIECE_BYTES = media.WIRE_RATE * 2 // 10  # 100 ms of sound in one event


class AsyncOmniClient:
    """One session with an Omni server, or with any server that speaks OpenAI's Realtime API.

    >>> async with AsyncOmniClient() as omni:             # doctest: +SKIP
    ...     reply = await omni.ask("What is in this picture?", image="cat.jpg")

    Leaving the block closes the session and ends its tasks. A connection that breaks is opened
    again and the session goes on: items, settings and wishes for an answer that the server had not
    acknowledged are sent again, in order; sound that was on its way is lost. Meanwhile senders
    wait, and :meth:`events` tells it.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:7860",
        api_key: str | None = None,
        *,
        model: str = "omni",
        timeout: float = 10.0,
        session_id: str | None = None,
        reconnect: bool = True,
    ) -> None:
        """Take the settings; nothing is connected yet.

        ``url`` is the server's, ``http(s)://`` or ``ws(s)://``, with or without ``/v1``;
        ``api_key`` goes as a bearer token; ``model`` is for servers that have several; ``timeout``
        is in seconds, for the server to open a session or to answer a session update.
        ``session_id`` is that of an earlier session to go on with; ``reconnect`` says whether a
        broken connection is restored.
        """
        realtime_uri(url, model)
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._server = Server(url, model, headers, timeout)
        self._resumes = session_id
        self._reconnect = reconnect
        self._connection: Connection | None = None
        self._toolbox = Toolbox()
        self._answering_calls: asyncio.Task[None] | None = None
        self._asking = asyncio.Lock()
        self._wire_audio = media.WireAudio()

    async def __aenter__(self) -> AsyncOmniClient:
        return await self.connect()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def connect(self, session: Mapping[str, Any] | None = None) -> AsyncOmniClient:
        """Open the session unless it is open, and apply ``session``, see :meth:`update_session`.

        Raises ConnectionClosedError when nothing answers there or it is not an Omni server,
        RefusedError when it wants another key, BusyError when it is full, and OmniServerError when
        it refuses the settings or does not know the session to go on with.
        """
        if self._connection is None or not self._connection.alive:
            await self.close()
            self._wire_audio = media.WireAudio()
            self._connection = await Connection.open(self._server, self._resumes, self._reconnect)
        if session:
            await self.update_session(**session)
        return self

    async def close(self) -> None:
        """End the session; readers of :meth:`events` come to their end. Closing twice is fine."""
        connection, self._connection = self._connection, None
        answering, self._answering_calls = self._answering_calls, None
        try:
            if connection is not None:
                await connection.close()
        finally:
            if answering is not None:
                answering.cancel()
                await asyncio.wait([answering])

    @property
    def session(self) -> Mapping[str, Any]:
        """The session's settings as the server last reported them."""
        return self._open.session

    @property
    def session_id(self) -> str | None:
        """The id by which this session can be resumed, also by another client later."""
        return self._open.session_id

    @property
    def _open(self) -> Connection:
        if self._connection is None:
            raise ConnectionClosedError(
                "no session is open; use `async with AsyncOmniClient() as omni`, or connect() first"
            )
        return self._connection

    def events(self, *, raise_errors: bool = True) -> EventStream:
        """Iterate over the session's events, from the first one that nobody has read yet.

        Ends when this side closes; raises ConnectionClosedError when the other does. A server's
        ``error`` event is raised as OmniServerError unless ``raise_errors`` is False. Two loops at
        a time share the events. Past 4096 unread events the oldest are dropped, and counted in
        ``dropped``.
        """
        return self._open.events(raise_errors)

    async def send(self, event: Mapping[str, Any]) -> str:
        """Send one client event as it stands and give back its ``event_id``.

        Waits while the server takes no more and while a broken connection is restored. Raises
        ConnectionClosedError when there is no session.
        """
        return await self._open.send(event)

    async def update_session(self, **session: Any) -> Mapping[str, Any]:
        """Change settings and give back all of them, e.g. ``instructions="Be brief."``.

        Nested as on the wire: ``audio={"output": {"voice": "..."}}``. ``tools`` may hold plain
        functions: they are run when the assistant calls them, and the answer to their outputs is
        asked for. Raises OmniServerError when the server refuses a setting; all then stay as they
        were.
        """
        session = self._with_tools(session)
        with self._open.tap() as tap:
            event = {"type": "session.update", "session": {"type": "realtime", **session}}
            tap.sent.add(await self.send(event))
            answer = await tap.wait_for("session.updated", self._server.timeout)
        settings: Mapping[str, Any] = answer.data["session"]
        return settings

    def _with_tools(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options with tools as the wire wants them; a task answers the functions' calls."""
        options = dict(options)
        if options.get("tools"):
            options["tools"] = self._toolbox.wire(options["tools"])
        if self._toolbox and self._answering_calls is None:
            work = answer_calls(self._open, self._toolbox)
            self._answering_calls = asyncio.create_task(work, name="omni-client-tools")
        return options

    async def send_audio(self, audio: AudioLike, rate: int | None = None) -> None:
        """Add sound to the input buffer, where the server listens for turns.

        Pieces of one recording can be of any length and at any rate: they are resampled as one
        stream. A file is sent whole and at once; see :func:`speak_in_real_time` for a live pace.
        """
        is_file = not isinstance(audio, AudioChunk) and rate is None
        data = self._wire_audio.feed(media.to_chunk(audio, rate))
        await self._send_pcm(data + (self._wire_audio.flush() if is_file else b""))

    async def _send_pcm(self, data: bytes) -> None:
        for begin in range(0, len(data), _PIECE_BYTES):
            piece = base64.b64encode(data[begin : begin + _PIECE_BYTES]).decode()
            await self.send({"type": "input_audio_buffer.append", "audio": piece})

    async def commit(self) -> None:
        """Say that the user's turn is over; needed only without turn detection."""
        await self._send_pcm(self._wire_audio.flush())
        await self.send({"type": "input_audio_buffer.commit"})

    async def clear_audio(self) -> None:
        """Forget the sound that was sent and not yet committed."""
        self._wire_audio = media.WireAudio()
        await self.send({"type": "input_audio_buffer.clear"})

    async def send_image(self, image: ImageLike) -> None:
        """Show a camera frame: the user's next turn has it."""
        data, _ = media.image_to_wire(image)
        encoded = base64.b64encode(data).decode()
        await self.send({"type": "input_image_buffer.append", "image": encoded})

    async def send_text(self, text: str) -> None:
        """Add a written message of the user; :meth:`create_response` asks for the answer."""
        content = [{"type": "input_text", "text": text}]
        item = {"id": new_item_id(), "type": "message", "role": "user", "content": content}
        await self.send({"type": "conversation.item.create", "item": item})

    async def send_tool_output(self, call: ToolCall, output: str) -> None:
        """Tell what a tool gave back whose calls you answer yourself; see ``Event.tool_call``."""
        await self.send({"type": "conversation.item.create", "item": output_item(call, output)})

    async def create_response(self, **response: Any) -> str:
        """Ask for an answer now; the options are those of ``response.create``."""
        response = self._with_tools(response)
        extra = {"response": response} if response else {}
        return await self.send({"type": "response.create", **extra})

    async def cancel(self, response_id: str | None = None) -> None:
        """Stop the answer that is being made."""
        extra = {"response_id": response_id} if response_id else {}
        await self.send({"type": "response.cancel", **extra})

    async def truncate(self, item_id: str, audio_end_ms: int, content_index: int = 0) -> None:
        """Tell the server how much of a spoken answer was really heard."""
        await self.send(
            {
                "type": "conversation.item.truncate",
                "item_id": item_id,
                "content_index": content_index,
                "audio_end_ms": audio_end_ms,
            }
        )

    async def ask(
        self,
        text: str | None = None,
        *,
        audio: AudioLike | None = None,
        image: ImageLike | None = None,
        rate: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        timeout: float | None = 120.0,  # noqa: ASYNC109 - it also stops the answer on the server
        **response: Any,
    ) -> Reply:
        """Ask one question in words, sound, pictures or all of them, and wait for the whole answer.

        ``rate`` is that of a bare array of sound, ``timeout`` is in seconds for the whole answer or
        None, and ``response`` holds options of ``response.create``: ``output_modalities=["text"]``.
        ``tools`` are functions that the assistant may call for this question, instead of those of
        the session; the reply lists the calls. A recording goes as one message, apart from the
        input buffer, so that turn detection can stay on. Questions of several tasks wait for each
        other. A cancel, like a timeout, also stops the answer on the server. Unless :meth:`events`
        is being read at the same time, the events of the answer are used up here.

        Raises InputError when nothing was asked or what was given cannot be sent, OmniServerError
        when the server refused the question or failed to answer it, OmniTimeoutError when there is
        no whole answer in time, and ConnectionClosedError when the session is gone or the
        connection broke in the middle of the answer.
        """
        try:
            async with (
                asyncio.timeout(timeout),
                self.stream(
                    text, audio=audio, image=image, rate=rate, tools=tools, **response
                ) as answer,
            ):
                return await answer.read()
        except TimeoutError as error:
            raise OmniTimeoutError(
                f"no whole answer in {timeout:g} s; pass a longer timeout"
            ) from error

    @contextlib.asynccontextmanager
    async def stream(
        self,
        text: str | None = None,
        *,
        audio: AudioLike | None = None,
        image: ImageLike | None = None,
        rate: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        **response: Any,
    ) -> AsyncIterator[Answer]:
        """Ask one question like :meth:`ask`, and take the answer piece by piece as it comes.

        >>> async with omni.stream("Tell me a joke.") as answer:   # doctest: +SKIP
        ...     async for piece in answer:
        ...         print(piece.text, end="")
        ... print(answer.reply.usage)

        Leaving the block before the end stops the answer on the server.
        """
        content = _content(text, audio, image, rate)
        options = self._with_tools({**response, **({"tools": tools} if tools else {})})
        connection = self._open
        async with self._asking:
            with connection.tap(exclusive=True) as tap:
                answer = Answer(connection, tap, self._toolbox, content, options)
                try:
                    await answer.begin()
                    yield answer
                except BaseException as error:
                    await answer.abandon(error)
                    raise
                else:
                    await answer.abandon(None)


def _content(
    text: str | None, audio: AudioLike | None, image: ImageLike | None, rate: int | None
) -> list[dict[str, str]]:
    content: list[dict[str, str]] = []
    if image is not None:
        content.append({"type": "input_image", "image_url": media.image_to_data_url(image)})
    if audio is not None:
        pcm = base64.b64encode(media.audio_to_wire(audio, rate)).decode()
        content.append({"type": "input_audio", "audio": pcm})
    if text is not None and text.strip():
        content.append({"type": "input_text", "text": text})
    if not content:
        raise InputError("nothing was asked; pass text, audio or image", param="text")
    return content
