"""What a request asks for: words to match by meaning, and filters that can be read from it.

>>> wish = read_request("red floral dress, long, not sleeveless, under 50 euros")
>>> wish.text, wish.colours, wish.without, wish.most, wish.currency
('red floral dress, long', ('red',), ('sleeveless',), 50.0, 'EUR')
>>> read_request("50元以下的红色连衣裙").most
50.0
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from omni.errors import InputError

MAX_CHARACTERS = 1000
_MAX_PHRASES = 64

COLOURS: dict[str, str] = {
    "red": "red crimson scarlet burgundy maroon 红",
    "orange": "orange 橙 橘",
    "yellow": "yellow golden 黄 金",
    "green": "green olive 绿",
    "turquoise": "turquoise cyan teal aqua 青",
    "blue": "blue navy azure 蓝",
    "purple": "purple violet lilac 紫",
    "pink": "pink magenta 粉",
    "black": "black 黑",
    "white": "white ivory 白",
    "grey": "grey gray silver 灰 银",
    "brown": "brown beige tan khaki 棕 褐 咖啡",
}
"""The colours that `encoders.colour` names, and the words that mean them."""
_COLOUR_OF = {word: name for name, words in COLOURS.items() for word in words.split()}
_ENGLISH_COLOUR = re.compile(
    rf"(?<![\w-])({'|'.join(w for w in _COLOUR_OF if w.isascii())})(?:d?ish)?(?!\w)", re.IGNORECASE
)
# A single character is a colour where 色 or 的 follows, or what wears colours: not in 白菜 or 黄瓜.
_CHINESE_COLOUR = re.compile(
    rf"({'|'.join(w for w in _COLOUR_OF if not w.isascii())})"
    "(?:色|的|(?=[裙衣帽鞋包车裤伞猫狗鸟旗星杯碗盘灯毛围手]))"
)

_CURRENCIES = {
    "USD": r"us\$|usd|\$|dollars?|bucks|美元|美金|刀",
    "EUR": r"eur|€|euros?|欧元",
    "GBP": r"gbp|£|pounds?|英镑",
    "JPY": r"jpy|yen|日元",
    "CNY": r"cny|rmb|¥|￥|yuan|人民币|元|块钱?|圆",
}
_CURRENCY = re.compile("|".join(f"(?P<{name}>{p})" for name, p in _CURRENCIES.items()), re.I)
_MONEY = "(?:" + "|".join(_CURRENCIES.values()) + r")(?![a-z])"
_NUMBER = r"(?<![\d.,])(\d{1,3}(?:,\d{3}){1,3}(?:\.\d{1,4})?|\d{1,9}(?:\.\d{1,4})?)(?![.,]?\d)"
_NO_UNIT = (
    r"(?!\s*(?:cm|mm|km|m|kg|g|mg|ml|cl|l|lbs?|oz|inch(?:es)?|feet|ft|years?|months?|days?|hours?|"
    r"minutes?|pieces?|pages?|people|watts?|w|gb|tb|degrees?)\b)(?!\s*(?:%|\"|厘米|毫米|米|公斤|千克|"
    r"克|斤|毫升|升|岁|寸|个|件|码|页|年|月|天|小时|分钟))"
)
_PRICE = rf"(?:(?:{_MONEY})\s*)?{_NUMBER}(?:\s*{_MONEY})?{_NO_UNIT}"
_LIMITS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern, re.IGNORECASE))
    for kind, pattern in (
        ("range", rf"\b(?:between|from)\s+{_PRICE}\s*(?:and|to|-|–|~)\s*{_PRICE}"),
        ("range", rf"{_NUMBER}\s*(?:元|块)?\s*(?:-|–|~|到|至|to)\s*{_NUMBER}\s*{_MONEY}(?:之间)?"),
        (
            "range",
            rf"(?:{_MONEY})\s*{_NUMBER}\s*(?:-|–|~|to)\s*(?:{_MONEY})?\s*{_NUMBER}{_NO_UNIT}",
        ),
        (
            "most",
            r"(?:\b(?:under|below|less than|cheaper than|lower than|at most|up to|no more than|"
            r"not more than|not over|max(?:imum)?(?: of)?|within)|<=?|≤|低于|少于|"
            rf"不超过|不高于|不到|最多|便宜于)\s*{_PRICE}",
        ),
        (
            "most",
            rf"{_PRICE}\s*(?:or less\b|or under\b|max(?:imum)?\b|以下|以内|之内|之下|内)",
        ),
        (
            "least",
            r"(?:\b(?:over|above|more than|at least|starting (?:at|from)|no less than|"
            rf"not less than|not under|min(?:imum)?(?: of)?)|>=?|≥|高于|超过|至少|"
            rf"不低于|大于|多于)\s*{_PRICE}",
        ),
        ("least", rf"{_PRICE}\s*(?:or more\b|and up\b|\+|以上|之上|起)"),
        ("about", rf"(?:\b(?:around|about|roughly)|大约|大概|约)\s*{_PRICE}"),
        ("about", rf"{_NUMBER}\s*{_MONEY}\s*(?:左右|上下)"),
    )
)
_ABOUT = 0.2
_CHINESE_NUMBER = re.compile(
    r"[零一二两三四五六七八九十百千万]+(?=\s*(?:元|块|美元|欧元|英镑|日元|以下|以内|以上|到|至))"
)

_NOT = re.compile(
    r"(?<!\w)(?:but not|and not|not|no|without|except(?: for)?|other than)\s+(?:an?\s+|the\s+|"
    r"any\s+|in\s+)?((?:(?!and\b|but\b|or\b|with\b|not\b|no\b)[\w'’-]+)(?:\s(?!and\b|but\b|with\b|"
    r"not\b|no\b|under\b|over\b|below\b|above\b|between\b)[\w'’-]+){0,2}?)(?=\s*(?:$|[,.;!?，。；]|"
    r"\b(?:and|but|with|not|no|under|over|below|above|between)\b))",
    re.IGNORECASE,
)
_NON = re.compile(r"\bnon[- ](\w+)", re.IGNORECASE)
_CHINESE_NOT = re.compile(
    r"(?:但|而)?(?:不要|不是|不带|没有|除了|非|别要)(?P<what>[\u3400-\u9fff]{1,6}?)(?:的|以外|之外)?"
    r"(?=$|[\s,，。;；、])"
)
_ASKING = re.compile(
    r"^\W*(?:(?:please|could you|can you|would you|hey|ok(?:ay)?|omni)[\s,]+)*"
    r"(?:(?:i'?m|i am|we'?re)\s+(?:looking|searching)\s+for|"
    r"(?:i|we)(?:'d| would)?\s+(?:like|want|need)(?:\s+to\s+(?:see|find))?|"
    r"(?:find|show|get|give|bring)\s+(?:me|us)|(?:search|look)\s+for|find)"
    r"\s+(?=\S)(?:(?:an?|some|any|the)\s+)?(?:(?:pictures?|photos?|images?)\s+of\s+)?|"
    r"^(?:请|麻烦)?(?:你)?(?:帮|给|替)?(?:我们?)?(?:想要?|要|找一?下?|搜索?一?下?|看看|展示)"
    r"(?:一[些个件条双]|些|个|件|条)?",
    re.IGNORECASE,
)
_STOPPED = (
    "a an the of in on for to with and or but is are it its that this some any me my i you from at "
    "by as something anything item items thing things please 的 了 和 与 一 个 件 条 些 我 要 想"
)
_STOP = frozenset(_STOPPED.split())
_WORD = re.compile(r"[a-z0-9][\w'.-]*\w|[a-z0-9]", re.IGNORECASE)
_HAN = re.compile(r"[\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that was read.

    ``text`` is matched by meaning, ``without`` counts against; ``colours`` and ``phrases`` (words
    and runs of two or three, lower case) are looked for among what is known of the items;
    ``least`` and ``most`` bound the price, in ``currency`` (ISO 4217) where one is named.
    """

    text: str = ""
    without: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    not_colours: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    not_phrases: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    currency: str | None = None

    @property
    def priced(self) -> bool:
        """Whether it says something about the price."""
        return self.least is not None or self.most is not None


