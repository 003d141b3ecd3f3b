"""Turkish suffixes: correct by TDK's spelling guide, case by case and rule by rule; safe on any text."""

from __future__ import annotations

import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators import turkish_suffixes as ts
from generators.errors import UserError
from generators.templates import render_text

ROOT = Path(__file__).parents[1]


def _cases(table: str) -> list[tuple[str, str]]:
    """Lines `word form, word form, ...` as pairs; an underscore stands for a blank."""
    pairs = [pair.split() for pair in re.split(r",\s+|\n", table) if pair.strip()]
    return [(word.replace("_", " "), form.replace("_", " ")) for word, form in pairs]


def _flat(tables: dict[str, list[tuple[str, str]]]) -> list[tuple[str, str, str]]:
    return [(name, *case) for name, table in tables.items() for case in table]


DATIVE = _cases("""
    ev eve, araba arabaya, okul okula, göz göze, kız kıza, köy köye, kedi kediye, kuzu kuzuya, ütü ütüye, kapı kapıya
    kitap kitaba, ağaç ağaca, köpek köpeğe, sokak sokağa, çocuk çocuğa, renk renge, kanat kanada, dolap dolaba, mektup mektuba
    top topa, ip ipe, saç saça, süt süte, at ata, ok oka, park parka, kap kaba, dip dibe, cep cebe, kalp kalbe, dert derde
    sepet sepete, internet internete, bilet bilete, hukuk hukuka, ahlak ahlaka, merak meraka, robot robota
    saat saate, rol role, gol gole, hal hale, alkol alkole, dikkat dikkate, kontrol kontrole, harf harfe, kabul kabule, hayal hayale
    burun burna, ağız ağza, akıl akla, şehir şehre, oğul oğla, vakit vakte, karın karna, beyin beyne, omuz omza, isim isme
    hak hakka, his hisse, hat hatta, sır sırra, ret redde, af affa, zıt zıdda
    su suya, ne neye, kâğıt kâğıda, dükkân dükkâna, hâl hâle, rüzgâr rüzgâra, hikâye hikâyeye
    ben bana, sen sana, o ona, bu buna, şu şuna, biz bize, siz size, kim kime
    Ankara Ankara'ya, İzmir İzmir'e, Zonguldak Zonguldak'a, Ahmet Ahmet'e, Ayşe Ayşe'ye, Kemal Kemal'e, Türkiye Türkiye'ye
    yapay_zekâ yapay_zekâya, hepsi hepsine, kendi kendine, biri birine, evdeki evdekine, gökyüzü gökyüzüne, Türkçe Türkçeye
""")

ACCUSATIVE = _cases("""
    ev evi, araba arabayı, okul okulu, göz gözü, kız kızı, kuzu kuzuyu, ütü ütüyü, kapı kapıyı, bilgisayar bilgisayarı
    kitap kitabı, ağaç ağacı, köpek köpeği, renk rengi, amaç amacı, sonuç sonucu, cevap cevabı, sebep sebebi, bilinç bilinci
    top topu, saç saçı, süt sütü, maç maçı, kök kökü, ok oku, ek eki, grup grubu, ahenk ahengi, çelenk çelengi, bank bankı
    güç gücü, uç ucu, genç genci, taç tacı, borç borcu, kurt kurdu, yurt yurdu, gök göğü, tat tadı, dört dördü
    armut armudu, umut umudu, yoğurt yoğurdu, kilit kilidi, vücut vücudu, standart standardı, bulut bulutu, hareket hareketi, devlet devleti
    psikolog psikoloğu, katalog kataloğu, diyalog diyaloğu, mantık mantığı, fizik fiziği, müzik müziği, sandviç sandviçi
    rol rolü, gol golü, alkol alkolü, petrol petrolü, sembol sembolü, protokol protokolü, usul usulü, ampul ampulü
    saat saati, hal hali, hâl hâli, kalp kalbi, harf harfi, seyahat seyahati, ihtimal ihtimali, ideal ideali, normal normali, sinyal sinyali
    hayat hayatı, sanat sanatı, kanal kanalı, masal masalı, kural kuralı, portakal portakalı
    burun burnu, ağız ağzı, akıl aklı, şehir şehri, fikir fikri, resim resmi, gönül gönlü, göğüs göğsü, zihin zihni, ömür ömrü, metin metni
    hüküm hükmü, zulüm zulmü, sabır sabrı, nehir nehri, kayıp kaybı, kayıt kaydı, izin izni, özür özrü, şekil şekli, ufuk ufku, nutuk nutku
    hak hakkı, his hissi, hat hattı, sır sırrı, zam zammı, tıp tıbbı, af affı, üs üssü, had haddi
    su suyu, ne neyi, ben beni, sen seni, o onu, bu bunu, kâr kârı, mekân mekânı
    Ankara Ankara'yı, İstanbul İstanbul'u, Mehmet Mehmet'i, Zeynep Zeynep'i, Atatürk Atatürk'ü, Gül Gül'ü
    Türkçe Türkçeyi, atasözü atasözünü, yeryüzü yeryüzünü, hangisi hangisini
""")

