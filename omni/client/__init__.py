"""Talk to an Omni server from Python.

>>> from omni.client import OmniClient
>>> with OmniClient("http://127.0.0.1:7860") as omni:      # doctest: +SKIP
...     reply = omni.ask("What is the capital of France?")
...     print(reply.text)
...     reply.save("answer.wav")

:class:`AsyncOmniClient` is the same for asyncio. Importing this package loads neither torch nor a
model.
"""

from omni.client.asynchronous import AsyncOmniClient
from omni.client.blocking import OmniClient
from omni.client.connection import EventStream
from omni.client.errors import OmniServerError, OmniTimeoutError
from omni.client.events import Event
from omni.client.media import AudioLike, ImageLike, load_audio, save_wav
from omni.client.reply import Reply
from omni.client.stream import Spoken, end_of_speech, speak_in_real_time

__all__ = [
    "AsyncOmniClient",
    "AudioLike",
    "Event",
    "EventStream",
    "ImageLike",
    "OmniClient",
    "OmniServerError",
    "OmniTimeoutError",
    "Reply",
    "Spoken",
    "end_of_speech",
    "load_audio",
    "save_wav",
    "speak_in_real_time",
]
