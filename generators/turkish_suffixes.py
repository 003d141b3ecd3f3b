"""Turkish suffixes as Jinja filters: `{{ "kitap" | tr_dative }}` is "kitaba", `{{ "Rust" | tr_locative }}` is "Rust'ta".

The spelling follows the spelling guide of the Turkish Language Association (TDK). The rules, by the names that grammars give them:

- *Vowel harmony* (ünlü uyumu). A suffix takes its vowels from the last vowel of the word: twofold, `A` is e after e i ö ü and a
  after a ı o u; fourfold, `I` is i after e i, ü after ö ü, ı after a ı, u after o u. *Thin* words, most of them in a thin l, sound
  front although their last vowel is written back: saati, rolü, hali. A letter with a circumflex harmonises like the plain one
  (rüzgârı), but âl and ûl are thin (hâli).
- *Consonant assimilation* (ünsüz benzeşmesi). The `D` of a suffix is t after f s t k ç ş h p: sokakta, Rust'ta, 4'te.
- *Consonant softening* (ünsüz yumuşaması). Final p, ç, k of a word of more than one syllable become b, c, ğ before a vowel (kitabı,
  ağacı, köpeği); t, and the ends of monosyllables, only in declared words (kanadı, kabı, rengi). Proper names soften in
  speech, never in writing: Zonguldak'a.
- *Vowel dropping* (ünlü düşmesi: burun, burnu) and *consonant doubling* (ünsüz türemesi: hak, hakkı), in declared words, before a vowel.
- *Buffer letters* (kaynaştırma ünsüzleri). y, s or n parts two vowels (arabaya, arabası, arabanın); su and ne take y (suyun, neyi).
- *Pronominal n* (zamir n'si). Cases take n after a third-person possessive: evi, evine. The filters remember it along a chain
  (`"ev" | tr_possessive | tr_dative`); of text that is possessed already say so (`"el çantası" | tr_dative(possessed=True)`).
- *Apostrophe* (kesme işareti). Inflectional suffixes of proper names, abbreviations, numbers and words that are not read as they are
  written stand after an apostrophe: Ankara'ya, TDK'nin, 5'e, cache'i. The plural and derivational suffixes of proper names do not
  (Ahmetler, Ankaralı), nor does what follows them (Ahmetlere).
- *Reading* (okunuş). A suffix follows the sound: abbreviations are read by the Turkish name of their last letter (some technical ones
  by the English name, `ENGLISH_ABBREVIATIONS`), numbers by the last word spoken, foreign words as `FOREIGN` or `said` declares.

Only the last word of a text is inflected. Parameters that the filters share:

- `said`: how the word is read, in Turkish letters (`"cache" | tr_accusative(said="keş")` is "cache'i"); brings an apostrophe.
- `proper`: True for an apostrophe and no softening, False for neither. By default a capital first letter decides, so say `proper=False` of
  an ordinary word at the head of a sentence and of the names of institutions (Türk Dil Kurumuna).
- `possessed`: True of a text that bears the third-person possessive suffix already, or is a possessive compound.

What comes back is NFC. A text with nothing to inflect (empty, punctuation) comes back as it is. No text makes a filter raise; a
`person` that does not exist raises UserError. A homograph is inflected as its commoner meaning: koyun, koyunu is the sheep, not the bosom.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

from generators.errors import UserError, did_you_mean, one_of

APOSTROPHE = "'"
_VOWELS = "aıoueiöü"
_FRONT = "eiöü"
_ROUNDED = "ouöü"
_VOICELESS = "fstkçşhp" + "qx"  # "fıstıkçı şahap", and the foreign letters that are read with a k
_SOFTENED = {"p": "b", "ç": "c", "t": "d", "k": "ğ", "g": "ğ"}
_CLOSING = '"”»)]}.'  # no apostrophe after a closing quotation mark or the full stop of an abbreviation: vb.leri


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# ---- Words that do not follow from their letters, a table for each class of words. ----

# Last vowel written back and sounded front: French and Arabic words in a thin l, Arabic ones in a thin -at, -ak, -ad, and some in -rf, -lp.
THIN = _words("""
    ahval akropol alkol ametal amiral ampul anormal asosyal bandrol başrol bemol beraat biat bidat bienal bilal celal cemaat cemal
    cerahat dijital dikkat diyagonal ekol emsal enternasyonal etanol faal federal feodal feragat festival final formol gayrimenkul
    general glikol global gol golf had hakikat hal harf harp hayal helak helal hilal hilkat hol iclal ideal idol idrak ihlal ihmal
    ihtilal ihtimal ikbal ikmal illegal imsak infial integral intihal intikal iptal ishal istihlak istihsal istikbal istiklal istimal
    istimlak istirahat işgal iştirak itaat ithal itidal jul jurnal kabahat kabul kalp kanaat kapital karambol kardinal katedral kefal
    kemal kıraat kolesterol kontrol korgeneral kristal legal liberal liyakat lokal lügat mahal mahsul makbul maktul makul malul mamul
    mareşal marjinal materyal meal mecal meçhul menfaat menkul mentol meral mesul meşakkat meşgul metal metropol mineral minimal misal
    monopol moral muhal muvafakat müzikal müzikhol nasihat nepal nihal nominal normal nüzul opal orgeneral orijinal oryantal
    otokontrol oval parabol pastoral petrol portal profiterol protokol radikal refakat resital resul riyal rol saat sadakat santral
    sarahat sefahat sembol senegal seul seyahat sıhhat sinyal sosyal spiral sual suistimal sürat şarampol şecaat şefaat şefkat şimal
    takat termal terminal timsal total trol tropikal tuğgeneral turnusol tuval usul vaat valf vals vebal vokal zanaat zeval zülal