def read_request(request: str) -> Wish:
    """Read a request in English or Chinese.

    Raises `InputError` when it is empty or longer than `MAX_CHARACTERS`.
    """
    text = " ".join(request.split())
    if not re.search(r"\w", text):
        raise InputError(
            "the request is empty; say what to find, for example: red dress, under 50",
            param="query",
            code="empty",
        )
    if len(text) > MAX_CHARACTERS:
        raise InputError(
            f"the request has {len(text)} characters; at most {MAX_CHARACTERS} are searched for: "
            "say in a sentence what to find",
            param="query",
            code="too_long",
        )
    text = _ASKING.sub("", text, count=1)
    text, least, most, currency = _prices(_CHINESE_NUMBER.sub(_digits, text))
    without: list[str] = []

    def leave_out(match: re.Match[str]) -> str:
        without.append(match[1].strip())
        return " "

    for pattern in (_NON, _NOT, _CHINESE_NOT):
        text = pattern.sub(leave_out, text)
    text = re.sub(r"\s+([,.;，。；、])", r"\1", " ".join(text.split()))
    text = re.sub(r"([,;，；、])(?:\s*[,;.，。；、])+", r"\1", text)
    text = re.sub(r"\s+(?:for|at|of|in)$", "", text.strip(" ,.;:!?，。；！？、的"))
    not_colours = tuple(dict.fromkeys(c for words in without for c in colours_in(words)))
    return Wish(
        text=text,
        without=tuple(w for w in without if not _only_colours(w)),
        colours=tuple(c for c in colours_in(text) if c not in not_colours),
        not_colours=not_colours,
        phrases=phrases(text),
        not_phrases=tuple(dict.fromkeys(p for w in without for p in (w.lower(), *phrases(w)))),
        least=least,
        most=most,
        currency=currency,
    )


