"""Play one dialogue once: speak, show, type, interrupt, leave and come back, as a user would."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncIterator, Callable, Sequence

from omni.client import AsyncOmniClient, OmniServerError
from omni.client.media import WIRE_RATE, image_to_data_url
from omni.dialogues import sound
from omni.dialogues.format import Dialogue, Turn
from omni.dialogues.microphone import Microphone
from omni.dialogues.observed import TOO_LATE, Observer, TurnSeen
from omni.dialogues.prepare import Prepared, fill, prepare, wire_session
from omni.dialogues.reading import Failure, Script
from omni.dialogues.results import Problem
from omni.dialogues.service import Service
from omni.types import ToolCall

QUIET = 3.0
"""Seconds without an answer after which none is taken to come."""
_MAX_ROUNDS = 8
_TICK = 0.01


class Player:
    """One dialogue, played once against a server. After :meth:`play`, ``observer`` knows all."""

    def __init__(self, script: Script, service: Service, repeat: int) -> None:
        """``repeat`` counts from 0 and varies the noise, within the dialogue's seed."""
        self._script = script
        self._dialogue: Dialogue = script.dialogue
        self._service = service
        self._seed = script.dialogue.seed * 1000 + repeat
        detection = script.dialogue.session.turn_detection
        self._push_to_talk = detection == "none"
        wire = detection if isinstance(detection, dict) else {}
        self.observer = Observer(
            interruptible=not self._push_to_talk and wire.get("interrupt_response") is not False,
            spoken=script.dialogue.session.modality == "audio",
        )
        self._answers_itself = not self._push_to_talk and wire.get("create_response") is not False
        self._changed = asyncio.Event()
        self._lost: Exception | None = None
        self._too_late = False
        self._prepared: list[Prepared] = []
        self._client: AsyncOmniClient
        self._microphone: Microphone | None = None

    async def play(self) -> Problem | None:
        """Play all turns; gives what ended the dialogue before its end, if anything did.

        What happens in a turn is noted there. A cancel ends the session.
        """
        try:
            self._prepared = await prepare(self._script, self._service, self._seed)
        except Failure as failure:
            return failure.problem
        session_id: str | None = None
        turns = self._dialogue.turns
        index = 0
        while index < len(turns):
            try:
                async with self._connected(session_id, index):
                    while index < len(turns):
                        with self._script.blamed("turns", index):
                            await self._turn(index)
                        index += 1
                        if turns[index - 1].hang_up is not None:
                            self.observer.loudspeaker.stop(time.monotonic())
                            session_id = self._client.session_id
                            break
            except Failure as failure:
                if len(self.observer.turns) > index:
                    self.observer.turn.error = failure.problem
                    self.observer.turn.ended = time.monotonic()
                    return None
                return failure.problem
        return None

    # The session

    @contextlib.asynccontextmanager
    async def _connected(self, session_id: str | None, index: int) -> AsyncIterator[None]:
        """A session with its reader and microphone, which end with the block."""
        self._client = AsyncOmniClient(
            self._service.url, self._service.api_key, session_id=session_id, reconnect=False
        )
        place = ("session",) if session_id is None else ("turns", index, "resume")
        with self._script.blamed(*place):
            await self._client.connect()
        try:
            if session_id is None:
                with self._script.blamed("session"):
                    await self._settle_terms()
            tasks = [asyncio.create_task(self._read(), name="dialogue-reader")]
            if any(turn.say or turn.silent for turn in self._dialogue.turns):
                self._microphone = Microphone(
                    self._client,
                    self.observer.loudspeaker,
                    self.observer.record,
                    self._push_to_talk,
                    self._seed,
                )
                self._place(index)
                tasks.append(asyncio.create_task(self._send_sound(self._microphone)))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            await self._client.close()

    async def _settle_terms(self) -> None:
        """Ask for the file's settings; what the server refuses is named by its line."""
        try:
            await self._client.update_session(**wire_session(self._dialogue))
        except OmniServerError as error:
            named = (error.param or "").rpartition(".")[2]
            field = {"type": "turn_detection", "output_modalities": "modality"}.get(named, named)
            problem = self._script.problem(error.message, "session", field)
            raise Failure(problem) from error

    async def _read(self) -> None:
        try:
            async for event in self._client.events(raise_errors=False):
                for answer in self.observer.take(event):
                    await self._client.send(answer)
                self._changed.set()
        except Exception as error:  # told by who waits for something to happen
            self._lost = error

    async def _send_sound(self, microphone: Microphone) -> None:
        try:
            await microphone.run()
        except Exception as error:
            self._lost = error

    def _place(self, index: int) -> None:
        """Let the turn's conditions hold from now on."""
        if self._microphone is None:
            return
        turn = self._dialogue.turns[index]
        conditions = turn.conditions or self._dialogue.conditions
        noise, gain = None, 0.0
        if conditions.noise is not None:
            noise = self._prepared[index].noise
            level = sound.speech_level(self._prepared[index].speech)
            gain = sound.noise_gain(level, conditions.noise.snr)
        self._microphone.place(conditions, noise, gain)

    async def _until(self, condition: Callable[[], bool], until: float = math.inf) -> None:
        """Wait until it holds, or for the moment; raises what ended the connection."""
        while not condition() and time.monotonic() < until:
            if self._lost is not None:
                raise self._lost
            self._changed.clear()
            with contextlib.suppress(TimeoutError):  # time alone may change a condition
                await asyncio.wait_for(self._changed.wait(), _TICK)

    # A turn

    async def _turn(self, index: int) -> None:
        turn = self._dialogue.turns[index]
        ready = self._prepared[index]
        seen = self.observer.begin(time.monotonic())
        if self._too_late:
            seen.note(TOO_LATE, seen.began)
            self._too_late = False
        self._place(index)
        shows = [] if turn.type is not None else ready.frames
        longest = len(ready.speech) / WIRE_RATE + max((at for at, _ in shows), default=0)
        try:
            async with asyncio.timeout(self._dialogue.timeout + longest + (turn.silent or 0)):
                showing = asyncio.create_task(self._show(seen, shows), name="dialogue-camera")
                try:
                    await self._ask(turn, seen, ready)
                    await showing
                    await self._hear_out(index, turn, seen)
                finally:
                    showing.cancel()
                    await asyncio.gather(showing, return_exceptions=True)
        except TimeoutError:
            last = max(seen.events, key=lambda event: event[1], default=("none at all", 0, ""))
            raise Failure(
                self._script.problem(
                    f"no whole answer within {self._dialogue.timeout:g} s; the last event was "
                    f"{last[0]}",
                    *("turns", index),
                )
            ) from None
        seen.ended = time.monotonic()

    async def _ask(self, turn: Turn, seen: TurnSeen, ready: Prepared) -> None:
        client, microphone = self._client, self._microphone
        if turn.type is not None:
            if turn.interrupts is not None:
                for event in self.observer.hush(time.monotonic()):
                    await client.send(event)
                if self.observer.answering:
                    await client.cancel()
            pictures = [data for _, data in ready.frames]
            content = [
                {"type": "input_image", "image_url": image_to_data_url(data)} for data in pictures
            ]
            seen.pictures += pictures
            if turn.type:
                content.append({"type": "input_text", "text": turn.type})
            item = {"type": "message", "role": "user", "content": content}
            await client.send({"type": "conversation.item.create", "item": item})
            seen.asked = time.monotonic()
            seen.note("user.typed", seen.asked, turn.type)
            await client.create_response()
        elif len(ready.speech) and microphone is not None:
            begin = microphone.say(ready.speech)
            for start, end in sound.spans(ready.speech):
                seen.speech.append((begin + start, begin + end))
                seen.note("user.speech_started", begin + start)
                seen.note("user.speech_stopped", begin + end)
            await self._until(lambda: not microphone.speaking)
            if self._push_to_talk:
                await client.commit()
                await client.create_response()

    async def _show(self, seen: TurnSeen, frames: Sequence[tuple[float, bytes]]) -> None:
        for at, data in frames:
            await asyncio.sleep(seen.began + at - time.monotonic())
            seen.note("user.showed", time.monotonic())
            seen.pictures.append(data)
            await self._client.send_image(data)

    async def _hear_out(self, index: int, turn: Turn, seen: TurnSeen) -> None:
        """Wait for what belongs to the turn: the answer, its sound, or that none comes."""
        observer, speaker = self.observer, self.observer.loudspeaker
        following = self._dialogue.turns[index + 1 : index + 2]

        def played() -> bool:
            return speaker.end <= time.monotonic()

        asks = turn.say or turn.type is not None
        if turn.silent or turn.expects_silence or not (asks and self._answers(turn)):
            wait = turn.silent or (QUIET if turn.expects_silence else 0)
            until = seen.question_end + wait
            await self._work(turn, seen, lambda: False, until)
            await self._work(turn, seen, lambda: not observer.active(seen) and played())
            return
        after = turn.hang_up
        if following and following[0].interrupts is not None:
            after = following[0].interrupts
        if after is not None:

            def over() -> bool:
                return self._settled(turn, seen) and played()

            await self._work(
                turn, seen, lambda: observer.heard(seen, time.monotonic()) >= after or over()
            )
            self._too_late = over()
            return
        await self._work(turn, seen, lambda: self._settled(turn, seen))
        if following and self._microphone is not None:
            await self._work(turn, seen, played)

    def _answers(self, turn: Turn) -> bool:
        """Whether the server is to answer without being asked to."""
        return turn.type is not None or self._push_to_talk or self._answers_itself

    async def _work(
        self,
        turn: Turn,
        seen: TurnSeen,
        condition: Callable[[], bool],
        until: float = math.inf,
    ) -> None:
        """Wait like :meth:`_until`, and give calls back meanwhile."""

        def called() -> bool:
            return bool(self._open_calls(turn, seen))

        while True:
            await self._until(lambda: called() or condition(), until)
            if not called():
                return
            await self._give_back(turn, seen)

    def _settled(self, turn: Turn, seen: TurnSeen) -> bool:
        """Whether the answer to all that was said is there."""
        if self.observer.active(seen) or self._open_calls(turn, seen) or not seen.answers:
            return False
        since = max(seen.question_end, seen.gave_back)
        final = seen.answers[-1]
        if final.created >= since and final.status != "cancelled":
            return True
        # Interrupted by a noise, or answered too early: nothing more comes.
        last = max(since, max(answer.times["done"] for answer in seen.answers))
        return time.monotonic() - last > QUIET

    def _open_calls(self, turn: Turn, seen: TurnSeen) -> list[ToolCall]:
        """Calls of answers that are done, which wait for what they give back."""
        if seen.rounds >= _MAX_ROUNDS:
            return []
        return [
            call
            for answer in seen.answers
            if answer.status == "completed"
            for call in answer.calls
            if call.id not in seen.outputs and self._gives(turn, call) is not None
        ]

    async def _give_back(self, turn: Turn, seen: TurnSeen) -> None:
        for call in self._open_calls(turn, seen):
            output = self._gives(turn, call) or ""
            seen.outputs[call.id] = output
            seen.note("user.tool_output", time.monotonic(), output)
            await self._client.send_tool_output(call, output)
        seen.rounds += 1
        seen.gave_back = time.monotonic()
        await self._client.create_response()

    def _gives(self, turn: Turn, call: ToolCall) -> str | None:
        offered = {tool.name: tool.gives for tool in self._dialogue.session.tools}
        template = turn.tools.get(call.name, offered.get(call.name))
        if template is None:
            return None
        try:
            arguments = json.loads(call.arguments)
        except ValueError:
            arguments = {}
        filled = fill(template, arguments if isinstance(arguments, dict) else {})
        return filled if isinstance(filled, str) else json.dumps(filled, ensure_ascii=False)
