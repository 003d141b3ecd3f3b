"""What looks like an attempt to command the model, or the build, instead of talking to it.

A text out of a log becomes part of a spec, of a prompt, and of weights. Three things have no place there: control tokens of any family of
models, template syntax, and the phrases by which models are told to forget who they are, in English and in Turkish. A person who reads
the proposal is the last gate; this is the first.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from generators.dataset.similar import levelled, normalised

_CONTROL = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?s>|</?(?:bos|eos|pad|unk|mask)>|</?(?:start|end)_of_turn>|</?think>|\[/?INST\]|<</?SYS>>|\[/?(?:SYSTEM|ASSISTANT)\]"
    r"|^\s*#{2,}\s*(?:system|instruction|response|assistant)\s*:",
    re.IGNORECASE | re.MULTILINE,
)
_PROTOCOL = re.compile(r"^\s*(?:CONFIDENCE|LAYERS)\s*:\s*[\dCD]", re.MULTILINE)
_TEMPLATE = re.compile(r"\{\{|\}\}|\{%|%\}|\{#|#\}")
_LOOKALIKES = str.maketrans("аеіјорсухѕԁɡһ", "aeijopcyxsdgh")  # Cyrillic letters, and a few of phonetic alphabets
_LEET = str.maketrans("013457@$", "oieastas")
_SPACED = re.compile(r"(?<=\b\w) (?=\w\b)")
_WORDS = r"(?: \w+){0,%d}? "


def _near(*parts: str, most: int = 5) -> str:
    """The parts in their order, each at the start of a word, with up to `most` words between two."""
    return r"\b" + (r"\w*" + _WORDS % most).join(parts)


# In ASCII lower case, without punctuation: see `_readings`.
_FORGET = r"(?:ignor|disregard|forget|overrid|bypass|neglect|discard|do not follow|dont follow|stop follow|pay no attention)"
_EARLIER = r"(?:previous|prior|above|earlier|preceding|former|initial|original|all|your|my|given|every)"
_ORDERS = r"(?:instruction|prompt|rule|guideline|directive|command|programming|restriction|constraint|safeguard|system message|order)"
_UNUT = (
    r"(?:unut(?:un|unuz|sana|alim|malisin|up)?\b|yok ?say|gormezden gel|goz ?ardi e|dikkate alma|bos ?ver|umursama|onemseme|iptal et"
    r"|gecersiz (?:say|kil)|uyma|es gec|devre disi|cigne|ihlal et|hice say|bypass|ignore)"
)
_ONCEKI = r"(?:onceki|evvelki|yukaridaki|ustteki|eski|tum|butun|sana verilen|verilen|daha once|simdiye kadar|buraya kadar|sistem|kendi|sana soylenen)"
_TALIMAT = r"(?:talimat|yonerge|komut|kural|emir|emr|direktif|prompt|istem|kisitlama|sinirlama|filtre|programlama|soylenen|ogretilen)"
_HER_SEY = r"(?:her ?sey|hepsi|mesaj|konusma|soyle|yazi|metin)"
_SHOW = r"(?:reveal|show|print|repeat|output|display|leak|tell me|give me|write out|what is|what are)"
_GOSTER = r"(?:goster|yazdir|yaz\b|soyle|paylas|acikla|tekrarla|listele|sizdir|dok\b|ver\b|ne\b|nedir)"
_PHRASES = [
    re.compile(pattern)
    for pattern in (
        _near(_FORGET, _EARLIER, _ORDERS),
        _near(r"(?:ignor|disregard|forget)", r"the (?:instruction|prompt|system|rules)", most=2),
        _near(_FORGET, r"(?:everything|anything|all that)", r"(?:above|before|told|said|learned|prior)"),
        _near(_SHOW, r"(?:your|the|initial|hidden)", r"(?:system (?:prompt|message|instruction)|initial prompt|hidden prompt)", most=3),
        _near(_SHOW, r"your (?:instruction|prompt|rules)", most=3),
        r"\bsystem override\b|\b(?:developer|debug|god|sudo|dan|jailbreak) mode\b|\bjailbreak",
        r"\byou are (?:now|no longer) (?:\w+ ){0,4}?(?:dan|jailbroken|unrestricted|unfiltered|uncensored|bound|jessy)\b",
        r"\b(?:pretend|act as if|imagine)(?: that)? you (?:are not|have no|are free|can do anything)",
        _near(_ONCEKI, _TALIMAT, _UNUT),
        _near(_UNUT, _ONCEKI, _TALIMAT),
        _near(r"(?:talimat|yonerge|direktif|prompt)", _UNUT, most=3),
        _near(_UNUT, r"(?:talimat|yonerge|direktif|prompt)", most=3),
        _near(r"(?:onceki|evvelki|yukaridaki|sana (?:soyle|veril|ogretil)\w*|soylenen|ogretilen|soyledik|anlatilan)", _HER_SEY, _UNUT),
        _near(_UNUT, r"(?:onceki|evvelki|yukaridaki|soylenen|ogretilen|soyledik)", _HER_SEY),
        _near(r"sistem (?:prompt|istem|mesaj|talimat|komut)", _GOSTER, most=4),
        _near(_GOSTER, r"sistem (?:prompt|istem|mesaj|talimat|komut)", most=4),
        _near(r"(?:talimatlarini|promptunu|yonergelerini|kurallarini)", r"(?:goster|yazdir|paylas|sizdir|listele)", most=3),
        r"\b(?:gelistirici|sinirsiz|kisitlamasiz|sansursuz|dan|jailbreak) mod",
        _near(r"artik", r"(?:kural|kisitlama|sinirlama|filtre|sansur)\w*", r"(?:yok|tabi degil|bagli degil|gecerli degil)", most=3),
        r"\bsen artik (?:\w+ ){0,2}?(?:jessy|jessi) degilsin|\b(?:jessy|jessi) olmayi birak|\b(?:rolunu|karakterini|kisiligini) (?:birak|unut)",
    )
]


def attack_in(text: str, control_tokens: Collection[str] = ()) -> str | None:
    """What the text holds, in a few words, or None. text: as `texts.cleaned` leaves it. control_tokens: of the project's chat formats."""
    if _CONTROL.search(text) or any(token in text for token in control_tokens):
        return "a control token"
    if _TEMPLATE.search(text):
        return "template syntax"
    if _PROTOCOL.search(text):
        return "the client's form of answer"
    if any(phrase.search(reading) for reading in _readings(text) for phrase in _PHRASES):
        return "a command to the model"
    return None


def _readings(text: str) -> list[str]:
    """In ASCII lower case without punctuation: as it is written, with letters that stand apart put together, and with digits for letters."""
    text = text.lower().translate(_LOOKALIKES) if not text.isascii() else text
    plain = levelled(normalised(text))
    readings = [plain, levelled(normalised(_SPACED.sub("", text))), plain.translate(_LEET)]
    return list(dict.fromkeys(" ".join(reading.replace("_", " ").split()) for reading in readings))
