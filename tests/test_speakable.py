"""What is spoken of an answer: Turkish and English in words, nothing that is for the eye alone, sentence by sentence."""

from __future__ import annotations

import re
from functools import cache

import pytest
from hypothesis import example as with_example
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML
from tiny_project import ROOT

from generators.voice import numbers
from generators.voice.speakable import Sentence, Speaker, sentences, speakable

TURKISH = [
    # numbers
    ("1000 adım, 1001 gece, 2000 yıl", "Bin adım, bin bir gece, iki bin yıl"),
    ("1.000.000 kişi", "Bir milyon kişi"),
    ("3,14 pi sayısıdır.", "Üç virgül on dört pi sayısıdır."),
    ("3,05 m uzunlukta.", "Üç virgül sıfır beş metre uzunlukta."),
    ("1,23456 kadar", "Bir virgül iki üç dört beş altı kadar"),
    ("2,5 saat, 1,5 milyon", "İki buçuk saat, bir buçuk milyon"),
    ("0,5 kg un", "Yarım kilogram un"),
    ("0,5 olasılık", "Sıfır virgül beş olasılık"),
    ("0532 123 45 67", "Sıfır beş yüz otuz iki yüz yirmi üç kırk beş altmış yedi"),
    ("1234567890123456", "Bir iki üç dört beş altı yedi sekiz dokuz sıfır bir iki üç dört beş altı"),
    ("10-15 dakika sürer.", "On ila on beş dakika sürer."),
    ("Skor 3-1 bitti.", "Skor üç bir bitti."),
    ("-5 °C soğuk, +3 puan", "Eksi beş derece soğuk, artı üç puan"),
    ("1/2 bardak, 3/4'ü dolu, 7/24 açık", "Yarım bardak, dörtte üçü dolu, yedi yirmi dört açık"),
    ("2+2=4, 5 x 3 = 15, 2^10", "İki artı iki eşittir dört, beş çarpı üç eşittir on beş, iki üzeri on"),
    ("Python 3.11 ve 3.11.4", "Paytın üç nokta on bir ve üç nokta on bir nokta dört"),
    ("v2.0 sürümü, UTF-8, GPT-4", "V iki nokta sıfır sürümü, u te fe sekiz, ge pe te dört"),
    # suffixes
    ("2024'te başladı, 2025'in sonunda biter.", "İki bin yirmi dörtte başladı, iki bin yirmi beşin sonunda biter."),
    ("4'ü, 4'te, 4'e, 40'ı, 100'e", "Dördü, dörtte, dörde, kırkı, yüze"),
    ("3,5'ten büyük.", "Üç virgül beşten büyük."),
    ("90'larda doğdu.", "Doksanlarda doğdu."),
    ("2'şer 2'şer, 5'er", "İkişer ikişer, beşer"),
    ("2024’te", "İki bin yirmi dörtte"),
    # ordinals
    ("2. bölüme geç.", "İkinci bölüme geç."),
    ("Cevap 2. Sonra devam et.", "Cevap iki. Sonra devam et."),
    ("2.", "İki."),
    ("2. Dünya Savaşı 1945'te bitti.", "İkinci Dünya Savaşı bin dokuz yüz kırk beşte bitti."),
    ("1., 2. ve 3. gün", "Birinci, ikinci ve üçüncü gün"),
    ("XX. yüzyıl ve II. Mehmet", "Yirminci yüzyıl ve ikinci Mehmet"),
    ("3'üncü katta, 4'üncüde, 9'uncu, 10'uncu", "Üçüncü katta, dördüncüde, dokuzuncu, onuncu"),
    # per cent, times, dates
    ("%20 indirim var.", "Yüzde yirmi indirim var."),
    ("%20'si bitti, %3,5'i kaldı, 99,9%", "Yüzde yirmisi bitti, yüzde üç virgül beşi kaldı, yüzde doksan dokuz virgül dokuz"),
    ("14:30'da buluşalım.", "On dört otuzda buluşalım."),
    ("Saat 08:05 oldu, 9:00'da kalkıyor.", "Saat sekiz sıfır beş oldu, dokuzda kalkıyor."),
    ("Yarın saat 14.30'da gel.", "Yarın saat on dört otuzda gel."),
    ("29.10.1923'te ilan edildi.", "Yirmi dokuz Ekim bin dokuz yüz yirmi üçte ilan edildi."),
    ("Son tarih 2026-01-31.", "Son tarih otuz bir Ocak iki bin yirmi altı."),
    ("29 Ekim 1923", "Yirmi dokuz Ekim bin dokuz yüz yirmi üç"),
    ("99.99.2024 bir tarih değil.", "Doksan dokuz nokta doksan dokuz nokta iki bin yirmi dört bir tarih değil."),
    # units and money
    ("Model 3,5 GB yer tutuyor.", "Model üç buçuk gigabayt yer tutuyor."),
    ("Hız sınırı 120 km/s.", "Hız sınırı saatte yüz yirmi kilometre."),
    ("Işık 300.000 km/s hızla gider.", "Işık saniyede üç yüz bin kilometre hızla gider."),
    ("Rüzgâr 5 m/s esiyor.", "Rüzgâr saniyede beş metre esiyor."),
    ("hızı km/s olarak", "Hızı kilometre bölü saat olarak"),
    ("İndirme 12,5 MB/s, hat 100 Mbps.", "İndirme saniyede on iki buçuk megabayt, hat saniyede yüz megabit."),
    ("8 GB'lık bellek, 2 TB'ye kadar, 3 ms'lik fark", "Sekiz gigabaytlık bellek, iki terabayta kadar, üç milisaniyelik fark"),
    ("5 m² oda, 2 m³ su, 100 km² alan", "Beş metrekare oda, iki metreküp su, yüz kilometrekare alan"),
    ("24 sa'ten az", "Yirmi dört saatten az"),
    ("1.234,56 TL, 50€ ya da $5, ₺20", "Bin iki yüz otuz dört virgül elli altı lira, elli avro ya da beş dolar, yirmi lira"),
    # abbreviations, capitals, foreign terms
    ("Dr. Ayşe ile Prof. Dr. Can geldi.", "Doktor Ayşe ile profesör doktor Can geldi."),
    ("Elma, armut vb. meyveler; bkz. sayfa 5.", "Elma, armut ve benzeri meyveler; bakınız sayfa beş."),
    ("Elma, armut vb. Sonra un.", "Elma, armut ve benzeri. Sonra un."),
    ("M. Kemal Atatürk 1881'de doğdu.", "M. Kemal Atatürk bin sekiz yüz seksen birde doğdu."),
    ("MÖ 300 yılında", "Milattan önce üç yüz yılında"),
    ("TDK'ye göre NATO'ya, ÇOK güzel", "Te de keye göre natoya, ÇOK güzel"),
    ("API'nin SQL'i", "A pe inin es kyu eli"),
    ("cache'i temizle, thread'leri kapat", "Keşi temizle, tredleri kapat"),
    ("Docker'la GitHub'a push et", "Dakırla githaba puş et"),
    ("Ankara'ya, İzmir’e", "Ankaraya, İzmire"),
    # letters
    ("ırmak", "Irmak"),
    ("iyi", "İyi"),
]

