"""Personal data, taken out of texts: a word in brackets stands in its place.

Addresses of machines and mail, telephone numbers, IBANs, Turkish identity numbers, card numbers, keys and tokens, and names. Numbers that
have a check digit count only when it is right (ISO 7064 for an IBAN, Luhn for a card, the two check digits of a T.C. kimlik number);
telephone numbers go by their shape, since one that is not assigned is somebody's slip of the finger.

Names are found by what stands around them ("benim adım …", "… Hanım", "my name is …"), by the log's own header, and by a list of common
ones (see names.py). A rare name in the middle of a sentence is not found: what is proposed is read by a person before it is learnt.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from generators.feedback import names

MAIL, IP, PHONE, IBAN, IDENTITY, CARD, KEY, NAME = "mail", "ip", "phone", "iban", "identity number", "card", "key", "name"
KINDS = (MAIL, IP, PHONE, IBAN, IDENTITY, CARD, KEY, NAME)


_PLACEHOLDER = re.compile(rf"\[(?:{'|'.join(KINDS)})\]")


def placeholders_in(text: str) -> list[str]:
    """The words in brackets that stand for what was taken out."""
    return _PLACEHOLDER.findall(text)


def without_placeholders(text: str) -> str:
    return _PLACEHOLDER.sub(" ", text)


class Stripped(NamedTuple):
    """text: with `[kind]` for what was taken out. counts: how many of each kind."""

    text: str
    counts: Counter[str]


def strip(text: str, speaker: str = "", known: Iterable[str] = (), keep: Iterable[str] = ()) -> Stripped:
    """text: as `texts.cleaned` leaves it. speaker: the user's name, known: address and session, as the log has them; they are taken out
    wherever they stand. keep: names that stay, such as the persona's. What comes out has nothing left to take."""
    counts: Counter[str] = Counter()
    text = _without(text, _literal(text, known), KEY, counts)
    for kind, find in (
        (KEY, _keys),
        (MAIL, _mails),
        (IBAN, _ibans),
        (IP, _addresses),
        (CARD, _cards),
        (IDENTITY, _identities),
        (PHONE, _phones),
    ):
        text = _without(text, find(text), kind, counts)
    stay = frozenset(word for name in keep for word in names.forms(name))
    text = _without(text, (found.span() for found in _HOME.finditer(text)), NAME, counts)
    text = _without(text, names.of_speaker(text, speaker, stay), NAME, counts)
    while found := list(names.found(text, stay)):  # a surname shows only once the name before it is gone
        text = _without(text, found, NAME, counts)
    return Stripped(text, counts)


Span = tuple[int, int]
_LEAST_KNOWN = 4  # letters of an address or session that are looked for as they are


def _literal(text: str, known: Iterable[str]) -> Iterator[Span]:
    for value in known:
        if len(value) >= _LEAST_KNOWN:
            yield from (found.span() for found in re.finditer(re.escape(value), text, re.IGNORECASE))


def _without(text: str, spans: Iterable[Span], kind: str, counts: Counter[str]) -> str:
    """Spans that overlap are one."""
    pieces, end = [], 0
    for start, stop in sorted(spans):
        if start >= end:
            pieces += [text[end:start], f"[{kind}]"]
            counts[kind] += 1
        end = max(end, stop)
    return "".join([*pieces, text[end:]])


# --- keys and addresses -----------------------------------------------------------------------------------------------------------

