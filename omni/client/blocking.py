"""The blocking twin of the asyncio client: the same session, run on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar

from omni.client.asynchronous import AsyncOmniClient
from omni.client.events import Event
from omni.client.media import AudioLike, ImageLike
from omni.client.reply import Reply
from omni.errors import ConnectionClosedError

T = TypeVar("T")


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
    ) -> None:
        """Take the settings, those of :class:`AsyncOmniClient`; nothing is connected yet."""
        self._client = AsyncOmniClient(url, api_key, model=model, timeout=timeout)
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
        """End the session and its thread."""
        if self._loop is None or self._thread is None:
            return
        try:
            self._run(self._client.close())
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
        timeout: float | None = 120.0,
        **response: Any,
    ) -> Reply:
        """Ask one question and wait for the whole answer; see :meth:`AsyncOmniClient.ask`."""
        return self._run(
            self._client.ask(text, audio=audio, image=image, rate=rate, timeout=timeout, **response)
        )

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

    def create_response(self, **response: Any) -> str:
        """Ask for an answer now."""
        return self._run(self._client.create_response(**response))

    def cancel(self, response_id: str | None = None) -> None:
        """Stop the answer that is being made."""
        self._run(self._client.cancel(response_id))

    def truncate(self, item_id: str, audio_end_ms: int, content_index: int = 0) -> None:
        """Tell the server how much of a spoken answer was really heard."""
        self._run(self._client.truncate(item_id, audio_end_ms, content_index))
