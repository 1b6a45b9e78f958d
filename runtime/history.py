"""The items of one conversation, in order, and the media in them that are still to be read."""

from __future__ import annotations

import itertools
from reprlib import repr as short
from typing import Any

from omni import events as ev
from omni.errors import InputError
from omni.types import AudioChunk, Span
from runtime.host import Host
from runtime.items import Item, Part, check_item
from runtime.records import DropItem, KeepItem, KeepMedia, Saved
from runtime.wire import WIRE_RATE, Event, decode_base64, decode_data_url

_TRANSCRIPTION = "conversation.item.input_audio_transcription"


class History:
    """Keeps the items and tells the client and the store about every change of them."""

    def __init__(self, host: Host, saved: Saved | None = None) -> None:
        self._host = host
        self.items = [] if saved is None else [Item.from_record(r) for r in saved.items]
        self.frame: Part | None = None
        """What the camera showed last; it joins the user's next message."""
        self._frame_data = b""
        self._keys = itertools.count()
        self._waiting: dict[str, tuple[Item | None, Part]] = {}
        self._unread = {} if saved is None else saved.media

    @property
    def unread(self) -> int:
        """How many recordings and pictures wait for their encoders."""
        return len(self._waiting)

    def replay(self) -> None:
        """Tell a client that has come back what there is, and read what nobody has read yet."""
        previous = None
        for item in self.items:
            self._announce(item, previous)
            previous = item.id
            for part in item.parts:
                content = self._unread.get(part.media) if part.media is not None else None
                if content is not None:
                    self._read(item, part, content)

    # Items

    def find(self, item_id: object, param: str = "item_id", code: str = "item_not_found") -> Item:
        """The item; raises `InputError` that names ``param`` when there is none."""
        for item in self.items:
            if item.id == item_id:
                return item
        raise InputError(
            f"there is no item {short(item_id)} in this conversation",
            param=param,
            code=code,
        )

    def add(self, item: Item, index: int | None = None) -> None:
        """Put an item at ``index``, default: the end."""
        if index is None:
            index = len(self.items)
        if item.kind == "message" and item.role == "user" and self.frame is not None:
            frame, self.frame = self.frame, None
            item.parts.insert(0, frame)
            if frame.key is not None:
                self._waiting[frame.key] = (item, frame)
            self._keep_media(item, frame, self._frame_data)
        self.items.insert(index, item)
        self.keep(item)
        self._announce(item, self._previous(item))

    def keep(self, item: Item) -> None:
        """Have the item kept as it is now; an item of no conversation is not."""
        if item in self.items:
            self._host.do(KeepItem(self.items.index(item), item.record()))

    def finish(self, item: Item) -> None:
        """Tell that an item in progress is complete, or never will be; `keep` it before."""
        if item in self.items:
            self._host.send(
                "conversation.item.done", item=item.wire(), previous_item_id=self._previous(item)
            )

    def _previous(self, item: Item) -> str | None:
        index = self.items.index(item)
        return self.items[index - 1].id if index else None

    def _announce(self, item: Item, previous: str | None) -> None:
        wire = item.wire()
        self._host.send("conversation.item.added", item=wire, previous_item_id=previous)
        # The name that the event had before GA, for clients of that time.
        self._host.send("conversation.item.created", item=wire, previous_item_id=previous)
        if item.status != "in_progress":
            self._host.send("conversation.item.done", item=wire, previous_item_id=previous)

    # What the client does

    def create(self, data: Event, previous: str | None) -> None:
        """Put an item from the client after ``previous``; "root": first, None: last."""
        check_item(data)
        index = len(self.items)
        if previous == "root":
            index = 0
        elif previous is not None:
            index = self.items.index(self.find(previous, "previous_item_id")) + 1
        if any(item.id == data.get("id") for item in self.items):
            raise InputError(
                f"item {short(data['id'])} exists already; choose another id, or leave it out",
                param="item.id",
                code="item_create_duplicate_item_id",
            )
        if data.get("type") == "function_call_output":
            self._check_call(data["call_id"])
        self.add(self.build(data, "item"), index)

    def _check_call(self, call_id: str) -> None:
        calls = [item.call_id for item in self.items if item.kind == "function_call"]
        if call_id not in calls:
            known = f"; there are: {', '.join(calls[-5:])}" if calls else ""
            raise InputError(
                f"no function call of this conversation has the id {short(call_id)}{known}",
                param="item.call_id",
                code="call_not_found",
            )

    def build(self, data: Event, path: str, *, keep: bool = True) -> Item:
        """An item from the client; all of it is decoded before any work is asked for."""
        item_id = data.get("id") or self._host.new_id("item")
        kind = data.get("type", "message")
        if kind == "function_call":
            call_id = data.get("call_id") or self._host.new_id("call")
            call: dict[str, Any] = {"name": data["name"], "arguments": data["arguments"]}
            return Item(item_id, "assistant", kind=kind, call_id=call_id, **call)
        if kind == "function_call_output":
            return Item(item_id, "user", kind=kind, call_id=data["call_id"], output=data["output"])
        media: dict[int, bytes | AudioChunk] = {}
        for index, part in enumerate(data["content"]):
            where = f"{path}.content.{index}"
            if part["type"] == "input_image":
                media[index] = decode_data_url(part["image_url"], f"{where}.image_url")
                if not media[index]:
                    raise InputError(
                        f"{where}.image_url holds no picture; send a JPEG, PNG or WebP file",
                        param=f"{where}.image_url",
                    )
            elif part["type"] == "input_audio" and part.get("audio") is not None:
                media[index] = self.decode_sound(part["audio"], f"{where}.audio")
        item = Item(item_id, data["role"])
        for index, part in enumerate(data["content"]):
            words = part.get("text") or part.get("transcript")
            item.parts.append(Part(part["type"], None if index in media else words))
            if index in media:
                if keep:
                    self._keep_media(item, item.parts[-1], media[index])
                self._read(item, item.parts[-1], media[index])
        return item

    def decode_sound(self, data: str, param: str) -> AudioChunk:
        """Base64 of sound in the session's input format."""
        return self._host.settings.input_format.decode(decode_base64(data, param), param)

    def show(self, data: bytes) -> None:
        """A camera frame. Only the latest counts: it shows what the user talks about."""
        if not data:
            raise InputError("the image is empty; send a JPEG, PNG or WebP file", param="image")
        if self.frame is not None and self.frame.key is not None:
            self._waiting.pop(self.frame.key, None)
            self._host.do(ev.Forget((self.frame.key,)))
        self.frame, self._frame_data = Part("input_image"), data
        self._read(None, self.frame, data)

    def delete(self, item: Item) -> None:
        """Forget an item for good."""
        keys = tuple(part.key for part in item.parts if part.key is not None)
        for key in keys:
            self._waiting.pop(key, None)
        for part in item.parts:
            part.key = None  # an answer that refers to the item waits no longer
        if keys:
            self._host.do(ev.Forget(keys))
        self.items.remove(item)
        self._host.do(DropItem(item.id))
        self._host.send("conversation.item.deleted", item_id=item.id)

    def truncate(self, event: Event) -> None:
        """Keep of a spoken answer what was heard, as the client says."""
        item = self.find(event["item_id"], code="item_truncate_invalid_item_id")
        if item.role != "assistant" or not item.spoken:
            raise InputError(
                "only a spoken answer of the assistant can be truncated", param="item_id"
            )
        if event["content_index"] != 0:
            raise InputError("content_index must be 0", param="content_index")
        milliseconds = event["audio_end_ms"]
        samples = milliseconds * WIRE_RATE // 1000
        if samples < 0 or samples > item.samples:
            raise InputError(
                f"audio_end_ms must be between 0 and {item.samples * 1000 // WIRE_RATE}, the "
                f"length of the answer's sound, not {milliseconds}",
                param="audio_end_ms",
            )
        item.parts[0].text = item.heard_until(samples)
        # The client knows better than any estimate.
        item.cut = item.playing_since = None
        self.keep(item)
        self._host.send(
            "conversation.item.truncated",
            item_id=item.id,
            content_index=0,
            audio_end_ms=milliseconds,
        )

    # What media hold

    def _keep_media(self, item: Item, part: Part, content: bytes | AudioChunk) -> None:
        part.media = self._host.new_id("media")
        self._host.do(KeepMedia(item.id, part.media, content))

    def _read(self, item: Item | None, part: Part, content: bytes | AudioChunk) -> None:
        """Ask the engine what a medium holds."""
        if isinstance(content, AudioChunk):
            part.key = f"audio/{next(self._keys)}"
            language = self._host.settings.language
            self._host.do(ev.Transcribe(part.key, chunk=content, language=language))
        else:
            part.key = f"image/{next(self._keys)}"
            self._host.do(ev.See(part.key, content))
        self._waiting[part.key] = (item, part)

    def expect(self, item: Item, part: Part) -> None:
        """The engine was asked already for what ``part`` holds."""
        assert part.key is not None
        self._waiting[part.key] = (item, part)

    def expects(self, key: str) -> bool:
        """Whether ``key`` is of a medium of an item or of the camera."""
        return key in self._waiting

    def resolve(self, key: str, span: Span, at: float | None = None) -> Item | None:
        """Take in what a medium holds, and give back its item."""
        item, part = self._waiting.pop(key)
        part.key, part.span = None, span
        if part.kind == "input_audio":
            part.text = span.text or ""
        if item is not None:
            self.keep(item)
            if part.kind == "input_audio":
                if at is not None:
                    item.stamps.setdefault("transcript", at)
                self._send_transcript(item, part)
        return item

    def _send_transcript(self, item: Item, part: Part) -> None:
        if not self._host.settings.transcribes or item not in self.items:
            return
        where = {"item_id": item.id, "content_index": item.parts.index(part)}
        seconds = part.span.times[1] if part.span is not None and part.span.times else 0.0
        if part.text:
            self._host.send(f"{_TRANSCRIPTION}.delta", **where, delta=part.text)
        self._host.send(
            f"{_TRANSCRIPTION}.completed",
            **where,
            transcript=part.text,
            usage={"type": "duration", "seconds": round(seconds, 3)},
        )

    def fail(self, key: str, message: str) -> Item | None:
        """A medium cannot be read: say so, go on without it, and give back its item."""
        item, part = self._waiting.pop(key)
        part.key = None
        part.text = "" if part.kind == "input_audio" else None
        if part is self.frame:
            self.frame = None
        if item is not None:
            self.keep(item)
        if part.kind == "input_audio" and item is not None:
            self._host.send(
                f"{_TRANSCRIPTION}.failed",
                item_id=item.id,
                content_index=item.parts.index(part),
                error={"type": "invalid_request_error", "message": message},
            )
        else:
            self._host.refuse(InputError(message, param="image", code="invalid_image"))
        return item
