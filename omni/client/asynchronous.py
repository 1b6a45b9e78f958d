"""The asyncio client of ``/v1/realtime``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from omni.client import media
from omni.client.connection import Connection, EventStream, realtime_uri
from omni.client.errors import OmniTimeoutError
from omni.client.media import AudioLike, ImageLike
from omni.client.reply import Reply, ReplyBuilder
from omni.errors import ConnectionClosedError, InputError, OmniError
from omni.types import AudioChunk

_PIECE_BYTES = media.WIRE_RATE * 2 // 10  # 100 ms of sound in one event


class AsyncOmniClient:
    """One session with an Omni server, or with any server that speaks OpenAI's Realtime API.

    >>> async with AsyncOmniClient() as omni:             # doctest: +SKIP
    ...     reply = await omni.ask("What is in this picture?", image="cat.jpg")

    Leaving the block closes the session and ends the task that reads it.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:7860",
        api_key: str | None = None,
        *,
        model: str = "omni",
        timeout: float = 10.0,
    ) -> None:
        """Take the settings; nothing is connected yet.

        ``url`` is the server's, ``http(s)://`` or ``ws(s)://``, with or without ``/v1``;
        ``api_key`` goes as a bearer token; ``model`` is for servers that have several; ``timeout``
        is in seconds, for the server to open a session or to answer a session update.
        """
        realtime_uri(url, model)
        self.url = url
        self._model = model
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = timeout
        self._connection: Connection | None = None
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
        BusyError when the server is full, and OmniServerError when it refuses the settings.
        """
        if self._connection is None or not self._connection.alive:
            await self.close()
            self._wire_audio = media.WireAudio()
            self._connection = await Connection.open(
                self.url, self._model, self._headers, self._timeout
            )
        if session:
            await self.update_session(**session)
        return self

    async def close(self) -> None:
        """End the session; readers of :meth:`events` come to their end. Closing twice is fine."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    @property
    def session(self) -> Mapping[str, Any]:
        """The session's settings as the server last reported them."""
        return self._open.session

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
        a time share the events. Past 4096 unread events the oldest are dropped.
        """
        return self._open.events(raise_errors)

    async def send(self, event: Mapping[str, Any]) -> str:
        """Send one client event as it stands and give back its ``event_id``.

        Raises ConnectionClosedError when there is no session.
        """
        return await self._open.send(event)

    async def update_session(self, **session: Any) -> Mapping[str, Any]:
        """Change settings and give back all of them, e.g. ``instructions="Be brief."``.

        Nested as on the wire: ``audio={"output": {"voice": "..."}}``. Raises OmniServerError when
        the server refuses one; all then stay as they were.
        """
        with self._open.tap() as tap:
            event = {"type": "session.update", "session": {"type": "realtime", **session}}
            tap.sent.add(await self.send(event))
            answer = await tap.wait_for("session.updated", self._timeout)
        settings: Mapping[str, Any] = answer.data["session"]
        return settings

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
        await self._send_message(_new_item_id(), [{"type": "input_text", "text": text}])

    async def _send_message(self, item_id: str, content: list[dict[str, str]]) -> str:
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        return await self.send({"type": "conversation.item.create", "item": item})

    async def create_response(self, **response: Any) -> str:
        """Ask for an answer now; the options are those of ``response.create``."""
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
        timeout: float | None = 120.0,  # noqa: ASYNC109 - it also stops the answer on the server
        **response: Any,
    ) -> Reply:
        """Ask one question in words, sound, pictures or all of them, and wait for the whole answer.

        ``rate`` is that of a bare array of sound, ``timeout`` is in seconds for the whole answer or
        None, and ``response`` holds options of ``response.create``: ``output_modalities=["text"]``.
        A recording goes as one message, apart from the input buffer, so that turn detection can
        stay on. Questions of several tasks wait for each other. A cancel, like a timeout, also
        stops the answer on the server. Unless :meth:`events` is being read at the same time, the
        events of the answer are used up here.

        Raises InputError when nothing was asked or what was given cannot be sent, OmniServerError
        when the server refused the question or failed to answer it, OmniTimeoutError when there is
        no whole answer in time, and ConnectionClosedError when the session is gone.
        """
        content = _content(text, audio, image, rate)
        try:
            async with self._asking, asyncio.timeout(timeout):
                return await self._ask(content, response, wants_transcript=audio is not None)
        except TimeoutError as error:
            raise OmniTimeoutError(
                f"no whole answer in {timeout:g} s; pass a longer timeout"
            ) from error

    async def _ask(
        self, content: list[dict[str, str]], options: Mapping[str, Any], wants_transcript: bool
    ) -> Reply:
        reply = ReplyBuilder(_new_item_id())
        with self._open.tap(exclusive=True) as tap:
            asked = await self._send_message(reply.item_id, content)
            tap.sent.add(asked)
            try:
                tap.sent.add(await self.create_response(**options))
                while reply.done is None:
                    reply.add(await tap.next())
            except OmniError as error:
                if getattr(error, "event_id", None) == asked:  # no question, hence no answer
                    await self.cancel(reply.response_id)
                raise
            except BaseException:
                with contextlib.suppress(OmniError):
                    await self.cancel(reply.response_id)
                raise
            if wants_transcript and self._transcribes():
                # The wire promises no order between the answer and the transcript of the question.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2.0):
                        while not reply.heard:
                            reply.add(await tap.next())
        return reply.build()

    def _transcribes(self) -> bool:
        audio = self.session.get("audio") or {}
        return bool((audio.get("input") or {}).get("transcription"))


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


def _new_item_id() -> str:
    return f"item_{uuid.uuid4().hex[:24]}"
