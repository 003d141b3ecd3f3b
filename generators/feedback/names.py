"""First names in a text, by the words around them and by a list of common ones.

The list is short on purpose: it says which words are names and nothing else ("Ahmet"), and which are words as well ("Deniz" is the sea) and
so are names only where they are written as one: with a capital inside of a sentence, or behind "benim adım". Libraries of names either lack
the Turkish ones or weigh more than the rest of this project.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator

from generators.turkish import fold

Span = tuple[int, int]

# Names that are no other word, in Turkish and in English.
_NAMES = """
    abdullah abdurrahman adem adnan ahmet akif aleyna alican alihan alper alperen anıl asena aslıhan asuman atakan atilla aybüke
    ayberk ayhan aykut aylin aynur aysel aysu aysun ayşe ayşegül ayşenur aytaç azra bahadır batuhan bekir begüm belgin belma berat
    beren berfin berkant berkay berkcan betül birgül birsen burak burcu burçak buse bünyamin büşra caner cansu celal cemal cemile
    cemre ceren ceyda ceyhun ceylin cihat cüneyt çağatay çetin didem dilara dilan doğukan ebrar ecrin ekrem elçin elif elifnur emine
    emirhan emre emrah emrecan enes ercan erdal erdoğan erhan erkan erol ersin ertan ertuğrul esma esra eymen eyüp fadime fahri faruk
    fatih fatma fatmanur ferhat feride feyza fırat furkan gökay gökhan göksel göktuğ gülay gülcan gülden gülhan gülizar gülnur gülsüm
    gülşah gülşen gürkan hakan halil halime halit haluk hamdi hamza handan hande harun hasan hatice hüseyin hüsnü ibrahim idris ilayda
    ilhan ilknur ilyas irem ismail ismet izzet kaan kadir kadriye kazım kemal kenan kerem kerim koray korhan köksal kubilay kübra
    lütfi mahmut mehmet melda melih melike melisa meral merve metehan mete mevlüt miray mithat muhammed muhammet musa mustafa mücahit
    müge münevver müslüm nagihan nazan nazım nazmiye necati necla nermin nesrin neslihan nevzat nihal nihat nilay nilgün nisanur nuray
    nurcan nurdan nurettin nurhan nuriye nurullah oğuz oğuzhan oktay orhan osman ozan ömer özcan özkan öznur pelin perihan pervin
    rabia rahmi rasim rauf remzi rıdvan rıfat rukiye sabri safiye sait salih saliha sami samet sedat selahattin selçuk selda selim
    selma semih semiha semra sercan serdar serhan serhat serkan serpil sertaç sevilay sevtap seyfi sezen sezer sibel simay sinan sinem
    soner suat süheyla süleyman sümeyye şebnem şerife şevket şeyda şeyma şükrü taner tarık tayfun taylan tayyip tolga tolgahan tugay
    tuğba tuğçe tuğrul tülay tülin tuncay turgay turgut türkan türker ümmühan ümran vahit vedat veysel yahya yakup yasin yavuz yeliz
    yıldıray yunus yusuf zehra zekeriya zeynep zeliha zerrin zuhal zübeyde aaron abigail adrian alejandro alexander alexandra alice
    alison amanda amelia andrea andrew angela anna anthony antonio barbara benjamin brandon brian caroline catherine charles charlotte
    christina christine christopher claire daniel danielle david deborah dennis diana dorothy douglas edward elizabeth emily emma eric
    erica ethan eugene evelyn fiona frances frederick gabriel george gloria gregory hannah heather helen henry isabella jacob james
    janet jason jeffrey jennifer jeremy jessica joan john jonathan jose joseph joshua juan judith julie justin karen katherine
    kathleen keith kenneth kevin kimberly kyle larry laura lauren linda lisa louise lucy luis margaret maria marie marilyn martha
    matthew megan melissa michael michelle miguel nancy natalie nathan nicholas nicole olivia pamela patricia patrick paul peter
    philip rachel raymond rebecca richard robert roger ronald samantha samuel sandra sarah scott sean sharon shirley sophia stephanie
    stephen steven susan teresa theresa thomas timothy tyler vincent walter william zachary
