"""A line in the words that British English speakers say: numbers, years, times, dates, units, abbreviations."""

from __future__ import annotations

import re
from collections.abc import Callable

from generators.voice import numbers

Found = re.Match[str]
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SIGN = r"(?<![\w.,)])(?P<sign>[-−+])?"
_MONTHS = "January February March April May June July August September October November December".split()
# singular, plural where that is not singular + s
_UNITS = {
    "B": "byte", "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte", "PB": "petabyte",
    "GiB": "gibibyte", "MiB": "mebibyte", "Mb": "megabit", "Gb": "gigabit", "Mbps": "megabit per second", "Gbps": "gigabit per second",
    "km": "kilometre", "m": "metre", "cm": "centimetre", "mm": "millimetre", "nm": "nanometre", "mi": "mile", "ft": "foot",
    "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "t": "tonne", "L": "litre", "l": "litre",
    "ml": "millilitre", "mL": "millilitre", "h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute", "s": "second",
    "sec": "second", "secs": "second", "ms": "millisecond", "µs": "microsecond", "ns": "nanosecond", "Hz": "hertz", "kHz": "kilohertz",
    "MHz": "megahertz", "GHz": "gigahertz", "W": "watt", "kW": "kilowatt", "MW": "megawatt", "kWh": "kilowatt hour", "V": "volt",
    "mAh": "milliampere hour", "°C": "degree Celsius", "°F": "degree Fahrenheit", "°": "degree", "px": "pixel", "m²": "square metre",
    "m2": "square metre", "km²": "square kilometre", "km2": "square kilometre", "m³": "cubic metre", "m3": "cubic metre",
    "kcal": "kilocalorie", "dB": "decibel", "mph": "mile per hour", "rpm": "revolution per minute", "fps": "frame per second",
    "K": "thousand", "k": "thousand", "bn": "billion", "x": "time", "token": "token", "tok": "token", "request": "request",
    "tokens": "token", "requests": "request",
}  # fmt: skip
_PLURALS = {"foot": "feet"} | {word: word for word in ("hertz", "kilohertz", "megahertz", "gigahertz", "thousand", "billion")}
_EACH = {
    "s": "second", "sec": "second", "h": "hour", "hr": "hour", "min": "minute", "day": "day", "month": "month", "year": "year",
    "kg": "kilogram", "m²": "square metre", "L": "litre", "m³": "cubic metre",
}  # fmt: skip
_MONEY = {"$": ("dollar", "cent"), "€": ("euro", "cent"), "£": ("pound", "penny"), "₺": ("lira", "kuruş")}
_ABBREVIATIONS = {
    "Dr.": "Doctor", "Mr.": "Mister", "Mrs.": "Missis", "Ms.": "Miz", "Prof.": "Professor", "Sr.": "Senior", "Jr.": "Junior",
    "Gen.": "General", "e.g.": "for example", "i.e.": "that is", "etc.": "et cetera", "vs.": "versus", "approx.": "approximately",
    "cf.": "compare", "No.": "number", "Fig.": "figure", "fig.": "figure", "Vol.": "volume", "pp.": "pages", "ca.": "about",
    "a.m.": "a m", "p.m.": "p m", "St.": "Saint", "Mt.": "Mount",
}  # fmt: skip
NO_END = frozenset(_ABBREVIATIONS) - {"etc.", "a.m.", "p.m.", "Sr.", "Jr."}
_WHOLE_PARTS = {2: "half", 4: "quarter"}
# A number of four digits behind these is a year.
_BEFORE_A_YEAR = "|".join(
    rf"(?<=\b{word})"
    for word in [
        *(f"{word} " for word in "in In since Since by By until from of year".split()),
        *(f"{m} " for m in _MONTHS),
        *(f"{m}, " for m in _MONTHS),
    ]
)


def words(line: str) -> str:
    """Digits, units and abbreviations of a line in words. Signs stay where `speakable` can say or drop them."""
    for pattern, say in _RULES:
        line = pattern.sub(say, line)
    return line


def ends_in_abbreviation(text: str, following: str) -> bool:
    """Whether the full stop at the end is that of an abbreviation which more must follow, or of an initial (J. Smith). following: the next
    word."""
    last = re.split(r"[\s(\"“]", text)[-1]
    goes_on = last in _ABBREVIATIONS and following[:1].islower()
    return last in NO_END or goes_on or re.fullmatch(r"[A-HJ-Z]\.", last) is not None