""")

# Monosyllables whose end softens, against the rule for monosyllables (top, topu).
SOFT_MONOSYLLABLES = _words("""
    ant art bant bent borç burç but cenk cep cet cilt çok darp denk dert dinç dip dört felç fert garp gasp genç gök grip grup güç harç
    harp hınç kalp kap klip kurt linç lort öç plak renk ret skeç stant stat şilt taç tat teyp tıp tunç uç ut vinç yurt zıt
""")

# Words of more syllables in -t that soften: a few Turkish nouns, and Arabic, Persian and French ones in d at home. Others in -t do not
# (bulut, bulutu; sepet, sepeti; internet, interneti). With them -nk of Persian -ng, and -p after a consonant.
SOFT_POLYSYLLABLES = _words("""
    adet ağıt ahenk ahit akit akort aminoasit anayurt armut asit avrat avurt azat babayiğit bozkurt cellat ceset cihat cirit çelenk
    çeşit damat diyot ebat ecdat elektrot eşarp etüt evlat feryat geçit hasat haset haydut hudut icat içtihat iktisat imdat inat irat
    irşat isnat istidat istinat itikat itimat itiyat iyot kağıt kanat karbondioksit kayıt kement kepenk kilit kiremit kükürt lacivert
    lahit levent mabet mabut maksat medet mescit mesnet metot mevcut mezat miat mihenk milat mucit murat mücahit mürit mürşit
    müteahhit nakit namzet nohut oksit öğüt palamut peksimet pelit periyot piramit raunt santigrat senet simit söğüt standart şahit
    şehit şerit taahhüt tahdit taklit tecrit tehdit tenkit tereddüt tevhit teyit tezat tiroit tokat tülbent umut ümit üstat vaat velet
    veliaht vücut yiğit yoğurt zümrüt
""")

# Words of more syllables that keep p, ç, k: Arabic words in -ak, -uk, -ik with a hard k, compounds of a hard monosyllable, late borrowings.
HARD = _words("""
    ahlak altıntop analog arketip barok emlak erzak evrak helak hukuk idrak ilhak iltihak imsak infak infilak insiyak intibak istihkak
    istihlak istimlak iştirak iştiyak ittifak izotop kaçgöç kadük kardiyak karekök laptop mahluk merak metreküp mihrak misak mutabık
    mutlak müdrik müşrik müteferrik müttefik nifak otostop prototip saik sandviç sinagog taalluk tahakkuk tahkik tahrik tasdik tatbik
    tazyik tedarik temlik teşvik tetkik tevsik yarıçap zodyak
""")

# The vowel of the last syllable drops before a vowel: parts of the body, and Arabic words whose stem ends in two consonants.
DROPPING = _words("""
    aciz ağız ahit akıl akis akit alın asıl asır atıf azim bağır bahis başşehir beniz beyin boyun böğür burun cebir cisim cürüm defin
    devir ehil emir fasıl fecir fesih fetih feyiz fıkıh fikir fuhuş geniz göğüs gönül hacim haciz hapis hasım hatim hazım hiciv hizip
    hüküm hüzün ilim isim izin kabir kahır karın kasıt kavim kayıp kayıt kesir keşif keyif kısım kibir kutup küfür lahit lütuf metin
    meyil misil mühür nabız nakış nakil nakit nazım nefis nehir nesil nesir neşir nutuk oğul omuz ömür özür rahim resim rızık ritim
    sabır satıh seyir sihir şahıs şehir şekil şükür tavır ufuk uzuv vahiy vakıf vakit vasıf vehim vezin zehir zihin zikir zulüm zülüf
""")

# Arabic words whose double consonant is written single at the end of the word.
DOUBLING = _words("af cet hac had hak hat haz his mahal ret sır şer tıp üs zam zan zıt")

# Before a vowel su and ne end in y.
LINKED_BY_Y = _words("su akarsu tatlısu ne")

# Pronouns and words in -ki that take the pronominal n though no possessive suffix was put on them here.
PRONOMINAL = _words("""
    biri birisi bazısı bazıları birçoğu birkaçı çoğu diğeri diğerleri hangisi hepsi hiçbiri kimi kimisi kendi kendisi kendileri
    burası şurası orası neresi öteki beriki benimki seninki onunki bizimki sizinki onlarınki