LOCATIVE = _cases("""
    ev evde, okul okulda, sokak sokakta, ağaç ağaçta, kitap kitapta, iş işte, saat saatte, rol rolde, süt sütte, raf rafta, sabah sabahta
    burun burunda, şehir şehirde, hak hakta, su suda, o onda, kalp kalpte, İzmir İzmir'de, Sivas Sivas'ta, Türkiye Türkiye'de, Uşak Uşak'ta
    ofis ofiste, kendi kendinde, dikkat dikkatte, ders derste, film filmde
""")

ABLATIVE = _cases("""
    ev evden, okul okuldan, sokak sokaktan, ağaç ağaçtan, kitap kitaptan, saat saatten, su sudan, şu şundan, Ankara Ankara'dan
    Paris Paris'ten, akıl akıldan, hal halden, renk renkten, deniz denizden, biri birinden, sen senden, sınıf sınıftan
""")

GENITIVE = _cases("""
    ev evin, araba arabanın, kuzu kuzunun, köpek köpeğin, kitap kitabın, saat saatin, rol rolün, su suyun, akarsu akarsuyun, ne neyin
    ben benim, biz bizim, sen senin, siz sizin, o onun, bu bunun, şehir şehrin, hak hakkın, çocuk çocuğun, göz gözün, Ayşe Ayşe'nin
    İstanbul İstanbul'un, Ürdün Ürdün'ün, Burak Burak'ın, biri birinin, hepsi hepsinin, Türkçe Türkçenin
""")

INSTRUMENTAL = _cases("""
    ev evle, araba arabayla, kalem kalemle, köpek köpekle, su suyla, saat saatle, rol rolle, gol golle, kedi kediyle, ben benimle
    sen seninle, biz bizimle, siz sizinle, o onunla, bu bununla, ne neyle, Ali Ali'yle
    Ahmet Ahmet'le, kitap kitapla, dikkat dikkatle, hak hakla
""")

PLURAL = _cases("""
    ev evler, araba arabalar, saat saatler, rol roller, kitap kitaplar, göz gözler, okul okullar, hal haller, burun burunlar, kalp kalpler
    Ahmet Ahmetler, Türk Türkler, bu bunlar, o onlar, su sular, atasözü atasözleri, buzdolabı buzdolapları, harf harfler, sinyal sinyaller
""")

POSSESSIVE = _cases("""
    ev evi, araba arabası, kitap kitabı, köpek köpeği, su suyu, burun burnu, ağız ağzı, hak hakkı, saat saati, rol rolü, kedi kedisi
    kuzu kuzusu, ütü ütüsü, renk rengi, cep cebi, his hissi, oğul oğlu, şehir şehri, atasözü atasözü, kapı kapısı, Ayşe Ayşe'si
""")

