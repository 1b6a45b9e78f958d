"""The models behind `omni.search`: what EfficientNet sees, in the space of the sentence encoder.

The probabilities of names weigh the sentence vectors of these names, which puts a picture into the
space of sentences. For drawings, icons and clip art on a plain ground they are the names that the
image adapter has learnt; for others, without training, EfficientNet's thousand labels and their
groups ("dog"). Another encoder can take the place of `PictureEncoder`; an index knows which models
made its vectors.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from encoders.colour import colour_name
from encoders.image import EfficientNetEncoder, efficientnet_onnx, load_state, view
from encoders.scene import SceneEncoder
from encoders.vad import onnx_session
from omni import embedding
from omni.adapters.image import Scene, text
from omni.data.describe import without_places
from omni.search import Encoded, Hit, Index
from omni.types import ImageFrame, Pixels
from omni.weights import CATALOG, ensure
from omni.weights.store import home

Floats = NDArray[np.float32]

_NETWORK = "efficientnet-lite2"
_LOOK = 256
_TEMPERATURE = 2.0
"""Above 1, so that the second and third label count beside a sure first one."""
_SURE = 0.4
"""Probability from which a label names a picture."""
_CERTAIN = 0.7
"""How sure the image adapter has to be to name it against a label."""
_GROUND = 24
"""Up to which difference, of 255, a pixel is of the ground."""


def default_index() -> Path:
    """Where the index lies that no directory is named for."""
    return home() / "index"


def open_index(directory: Path | None = None, **options: Any) -> Index:
    """An index with the models of this version; ``options`` are those of `Index.open`."""
    return Index.open(directory or default_index(), picture_encoder(), **options)


@cache
def picture_encoder() -> PictureEncoder:
    """The one that all in a process share."""
    return PictureEncoder()


def shown_at(hit: Hit) -> str | None:
    """Where the server gives the picture of something found."""
    return None if hit.picture is None else f"/v1/search/pictures?id={quote(hit.id, safe='')}"


class CacheFigures(Collector):
    """What the caches of an index were good for, for the server's metrics."""

    def __init__(self, index: Index) -> None:
        self._index = index

    def collect(self) -> Iterator[Metric]:
        """Hits and misses of each cache."""
        counts = CounterMetricFamily(
            "omni_search_cache", "Look-ups in the caches of the search", labels=["cache", "result"]
        )
        rates = GaugeMetricFamily(
            "omni_search_cache_hit_rate", "Share of look-ups that were kept", labels=["cache"]
        )
        for name, figures in self._index.figures().items():
            for result in ("hits", "misses"):
                counts.add_metric([name, result], figures[result])
            rates.add_metric([name], figures["rate"])
        yield from (counts, rates)


