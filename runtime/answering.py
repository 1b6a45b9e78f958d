"""The answers of one conversation, one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from omni import events as ev
from omni.errors import InputError
from omni.types import Message, Span
from runtime.history import History
from runtime.host import Host
from runtime.items import Item, Kind, Part, asked_picture, asked_thing, check_item, read_items
from runtime.records import KeepMedia
from runtime.response import Response
from runtime.wire import WIRE_RATE, Event, encode_base64

MAX_WAITING = 8
"""Answers apart from the conversation that may wait for their turn."""

KEEP_EVERY = 0.5
"""Seconds after which the text of a growing answer is kept again."""


class Answering:
    """Starts, tells and ends answers.

    ``user_goes_on`` says whether the user speaks, so that an answer now would be spoken into their
    words.
    """

    def __init__(
        self,
        host: Host,
        history: History,
        user_goes_on: Callable[[], bool],
        conversation_id: str,
    ) -> None:
        self._host = host
        self._history = history
        self._user_goes_on = user_goes_on
        self._conversation_id = conversation_id
        self._active: Response | None = None
        self._queue: deque[Response] = deque()
        """Asked for while the engine has not let go of the answer before."""
        self._unanswered: list[str] = []
        """Spoken turns that wait for an answer; several when the user went on after a pause."""
        self._last_heard: str | None = None
        self.spoke = any(item.spoken for item in history.items)
        """Whether there was sound of the assistant: from then on its voice is fixed."""
        self.quiet_since: float | None = None
        """When the sound of the last answer was over; None while someone speaks."""

    @property
    def active(self) -> bool:
        """Whether an answer is being made."""
        return self._active is not None

    def owns(self, item: Item) -> bool:
        """Whether the item belongs to the answer in progress."""
        return self._active is not None and item is self._active.item

    # What is read

    def _messages(self, items: list[Item], instructions: str) -> tuple[Message, ...]:
        head = [Message("system", (instructions,))] if instructions else []
        return (*head, *read_items(items))

    def read_ahead(self, heard: Span | None = None) -> None:
        """Let the engine read the conversation, and what the user seems to have said."""
        if self._active is not None:
            return
        items = list(self._history.items)
        if heard is not None:
            parts = [Part("input_audio", heard.text, heard)]
            frame = self._history.frame
            if frame is not None and frame.ready:
                parts.insert(0, frame)
            items.append(Item("", "user", parts))
        settings = self._host.settings
        messages = self._messages(items, settings.wire["instructions"])
        self._host.do(ev.Prepare(messages, settings.tools, *settings.truncation))

    # Asking for answers

    def create(self, change: Event) -> None:
        """``response.create``."""
        settings = self._host.settings.response(change)
        # The conversation has one answer at a time; those apart from it wait for their turn.
        if settings.in_conversation and (active := self._conversational()) is not None:
            raise InputError(
                f"the conversation has an answer in progress ({active.id}); wait for its "
                "response.done or send response.cancel",
                code="conversation_already_has_active_response",
            )
        if len(self._queue) >= MAX_WAITING:
            raise InputError(
                f"{MAX_WAITING} answers wait already; wait for a response.done", code="too_many"
            )
        context = self._context(change, keep=settings.in_conversation)
        last = next((i for i in reversed(self._history.items) if i.role == "user"), None)
        stamps = {"request": self._host.clock()}
        if last is not None and context is None:
            stamps = last.stamps | stamps
            last.stamps = {}
        response = Response(self._host.new_id("resp"), settings, context, stamps)
        if self._active is None:
            self._begin(response)
        else:
            self._queue.append(response)

    def _conversational(self) -> Response | None:
        for response in (*self._queue, *([self._active] if self._active else [])):
            if response.settings.in_conversation and response.cancelled is None:
                return response
        return None

    def _context(self, change: Event, *, keep: bool) -> list[Item] | None:
        if change.get("input") is None:
            return None
        for index, data in enumerate(change["input"]):
            path = f"response.input.{index}"
            if _is_reference(data):
                self._history.find(data.get("id"), f"{path}.id")
            else:
                check_item(data, path)
        return [
            self._history.find(data["id"])
            if _is_reference(data)
            else self._history.build(data, f"response.input.{index}", keep=False)
            for index, data in enumerate(change["input"])
        ]

    def want(self, item_id: str) -> None:
        """A spoken turn wants an answer, as soon as the conversation can be read."""
        self._unanswered.append(item_id)

    def waive(self, item_id: str) -> None:
        """That turn wants none: it was nothing, or is gone."""
        if item_id in self._unanswered:
            self._unanswered.remove(item_id)

    def _begin(self, response: Response) -> None:
        self._active = response
        if response.settings.in_conversation:
            self.quiet_since = None
            if response.cancelled is None:
                self._unanswered.clear()
        self._created(response)
        self.go_on()

    def _created(self, response: Response) -> None:
        self._host.send("response.created", response=response.wire(self._conversation_id))
        # There are none; clients that wait for the event learn so.
        self._host.send("rate_limits.updated", rate_limits=[])

    def go_on(self) -> None:
        """Start what was waiting for a transcript or a picture."""
        if self._active is None and self._unanswered:
            items = self._history.items
            if not self._user_goes_on() and all(item.ready for item in items):
                wanted = self._unanswered[-1]
                stamps = next((i.stamps for i in items if i.id == wanted), {})
                settings = self._host.settings.response({})
                self._begin(Response(self._host.new_id("resp"), settings, None, stamps))
            return
        response = self._active
        if response is None or response.started or response.cancelled is not None:
            return
        items = self._history.items if response.context is None else response.context
        if all(item.ready for item in items):
            response.started = True
            settings = response.settings
            own_tools = bool(settings.tools.tools)
            wish = None if own_tools else asked_picture(items)
            find = None if own_tools else asked_thing(items)
            self._host.do(
                ev.Start(
                    response.id,
                    self._messages(items, settings.instructions),
                    settings.sampling,
                    speak=settings.speak,
                    voice=settings.voice,
                    speed=settings.speed,
                    tools=settings.tools,
                    keep_ratio=settings.keep_ratio,
                    context_limit=settings.context_limit,
                    wish=wish,
                    find=find,
                )
            )

    # Stopping them

    def cancel(self, wanted: str | None) -> None:
        """``response.cancel``; without an id the answer in the conversation is meant."""
        candidates = [r for r in (*self._queue, self._active) if r is not None]
        if wanted is None:
            response = self._conversational()
        else:
            response = next((r for r in candidates if r.id == wanted), None)
        if response is None:
            raise InputError(
                # Clients know this one by its first words.
                "Cancellation failed: there is no such answer in progress; it may have ended",
                param="response_id" if wanted else None,
                code="response_cancel_not_active",
            )
        self._cancel(response, "client_cancelled")

    def interrupt(self) -> None:
        """The user speaks over the answer."""
        self.quiet_since = None
        self._note_heard()
        response = self._conversational()
        if response is not None:
            self._cancel(response, "turn_detected")

    def _cancel(self, response: Response, reason: str) -> None:
        if response.cancelled is not None:
            return
        response.cancelled = reason
        if response is not self._active:
            return  # it is told when its turn comes: answers do not overlap on the wire
        if response.started:
            # The engine's last word brings the usage; until then its output is dropped.
            self._host.do(ev.Cancel(response.id))
        else:
            self._end(response, "cancelled", None)

    def clear_output(self) -> None:
        """``output_audio_buffer.clear``: no more sound, the words go on."""
        if self._last_heard is None:
            raise InputError(
                "there was no sound of an answer that could be cleared",
                code="output_audio_buffer_clear_empty",
            )
        self._note_heard()
        if self._active is not None and self._active.id == self._last_heard:
            self._active.muted = True
        self._host.send("output_audio_buffer.cleared", response_id=self._last_heard)

    def _note_heard(self) -> None:
        """Remember what the user can have heard, for clients that do not truncate."""
        for item in reversed(self._history.items):
            if item.role == "assistant" and item.kind == "message":
                if item.spoken and item.playing_since is not None:
                    heard = (self._host.clock() - item.playing_since) * WIRE_RATE
                    if heard < item.samples:
                        item.cut = item.heard_until(int(heard))
                        self._history.keep(item)
                return

    # What comes of them

    def handle(self, event: ev.OutputEvent) -> None:
        """Take one event of the engine about an answer; one about an old answer is dropped."""
        response = self._active
        if response is None or getattr(event, "response_id", None) != response.id:
            return
        if isinstance(event, ev.ResponseDone):
            status = "cancelled" if response.cancelled is not None else event.reason
            self._end(response, status, event)
            return
        if response.cancelled is not None:
            return
        match event:
            case ev.TextDelta(_, text, at):
                self._say(response, text, at)
            case ev.ClauseReady(_, _, at):
                response.mark("first_clause", at)
                if response.item is not None:
                    self._keep(response, response.item, at)
            case ev.AudioDelta():
                self._sound(response, event)
            case ev.ToolCallStarted(_, _, name, at):
                self._call(response, name, at)
            case ev.ToolCallDelta(_, _, delta, _):
                self._arguments(response, delta)
            case ev.ToolCallEnded(_, _, arguments, _):
                if (item := response.item) is not None:
                    item.arguments = arguments
                self._close_item(response, "completed")
            case ev.ToolRan():
                self._own_tool(response, event)
            case ev.PictureStarted(_, prompt, _):
                self._picture(response, prompt)
            case ev.PicturePartial(_, index, data, at):
                response.mark("first_picture", at)
                self._partial(response, index, data)
            case ev.PictureEnded(_, data, at):
                response.mark("picture", at)
                if (item := response.item) is not None:
                    item.output = encode_base64(data)
                self._close_item(response, "completed")
            case ev.VoiceMissing(_, language, _):
                response.warn(
                    f"no voice knows the language {language!r}; that part of the answer is text"
                )

    def _say(self, response: Response, text: str, at: float) -> None:
        response.mark("first_token", at)
        item = response.item
        if item is None or item.kind != "message":
            response.space += text
            if not response.space.strip():
                return
            text, response.space = response.space, ""
            item = self._open_message(response)
        item.parts[0].text = (item.parts[0].text or "") + text
        self._host.send(
            f"{response.text_kind}.delta", **response.where, content_index=0, delta=text
        )
        if at - response.kept_at >= KEEP_EVERY:
            self._keep(response, item, at)

    def _keep(self, response: Response, item: Item, at: float) -> None:
        response.kept_at = at
        self._history.keep(item)

    def _sound(self, response: Response, event: ev.AudioDelta) -> None:
        if response.muted:
            return
        item = response.item
        if item is None or item.kind != "message":
            item = self._open_message(response)
        self.spoke = True
        self._last_heard = response.id
        response.mark("first_audio", event.at)
        # Our own field: which words begin here, so that they can be shown as they are heard.
        clause = {"clause": event.clause} if event.first_of_clause else {}
        self._send_sound(response, response.hear(event), **clause)

    def _send_sound(self, response: Response, sound: bytes, **more: str) -> None:
        if sound or more:
            self._host.send(
                "response.output_audio.delta",
                **response.where,
                content_index=0,
                delta=encode_base64(sound),
                **more,
            )

    def _call(self, response: Response, name: str, at: float) -> None:
        response.mark("first_token", at)
        self._close_item(response, "completed")
        self._open_item(
            response,
            Item(
                self._host.new_id("item"),
                "assistant",
                [],
                "in_progress",
                kind="function_call",
                call_id=self._host.new_id("call"),
                name=name,
            ),
        )

    def _arguments(self, response: Response, delta: str) -> None:
        item = response.item
        if item is not None and item.kind == "function_call":
            item.arguments += delta
            self._host.send(
                "response.function_call_arguments.delta",
                **response.where,
                call_id=item.call_id,
                delta=delta,
            )

    def _own_tool(self, response: Response, event: ev.ToolRan) -> None:
        self._close_item(response, "completed")
        item = Item(self._host.new_id("item"), "assistant", [], "in_progress", kind="mcp_call")
        item.name, item.arguments, item.output = event.name, event.arguments, event.output
        self._open_item(response, item)
        self._close_item(response, "completed")

    def _picture(self, response: Response, prompt: str) -> None:
        self._close_item(response, "completed")
        kind: Kind = "image_generation_call"
        item_id = self._host.new_id("item")
        item = Item(item_id, "assistant", [], "in_progress", kind=kind, arguments=prompt)
        self._open_item(response, item)

    def _partial(self, response: Response, index: int, data: bytes) -> None:
        if response.item is not None and response.item.kind == "image_generation_call":
            self._host.send(
                "response.image_generation_call.partial_image",
                **response.where,
                partial_image_index=index,
                partial_image_b64=encode_base64(data),
            )

    def _open_item(self, response: Response, item: Item) -> None:
        response.items.append(item)
        response.space = ""
        self._host.send(
            "response.output_item.added",
            response_id=response.id,
            output_index=len(response.items) - 1,
            item=item.wire(),
        )
        if response.settings.in_conversation:
            self._history.add(item)

    def _open_message(self, response: Response) -> Item:
        self._close_item(response, "completed")
        item = Item(self._host.new_id("item"), "assistant", [], "in_progress")
        self._open_item(response, item)
        speak = response.settings.speak
        item.parts.append(Part("output_audio" if speak else "output_text", ""))
        self._host.send(
            "response.content_part.added",
            **response.where,
            content_index=0,
            part={"type": "audio", "transcript": ""} if speak else {"type": "text", "text": ""},
        )
        return item

    def _close_item(self, response: Response, status: str) -> None:
        """End the item in progress, if there is one."""
        item = response.item
        if item is None:
            return
        where = response.where
        item.status = "completed" if status == "completed" else "incomplete"
        if item.kind == "function_call" and item.status == "completed":
            # Not of a call that was cut short: clients run it when they see this.
            self._host.send(
                "response.function_call_arguments.done",
                **where,
                call_id=item.call_id,
                name=item.name,
                arguments=item.arguments,
            )
        elif item.kind == "message":
            self._close_message(response, item, where)
        self._history.keep(item)
        self._host.send(
            "response.output_item.done",
            response_id=response.id,
            output_index=where["output_index"],
            item=item.wire(),
        )
        self._history.finish(item)

    def _close_message(self, response: Response, item: Item, where: Event) -> None:
        text = item.parts[0].text or ""
        where = {**where, "content_index": 0}
        if response.settings.speak:
            rest, sound = response.end_sound()
            if response.cancelled is None and not response.muted:
                self._send_sound(response, rest)
            if sound is not None and response.settings.in_conversation:
                item.parts[0].media = self._host.new_id("media")
                self._host.do(KeepMedia(item.id, item.parts[0].media, sound))
            self._host.send("response.output_audio.done", **where)
            self._host.send("response.output_audio_transcript.done", **where, transcript=text)
            part = {"type": "audio", "transcript": text}
        else:
            self._host.send("response.output_text.done", **where, text=text)
            part = {"type": "text", "text": text}
        self._host.send("response.content_part.done", **where, part=part)

    def _end(self, response: Response, status: str, done: ev.ResponseDone | None) -> None:
        self._close_item(response, "completed" if status == "stop" else "incomplete")
        response.finish(status, done, done.error if done is not None else None)
        self._active = None
        if response.settings.in_conversation and status != "cancelled":
            self.quiet_since = self._end_of_sound(response)
        self._host.send("response.done", response=response.wire(self._conversation_id))
        if self._queue:
            following = self._queue.popleft()
            self._begin(following)
            if following.cancelled is not None:
                self._end(following, "cancelled", None)
            return
        self.go_on()
        if self._active is None:
            self.read_ahead()

    def _end_of_sound(self, response: Response) -> float:
        """When the client will have played it all, as far as can be told from here."""
        begun = [i.playing_since for i in response.items if i.playing_since is not None]
        now = self._host.clock()
        return max(now, begun[0] + response.seconds) if begun else now


def _is_reference(data: object) -> bool:
    return isinstance(data, dict) and data.get("type") == "item_reference"
