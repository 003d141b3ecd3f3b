"""How alike two texts are, letter by letter: chrF for answers beside references, and the same sequences for finding nearest samples."""

from __future__ import annotations

from collections import Counter

from generators.turkish import fold

_ORDER = 6  # longest sequence of letters
_BETA = 2  # recall counts twice as much as precision


def chrf(answer: str, reference: str) -> float:
    """Character n-gram F-score in [0, 1] of the folded texts without white space.

    Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation", with n up to 6 and beta 2; orders that the shorter text
    is too short for are left out of the mean.
    """
    found, wanted = "".join(fold(answer).split()), "".join(fold(reference).split())
    precisions, recalls = [], []
    for order in range(1, min(_ORDER, len(found), len(wanted)) + 1):
        ours, theirs = _sequences(found, order), _sequences(wanted, order)
        shared = sum((ours & theirs).values())
        precisions.append(shared / sum(ours.values()))
        recalls.append(shared / sum(theirs.values()))
    if not precisions or not any(precisions):
        return 0.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    return (1 + _BETA**2) * precision * recall / (_BETA**2 * precision + recall)


def _sequences(text: str, order: int) -> Counter[str]:
    return Counter(text[start : start + order] for start in range(len(text) - order + 1))
