"""The user's microphone: it never pauses, and hears the room as well as the user."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from omni.client import AsyncOmniClient
from omni.client.media import WIRE_RATE
from omni.dialogues.format import Conditions
from omni.dialogues.sound import FRAME, Line, Loudspeaker, slice_looped
from omni.types import AudioChunk, Pcm

_STEP = FRAME / WIRE_RATE


class Microphone:
    """Sends a frame of 20 ms every 20 ms, each when its last sample has been spoken.

    Run :meth:`run` as a task; a cancel stops it between two frames. With ``push_to_talk`` it is
    open only while the user speaks.
    """

    def __init__(
        self,
        client: AsyncOmniClient,
        loudspeaker: Loudspeaker,
        record: Callable[[Pcm], None],
        push_to_talk: bool,
        seed: int,
    ) -> None:
        self._client = client
        self._loudspeaker = loudspeaker
        self._record = record
        self._push_to_talk = push_to_talk
        self._rng = np.random.default_rng(seed)
        self._speech = np.zeros(0, np.float32)
        self._speaking = False
        self._begin = asyncio.get_running_loop().time()
        self._position = 0
        self.place(Conditions(), None, 0.0)

    def place(self, conditions: Conditions, noise: Pcm | None, gain: float) -> None:
        """Put the user somewhere else: what the sound suffers, with noise of RMS 1 and its gain."""
        self._echo = conditions.echo
        self._line = Line(conditions.loss, conditions.jitter, self._rng)
        self._noise, self._gain = noise, gain

    def say(self, pcm: Pcm) -> float:
        """Speak; gives the moment at which the first sample is said."""
        self._speech, self._speaking = pcm, True
        now = asyncio.get_running_loop().time()
        # What was not spoken into a closed microphone has no place in time.
        return max(self._begin, now) if self._push_to_talk else self._begin

    @property
    def speaking(self) -> bool:
        """Whether some of what is to be said has not been sent yet."""
        return self._speaking

    async def run(self) -> None:
        """Send sound until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            if self._push_to_talk and not len(self._speech):
                await self._wait_for_speech()
                self._begin = loop.time()
            await asyncio.sleep(self._begin + _STEP - loop.time())
            frame = self._mix(self._begin)
            self._begin += _STEP
            self._position += FRAME
            self._record(frame)
            closing = self._push_to_talk and not len(self._speech)
            arrived = self._line.feed(frame, loop.time(), flush=closing)
            for part in arrived:
                await self._client.send_audio(AudioChunk(part, WIRE_RATE))
            self._speaking = len(self._speech) > 0

    async def _wait_for_speech(self) -> None:
        while not len(self._speech):  # noqa: ASYNC110 - as closely as frames are
            await asyncio.sleep(_STEP)

    def _mix(self, begin: float) -> Pcm:
        spoken, self._speech = self._speech[:FRAME], self._speech[FRAME:]
        frame = np.pad(spoken, (0, FRAME - len(spoken)))
        if self._noise is not None:
            frame = frame + self._gain * slice_looped(self._noise, self._position, FRAME)
        if self._echo is not None:
            heard = self._loudspeaker.during(begin - self._echo.delay, FRAME)
            frame = frame + 10 ** (self._echo.level / 20) * heard
        return frame.astype(np.float32)