def is_ordinal(text: str, following: str) -> bool:
    """English writes 2nd."""
    return False


def _read(number: str) -> str:
    head, _, tail = number.replace(",", "").partition(".")
    return numbers.whole(head, "en") + (f" point {numbers.fraction(tail, 'en')}" if tail else "")


def _signed(found: Found) -> str:
    return {"-": "minus ", "−": "minus ", "+": "plus "}.get(found["sign"] or "", "")


def _abbreviation(found: Found) -> str:
    """Its full stop is the sentence's as well where nothing follows."""
    return _ABBREVIATIONS[found[1]] + _stop(found)


def _stop(found: Found) -> str:
    return "." if found[0].endswith(".") and found.end() == len(found.string.rstrip()) else ""


def _plain(found: Found) -> str:
    return _signed(found) + _read(found["number"])


def _percent(found: Found) -> str:
    return f"{_signed(found)}{_read(found['number'])} per cent"


def _year(found: Found) -> str:
    said = numbers.year(int(found["year"]))
    return re.sub("y$", "ies", said) if found["plural"] and said.endswith("y") else said + ("s" if found["plural"] else "")


def _decade(found: Found) -> str:
    return re.sub("y$", "ies", numbers.cardinal(int(found[1]), "en")) if found[1] != "10" else "tens"


def _time(found: Found) -> str:
    hour, minute = int(found["hour"]), int(found["minute"])
    half = " ".join(re.sub(r"\W", "", found["half"] or "").lower())
    said = numbers.cardinal(hour, "en")
    if minute:
        said += (" oh " if minute < 10 else " ") + numbers.cardinal(minute, "en")
    elif not half:
        said += " o'clock" if 0 < hour <= 12 else " hundred"
    if found["second"] and int(found["second"]):
        said += f" and {numbers.cardinal(int(found['second']), 'en')} seconds"
    return f"{said} {half}".strip() + _stop(found)


def _hour(found: Found) -> str:
    return f"{numbers.cardinal(int(found['hour']), 'en')} {' '.join(found['half'].lower())}"


def _date(found: Found) -> str:
    """Day before month, unless the numbers say otherwise."""
    day, month = int(found["day"]), int(found["month"])
    if month > 12 >= day:
        day, month = month, day
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return found[0]
    return f"the {numbers.ordinal(day, 'en')} of {_MONTHS[month - 1]} {numbers.year(int(found['year']))}"


def _named_date(found: Found) -> str:
    return f"the {numbers.ordinal(int(found['day']), 'en')} of {found['name']} {numbers.year(int(found['year']))}"


def _plural(word: str, number: str) -> str:
    head, _, rest = word.partition(" ")
    if number == "1":
        return word
    if rest and not rest.startswith(("per", "Celsius", "Fahrenheit")):
        return f"{head} {_plural(rest, number)}"
    return f"{_PLURALS.get(head, head if head in _PLURALS.values() else head + 's')} {rest}".strip()


def _measure(found: Found) -> str:
    said = f"{_signed(found)}{_read(found['number'])} {_plural(_UNITS[found['unit']], found['number'])}"
    return said + (f" per {_EACH[found['each']]}" if found["each"] else "")


def _bare_rate(found: Found) -> str:
    return f"{_plural(_UNITS[found['unit']], '2')} per {_EACH[found['each']]}"


def _money(found: Found) -> str:
    large, small = _MONEY[found["unit"]]
    head, _, tail = found["number"].partition(".")
    if found["more"]:
        return f"{_signed(found)}{_read(found['number'])} {found['more'].strip()} {_plural(large, '2')}"
    said = f"{_signed(found)}{_read(head)} {_plural(large, head) if large != 'lira' else large}"
    if len(tail) == 2 and int(tail):
        return (
            f"{said} {numbers.cardinal(int(tail), 'en')}"
            if large == "pound"
            else f"{said} and {numbers.cardinal(int(tail), 'en')} {_plural(small, '2')}"
        )
    return said if not tail.strip("0") else f"{_signed(found)}{_read(found['number'])} {_plural(large, '2')}"


def _part(found: Found) -> str:
    above, below = int(found["above"]), int(found["below"])
    if (above, below) == (24, 7):
        return "twenty-four seven"
    if not 0 < above < below <= 10:
        return f"{numbers.cardinal(above, 'en')} over {numbers.cardinal(below, 'en')}"
    name = _WHOLE_PARTS.get(below) or numbers.ordinal(below, "en")
    return f"one {name}" if above == 1 else f"{numbers.cardinal(above, 'en')} {name}s"


