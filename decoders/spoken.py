"""English text -> English words as people say them.

The voices' own grapheme-to-phoneme (hibari's) already reads plain numbers, times, ISO and US dates,
money with the sign in front, most units after a number, titles, degrees and local phone numbers.
What it reads wrongly or not at all is put into words here; nothing that it does well is repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from decoders.words import words

_N = r"\d+(?:,\d{3})*(?:\.\d+)?"
_MONTHS = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
_DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
_MONEY = {
    "€": ("euro", "euros"), "£": ("pound", "pounds"), "$": ("dollar", "dollars"),
    "¥": ("yen", "yen"), "₹": ("rupee", "rupees"), "USD": ("dollar", "dollars"),
    "EUR": ("euro", "euros"), "GBP": ("pound", "pounds"), "JPY": ("yen", "yen"),
    "CNY": ("yuan", "yuan"), "RMB": ("yuan", "yuan"), "CHF": ("franc", "francs"),
}  # fmt: skip
_UNITS = {
    "m": ("meter", "meters"), "g": ("gram", "grams"), "L": ("liter", "liters"),
    "l": ("liter", "liters"), "mL": ("milliliter", "milliliters"), "t": ("ton", "tons"),
    "W": ("watt", "watts"), "V": ("volt", "volts"), "J": ("joule", "joules"),
    "kJ": ("kilojoule", "kilojoules"), "N": ("newton", "newtons"), "Pa": ("pascal", "pascals"),
    "hPa": ("hectopascal", "hectopascals"), "kPa": ("kilopascal", "kilopascals"),
    "dB": ("decibel", "decibels"), "ha": ("hectare", "hectares"), "px": ("pixel", "pixels"),
    "kcal": ("kilocalorie", "kilocalories"), "cal": ("calorie", "calories"),
    "rpm": ("revolution per minute", "revolutions per minute"), "yrs": ("years", "years"),
    "h": ("hour", "hours"), "s": ("second", "seconds"), "Mb": ("megabit", "megabits"),
    "°K": ("kelvin", "kelvins"), "in": ("inch", "inches"), "kph": ("kilometer per hour",
    "kilometers per hour"),
}  # fmt: skip
_LENGTHS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "mi": "mile",
    "ft": "foot", "in": "inch", "yd": "yard",
}  # fmt: skip
_PER = {"s": "second", "h": "hour", "hr": "hour", "min": "minute", "day": "day",
        "m³": "cubic meter", "L": "liter",
        "l": "liter", "kg": "kilogram", "person": "person"}  # fmt: skip
_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_KINGS = words(
    "Henry Louis Edward George William Charles James Richard Elizabeth Napoleon Pius Benedict "
    "Leo Paul Ramses Frederick Philip Alexander Nicholas Peter Catherine Ivan Victor Emmanuel "
    "Gustav Christian Ferdinand Mary Francis Otto Wilhelm Rudolf Felipe Carlos Juan Umberto "
    "Margaret Gregory Urban Clement Innocent Xerxes Darius Ptolemy Amenhotep Thutmose "
    "Cleopatra Mehmed Murad Olaf "
)
# hibari takes any word that begins with I, V, X, L or C after these for a Roman numeral: "King
# Louis" becomes "King the zeroth Louis", "the book I read" becomes "the book 1 read".
_NUMBERED = (
    words(
        "Chapter Part Act Scene Section Volume Book Phase Article Mark Type Level Stage Class "
        "Grade Apollo Gemini Episode Round Rocky Pope King Queen John chapter part section volume "
        "book phase article type level stage class grade round "
    )
    | _KINGS
)
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_FRACTIONS = {
    "½": "a half", "⅓": "a third", "⅔": "two thirds", "¼": "a quarter", "¾": "three quarters",
    "⅕": "a fifth", "⅛": "an eighth", "⅜": "three eighths", "⅝": "five eighths",
    "⅞": "seven eighths",
}  # fmt: skip
_ORDINALS = ["half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
_GREEK = {"α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "Δ": "delta", "θ": "theta",
          "λ": "lambda", "μ": "mu", "σ": "sigma", "Σ": "sigma", "φ": "phi", "ω": "omega",
          "Ω": "omega", "∞": "infinity"}  # fmt: skip

_Rule = tuple[re.Pattern[str], "str | Callable[[re.Match[str]], str]"]


def spoken_english(text: str) -> str:
    """Put what hibari's grapheme-to-phoneme misreads in ``text`` into words."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return re.sub(r"\s+", " ", text).strip()


def _amount(number: str, words: tuple[str, str]) -> str:
    return f"{number} {words[number.lstrip('-') not in ('1', '1.0')]}"