""")

# Possessive compounds written as one word, and their bare form, which the plural and the other persons start from: atasözleri, atasözüm.
COMPOUNDS = {
    "atasözü": "atasöz",
    "ayçiçeği": "ayçiçek",
    "bilinçaltı": "bilinçalt",
    "buzdolabı": "buzdolap",
    "cezaevi": "cezaev",
    "doğumevi": "doğumev",
    "gökyüzü": "gökyüz",
    "gözyaşı": "gözyaş",
    "öğretmenevi": "öğretmenev",
    "yeryüzü": "yeryüz",
    "yılbaşı": "yılbaş",
}

# Names of languages: derived by -ca, so nothing that follows takes an apostrophe (Türkçeyi).
LANGUAGES = _words("""
    türkçe ingilizce almanca fransızca ispanyolca italyanca rusça arapça farsça japonca çince korece yunanca latince portekizce azerice
    kürtçe
""")

# Forms of personal and demonstrative pronouns that no rule gives.
PRONOUNS: dict[str, dict[str, str]] = {
    "ben": {"dative": "bana", "genitive": "benim", "instrumental": "benimle"},
    "sen": {"dative": "sana", "instrumental": "seninle"},
    "biz": {"genitive": "bizim", "instrumental": "bizimle"},
    "siz": {"instrumental": "sizinle"},
} | {
    short: {
        "dative": f"{stem}a",
        "ablative": f"{stem}dan",
        "locative": f"{stem}da",
        "genitive": f"{stem}un",
        "accusative": f"{stem}u",
        "instrumental": f"{stem}unla",
        "plural": f"{stem}lar",
        "without": f"{stem}suz",
    }
    for short, stem in (("o", "on"), ("bu", "bun"), ("şu", "şun"))
}

# ---- Readings, in Turkish letters. ----

_LETTER_NAMES = dict(
    zip(
        "ABCÇDEFGĞHIİJKLMNOÖPQRSŞTUÜVWXYZ",
        # I is i: abbreviations in a real ı are rare, those in the English letter (API, GUI) are not. K is ke, as in TDK'nin.
        "a be ce çe de e fe ge ge he i i je ke le me ne o ö pe kyu re se şe te u ü ve ve iks ye ze".split(),
        strict=True,
    )
)
# The names that end otherwise in English; engineers read some abbreviations so.
_ENGLISH_LETTER_NAMES = _LETTER_NAMES | dict(zip("FILMNRSX", "ef ay el em en ar es eks".split(), strict=True))
ENGLISH_ABBREVIATIONS = _words("AI AWS CDN CI CSRF CSS DNS HTML JVM LLM LSN ML OS PR SQL SSL TLS TTL VM XML")

_UNITS = "sıfır bir iki üç dört beş altı yedi sekiz dokuz".split()
_TENS = "sıfır on yirmi otuz kırk elli altmış yetmiş seksen doksan".split()
_POWERS = "bin milyon milyar trilyon".split()  # what comes above ends like trilyon

# Foreign names and words that are not read as they are written, and abbreviations of units: word:reading.
_READINGS = """
    apple:epıl c#:sişarp c++:siplasplas chrome:krom cpython:sipaytın docker:dakır excel:eksel facebook:feysbuk github:githab
    gitlab:gitlab google:gugıl ipad:aypet iphone:ayfon javascript:cavaskript linux:linuks mac:mek macbook:mekbuk next.js:nekstceyes
    node.js:nodceyes python:paytın react:riekt rust:rast slack:slek spotify:spotifay twitter:tvitır typescript:taypskript
    vue.js:viyuceyes word:vörd youtube:yutub zoom:zum

    aggregate:agregeyt allocator:alokeytır array:erey backup:bekap batch:beç branch:brenç bucket:bakıt buffer:bafır bug:bag build:bild
    cache:keş callback:kolbek channel:çenıl checker:çekır checkout:çekaut class:klas client:klayınt closure:klojır cluster:klastır
    code:kod codebase:kodbeys collector:kolektır compiler:kompaylır condition:kındişın consistency:konsistınsi constraint:konstreynt
    consumer:konsumır container:konteynır cookie:kuki crash:kreş crate:kreyt customer:kastımır dashboard:deşbord database:deytabeys
    deadline:dedlayn debug:dibag deploy:diploy driver:drayvır e-mail:imeyl error:erır event:ivent executor:egzekütır feature:fiçır
    feedback:fidbek firewall:fayrvol flag:fleg formatter:formatır framework:freymvörk gateway:geytvey handler:hendlır hash:heş
    header:hedır heap:hip image:imıç instance:instıns interface:interfeys issue:işu iterator:itıreytır job:cob json:ceysın key:kiy
    latency:leytınsi library:laybrıri lifetime:layftaym line:layn linter:lintır locale:lokeyl loop:lup mail:meyl main:meyn map:mep
    memory:memori merge:mörç microservice:maykroservis migration:maygreyşın node:nod null:nal order:ordır outbox:autbaks parser:parsır
    patch:peç pipeline:payplayn pointer:poyntır pool:pul primary:praymıri producer:prodüsır proxy:proksi push:puş query:kuveri
    queue:kyu ram:rem refactor:rifektır release:rilis repository:ripozitori resolver:rizolvır response:rispons restart:ristart
    review:rivyuv rollback:rolbek router:rutır runtime:rantaym scheduler:skecılır server:sörvır slice:slays software:softver
    stack:stek startup:startap struct:strakt switch:sviç tenant:tenınt thread:tred timeout:taymaut token:tokın trace:treys trait:treyt
    transaction:trenzekşın type:tayp update:apdeyt vec:vek worker:vörkır workflow:vörkflov yaml:yamıl

    cm:santimetre dk:dakika kg:kilogram km:kilometre mm:milimetre ms:milisaniye sn:saniye