DIR = _cases("""
    ev evdir, okul okuldur, kitap kitaptır, güzel güzeldir, çocuk çocuktur, göz gözdür, süt süttür, ağaç ağaçtır, saat saattir, kız kızdır
    iş iştir, yok yoktur, var vardır, Ankara Ankara'dır
""")

WITH = _cases("süt sütlü, tuz tuzlu, akıl akıllı, Ankara Ankaralı, İstanbul İstanbullu, saat saatli, dikkat dikkatli, rol rollü")
WITHOUT = _cases("süt sütsüz, şeker şekersiz, tuz tuzsuz, akıl akılsız, su susuz, dikkat dikkatsiz, o onsuz, ben bensiz, rol rolsüz")
QUESTION = _cases("""
    geldin geldin_mi, kitap kitap_mı, okul okul_mu, göz göz_mü, saat saat_mi, rol rol_mü, Rust Rust_mı, Ankara Ankara_mı
    4 4_mü, güzel güzel_mi
""")
TOO = _cases("ben ben_de, kitap kitap_da, sokak sokak_da, saat saat_de, Ankara Ankara_da, göz göz_de, okul okul_da")
ORDINAL = _cases("""
    bir birinci, iki ikinci, üç üçüncü, dört dördüncü, altı altıncı, on onuncu, yüz yüzüncü, 8 8'inci, 2 2'nci, 6 6'ncı, 100 100'üncü
""")
LIK = _cases("güzel güzellik, iyi iyilik, dost dostluk, göz gözlük, çocuk çocukluk, gün günlük, 10 10'luk, 5 5'lik")

TABLES = {
    "tr_dative": DATIVE,
    "tr_accusative": ACCUSATIVE,
    "tr_locative": LOCATIVE,
    "tr_ablative": ABLATIVE,
    "tr_genitive": GENITIVE,
    "tr_instrumental": INSTRUMENTAL,
    "tr_plural": PLURAL,
    "tr_possessive": POSSESSIVE,
    "tr_dir": DIR,
    "tr_with": WITH,
    "tr_without": WITHOUT,
    "tr_question": QUESTION,
    "tr_too": TOO,
    "tr_ordinal": ORDINAL,
    "tr_lik": LIK,
}


@pytest.mark.parametrize(("name", "word", "form"), _flat(TABLES))
def test_an_ordinary_word_or_name_takes_the_suffix(name: str, word: str, form: str) -> None:
    assert ts.FILTERS[name](word) == form


NUMBERS = {
    "tr_dative": _cases("""
        0 0'a, 1 1'e, 2 2'ye, 3 3'e, 5 5'e, 6 6'ya, 7 7'ye, 9 9'a, 10 10'a, 20 20'ye, 30 30'a, 40 40'a, 50 50'ye, 60 60'a, 70 70'e
        80 80'e, 90 90'a, 100 100'e, 1000 1000'e, 1.000 1.000'e, 1000000 1000000'a, 15.30 15.30'a, %50 %50'ye, M2 M2'ye
    """),
    "tr_locative": _cases("""
        4 4'te, 3 3'te, 40 40'ta, 70 70'te, 1923 1923'te, 2024 2024'te, 2026 2026'da, 1999 1999'da, 17.00 17.00'de, 3.11 3.11'de
    """),
    "tr_ablative": _cases("60 60'tan, 8 8'den"),
    "tr_accusative": _cases("5 5'i, 6 6'yı, 10 10'u, 100 100'ü"),
    "tr_genitive": _cases("2 2'nin, 3 3'ün, 9 9'un"),
    "tr_instrumental": _cases("2 2'yle, 5 5'le"),
    "tr_possessive": _cases("20 20'si, 10 10'u"),
    "tr_plural": _cases("90 90'lar"),
    "tr_with": _cases("1980 1980'li"),
    "tr_dir": _cases("4 4'tür"),
}