def _digits(text: str) -> str:
    return " ".join(c for c in text if c.isdigit())


def _phone(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    plus = "plus " if match[0].lstrip(" (").startswith("+") else ""
    return plus + ", ".join(_digits(g) for g in groups)


def _email(match: re.Match[str]) -> str:
    user = match[1].replace(".", " dot ").replace("_", " underscore ").replace("-", " dash ")
    user = user.replace("+", " plus ")
    return f"{user} at {match[2].replace('.', ' dot ').replace('-', ' dash ')}"


def _url(match: re.Match[str]) -> str:
    address = re.sub(r"^(?:https?://)?(?:www\.)?", "", match[0], flags=re.I)
    address = address.split("?")[0].split("#")[0].rstrip("/")
    tail = match[0][len(match[0].rstrip(".,;:!?")) :]
    address = address.rstrip(".,;:!?")
    for sign, word in ((".", " dot "), ("/", " slash "), ("-", " dash "), ("_", " underscore ")):
        address = address.replace(sign, word)
    return address + tail


def _roman(match: re.Match[str]) -> str:
    if match[2] == "I" and match[3]:  # "George I am sure"
        return match[0]
    return f"{match[1]} the {_ordinal(_roman_value(match[2]))}{match[3]}"


def _roman_value(numeral: str) -> int:
    values = [_ROMAN[c] for c in numeral]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))


def _ordinal(n: int) -> str:
    ending = "th" if n % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def _shield_word(match: re.Match[str]) -> str:
    word = match[2]
    if re.fullmatch(
        r"(?=[IVXLC])M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})", word
    ):
        # A lone capital I before another word is the pronoun.
        if word == "I" and match[1].islower() and match[3]:
            return f"{match[1]} [I](/ˌI/){match[3]}"
        return match[0]
    return f"{match[1]} {word[0].lower()}{word[1:]}{match[3]}"


def _european_date(match: re.Match[str]) -> str:
    day, month = int(match[1]), int(match[2])
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return match[0]
    return f"{_MONTHS[month - 1]} {day}, {match[3]}"


def _clock(match: re.Match[str]) -> str:
    names = ("hour", "minute", "second")
    parts = [(int(match[i + 1]), name) for i, name in enumerate(names)]
    return ", ".join(f"{n} {name}{'' if n == 1 else 's'}" for n, name in parts if n) or match[0]


def _mixed(match: re.Match[str]) -> str:
    above, below = int(match[2]), int(match[3])
    if not 0 < above < below <= 10:
        return match[0]
    part = _ORDINALS[below - 2]
    if above == 1:
        return f"{match[1]} and {'an' if part == 'eighth' else 'a'} {part}"
    return f"{match[1]} and {above} {part}s"


def _per(match: re.Match[str]) -> str:
    unit = (
        _LENGTHS.get(match[2])
        or {
            "g": "gram",
            "kg": "kilogram",
            "mg": "milligram",
            "L": "liter",
            "MB": "megabyte",
            "GB": "gigabyte",
            "kB": "kilobyte",
        }[match[2]]
    )
    plural = "feet" if unit == "foot" else "inches" if unit == "inch" else unit + "s"
    ending = {"²": " squared", "2": " squared", "³": " cubed"}.get(match[4] or "", "")
    return f"{_amount(match[1], (unit, plural))} per {_PER[match[3]]}{ending}"


def _area(match: re.Match[str]) -> str:
    unit = _LENGTHS[match[2]]
    plural = "feet" if unit == "foot" else "inches" if unit == "inch" else unit + "s"
    kind = "square" if match[3] in "²2" else "cubic"
    return _amount(match[1], (f"{kind} {unit}", f"{kind} {plural}"))


def _formula(match: re.Match[str]) -> str:
    return " ".join(re.findall(r"[A-Z][a-z]?|\d+", match[0].translate(_SUBSCRIPTS)))


_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")


