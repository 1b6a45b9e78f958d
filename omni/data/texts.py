"""Sentences out of the text sets, cleaned so that a voice can read them and a test can compare."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from omni.data.sets import require

SOURCES = {
    "examples": "wordnet",
    "glosses": "wordnet",
    "fortunes": "fortunes",
    "devil": "devil",
    "jargon": "jargon",
    "bible": "web-bible",
}
"""What `sentences` can read, and the set that holds it."""

_FORTUNES = (
    "art", "cookie", "definitions", "education", "food", "fortunes", "goedel", "humorists", "kids",
    "law", "literature", "love", "magic", "medicine", "miscellaneous", "news", "people",
    "platitudes", "riddles", "science", "songs-poems", "sports", "tao", "wisdom", "work",
)  # fmt: skip
_FINE = re.compile(r"[A-Za-z][A-Za-z ,.;:!?'\"-]*[A-Za-z.!?\"']")
_SHOUT = re.compile(r"\b[A-Z]{2,}\b")
_END = re.compile(r"(?<=[.!?])[\"']?\s+(?=[\"']?[A-Z])")
_PLAIN = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "...", "´": "'", "`": "'"}
)


def sentences(source: str) -> list[str]:
    """The sentences of one of `SOURCES`, each once, in a fixed order.

    They have 3 to 30 words of plain letters and punctuation, no digits and no abbreviations in
    capitals, so that how they are read aloud is what is written. Raises `InputError` where the set
    was not pulled.
    """
    name = SOURCES[source]
    raw = _READERS[source](require([name])[name])
    return list(dict.fromkeys(s for s in map(_clean, raw) if s))


def normal(text: str) -> str:
    """Lower-case words without punctuation: what word error rates compare."""
    text = text.translate(_PLAIN).lower().replace("-", " ")
    return " ".join(re.sub(r"[^\w' ]|(?<!\w)'|'(?!\w)", " ", text).split())


def is_held_out(text: str, share: int = 40) -> bool:
    """Whether a text is kept for tests: one in ``share`` of all, whatever set it comes from."""
    digest = hashlib.sha256(normal(text).encode()).digest()
    return int.from_bytes(digest[:4]) % share == 0


def _clean(text: str) -> str | None:
    text = unicodedata.normalize("NFKC", text.translate(_PLAIN))
    text = re.sub(r"\s*--+\s*", " - ", re.sub(r"[_*{}<>|]", "", text))
    text = re.sub(r"\s+", " ", text).strip(" -,;:")
    if text.count('"') % 2 or (text.startswith('"') and text.endswith('"')):
        text = text.replace('"', "").strip()
    words = text.split()
    if not 3 <= len(words) <= 30 or len(text) > 180 or max(map(len, words)) > 24:
        return None
    if not _FINE.fullmatch(text) or _SHOUT.search(text) or re.search(r"\b[A-Z]\.$", text):
        return None
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?\"'" else text + "."


def _split(paragraph: str) -> Iterable[str]:
    return _END.split(re.sub(r"\s+", " ", paragraph).strip())


def _wordnet(folder: Path) -> Iterator[str]:
    for kind in ("adj", "adv", "noun", "verb"):
        path = folder / "usr/share/wordnet" / f"data.{kind}"
        for line in path.read_text("utf-8").splitlines():
            if not line.startswith("  "):
                yield line.partition(" | ")[2]


def _examples(folder: Path) -> Iterator[str]:
    for gloss in _wordnet(folder):
        for example in re.findall(r'"([^"]+)"', gloss):
            # Some are single words or phrases in use; a sentence has its verb later than that.
            if len(example.split()) >= 4:
                yield example


def _glosses(folder: Path) -> Iterator[str]:
    for gloss in _wordnet(folder):
        meaning = re.split(r'[;:] "', gloss)[0]
        yield re.sub(r"\([^()]*\)", " ", meaning).replace(" ,", ",").strip()


def _fortunes(folder: Path) -> Iterator[str]:
    for name in _FORTUNES:
        path = folder / "usr/share/games/fortunes" / name
        if not path.exists():
            continue
        for saying in re.split(r"\n%\n", path.read_text("utf-8")):
            words = re.split(r"\n\s*--\s", saying)[0]
            yield from _split(words)


def _dict(folder: Path, name: str) -> str:
    path = folder / "usr/share/dictd" / f"{name}.dict.dz"
    return gzip.decompress(path.read_bytes()).decode("utf-8")


def _devil(folder: Path) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", _dict(folder, "devil")):
        text = re.sub(r"^[A-Z' -]+, [a-z.&]+\s+", "", paragraph.strip())
        yield from _split(re.sub(r"\[[^]]*\]", "", text))


def _jargon(folder: Path) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", _dict(folder, "jargon")):
        if paragraph.startswith("    "):
            yield from _split(re.sub(r"^\s*\d+\.\s*|\[[^]]*\]", "", paragraph))


def _bible(folder: Path) -> Iterator[str]:
    """OSIS in blocks of one book each: (offset, size, unpacked size), as SWORD's zText has them."""
    for module in sorted((folder / "usr/share/sword/modules/texts/ztext").iterdir()):
        for part in ("ot", "nt"):
            index = (module / f"{part}.bzs").read_bytes()
            packed = (module / f"{part}.bzz").read_bytes()
            for offset, size, _ in struct.iter_unpack("<III", index):
                if not size:
                    continue
                osis = zlib.decompress(packed[offset : offset + size]).decode("utf-8")
                osis = re.sub(r"(?s)<(note|title|reference)\b.*?</\1>", "", osis)
                for paragraph in re.split(r"<div\b[^>]*>|<chapter\b[^>]*>|<l\b[^>]*>", osis):
                    yield from _split(re.sub(r"<[^>]*>", "", paragraph))


_READERS = {
    "examples": _examples,
    "glosses": _glosses,
    "fortunes": _fortunes,
    "devil": _devil,
    "jargon": _jargon,
    "bible": _bible,
}
