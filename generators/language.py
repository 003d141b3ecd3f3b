"""Is a text Turkish or English? Tolerant of the English terms that Turkish engineers speak in.

Function words decide, since terms are nouns: "Garbage collector heap'i tararken pause olur" is Turkish although most of its
words are not, and a model of letter sequences takes it for English. Only where words and endings say nothing either way is such
a model (py3langid, held to the two languages) asked.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

# Words without a meaning of their own, and none that both languages have (Turkish "on", "an", "her", "can", "not", "be").
_TURKISH_WORDS = frozenset(
    """
    acaba ama ancak artık aslında ayrıca az bana bazen bazı belki ben bence beni benim bi biraz biri birkaç bir biz bize bizi
    bizim bu buna bunda bundan bunlar bunu bunun bura burada böyle da daha değil degil diil diye dolayı fakat falan gibi göre hadi
    hala hangi hatta hayır hem henüz hep hepsi herkes hiç hiçbir iki ile ise iyi için icin işte kadar kanka karşı kendi kendine
    kendini ki kim kimse lazım lazim mesela mı mi mu mü mısın misin musun müsün nasıl nasil naber ne neden nerede nereye niye o
    olan olarak oldu olduğu olmak olmaz olsun olur ona onda ondan onlar onlara onları onu onun orada oysa öyle peki pek rağmen
    sana sanki sen senden seni senin siz size sizi sizin sonra şey şimdi şu şöyle tabii tam tamam tek tüm üzere var ve veya vs ya
    yani yap yapmak yerine yine yok yoksa zaten zaman çok cok çünkü evet sor selam merhaba valla bak gel eder eyvallah gerek
    gerekir eğer mutlaka sadece önce böylece buyur buyurun ederim edersin teşekkürler abi hocam aynen elbette olmuş tane lütfen
    gün napsam napayım napıyorsun
    """.split()
)
_ENGLISH_WORDS = frozenset(
    """
    a about after all am and another any anyone anything are aren't as because been before being both but by can't could couldn't did didn't
    do does doesn't doing don't down each either enough even ever every everything few for from get gets give go goes going good got had has
    have haven't having he here how i i'd i'll i'm i've if in instead into is isn't it it's its itself just keep know less let let's like
    make makes many may maybe me mean might mine more most much must my myself need never no nobody nothing now of off often oh okay once
    one only or other our out over own rather really right said same say see she should so some someone something still such sure take tell
    than that that's the their them then there there's these they they're thing things think this those though through to too two under
    until up us use very want was wasn't way we we're well were what what's when where which while who why will with without won't would
    wouldn't yeah yes yet you you'd you'll you're you've your yours yourself hi hello hey huh thanks thank please
    """.split()
)
# What only Turkish adds to a word: its letters, a suffix after an apostrophe (heap'i, Rust'ta), unmistakable verb endings.
_TURKISH_LETTERS = re.compile("[çğıöşü]")
_TURKISH_SUFFIX = re.compile(r"['’](?:[aeıiuü]|[ynl][aeıiuü]n?|[yn][ıiuü]n|[ıiuü]n|[dt][ae]n?|l[ae]r\w*|s[ıiuü]|yl[ae]|[dt][ae]ki\w*)$")
_TURKISH_ENDING = re.compile(
    r"(?:[iu]yor(?:um|sun|uz|sunuz|lar|du|sa)?|m[ae]k|[ae]rsin|[iu]rsin|siniz|sunuz|l[ae]r(?:d[ae]n?|in|i)|[aeiou]kt[ae]n?|[rz]ken)$"
)
_ENGLISH_ENDING = re.compile(r"(?:[a-z]{3}ing|[a-z]{3}tion|[a-z]{3}tions|[a-z]{3}n't)$")

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_QUOTED = re.compile(r"\"[^\"\n]*\"|“[^”\n]*”|„[^“”\n]*[“”]|«[^»\n]*»")
_DOMINANT = 2.5  # one language's evidence outweighs the other's from this ratio on
_LEAST_LETTERS = 24  # below this a model of letter sequences guesses
_SURE = 0.9


def detect(text: str) -> str | None:
    """`"tr"`, `"en"`, or None where the text does not tell: too short, code only, or both languages in equal parts.

    Code (fences and back-ticks) is left out, and so are quoted words unless nothing else is left.
    """
    prose = _CODE.sub(" ", text)
    unquoted = _QUOTED.sub(" ", prose)
    return _verdict(unquoted) or (_verdict(prose) if unquoted != prose else None)


def _verdict(prose: str) -> str | None:
    words = [word.replace("’", "'") for word in _WORD.findall(prose.replace("İ", "i").lower())]
    turkish = sum(map(_is_turkish, words))
    english = sum(map(_is_english, words))
    if turkish and turkish >= _DOMINANT * english:
        return "tr"
    if english >= 2 and english >= _DOMINANT * turkish:
        return "en"
    if turkish or sum(map(len, words)) < _LEAST_LETTERS:
        return None
    language, confidence = _model().classify(" ".join(words))
    return language if confidence >= _SURE else None


def _is_turkish(word: str) -> bool:
    if word in _TURKISH_WORDS:
        return True
    return word not in _ENGLISH_WORDS and any(mark.search(word) for mark in (_TURKISH_LETTERS, _TURKISH_SUFFIX, _TURKISH_ENDING))


def _is_english(word: str) -> bool:
    return word in _ENGLISH_WORDS or bool(_ENGLISH_ENDING.search(word) and not _TURKISH_LETTERS.search(word))


@cache
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    model.set_languages(["tr", "en"])
    return model