ABBREVIATIONS = {
    "tr_genitive": _cases("TDK TDK'nin, TBMM TBMM'nin, TL TL'nin, API API'nin, BOTAŞ BOTAŞ'ın, C C'nin"),
    "tr_dative": _cases("""
        TV TV'ye, THY THY'ye, CPU CPU'ya, HTTP HTTP'ye, USB USB'ye, UTC UTC'ye, ODTÜ ODTÜ'ye, NATO NATO'ya, UNESCO UNESCO'ya, Z Z'ye
        ChatGPT ChatGPT'ye
    """),
    "tr_locative": _cases("ABD ABD'de, BM BM'de, HTTP HTTP'de, MySQL MySQL'de, ASELSAN ASELSAN'da, macOS macOS'te"),
    "tr_ablative": _cases("TRT TRT'den, A A'dan, kg kg'dan, mm mm'den"),
    "tr_accusative": _cases("API API'yi, GPU GPU'yu, SQL SQL'i, IP IP'yi, SSD SSD'yi, cm cm'yi"),
    "tr_plural": _cases("API API'ler, GPU GPU'lar"),
}

FOREIGN = {
    "tr_locative": _cases("""
        Rust Rust'ta, Python Python'da, GitHub GitHub'da, Linux Linux'ta, Google Google'da, Mac Mac'te, cache cache'te
        framework framework'te, JavaScript JavaScript'te, YouTube YouTube'da, Kubernetes Kubernetes'te, Node.js Node.js'te
    """),
    "tr_genitive": _cases("Rust Rust'ın, Apple Apple'ın, Java Java'nın"),
    "tr_dative": _cases("""
        Python Python'a, Docker Docker'a, GitHub GitHub'a, Google Google'a, Mac Mac'e, cache cache'e, deploy deploy'a, server server'a
        branch branch'e, deadlock deadlock'a, borrow_checker borrow_checker'a, Facebook Facebook'a, Emily Emily'ye
        PostgreSQL PostgreSQL'e
    """),
    "tr_accusative": _cases("""
        Docker Docker'ı, Linux Linux'u, cache cache'i, thread thread'i, framework framework'ü, commit commit'i, crate crate'i
        trait trait'i, queue queue'yu, token token'ı, Windows Windows'u
    """),
    "tr_plural": _cases("thread thread'ler"),
    "tr_without": _cases("buffer buffer'sız"),
}


@pytest.mark.parametrize(("name", "text", "form"), _flat(NUMBERS))
def test_a_number_is_read_by_its_last_spoken_word(name: str, text: str, form: str) -> None:
    assert ts.FILTERS[name](text) == form


@pytest.mark.parametrize(("name", "text", "form"), _flat(ABBREVIATIONS))
def test_an_abbreviation_is_read_by_its_last_letter_or_as_declared(name: str, text: str, form: str) -> None:
    assert ts.FILTERS[name](text) == form


@pytest.mark.parametrize(("name", "text", "form"), _flat(FOREIGN))
def test_a_technical_word_is_read_as_its_users_say_it(name: str, text: str, form: str) -> None:
    assert ts.FILTERS[name](text) == form


def test_there_are_at_least_two_hundred_cases() -> None:
    assert len(set(_flat(TABLES) + _flat(NUMBERS) + _flat(ABBREVIATIONS) + _flat(FOREIGN))) >= 200


@pytest.mark.parametrize(
    ("person", "ev", "araba", "kitap", "su", "ağız"),
    [
        ("1sg", "evim", "arabam", "kitabım", "suyum", "ağzım"),
        ("2sg", "evin", "araban", "kitabın", "suyun", "ağzın"),
        ("3sg", "evi", "arabası", "kitabı", "suyu", "ağzı"),
        ("1pl", "evimiz", "arabamız", "kitabımız", "suyumuz", "ağzımız"),
        ("2pl", "eviniz", "arabanız", "kitabınız", "suyunuz", "ağzınız"),
        ("3pl", "evleri", "arabaları", "kitapları", "suları", "ağızları"),
    ],
)
def test_the_possessive_has_six_persons(person: str, ev: str, araba: str, kitap: str, su: str, ağız: str) -> None:
    forms = [ts.tr_possessive(word, person) for word in ("ev", "araba", "kitap", "su", "ağız")]
    assert forms == [ev, araba, kitap, su, ağız]


