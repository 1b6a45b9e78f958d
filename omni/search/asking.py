"""Whether a sentence asks to find something, read by its first words: English and Chinese.

A small model neither calls a tool reliably nor leaves it alone reliably; a search in the middle of
a talk is worse than to miss an odd wording. So only what begins like a request to find or to show
things is one ("find me …", "show me …", "search for …", "给我找…"), unless it goes on like
something else ("show me how …", "find out …", "find the square root …").
"""

from __future__ import annotations

import re

LONGEST = 400
"""Characters of a sentence that are looked at."""

_POLITE = (
    r"(?:(?:please|now|ok(?:ay)?|hey|hi|hello|omni|so|well|and|then|could you|can you|would you|"
    r"will you|i(?:'d| would) like you to|i want you to|help me(?: to)?|let's)[\s,.!]+)*"
)
_OTHER = (
    r"(?!\s*(?:how|why|what|who|when|where|whether|if|out|that|your|yourself|an? (?:way|example|"
    r"solution|answer|reason|proof|joke|story|poem|rhyme|word|number)\b|the (?:answer|solution|sum|"
    r"square|root|value|difference|area|product|meaning|way|time|error|bug|derivative|capital|"
    r"largest|smallest|next|first|last|word|number)\b|(?:some )?(?:code|examples?)\b|\d|x\b))"
)
_ENGLISH = re.compile(
    rf"^\W*{_POLITE}(?:"
    rf"(?:find|show|get|fetch)\s+(?:me|us)\b{_OTHER}\s+(?P<a>.+)|"
    rf"(?:search|look)\s+for\b{_OTHER}\s+(?P<b>.+)|"
    r"search\s+(?:my|the|our)\s+(?:pictures|photos|index|catalogu?e)\s+for\s+(?P<c>.+)|"
    rf"(?:i'?m|i am|we are|we're)\s+(?:looking|searching)\s+for\b{_OTHER}\s+(?P<d>.+)|"
    rf"find\s+(?:an?|some|all|my|pictures?|photos?|something|anything)\b{_OTHER}(?P<e>.+)|"
    r"(?:do (?:you|we) have|have you got|are there)\s+(?:any\s+)?(?:pictures?|photos?)\s+of\s+"
    r"(?P<f>.+)"
    r")$",
    re.IGNORECASE | re.DOTALL,
)
_CHINESE = re.compile(
    r"^\W*(?:请|麻烦|那|好的?|嗯|你好|Omni|[,，])*(?:你?(?:能不能|可以|能))?"
    r"(?:(?:帮|给|替)(?:我们?|忙)(?:找|搜|查找|搜索|看看(?!天气|新闻|时间|你))(?:一?下)?|找(?:一?下|一[个些张件条双])|搜索?(?:一?下)?|"
    r"我(?:在|想)找|有没有)(?!出(?:答案|原因)|.*(?:答案|原因|方法|怎么|为什么))(?P<a>.+)$",
    re.DOTALL,
)


def asked_to_find(text: str) -> str | None:
    """What a sentence asks to find, in its own words; None when it asks for nothing such."""
    text = text.strip()
    if len(text) > LONGEST:
        return None
    for pattern in (_ENGLISH, _CHINESE):
        if (found := pattern.match(text)) is not None:
            wanted = next(group for group in found.groups() if group)
            wanted = re.sub(r"[?？吗呢]*\s*$", "", wanted).strip()
            if re.search(r"\w", wanted):
                # With the beginning of "find pictures of": the request is read again.
                return text if found.lastgroup == "e" else wanted
    return None
