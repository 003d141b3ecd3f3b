"""Two clients that nobody has written: what they ask at each stage, given the query and the observations so far."""

from __future__ import annotations

from generators.clients import Observation


def answered(seen: Observation) -> str:
    return f"CONFIDENCE: {seen.confidence:.2f}\nLAYERS: {','.join(seen.layers)}\nCONTENT:\n{seen.text}"


def same_shape(query: str, seen: list[Observation]) -> str:
    """Two stages, the query in quotes, a list of stages by number with their confidence."""
    if not seen:
        return f'Sen bir dostsun, {{% içten %}} konuş.\n\n"{query}"\n\nRapor yazma.\nŞöyle cevap ver:\nCONFIDENCE: 0 ile 1 arası\nCONTENT:\nsözün'
    listed = "".join(f"{number}. bakış, güven {each.confidence:.2f}\n{each.text}\n\n" for number, each in enumerate(seen, 1))
    return f'Bir daha bak.\n\nSoru:\n"{query}"\n\nŞimdiye kadar:\n\n{listed}\n\nİçine siniyor mu?\nCONFIDENCE: 0 ile 1 arası\nCONTENT:\nsözün'


def other_shape(query: str, seen: list[Observation]) -> str:
    """Three stages, the query first and once more at the end, percentages and layers behind each answer."""
    if not seen:
        return f"{query}\n---\nAnswer the line above as yourself. It was: {query}"
    listed = "\n\n".join(f"- you said: «{each.text}» ({round(each.confidence * 100)}% sure, {', '.join(each.layers)})" for each in seen)
    last = "This is your last word." if len(seen) == 2 else "One more round."
    return f"{query}\n---\nSo far:\n{listed}\n---\n{last}"