@pytest.mark.parametrize(
    ("person", "forms"),
    [
        ("1sg", ["yorgunum", "mutluyum", "çocuğum", "gencim"]),
        ("2sg", ["yorgunsun", "mutlusun", "çocuksun", "gençsin"]),
        ("3sg", ["yorgundur", "mutludur", "çocuktur", "gençtir"]),
        ("1pl", ["yorgunuz", "mutluyuz", "çocuğuz", "genciz"]),
        ("2pl", ["yorgunsunuz", "mutlusunuz", "çocuksunuz", "gençsiniz"]),
        ("3pl", ["yorgundurlar", "mutludurlar", "çocukturlar", "gençtirler"]),
    ],
)
def test_the_copula_has_six_persons(person: str, forms: list[str]) -> None:
    assert [ts.tr_copula(word, person) for word in ("yorgun", "mutlu", "çocuk", "genç")] == forms


@pytest.mark.parametrize(
    ("person", "form"),
    [
        ("1sg", "yorgun muyum"),
        ("2sg", "yorgun musun"),
        ("3sg", "yorgun mu"),
        ("1pl", "yorgun muyuz"),
        ("2pl", "yorgun musunuz"),
        ("3pl", "yorgun mu"),
    ],
)
def test_the_question_particle_has_persons(person: str, form: str) -> None:
    assert ts.tr_question("yorgun", person) == form


def test_the_question_particle_goes_before_a_question_mark() -> None:
    assert ts.tr_question("Bugün yorgun?") == "Bugün yorgun mu?"


@pytest.mark.parametrize("function", [ts.tr_possessive, ts.tr_copula, ts.tr_question])
def test_an_unknown_person_is_an_error_that_lists_the_known_ones(function) -> None:
    with pytest.raises(UserError, match=rf"{function.__name__}: person '1s' is not one of 1sg, 2sg.*did you mean '1sg'\?"):
        function("ev", "1s")


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("tr_dative", "el çantası", "el çantasına"),
        ("tr_locative", "işletim sistemi", "işletim sisteminde"),
        ("tr_ablative", "iş yeri", "iş yerinden"),
        ("tr_accusative", "masa örtüsü", "masa örtüsünü"),
        ("tr_genitive", "ders kitabı", "ders kitabının"),
        ("tr_instrumental", "diş fırçası", "diş fırçasıyla"),
        ("tr_dative", "Van Gölü", "Van Gölü'ne"),
        ("tr_locative", "Rust kitabı", "Rust kitabında"),
        ("tr_accusative", "İstanbul Boğazı", "İstanbul Boğazı'nı"),
    ],
)
def test_a_possessed_word_takes_the_pronominal_n(name: str, text: str, form: str) -> None:
    assert ts.FILTERS[name](text, possessed=True) == form


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ('{{ "ev" | tr_possessive | tr_dative }}', "evine"),
        ('{{ "ev" | tr_possessive("1sg") | tr_dative }}', "evime"),
        ('{{ "kar" | tr_possessive("2sg") | tr_accusative }}', "karını"),
        ('{{ "ev" | tr_plural | tr_dative }}', "evlere"),
        ('{{ "ev" | tr_plural | tr_possessive | tr_locative }}', "evlerinde"),
        ('{{ "ev" | tr_possessive("3pl") | tr_ablative }}', "evlerinden"),
        ('{{ "ev" | tr_plural | tr_possessive("3pl") }}', "evleri"),
        ('{{ "işletim sistem" | tr_plural | tr_possessive | tr_accusative }}', "işletim sistemlerini"),
        ('{{ "Ayşe" | tr_possessive | tr_dative }}', "Ayşe'sine"),
        ('{{ "Ahmet" | tr_plural | tr_genitive }}', "Ahmetlerin"),
        ('{{ "Ankara" | tr_with | tr_dative }}', "Ankaralıya"),
        ('{{ "API" | tr_plural | tr_dative }}', "API'lere"),
        ('{{ "thread" | tr_plural | tr_possessive("1pl") | tr_locative }}', "thread'lerimizde"),
        ('{{ "güzel" | tr_lik | tr_accusative }}', "güzelliği"),
        ('{{ "buzdolabı" | tr_possessive("1sg") }}', "buzdolabım"),
        ('{{ "atasözü" | tr_plural | tr_locative }}', "atasözlerinde"),
        ('{{ "sokak" | tr_locative | tr_question }}?', "sokakta mı?"),
        ('{{ "Rust" | tr_locative | tr_question }}?', "Rust'ta mı?"),
        ('{{ "Rust" | tr_locative }}ki', "Rust'taki"),
        ("{{ 5 | tr_dative }}", "5'e"),
    ],
)
def test_filters_chain_in_templates(template: str, text: str) -> None:
    assert render_text(template) == text


