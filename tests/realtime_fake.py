"""A small Realtime server with a memory: sessions can be resumed, answers are scripted."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator

import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

SOUND = (np.sin(np.arange(2400) / 20) * 12000).astype("<i2")


def words(*deltas: str, sound: bool = False) -> dict:
    return {"deltas": deltas, "sound": sound}


def call(name: str, /, **arguments: object) -> dict:
    return {"call": name, "arguments": json.dumps(arguments)}


class FakeRealtime:
    """Answers each ``response.create`` with the next of ``answers``: a list of outputs."""

    def __init__(self) -> None:
        self.received: list[dict] = []
        self.queries: list[str] = []
        self.answers: list[list[dict]] = []
        self.sessions: dict[str, dict] = {}
        self.sockets: list[ServerConnection] = []
        self.deaf_to: set[str] = set()
        """Types of events that get lost, as in a socket that breaks."""
        self.refuse: tuple[int, str] | None = None
        self._count = 0

    def id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}_{self._count}"

    async def __call__(self, socket: ServerConnection) -> None:
        if self.refuse is not None:
            await socket.close(*self.refuse)
            return
        path = socket.request.path
        self.queries.append(path.partition("?")[2])
        self.sockets.append(socket)
        wanted = path.partition("session_id=")[2] or None
        if wanted is not None and wanted not in self.sessions:
            error = {"code": "session_not_found", "message": f"there is no session {wanted}"}
            await self.tell(socket, "error", error=error)
            await socket.close(1008, "no such session")
            return
        session = self.sessions.setdefault(wanted or self.id("sess"), {"items": []})
        session.setdefault("settings", {"id": list(self.sessions)[-1], "type": "realtime"})
        await self.tell(socket, "session.created", session=session["settings"])
        for item in session["items"]:
            await self.add(socket, item)
        with contextlib.suppress(asyncio.CancelledError, ConnectionClosed):
            async for message in socket:
                event = json.loads(message)
                if event["type"] not in self.deaf_to:
                    self.received.append(event)
                    await self.take(socket, session, event)

    async def tell(self, socket: ServerConnection, kind: str, **fields: object) -> None:
        await socket.send(json.dumps({"type": kind, "event_id": self.id("event"), **fields}))

    async def add(self, socket: ServerConnection, item: dict) -> None:
        await self.tell(socket, "conversation.item.added", item=item)
        await self.tell(socket, "conversation.item.done", item=item)

    async def take(self, socket: ServerConnection, session: dict, event: dict) -> None:
        match event["type"]:
            case "session.update":
                session["settings"] |= event["session"]
                await self.tell(socket, "session.updated", session=session["settings"])
            case "conversation.item.create":
                session["items"].append(event["item"])
                await self.add(socket, event["item"])
            case "conversation.item.retrieve":
                error = {"code": "item_not_found", "message": "?", "event_id": event["event_id"]}
                await self.tell(socket, "error", error=error)
            case "response.create":
                await self.respond(socket, session, event.get("response") or {})

    async def respond(self, socket: ServerConnection, session: dict, options: dict) -> None:
        head = {"id": self.id("resp"), "metadata": options.get("metadata")}
        await self.tell(socket, "response.created", response=head)
        output = []
        for index, one in enumerate(self.answers.pop(0) if self.answers else [words("Yes.")]):
            where = {"response_id": head["id"], "output_index": index}
            if one == "drop":
                await socket.close(1011, "broken")
                return
            if one == "wait":
                return
            if "call" in one:
                item = {"type": "function_call", "name": one["call"], "call_id": self.id("call")}
                item |= {
                    "id": self.id("item"),
                    "arguments": one["arguments"],
                    "status": "completed",
                }
                begun = item | {"arguments": "", "status": "in_progress"}
            elif "image" in one:
                item = {"type": "image_generation_call", "id": self.id("item")}
                item |= {"result": base64.b64encode(one["image"]).decode(), "status": "completed"}
                begun = item | {"result": None, "status": "in_progress"}
            else:
                item = {"type": "message", "role": "assistant", "id": self.id("item")}
                item |= {"status": "completed", "content": []}
                begun = item | {"status": "in_progress"}
            await self.tell(socket, "response.output_item.added", **where, item=begun)
            session["items"].append(item)
            await self.tell(socket, "conversation.item.added", item=begun)
            where |= {"item_id": item["id"]}
            for delta in one.get("deltas", ()):
                kind = "output_audio_transcript" if one["sound"] else "output_text"
                await self.tell(
                    socket, f"response.{kind}.delta", **where, content_index=0, delta=delta
                )
            if one.get("sound"):
                data = base64.b64encode(SOUND.tobytes()).decode()
                await self.tell(
                    socket, "response.output_audio.delta", **where, content_index=0, delta=data
                )
            where.pop("item_id")
            await self.tell(socket, "response.output_item.done", **where, item=item)
            output.append(item)
        usage = {"total_tokens": 3, "input_token_details": {"cached_tokens": 1}}
        done = {"status": "completed", "output": output, "usage": usage}
        done["timings"] = {"first_token": 100.0}
        await self.tell(socket, "response.done", response=head | done)

    def of_type(self, kind: str) -> list[dict]:
        return [event for event in self.received if event["type"] == kind]

    @property
    def outputs(self) -> list[dict]:
        """The outputs of tools that were sent."""
        items = [event["item"] for event in self.of_type("conversation.item.create")]
        return [item for item in items if item["type"] == "function_call_output"]

    async def until(self, kind: str, count: int = 1) -> dict:
        async with asyncio.timeout(5):
            while len(self.of_type(kind)) < count:  # noqa: ASYNC110 - a test may look at any moment
                await asyncio.sleep(0.005)
        return self.of_type(kind)[count - 1]

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0) -> AsyncIterator[str]:
        async with serve(self, "127.0.0.1", port) as server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
