"""An answer without what is there for the eye alone: markdown, code, tables, emoji, addresses, markers of protocols and chat formats.

What is left are lines of words, numbers and punctuation, which `turkish.py` and `english.py` turn into words alone.
"""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Wording:
    """What is said in place of what cannot be spoken."""

    code: str
    link: str
    mail: str


WORDINGS = {
    "tr": Wording("Kod yazılı olarak duruyor.", "bağlantı", "e-posta adresi"),
    "en": Wording("The code is in the written answer.", "a link", "an e-mail address"),
}
FENCE = re.compile(r"^[ \t]*(?:```|~~~)[^\n]*\n.*?(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_PROTOCOL = re.compile(r"^\s*(?:CONFIDENCE\s*:.*|LAYERS\s*:.*|CONTENT\s*:)", re.MULTILINE)
_ITERATIONS = re.compile(r"<iterations>.*?</iterations>", re.DOTALL)
_CONTROL_TOKEN = re.compile(r"<\|[^|>\n]*\|>|\[/?INST\]")
_IMAGE_OR_LINK = re.compile(r"!?\[([^\]\n]*)\]\((?:[^()\n]|\([^()\n]*\))*\)")
_REFERENCE = re.compile(r"(?<=\S)\[\^?\w{1,3}\]|^\[\^?[^\]\n]+\]:.*$", re.MULTILINE)
_ADDRESS = re.compile(r"<?\b(?:https?|ftp|file)://[^\s<>]+>?|\bwww\.[^\s<>]+", re.IGNORECASE)
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]*\w")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]*>|<!--.*?-->", re.DOTALL)
_INLINE_CODE = re.compile(r"(`+)(.+?)\1")
_RULE = re.compile(r"^\s*(?:[-*_=]\s*){3,}$|^\s*\|?(?:\s*:?-{2,}:?\s*\|)+\s*:?-*:?\s*\|?\s*$", re.MULTILINE)
_LINE_MARK = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|(?:>[ \t]?)+|[-*+•◦▪–][ \t]+(?:\[[ xX]\][ \t]+)?)+")
# An ordinal is no item: "1. Dünya Savaşı", "1. sınıf".
ITEM = re.compile(r"^[ \t]*(\d{1,2})([.)])[ \t]+(?=\S)(?!Dünya\b|Lig\b|(?<=\.\s)[a-zçğıöşü])")
_EMPHASIS = re.compile(r"(?<![\w*])(\*{1,3}|_{1,3}|~~)(?=\S)(.+?)(?<=\S)\1(?![\w*])")
_EMOTICON = re.compile(r"(?<!\S)(?:[:;=8xX]['’]?-?[)(\]\[DPpOo3/|\\*]+|<3+|\^_*\^|[:;]['’]\(|¯\\_\(ツ\)_/¯|[xX]D+)(?=[\s.,!?]|$)")
# Beside the category So: variation selectors, joiners, skin tones, keycaps, tags.
_EMOJI_PARTS = re.compile("[\ufe0e\ufe0f\u200d\u20e3\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]")


def cleaned(text: str, language: str, last: int = 0) -> tuple[list[str], int]:
    """Lines to be spoken, none of them empty, and the number of the last item of a list; items keep theirs, as `2) `.

    last: the number before this text. `2. Dünya Savaşı` is an item only after a first one.
    """
    wording = WORDINGS[language]
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = FENCE.sub(f"\n{wording.code}\n", text)
    text = _PROTOCOL.sub("", _ITERATIONS.sub("", text))
    text = _without_links(text, wording)
    text = _INLINE_CODE.sub(lambda found: _code_aloud(found[2]), text).replace("`", "")
    text = html.unescape(_TAG.sub("", _CONTROL_TOKEN.sub("", text)))
    text = _RULE.sub("", text)
    lines = []
    for raw in text.split("\n"):
        item = ITEM.match(_LINE_MARK.sub("", raw))
        number = int(item[1]) if item and (item[2] == ")" or int(item[1]) in (1, last + 1)) else 0
        line = _line(raw)
        if number:
            line, last = f"{number}) {ITEM.sub('', line)}", number
        if any(letter.isalnum() for letter in line):
            lines.append(line)
    return lines, last


def _without_links(text: str, wording: Wording) -> str:
    text = _IMAGE_OR_LINK.sub(lambda found: found[1], text)
    text = _REFERENCE.sub("", text)
    text = _ADDRESS.sub(lambda found: wording.link + _closing(found[0]), text)
    return _MAIL.sub(wording.mail, text)


def _closing(address: str) -> str:
    """The punctuation of the sentence that an address takes along."""
    return address[len(address.rstrip(".,;:!?)]>'\"")) :].replace(">", "")


def _code_aloud(code: str) -> str:
    """Names are said word by word (`proxy_read_timeout`, `Vec<u8>`); signs in between are not."""
    return re.sub(r"\s+", " ", re.sub(r"[^\w\s.%+'’-]|_", " ", code)).strip()


def _line(line: str) -> str:
    line = _LINE_MARK.sub("", line)
    if line.count("|") >= 2:
        line = ", ".join(cell.strip() for cell in line.strip(" |").split("|") if cell.strip())
    before = None
    while before != line:  # emphasis within emphasis
        before, line = line, _EMPHASIS.sub(r"\2", line)
    line = _EMOTICON.sub("", line)
    return "".join(letter for letter in _EMOJI_PARTS.sub("", line) if not _is_picture(letter)).strip()


def _is_picture(letter: str) -> bool:
    """Emoji, dingbats, arrows of the keyboard's picture rows; the degree sign is read."""
    return unicodedata.category(letter) in ("So", "Co", "Cn", "Cs") and letter not in "°№"
