"""Chinese text -> Chinese words as people say them: numbers, dates and signs in characters."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

_RULES = [
    (re.compile(r"(?<=\d),(?=\d{3})"), ""),
    (re.compile(r"[￥¥]\s?(\d+(?:\.\d+)?)(?![\d.]|\s?元)"), r"\1元"),
    (re.compile(r"[￥¥]"), ""),
    (re.compile(r"\$\s?(\d+(?:\.\d+)?)"), r"\1美元"),
    (re.compile(r"€\s?(\d+(?:\.\d+)?)"), r"\1欧元"),
    (re.compile(r"£\s?(\d+(?:\.\d+)?)"), r"\1英镑"),
    (re.compile(r"(?<=\d)\s?(?:°\s?C|℃)"), "度"),
    (re.compile(r"(\d+(?:\.\d+)?)\s?(?:°\s?F|℉)"), r"华氏\1度"),
    (re.compile(r"(?<=\d)\s?km/h"), "公里每小时"),
    (re.compile(r"(?<=\d)\s?m/s"), "米每秒"),
    (re.compile(r"(?<=\d)\s?km²"), "平方公里"),
    (re.compile(r"(?<=\d)\s?(?:m²|㎡)"), "平方米"),
    (re.compile(r"(?<=\d)\s?km(?![a-zA-Z])"), "公里"),
    (re.compile(r"(?<=\d)\s?kg(?![a-zA-Z])"), "公斤"),
    (re.compile(r"(?<=\d)\s?GB(?![a-zA-Z])"), "吉字节"),
    (re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?!\d)"), r"\1年\2月\3日"),
    (re.compile(r"(\d{4})\s?[-–—~～]\s?(\d{4})年"), r"\1年到\2年"),
    (re.compile(r"\s?=\s?"), "等于"),
    (re.compile(r"(?<=[\d)）])\s?\+\s?(?=[\d(（])"), "加"),
    (re.compile(r"(?<=[\d)）])\s?[×*]\s?(?=[\d(（])"), "乘以"),
    (re.compile(r"(?<=[\d)）])\s?÷\s?(?=[\d(（])"), "除以"),
    (re.compile(r"(?<=[\d)）]) - (?=[\d(（])|(?<=[\d)）])−(?=\d)"), "减"),
    (re.compile(r"\s?[≈]\s?"), "约等于"),
    (re.compile(r"\s?(?:<=|≤)\s?"), "小于等于"),
    (re.compile(r"\s?(?:>=|≥)\s?"), "大于等于"),
    (re.compile(r"(?<=\d)\s?<\s?(?=\d)"), "小于"),
    (re.compile(r"(?<=\d)\s?>\s?(?=\d)"), "大于"),
    (re.compile(r"&"), "和"),
    (re.compile(r"——|…+"), "，"),
]
_LATIN = re.compile(r"[A-Za-z][A-Za-z'’\-]*(?: [A-Za-z][A-Za-z'’\-]*)*")


@cache
def _normalizer() -> Any:
    from misaki.zh_normalization.text_normalization import TextNormalizer

    return TextNormalizer()


def spoken_chinese(text: str) -> str:
    """Put the numbers and signs of a Chinese ``text`` into characters.

    Latin words stay as they are. Traditional characters become simplified ones, which the voice's
    dictionary knows.
    """
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    out, last = [], 0
    # misaki's normaliser takes letters inside words for units ("Python" -> "Pyt小时on").
    for word in _LATIN.finditer(text):
        out += [_chinese(text[last : word.start()]), f" {word[0]} "]
        last = word.end()
    out.append(_chinese(text[last:]))
    return re.sub(r"\s+", " ", "".join(out)).strip()


def _chinese(text: str) -> str:
    return "".join(_normalizer().normalize(text)) if text.strip() else ""
