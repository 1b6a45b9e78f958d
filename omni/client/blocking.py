"""The blocking twin of the asyncio client: the same session, run on a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from omni.client.answer import Answer
from omni.client.asynchronous import AsyncOmniClient
from omni.client.events import Event
from omni.client.media import AudioLike, ImageLike
from omni.client.reply import Piece, Reply
from omni.client.tools import ToolLike
from omni.errors import ConnectionClosedError, OmniError
from omni.types import ToolCall

T = TypeVar("T")


class BlockingAnswer:
    """An answer in the making; see :class:`omni.client.Answer`."""

    def __init__(self, answer: Answer, run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._answer = answer
        self._run = run

    def __iter__(self) -> Iterator[Piece]:
        async def following() -> Piece | None:
            return await anext(self._answer, None)

        while (piece := self._run(following())) is not None:
            yield piece

    def read(self) -> Reply:
        """Read to the end and give back the whole answer."""
        reply: Reply = self._run(self._answer.read())
        return reply

    @property
    def reply(self) -> Reply:
        """The whole answer; RuntimeError before the iteration has come to its end."""
        return self._answer.reply


class OmniClient:
    """One session with an Omni server, for code without asyncio; see :class:`AsyncOmniClient`.

    >>> with OmniClient() as omni:                        # doctest: +SKIP
    ...     print(omni.ask("What is the capital of France?").text)
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
        """Take the settings, those of :class:`AsyncOmniClient`; nothing is connected yet."""
        self._client = AsyncOmniClient(
            url,
            api_key,
            model=model,
            timeout=timeout,
            session_id=session_id,
            reconnect=reconnect,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> OmniClient:
        return self.connect()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def connect(self, session: Mapping[str, Any] | None = None) -> OmniClient:
        """Open the session unless it is open, and apply ``session``."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(
                target=self._loop.run_forever, name="omni-client", daemon=True
            )
            self._thread.start()
        try:
            self._run(self._client.connect(session))
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End the session and its threads; tools that still run are waited for."""
        if self._loop is None or self._thread is None:
            return
        try:
            self._run(self._client.close())
            self._run(self._loop.shutdown_default_executor())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._loop = self._thread = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` on the loop; Ctrl-C here cancels it there."""
        if self._loop is None:
            work.close()
            raise ConnectionClosedError(
                "no session is open; use `with OmniClient() as omni`, or connect() first"
            )
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    @property
    def session(self) -> Mapping[str, Any]:
        """The session's settings as the server last reported them."""
        return self._client.session

    @property
    def session_id(self) -> str | None:
        """The id by which this session can be resumed."""
        return self._client.session_id

    def events(self, *, raise_errors: bool = True) -> Iterator[Event]:
        """Iterate over the session's events, from the first one that nobody has read yet."""
        stream = self._client.events(raise_errors=raise_errors)

        async def following() -> Event | None:
            return await anext(stream, None)

        while (event := self._run(following())) is not None:
            yield event

    def ask(
        self,
        text: str | None = None,
        *,
        audio: AudioLike | None = None,
        image: ImageLike | None = None,
        rate: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        timeout: float | None = 120.0,
        **response: Any,
    ) -> Reply:
        """Ask one question and wait for the whole answer; see :meth:`AsyncOmniClient.ask`."""
        media: dict[str, Any] = {"audio": audio, "image": image, "rate": rate}
        return self._run(self._client.ask(text, **media, tools=tools, timeout=timeout, **response))

    @contextlib.contextmanager
    def stream(
        self,
        text: str | None = None,
        *,
        audio: AudioLike | None = None,
        image: ImageLike | None = None,
        rate: int | None = None,
        tools: Sequence[ToolLike] | None = None,
        **response: Any,
    ) -> Iterator[BlockingAnswer]:
        """Ask one question and take the answer piece by piece; see :meth:`AsyncOmniClient.stream`.

        >>> with omni.stream("Tell me a joke.") as answer:         # doctest: +SKIP
        ...     for piece in answer:
        ...         print(piece.text, end="")
        """
        media: dict[str, Any] = {"audio": audio, "image": image, "rate": rate}
        streaming = self._client.stream(text, **media, tools=tools, **response)

        async def leave(error: OmniError | None) -> None:
            await streaming.__aexit__(type(error) if error else None, error, None)

        answer = self._run(_entered(streaming))
        try:
            yield BlockingAnswer(answer, self._run)
        except BaseException as error:
            self._run(leave(error if isinstance(error, OmniError) else None))
            raise
        else:
            self._run(leave(None))

    def send(self, event: Mapping[str, Any]) -> str:
        """Send one client event as it stands, and give back its ``event_id``."""
        return self._run(self._client.send(event))

    def update_session(self, **session: Any) -> Mapping[str, Any]:
        """Change settings and give back all of them."""
        return self._run(self._client.update_session(**session))

    def send_audio(self, audio: AudioLike, rate: int | None = None) -> None:
        """Add sound to the input buffer."""
        self._run(self._client.send_audio(audio, rate))

    def commit(self) -> None:
        """Say that the user's turn is over; needed only without turn detection."""
        self._run(self._client.commit())

    def clear_audio(self) -> None:
        """Forget the sound that was sent and not yet committed."""
        self._run(self._client.clear_audio())

    def send_image(self, image: ImageLike) -> None:
        """Show a camera frame: the user's next turn has it."""
        self._run(self._client.send_image(image))

    def send_text(self, text: str) -> None:
        """Add a written message of the user."""
        self._run(self._client.send_text(text))

    def send_tool_output(self, call: ToolCall, output: str) -> None:
        """Tell what a tool gave back whose calls you answer yourself."""
        self._run(self._client.send_tool_output(call, output))

    def create_response(self, **response: Any) -> str:
        """Ask for an answer now."""
        return self._run(self._client.create_response(**response))

    def cancel(self, response_id: str | None = None) -> None:
        """Stop the answer that is being made."""
        self._run(self._client.cancel(response_id))

    def truncate(self, item_id: str, audio_end_ms: int, content_index: int = 0) -> None:
        """Tell the server how much of a spoken answer was really heard."""
        self._run(self._client.truncate(item_id, audio_end_ms, content_index))


async def _entered(streaming: contextlib.AbstractAsyncContextManager[Answer]) -> Answer:
    return await streaming.__aenter__()