@pytest.mark.parametrize(
    ("name", "text", "said", "form"),
    [
        ("tr_locative", "Rust", "rast", "Rust'ta"),
        ("tr_accusative", "cache", "keş", "cache'i"),
        ("tr_dative", "update", "apdeyt", "update'e"),
        ("tr_genitive", "Shakespeare", "şekspir", "Shakespeare'in"),
        ("tr_dative", "Bordeaux", "bordo", "Bordeaux'ya"),
        ("tr_with", "Bordeaux", "bordo", "Bordeaux'lu"),
        ("tr_locative", "SQL", "es kü el", "SQL'de"),
        ("tr_instrumental", "Peugeot", "pöjo", "Peugeot'yla"),
        ("tr_dative", "++", "artı artı", "++'ya"),
        ("tr_genitive", "Python", "payton", "Python'un"),
    ],
)
def test_said_declares_how_a_word_is_read(name: str, text: str, said: str, form: str) -> None:
    assert ts.FILTERS[name](text, said=said) == form


@pytest.mark.parametrize(
    ("name", "text", "proper", "form"),
    [
        ("tr_dative", "Kitap", False, "Kitaba"),
        ("tr_dative", "kitap", True, "kitap'a"),
        ("tr_accusative", "Şehir", False, "Şehri"),
        ("tr_dative", "deniz", True, "deniz'e"),
        ("tr_plural", "Ahmet", True, "Ahmetler"),
    ],
)
def test_proper_overrides_the_capital_letter(name: str, text: str, proper: bool, form: str) -> None:
    assert ts.FILTERS[name](text, proper=proper) == form


def test_the_name_of_an_institution_takes_no_apostrophe_when_told_so() -> None:
    assert ts.tr_dative("Türk Dil Kurumu", proper=False, possessed=True) == "Türk Dil Kurumuna"


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("kanka 😊", "kankaya 😊"),
        ("ev ", "eve "),
        ("“Sefiller”", "“Sefiller”e"),
        ("vb.", "vb.ye"),
        ("Ankara'daki", "Ankara'dakine"),
        ("Sen", "Sana"),
        ("Hepsi", "Hepsine"),
        ("GPT-4", "GPT-4'e"),
        ("5G", "5G'ye"),
        ("e-posta", "e-postaya"),
        ("e-kitap", "e-kitaba"),
    ],
)
def test_the_suffix_lands_on_the_last_word(text: str, form: str) -> None:
    assert ts.tr_dative(text) == form


