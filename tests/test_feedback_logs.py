"""Logs of every kind: what is well formed is read, what is not is counted with its line, and nothing stops the reading."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from generators.errors import UserError
from generators.feedback.daily_logs import RULE, read_log
from generators.feedback.exchanges import Exchange, Skipped
from generators.feedback.exports import read_export, read_rows
from generators.feedback.lines import LONGEST, lines_of, read_lines
from generators.feedback.logs import Found, files_of, read

HEADER = "[2025-12-07T19:41:59.123456789+00:00] IP: 203.0.113.9 | Session: s-1 | User: anonymous"
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def block(query: str, answer: str, header: str = HEADER) -> str:
    """As jessy-cli appends it."""
    return f"\n{RULE}\n{header}\n{RULE}\n\nUSER:\n{query}\n\nJESSY:\n{answer}\n\n{RULE}\n\n"


def parts(found: Any) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """(query, answer) of the exchanges, (source, reason) of what was skipped."""
    items = list(found)
    exchanges = [(item.query, item.answer) for item in items if isinstance(item, Exchange)]
    return exchanges, [tuple(item) for item in items if isinstance(item, Skipped)]


def log(text: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    return parts(read_log(lines_of(text), "a.txt"))


# --- daily logs -------------------------------------------------------------------------------------------------------------------


def test_a_block_knows_its_line_its_session_and_who_took_part() -> None:
    header = HEADER.replace("anonymous", "ayse_k")
    first, second = read_log(lines_of(block("naber", "İyidir.", header) + block("peki ya sen", "Ben de.", header)), "logs/2025-12-07.txt")
    assert isinstance(first, Exchange) and isinstance(second, Exchange)
    assert (first.source, second.source) == ("logs/2025-12-07.txt:3", "logs/2025-12-07.txt:16")
    assert (first.speaker, first.known) == ("ayse_k", ("203.0.113.9", "s-1"))
    assert (first.conversation, second.conversation) == ((), (("naber", "İyidir."),))


def test_blocks_of_other_sessions_are_other_conversations() -> None:
    text = block("bir", "1") + block("iki", "2", HEADER.replace("s-1", "s-2")) + block("üç", "3")
    found = [item for item in read_log(lines_of(text), "a") if isinstance(item, Exchange)]
    assert [item.conversation for item in found] == [(), (), (("bir", "1"),)]


words = ["naber", "İYİDİR", "\n", "\n\n", "ş", "😀", "\u2028", "=" * 79, "{", "[x]", "user:", "\t", "a: b", "IP: 1", "---", "```"]
spoken = st.lists(st.sampled_from(words), min_size=1, max_size=8).map(" ".join).map(str.strip).filter(bool)
broken = st.sampled_from(
    [
        f"\n{RULE}\n{HEADER}\n{RULE}\n\nUSER:\nyarım kal",  # the program was killed
        f"\n{RULE}\n{HEADER}\n{RULE}\n\nUSER:\nsoru\n\nJESSY:\nyarım kal",
        f"\n{RULE}\n{HEADER}\n{RULE}\n\n\n{RULE}\n\n",
        f"\n{RULE}\n{HEADER[:30]}\n{RULE}\n\nUSER:\nsoru\n\nJESSY:\ncevap\n\n{RULE}\n\n",
        f"\n{RULE}\n{HEADER}\n{RULE}\n\nJESSY:\ncevap\n\n{RULE}\n\n",
    ]
)


@quick
@given(st.lists(st.tuples(spoken, spoken) | broken, max_size=6))
def test_every_well_formed_block_is_read_whatever_stands_between(blocks: list[Any]) -> None:
    text = "".join(each if isinstance(each, str) else block(*each) for each in blocks)
    exchanges, skipped = log(text)
    whole = [tuple(part.strip() for part in each) for each in blocks if not isinstance(each, str)]
    assert exchanges == whole
    assert len(skipped) >= sum(isinstance(each, str) for each in blocks)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{RULE}\n{HEADER}\n{RULE}\n\nUSER:\nsoru\n", "no JESSY: section"),
        (f"{RULE}\n{HEADER}\n{RULE}\n\nUSER:\nsoru\n\nJESSY:\nyarım", "cut off: no closing line"),
        (f"{RULE}\n{HEADER}\n{RULE}\n", "nothing behind the header"),
        (f"{RULE}\n{HEADER}\n{RULE}\n\nmerhaba\n\n{RULE}\n", "no USER: section"),
        (f"{RULE}\n{HEADER}\n{RULE}\n\nUSER:\n\n\nJESSY:\ncevap\n\n{RULE}\n", "an empty section"),
        (block("soru\n\nJESSY:\nsahte", "cevap"), "a section that begins twice"),
        (block("soru", "cevap\n\nUSER:\nsahte"), "a section that begins twice"),
    ],
)
def test_a_block_that_is_none_is_counted_with_its_line(text: str, reason: str) -> None:
    exchanges, skipped = log(text + block("iki", "2"))
    assert exchanges == [("iki", "2")]
    assert skipped == [(f"a.txt:{text.splitlines().index(HEADER) + 1}", reason)]


def test_words_outside_of_blocks_are_counted() -> None:
    outside = [(f"a.txt:{line}", "text outside of a block") for line in (1, 15)]
    assert log(f"a note\n{block('bir', '1')}not a block\n") == ([("bir", "1")], outside)


def test_a_rule_inside_of_a_message_belongs_to_it() -> None:
    query, answer = f"şu ne demek\n{RULE}\nçıktı", f"ayraç\n{RULE}\nbir satır"
    assert log(block(query, answer) + block("iki", "2")) == ([(query, answer), ("iki", "2")], [])


def test_the_same_blocks_with_one_rule_between_them_and_no_blank_lines() -> None:
    text = "".join(f"{RULE}\n{HEADER}\nUSER:\nsoru {number}\nJESSY:\ncevap {number}\n" for number in range(3)) + f"{RULE}\n"
    assert log(text) == ([(f"soru {number}", f"cevap {number}") for number in range(3)], [])


# --- bytes ------------------------------------------------------------------------------------------------------------------------


def at(tmp_path: Path, data: bytes, name: str = "2025-12-07.txt") -> tuple[list[tuple[str, str]], list[str]]:
    path = tmp_path / name
    path.write_bytes(data)
    found = read(Found(path, name))
    return [(item.query, item.answer) for item in found.exchanges], [item.reason for item in found.skipped]


def test_line_ends_and_marks_of_windows_are_read(tmp_path: Path) -> None:
    text = block("naber", "İyidir.\nSen?")
    for data in (text.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + text.lstrip().encode(), text.encode("utf-16")):
        assert at(tmp_path, data) == ([("naber", "İyidir.\nSen?")], [])


def test_bytes_that_are_no_text_cost_their_own_block_alone(tmp_path: Path) -> None:
    data = block("bir", "1").encode() + block("iki", "2").replace("iki", "ş").encode("cp1254") + block("üç", "3").encode()
    assert at(tmp_path, data) == ([("bir", "1"), ("üç", "3")], ["bytes that are no UTF-8"])


def test_a_line_that_does_not_end_costs_its_own_block_alone(tmp_path: Path) -> None:
    long = "x" * (2 * LONGEST + 5)
    assert at(tmp_path, (block("bir", long) + block("iki", "2")).encode()) == ([("iki", "2")], ["a line of more than 1,000,000 letters"])
    assert [line.number for line in read_lines(tmp_path / "2025-12-07.txt")][-1] == block("bir", "1").count("\n") * 2


PIECES = [RULE, HEADER, "USER:", "JESSY:", "\n", "\r", "{", "}", "[", "]", '"messages": [', '"role":', '"User"', ","]
PIECES += [
    '{"role": "User", "content": "a"}',
    '"content":',
    "\x00",
    "\ufeff",
    '"',
    "\\ud83d",
    "null",
    "1e999",
    '{"query": "a", "answer": "b"}',
    "naber",
]
anything = st.lists(st.sampled_from([piece.encode() for piece in PIECES]) | st.binary(max_size=6), max_size=40).map(b"".join)


@quick
@given(data=anything, name=st.sampled_from(["a.txt", "a.json", "a.jsonl", "a.dat"]))
def test_nothing_that_a_file_holds_is_an_error(tmp_path: Path, data: bytes, name: str) -> None:
    exchanges, _ = at(tmp_path, data, name)
    assert all(query and answer for query, answer in exchanges)


def test_lists_in_lists_without_end_are_broken_json(tmp_path: Path) -> None:
    deep = b'{"messages": [' + b'{"role":' * 50_000
    assert at(tmp_path, deep, "a.jsonl") == ([], ["broken JSON"])
    after = b"}" * 50_000 + b', {"role": "User", "content": "naber"}, {"role": "Assistant", "content": "Sen?"}]}'
    assert at(tmp_path, deep + after, "a.json")[0] == [("naber", "Sen?")]


# --- exports ----------------------------------------------------------------------------------------------------------------------


def export(*said: str) -> str:
    messages = [
        {"role": "Assistant" if number % 2 else "User", "content": text, "dimensions": [], "timestamp": "2025-12-07T10:00:00Z"}
        for number, text in enumerate(said)
    ]
    return json.dumps({"messages": messages, "session_id": "s", "created_at": "t", "last_updated": "t"}, indent=2, ensure_ascii=False)


def test_an_export_is_a_conversation_and_each_question_knows_its_line() -> None:
    text = export("naber", "İyidir.", "peki sen", "Ben de.")
    first, second = read_export(text, "a.json")
    assert isinstance(first, Exchange) and isinstance(second, Exchange)
    lines = text.splitlines()
    assert [int(found.source.split(":")[1]) for found in (first, second)] == [
        number for number, line in enumerate(lines, 1) if line == "    {" and '"User"' in lines[number]
    ]
    assert second.conversation == (("naber", "İyidir."),)


@quick
@given(said=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), min_size=2, max_size=6), share=st.floats(0, 1))
def test_an_export_that_is_cut_off_gives_all_that_stands_before(said: list[str], share: float) -> None:
    said = [f"{number} {text}".strip() for number, text in enumerate(said)]
    text = export(*said)
    cut = int(share * len(text))
    ends = [found.end() for found in re.finditer(r"\n    \}", text)]
    whole = [text_ for text_, end in zip(said, ends, strict=True) if end <= cut]
    assert parts(read_export(text[:cut], "a"))[0] == list(zip(whole[::2], whole[1::2], strict=False))


def test_a_broken_message_costs_no_other() -> None:
    text = export("bir", "1", "iki", "2", "üç", "3").replace('"iki"', '"iki').replace('"content": "2"', '"content": 2')
    exchanges, skipped = parts(read_export(text, "a.json"))
    assert exchanges == [("bir", "1"), ("üç", "3")]
    assert [reason for _, reason in skipped] == ["broken JSON", "no message: role and content are text"]


def test_what_nobody_answered_is_counted() -> None:
    text = json.dumps(
        {"messages": [{"role": role, "content": role} for role in ("assistant", "user", "system", "user", "assistant", "user")]}
    )
    exchanges, skipped = parts(read_export(text, "a"))
    assert exchanges == [("user", "assistant")]
    assert [reason for _, reason in skipped] == ["an answer to nothing", "nothing answers it", "nothing answers it"]


# --- rows -------------------------------------------------------------------------------------------------------------------------


def row(**fields: Any) -> tuple[list[Exchange], list[str]]:
    items = list(read_rows(lines_of(json.dumps({"query": "naber", "answer": "İyidir."} | fields)), "a"))
    return [item for item in items if isinstance(item, Exchange)], [item.reason for item in items if isinstance(item, Skipped)]


def test_a_row_is_read_as_doit_chat_writes_it() -> None:
    said = [{"role": "user", "content": "selam"}, {"role": "assistant", "content": "Selam!"}]
    (found,), _ = row(verdict="better", correction="Sor kanka.", conversation=said, persona="jessy", model="m", time="t")
    assert found == Exchange("a:1", "naber", "İyidir.", (("selam", "Selam!"),), "better", "Sor kanka.")


def test_a_correction_is_a_verdict_and_better_without_one_is_bad() -> None:
    assert row(correction="Sor.")[0][0].verdict == "better" and row(answer=None, correction="Sor.")[0][0].answer == "Sor."
    assert row(verdict="better", correction="")[0][0].verdict == "bad" and row()[0][0].verdict is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"verdict": "super"}, "no verdict: one of good, bad, better is"),
        ({"query": 3}, "query is no text"),
        ({"query": " "}, "no query"),
        ({"answer": None}, "no answer"),
        ({"correction": ["x"]}, "correction is no text"),
        ({"conversation": "x"}, "conversation is no list"),
        ({"conversation": [{"role": "user"}]}, "conversation: no message: role and content are text"),
        ({"query": "\ud83d"}, "letters that are no Unicode"),
    ],
)
def test_a_row_that_is_none_says_why(fields: dict[str, Any], reason: str) -> None:
    assert row(**fields) == ([], [reason])


def test_an_export_on_one_line_is_a_row(tmp_path: Path) -> None:
    data = "\n".join([json.dumps(json.loads(export("naber", "İyidir."))), "", "[1", '"x"']).encode()
    assert at(tmp_path, data, "a.jsonl") == ([("naber", "İyidir.")], ["broken JSON", "no row: an object with query and answer is"])
    assert at(tmp_path, b'{"query": "naber", "answer": "b"}\n', "a.json") == ([("naber", "b")], [])


# --- files ------------------------------------------------------------------------------------------------------------------------


def test_files_and_folders_are_found_once_and_named_without_their_owners(tmp_path: Path) -> None:
    root, logs = tmp_path / "project", tmp_path / "home" / "ayse" / "logs"
    for path in (
        root / "feedback" / "chat.jsonl",
        root / "feedback" / "held_out.jsonl",
        logs / "b" / "1.txt",
        logs / ".x" / "2.txt",
        logs / "3.md",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (logs / "ayse@ornek.com.json").write_text("")
    places = [root / "feedback", logs, logs / "b" / "1.txt", logs / "3.md"]
    found = files_of(root, places, [root / "feedback" / "held_out.jsonl"])
    assert [file.name for file in found] == ["feedback/chat.jsonl", "logs/[mail]", "logs/b/1.txt", "3.md"]


def test_a_place_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere does not exist; --from takes files and folders"):
        files_of(tmp_path, [tmp_path / "nowhere"], [])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert read(Found(tmp_path / "a.txt", "a.txt")).skipped == [Skipped("a.txt:1", "no regular file")]
