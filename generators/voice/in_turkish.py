"""A line in the words that Turkish speakers say: numbers with their suffixes, times, dates, units, abbreviations, foreign terms.

Numbers, "yüzde" and suffixes follow the spelling guide of the Turkish Language Association; 3,5 is "üç buçuk" unless its suffix was
written for "virgül beş". km/s is kilometres an hour, as on Turkish roads, and only from 3000 on kilometres a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from generators.turkish_suffixes import (
    ENGLISH_ABBREVIATIONS,
    FOREIGN,
    THIN,
    WORD_ABBREVIATIONS,
    tr_capital,
    tr_locative,
    tr_lower,
    tr_possessive,
)
from generators.voice import numbers

Found = re.Match[str]
_SUFFIX = r"(?:['’](?P<suffix>[a-zçğıöşü]+))?"
_NUMBER = r"\d{1,3}(?:\.\d{3})+(?:,\d+)?(?!\d)|\d+\.\d+|\d+(?:,\d+)?"
_SIGN = r"(?<![\w.,)])(?P<sign>[-−+])?"
_VOWELS = "aeıioöuü"
_MONTHS = "Ocak Şubat Mart Nisan Mayıs Haziran Temmuz Ağustos Eylül Ekim Kasım Aralık".split()
_UNITS = {
    "B": "bayt", "kB": "kilobayt", "KB": "kilobayt", "MB": "megabayt", "GB": "gigabayt", "TB": "terabayt", "PB": "petabayt",
    "GiB": "gibibayt", "MiB": "mebibayt", "Mb": "megabit", "Gb": "gigabit", "Mbps": "megabit", "Gbps": "gigabit", "kbps": "kilobit",
    "Mbit": "megabit", "km": "kilometre", "m": "metre", "cm": "santimetre", "mm": "milimetre", "nm": "nanometre", "µm": "mikrometre",
    "kg": "kilogram", "g": "gram", "gr": "gram", "mg": "miligram", "t": "ton", "L": "litre", "l": "litre", "ml": "mililitre",
    "mL": "mililitre", "cl": "santilitre", "sa": "saat", "dk": "dakika", "sn": "saniye", "s": "saniye", "ms": "milisaniye",
    "µs": "mikrosaniye", "ns": "nanosaniye", "h": "saat", "Hz": "hertz", "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz",
    "W": "vat", "kW": "kilovat", "MW": "megavat", "kWh": "kilovatsaat", "V": "volt", "mAh": "miliampersaat", "mA": "miliamper",
    "°C": "derece", "°F": "derece fahrenhayt", "°": "derece", "px": "piksel", "m²": "metrekare", "m2": "metrekare",
    "km²": "kilometrekare", "km2": "kilometrekare", "cm²": "santimetrekare", "m³": "metreküp", "m3": "metreküp", "cm³": "santimetreküp",
    "ha": "hektar", "kcal": "kilokalori", "cal": "kalori", "dB": "desibel", "bar": "bar", "K": "bin", "TL": "lira", "₺": "lira",
    "$": "dolar", "USD": "dolar", "€": "avro", "EUR": "avro", "£": "sterlin", "x": "kat", "fps": "kare", "rpm": "devir", "token": "token",
    "tok": "token", "istek": "istek", "sorgu": "sorgu",
}  # fmt: skip
# What stands below the stroke, as it is said first: saniyede beş metre.
_EACH = {
    "s": "saniyede", "sn": "saniyede", "sec": "saniyede", "sa": "saatte", "h": "saatte", "saat": "saatte", "saniye": "saniyede",
    "dk": "dakikada", "min": "dakikada", "dakika": "dakikada", "gün": "günde", "ay": "ayda", "yıl": "yılda", "kg": "kilogramda",
    "m²": "metrekarede", "L": "litrede", "m3": "metreküpte", "m³": "metreküpte",
}  # fmt: skip
_RATES_IN_ONE = {"Mbps": "saniyede", "Gbps": "saniyede", "kbps": "saniyede", "fps": "saniyede", "rpm": "dakikada"}
_LIGHT = 3000  # km/s: nothing that is told in hours goes faster
_ABBREVIATIONS = {
    "Dr.": "doktor", "Prof.": "profesör", "Doç.": "doçent", "Av.": "avukat", "Öğr.": "öğretim", "Yrd.": "yardımcı", "Arş.": "araştırma",
    "Gör.": "görevlisi", "Hz.": "Hazreti", "Alb.": "albay", "Org.": "orgeneral", "Cad.": "caddesi", "Sok.": "sokak", "Sk.": "sokak",
    "Mah.": "mahallesi", "Mh.": "mahallesi", "Apt.": "apartmanı", "Blv.": "bulvarı", "Şti.": "şirketi", "Ltd.": "limitet",
    "vb.": "ve benzeri", "vs.": "vesaire", "vd.": "ve diğerleri", "örn.": "örneğin", "ör.": "örneğin", "Örn.": "örneğin",
    "bkz.": "bakınız", "Bkz.": "bakınız", "krş.": "karşılaştırınız", "yak.": "yaklaşık", "yy.": "yüzyıl", "No.": "numara",
    "no.": "numara", "Tel.": "telefon", "tel.": "telefon", "dk.": "dakika", "sn.": "saniye", "sf.": "sayfa", "A.Ş.": "anonim şirketi",
    "M.Ö.": "milattan önce", "M.S.": "milattan sonra", "T.C.": "Türkiye Cumhuriyeti", "çev.": "çeviren", "ed.": "editör",
}  # fmt: skip
# Behind these no sentence ends, whatever follows; behind vb. and vs. one may.
NO_END = frozenset(_ABBREVIATIONS) - {
    "vb.",
    "vs.",
    "vd.",
    "A.Ş.",
    "Şti.",
    "dk.",
    "sn.",
    "yy.",
    "Apt.",
    "Cad.",
    "Sok.",
    "Sk.",
    "Mah.",
    "Mh.",
    "Blv.",
    "Ltd.",
}
_WORDS_FOR = {"MÖ": "milattan önce", "MS": "milattan sonra", "TL": "lira", "TC": "Türkiye Cumhuriyeti", "vb": "ve benzeri", "vs": "vesaire"}
# Capitals after "2." that do not begin a sentence.
ORDINAL_NAMES = (
    "Dünya", "Lig", "Cadde", "Sokak", "Ordu", "Kolordu", "Murat", "Murad", "Mehmet", "Mehmed", "Selim", "Mahmut", "Mahmud", "Ahmet",
    "Abdülhamit", "Abdülhamid", "Osman", "Bayezid", "Mustafa", "Süleyman", "Louis", "Henry", "Wilhelm", "Elizabeth", "Ramses", "Yüzyıl",
    "Meşrutiyet", "Köprü", "Cumhuriyet",
)  # fmt: skip
_LETTERS = dict(
    zip(
        "ABCÇDEFGĞHIİJKLMNOÖPQRSŞTUÜVWXYZ",
        "a be ce çe de e fe ge ge he i i je ke le me ne o ö pe kü re se şe te u ü ve ve iks ye ze".split(),
        strict=True,
    )
)
_ENGLISH_LETTERS = dict(
    zip(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        "ey bi si di i ef ci eyç ay cey key el em en o pi kyu ar es ti yu vi dabılyu eks vay zed".split(),
        strict=True,
    )
)
# Read letter by letter though they have a vowel to be read as a word by.
_SPELT = frozenset("API ABD AB AKP TBMM GPU CPU CLI GUI UI UX IP ID IDE IT USB URL URI UTF ORM SEO AKM AÖF".split())


def words(line: str) -> str:
    """Digits, units, abbreviations and foreign terms of a line in words. Signs stay where `speakable` can say or drop them."""
    for pattern, say in _RULES:
        line = pattern.sub(say, line)
    return line


def ends_in_abbreviation(text: str, following: str) -> bool:
    """Whether the full stop at the end is that of an abbreviation which more must follow, or of an initial (M. Kemal). following: the next
    word."""
    last = re.split(r"[\s(\"“'’]", text)[-1]
    goes_on = last in _ABBREVIATIONS and following[:1].islower()
    return last in NO_END or goes_on or re.fullmatch(r"[A-ZÇĞİÖŞÜ]\.", last) is not None


def is_ordinal(text: str, following: str) -> bool:
    """Whether the full stop at the end of `text` makes an ordinal of the number before it. following: the next word."""
    if not re.search(r"(?<![\w.,:])(?:\d{1,3}|[IVX]{2,}|[VX])\.$", text):
        return False
    return following[:1].islower() or following.startswith(ORDINAL_NAMES) or (not text[-2].isdigit() and following[:1].isupper())


# --- numbers ----------------------------------------------------------------------------------------------------------------------


def _read(number: str, suffix: str | None = None) -> str:
    """`1.234,5`, `3,14`, `3.11`; "buçuk" only where no suffix was written for another word."""
    if re.fullmatch(r"\d{1,3}(\.\d{3})+(,\d+)?", number):
        number = number.replace(".", "")
    sign = "," if "," in number else "."
    head, _, tail = number.partition(sign)
    said = numbers.whole(head, "tr")
    if tail == "5" and sign == "," and head != "0" and not suffix:
        said += " buçuk"
    elif tail:
        said += f" {'virgül' if sign == ',' else 'nokta'} {numbers.fraction(tail, 'tr')}"
    return _joined(said, suffix)


def _joined(said: str, suffix: str | None) -> str:
    """A suffix without its apostrophe, in harmony with what is said: it may have been written for another reading (TB'ye, terabayta)."""
    if not suffix:
        return said
    head, _, last = said.rpartition(" ")
    if (ordinal := re.match(r"[ıiuü]?nc[ıiuü]", suffix)) and last in numbers.TURKISH_ORDINALS:
        return _joined(f"{head} {numbers.TURKISH_ORDINALS[last]}".strip(), suffix[ordinal.end() :])
    if last[-1] in _VOWELS:
        suffix = re.sub("^(?=[ıiuü]n$)", "n", suffix) if re.match("[ıiuü]n$", suffix) else re.sub(r"^(?=[aeıiuü](?!m|z))", "y", suffix)
    else:
        suffix = re.sub(r"^(?:s(?=[ıiuü](?:n|$))|n(?=[ıiuü]n$)|y(?=[aeıiuül]))", "", suffix)
    if last == "dört" and suffix[:1] in _VOWELS:
        said = said[:-1] + "d"
    return said + _in_harmony(suffix, last)


def _in_harmony(suffix: str, after: str) -> str:
    """Its vowels as the last one of `after` asks for, a d or t at its head by what stands before it."""
    thin = after in THIN or after.endswith("saat")
    vowel = "e" if thin else next((letter for letter in reversed(after) if letter in _VOWELS), "e")
    if suffix[:1] in ("d", "t") and suffix[1:2] in ("e", "a", "ı", "i", "u", "ü"):
        suffix = ("t" if after[-1] in "fstkçşhp" else "d") + suffix[1:]
    made = ""
    for letter in suffix:
        if letter in "ae":
            letter = "e" if vowel in "eiöü" else "a"
        elif letter in "ıiuü":
            letter = {"a": "ı", "ı": "ı", "e": "i", "i": "i", "o": "u", "u": "u", "ö": "ü", "ü": "ü"}[vowel]
        vowel = letter if letter in _VOWELS else vowel
        made += letter
    return made


def _signed(found: Found) -> str:
    return {"-": "eksi ", "−": "eksi ", "+": "artı "}.get(found["sign"] or "", "")


def _plain(found: Found) -> str:
    return _signed(found) + _read(found["number"], found["suffix"])


def _percent(found: Found) -> str:
    number = found["before"] or found["after"]
    return f"{_signed(found)}yüzde {_read(number, found['suffix'])}"


def _time(found: Found) -> str:
    parts = [int(found["hour"]), int(found["minute"]), *([int(found["second"])] if found["second"] else [])]
    while len(parts) > 1 and parts[-1] == 0:
        parts.pop()
    said = [numbers.cardinal(parts[0], "tr")]
    said += [("sıfır " if 0 < part < 10 else "") + numbers.cardinal(part, "tr") for part in parts[1:]]
    return _joined(" ".join(said), found["suffix"])


def _date(found: Found) -> str:
    day, month = int(found["day"]), int(found["month"])
    if not (1 <= day <= 31 and 1 <= month <= 12):
        return found[0]
    return _joined(f"{numbers.cardinal(day, 'tr')} {_MONTHS[month - 1]} {numbers.cardinal(int(found['year']), 'tr')}", found["suffix"])


def _measure(found: Found) -> str:
    unit, each = found["unit"], found["each"]
    first = _EACH[each] if each else _RATES_IN_ONE.get(unit, "")
    if unit == "km" and each == "s" and float(found["number"].replace(".", "").replace(",", ".")) >= _LIGHT:
        first = "saniyede"
    elif unit == "km" and each == "s":
        first = "saatte"
    said = _joined(_UNITS[unit], found["suffix"])
    return f"{first} {_signed(found)}{_half(found['number'])} {said}".strip()


def _half(number: str) -> str:
    """0,5 of something is half of it."""
    return "yarım" if number == "0,5" else _read(number)


def _bare_rate(found: Found) -> str:
    below = {"s": "saat" if found["unit"] == "km" else "saniye", "h": "saat", "sa": "saat", "sn": "saniye", "dk": "dakika"}[found["each"]]
    return _joined(f"{_UNITS[found['unit']]} bölü {below}", found["suffix"])


def _money(found: Found) -> str:
    return f"{_signed(found)}{_read(found['number'])} {_joined(_UNITS[found['unit']], found['suffix'])}"


def _part(found: Found) -> str:
    above, below = int(found["above"]), int(found["below"])
    if (above, below) == (7, 24):
        return _joined("yedi yirmi dört", found["suffix"])
    if (above, below) == (1, 2) and not found["suffix"]:
        return "yarım"
    if not 0 < above < below <= 100:
        return f"{numbers.cardinal(above, 'tr')} bölü {_joined(numbers.cardinal(below, 'tr'), found['suffix'])}"
    return _joined(f"{tr_locative(numbers.cardinal(below, 'tr'))} {numbers.cardinal(above, 'tr')}", found["suffix"])


def _range(found: Found) -> str:
    low, high = _read(found["low"]), _read(found["high"])
    rising = float(found["low"].replace(",", ".")) < float(found["high"].replace(",", "."))
    return f"{low} {'ila ' if rising else ''}{high}"


def _ordinal(found: Found) -> str:
    number = int(found["number"]) if found["number"].isdigit() else numbers.roman(found["number"])
    return _joined(numbers.ordinal(number, "tr"), found["suffix"]) if number else found[0]


def _item(found: Found) -> str:
    return tr_capital(f"{tr_possessive(numbers.ordinal(int(found[1]), 'tr'))}, ")


def _version(found: Found) -> str:
    return _joined(" nokta ".join(numbers.whole(part, "tr") for part in found["number"].split(".")), found["suffix"])


# --- words ------------------------------------------------------------------------------------------------------------------------


def _abbreviation(found: Found) -> str:
    """Its full stop is the sentence's as well where nothing follows."""
    return _ABBREVIATIONS[found[1]] + ("." if found.end() == len(found.string.rstrip()) else "")


def _term(found: Found) -> str:
    """A foreign word as Turkish letters say it, with its suffix: cache'i is keşi."""
    key = found["word"].rstrip(".").replace("İ", "i").lower()
    if key not in FOREIGN or found["word"] == "AI":
        return found[0]
    return _joined(FOREIGN[key], found["suffix"]) + ("." if found["word"].endswith(".") else "")


def _capitals(found: Found) -> str:
    """TDK'nin is te de kenin; what has a vowel is a word, unless it is known to be spelt."""
    letters = found["letters"]
    known = _WORDS_FOR.get(letters) or (_UNITS.get(letters, "") if len(letters) > 1 else "")
    if letters.lower() in FOREIGN and letters not in _SPELT | ENGLISH_ABBREVIATIONS:
        known = FOREIGN[letters.lower()]
    if known:
        return _joined(known, found["suffix"])
    if letters in WORD_ABBREVIATIONS or (letters not in _SPELT | ENGLISH_ABBREVIATIONS and re.search("[AEIİOÖUÜ]", letters)):
        return tr_lower(letters) + found["suffix"] if found["suffix"] else letters
    names = _ENGLISH_LETTERS if letters in ENGLISH_ABBREVIATIONS else _LETTERS
    return _joined(" ".join(names[letter] for letter in letters), found["suffix"])


def _alternatives(names: dict[str, str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


def _rule(pattern: str, say: Callable[[Found], str] | str) -> tuple[re.Pattern[str], Callable[[Found], str] | str]:
    return re.compile(pattern), say


_END = r"(?![\w²³])"
_RULES = [
    _rule(r"^(\d{1,2})\) ", _item),
    _rule(rf"(?<![\w])({_alternatives(_ABBREVIATIONS)})", _abbreviation),
    _rule(r"(?<=\d)\s*[+]\s*(?=\d)", " artı "),
    _rule(r"(?<=\d)\s*[×x*·]\s*(?=\d)", " çarpı "),
    _rule(r"(?<=\d)\s+[-−–]\s+(?=\d)", " eksi "),
    _rule(r"(?<=\d)\s*÷\s*(?=\d)|(?<=\d)\s+/\s+(?=\d)", " bölü "),
    _rule(r"(?<=\d)\s*\^\s*(?=\d)", " üzeri "),
    _rule(r"\b(?P<day>\d{1,2})[./](?P<month>\d{1,2})[./](?P<year>\d{4})(?!\d)" + _SUFFIX, _date),
    _rule(r"\b(?P<year>\d{4})-(?P<month>\d{2})-(?P<day>\d{2})(?!\d)" + _SUFFIX, _date),
    _rule(r"\b(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?![\d:])" + _SUFFIX, _time),
    _rule(r"(?<=[Ss]aat )(?P<hour>[01]?\d|2[0-4])\.(?P<minute>[0-5]\d)(?P<second>)(?!\d)" + _SUFFIX, _time),
    _rule(rf"{_SIGN}(?:%\s?(?P<before>{_NUMBER})|(?P<after>{_NUMBER})\s?%)" + _SUFFIX, _percent),
    _rule(rf"{_SIGN}(?P<unit>[$€£₺])\s?(?P<number>{_NUMBER})" + _SUFFIX, _money),
    _rule(
        rf"{_SIGN}(?P<number>{_NUMBER})\s?(?P<unit>{_alternatives(_UNITS)})(?:\s?/\s?(?P<each>{_alternatives(_EACH)}))?{_END}" + _SUFFIX, _measure
    ),
    _rule(rf"(?<!\w)(?P<unit>km|m|MB|GB|kB)/(?P<each>s|h|sa|sn|dk){_END}" + _SUFFIX, _bare_rate),
    _rule(r"(?<![\w.,/])(?P<above>\d{1,3})/(?P<below>\d{1,3})(?![\d/])" + _SUFFIX, _part),
    _rule(r"(?<![\w.,-])(?P<low>\d+(?:,\d+)?)\s?[-–]\s?(?P<high>\d+(?:,\d+)?)(?![\w.,-]\d)", _range),
    _rule(
        rf"(?<![\w.,:])(?P<number>\d{{1,3}}|[IVX]{{2,}}|[VX])\.(?:['’](?P<suffix>[a-zçğıöşü]+)|(?P<none>(?=\s+(?:[a-zçğıöşü]|{'|'.join(ORDINAL_NAMES)}))|(?=\s*,)))",
        _ordinal,
    ),
    _rule(r"(?<![\w.,:])(?P<number>[IVX]{2,})\.(?=\s+[A-ZÇĞİÖŞÜ])" + _SUFFIX, _ordinal),
    _rule(r"(?<![\w,])(?P<number>\d+(?:\.\d+){2,})(?![\d,])(?<!\.\d{3})" + _SUFFIX, _version),
    _rule(r"(?<=[^\W\d_])[-_]?(?=\d)|(?<=\d)[-_](?=[^\W\d_])", " "),
    _rule(rf"{_SIGN}(?P<number>{_NUMBER})(?:['’]?(?P<suffix>[a-zçğıöşü]+))?", _plain),
    _rule(r"(?<![\w])(?P<letters>[A-ZÇĞİÖŞÜ]{2,5})(?![\w])" + _SUFFIX, _capitals),
    _rule(r"(?<![\w'’])(?P<word>[A-Za-z][\w.+#-]*)" + _SUFFIX, _term),
]  # fmt: skip
