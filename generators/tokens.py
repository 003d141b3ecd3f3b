"""Messages to token ids with the base model's own tokenizer. Control tokens come from the chat format, never from content."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from generators.chat_format import Format, Fragment, Message, fragments
from generators.errors import UserError
from generators.files import read_json


@dataclass(frozen=True)
class Encoded:
    """ids: the whole conversation. target: as long as ids, true where the token is said by the assistant (its end of turn included)."""

    ids: list[int]
    target: list[bool]


class Tokenizer:
    """The `tokenizer.json` of a model directory, with the chat format in which it is used."""

    def __init__(self, backend: Any, chat_format: Format, bos_id: int | None):
        self._backend = backend
        self.chat_format = chat_format
        self.bos_id = bos_id
        self._ids: dict[str, list[int]] = {}
        self._controls: dict[int, str] | None = None
        self.end_of_turn_id = self._control_id(chat_format["end_of_turn"])

    @classmethod
    def load(cls, model: Path, chat_format: Format) -> Tokenizer:
        """Raises UserError when the directory has no tokenizer or its vocabulary lacks the format's control tokens."""
        import tokenizers

        try:
            backend = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
            config = read_json(model / "tokenizer_config.json")
        except Exception as error:  # the library raises bare Exceptions
            raise UserError(f"the tokenizer in {model} cannot be read ({error}); run: doit forget base && doit base") from error
        bos = config.get("bos_token")
        bos = bos.get("content") if isinstance(bos, dict) else bos
        return cls(backend, chat_format, backend.token_to_id(bos) if bos else None)

    @property
    def vocabulary_size(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    def encode_text(self, text: str) -> list[int]:
        """Ids of content: a control token spelled out in it is encoded as the letters it is made of. No BOS."""
        self._backend.encode_special_tokens = True
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: list[int], skip_special: bool = True) -> str:
        return self._backend.decode(ids, skip_special_tokens=skip_special)

    def control_text(self, ids: list[int]) -> str:
        """The control tokens among `ids`, spelled out; other tokens are left out."""
        if self._controls is None:
            self._controls = {id: token.content for id, token in self._backend.get_added_tokens_decoder().items() if token.special}
        return "".join(self._controls.get(id, "") for id in ids)

    def encode_prompt(self, messages: list[Message]) -> list[int]:
        """Ids of the conversation and the generation prompt, BOS first where the format wants it. Raises UserError as `encode_sample`."""
        return self._encode(list(fragments(self.chat_format, messages))).ids

    def encode_sample(self, messages: list[Message]) -> Encoded:
        """Ids and targets of a finished conversation, up to its last end of turn.

        Raises UserError when an answer would be merged with what its turn begins with: generation could never follow such a path.
        """
        pieces = list(fragments(self.chat_format, messages, add_generation_prompt=False))
        while pieces and not pieces[-1].target:
            pieces.pop()
        return self._encode(pieces)

    def _encode(self, pieces: list[Fragment]) -> Encoded:
        ids = [self.bos_id] if self.chat_format["begin_of_sequence"] and self.bos_id is not None else []
        target = [False] * len(ids)
        before = ""  # the text that the next run goes on from, without a control token between them
        for text, control, is_target in _runs(self._split_controls(pieces)):
            new = [self._control_id(text)] if control else self._text_ids(text)
            if before and not control:
                self._check_apart(before, text)
            before = "" if control else text
            ids += new
            target += [is_target] * len(new)
        return Encoded(ids, target)

    def _check_apart(self, before: str, answer: str) -> None:
        if self.encode_text(before + answer) != self._text_ids(before) + self._text_ids(answer):
            raise UserError(
                f"the answer {answer[:30]!r} is tokenised together with {before!r}, which its turn begins with; it could be trained and "
                "never be generated; begin it otherwise"
            )

    def _split_controls(self, pieces: list[Fragment]) -> list[tuple[str, bool, bool]]:
        """(text, is one control token, is target): the format's control tokens cut out of what the format wrote."""
        import re

        cut = re.compile("(" + "|".join(map(re.escape, self.chat_format["control_tokens"])) + ")")
        found = []
        for piece in pieces:
            if not piece.control:
                found.append((piece.text, False, piece.target))
                continue
            for position, text in enumerate(cut.split(piece.text)):
                if text:
                    found.append((text, position % 2 == 1, piece.target))
        return found

    def _text_ids(self, text: str) -> list[int]:
        if text not in self._ids:
            if len(self._ids) > 50_000:  # a bound on memory; texts of one corpus fit many times over
                self._ids.clear()
            self._ids[text] = self.encode_text(text)
        return self._ids[text]

    def _control_id(self, token: str) -> int:
        found = self._backend.token_to_id(token)
        if found is None:
            raise UserError(f"the base model's vocabulary has no token {token!r}, which its chat format writes; choose another chat_format")
        return found


def _runs(pieces: list[tuple[str, bool, bool]]) -> list[tuple[str, bool, bool]]:
    """Neighbouring texts joined, as an engine that tokenises between control tokens sees them; where the assistant begins or ends, cut.

    Cutting before a target is what generation does too: the prompt is tokenised before the answer exists.
    """
    joined: list[tuple[str, bool, bool]] = []
    for text, control, is_target in pieces:
        if not text:
            continue
        if joined and not control and not joined[-1][1] and joined[-1][2] == is_target:
            joined[-1] = (joined[-1][0] + text, False, is_target)
        else:
            joined.append((text, control, is_target))
    return joined