@pytest.mark.parametrize(
    ("function", "text", "expected"),
    [
        (ts.tr_lower, "IĞDIR", "ığdır"),
        (ts.tr_lower, "İSTANBUL", "istanbul"),
        (ts.tr_lower, "ŞĞÜÖÇ", "şğüöç"),
        (ts.tr_lower, "I\u0307", "i"),
        (ts.tr_upper, "ışık", "IŞIK"),
        (ts.tr_upper, "istanbul", "İSTANBUL"),
        (ts.tr_upper, "çiğdem", "ÇİĞDEM"),
        (ts.tr_capital, "istanbul", "İstanbul"),
        (ts.tr_capital, "ılık", "Ilık"),
        (ts.tr_capital, "“iyi” dedi", "“İyi” dedi"),
        (ts.tr_capital, "API iyi", "API iyi"),
        (ts.tr_capital, "index'i ekle", "Index'i ekle"),
        (ts.tr_capital, "idempotent. İyi", "Idempotent. İyi"),
    ],
)
def test_casing_is_turkish(function, text: str, expected: str) -> None:
    assert function(text) == expected


@pytest.mark.parametrize("name", sorted(ts.FILTERS))
@pytest.mark.parametrize("text", ["", " ", "...", "😊", "-"])
def test_text_without_a_word_comes_back_as_it_is(name: str, text: str) -> None:
    assert ts.FILTERS[name](text) == text


# ---- Properties. ----

_PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)  # the same examples at every run, however busy the machine
_VOWEL, _CONSONANT = "aıoueiöü", "bcçdfgğhjklmnprsştvyz"
_TWOFOLD = {vowel: "e" if vowel in "eiöü" else "a" for vowel in _VOWEL}
_FOURFOLD = dict(zip("aıoueiöü", "ııuuiiüü", strict=True))
_DECLARED = ts.THIN | ts.DROPPING | ts.DOUBLING | ts.PRONOMINAL | ts.LINKED_BY_Y | {*ts.PRONOUNS, *ts.COMPOUNDS, *ts.FOREIGN}
_TWOFOLD_NAMES = ["tr_dative", "tr_ablative", "tr_locative", "tr_plural", "tr_instrumental"]
_FOURFOLD_NAMES = ["tr_genitive", "tr_accusative", "tr_dir", "tr_with", "tr_without", "tr_possessive", "tr_lik", "tr_question"]
_CASES = ["tr_dative", "tr_accusative", "tr_genitive", "tr_locative", "tr_ablative", "tr_instrumental"]
_INFLECTING = sorted(set(ts.FILTERS) - {"tr_lower", "tr_upper", "tr_capital", "tr_question", "tr_too"})


@st.composite
def turkish_words(draw: st.DrawFn) -> str:
    """Pronounceable words in Turkish letters that no table declares: (C)V(C) syllables."""
    syllables = st.tuples(st.sampled_from(_CONSONANT), st.sampled_from(_VOWEL), st.sampled_from(["", *_CONSONANT])).map("".join)
    word = "".join(draw(st.lists(syllables, min_size=1, max_size=4)))
    if word in _DECLARED or word.endswith(("daki", "deki", "taki", "teki")):
        return "kalem"
    return word


def _vowels(text: str) -> str:
    return "".join(letter for letter in text if letter in _VOWEL)


@_PROPERTY
@given(turkish_words(), st.sampled_from(_TWOFOLD_NAMES))
def test_twofold_suffixes_always_harmonise(word: str, name: str) -> None:
    added = _vowels(ts.FILTERS[name](word))[len(_vowels(word)) :]
    assert added == _TWOFOLD[_vowels(word)[-1]]


@_PROPERTY
@given(turkish_words(), st.sampled_from(_FOURFOLD_NAMES))
def test_fourfold_suffixes_always_harmonise(word: str, name: str) -> None:
    added = _vowels(ts.FILTERS[name](word))[len(_vowels(word)) :]
    assert added == _FOURFOLD[_vowels(word)[-1]]


@_PROPERTY
@given(turkish_words(), st.sampled_from(["tr_dative", "tr_accusative", "tr_genitive", "tr_possessive"]))
def test_two_vowels_never_meet(word: str, name: str) -> None:
    assert not re.search(f"[{_VOWEL}]{{2}}", ts.FILTERS[name](word))


