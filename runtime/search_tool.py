"""The search as a part of a conversation: what is found is shown, and said in a sentence."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass

from omni.errors import InputError
from omni.search import Hit, Index
from runtime.search import shown_at

log = logging.getLogger(__name__)

NAME = "search"
"""Of the tool, in the items of a conversation."""
SHOWN = 4
"""Results that are shown and named at most."""
FITS = 0.35
"""Score from which something fits, and how much worse than the best the others may be."""
WORSE = 0.2
_CURRENCIES = {"EUR": ("euros", "欧元"), "USD": ("dollars", "美元"), "CNY": ("yuan", "元")}


@dataclass(frozen=True, slots=True)
class Findings:
    """What a search in a conversation gave: JSON for programs, ``said`` for people."""

    results: int
    arguments: str
    output: str
    said: str


def find(index: Index, request: str) -> Findings:
    """Search for what the user asked for; what goes wrong is said, too."""
    chinese = re.search(r"[\u3400-\u9fff]", request) is not None
    hits: list[Hit] = []
    notes: list[str] = []
    try:
        found = index.search(request, limit=SHOWN)
        notes += found.notes
        best = found.hits[0].score if found.hits else 0.0
        meant = bool(found.wish.text)  # else it was nothing but a price
        hits = [h for h in found.hits if not meant or h.score >= max(FITS, best - WORSE)]
        said = _said(hits, chinese)
    except InputError as error:
        said = f"这个我找不了：{error}" if chinese else f"I cannot search for that: {error}."
    except Exception:  # whatever broken files raise: the conversation goes on
        log.exception("a search failed")
        said = "现在搜索不了。" if chinese else "The search does not work at the moment."
    results = [{**hit.wire(), "picture_url": shown_at(hit)} for hit in hits]
    for result in results:
        del result["picture"]
    return Findings(
        len(results),
        json.dumps({"query": request}, ensure_ascii=False),
        json.dumps({"results": results, "notes": notes}, ensure_ascii=False),
        said,
    )


def _said(hits: list[Hit], chinese: bool) -> str:
    if not hits:
        return "没有找到合适的。" if chinese else "I found nothing that fits."
    names = list(dict.fromkeys(filter(None, (_named(hit, chinese) for hit in hits))))
    if chinese:
        begin = f"我找到了{len(hits)}个" if len(hits) > 1 else "我找到了一个"
        return f"{begin}：{'、'.join(names)}。" if names else f"{begin}，请看。"
    begin = "I found one" if len(hits) == 1 else f"I found {len(hits)} things"
    if not names:
        return f"{begin}."
    *most, last = names
    return f"{begin}: {', '.join(most)}{' and ' if most else ''}{last}."


def _named(hit: Hit, chinese: bool) -> str:
    """A name for the ear, with the price."""
    name = hit.title or hit.seen or " ".join(hit.text.split()[:6])
    if not name or hit.price is None:
        return name
    english, own = _CURRENCIES.get(hit.currency or "", (hit.currency or "", hit.currency or ""))
    price = f"{hit.price:g}"
    if chinese:
        return f"{name}，{price}{own}"
    return f"{name} for {price}{' ' if english else ''}{english}"
