"""The easel: the one thread on which pictures are made, and what is said of them."""

from __future__ import annotations

import io
import logging
import secrets
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from PIL import Image
from torch import Tensor

from decoders.pictures import Painter, Pixels, Progress, enlarged
from omni import events as ev
from omni.draw.subjects import COLOURS
from omni.draw.wishes import Wish, wish
from omni.errors import InputError, OmniError
from omni.types import Message, Usage
from runtime.states import Answer, now

log = logging.getLogger(__name__)
Read = Callable[[str], Tensor]
PARTIALS = 3
"""Coarse versions of a picture that are sent of an answer."""
FORMATS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP"}


class Painters(Protocol):
    """Loads a painter when it is first needed; see `decoders.pictures.Pictures`."""

    @property
    def problem(self) -> str | None:
        """Why there is none, as far as can be told at once."""
        ...

    def load(self, read: Read) -> Painter:
        """Raises `OmniError` where none can be had."""
        ...


class CancelledError(Exception):
    """Nobody wants the picture any more."""


class Easel:
    """Paints for all sessions, one picture after the other."""

    def __init__(self, painters: Painters | None, read: Read) -> None:
        """``read`` gives the LLM's hidden states of a prompt, to the easel's thread."""
        self._painters, self._read = painters, read
        self._painter: Painter | None = None
        self._thread = ThreadPoolExecutor(1, "omni-easel")
        self._closing = threading.Event()

    def paint(
        self,
        wish: Wish,
        *,
        seed: int,
        report: Callable[[Progress], None] = lambda progress: None,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Future[tuple[Pixels, bool]]:
        """The picture (H, W, 3), and whether what it shows was learnt; never blocks.

        ``report`` is called on the easel's thread after each step, ``cancelled`` asked before it.
        The future raises `OmniError` where nothing can paint, `CancelledError` when cancelled.
        """
        return self._thread.submit(self._paint, wish, seed, report, cancelled)

    def _paint(
        self,
        wish: Wish,
        seed: int,
        report: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> tuple[Pixels, bool]:
        def step(progress: Progress) -> None:
            if cancelled() or self._closing.is_set():
                raise CancelledError
            report(progress)

        if cancelled() or self._closing.is_set():
            raise CancelledError
        painter = self.painter()
        return painter.paint(wish, seed=seed, report=step), painter.knows(wish)

    @property
    def there(self) -> bool:
        """Whether requests to draw are for it at all."""
        return self._painters is not None

    @property
    def problem(self) -> str | None:
        """Why nothing can be drawn, if so."""
        return None if self._painters is None else self._painters.problem

    def painter(self) -> Painter:
        """The painter, loaded when it is first asked for. Only on the easel's thread."""
        if self._painter is None:
            if self._painters is None:
                raise InputError("this assistant cannot draw", code="unsupported")
            self._painter = self._painters.load(self._read)
        return self._painter

    def warm_up(self) -> None:
        """Begin to load the painter, so that the first picture is as fast as the others."""
        if self._painters is not None and self.problem is None:
            # What goes wrong is told to who first asks for a picture.
            self._thread.submit(self.painter)

    def close(self) -> None:
        """Stop after the step in progress."""
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)


def draw_for(
    answer: Answer, wish: Wish, easel: Easel, tell: Callable[[ev.OutputEvent], None]
) -> None:
    """Begin to draw as an answer, once what `announced` gives was said.

    ``tell`` takes the events of the picture and the end of the answer, from the easel's thread.
    """
    response_id, seed = answer.start.response_id, answer.start.sampling.seed
    sent = 0

    def report(progress: Progress) -> None:
        nonlocal sent
        due = (sent + 1) * progress.steps / (PARTIALS + 1)
        if progress.pixels is not None and due <= progress.step < progress.steps:
            data = encoded(progress.pixels)
            tell(ev.PicturePartial(response_id, sent, data, now()))
            sent += 1

    def ended(painting: Future[tuple[Pixels, bool]]) -> None:
        reason, problem = "stop", None
        try:
            tell(ev.PictureEnded(response_id, encoded(painting.result()[0]), now()))
        except (CancelledError, futures.CancelledError):
            reason = "cancelled"
        except Exception as error:
            if not isinstance(error, OmniError):
                log.exception("drawing failed")
            reason, problem = "failed", f"the picture could not be drawn: {error}"
        tell(ev.ResponseDone(response_id, reason, Usage(), now(), problem))

    if easel.problem is not None:
        tell(ev.ResponseDone(response_id, "stop", Usage(), now()))
        return
    tell(ev.PictureStarted(response_id, wish.prompt, now()))
    painting = easel.paint(
        wish,
        seed=secrets.randbits(31) if seed is None else seed,
        report=report,
        cancelled=lambda: answer.cancelled,
    )
    painting.add_done_callback(ended)


def encoded(pixels: Pixels, side: int | None = None, form: str = "png", quality: int = 90) -> bytes:
    """A picture as a file, with another side if one is given."""
    file = io.BytesIO()
    image = Image.fromarray(enlarged(pixels, side or pixels.shape[0]))
    image.save(file, FORMATS[form], **({} if form == "png" else {"quality": quality}))
    return file.getvalue()


def wish_in(messages: Sequence[Message]) -> Wish | None:
    """The picture that the last message asks for, perhaps as a change of the one before it."""
    asked = [message.text for message in messages if message.role == "user"]
    if not asked or messages[-1].role != "user":
        return None
    return wish(asked[-1], wish(asked[-2]) if len(asked) > 1 else None)


def announced(wish: Wish, problem: str | None = None) -> str:
    """What is said while a picture is made, or because of a ``problem`` is not."""
    if problem is not None:
        return f"我不会画画：{problem}" if wish.language == "zh" else f"I cannot draw: {problem}."
    if wish.language == "zh":
        thing = _chinese(wish)
        if not wish.words:
            return "好的，我来画一张。"
        if wish.subject is None:
            return f"我没有学过画“{wish.words}”，我尽量画一个最接近的。"
        left = "我只会画简单的东西，" if wish.left_out else "好的，"
        return f"{left}我来画{thing}。"
    if not wish.words:
        return "Here is something that I can draw."
    if wish.subject is None:
        return f"I have not learnt to draw {_quoted(wish.words)}; here is what comes nearest."
    if wish.left_out:
        return f"I can only draw simple things, so here is {wish.prompt}."
    return f"Here is {wish.prompt}."


def _quoted(words: str) -> str:
    return words if len(words) <= 60 else f"{words[:57]}…"


def _chinese(wish: Wish) -> str:
    if wish.subject is None:
        return wish.words
    count = "一两三"[min(wish.count, 3) - 1]
    colour = f"{COLOURS[wish.colour][0]}的" if wish.colour else ""
    return f"{count}个{colour}{wish.subject.chinese[0]}"
