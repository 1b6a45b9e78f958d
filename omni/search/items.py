"""What can be indexed: a folder of pictures, a table (CSV), or JSON lines.

A folder's pictures are named by their file names, and described by a text of the same name beside
them (``dress.jpg``, ``dress.txt``) where there is one. Of a table or JSON lines these columns have
a meaning, every other one is an attribute:

========= ==========================================================================
picture   also image, image_path, file, path, filename, 图片: relative to the table
id        what the item is called; default: where its picture lies
title     also name, 名称, 标题
text      also description, caption, 描述
price     also 价格: a number, with its currency or without
currency  also 货币
========= ==========================================================================
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from omni.errors import InputError
from omni.search.request import currency_in

PICTURES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif", ".ppm")
)
_NAMES = {
    "picture": "picture image image_path image_file file path filename photo 图片",
    "id": "id sku 编号",
    "title": "title name 名称 标题",
    "text": "text description caption 描述 说明",
    "price": "price 价格",
    "currency": "currency 货币",
}
_COLUMN = {word: name for name, words in _NAMES.items() for word in words.split()}
_CAMERA = re.compile(r"^(?:img|dsc[nf]?|pxl|image|photo|screenshot|picture|vid|wp)?[\W_\d]*$", re.I)
_MAX_TEXT = 4000


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to find; it has a picture, words, or both.

    ``stamp`` changes when anything of it does.
    """

    id: str
    picture: Path | None = None
    title: str = ""
    text: str = ""
    price: float | None = None
    currency: str | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    stamp: str = ""

    @property
    def words(self) -> str:
        """All that is said about it."""
        said = [self.title, self.text, ", ".join(self.attributes.values())]
        return ". ".join(part for part in said if part)[:_MAX_TEXT]


@dataclass(frozen=True, slots=True)
class Unusable:
    """An item that cannot be indexed, and why."""

    name: str
    why: str


def read_items(source: Path) -> Iterator[Item | Unusable]:
    """The items of a folder, a ``.csv`` (``.tsv``) or a ``.jsonl`` file, in their order.

    Raises `InputError` for a source that is none of these, is empty, or has no usable column.
    """
    if source.is_dir():
        return _folder(source)
    if not source.is_file():
        raise InputError(f"there is no folder or file {source}", param="source")
    suffix = source.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _records(source, _csv(source, "\t" if suffix == ".tsv" else ","))
    if suffix in (".jsonl", ".ndjson"):
        return _records(source, _jsonl(source))
    if suffix in PICTURES:
        return iter([_of_file(source)])
    raise InputError(
        f"{source} is no folder, no table and no picture; give a folder of pictures, a .csv, or a "
        ".jsonl file",
        param="source",
    )


def _folder(folder: Path) -> Iterator[Item]:
    found = False
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in PICTURES and path.is_file():
            found = True
            yield _of_file(path)
    if not found:
        raise InputError(
            f"there is no picture in {folder} or in its folders; known are "
            f"{', '.join(sorted(s[1:] for s in PICTURES))}",
            param="source",
            code="empty",
        )


def _of_file(path: Path) -> Item:
    name = re.sub(r"[\W_]+", " ", path.stem).strip()
    beside = path.with_suffix(".txt")
    text = _read_text(beside) if beside.is_file() else ""
    title = "" if _CAMERA.match(path.stem) else name
    return _stamped(Item(path.resolve().as_posix(), path.resolve(), title, text))


def _records(
    source: Path, records: Iterable[tuple[int, Mapping[str, Any]]]
) -> Iterator[Item | Unusable]:
    found = False
    for line, record in records:
        found = True
        try:
            yield _stamped(_of_record(source, record))
        except InputError as error:
            yield Unusable(f"{source.name}:{line}", str(error))
    if not found:
        raise InputError(f"{source} has no items", param="source", code="empty")


def _csv(source: Path, delimiter: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            _check_columns(source, reader.fieldnames or ())
            for record in reader:
                yield reader.line_num, record
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{source} is not a table in UTF-8 ({error}); save it as CSV, UTF-8", param="source"
        ) from None


def _jsonl(source: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with source.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, {"": f"it is not JSON ({error})"}
                continue
            if not isinstance(record, dict):
                yield number, {"": "it is not a JSON object"}
                continue
            nested = record.pop("attributes", None)
            yield number, {**record, **(nested if isinstance(nested, dict) else {})}


def _check_columns(source: Path, given: Iterable[str]) -> None:
    names = [name for name in given if name]
    known = {_COLUMN.get(name.strip().lower()) for name in names}
    if not known & {"picture", "title", "text"}:
        raise InputError(
            f"{source} has no column that could be searched: found {', '.join(names) or 'none'}; "
            "needed is one of picture, title, text (also image, name, description)",
            param="source",
            code="columns",
        )


def _of_record(source: Path, record: Mapping[str, Any]) -> Item:
    if "" in record:
        raise InputError(str(record[""]))
    known: dict[str, str] = {}
    attributes: dict[str, str] = {}
    for key, value in record.items():
        if key is None or value is None or (text := _as_text(value)) == "":
            continue
        name = _COLUMN.get(key.strip().lower())
        if name is not None and name not in known:
            known[name] = text
        else:
            attributes[key.strip()] = text
    picture = None
    if "picture" in known:
        if "://" in known["picture"]:
            raise InputError(
                f"{known['picture']} is an address; pictures are read from files: fetch it first"
            )
        picture = (source.parent / known["picture"]).resolve()
    if picture is None and not (known.keys() & {"title", "text"}):
        raise InputError("it has no picture, no title and no text")
    price, currency = _price(known.get("price"))
    if "currency" in known:
        currency = currency_in(known["currency"]) or known["currency"].upper()
    id = known.get("id") or (picture.as_posix() if picture else "")
    if not id:
        id = f"{source.name}#{_digest(record)}"
    title, text = known.get("title", ""), known.get("text", "")
    return Item(id, picture, title, text, price, currency, attributes)


def _as_text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(filter(None, map(_as_text, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_as_text(inner)}" for key, inner in value.items())
    return " ".join(str(value).split())[:_MAX_TEXT]


def _price(text: str | None) -> tuple[float | None, str | None]:
    if text is None:
        return None, None
    found = re.search(r"\d+(?:[.,]\d{3})*(?:[.,]\d{1,2})?(?!\d)|\d+(?:\.\d+)?", text)
    if found is None:
        raise InputError(f"its price is {text!r}; give a number, such as 19.90, or nothing")
    digits = found[0]
    if re.search(r",\d{1,2}$", digits):  # 19,90 and 1.299,00
        digits = digits.replace(".", "").replace(",", ".")
    price = float(digits.replace(",", ""))
    if not math.isfinite(price):
        raise InputError(f"its price is {text!r}; give a number, such as 19.90, or nothing")
    return price, currency_in(text)


def _stamped(item: Item) -> Item:
    """With the stamp of its fields and of its picture's file."""
    about: list[Any] = [item.title, item.text, item.price, item.currency, dict(item.attributes)]
    if item.picture is not None:
        try:
            file = item.picture.stat()
            about += [item.picture.as_posix(), file.st_size, file.st_mtime_ns]
        except OSError:  # told when it is read
            about += [item.picture.as_posix()]
    return replace(item, stamp=_digest(about))


def _digest(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _read_text(path: Path) -> str:
    try:
        return " ".join(path.read_text("utf-8", errors="replace").split())[:_MAX_TEXT]
    except OSError:
        return ""