def _range(found: Found) -> str:
    return f"{_read(found['low'])} to {_read(found['high'])}"


def _ordinal(found: Found) -> str:
    return numbers.ordinal(int(found[1]), "en")


def _item(found: Found) -> str:
    return f"{numbers.ordinal(int(found[1]), 'en').capitalize()}, "


def _version(found: Found) -> str:
    return " point ".join(numbers.whole(part, "en") for part in found["number"].split("."))


def _alternatives(names: dict[str, str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


def _rule(pattern: str, say: Callable[[Found], str] | str) -> tuple[re.Pattern[str], Callable[[Found], str] | str]:
    return re.compile(pattern), say


_RULES = [
    _rule(r"^(\d{1,2})\) ", _item),
    _rule(rf"(?<![\w])({_alternatives(_ABBREVIATIONS)})", _abbreviation),
    _rule(r"(?<=\d)\s*[+]\s*(?=\d)", " plus "),
    _rule(r"(?<=\d)\s*[×x*·]\s*(?=\d)", " times "),
    _rule(r"(?<=\d)\s+[-−–]\s+(?=\d)", " minus "),
    _rule(r"(?<=\d)\s*÷\s*(?=\d)|(?<=\d)\s+/\s+(?=\d)", " divided by "),
    _rule(r"(?<=\d)\s*\^\s*(?=\d)", " to the power of "),
    _rule(r"\b(?P<day>\d{1,2})[./](?P<month>\d{1,2})[./](?P<year>\d{4})(?!\d)", _date),
    _rule(r"\b(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?!\d)", _date),
    _rule(rf"\b(?P<name>{'|'.join(_MONTHS)}) (?P<day>\d{{1,2}}),? (?P<year>\d{{4}})\b", _named_date),
    _rule(rf"\b(?P<day>\d{{1,2}}) (?P<name>{'|'.join(_MONTHS)}),? (?P<year>\d{{4}})\b", _named_date),
    _rule(r"\b(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?![\d:])(?:\s?(?P<half>[ap]\.?m\b\.?|[AP]M\b))?", _time),
    _rule(r"\b(?P<hour>1[0-2]|[1-9])\s?(?P<half>am|pm|AM|PM)\b", _hour),
    _rule(rf"{_SIGN}(?P<number>{_NUMBER})\s?%", _percent),
    _rule(rf"{_SIGN}(?P<unit>[$€£₺])\s?(?P<number>{_NUMBER})(?P<more>\s(?:thousand|million|billion))?", _money),
    _rule(r"\b(\d{1,4})(?:st|nd|rd|th)\b", _ordinal),
    _rule(r"(?<![\w'’])['’]?([1-9]0)s\b", _decade),
    _rule(r"\b(?P<year>1[1-9]\d0|20\d0)(?P<plural>s)\b", _year),
    _rule(r"\b(?P<year>19\d\d|20\d\d)(?P<plural>)(?=['’]s\b)", _year),
    _rule(rf"(?:{_BEFORE_A_YEAR})(?P<year>1[1-9]\d\d|20\d\d)(?P<plural>)(?![\w%]|[.,:]\d| ?(?:{_alternatives(_UNITS)})\b)", _year),
    _rule(rf"{_SIGN}(?P<number>{_NUMBER})\s?(?P<unit>{_alternatives(_UNITS)})(?:\s?/\s?(?P<each>{_alternatives(_EACH)}))?(?![\w²³])", _measure),
    _rule(r"(?<!\w)(?P<unit>km|m|MB|GB|kB)/(?P<each>s|h|min)(?![\w²³])", _bare_rate),
    _rule(r"(?<![\w.,/])(?P<above>\d{1,3})/(?P<below>\d{1,3})(?![\d/])", _part),
    _rule(r"(?<![\w.,-])(?P<low>\d+(?:\.\d+)?)\s?[-–]\s?(?P<high>\d+(?:\.\d+)?)(?![\w.,-]\d)", _range),
    _rule(r"(?<![\w,])(?P<number>\d+(?:\.\d+){2,})(?![\d,])", _version),
    _rule(r"(?<=[^\W\d_])[-_]?(?=\d)|(?<=\d)[-_](?=[^\W\d_])", " "),
    _rule(rf"{_SIGN}(?P<number>{_NUMBER})", _plain),
    _rule(r"(?<=\w)/(?=\w)", " "),
]  # fmt: skip
