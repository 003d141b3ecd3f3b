"""Numbers in words, as Turkish and British English speakers say them. `language` is `tr` or `en` throughout."""

from __future__ import annotations

_UNITS = {
    "tr": "sıfır bir iki üç dört beş altı yedi sekiz dokuz on".split(),
    "en": (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
    ).split(),
}
_TENS = {
    "tr": "- on yirmi otuz kırk elli altmış yetmiş seksen doksan".split(),
    "en": "- ten twenty thirty forty fifty sixty seventy eighty ninety".split(),
}
_POWERS = {"tr": ["", "bin", "milyon", "milyar", "trilyon"], "en": ["", "thousand", "million", "billion", "trillion"]}
_LONGEST = 15  # digits that are said as one number; what is longer is no amount
TURKISH_ORDINALS = dict(
    zip(
        "sıfır bir iki üç dört beş altı yedi sekiz dokuz on yirmi otuz kırk elli altmış yetmiş seksen doksan yüz bin milyon milyar trilyon".split(),
        "sıfırıncı birinci ikinci üçüncü dördüncü beşinci altıncı yedinci sekizinci dokuzuncu onuncu yirminci otuzuncu kırkıncı ellinci altmışıncı "
        "yetmişinci sekseninci doksanıncı yüzüncü bininci milyonuncu milyarıncı trilyonuncu".split(),
        strict=True,
    )
)
_ENGLISH_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def whole(digits: str, language: str) -> str:
    """Of digits without separators. Very long ones, and those that begin with a 0 (telephone numbers, codes), are said digit by digit; in
    Turkish 0532 is zero and a number."""
    rest = digits.lstrip("0")
    if language == "tr" and rest and rest != digits and len(rest) <= 3:
        return " ".join([*["sıfır"] * (len(digits) - len(rest)), cardinal(int(rest), language)])
    if (digits.startswith("0") and len(digits) > 1) or len(digits) > _LONGEST:
        return each(digits, language)
    return cardinal(int(digits), language)


def each(digits: str, language: str) -> str:
    return " ".join(_UNITS[language][int(digit)] for digit in digits)


def cardinal(number: int, language: str) -> str:
    """number: below 10^15, and not below 0."""
    if number == 0:
        return _UNITS[language][0]
    groups = []
    for power in reversed(range(5)):
        group = number // 1000**power % 1000
        if group:
            groups.append((group, power))
    words = []
    for group, power in groups:
        if language == "tr" and group == 1 and power == 1:
            words.append("bin")
        elif language == "en" and power == 0 and group < 100 and len(groups) > 1:
            words.append(f"and {_below_thousand(group, language)}")
        else:
            words.append(f"{_below_thousand(group, language)} {_POWERS[language][power]}".rstrip())
    return " ".join(words)


def _below_thousand(number: int, language: str) -> str:
    hundreds, rest = divmod(number, 100)
    if language == "tr":
        words = [*(["yüz"] if hundreds == 1 else [_UNITS["tr"][hundreds], "yüz"] if hundreds else []), _below_hundred(rest, language)]
        return " ".join(filter(None, words))
    words = [f"{_UNITS['en'][hundreds]} hundred"] if hundreds else []
    return " and ".join([*words, _below_hundred(rest, language)] if rest else words)


def _below_hundred(number: int, language: str) -> str:
    """Empty for 0."""
    if number == 0:
        return ""
    if number < len(_UNITS[language]):
        return _UNITS[language][number]
    tens, units = divmod(number, 10)
    words = [_TENS[language][tens], *([_UNITS[language][units]] if units else [])]
    return (" " if language == "tr" else "-").join(words)


def ordinal(number: int, language: str) -> str:
    """`ikinci`, `twenty-first`."""
    words = cardinal(number, language)
    if language == "tr":
        head, _, last = words.rpartition(" ")
        return f"{head} {TURKISH_ORDINALS[last]}".strip()
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    last = words[cut:]
    return words[:cut] + _ENGLISH_ORDINALS.get(last, last[:-1] + "ieth" if last.endswith("y") else last + "th")


def fraction(digits: str, language: str) -> str:
    """What follows a decimal sign. Turkish says it as a number, English and what is longer than three digits digit by digit."""
    kept = digits.lstrip("0")
    if language == "en" or len(digits) > 3 or not kept:
        return each(digits, language)
    zeros = ["sıfır"] * (len(digits) - len(kept))
    return " ".join([*zeros, cardinal(int(kept), language)])


def year(number: int) -> str:
    """English: `nineteen twenty-three`, `two thousand and five`, `twenty twenty-four`. number: of four digits."""
    century, rest = divmod(number, 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(number, "en")
    tail = "hundred" if rest == 0 else f"oh {_UNITS['en'][rest]}" if rest < 10 else _below_hundred(rest, "en")
    return f"{_below_hundred(century, 'en')} {tail}"


def roman(letters: str) -> int:
    """0 for what is no Roman numeral below 40."""
    ones = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]
    return next((10 * tens + units for tens in range(4) for units in range(10) if "X" * tens + ones[units] == letters), 0)
