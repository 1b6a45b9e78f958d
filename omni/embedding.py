"""Sentences -> vectors whose cosine says how alike they mean, across sixteen languages.

The model is Google's Universal Sentence Encoder, multilingual v3 (Yang et al., "Multilingual
Universal Sentence Encoder for Semantic Retrieval", arXiv 1907.04307; Apache-2.0): embeddings of
word pieces, convolutions over 2, 3 and 5 of them, their mean, and a small feed-forward network.
Languages: ar, de, en, es, fr, it, ja, ko, nl, pl, pt, ru, th, tr, zh (simplified, traditional).

>>> from omni.embedding import embedder
>>> a, b = embedder().encode(["Where is the station?", "车站在哪里？"])  # doctest: +SKIP
>>> float(a @ b) > SAME_MEANING  # doctest: +SKIP
True
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers
from torch.nn import functional as F

from omni.errors import WeightsError
from omni.weights import ensure

Floats = NDArray[np.float32]

NAME = "use-multilingual-v3"
"""Of the weights, and of the model where one is named."""
DIMENSIONS = 512
SAME_MEANING = 0.55
"""Cosine from which two sentences mean the same: right for 42 of 44 pairs in English, Chinese and
across; what differs in a single word, such as a colour, it does not tell apart."""

_TABLES = 17
"""The rows of the embeddings lie in turn in this many tables, each with its own quantisation."""
_WIDTHS = (2, 3, 5)
_BEGIN, _END = 1, 2


@cache
def embedder() -> Embedder:
    """The embedder that this process shares; loaded, and its weights fetched, on first use."""
    return Embedder(ensure(NAME))


class Embedder:
    """The model and a cache of the last texts; threads may share it."""

    @dataclass(frozen=True, slots=True)
    class Config:
        """Options.

        Of a longer text the first ``max_tokens`` count. ``cache`` is the number of texts whose
        vectors are kept (2 kB each), ``batch`` the number of tokens that are computed at once.
        """

        max_tokens: int = 2048
        cache: int = 4096
        batch: int = 4096

    def __init__(self, folder: Path, config: Config | None = None) -> None:
        """Load ``weights.npz`` and ``sp.model`` from ``folder``; WeightsError if they are wrong."""
        self.config = config or self.Config()
        try:
            self._tokenizer = _tokenizer(folder / "sp.model")
            self._network = _Network(folder / "weights.npz")
        except Exception as error:  # whatever a broken file raises
            raise WeightsError(
                f"{folder} does not hold the sentence encoder ({type(error).__name__}: {error}); "
                f"expected weights.npz and sp.model; check them with: omni models verify {NAME}"
            ) from error
        self._tokenizer.enable_truncation(self.config.max_tokens)
        self._known: OrderedDict[str, Floats] = OrderedDict()
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit vectors (N, 512), one for each text, whatever stands beside it."""
        with self._lock:
            found = {text: self._known[text] for text in texts if text in self._known}
            for text in found:
                self._known.move_to_end(text)
            fresh = [text for text in dict.fromkeys(texts) if text not in found]
            found |= zip(fresh, self._compute(fresh), strict=True)
            self._known |= {text: found[text] for text in fresh}
            while len(self._known) > self.config.cache:
                self._known.popitem(last=False)
        rows = [found[text] for text in texts]
        return np.stack(rows) if rows else np.zeros((0, DIMENSIONS), np.float32)

    def tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens of each text are read."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    def _compute(self, texts: Sequence[str]) -> list[Floats]:
        pieces = [
            [_BEGIN, *encoding.ids, _END] for encoding in self._tokenizer.encode_batch(list(texts))
        ]
        rows: list[Floats] = [np.zeros(0, np.float32)] * len(texts)
        # Of like length together, so that little is padded.
        left = sorted(range(len(texts)), key=lambda i: len(pieces[i]))
        while left:
            count = max(1, min(len(left), self.config.batch // len(pieces[left[-1]])))
            batch, left = left[-count:], left[:-count]
            for i, row in zip(batch, self._network([pieces[i] for i in batch]), strict=True):
                rows[i] = row
        return rows


class _Network:
    """The forward pass: token ids -> unit vectors. Shapes: B texts, T tokens, C channels."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as file:
            tables = [torch.from_numpy(file[f"q{i}"]) for i in range(1, _TABLES + 1)]
            self._table = torch.stack(tables, dim=1).flatten(0, 1)
            w = self._w = {
                name: torch.from_numpy(file[name]).float()
                for name in file.files
                if not name.startswith("q")
            }
        self._eps = float(w["eps"])

    def __call__(self, texts: Sequence[Sequence[int]]) -> Floats:
        with torch.inference_mode():
            lengths = torch.tensor([len(text) for text in texts])
            ids = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
            for row, text in zip(ids, texts, strict=True):
                row[: len(text)] = torch.tensor(text)
            mask_BT1 = (torch.arange(ids.shape[1]) < lengths[:, None])[:, :, None].float()
            out: Floats = self._forward(ids, mask_BT1, lengths[:, None].float()).numpy()
        return out

    def _forward(
        self, ids_BT: torch.Tensor, mask_BT1: torch.Tensor, lengths_B1: torch.Tensor
    ) -> torch.Tensor:
        w, table = self._w, ids_BT % _TABLES
        x_BTC = self._table[ids_BT].float() * w["scale"][table, None] + w["lo"][table, None]
        features = [x_BTC]
        for n in _WIDTHS:
            h = x_BTC @ w[f"proj{n}"] + w[f"proj_b{n}"]
            h = F.layer_norm(h, h.shape[-1:], w[f"ln_g{n}"], w[f"ln_b{n}"], self._eps)
            for layer in (1, 2):
                # Beyond the end of a text there is nothing, whatever the batch is padded to.
                h = h * mask_BT1
                padded = F.pad(h, (0, 0, (n - 1) // 2, n // 2))
                around = torch.cat([padded[:, i : i + h.shape[1]] for i in range(n)], dim=-1)
                h = h + (around @ w[f"w{layer}_{n}"] + w[f"b{layer}_{n}"]).relu()
            features.append(h)
        x_BTC = torch.cat(features, dim=-1)
        x_BTC = F.layer_norm(x_BTC, x_BTC.shape[-1:], w["ln_g"], w["ln_b"], self._eps)
        sums = (x_BTC * mask_BT1).sum(dim=1) @ w["cnn_W"] + lengths_B1 * w["cnn_b"]
        x = sums / lengths_B1.sqrt()
        y = (x @ w["p1"] + (x @ w["d0"]).relu() @ w["d1"]).relu()
        return F.normalize(torch.tanh(y @ w["p3"] + (y @ w["d2"]).relu() @ w["d3"]), dim=-1)


def _tokenizer(path: Path) -> Tokenizer:
    """SentencePiece's unigram model in the library that is here already."""
    from transformers.convert_slow_tokenizer import import_protobuf

    protobuf: Any = import_protobuf()  # type: ignore[no-untyped-call]
    spm = protobuf.ModelProto.FromString(path.read_bytes())
    tokenizer = Tokenizer(models.Unigram([(p.piece, p.score) for p in spm.pieces], 0, False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(spm.normalizer_spec.precompiled_charsmap),
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    return tokenizer