ENGLISH = [
    ("It takes 3.5 GB, not 1 GB.", "It takes three point five gigabytes, not one gigabyte."),
    ("1,234.56 and 1,000,000 and 1001", "One thousand two hundred and thirty-four point five six and one million and one thousand and one"),
    ("20% of 112", "Twenty per cent of one hundred and twelve"),
    ("at 14:30, 2:05 pm, 3:00 or 5 pm", "At fourteen thirty, two oh five p m, three o'clock or five p m"),
    ("in 2024, since 1905, by 2005", "In twenty twenty-four, since nineteen oh five, by two thousand and five"),
    ("In 2024 bytes", "In twenty twenty-four bytes"),
    ("the 1990s and the 90s", "The nineteen nineties and the nineties"),
    ("2024's best", "Twenty twenty-four's best"),
    ("2023-10-29, 29 October 1923", "The twenty-ninth of October twenty twenty-three, the twenty-ninth of October nineteen twenty-three"),
    ("the 2nd, 21st and 103rd", "The second, twenty-first and one hundred and third"),
    ("$5, $1, £3.50, €2.5 million", "Five dollars, one dollar, three pounds fifty, two point five million euros"),
    ("5 MB/s at 120 km/h, 20 °C", "Five megabytes per second at one hundred and twenty kilometres per hour, twenty degrees Celsius"),
    ("3/4, 1/2, 24/7, 10-15 minutes, -5", "Three quarters, one half, twenty-four seven, ten to fifteen minutes, minus five"),
    ("Dr. Smith vs. Mr. Jones, e.g. here.", "Doctor Smith versus Mister Jones, for example here."),
    ("tea, milk etc. are here. Come at 5 p.m. Bye.", "Tea, milk et cetera are here. Come at five p m. Bye."),
    ("2 + 2 = 4, 3 < 5, x >= 2 & y != 3", "Two plus two equals four, three less than five, x at least two and y is not three"),
    ("Python 3.11.4 and GPT-4", "Python three point eleven point four and GPT four"),
    ("don't — it's John's", "Don't, it's John's"),
]