_KEYS = re.compile(
    r"""
      -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----.*?(?:-----END[ ][A-Z ]*PRIVATE[ ]KEY-----|\Z)
    | \beyJ[\w-]{8,}(?:\.[\w-]+){1,2}                                              # JSON web token
    | \b(?:sk|pk|rk)[-_][\w-]{16,}                                                 # model providers, Stripe
    | \b(?:gh[oprsu]_|github_pat_|glpat-|npm_|pypi-|hf_|dop_v1_|shpat_|xox[abeoprs]-|ya29\.|SG\.)[\w.-]{10,}
    | \b(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{12,}                                  # AWS
    | \bAIza[\w-]{30,}                                                             # Google
    | \b\d{8,10}:AA[\w-]{30,}                                                      # Telegram
    | \b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b                     # UUID: sessions, keys of some clouds
    """,
    re.VERBOSE | re.DOTALL,
)
# A key by the word before it; the word itself stays.
_ASSIGNED = re.compile(
    r"""(?:api[ _-]?key|secret|token|passw(?:or)?d|pwd|parola\w*|şifre\w*|sifre\w*)["']?\s*[:=]\s*["']?(?P<value>[^\s"',;(){}\[\]]{6,})"""
    r"""|\bbearer\s+(?P<bearer>[\w.~+/=-]{8,})|(?<=://)(?P<user>[^\s/:@]+:[^\s/@]+)(?=@)""",
    re.IGNORECASE,
)
_LONG_RUN = re.compile(r"(?<![\w+/-])[\w+/-]{20,}={0,2}", re.ASCII)
_MAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)*")
_AT, _DOT = r"\s*[\[({<]\s*(?:at|et|kuyruklu\s?a)\s*[\])}>]\s*", r"(?:\.|\s*[\[({<]\s*(?:dot|nokta)\s*[\])}>]\s*|\s(?:dot|nokta)\s)"
_MAIL_IN_WORDS = re.compile(rf"(?<![\w.+-])[\w.+-]+{_AT}[\w-]+(?:{_DOT}\w+)+", re.IGNORECASE)
_HOME = re.compile(r"(?:(?<=/home/)|(?<=/Users/)|(?<=\\Users\\))[^\s/\\'\"\[\]]+")
_IPV4 = re.compile(r"(?<!\d)\d{1,3}(?:\.\d{1,3}){3}(?!\d)")
_LONGEST_IPV6 = 39  # letters of one whose groups are all written out
_IPV6_RUN = re.compile(r"[0-9A-Fa-f:]{2,}")
_MAC = re.compile(r"(?<![0-9A-Fa-f:-])[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}(?![0-9A-Fa-f:-])")


def _keys(text: str) -> Iterator[Span]:
    for found in _KEYS.finditer(text):
        if found[0].startswith("-----") or any(map(str.isdigit, found[0])):  # `hf_hub_download` is a name
            yield found.span()
    for found in _ASSIGNED.finditer(text):
        if found["value"] is None or any(map(str.isdigit, found["value"])):  # `token = lexer.next` is code
            yield found.span(found.lastgroup or 0)
    yield from (found.span() for found in _LONG_RUN.finditer(text) if _looks_drawn(found[0]))


def _looks_drawn(run: str) -> bool:
    """Whether letters and digits stand in it as dice leave them, and not as a person names things."""
    if re.fullmatch(r"[0-9a-f]{32,}|[0-9A-F]{32,}", run):
        return True
    mixed = any(map(str.islower, run)) and any(map(str.isupper, run))
    changes = sum(one.isdigit() != other.isdigit() for one, other in zip(run, run[1:], strict=False))
    return sum(map(str.isdigit, run)) >= 3 and changes >= 4 and (mixed or len(run) >= 28)


def _mails(text: str) -> Iterator[Span]:
    yield from (found.span() for found in _MAIL.finditer(text))
    yield from (found.span() for found in _MAIL_IN_WORDS.finditer(text))


def _addresses(text: str) -> Iterator[Span]:
    for found in _IPV4.finditer(text):
        if all(int(part) <= 255 for part in found[0].split(".")):
            yield found.span()
    yield from (found.span() for found in _MAC.finditer(text))
    for found in _IPV6_RUN.finditer(text):
        yield from _ipv6(text, *found.span())


def _ipv6(text: str, start: int, end: int) -> Iterator[Span]:
    """The address in a run of colons and hexadecimal digits."""
    if start and (text[start - 1].isalnum() or text[start - 1] == "_"):  # the end of a word: of `adresse:2001:db8::1`, or of `std::fs`
        start = text.find(":", start, end) if ":" in text[start:end] else end
        if text.startswith("::", start):
            return
    if text[start:end].startswith(":") and not text.startswith("::", start):
        start += 1
    for last in (end, end - 1, end - 2):  # a colon may follow
        if 2 < last - start <= _LONGEST_IPV6 and is_ipv6(text[start:last]):
            yield start, last
            return


def is_ipv6(text: str) -> bool:
    """An address that means a machine: `::` and `a::b`, which code is full of, do not."""
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return any(letter.isdigit() for letter in text) or sum(map(bool, text.split(":"))) >= 3


# --- numbers ----------------------------------------------------------------------------------------------------------------------