def colours_in(text: str) -> tuple[str, ...]:
    """The colours that a text names, each once, as `COLOURS` has them."""
    words = [m[1].lower() for m in _ENGLISH_COLOUR.finditer(text)]
    # At the end nothing follows: 红.
    words += [m[1] for m in _CHINESE_COLOUR.finditer(text)]
    if text in _COLOUR_OF:
        words.append(text)
    return tuple(dict.fromkeys(_COLOUR_OF[word] for word in words))


def phrases(text: str) -> tuple[str, ...]:
    """Words of a text and runs of two and three of them; of Chinese, runs of characters."""
    words = [word.lower() for word in _WORD.findall(text)]
    runs = [
        " ".join(words[i : i + n])
        for n in (1, 2, 3)
        for i in range(len(words) - n + 1)
        if not (words[i] in _STOP or words[i + n - 1] in _STOP)
    ]
    for run in _HAN.findall(text):
        runs += [run[i : i + n] for n in (2, 3, 4, 1) for i in range(len(run) - n + 1)]
    kept = [run for run in dict.fromkeys(runs) if run not in _STOP]
    return tuple(kept[:_MAX_PHRASES])


def currency_in(text: str) -> str | None:
    """The currency that a text names, ISO 4217; None: none of those that are known."""
    found = _CURRENCY.search(text)
    return found.lastgroup if found is not None else None


def _prices(text: str) -> tuple[str, float | None, float | None, str | None]:
    least: float | None = None
    most: float | None = None
    currency: str | None = None
    for kind, pattern in _LIMITS:
        while (found := pattern.search(text)) is not None:
            numbers = [float(group.replace(",", "")) for group in found.groups() if group]
            if kind == "range":
                least, most = min(numbers), max(numbers)
            elif kind == "most":
                most = numbers[0]
            elif kind == "least":
                least = numbers[0]
            else:
                least, most = numbers[0] * (1 - _ABOUT), numbers[0] * (1 + _ABOUT)
            currency = currency_in(found[0]) or currency
            text = f"{text[: found.start()].rstrip()} {text[found.end() :]}"
    return text, least, most, currency


def _digits(match: re.Match[str]) -> str:
    import cn2an

    try:
        return str(cn2an.cn2an(match[0], "smart"))
    except ValueError:  # no number after all
        return match[0]


def _only_colours(text: str) -> bool:
    rest = _ENGLISH_COLOUR.sub("", _CHINESE_COLOUR.sub("", text)).strip(" 色的")
    return not rest or rest in _COLOUR_OF
