"""Talk to an Omni server from Python.

>>> from omni.client import OmniClient
>>> with OmniClient("http://127.0.0.1:7860") as omni:      # doctest: +SKIP
...     reply = omni.ask("What is the capital of France?")
...     print(reply.text)
...     reply.save("answer.wav")

:class:`AsyncOmniClient` is the same for asyncio. Importing this package loads neither torch nor a
model. :mod:`omni.client.devices` has the microphone and the speaker.
"""

from omni.client.answer import Answer
from omni.client.asynchronous import AsyncOmniClient
from omni.client.blocking import BlockingAnswer, OmniClient
from omni.client.connection import EventStream
from omni.client.errors import OmniServerError, OmniTimeoutError, RefusedError
from omni.client.events import Event
from omni.client.media import AudioLike, ImageLike, load_audio, save_wav
from omni.client.reply import Piece, Reply
from omni.client.stream import Spoken, end_of_speech, speak_in_real_time
from omni.client.tools import FunctionCall, FunctionTool, tool

__all__ = [
    "Answer",
    "AsyncOmniClient",
    "AudioLike",
    "BlockingAnswer",
    "Event",
    "EventStream",
    "FunctionCall",
    "FunctionTool",
    "ImageLike",
    "OmniClient",
    "OmniServerError",
    "OmniTimeoutError",
    "Piece",
    "RefusedError",
    "Reply",
    "Spoken",
    "end_of_speech",
    "load_audio",
    "save_wav",
    "speak_in_real_time",
    "tool",
]
