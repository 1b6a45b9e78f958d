"""What a batch is done with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omni.errors import InputError
from omni.weights import DEFAULT_MODEL


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a batch; those that change results are in every result's ``settings``.

    ``answer``: what is said in a recording is itself a question to answer. ``speakers``: label who
    speaks; ``speaker_count`` is how many there are, None: as many as are heard. ``speak`` is a
    directory for spoken answers, ``draw`` one for pictures that are asked for; None: requests to
    draw are questions like others. ``together`` answers are written at the same time.
    """

    model: str = DEFAULT_MODEL
    device: str = "auto"
    quantization: str = "auto"
    context: int = 4096
    threads: int | None = None
    language: str | None = None
    words: bool = False
    speakers: bool = False
    speaker_count: int | None = None
    answer: bool = False
    instructions: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    speak: Path | None = None
    draw: Path | None = None
    voice: str | None = None
    workers: int = 1
    together: int = 4

    def check(self) -> None:
        """Raise `InputError` for values out of range."""
        for name, least in (("max_tokens", 1), ("workers", 1), ("together", 1), ("context", 512)):
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} is {getattr(self, name)}; expected {least} or more", param=name
                )
        if self.seed < 0:
            raise InputError(f"seed is {self.seed}; expected 0 or more", param="seed")
        if self.speaker_count is not None and self.speaker_count < 1:
            raise InputError(
                f"there cannot be {self.speaker_count} speakers; give 1 or more",
                param="speaker_count",
            )

    @property
    def settings(self) -> dict[str, Any]:
        """Those that a result depends on, by their names."""
        apart = {"device", "threads", "workers", "together", "speak", "draw"}
        chosen = {k: v for k, v in asdict(self).items() if k not in apart}
        return {**chosen, "speak": self.speak is not None, "draw": self.draw is not None}