# Lengths by country, ISO 13616 registry.
_IBAN_LENGTHS = {
    entry[:2]: int(entry[2:])
    for entry in """
    AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 FO18 FR27 GB22 GE22 GI23
    GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30
    NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20
    """.split()
}
_IBAN_START = re.compile(r"[A-Za-z]{2}[ -]?\d[ -]?\d")
_DIGITS = re.compile(r"\d+")
_GAP = re.compile(r"[ \t.\-/()]{1,3}")
_MOST_DIGITS = 19  # of a card
_CUE = re.compile(
    r"(?:tel|telefon\w*|gsm|cep\w*|numara\w*|whats?app\w*|wp|phone\w*|mobile|fax|faks|call me(?: at)?)\W{0,12}$", re.IGNORECASE
)
_CUE_REACH = 32  # letters before a number in which its cue may stand


def is_iban(text: str) -> bool:
    """By country, length and check digits (ISO 13616: the number modulo 97 is 1)."""
    plain = re.sub(r"[ -]", "", text).upper()
    if not re.fullmatch(r"[A-Z]{2}\d{2}[A-Z0-9]+", plain) or _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def is_card(digits: str) -> bool:
    """13 to 19 digits whose last is right by Luhn's rule (ISO/IEC 7812)."""
    if not 13 <= len(digits) <= _MOST_DIGITS or digits[0] == "0":
        return False
    doubled = (int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def is_identity(digits: str) -> bool:
    """A T.C. kimlik number: eleven digits, the first not 0. The tenth is seven times the sum of those in odd places less the sum of those
    in even places, the eleventh the sum of the ten before, both modulo 10."""
    if len(digits) != 11 or not digits.isdigit() or digits[0] == "0":
        return False
    said = [int(digit) for digit in digits]
    return (7 * sum(said[0:9:2]) - sum(said[1:8:2])) % 10 == said[9] and sum(said[:10]) % 10 == said[10]


def is_phone(groups: list[str], has_plus: bool, has_cue: bool) -> bool:
    """By its shape: international, Turkish, or in the North American grouping. groups: its digits as they are written."""
    digits = "".join(groups)
    count, sizes = len(digits), [len(group) for group in groups]
    if has_plus or digits.startswith("00"):
        return 8 <= count - (0 if has_plus else 2) <= 15
    if has_cue and 7 <= count <= 15:
        return True
    national = digits.removeprefix("90") if count == 12 else digits.removeprefix("0") if count == 11 else digits
    if len(national) != 10:
        return False
    if national[0] == "5" or (count > 10 and national[0] in "2348"):
        return True
    return national[0] in "23456789" and sizes in ([3, 3, 4], [3, 3, 2, 2], [3, 7])


class _Number(NamedTuple):
    """Digits that are written in groups. start, end: of the whole in the text."""

    start: int
    end: int
    groups: list[str]


def _numbers(text: str) -> Iterator[list[_Number]]:
    """For each group of digits: the numbers that begin with it, the longest first."""
    found = list(_DIGITS.finditer(text))
    for first in range(len(found)):
        begun: list[_Number] = []
        groups: list[str] = []
        for last in range(first, len(found)):
            if last > first and not _GAP.fullmatch(text, found[last - 1].end(), found[last].start()):
                break
            groups = [*groups, found[last][0]]
            if sum(map(len, groups)) > _MOST_DIGITS:
                break
            begun.append(_Number(found[first].start(), found[last].end(), groups))
        yield begun[::-1]


def _ibans(text: str) -> Iterator[Span]:
    for found in _IBAN_START.finditer(text):
        length, end, count = _IBAN_LENGTHS.get(found[0][:2].upper(), 0), found.start(), 0
        while end < len(text) and count < length and (text[end].isalnum() or text[end] in " -"):
            count += text[end].isalnum()
            end += 1
        if length and is_iban(text[found.start() : end]):
            yield found.start(), end


def _cards(text: str) -> Iterator[Span]:
    for begun in _numbers(text):
        yield from ((number.start, number.end) for number in begun if is_card("".join(number.groups)))


def _identities(text: str) -> Iterator[Span]:
    for begun in _numbers(text):
        yield from ((number.start, number.end) for number in begun if is_identity("".join(number.groups)))


def _phones(text: str) -> Iterator[Span]:
    end = 0
    for begun in _numbers(text):
        if not begun or begun[0].start < end:
            continue
        start = begun[0].start
        lead = re.search(r"\+?[ (]{0,2}$", text[max(0, start - 3) : start])
        has_plus = bool(lead and "+" in lead[0])
        has_cue = bool(_CUE.search(text, max(0, start - _CUE_REACH), start))
        for number in begun:
            if is_phone(number.groups, has_plus, has_cue):
                opened = start - len(lead[0].lstrip()) if lead else start
                yield opened, number.end
                end = number.end
                break
