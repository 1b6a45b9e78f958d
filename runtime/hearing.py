"""The user's sound: the input buffer, and turns from their beginning to their transcript."""

from __future__ import annotations

from omni import events as ev
from omni.errors import InputError
from omni.types import AudioChunk, Span
from runtime.host import HearingHost
from runtime.turns import Paused, Resumed, SpeechStarted, SpeechStopped, TurnEvent, TurnTaker

MAX_BUFFER = 600.0
"""Seconds of sound that may wait uncommitted."""
MIN_COMMIT = 0.1
"""Seconds of sound that make a turn."""


class Hearing:
    """The input buffer of one conversation and the turn that is being spoken into it.

    Positions are seconds of the input sound.
    """

    def __init__(self, host: HearingHost) -> None:
        self._host = host
        self._turns: TurnTaker | None = None
        self.follow_settings()
        self._position = 0.0
        self._received_at = 0.0
        self._buffer_start = 0.0
        self._discarded = 0.0
        self._item_id = ""
        self._keys: dict[int, str] = {}
        """Of the transcripts that were asked for, by the number of the pause."""
        self._heard: dict[str, Span] = {}
        self._stamps: dict[str, float] = {}

    def follow_settings(self) -> None:
        """Take over the session's turn detection; a turn in progress goes on."""
        detection = self._host.settings.turn_detection
        if detection is None:
            self._turns = None
        elif self._turns is None:
            self._turns = TurnTaker(detection)
        else:
            self._turns.detection = detection

    @property
    def user_goes_on(self) -> bool:
        """Whether the user speaks, so that an answer now would be spoken into their words."""
        turns = self._turns
        return turns is not None and turns.speaking and turns.detection.interrupt_response

    @property
    def speaking(self) -> bool:
        """Whether a turn is being spoken."""
        return self._turns is not None and self._turns.speaking

    @property
    def position(self) -> float:
        """How much sound has come."""
        return self._position

    # What the client does

    def append(self, chunk: AudioChunk) -> None:
        """Take in sound. Raises `InputError` when too much waits uncommitted."""
        if self._position + chunk.seconds - self._buffer_start > MAX_BUFFER:
            raise InputError(
                f"more than {MAX_BUFFER:.0f} s of sound wait uncommitted; send "
                "input_audio_buffer.commit or input_audio_buffer.clear",
                param="audio",
                code="input_audio_buffer_full",
            )
        self._position += chunk.seconds
        self._received_at = self._host.clock()
        if len(chunk.pcm):
            self._host.do(ev.Append(chunk, self._host.settings.noise_reduction))

    def commit(self) -> None:
        """End the turn where the sound ends. Raises `InputError` when there is next to none."""
        begin, end = self._buffer_start, self._position
        if end - begin < MIN_COMMIT:
            raise InputError(
                f"the input audio buffer holds {(end - begin) * 1000:.0f} ms; append at least "
                f"{MIN_COMMIT * 1000:.0f} ms before committing",
                code="input_audio_buffer_commit_empty",
            )
        self._item_id = self._item_id or self._host.new_id("item")
        self._stamps["speech_end"] = self._stamps["turn_end"] = self._host.clock()
        self._finish(begin, end, None, answer=False)

    def clear(self) -> None:
        """Drop what waits uncommitted, a turn in progress included."""
        self._forget()
        self._buffer_start = self._position
        self._discard(self._position)

    def skip(self) -> None:
        """Drop the silence that waits uncommitted."""
        self._buffer_start = self._position

    # What the engine says

    def voice(self, event: ev.VoiceActivity) -> None:
        """Take in the speech probabilities of more frames."""
        if self._turns is None:
            return
        count = len(event.probabilities)
        for index, probability in enumerate(event.probabilities):
            end = event.end - (count - 1 - index) * event.step
            for turn in self._turns.feed(probability, end, event.step):
                self._follow(turn, end)
        if not self._turns.speaking:
            keep = self._turns.detection.prefix_padding + 1.0
            self._buffer_start = max(self._buffer_start, event.end - keep)
            if self._buffer_start - self._discarded > 1.0:
                self._discard(self._buffer_start)

    def judged(self, event: ev.TurnJudged) -> None:
        """Take in the end-of-turn model's word; one about another turn is ignored."""
        item, _, pause = event.key.rpartition(":")
        if self._turns is None or item != self._item_id:
            return
        for turn in self._turns.judged(int(pause), event.probability, self._position):
            self._follow(turn, self._position)

    def transcribed(self, key: str, span: Span, at: float) -> None:
        """Keep the transcript of a pause that has not become the end of the turn (yet)."""
        if key in self._keys.values():
            self._heard[key] = span
            self._stamps["transcript"] = at
            self._host.read_ahead(span)
            # An event of our own, for those who ask for it.
            if self._host.settings.tells_partial_transcripts:
                self._host.send(
                    "input_audio_buffer.partial_transcript",
                    item_id=self._item_id,
                    transcript=span.text or "",
                )

    def failed(self, key: str) -> None:
        """A transcript could not be made ahead; it is asked for again when the turn is over."""
        self._keys = {pause: k for pause, k in self._keys.items() if k != key}

    # The turn

    def _follow(self, turn: TurnEvent, now: float) -> None:
        match turn:
            case SpeechStarted(start):
                self._start(start)
            case Paused(start, end, pause, again):
                self._pause(start, end, pause, again)
            case Resumed(pause):
                key = self._keys.pop(pause, "")
                self._host.do(ev.Forget((key, f"{self._item_id}:{pause}")))
            case SpeechStopped(start, end, pause):
                self._stop(start, end, now, pause)

    def _start(self, start: float) -> None:
        assert self._turns is not None
        self._item_id = self._host.new_id("item")
        self._host.send(
            "input_audio_buffer.speech_started",
            audio_start_ms=round(start * 1000),
            item_id=self._item_id,
        )
        if self._turns.detection.interrupt_response:
            self._host.interrupt()

    def _pause(self, start: float, end: float, pause: int, again: bool) -> None:
        assert self._turns is not None
        if self._turns.detection.kind == "semantic_vad":
            self._host.do(ev.JudgeTurn(f"{self._item_id}:{pause}", start, end))
        if not again:
            self._stamps["silence"] = self._host.clock()
            self._transcribe(start, end, pause)

    def _transcribe(self, start: float, end: float, pause: int) -> str:
        """Ask for the words up to a pause, before it is certain that the turn is over."""
        key = self._keys[pause] = f"{self._item_id}/{pause}"
        self._host.do(ev.Transcribe(key, start, end, language=self._host.settings.language))
        return key

    def _stop(self, start: float, end: float, now: float, pause: int) -> None:
        assert self._turns is not None
        self._stamps["speech_end"] = self._received_at - (self._position - end)
        self._stamps["turn_end"] = self._host.clock()
        self._host.send(
            "input_audio_buffer.speech_stopped",
            audio_end_ms=round(end * 1000),
            item_id=self._item_id,
        )
        self._finish(start, now, pause, answer=self._turns.detection.create_response)

    def _finish(self, start: float, end: float, pause: int | None, *, answer: bool) -> None:
        """Hand the turn over; its transcript may be there already, on its way, or not asked."""
        key = self._keys.get(pause) if pause is not None else None
        if key is None:
            key = self._transcribe(start, end, pause if pause is not None else -1)
        item_id, heard, stamps = self._item_id, self._heard.get(key), self._stamps
        self._forget()
        self._host.take_turn(item_id, key, heard, sound=(start, end), stamps=stamps, answer=answer)
        self._buffer_start = end
        self._discard(end)

    def _forget(self) -> None:
        if self._turns is not None:
            self._turns.reset()
        self._item_id = ""
        self._keys.clear()
        self._heard.clear()
        self._stamps = {}

    def _discard(self, before: float) -> None:
        if before > self._discarded:
            self._discarded = before
            self._host.do(ev.Discard(before))