# (text, Turkish)
UNSPOKEN = [
    ("**Kalın**, *eğik*, ~~eski~~ ve ***ikisi***", "Kalın, eğik, eski ve ikisi"),
    ("snake_case_adı ve 5*3", "Snake case adı ve beş çarpı üç"),
    ("# Başlık", "Başlık"),
    ("> alıntı\n>> içinde", "Alıntı İçinde"),
    ("- bir\n* iki\n• üç\n- [x] dört", "Bir İki Üç Dört"),
    ("1. Aç\n2. Kapat\n3) Bitir", "Birincisi, Aç İkincisi, Kapat Üçüncüsü, Bitir"),
    ("| ad | yaş |\n|---|:-:|\n| Can | 5 |", "Ad, yaş Can, beş"),
    ("bir\n\n---\n\niki", "Bir İki"),
    ("Bak:\n```rust\nfn main() {}\n```\nBu kadar.", "Bak Kod yazılı olarak duruyor. Bu kadar."),
    ("```\nyarım", "Kod yazılı olarak duruyor."),
    ("`proxy_read_timeout` ve `a.b()`", "Proksi read taymaut ve a. B"),
    ("[belge](https://a.b/c_(d)) ve ![resim](x.png)", "Belge ve resim"),
    ("Bkz. https://ornek.com/a?b=1. Sonra www.x.org!", "Bakınız bağlantı. Sonra bağlantı!"),
    ("Yaz: ali.veli@ornek.com.tr", "Yaz: e-posta adresi"),
    ("Selam 😀👩‍💻🏽 ❤️ 🇹🇷 1️⃣ ne haber :) ;-) <3 xD", "Selam bir ne haber"),
    ("😀", ""),
    ("", ""),
    ("<b>kalın</b> &amp; ince<br/>", "Kalın ve ince"),
    ("<iterations>3</iterations> Sor.", "Sor."),
    ("Sor.<end_of_turn>\n<start_of_turn>model", "Sor. Model"),
    ("Sor.<|im_end|>", "Sor."),
    ("CONFIDENCE: 0.97\nLAYERS: C04,C01\nCONTENT:\nSor kanka.", "Sor kanka."),
    ("Önce (ya da sonra) → dene... “evet” dedi", "Önce, ya da sonra, dene… Evet dedi"),
    ('En kısa yolu "Gel. Bak." demek.', "En kısa yolu Gel. Bak, demek."),
    ("A & B ≈ C", "A ve B yaklaşık C"),
    ("ve/veya", "Ve veya"),
]


@pytest.mark.parametrize(("text", "said"), TURKISH)
def test_turkish_is_said_as_turkish_speakers_say_it(text: str, said: str) -> None:
    assert speakable(text, "tr") == said


@pytest.mark.parametrize(("text", "said"), ENGLISH)
def test_english_is_said_as_english_speakers_say_it(text: str, said: str) -> None:
    assert speakable(text, "en") == said


@pytest.mark.parametrize(("text", "said"), UNSPOKEN)
def test_what_is_for_the_eye_is_not_spoken(text: str, said: str) -> None:
    assert speakable(text, "tr") == said


def test_the_ordinal_of_every_number_is_regular() -> None:
    assert [numbers.ordinal(number, "tr") for number in (1, 4, 20, 100, 1923, 10**6)] == [
        "birinci", "dördüncü", "yirminci", "yüzüncü", "bin dokuz yüz yirmi üçüncü", "bir milyonuncu",
    ]  # fmt: skip
    assert [numbers.ordinal(number, "en") for number in (1, 12, 20, 45, 100, 1003)] == [
        "first", "twelfth", "twentieth", "forty-fifth", "one hundredth", "one thousand and third",
    ]  # fmt: skip