""".split()
# Names that are words, months, moments or places as well.
_TURKISH_WORDS_TOO = """
    ada akın alev ali alp altan arda arif arzu asiye aslan aslı asu ata ateş ayça aydın ayla aytekin aziz azize bahar barış başak
    bayram bensu berk berke berna beste bilal bilge bora boran buğra buket bulut burhan çağan çağdaş çağla çağlar çağrı can canan
    candan cem cemil cengiz cenk cevdet ceyhan çiçek çiğdem cihan çınar coşkun damla defne demet deniz derin derya devrim dilek doğa
    doğaç doğan doruk dursun duru duygu ebru ece eda efe ege ekin ela elmas elvan emel emin emir engin erdem eren ergin erkin ersoy
    ertürk esin eylem eylül ezgi fazıl ferah ferdi feyyaz figen fikret filiz fulya funda galip gamze gaye gizem gökçe gökmen gonca
    gönül görkem gözde gül güler güleser gülin gülten güner güney güngör güven hakkı hale halis hasret hava hayrettin hayri
    hazal hilal hülya ilkay ilke ilker inci ipek irfan ışık ışıl itır kamil kaya kayra kıvanç koza kuzey lale lara latife lena levent
    leyla mahir mahperi mavi mehtap melek melis meltem mercan meriç mert mesut metin mina mine mira muharrem murat mutlu muzaffer nail
    naz nazlı nehir neşe nil nilsu nilüfer nisa nur nuri okan olcay ömür onat onur orkun oya öykü özden özge özgür özlem pınar poyraz
    ramazan rana recep refik reyhan rıza rüya rüzgar saadet şaban sadık şafak şahin sarp savaş seçil seda sefa selen selin sema
    semiramis sena senem serap seray şeref servet sevda sevgi sevgül sevil sevim sevinç sezgi sıla simge songül su şule suna taha
    talha tan tekin temel tuana tuba tufan tuna tunç tuncel turan turhan ufuk uğur ülkü ümit umut ünal utku vildan volkan yağız yağmur
    yalçın yaman yaprak yaren yaşar yasemin yeşim yiğit yıldırım yıldız yücel yüksel zafer zeki ziya
""".split()
_ENGLISH_WORDS_TOO = """
    adam amy andy ann april austin ben betty bill bob carol dan dawn don drew eve faith frank gary grace grant hope ian iris jack jane
    jean jim joe joy june kim lee leo lily mark mary max mia mike neil nick noah pat ray rob rose ruth ryan sam tim tina tom tony
    victor will
""".split()
_SURNAMES = """
    yılmaz kaya demir çelik şahin yıldız yıldırım öztürk aydın özdemir arslan doğan kılıç aslan çetin kara koç kurt özkan şimşek polat korkmaz
    çakır erdoğan güneş acar aktaş bulut keskin ünal tekin güler avcı taş aksoy kaplan yalçın coşkun karaca tunç bozkurt özer ateş yavuz
    toprak sarı turan güngör erdem smith johnson williams brown jones miller davis wilson taylor
""".split()
_SUFFIXES = frozenset(
    """e a i ı u ü ye ya yi yı yu yü in ın un ün nin nın nun nün de da te ta den dan ten tan le la yle yla ler lar ciğim cığım cim cım""".split()
)
_LONGEST_SUFFIX = max(map(len, _SUFFIXES))
_LEAST_FOR_SUFFIX = 4  # letters of a name that a suffix may follow without an apostrophe
_NO_SPEAKERS = frozenset(
    "user test tester admin guest root local host anonymous kullanici kullanıcı misafir deneme jessy system client".split()
)
_ASCII = str.maketrans("çğıöşüâîû", "cgiosuaiu")

_WORD = re.compile(r"[^\W\d_]+")
_SAYS_NAME = re.compile(r"(?<!\w)(?:benim (?:adım|adim|ismim)|ismim|adım soyadım|adim soyadim|my name is|my name's|call me)(?: da|:)? +$")
_MAY_SAY_NAME = re.compile(r"(?<!\w)(?:ben|adım|adim|adı|adi|ismi|bana|i am|i'm|this is|arkadaşım|kardeşim|eşim|oğlum|kızım|sayın) +$")
_ANY_CUE = re.compile(r"ad[ıi]|ism|bana|ben|name|call me|i'm|i am|this is|arkadaş|kardeş|eşim|oğlum|kızım|sayın")
_TITLE_BEFORE = re.compile(r"(?<!\w)(?:sayın|mr\.?|mrs\.?|ms\.?|dr\.?|prof\.?) +$")
_TITLE_BEHIND = re.compile(r" (?:bey|hanım|hanim|beyefendi|hanımefendi)(?:['’]?\w{1,4})?(?!\w)")
_FAMILIAR_BEHIND = re.compile(r" (?:abi|abla|hoca|usta|amca|teyze|dayı|kardeş)(?:['’]?\w{1,4})?(?!\w)")
_INSIDE_SENTENCE = re.compile(r"[\w,'’)\"”] $")
_BEHIND_NAME = re.compile(r"\[name\] $")
_REACH = 24  # letters before a word in which it is said what the word is
_NO_NAME = frozenset("ne yok değil degil neydi nedir var not the a an when if you me later back jessy".split())


def forms(name: str) -> Iterator[str]:
    """The words of a name in lower case, as Turkish and as a foreign keyboard write them."""
    for word in _WORD.findall(name):
        for lower in (fold(word), word.replace("İ", "i").lower()):
            yield lower
            yield lower.translate(_ASCII)


def _forms(names: Iterable[str]) -> frozenset[str]:
    return frozenset(form for name in names for form in forms(name))


_PROPER = _forms(_TURKISH_WORDS_TOO)  # in Turkish a capital inside of a sentence, or a suffix behind an apostrophe, makes a name of them
_PLAIN = _forms(_NAMES) - _PROPER - _forms(_ENGLISH_WORDS_TOO)
_LISTED = _PLAIN | _PROPER | _forms(_ENGLISH_WORDS_TOO)
_FAMILIES = _forms(_SURNAMES)


def of_speaker(text: str, speaker: str, stay: frozenset[str]) -> Iterator[Span]:
    """Where the log's user is named, by the whole name or a part of it, with any suffix."""
    if not speaker:
        return
    known = {form for form in forms(speaker) if len(form) > 2} - _NO_SPEAKERS - stay
    yield from (found.span() for found in re.finditer(rf"(?<!\w){re.escape(speaker)}(?!\w)", text, re.IGNORECASE) if speaker not in stay)
    read = _Text(text)
    for found in _WORD.finditer(text):
        if form := _base(read, found.start(), found.end(), known, _LEAST_FOR_SUFFIX):
            yield found.start(), found.start() + len(form)


