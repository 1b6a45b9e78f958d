"""The conversation: a machine without I/O, threads or models.

`receive` takes an event of the client, `handle` one of the engine; both return what is to be done
now, in order: events for the client (dicts), commands for the engine, and records to be kept. The
machine knows whose turn it is (`Hearing`), what was said (`History`), and what is being answered
(`Answering`).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from omni import events as ev
from omni.errors import InputError
from omni.types import Span
from runtime.answering import Answering
from runtime.hearing import Hearing
from runtime.history import History
from runtime.host import Effect
from runtime.items import Item, Part
from runtime.records import KeepInput, KeepSettings, Record, Saved
from runtime.settings import Defaults, Settings
from runtime.wire import Event, check_event, decode_base64, error_event, load

SILENCE = "[The user says nothing.]"
"""What the LLM reads of a silence that ran into the idle timeout."""


def random_id(prefix: str) -> str:
    """A fresh id such as ``item_5f2a…``."""
    return f"{prefix}_{secrets.token_hex(10)}"


class Conversation:
    """One user's conversation, new or ``saved``.

    ``clock`` gives seconds of the engine's monotonic clock, ``new_id`` makes ids from a prefix.
    """

    def __init__(
        self,
        defaults: Defaults,
        saved: Saved | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[str], str] = random_id,
    ) -> None:
        self.id = saved.id if saved is not None else new_id("sess")
        self.conversation_id = saved.conversation_id if saved is not None else new_id("conv")
        self.settings = Settings(self.id, defaults)
        if saved is not None:
            self.settings.restore(saved.settings)
        self.clock = clock
        self.new_id = new_id
        self._out: list[Effect] = []
        self._history = History(self, saved)
        self._hearing = Hearing(self)
        self._answering = Answering(
            self, self._history, lambda: self._hearing.user_goes_on, self.conversation_id
        )

    @property
    def items(self) -> list[Item]:
        """What was said so far."""
        return self._history.items

    @property
    def unread_media(self) -> int:
        """How many recordings and pictures wait for their encoders."""
        return self._history.unread

    # What comes in

    def open(self) -> list[Effect]:
        """The first events of the session; one that goes on gets all of its items again."""
        self.do(KeepSettings(self.settings.wire))
        self.send("session.created", session=self.settings.wire)
        self.send(
            "conversation.created",
            conversation={"id": self.conversation_id, "object": "realtime.conversation"},
        )
        self._history.replay()
        self._answering.read_ahead()
        return self._drain()

    def receive(self, text: str | bytes) -> list[Effect]:
        """Take one message of the client; a wrong one is answered by an ``error`` event."""
        event_id = None
        try:
            event = load(text)
            given = event.get("event_id")
            event_id = given if isinstance(given, str) else None
            check_event(event)
            handler = self._HANDLERS[event["type"]]
            handler(self, event)
        except RecursionError:
            deep = InputError("the event is nested too deeply", code="invalid_event")
            self.refuse(deep, event_id)
        except InputError as error:
            self.refuse(error, event_id)
        return self._drain()

    def handle(self, event: ev.OutputEvent) -> list[Effect]:
        """Take one event of the engine."""
        match event:
            case ev.VoiceActivity():
                self._hearing.voice(event)
                self._mind_idleness()
            case ev.TurnJudged():
                self._hearing.judged(event)
            case ev.Transcribed(key, transcript, at):
                times = (0.0, transcript.seconds)
                span = Span("audio", transcript.text, transcript.embeds, times)
                self._resolve(key, span, at)
            case ev.Seen(key, span, at):
                self._resolve(key, span, at)
            case ev.InputFailed(key, message, _):
                self._fail(key, message)
            case _:
                self._answering.handle(event)
        return self._drain()

    def _drain(self) -> list[Effect]:
        out, self._out = self._out, []
        return out

    # Host

    def send(self, kind: str, **fields: object) -> None:
        """See `Host`."""
        self._out.append({"type": kind, "event_id": self.new_id("event"), **fields})

    def refuse(self, error: InputError, event_id: str | None = None) -> None:
        """See `Host`."""
        self._out.append({**error_event(error, event_id), "event_id": self.new_id("event")})

    def do(self, effect: ev.Command | Record) -> None:
        """See `Host`."""
        self._out.append(effect)

    def interrupt(self) -> None:
        """See `HearingHost`."""
        self._answering.interrupt()

    def read_ahead(self, heard: Span) -> None:
        """See `HearingHost`."""
        self._answering.read_ahead(heard)

    def take_turn(
        self,
        item_id: str,
        key: str,
        heard: Span | None,
        *,
        sound: tuple[float, float],
        stamps: dict[str, float],
        answer: bool,
    ) -> None:
        """See `HearingHost`."""
        if answer:
            self._answering.want(item_id)
        part = Part("input_audio", key=key, media=self.new_id("media"))
        assert part.media is not None
        self.do(KeepInput(item_id, part.media, *sound))
        item = Item(item_id, "user", [part], stamps=stamps)
        self._commit(item)
        self._history.expect(item, part)
        if heard is not None:
            self._resolve(key, heard)

    def _commit(self, item: Item) -> None:
        previous = self.items[-1].id if self.items else None
        self.send("input_audio_buffer.committed", item_id=item.id, previous_item_id=previous)
        self._history.add(item)

    # What media hold

    def _resolve(self, key: str, span: Span, at: float | None = None) -> None:
        if not self._history.expects(key):
            self._hearing.transcribed(key, span, at or self.clock())
            return
        item = self._history.resolve(key, span, at)
        if item is not None and span.modality == "audio" and not span.text:
            self._answering.waive(item.id)
        self._answering.go_on()

    def _fail(self, key: str, message: str) -> None:
        if not self._history.expects(key):
            self._hearing.failed(key)
            return
        item = self._history.fail(key, message)
        if item is not None:
            self._answering.waive(item.id)
        self._answering.go_on()

    # Silence

    def _mind_idleness(self) -> None:
        """Let the assistant speak when the user has been silent for too long after it."""
        detection, since = self.settings.turn_detection, self._answering.quiet_since
        if detection is None or detection.idle_timeout is None or since is None:
            return
        idle = self.clock() - since
        if idle < detection.idle_timeout or self._hearing.speaking or self._answering.active:
            return
        self._answering.quiet_since = None
        end = self._hearing.position
        item = Item(self.new_id("item"), "user", [Part("input_audio", "", Span("audio", SILENCE))])
        self.send(
            "input_audio_buffer.timeout_triggered",
            item_id=item.id,
            audio_start_ms=round(max(0.0, end - idle) * 1000),
            audio_end_ms=round(end * 1000),
        )
        self._hearing.skip()
        self._commit(item)
        self._answering.want(item.id)
        self._answering.go_on()

    # What the client sends

    def _on_session_update(self, event: Event) -> None:
        self.settings.update(event["session"], voice_fixed=self._answering.spoke)
        self._hearing.follow_settings()
        self.do(KeepSettings(self.settings.wire))
        self.send("session.updated", session=self.settings.wire)
        self._answering.read_ahead()

    def _on_append(self, event: Event) -> None:
        self._hearing.append(self._history.decode_sound(event["audio"], "audio"))

    def _on_commit(self, _: Event) -> None:
        self._hearing.commit()

    def _on_clear(self, _: Event) -> None:
        self._hearing.clear()
        self.send("input_audio_buffer.cleared")
        self._answering.go_on()

    def _on_clear_output(self, _: Event) -> None:
        self._answering.clear_output()

    def _on_image(self, event: Event) -> None:
        self._history.show(decode_base64(event["image"], "image"))

    def _on_item_create(self, event: Event) -> None:
        self._history.create(event["item"], event.get("previous_item_id"))

    def _on_item_delete(self, event: Event) -> None:
        item = self._history.find(event["item_id"], code="item_delete_invalid_item_id")
        if self._answering.owns(item):
            raise InputError(
                "the item belongs to the answer in progress; send response.cancel first",
                param="item_id",
            )
        self._history.delete(item)
        self._answering.waive(item.id)
        self._answering.go_on()

    def _on_item_retrieve(self, event: Event) -> None:
        item = self._history.find(event["item_id"], code="item_retrieve_invalid_item_id")
        self.send("conversation.item.retrieved", item=item.wire())

    def _on_item_truncate(self, event: Event) -> None:
        self._history.truncate(event)

    def _on_response_create(self, event: Event) -> None:
        self._answering.create(event.get("response") or {})

    def _on_response_cancel(self, event: Event) -> None:
        self._answering.cancel(event.get("response_id"))

    _HANDLERS: dict[str, Callable[[Conversation, Event], None]] = {  # noqa: RUF012
        "session.update": _on_session_update,
        "input_audio_buffer.append": _on_append,
        "input_audio_buffer.commit": _on_commit,
        "input_audio_buffer.clear": _on_clear,
        "output_audio_buffer.clear": _on_clear_output,
        "input_image_buffer.append": _on_image,
        "conversation.item.create": _on_item_create,
        "conversation.item.delete": _on_item_delete,
        "conversation.item.retrieve": _on_item_retrieve,
        "conversation.item.truncate": _on_item_truncate,
        "response.create": _on_response_create,
        "response.cancel": _on_response_cancel,
    }
