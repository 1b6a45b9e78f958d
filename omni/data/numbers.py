"""Numbers as they are written and as they are said, in English."""

from __future__ import annotations

from random import Random

_SMALL = (
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = (
    "zero",
    "ten",
    "twenty",
    "thirty",
    "forty",
    "fifty",
    "sixty",
    "seventy",
    "eighty",
    "ninety",
)
_ORDINALS = {
    "one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth",
    "nine": "ninth", "twelve": "twelfth",
}  # fmt: skip
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)

Form = tuple[str, str]
"""Something as it is written, and as it is said."""


def cardinal(number: int) -> str:
    """``number`` from 0 to 999,999 in words."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")
    if number < 1000:
        tail = f" and {cardinal(number % 100)}" if number % 100 else ""
        return f"{_SMALL[number // 100]} hundred{tail}"
    thousands, rest = divmod(number, 1000)
    join = " and " if 0 < rest < 100 else " "
    return f"{cardinal(thousands)} thousand" + (f"{join}{cardinal(rest)}" if rest else "")


def ordinal(number: int) -> Form:
    """21st, twenty-first."""
    head, dash, last = cardinal(number).rpartition("-")
    if not dash:
        head, dash, last = cardinal(number).rpartition(" ")
    last = _ORDINALS.get(last) or (last[:-1] + "ieth" if last.endswith("y") else last + "th")
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}", head + dash + last


def year(number: int) -> Form:
    """1984, nineteen eighty-four."""
    head, rest = divmod(number, 100)
    if number % 1000 < 10:
        said = cardinal(number)
    elif rest == 0:
        said = f"{cardinal(head)} hundred"
    elif rest < 10:
        said = f"{cardinal(head)} oh {cardinal(rest)}"
    else:
        said = f"{cardinal(head)} {cardinal(rest)}"
    return str(number), said


def clock(hour: int, minute: int) -> Form:
    """7:05, seven oh five."""
    if minute == 0:
        return f"{hour} o'clock", f"{cardinal(hour)} o'clock"
    said = f"oh {cardinal(minute)}" if minute < 10 else cardinal(minute)
    return f"{hour}:{minute:02}", f"{cardinal(hour)} {said}"


def number(random: Random) -> Form:
    """Some number, small ones more often."""
    top = random.choice((12, 20, 100, 100, 1000, 10_000, 100_000))
    value = random.randrange(top)
    written = f"{value:,}" if value >= 10_000 else str(value)
    return written, cardinal(value)


def decimal(random: Random) -> Form:
    """Some number with one or two places."""
    whole, places = random.randrange(100), random.randint(1, 2)
    digits = "".join(random.choice("0123456789") for _ in range(places - 1))
    digits += random.choice("123456789")
    said = " ".join(cardinal(int(d)) for d in digits)
    return f"{whole}.{digits}", f"{cardinal(whole)} point {said}"


def date(random: Random) -> Form:
    """Some day of a year."""
    month, day = random.choice(MONTHS), ordinal(random.randint(1, 28))
    when = year(random.randint(1500, 2040))
    if random.random() < 0.5:
        return f"{month} {day[0]}", f"{month} {day[1]}"
    return f"{month} {day[0]}, {when[0]}", f"{month} {day[1]}, {when[1]}"


def money(random: Random) -> Form:
    """Some amount of dollars."""
    whole, cents = random.randint(2, 500), random.choice((0, 0, 50, 99, 25))
    said = f"{cardinal(whole)} dollars" + (f" and {cardinal(cents)} cents" if cents else "")
    return f"${whole}" + (f".{cents:02}" if cents else ""), said