class _Text:
    """A text in lower case as Turkish and as English reads it, letter by letter in the same places, and whether it may say a name."""

    def __init__(self, text: str):
        self.text, self.turkish, self.english = text, fold(text), text.replace("İ", "i").lower()
        self.has_cue = bool(_ANY_CUE.search(self.turkish) or _ANY_CUE.search(self.english))


def found(text: str, stay: frozenset[str]) -> Iterator[Span]:
    """Where names stand, without their suffixes. text: in NFC. stay: words in lower case that are never taken for one."""
    read = _Text(text)
    for word in _WORD.finditer(text):
        length = _name_in(read, word)
        if length and stay.isdisjoint(forms(word[0][:length])):
            yield word.start(), word.start() + length


def _name_in(read: _Text, found: re.Match[str]) -> int:
    """The letters of the word that are a name, 0 where it is none."""
    word, start, end = found[0], found.start(), found.end()
    listed = _base(read, start, end, _LISTED, _LEAST_FOR_SUFFIX)
    is_capital = word[0].isupper() and not word.isupper()
    if listed in _PLAIN:
        return len(listed)
    if not (listed or is_capital or read.has_cue):
        return 0
    reach = max(0, start - _REACH)
    said = (read.turkish[reach:start], read.english[reach:start])
    if read.has_cue and any(map(_SAYS_NAME.search, said)):
        return 0 if read.turkish[start:end] in _NO_NAME else len(word)
    if len(listed) == len(word) and any(map(_MAY_SAY_NAME.search, said)):
        return len(listed)
    return _by_capital(read, found, listed, said[1]) if is_capital else 0


def _by_capital(read: _Text, found: re.Match[str], listed: str, said: str) -> int:
    """As `_name_in`, of a word that is written with a capital. said: what stands before it."""
    word, end = found[0], found.end()
    behind, inside = read.turkish[end : end + _REACH], bool(_INSIDE_SENTENCE.search(said))
    is_suffixed = behind[:1] in ("'", "’")
    if _TITLE_BEFORE.search(said) or (_TITLE_BEHIND.match(behind) and (inside or listed)):
        return len(word)
    if listed and _FAMILIAR_BEHIND.match(behind):
        return len(listed)
    lower = read.turkish[found.start() : end]
    if _BEHIND_NAME.search(said) and not _TITLE_BEHIND.match(f" {lower}"):
        return len(word) if lower in _FAMILIES or not is_suffixed else 0
    return len(listed) if listed in _PROPER and (inside or is_suffixed) else 0


def _base(read: _Text, start: int, end: int, known: Collection[str], least: int) -> str:
    """The known name that the word at `start` is, or begins with before a suffix; empty where there is none. least: letters from which it
    may have a suffix."""
    lower = read.turkish[start:end]
    if lower in known:
        return lower
    if (english := read.english[start:end]) in known:
        return english
    for length in range(len(lower) - 1, max(least, len(lower) - _LONGEST_SUFFIX) - 1, -1):
        if lower[:length] in known and lower[length:] in _SUFFIXES:
            return lower[:length]
    return ""