"""
# Foreign words read near enough to their letters, but kept apart by an apostrophe all the same.
_READ_AS_WRITTEN = """
    api async backend benchmark bluetooth cargo charset commit cpu deadlock dump endpoint enum flask frontend generic git go gpu host
    idempotent index java kernel kotlin log macro mock monolith monorepo mutex ownership plugin prod prompt push replica repo request
    script sprint string throughput tokio
"""
# Abbreviations read as words, by their letters.
WORD_ABBREVIATIONS = _words("ASELSAN BOTAŞ MEB NATO REST ROKETSAN ROM TÜBİTAK TÜİK UNESCO UNICEF")


def _readings() -> dict[str, str]:
    """Lower-case word to reading."""
    declared = dict(pair.split(":") for pair in _READINGS.split())
    return {word: word for word in _READ_AS_WRITTEN.split()} | declared


FOREIGN = _readings()


# ---- Casing. ----


def _nfc(text: object) -> str:
    return unicodedata.normalize("NFC", str(text))


def tr_lower(text: object) -> str:
    """Lower case by Turkish rules: I becomes ı, İ becomes i.

    {{ "IĞDIR İLİ" | tr_lower }} -> ığdır ili
    """
    return _nfc(_nfc(text).replace("İ", "i").replace("I", "ı").lower())


def tr_upper(text: object) -> str:
    """Upper case by Turkish rules: i becomes İ, ı becomes I.

    {{ "ışıl istanbul" | tr_upper }} -> IŞIL İSTANBUL
    """
    return _nfc(_nfc(text).replace("i", "İ").replace("ı", "I").upper())


def tr_capital(text: object) -> str:
    """The first letter in Turkish upper case, of a foreign word in English upper case, the rest as it is (a sentence may hold names).

    {{ "istanbul ve GPU" | tr_capital }} -> İstanbul ve GPU
    {{ "ılık su" | tr_capital }} -> Ilık su
    {{ "image'ları" | tr_capital }} -> Image'ları
    """
    plain = _nfc(text)
    for index, character in enumerate(plain):
        if character.isalpha():
            foreign = re.split(r"[^\w.#+-]", plain[index:], maxsplit=1)[0].rstrip(".") in FOREIGN
            return _nfc(plain[:index] + (character.upper() if foreign else tr_upper(character)) + plain[index + 1 :])
    return plain


# ---- Sounds. ----


class Sound(NamedTuple):
    """What a suffix hears of the word before it."""

    front: bool
    rounded: bool
    ends_in_vowel: bool
    voiceless: bool


def _plain(text: str) -> str:
    """Lower case, letters only, without the marks that Turkish does not write (é, â), so that tables and rules can be asked."""
    kept = []
    for character in tr_lower(text):
        base = character if character in "çğıöşü" else unicodedata.normalize("NFD", character)[0]
        if base.isalpha():
            kept.append(base)
    return "".join(kept)


def _sound(reading: str) -> Sound:
    """Of the last word of a reading. Text without a vowel sounds like the name of its last letter, or else front, as letter names do."""
    last = re.split(r"[\s-]", reading.rstrip("- \t\n"))[-1]
    word = _plain(last)
    if not any(letter in _VOWELS for letter in word):
        word = _LETTER_NAMES.get(tr_upper(word[-1:]), word + "e")
    if len(word) > 1 and word[-1] == "y" and word[-2] not in _VOWELS:  # no Turkish word ends so: Emily, query
        word = word[:-1] + "i"
    vowel = next(letter for letter in reversed(word) if letter in _VOWELS)
    thin = word in THIN or tr_lower(last).endswith(("âl", "ûl"))
    final = word[-1]
    # Turkish words in a plain c are hac and sac; a foreign one (Basic) is read with a k.
    voiceless = final in _VOICELESS or (final == "c" and word not in ("hac", "sac"))
    return Sound(vowel in _FRONT or thin, vowel in _ROUNDED, final in _VOWELS, voiceless)


class Reading(NamedTuple):
    """How a word is read, and whether it stands apart from its suffixes because it is not written so."""

    text: str
    apart: bool


_INFLECTED = re.compile(r"(?<=\w)['’]([a-zçğıöşü'’]*[a-zçğıöşü])$")
_NUMBER = re.compile(r"[0-9](?:[0-9.,:]*[0-9])?$")
_FOREIGN_LETTERS = re.compile(r"[qwx]|ck")


def _reading(word: str) -> Reading:
    """Of a word as written; one that bears a suffix already (Rust'ta) is read with it."""
    inflected = _INFLECTED.search(word)
    if inflected:
        return Reading(_reading_of_base(word[: inflected.start()]).text + inflected[1], False)
    return _reading_of_base(word)


def _reading_of_base(word: str) -> Reading:
    """Number, declared word, abbreviation, foreign spelling or plain Turkish, in that order."""
    bare = word.rstrip("\"”»’')]}.!?%*_`")
    number = _NUMBER.search(bare)
    if number:
        return Reading(_read_number(number[0]), True)
    declared = FOREIGN.get(_key(bare)) or FOREIGN.get(_key(bare.split("-")[-1]))
    if declared:
        return Reading(declared, True)
    letters = re.sub(r"[\W_]+$", "", bare)
    if letters in WORD_ABBREVIATIONS:
        return Reading(letters, True)
    if letters[-1:].isupper():
        return Reading(_read_abbreviation(letters), True)
    plain = _plain(letters)
    if plain and plain.isascii() and not any(letter in _VOWELS for letter in plain):  # pdf, html
        return Reading(_read_abbreviation(plain.upper()), True)
    return Reading(letters, bool(_FOREIGN_LETTERS.search(plain)))


def _read_abbreviation(letters: str) -> str:
    """The name of the last letter; in English if the capitals at the end (PostgreSQL, macOS) are declared to be read so."""
    lower_case_end = next((index for index in range(len(letters), 0, -1) if not letters[index - 1].isupper()), 0)
    names = _ENGLISH_LETTER_NAMES if letters[lower_case_end:] in ENGLISH_ABBREVIATIONS else _LETTER_NAMES
    return names.get(letters[-1], letters)


def _read_number(text: str) -> str:
    """The last word of a number as spoken. A full stop parts thousands (1.000) or hours (15.30) or versions (3.11); a comma decimals."""
    hour = re.fullmatch(r"(0?[0-9]|1[0-9]|2[0-4])[.:]00", text)
    if hour:
        return _last_word_of_integer(hour[1])
    if re.fullmatch(r"[0-9]{1,3}(\.[0-9]{3})+", text):
        return _last_word_of_integer(text.replace(".", ""))
    return _last_word_of_integer(re.split("[.,:]", text)[-1])


def _last_word_of_integer(digits: str) -> str:
    significant = digits.rstrip("0")
    zeros = len(digits) - len(significant)
    if not significant:
        return _UNITS[0]
    if zeros == 0:
        return _UNITS[int(digits[-1])]
    if zeros == 1:
        return _TENS[int(digits[-2])]
    if zeros == 2:
        return "yüz"
    return _POWERS[min(zeros // 3, len(_POWERS)) - 1]


# ---- Stems. ----


class Inflected(str):
    """The result of a filter that adds a suffix: text that further suffixes join without an apostrophe.

    possessed: ends in the third-person possessive, so that cases take the pronominal n. plural: ends in -ler or -lar.
    """

    possessed: bool = False
    plural: bool = False


def _inflected(text: str, possessed: bool = False, plural: bool = False) -> Inflected:
    result = Inflected(text)
    result.possessed, result.plural = possessed, plural
    return result


class Suffix(NamedTuple):
    """A suffix as grammars write it: `A` e or a; `I` i, ü, ı or u; `D` d or t; a bracketed letter stands only where it is needed.

    possessed: its form after a third-person possessive, where that differs. derives: no apostrophe before it on a proper name.
    """

    name: str
    form: str
    possessed: str = ""
    derives: bool = False


class Stem(NamedTuple):
    """written: as it stands before a consonant. linked: before a vowel. joint: an apostrophe or nothing."""

    written: str
    linked: str
    sound: Sound
    joint: str


def _key(word: str) -> str:
    """For foreign words and names: lower case with i for both I and İ."""
    return word.replace("İ", "i").lower()


def _in_tail(character: str) -> bool:
    """White space, the end of a sentence, emoji and what joins them: a suffix goes before these."""
    return character in "!?…,;:\ufe0f" or character.isspace() or unicodedata.category(character) in ("So", "Sk", "Cf", "Cc", "Co", "Cn")


def _split(text: str) -> tuple[str, str, str]:
    """What comes before the last word, the last word, and what comes after it."""
    end = len(text)
    while end and _in_tail(text[end - 1]):
        end -= 1
    start = end
    while start and not text[start - 1].isspace():
        start -= 1
    return text[:start], text[start:end], text[end:]


def _soften(word: str, key: str) -> str:
    """The word with its last consonant softened, if this is a word that softens."""
    syllables = sum(letter in _VOWELS for letter in key)
    final, before = key[-1], key[-2:-1]
    general = (
        syllables > 1
        and key not in HARD
        and (
            (final in "pk" and before in _VOWELS and not (final == "k" and key in DROPPING)) or final == "ç" or key.endswith(("log", "gog"))
        )
    )
    if not (general or key in SOFT_MONOSYLLABLES or key in SOFT_POLYSYLLABLES):
        return word
    return word[:-1] + ("g" if key.endswith("nk") else _SOFTENED[final])


def _linked(word: str) -> str:
    """A Turkish word as it stands before a vowel."""
    key = _plain(word.split("-")[-1])
    if not key or not word[-1].islower():
        return word
    if key in LINKED_BY_Y:
        return word + "y"
    softened = _soften(word, key)
    if key in DROPPING:
        return softened[:-2] + softened[-1]
    return softened + softened[-1] if key in DOUBLING else softened


def _linked_after_suffix(word: str) -> str:
    """A word that already bears a suffix: only -k softens (dakikalık, dakikalığı), and no table is asked (kar + ın is not karın)."""
    return word[:-1] + "ğ" if re.search(r"[aıoueiöü]k$", word) else word


def _joint(word: str, apart: bool, suffix: Suffix, proper: bool | None) -> str:
    """Whether an apostrophe goes between a word without suffixes and its first one."""
    first = next((character for character in word if character.isalpha()), "")
    plain = _plain(word)
    if proper is None:
        closed_class = plain in PRONOMINAL or plain in PRONOUNS or plain in LANGUAGES
        proper = apart or (first.isupper() and not closed_class)
    return APOSTROPHE if proper and (apart or not suffix.derives) else ""


def _stem(text: str, word: str, suffix: Suffix, said: str | None, proper: bool | None) -> Stem:
    reading = Reading(_nfc(said), True) if said and said.strip() else _reading(word)
    sound = _sound(reading.text)
    if isinstance(text, Inflected) or _INFLECTED.search(word):
        return Stem(word, _linked_after_suffix(word), sound, "")
    if word[-1:] in _CLOSING:
        return Stem(word, word, sound, "")
    joint = _joint(word, reading.apart, suffix, proper)
    keeps_letters = joint or reading.apart
    return Stem(word, word if keeps_letters else _linked(word), sound, joint)


def _attach(stem: Stem, form: str) -> str:
    """The stem with a suffix in its surface form."""
    buffer, rest = (form[1], form[3:]) if form.startswith("(") else ("", form)
    linked = stem.written != stem.linked
    after_vowel = stem.sound.ends_in_vowel and not (linked and (rest[0] in "AI" or buffer == "I"))
    if buffer == "I":
        rest = rest if after_vowel else buffer + rest
    elif buffer and after_vowel:
        rest = buffer + rest
    body = stem.linked if rest[0] in "AI" else stem.written
    return body + stem.joint + _harmonise(rest, stem.sound)


def _harmonise(form: str, sound: Sound) -> str:
    """Archiphonemes made letters, each by what stands before it."""
    letters: list[str] = []
    rounded, voiceless = sound.rounded, sound.voiceless
    for symbol in form:
        if symbol == "A":
            letter = "e" if sound.front else "a"
        elif symbol == "I":
            letter = ("ü" if rounded else "i") if sound.front else ("u" if rounded else "ı")
        elif symbol == "D":
            letter = "t" if voiceless else "d"
        else:
            letter = symbol
        if letter in _VOWELS:
            rounded = letter in _ROUNDED
        voiceless = letter in _VOICELESS
        letters.append(letter)
    return "".join(letters)


def _has_word(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _is_possessed(text: str, word: str) -> bool:
    """Whether the pronominal n is due without being asked for: along a chain, and after closed classes and -ki (evdeki)."""
    if isinstance(text, Inflected) and text.possessed:
        return True
    plain = _plain(word)
    return plain in PRONOMINAL or plain in COMPOUNDS or (len(plain) > 5 and plain.endswith(("daki", "deki", "taki", "teki")))


def _add(
    text: object,
    suffix: Suffix,
    said: str | None = None,
    proper: bool | None = None,
    possessed: bool = False,
    makes_possessed: bool = False,
    makes_plural: bool = False,
) -> str:
    """The text with `suffix` on its last word; as it is if it has no word."""
    source = text if isinstance(text, str) else str(text)
    plain = _nfc(source)
    head, word, tail = _split(plain)
    if not _has_word(word) and not (word and said):
        return plain
    irregular = PRONOUNS.get(tr_lower(word), {}).get(suffix.name, "") if proper is not True and not said else ""
    if irregular:
        inflected = tr_capital(irregular) if word[0].isupper() else irregular
    else:
        form = suffix.possessed if suffix.possessed and (possessed or _is_possessed(source, word)) else suffix.form
        inflected = _attach(_stem(source, word, suffix, said, proper), form)
    return _inflected(head + inflected + tail, makes_possessed, makes_plural)


def _bare_compound(text: object) -> tuple[str, bool]:
    """The text with a declared compound at its end made bare, and whether there was one."""
    plain = _nfc(text)
    head, word, tail = _split(plain)
    bare = COMPOUNDS.get(tr_lower(word))
    return (head + word[0] + bare[1:] + tail, True) if bare else (plain, False)


def _of_person(forms: dict[str, str], person: str, name: str) -> str:
    """Raises UserError for a person that is not among `forms`."""
    if person not in forms:
        raise UserError(f"{name}: person {person!r} is not one of {one_of(forms)}{did_you_mean(person, forms)}")
    return forms[person]


# ---- Filters: cases. ----


def tr_dative(text: object, said: str | None = None, proper: bool | None = None, possessed: bool = False) -> str:
    """To: -(y)e, -(y)a (yönelme durumu).

    {{ "kitap" | tr_dative }} -> kitaba
    {{ "Zonguldak" | tr_dative }} -> Zonguldak'a
    {{ 6 | tr_dative }} -> 6'ya
    {{ "el çantası" | tr_dative(possessed=True) }} -> el çantasına
    """
    return _add(text, Suffix("dative", "(y)A", "nA"), said, proper, possessed)


def tr_ablative(text: object, said: str | None = None, proper: bool | None = None, possessed: bool = False) -> str:
    """From: -den, -dan, -ten, -tan (ayrılma durumu).

    {{ "sokak" | tr_ablative }} -> sokaktan
    {{ "saat" | tr_ablative }} -> saatten
    {{ "GitHub" | tr_ablative }} -> GitHub'dan
    """
    return _add(text, Suffix("ablative", "DAn", "nDAn"), said, proper, possessed)


def tr_locative(text: object, said: str | None = None, proper: bool | None = None, possessed: bool = False) -> str:
    """In, on, at: -de, -da, -te, -ta (bulunma durumu).

    {{ "Rust" | tr_locative }} -> Rust'ta
    {{ 2024 | tr_locative }} -> 2024'te
    {{ "ev" | tr_possessive | tr_locative }} -> evinde
    """
    return _add(text, Suffix("locative", "DA", "nDA"), said, proper, possessed)


def tr_genitive(text: object, said: str | None = None, proper: bool | None = None, possessed: bool = False) -> str:
    """Of, as the owner: -(n)in, -(n)ın, -(n)un, -(n)ün (tamlayan durumu).

    {{ "su" | tr_genitive }} -> suyun
    {{ "API" | tr_genitive }} -> API'nin
    {{ "ben" | tr_genitive }} -> benim
    """
    return _add(text, Suffix("genitive", "(n)In", "nIn"), said, proper, possessed)


def tr_accusative(text: object, said: str | None = None, proper: bool | None = None, possessed: bool = False) -> str:
    """The definite object: -(y)i, -(y)ı, -(y)u, -(y)ü (belirtme durumu).

    {{ "rol" | tr_accusative }} -> rolü
    {{ "burun" | tr_accusative }} -> burnu
    {{ "cache" | tr_accusative(said="keş") }} -> cache'i
    """
    return _add(text, Suffix("accusative", "(y)I", "nI"), said, proper, possessed)


def tr_instrumental(text: object, said: str | None = None, proper: bool | None = None, possessed: bool = False) -> str:
    """With, by means of (ile): -le, -la, -yle, -yla. `possessed` is taken for uniformity and changes nothing: eviyle.

    {{ "araba" | tr_instrumental }} -> arabayla
    {{ "Docker" | tr_instrumental }} -> Docker'la
    {{ "sen" | tr_instrumental }} -> seninle
    """
    return _add(text, Suffix("instrumental", "(y)lA"), said, proper, possessed)


# ---- Filters: number and person. ----

_POSSESSIVES = {"1sg": "(I)m", "2sg": "(I)n", "3sg": "(s)I", "1pl": "(I)mIz", "2pl": "(I)nIz", "3pl": "lArI"}
_COPULAS = {"1sg": "(y)Im", "2sg": "sIn", "3sg": "DIr", "1pl": "(y)Iz", "2pl": "sInIz", "3pl": "DIrlAr"}
_QUESTIONS = {"1sg": "mIyIm", "2sg": "mIsIn", "3sg": "mI", "1pl": "mIyIz", "2pl": "mIsInIz", "3pl": "mI"}


def tr_possessive(text: object, person: str = "3sg", said: str | None = None, proper: bool | None = None) -> str:
    """My, your, his: -(i)m, -(i)n, -(s)i, -(i)miz, -(i)niz, -leri (iyelik ekleri), by `person` 1sg, 2sg, 3sg, 1pl, 2pl, 3pl.

    {{ "araba" | tr_possessive }} -> arabası
    {{ "kitap" | tr_possessive("1sg") }} -> kitabım
    {{ "ev" | tr_plural | tr_possessive("3pl") }} -> evleri
    {{ "köpek" | tr_possessive | tr_dative }} -> köpeğine
    """
    form = _of_person(_POSSESSIVES, person, "tr_possessive")
    if person == "3pl" and isinstance(text, Inflected) and text.plural:
        form = _POSSESSIVES["3sg"]  # evleri is their houses too: -ler is not said twice
    bare, was_compound = _bare_compound(text)
    return _add(bare if was_compound else text, Suffix("possessive", form), said, proper, makes_possessed=person in ("3sg", "3pl"))


def tr_plural(text: object, said: str | None = None, proper: bool | None = None) -> str:
    """-ler, -lar (çokluk eki). Make a compound of the plural, not a plural of the compound: işletim ~ sistem | tr_plural | tr_possessive.

    {{ "saat" | tr_plural }} -> saatler
    {{ "Ahmet" | tr_plural | tr_dative }} -> Ahmetlere
    {{ "thread" | tr_plural }} -> thread'ler
    {{ "atasözü" | tr_plural | tr_locative }} -> atasözlerinde
    """
    bare, was_compound = _bare_compound(text)
    if was_compound:
        return _add(bare, Suffix("plural", _POSSESSIVES["3pl"], derives=True), said, proper, makes_possessed=True)
    return _add(text, Suffix("plural", "lAr", derives=True), said, proper, makes_plural=True)


def tr_copula(text: object, person: str = "3sg", said: str | None = None, proper: bool | None = None) -> str:
    """Am, are, is: -(y)im, -sin, -dir, -(y)iz, -siniz, -dirler (ek eylem), by `person`.

    {{ "yorgun" | tr_copula("1sg") }} -> yorgunum
    {{ "çocuk" | tr_copula("2pl") }} -> çocuksunuz
    {{ "mutlu" | tr_copula("1pl") }} -> mutluyuz
    """
    return _add(text, Suffix("copula", _of_person(_COPULAS, person, "tr_copula")), said, proper)


def tr_dir(text: object, said: str | None = None, proper: bool | None = None) -> str:
    """Is, of a definition or a certainty: -dir, -dır, -dur, -dür, -tir, -tır, -tur, -tür (bildirme eki).

    {{ "kitap" | tr_dir }} -> kitaptır
    {{ "Ankara" | tr_dir }} -> Ankara'dır
    """
    return _add(text, Suffix("copula", _COPULAS["3sg"]), said, proper)


# ---- Filters: derivation. ----


def tr_with(text: object, said: str | None = None, proper: bool | None = None) -> str:
    """Having, coming from: -li, -lı, -lu, -lü.

    {{ "süt" | tr_with }} -> sütlü
    {{ "Ankara" | tr_with }} -> Ankaralı
    """
    return _add(text, Suffix("with", "lI", derives=True), said, proper)


def tr_without(text: object, said: str | None = None, proper: bool | None = None) -> str:
    """Lacking: -siz, -sız, -suz, -süz.

    {{ "şeker" | tr_without }} -> şekersiz
    {{ "buffer" | tr_without }} -> buffer'sız
    """
    return _add(text, Suffix("without", "sIz", derives=True), said, proper)


def tr_lik(text: object, said: str | None = None, proper: bool | None = None) -> str:
    """-ness, or for a measure of: -lik, -lık, -luk, -lük.

    {{ "güzel" | tr_lik }} -> güzellik
    {{ 10 | tr_lik }} -> 10'luk
    """
    return _add(text, Suffix("lik", "lIk", derives=True), said, proper)


def tr_ordinal(text: object, said: str | None = None, proper: bool | None = None) -> str:
    """The ordinal of a number in words or digits: -(i)nci.

    {{ "dört" | tr_ordinal }} -> dördüncü
    {{ 2 | tr_ordinal }} -> 2'nci
    """
    return _add(text, Suffix("ordinal", "(I)ncI", derives=True), said, proper)


# ---- Filters: particles, words of their own. ----


def _particle(text: object, form: str, said: str | None) -> str:
    """The text and a separate word that harmonises with its last one."""
    plain = _nfc(text)
    head, word, tail = _split(plain)
    if not _has_word(word):
        return plain
    reading = _nfc(said) if said and said.strip() else _reading(word).text
    return f"{head}{word} {_harmonise(form, _sound(reading))}{tail}"


def tr_question(text: object, person: str = "3sg", said: str | None = None) -> str:
    """The question particle mi, mı, mu, mü, a word of its own; by `person` miyim, misin, mi, miyiz, misiniz, mi.

    {{ "kolay" | tr_question }} -> kolay mı
    {{ "yorgun" | tr_question("2sg") }} -> yorgun musun
    {{ "Rust" | tr_question }}? -> Rust mı?
    """
    return _particle(text, _of_person(_QUESTIONS, person, "tr_question"), said)


def tr_too(text: object, said: str | None = None) -> str:
    """Too, also: de, da, a word of its own that is never te or ta.

    {{ "kitap" | tr_too }} -> kitap da
    {{ "sen" | tr_too }} -> sen de
    """
    return _particle(text, "dA", said)


FILTERS: dict[str, Callable[..., str]] = {
    function.__name__: function
    for function in (
        tr_dative,
        tr_ablative,
        tr_locative,
        tr_genitive,
        tr_accusative,
        tr_instrumental,
        tr_possessive,
        tr_plural,
        tr_copula,
        tr_dir,
        tr_with,
        tr_without,
        tr_lik,
        tr_ordinal,
        tr_question,
        tr_too,
        tr_lower,
        tr_upper,
        tr_capital,
    )
}


def usage() -> dict[str, str]:
    """Each filter's name to its help: what it does, then examples as `template -> text` lines."""
    from inspect import cleandoc

    return {name: cleandoc(function.__doc__ or "") for name, function in FILTERS.items()}
