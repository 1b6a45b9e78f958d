"""The conversation: a machine without I/O, threads or models.

`receive` takes an event of the client, `handle` one of the engine; both return what is to be done
now, in order: events for the client (dicts) and commands for the engine. The machine knows whose
turn it is, what was said, and what of the answer was really heard.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from typing import Any

from omni import events as ev
from omni.errors import InputError
from omni.types import AudioChunk, Message, Span
from runtime.hearing import Hearing
from runtime.items import Item, Part, check_item
from runtime.response import Response
from runtime.settings import Defaults, Settings
from runtime.wire import (
    WIRE_RATE,
    Event,
    decode_audio,
    decode_base64,
    decode_data_url,
    error_event,
    parse,
)

Effect = Event | ev.Command


def random_id(prefix: str) -> str:
    """A fresh id such as ``item_5f2a…``."""
    return f"{prefix}_{secrets.token_hex(10)}"


class Conversation:
    """One user's conversation.

    ``clock`` gives seconds of the engine's monotonic clock, ``new_id`` makes ids from a prefix.
    """

    def __init__(
        self,
        defaults: Defaults,
        *,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[str], str] = random_id,
    ) -> None:
        self.id = new_id("sess")
        self.settings = Settings(self.id, defaults)
        self.items: list[Item] = []
        self._conversation_id = new_id("conv")
        self.clock = clock
        self.new_id = new_id
        self._out: list[Effect] = []
        self._keys = itertools.count()
        self._hearing = Hearing(self)
        self._frame: Part | None = None
        self._waiting: dict[str, tuple[Item | None, Part]] = {}
        self._stamps: dict[str, dict[str, float]] = {}
        self._response: Response | None = None
        self._next: Response | None = None
        """Asked for while the engine has not let go of a cancelled answer yet."""
        self._unanswered: list[str] = []
        """Spoken turns that wait for an answer; several when the user went on after a pause."""
        self._spoke = False

    # What comes in

    @property
    def unread_media(self) -> int:
        """How many recordings and pictures wait for their encoders."""
        return len(self._waiting)

    def open(self) -> list[Effect]:
        """The first events of the session."""
        self.send("session.created", session=self.settings.wire)
        self.read_ahead()
        return self._drain()

    def receive(self, text: str | bytes) -> list[Effect]:
        """Take one message of the client; a wrong one is answered by an ``error`` event."""
        event_id = None
        try:
            event = parse(text)
            event_id = event.get("event_id")
            handler = self._HANDLERS[event["type"]]
            handler(self, event)
        except RecursionError:
            deep = InputError("the event is nested too deeply", code="invalid_event")
            self._refuse(deep, event_id)
        except InputError as error:
            self._refuse(error, event_id)
        return self._drain()

    def handle(self, event: ev.OutputEvent) -> list[Effect]:
        """Take one event of the engine."""
        match event:
            case ev.VoiceActivity():
                self._hearing.voice(event)
            case ev.TurnJudged():
                self._hearing.judged(event)
            case ev.Transcribed():
                transcript = event.transcript
                span = Span("audio", transcript.text, times=(0.0, transcript.seconds))
                self._resolve(event.key, span, event.at)
            case ev.Seen():
                self._resolve(event.key, event.span, event.at)
            case ev.InputFailed():
                self._on_failed(event)
            case _:
                self._on_answer(event)
        return self._drain()

    def _drain(self) -> list[Effect]:
        out, self._out = self._out, []
        return out

    def send(self, kind: str, **fields: object) -> None:
        """See `Host`."""
        self._out.append({"type": kind, "event_id": self.new_id("event"), **fields})

    def _refuse(self, error: InputError, event_id: str | None) -> None:
        self._out.append({**error_event(error, event_id), "event_id": self.new_id("event")})

    def do(self, command: ev.Command) -> None:
        """See `Host`."""
        self._out.append(command)

    # Settings

    def _on_session_update(self, event: Event) -> None:
        self.settings.update(event["session"], voice_fixed=self._spoke)
        self._hearing.follow_settings()
        self.send("session.updated", session=self.settings.wire)
        if self._response is None:
            self.read_ahead()

    # The user's sound

    def _on_append(self, event: Event) -> None:
        self._hearing.append(decode_audio(event["audio"]))

    def _on_commit(self, _: Event) -> None:
        self._hearing.commit()

    def _on_clear(self, _: Event) -> None:
        self._hearing.clear()
        self.send("input_audio_buffer.cleared")
        self._go_on()

    def stamps(self, item_id: str) -> dict[str, float]:
        """See `Host`."""
        return self._stamps.setdefault(item_id, {})

    def take_turn(self, item_id: str, key: str, heard: Span | None, *, answer: bool) -> None:
        """See `Host`."""
        if answer:
            self._unanswered.append(item_id)
        previous = self.items[-1].id if self.items else None
        self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        part = Part("input_audio", key=key)
        item = Item(item_id, "user", [part])
        self._waiting[key] = (item, part)
        self._add_item(item, len(self.items))
        if heard is not None:
            self._resolve(key, heard, None)

    def interrupt(self) -> None:
        """See `Host`."""
        self._note_interruption()
        if self._response is not None:
            self._cancel("turn_detected")

    # The user's pictures and typed words

    def _on_image(self, event: Event) -> None:
        part = self._image_part(decode_base64(event["image"], "image"))
        # Only the latest frame counts: it shows what the user talks about.
        if self._frame is not None and self._frame.key is not None:
            self._waiting.pop(self._frame.key, None)
            self.do(ev.Forget((self._frame.key,)))
        self._frame = part

    def _image_part(self, data: bytes, item: Item | None = None) -> Part:
        if not data:
            raise InputError("the image is empty; send a JPEG, PNG or WebP file", param="image")
        part = Part("input_image", key=f"image/{next(self._keys)}")
        assert part.key is not None
        self._waiting[part.key] = (item, part)
        self.do(ev.See(part.key, data))
        return part

    def _on_item_create(self, event: Event) -> None:
        data = event["item"]
        check_item(data)
        index = self._index_after(event.get("previous_item_id"))
        if any(item.id == data.get("id") for item in self.items):
            raise InputError(f"item {data['id']!r} exists already", param="item.id")
        item = self._build_item(data, "item")
        self._add_item(item, index)

    def _build_item(self, data: dict[str, Any], path: str) -> Item:
        """An item from the client; all of it is decoded before any work is asked for."""
        media: dict[int, bytes | AudioChunk] = {}
        for index, part in enumerate(data["content"]):
            where = f"{path}.content.{index}"
            if part["type"] == "input_image":
                media[index] = decode_data_url(part["image_url"], f"{where}.image_url")
            elif part["type"] == "input_audio":
                media[index] = decode_audio(part["audio"], f"{where}.audio")
        item = Item(data.get("id") or self.new_id("item"), data["role"])
        for index, part in enumerate(data["content"]):
            medium = media.get(index)
            if isinstance(medium, bytes):
                item.parts.append(self._image_part(medium, item))
            elif medium is not None:
                key = f"audio/{next(self._keys)}"
                item.parts.append(Part("input_audio", key=key))
                self._waiting[key] = (item, item.parts[-1])
                self.do(ev.Transcribe(key, chunk=medium, language=self.settings.language))
            else:
                item.parts.append(Part(part["type"], part.get("text") or part.get("transcript")))
        return item

    def _index_after(self, previous: str | None) -> int:
        if previous is None:
            return len(self.items)
        if previous == "root":
            return 0
        return self.items.index(self._item(previous, "previous_item_id")) + 1

    def _item(self, item_id: object, param: str = "item_id") -> Item:
        for item in self.items:
            if item.id == item_id:
                return item
        raise InputError(
            f"there is no item {item_id!r} in this conversation",
            param=param,
            code="item_not_found",
        )

    def _add_item(self, item: Item, index: int) -> None:
        if item.role == "user" and self._frame is not None:
            item.parts.insert(0, self._frame)
            if self._frame.key is not None:
                self._waiting[self._frame.key] = (item, self._frame)
            self._frame = None
        previous = self.items[index - 1].id if index else None
        self.items.insert(index, item)
        wire = item.wire()
        self.send("conversation.item.added", item=wire, previous_item_id=previous)
        if item.status != "in_progress":
            self.send("conversation.item.done", item=wire, previous_item_id=previous)

    def _on_item_delete(self, event: Event) -> None:
        item = self._item(event["item_id"])
        if self._response is not None and self._response.item is item:
            raise InputError(
                "the item belongs to the answer in progress; send response.cancel first",
                param="item_id",
            )
        self.items.remove(item)
        if item.id in self._unanswered:
            self._unanswered.remove(item.id)
        self.send("conversation.item.deleted", item_id=item.id)
        self._go_on()

    def _on_item_retrieve(self, event: Event) -> None:
        self.send("conversation.item.retrieved", item=self._item(event["item_id"]).wire())

    def _on_item_truncate(self, event: Event) -> None:
        item = self._item(event["item_id"])
        if item.role != "assistant" or not item.spoken:
            raise InputError(
                "only a spoken answer of the assistant can be truncated", param="item_id"
            )
        if event["content_index"] != 0:
            raise InputError("content_index must be 0", param="content_index")
        samples = event["audio_end_ms"] * WIRE_RATE // 1000
        if samples < 0 or samples > item.samples:
            raise InputError(
                f"audio_end_ms must be between 0 and {item.samples * 1000 // WIRE_RATE}, the "
                f"length of the answer's sound, not {event['audio_end_ms']}",
                param="audio_end_ms",
            )
        item.parts[0].text = item.heard_until(samples)
        # The client knows better than any estimate.
        item.cut = item.playing_since = None
        self.send(
            "conversation.item.truncated",
            item_id=item.id,
            content_index=0,
            audio_end_ms=event["audio_end_ms"],
        )

    # What the encoders say

    def _resolve(self, key: str, span: Span, at: float | None) -> None:
        if key not in self._waiting:
            self._hearing.transcribed(key, span, at or self.clock())
            return
        item, part = self._waiting.pop(key)
        part.key, part.span = None, span
        if part.kind == "input_audio":
            part.text = span.text or ""
            if item is not None:
                if at is not None:
                    self._stamps.setdefault(item.id, {}).setdefault("transcript", at)
                self._send_transcript(item, part)
                if not part.text and item.id in self._unanswered:
                    self._unanswered.remove(item.id)
        self._go_on()

    def _send_transcript(self, item: Item, part: Part) -> None:
        if not self.settings.transcribes or item not in self.items:
            return
        where = {"item_id": item.id, "content_index": item.parts.index(part)}
        kind = "conversation.item.input_audio_transcription"
        seconds = part.span.times[1] if part.span is not None and part.span.times else 0.0
        if part.text:
            self.send(f"{kind}.delta", **where, delta=part.text)
        self.send(
            f"{kind}.completed",
            **where,
            transcript=part.text,
            usage={"type": "duration", "seconds": round(seconds, 3)},
        )

    def _on_failed(self, event: ev.InputFailed) -> None:
        waiting = self._waiting.pop(event.key, None)
        if waiting is None:
            self._hearing.failed(event.key)
            return
        item, part = waiting
        part.key = None
        part.text = "" if part.kind == "input_audio" else None
        if part is self._frame:
            self._frame = None
        if part.kind == "input_audio" and item is not None:
            self.send(
                "conversation.item.input_audio_transcription.failed",
                item_id=item.id,
                content_index=item.parts.index(part),
                error={"type": "invalid_request_error", "message": event.message},
            )
            if item.id in self._unanswered:
                self._unanswered.remove(item.id)
        else:
            self._refuse(InputError(event.message, param="image", code="invalid_image"), None)
        self._go_on()

    # Answers

    def _messages(self, items: list[Item], instructions: str) -> tuple[Message, ...]:
        head = [Message("system", (instructions,))] if instructions else []
        said = (item.message() for item in items)
        return tuple([*head, *(message for message in said if message is not None)])

    def read_ahead(self, heard: Span | None = None) -> None:
        """Let the engine read the conversation, and what the user seems to have said."""
        if self._response is not None:
            return
        items = list(self.items)
        if heard is not None:
            parts = [Part("input_audio", heard.text, heard)]
            if self._frame is not None and self._frame.ready:
                parts.insert(0, self._frame)
            items.append(Item("", "user", parts))
        instructions = self.settings.wire["instructions"]
        self.do(ev.Prepare(self._messages(items, instructions)))

    def _on_response_create(self, event: Event) -> None:
        active = self._next or self._response
        if active is not None and active.cancelled is None:
            raise InputError(
                f"the conversation has an answer in progress ({active.id}); wait for its "
                "response.done or send response.cancel",
                code="conversation_already_has_active_response",
            )
        change = event.get("response") or {}
        settings = self.settings.response(change)
        context: list[Item] | None = None
        if change.get("input") is not None:
            for index, data in enumerate(change["input"]):
                if _is_reference(data):
                    self._item(data.get("id"), f"response.input.{index}.id")
                else:
                    check_item(data, f"response.input.{index}")
            context = [
                self._item(data["id"])
                if _is_reference(data)
                else self._build_item(data, f"response.input.{index}")
                for index, data in enumerate(change["input"])
            ]
        last_user = next((i for i in reversed(self.items) if i.role == "user"), None)
        stamps = {"request": self.clock()}
        if last_user is not None and last_user.id in self._stamps:
            stamps = self._stamps.pop(last_user.id) | stamps
        response = Response(self.new_id("resp"), settings, self._new_item(), context, stamps)
        if self._response is None:
            self._begin(response)
        else:
            self._next = response

    def _new_item(self) -> Item:
        return Item(self.new_id("item"), "assistant", [], "in_progress")

    def _begin(self, response: Response) -> None:
        self._response = response
        self._unanswered.clear()
        self.send("response.created", response=response.wire(self._conversation_id))
        self._go_on()

    def _go_on(self) -> None:
        """Start what was waiting for a transcript or a picture."""
        if self._response is None and self._unanswered:
            item_id = self._unanswered[-1]
            if not self._hearing.user_goes_on and all(item.ready for item in self.items):
                settings = self.settings.response({})
                stamps = self._stamps.pop(item_id, {})
                self._begin(Response(self.new_id("resp"), settings, self._new_item(), None, stamps))
            return
        response = self._response
        if response is None or response.started or response.cancelled is not None:
            return
        items = self.items if response.context is None else response.context
        if all(item.ready for item in items):
            response.started = True
            settings = response.settings
            self.do(
                ev.Start(
                    response.id,
                    self._messages(items, settings.instructions),
                    settings.sampling,
                    speak=settings.speak,
                    voice=settings.voice,
                    speed=settings.speed,
                )
            )

    def _on_response_cancel(self, event: Event) -> None:
        wanted = event.get("response_id")
        active = self._next or self._response
        if active is None or wanted not in (None, active.id):
            raise InputError(
                "there is no such answer in progress; it may have ended already",
                param="response_id" if wanted else None,
                code="response_cancel_not_active",
            )
        self._cancel("client_cancelled")

    def _cancel(self, reason: str) -> None:
        following, self._next = self._next, None
        if following is not None:
            following.cancelled = reason
            self.send("response.created", response=following.wire(self._conversation_id))
            following.finish("cancelled", None, None)
            self.send("response.done", response=following.wire(self._conversation_id))
            return
        response = self._response
        assert response is not None
        if response.cancelled is not None:
            return
        response.cancelled = reason
        if response.started:
            # The engine's last word brings the usage; until then its output is dropped.
            self.do(ev.Cancel(response.id))
        else:
            self._end(response, "cancelled", None, None)

    def _note_interruption(self) -> None:
        """Remember what the user can have heard, for clients that do not truncate."""
        for item in reversed(self.items):
            if item.role == "assistant":
                if item.spoken and item.playing_since is not None:
                    heard = (self.clock() - item.playing_since) * WIRE_RATE
                    if heard < item.samples:
                        item.cut = item.heard_until(int(heard))
                return

    def _on_answer(self, event: ev.OutputEvent) -> None:
        response = self._response
        if response is None or getattr(event, "response_id", None) != response.id:
            return
        if isinstance(event, ev.ResponseDone):
            status = "cancelled" if response.cancelled is not None else event.reason
            self._end(response, status, event, event.error)
            return
        if response.cancelled is not None:
            return
        if isinstance(event, ev.TextDelta | ev.AudioDelta):
            self._open_item(response)
        match event:
            case ev.TextDelta(_, text, at):
                response.mark("first_token", at)
                response.item.parts[0].text = (response.item.parts[0].text or "") + text
                self.send(
                    f"{response.text_kind}.delta", **response.where, content_index=0, delta=text
                )
            case ev.ClauseReady(_, _, at):
                response.mark("first_clause", at)
            case ev.AudioDelta():
                self._spoke = True
                response.mark("first_audio", event.at)
                response.hear(event)
                self.send(
                    "response.output_audio.delta",
                    **response.where,
                    content_index=0,
                    delta=event.chunk,
                )
            case ev.VoiceMissing(_, language, _):
                response.warn(
                    f"no voice knows the language {language!r}; that part of the answer is text"
                )

    def _open_item(self, response: Response) -> None:
        if response.item.parts:
            return
        item = response.item
        head = {"response_id": response.id, "output_index": 0}
        self.send("response.output_item.added", **head, item=item.wire())
        if response.settings.in_conversation:
            self._add_item(item, len(self.items))
        item.parts.append(Part("output_audio" if response.settings.speak else "output_text", ""))
        part = (
            {"type": "audio", "transcript": ""}
            if response.settings.speak
            else {
                "type": "text",
                "text": "",
            }
        )
        self.send("response.content_part.added", **response.where, content_index=0, part=part)

    def _end(
        self, response: Response, status: str, done: ev.ResponseDone | None, error: str | None
    ) -> None:
        item = response.item
        complete = status == "stop"
        item.status = "completed" if complete else "incomplete"
        if item.parts:
            text = item.parts[0].text or ""
            where = {**response.where, "content_index": 0}
            if response.settings.speak:
                self.send("response.output_audio.done", **where)
                self.send("response.output_audio_transcript.done", **where, transcript=text)
                part = {"type": "audio", "transcript": text}
            else:
                self.send("response.output_text.done", **where, text=text)
                part = {"type": "text", "text": text}
            self.send("response.content_part.done", **where, part=part)
            self.send(
                "response.output_item.done",
                response_id=response.id,
                output_index=0,
                item=item.wire(),
            )
            if item in self.items:
                index = self.items.index(item)
                previous = self.items[index - 1].id if index else None
                self.send("conversation.item.done", item=item.wire(), previous_item_id=previous)
        response.finish(status, done, error)
        self._response = None
        self.send("response.done", response=response.wire(self._conversation_id))
        if self._next is not None:
            following, self._next = self._next, None
            self._begin(following)
            return
        self._go_on()
        if self._response is None:
            self.read_ahead()

    _HANDLERS: dict[str, Callable[[Conversation, Event], None]] = {  # noqa: RUF012
        "session.update": _on_session_update,
        "input_audio_buffer.append": _on_append,
        "input_audio_buffer.commit": _on_commit,
        "input_audio_buffer.clear": _on_clear,
        "input_image_buffer.append": _on_image,
        "conversation.item.create": _on_item_create,
        "conversation.item.delete": _on_item_delete,
        "conversation.item.retrieve": _on_item_retrieve,
        "conversation.item.truncate": _on_item_truncate,
        "response.create": _on_response_create,
        "response.cancel": _on_response_cancel,
    }


def _is_reference(data: object) -> bool:
    return isinstance(data, dict) and data.get("type") == "item_reference"