@_PROPERTY
@given(turkish_words())
def test_the_locative_hardens_after_a_voiceless_consonant_and_only_there(word: str) -> None:
    hard = word[-1] in "fstkçşhp" or (word[-1] == "c" and word not in ("hac", "sac"))
    assert ts.tr_locative(word)[-2] == ("t" if hard else "d")


@_PROPERTY
@given(turkish_words(), st.sampled_from([*_CASES, "tr_possessive", "tr_dir"]))
def test_a_proper_name_is_written_unchanged_before_its_apostrophe(word: str, name: str) -> None:
    proper = ts.tr_capital(word)
    assert ts.FILTERS[name](proper, proper=True).startswith(f"{proper}'")


@_PROPERTY
@given(st.text(), st.sampled_from(sorted(ts.FILTERS)), st.sampled_from(sorted(ts.FILTERS)))
def test_no_text_makes_a_filter_or_a_chain_of_two_raise(text: str, first: str, second: str) -> None:
    result = ts.FILTERS[second](ts.FILTERS[first](text))
    assert isinstance(result, str) and result == unicodedata.normalize("NFC", result)


@_PROPERTY
@given(st.text(alphabet="aeıiIİAkKtT'’.,-0123456789%qwxâûl ç"), st.sampled_from(_INFLECTING))
def test_no_text_near_the_rules_makes_a_filter_raise_with_any_parameters(text: str, name: str) -> None:
    for proper in (None, True, False):
        for said in (None, "", " ", "rast", "?!"):
            assert isinstance(ts.FILTERS[name](text, said=said, proper=proper), str)


@pytest.mark.parametrize("text", ["a'" * 1200 + "a", "ev" * 1200, "!" * 1200 + "a", "9" * 5000, "\ud800", "I\u0307'\u200dde"])
def test_no_extreme_text_makes_a_filter_raise(text: str) -> None:
    for name in _INFLECTING:
        assert isinstance(ts.FILTERS[name](text), str)


@_PROPERTY
@given(st.text(), st.sampled_from([ts.tr_lower, ts.tr_upper, ts.tr_capital]))
def test_casing_is_idempotent(text: str, function) -> None:
    assert function(function(text)) == function(text)


@_PROPERTY
@given(st.text(alphabet="abcçdefgğhıijklmnoöprsştuüvyz "))
def test_lower_undoes_upper_in_turkish_letters(text: str) -> None:
    assert ts.tr_lower(ts.tr_upper(text)) == text


# ---- The tables, the help, the import. ----


def test_a_table_holds_only_words_that_break_the_general_rule() -> None:
    def syllables(word: str) -> int:
        return len(_vowels(word))

    assert all(_vowels(word)[-1] in "aıou" for word in ts.THIN)
    assert all(syllables(word) == 1 and word[-1] in "pçtk" for word in ts.SOFT_MONOSYLLABLES)
    assert all(syllables(word) > 1 and (word[-1] == "t" or word[-2:] in ("nk", "rp")) for word in ts.SOFT_POLYSYLLABLES)
    assert all(syllables(word) > 1 and word[-1] in "pçkg" for word in ts.HARD)
    assert all(syllables(word) > 1 and word[-2] in "ıiuü" for word in ts.DROPPING)
    assert not ts.HARD & (ts.SOFT_POLYSYLLABLES | ts.SOFT_MONOSYLLABLES)


@pytest.mark.parametrize("name", sorted(ts.FILTERS))
def test_every_filter_has_help_whose_examples_are_true(name: str) -> None:
    examples = [line.split(" -> ") for line in ts.usage()[name].splitlines() if " -> " in line]
    assert examples
    for template, text in examples:
        assert render_text(template) == text


def test_importing_the_filters_loads_only_the_standard_library() -> None:
    code = "import sys, generators.turkish_suffixes; print(*(m for m in ('jinja2', 'numpy', 'mlx', 'ruamel', 'rich') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
