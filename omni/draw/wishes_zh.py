"""Wishes for pictures in Chinese; see `omni.draw.wishes`."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

from omni.draw.subjects import COLOURS, Subject, subjects
from omni.draw.wishes import Wish

_POLITE = re.compile(
    r"(?:请问|请|麻烦|劳驾|你好|好的?|那么?|现在|接着|然后|再|你|您|我想让你|我想请你|我想要你|我要你|帮我|帮忙|"
    r"帮|给我们?|为我们?|替我|能不能|可不可以|可以|能否|能够?|会不会|会|愿意|试着|试试|来(?=画)|快|就|吧|，|,|\s)*"
)
_MEASURES = "个只朵辆条头匹棵颗张幅座架艘本把顶件双块片根支盏台间栋位杯串滴道团枝株所部种些副枚面"
_OFTEN = "个只张朵条棵颗辆把间头匹座"
"""Those that come without a number, too: 画只猫. Others make words: 画面."""
_DRAW = re.compile(r"(?:画|绘制|绘画|绘|描绘|素描|涂鸦)(?P<me>出来?|一下|给我们?)*(?P<rest>.+)")
_PICTURE = re.compile(
    r"(?:给我们?(?:看|来|生成|做)?看?|来|我想要|我要|我想看|想要|生成|制作|做|看看?|画|创作|弄)"
    rf"(?:一|两|几)?[{_MEASURES}]?(?P<rest>.+?)的?(?:图画|图片|图像|画像|照片|插图|插画|表情|简笔画|素描|图|画)"
)
_TAIL = re.compile(
    r"(?:吗|吧|呢|呀|啊|哦|好吗|好不好|行吗|行不行|可以吗|可不可以|怎么样|谢谢你?|给我们?看?看?|出来|，|,|\s)+$"
)
_NUMBERS = {"一": 1, "两": 2, "二": 2, "俩": 2, "三": 3, "几": 3, "四": 4, "五": 5, "六": 6,
            "七": 7, "八": 8, "九": 9, "十": 10, "1": 1, "2": 2, "3": 3}  # fmt: skip
_COUNT = re.compile(rf"(?P<count>[{''.join(_NUMBERS)}])?(?P<measure>[{_MEASURES}])")
_COLOUR_WORDS = {word: name for name, words in COLOURS.items() for word in words}
_COLOUR = "|".join(sorted(_COLOUR_WORDS, key=len, reverse=True))
_FILLERS = re.compile(
    r"小小|大大|可爱|漂亮|好看|美丽|简单|很|非常|超级|巨大|小|大|的|颜色|色|深|浅|新|一样|普通"
)
_RECOLOUR = re.compile(
    r"(?:[把将]?(?:它|他|她|它们|这个|那个|这只|那只|颜色|它的颜色|[\u4e00-\u9fff]{1,5})?"
    r"(?:变|改|换|涂|画|弄|染|做|换个|改个)(?:成|为|一下|个)*|[要想]要?|来个|换|用|如果是|那)?"
    rf"(?:一?[{_MEASURES}])?[深浅]?(?P<colour>{_COLOUR})色?的?(?:看看|试试|呢)?"
)
_AGAIN = re.compile(rf"(?:再|又|另外|另)?(?:画|来|要|换)(?:一|另一|另外一)[{_MEASURES}]")
_NUMBER = re.compile(rf"(?:画|改成|变成|来|要)(?P<count>[两二三])[{_MEASURES}]")
_ANYTHING = re.compile(r"(?:点|些|个|一个|一些|一点)?(?:什么都行|什么|东西|随便.*|任何东西)")


def asked(text: str) -> Wish | None:
    """What a sentence asks to draw, if it does."""
    for part in re.split(r"[。！？!?；;\n.]+", text):
        said = _plain(part)
        if _RECOLOUR.fullmatch(said) and wanted(said).subject is None:
            continue  # 画一个红色的: of what was drawn before
        if (found := _DRAW.fullmatch(said)) and _is_picture(found):
            return wanted(
                re.sub(r"的?(?:图画|图片|图像|照片|插图|简笔画|素描)$", "", found["rest"])
            )
        if found := _PICTURE.fullmatch(said):
            new = wanted(found["rest"])
            if new.subject is not None:
                return new
    return None


def changed(text: str, before: Wish) -> Wish | None:
    """What a sentence asks to draw after ``before``: in another colour, another one, more."""
    said = _plain(text)
    again = _plain(text, polite=False)
    if found := _RECOLOUR.fullmatch(said):
        colour = _COLOUR_WORDS[found["colour"]]
        return replace(before, colour=colour, language="zh", left_out=False)
    if _AGAIN.fullmatch(said) or _AGAIN.fullmatch(again):
        return replace(before, language="zh")
    if found := _NUMBER.fullmatch(said):
        return replace(before, count=_NUMBERS[found["count"]], language="zh")
    return None


def wanted(text: str) -> Wish:
    """What a description asks for: "两只蓝色的小猫"."""
    said = _plain(text)
    if _ANYTHING.fullmatch(said):
        return Wish("", language="zh")
    rest, count = said, 1
    if found := _COUNT.match(rest):
        count = _NUMBERS.get(found["count"] or "一", 1)
        rest = rest[found.end() :]
    subject, begin, end = _find(rest)
    before = rest[:begin] if subject else rest
    colour = None
    # Not where the name itself has a colour's sign in it.
    if found := re.search(_COLOUR, before):
        colour = _COLOUR_WORDS[found[0]]
        before = before[: found.start()] + before[found.end() :]
    left = _FILLERS.sub("", before + (rest[end:] if subject else ""))
    return Wish(said, subject, colour, count, "zh", bool(left) or count > 3)


def _plain(text: str, polite: bool = True) -> str:
    said = text.strip(" \t\n，。！？,.!?“”\"'～~")
    if polite:
        said = said[_POLITE.match(said).end() :]  # type: ignore[union-attr]
    return _TAIL.sub("", said)


def _is_picture(found: re.Match[str]) -> bool:
    """Whether what follows "画" is something to be seen, and not a word like 画家 or 画蛇添足."""
    rest = found["rest"]
    if _ANYTHING.fullmatch(rest):
        return True
    new = wanted(rest)
    counted = _COUNT.match(rest)
    if found["me"] or (counted and (counted["count"] or counted["measure"] in _OFTEN)):
        return new.subject is not None or not re.match(
            rf"[{_MEASURES}]?(?:画|家|展|的|了|过)", rest
        )
    return new.subject is not None and not new.left_out


def _find(text: str) -> tuple[Subject | None, int, int]:
    """The known name that ends last, the longest of these, and where it stands."""
    best: tuple[Subject | None, int, int] = (None, 0, 0)
    for name, subject in _names().items():
        begin = text.rfind(name)
        end = begin + len(name)
        if begin >= 0 and (end, -begin) > (best[2], -best[1]):
            best = (subject, begin, end)
    return best


@cache
def _names() -> dict[str, Subject]:
    return {name: subject for subject in subjects() for name in subject.chinese}