def _rules() -> list[_Rule]:
    units = "|".join(
        sorted(map(re.escape, (u for u in _UNITS if u not in ("in", "s"))), key=len, reverse=True)
    )
    codes = "|".join(c for c in _MONEY if c.isalpha())
    lengths = "|".join(sorted(_LENGTHS, key=len, reverse=True))
    pers = "|".join(sorted(map(re.escape, _PER), key=len, reverse=True))
    masses = f"{lengths}|mg|kg|g|L|MB|GB|kB"
    days = "|".join(sorted(_DAYS, key=len, reverse=True))
    table: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
        # addresses before anything touches their signs
        (r"\b([\w.+-]+)@([\w-]+(?:\.[\w-]+)+)", _email),
        (r"(?i)\b(?:https?://|www\.)[^\s)]+", _url),
        (
            r"(?i)(?<![\w.@])(?:[a-z][\w-]*\.)+(?:com|org|net|edu|gov|io|dev|ai|app|co\.uk|de|fr|es|it)"
            r"\b(?:/[\w./-]*)?",
            _url,
        ),
        # LaTeX that models write
        (r"\\[()\[\]]|\$\$", " "),
        (r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"\1 over \2"),
        (r"\\sqrt\{([^{}]*)\}", r"the square root of \1"),
        (r"\\(?:times|cdot)\b", " times "),
        (r"\\([a-zA-Z]+)", r" \1 "),
        # abbreviations
        (r"\be\.\s?g\.,?", "for example,"),
        (r"\bi\.\s?e\.,?", "that is,"),
        (r"\betc\.(?=\s+[a-z]|[,;:)])", "et cetera"),
        (r"\bvs\.?(?=\s)", "versus"),
        (r"\b(?:c|ca)\.\s?(?=\d)", "around "),
        (r"\bNo\.\s?(?=\d)", "number "),
        (r"\bpp?\.\s?(?=\d)", "page "),
        (r"(?<!\w)w/o(?!\w)", "without"),
        (rf"\b({days})\.?\s?[-–]\s?({days})\b\.?", lambda m: f"{_DAYS[m[1]]} to {_DAYS[m[2]]}"),
        (r"\b(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.(?=\s\d)", r"\1"),
        (r"(?<![\w.])([A-Z])\.\s(?=[A-Z]\.\s|[A-Z][a-z])", r"\1 "),
        # hibari expands these even where they end a sentence: "I said number"
        (r"\b(no|ed|ch|est|fig|vol|Sun|Mar|Sat)\.(?!\s?\d)", r"\1 ."),
        # Roman numerals of rulers, then the words that only look like some
        (
            rf"\b({'|'.join(sorted(_KINGS))}) "
            r"((?=[IVX]+\b)X{0,3}(?:IX|IV|V?I{0,3}))\b(?!['’.]\w)"
            r"(\s+(?:am|have|had|will|think|know|want|like|saw|met)\b|)",
            _roman,
        ),
        (rf"\b({'|'.join(sorted(_NUMBERED))}) ([IVXLC][\w'’]*)(\s+[a-z]|)", _shield_word),
        # numbers with structure
        (
            r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)",
            lambda m: " dot ".join(_digits(g) for g in m[0].split(".")),
        ),
        (r"\b(\d{1,2})\.(\d{1,2})\.(\d{4})\b", _european_date),
        (r"\b[vV](?:ersion )?(?=\d+\.\d)", "version "),
        (r"(?<![\w.])(\d+)\.(\d+)\.(\d+)(?![\w.]*\d)", r"\1 point \2 point \3"),
        (r"\b(\d{1,2}):(\d{2}):(\d{2})\b", _clock),
        (
            r"(?<![\w:.])(\d{1,2}):(\d)(?![\d:])|(?<![\w:.])(16|21|32):(9|10)(?![\d:])",
            lambda m: f"{m[1] or m[3]} to {m[2] or m[4]}",
        ),
        (r"(?<![\w.])\+\d{1,3}[ .-]?\(?\d{1,4}\)?(?:[ .-]?\d{2,4}){2,4}\b", _phone),
        (r"(?<![\w.])\(\d{3}\)\s?\d{3}[-. ]\d{4}\b", _phone),
        (r"(?<![\w.])\d{3}\.\d{3}\.\d{4}\b", _phone),
        (
            r"(?<![\w.,$€£-])\d{9,}(?![\w.,]*\d)|(?<![\w.,$€£:-])0\d+(?![\w.,:/]*\d)",
            lambda m: _digits(m[0]),
        ),
        (
            r"(?i)\b((?:zip|postal|area|pin|access|dial|security)(?: code)?(?: is|:)?) (\d{3,6})\b",
            lambda m: f"{m[1]} {_digits(m[2])}",
        ),
        (r"(?<!\w)24/7\b", "twenty four seven"),
        (r"(?<![\w/.])(\d+) (\d)/(\d{1,2})(?![\w/])", _mixed),
        (rf"(\d)\s?([{''.join(_FRACTIONS)}])", lambda m: f"{m[1]} and {_FRACTIONS[m[2]]}"),
        (rf"[{''.join(c for c in _FRACTIONS if c not in '½¼¾')}]", lambda m: _FRACTIONS[m[0]]),
        (
            r"(?<![\w.])(\d+(?:\.\d+)?)[eE]([+-]?)(\d+)\b",
            lambda m: f"{m[1]} times 10 to the power of {'minus ' if m[2] == '-' else ''}{m[3]}",
        ),
        (
            r"(\d)([⁰¹⁴⁵⁶⁷⁸⁹⁻⁺][⁰¹²³⁴⁵⁶⁷⁸⁹]*|[²³][⁰¹²³⁴⁵⁶⁷⁸⁹]+)",
            lambda m: (
                f"{m[1]} to the power of {m[2].translate(_SUPERSCRIPTS).replace('-', 'minus ')}"
            ),
        ),
        (r"(?<=\w)\*\*(?=\w)", "^"),
        (r"\^\{?-(\d+)\}?", r" to the power of minus \1"),
        (r"\^\{?2\}?(?![\d.])", " squared"),
        (r"\^\{?3\}?(?![\d.])", " cubed"),
        # money
        (
            rf"([$€£])({_N})\s?[-–]\s?\1?({_N})(?![\d%])",
            lambda m: f"{m[2]} to {_amount(m[3], _MONEY[m[1]])}",
        ),
        (rf"(?<![\w.])[-−]([$€£]{_N})", r"minus \1"),
        (rf"(?<![\w.])({_N})\s?([€£¥₹])", lambda m: _amount(m[1], _MONEY[m[2]])),
        (
            rf"(?<![\w.])({_N}(?: (?:thousand|million|billion|trillion))?) ({codes})\b",
            lambda m: _amount(m[1], _MONEY[m[2]]),
        ),
        # units that hibari does not know
        (r"(?<!\w)(\d{1,2})['′](\d{1,2})(?:[\"″]|'')", r"\1 foot \2"),
        (rf"(?<![\w.])(-?{_N})\s?({masses})/({pers})([²2³]?)(?![\w²])", _per),
        (rf"(?<![\w.])(-?{_N})\s?({lengths})([²2³3])(?!\w)", _area),
        (
            rf"(?<![\w.$€£])(-?{_N})\s?({units}|(?<=\s)s)(?![\w'’/²³&+])",
            lambda m: _amount(m[1], _UNITS[m[2]]),
        ),
        (
            rf"(?<![\w.])({_N}) in(?=[.,;)]|$| (?:tall|long|wide|deep|thick|high)\b)",
            lambda m: _amount(m[1], _UNITS["in"]),
        ),
        (rf"({_N})\s?[-–]\s?({_N})\s?%", r"\1 to \2%"),
        (rf"(?<![\w.])({_N})[xX](?!\w|\s*[-+=*/^×)])", r"\1 times"),
        # mathematics
        (r"<=>|⇔", " if and only if "),
        (r"[-=]>|⇒|⟶", " to "),
        (r"[!≠]=|≠", " is not equal to "),
        (r"<=|≤", " is less than or equal to "),
        (r">=|≥", " is greater than or equal to "),
        (r"==", " = "),
        (r"≈|≃", " is about "),
        (r"(?<=[\w)]) < (?=[\w(-])", " is less than "),
        (r"(?<=[\w)]) > (?=[\w(-])", " is greater than "),
        (r"~\s?(?=\d)", "about "),
        (r"(?:√|\bsqrt)\s?\(([^()]*)\)", r"the square root of \1"),
        (r"√\s?(?=\w)", "the square root of "),
        (r"(?<=[\w)])\s?[×·*]\s?(?=[\w(])|(?<=\d) x (?=\d)", " times "),
        (r"(?<=[\d)]) ?÷ ?(?=[\d(])|(?<=[\d)]) / (?=[\d(])", " divided by "),
        (
            r"(?<=[\w)]) − (?=[\w(])|(?<=[\d)]) [-–] (?=\d[\d., ]*(?:=|equals|is))"
            r"|(?<=\b[a-z]) - (?=\w)",
            " minus ",
        ),
        (r"(?<![\w)])−(?=\d)", "minus "),
        (r"(?<=[\w)])\s?\+\s?(?=[\w(])(?<!C\+)", " plus "),
        (r"\b([CFG])#(?!\w)", r"\1 sharp"),
        (r"‰", " per mille"),
        (rf"[{''.join(_GREEK)}]", lambda m: f" {_GREEK[m[0]]} "),
        (r"\b(?=[A-Z₀-₉\d]*[\d₀-₉])(?:[CHONSPF][\d₀-₉]{0,2}){2,6}\b|\b[CHONSPF][₀-₉]+", _formula),
    ]
    return [(re.compile(pattern), replacement) for pattern, replacement in table]


_RULES = _rules()