class PictureEncoder:
    """What pictures show and the sentence encoder as an `omni.search.ItemEncoder`.

    Nothing is loaded before it is used; the weights are fetched then, too.
    """

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options. ``said`` is the share of words in the meaning of what has a picture, too.

        Without ``adapter`` all pictures are read by EfficientNet's labels.
        """

        threads: int = 2
        size: int = 224
        said: float = 0.6
        adapter: bool = True

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or self.Config()
        how = "scenes" if self.config.adapter else "labels"
        self.models = {
            "pictures": f"{how}-1 of {_version(_NETWORK)}",
            "words": _version(embedding.NAME),
        }
        self.widths = (embedding.DIMENSIONS, _LOOK)
        self._lock = threading.Lock()
        self._loaded: _Sight | None = None

    def items(self, frames: Sequence[ImageFrame | None], words: Sequence[str]) -> Encoded:
        """See `omni.search.ItemEncoder`."""
        meaning = np.zeros((len(words), self.widths[0]), np.float32)
        look = np.zeros((len(words), self.widths[1]), np.float32)
        colours: list[tuple[str, ...]] = [()] * len(words)
        names = [""] * len(words)
        said = [i for i, text in enumerate(words) if text]
        if said:
            meaning[said] = self.words([words[i] for i in said])
        for i, frame in enumerate(frames):
            if frame is None:
                continue
            seen, look[i], names[i] = self._sight.see(frame.pixels)
            share = self.config.said if words[i] else 0.0
            meaning[i] = share * meaning[i] + (1 - share) * seen
            colours[i] = main_colours(frame.pixels)
        return Encoded(meaning, look, colours, names)

    def words(self, texts: Sequence[str]) -> Floats:
        """See `omni.search.ItemEncoder`."""
        return embedding.embedder().encode(texts)

    def look(self, frame: ImageFrame) -> Floats:
        """See `omni.search.ItemEncoder`."""
        return self._sight.see(frame.pixels)[1]

    @property
    def _sight(self) -> _Sight:
        with self._lock:
            if self._loaded is None:
                self._loaded = _Sight(self.config)
            return self._loaded


class _Sight:
    """EfficientNet with its labels in the space of sentences, and with its features."""

    def __init__(self, config: PictureEncoder.Config) -> None:
        import onnx

        state = load_state(ensure(_NETWORK))
        model = onnx.load_from_string(efficientnet_onnx(state))
        features = model.graph.node[-1].input[0]
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(features))
        self._outputs = ["logits", features]
        self._session = onnx_session(model.SerializeToString(), config.threads)
        self._size = config.size
        self._names, self._labels = label_vectors()
        # Of fewer numbers, with about the same angles (Johnson and Lindenstrauss, 1984).
        random = np.random.Generator(np.random.PCG64(0))
        width = int(state["_fc.weight"].shape[1])
        self._projection = random.standard_normal((width, _LOOK)).astype(np.float32)
        self._scenes: SceneEncoder | None = None
        if config.adapter:
            eye = EfficientNetEncoder.Config(config.threads, config.size)
            # Unsure names say something, too, beside the labels.
            both = SceneEncoder.Config(sure=0)
            self._scenes = SceneEncoder(EfficientNetEncoder(ensure(_NETWORK), eye), config=both)
            self._things = embedding.embedder().encode(self._scenes.adapter.config.names)

    def see(self, pixels: Pixels) -> tuple[Floats, Floats, str]:
        """What a picture shows, in the space of sentences (512,), its look (256,), and a name."""
        meaning, look, name = self._labelled(pixels)
        if self._scenes is not None and (scene := self._scenes.read(ImageFrame(pixels))):
            [said] = self._scenes.adapter.sentences(scene)
            [sure] = self._scenes.adapter.sureness(scene)
            if said:
                sentence = embedding.embedder().encode([without_places(text(said))])[0]
                meaning = _unit(meaning + self._named(scene) + sentence)
                name = text(said) if sure >= _CERTAIN or not name else name
        return meaning, look, name

    def _named(self, scene: Scene) -> Floats:
        """The mean vector of the names in a picture."""
        names_FC = scene.names_BFC[0].float().softmax(-1).numpy()
        full = names_FC[names_FC[:, 0] < 0.5, 1:]
        return _unit(full.sum(0) @ self._things)

    def _labelled(self, pixels: Pixels) -> tuple[Floats, Floats, str]:
        """By EfficientNet's labels alone."""
        batch = np.stack([view(pixels, self._size, whole) for whole in (False, True)])
        logits, features = self._session.run(self._outputs, {"pixels": batch})
        mean = logits.mean(axis=0)
        exp = np.exp(mean - mean.max())
        softmax = exp / exp.sum()
        look = features.reshape(2, -1).mean(axis=0) @ self._projection
        name = ""
        if softmax.max() >= _SURE:
            name = self._names[int(softmax.argmax())]
        return _unit(softmax ** (1 / _TEMPERATURE) @ self._labels), _unit(look), name


def main_colours(pixels: Pixels) -> tuple[str, ...]:
    """The colours of a fifth or more of a picture, without a plain ground behind a thing."""
    side = 40
    small = np.asarray(
        Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX), np.float32
    )
    edge = np.concatenate([small[0], small[-1], small[:, 0], small[:, -1]])
    ground = np.median(edge, axis=0)
    if (np.abs(edge - ground).max(axis=1) < _GROUND).mean() > 0.7:
        thing = small[np.abs(small - ground).max(axis=2) >= _GROUND]
    else:
        thing = small.reshape(-1, 3)
    if len(thing) < side:  # nothing but the ground
        thing = small.reshape(-1, 3)
    hsv = Image.fromarray(thing[None].astype(np.uint8)).convert("HSV")
    counts = Counter(
        colour_name(h * 360 / 256, s / 255, v / 255)
        for h, s, v in np.asarray(hsv, np.float32)[0].tolist()
    )
    return tuple(name for name, count in counts.most_common() if count >= 0.2 * len(thing))


def label_vectors() -> tuple[list[str], Floats]:
    """EfficientNet's labels, and sentence vectors (1000, 512) of these and of their groups."""
    table = json.loads((files("encoders") / "data" / "imagenet_labels.json").read_text("utf-8"))
    labels: list[str] = table["labels"]
    groups = list(labels)
    for name, members in table["groups"].items():
        for index in members:
            groups[index] = name
    encode = embedding.embedder().encode
    mean: Floats = (encode(labels) + encode(groups)) * np.float32(0.5)
    return labels, mean


def _unit(vector: Floats) -> Floats:
    unit: Floats = (vector / max(1e-6, float(np.linalg.norm(vector)))).astype(np.float32)
    return unit


def _version(name: str) -> str:
    """A model's name and the beginning of its digest."""
    digest = hashlib.sha256("".join(file.sha256 for file in CATALOG[name].files).encode())
    return f"{name}@{digest.hexdigest()[:10]}"