@given(st.integers(0, 10**15 - 1), st.sampled_from(["tr", "en"]))
@settings(max_examples=100, deadline=None)
def test_a_number_in_words_is_that_number(number: int, language: str) -> None:
    assert value(numbers.cardinal(number, language), language) == number


def value(words: str, language: str) -> int:
    """The way back, written on its own: words of numbers add up, hundreds multiply what is before them, greater powers close a group."""
    small = {numbers.cardinal(n, language): n for n in [*range(20), *range(20, 100, 10)]}
    powers = {"bin": 10**3, "thousand": 10**3, "milyon": 10**6, "million": 10**6, "milyar": 10**9, "billion": 10**9, "trilyon": 10**12}
    powers["trillion"] = 10**12
    total = group = 0
    for word in words.replace("-", " ").replace(" and ", " ").split():
        if word in ("yüz", "hundred"):
            group = max(group, 1) * 100
        elif word in powers:
            total, group = total + max(group, 1) * powers[word], 0
        else:
            group += small[word]
    return total + group


# --- sentences --------------------------------------------------------------------------------------------------------------------


def test_each_sentence_is_said_in_its_language() -> None:
    assert sentences("Sor kanka. I think you should go there with them in 2024. Okay.", "tr") == [
        Sentence("Sor kanka.", "tr"),
        Sentence("I think you should go there with them in twenty twenty-four.", "en"),
        Sentence("Okay.", "en"),  # in whichever language was spoken before
    ]


def test_the_first_sentence_is_there_with_the_word_after_it() -> None:
    speaker = Speaker("tr")
    assert list(speaker.feed("Sor kanka, dinliyorum.")) == []
    assert list(speaker.feed(" Ne ")) == [Sentence("Sor kanka, dinliyorum.", "tr")]
    assert list(speaker.feed("var")) == [] and list(speaker.finish()) == [Sentence("Ne var", "tr")]


def test_nothing_of_a_code_block_is_said_while_it_is_open() -> None:
    speaker = Speaker("tr")
    assert [said.text for said in speaker.feed("Şöyle:\n```python\nprint('a. B c')\n")] == ["Şöyle"]
    assert [said.text for said in speaker.feed("x = 1\n```\nBitti. ")] == ["Kod yazılı olarak duruyor."]
    assert [said.text for said in speaker.finish()] == ["Bitti."]


@cache
def corpus() -> list[tuple[str, str]]:
    """(answer, language) of this project's examples."""
    found = []
    for path in sorted((ROOT / "specs" / "categories").glob("*/*.yaml")):
        category = YAML(typ="safe").load(path)
        for example in category["examples"]:
            for turn in example.get("turns", [example]):
                found.append((turn["jessy"], example.get("language", category["language"])))
    return found


def test_of_every_authored_answer_only_words_and_pauses_are_left() -> None:
    assert len(corpus()) > 400
    for text, language in corpus()[::2]:
        said = [sentence.text for sentence in sentences(text, language)]
        assert said, text
        for sentence in said:
            assert not re.search(r"[^\w .,!?;:…'’-]|[\d_]|  |^[ ,.;:!?-]|[ ,;:-]$", sentence), (text, sentence)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_however_an_answer_is_cut_the_same_is_said(data: st.DataObject) -> None:
    tables = [*((text, "tr") for text, _ in TURKISH + UNSPOKEN), *((text, "en") for text, _ in ENGLISH)]
    text, language = data.draw(st.sampled_from([*corpus(), *tables]))
    text = text + data.draw(st.sampled_from(["", "\n", " Dr. Can 2. kez geldi.\n1. Aç\n2. Kapat\n```\na\n```\n"]))
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    speaker = Speaker(language)
    assert [*(said for piece in pieces for said in speaker.feed(piece)), *speaker.finish()] == sentences(text, language)


@given(st.text(alphabet="aıİç .,!?…:;'’\"`*_#>|<[]()/\\@&%$€=+-–—0123456789\n\tDr😀²½️", max_size=60), st.sampled_from(["tr", "en"]))
@with_example("![:0", "tr")
@settings(max_examples=150, deadline=None)
def test_no_text_whatever_breaks_it_or_leaves_a_sign(text: str, language: str) -> None:
    for sentence in sentences(text, language):
        assert re.search(r"\w", sentence.text) and not re.search(r"[^\w .,!?;:…'’-]|[\d_]|^[ ,.;:!?-]", sentence.text), sentence
