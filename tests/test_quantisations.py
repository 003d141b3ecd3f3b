"""What quantisation costs, measured with llama.cpp and MLX on tiny models."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from ruamel.yaml import YAML

from generators import quantisations
from generators.chat_format import jinja_template
from generators.errors import UserError
from generators.files import read_json, write_jsonl
from generators.fuse import fuse
from generators.gguf import check_gguf, write_gguf
from generators.llama_logits import scoring
from generators.llama_server import serving
from generators.quantisations import Scored, Text
from generators.report.material import Material
from generators.report.view import view
from generators.tokens import Tokenizer

ROOT = Path(__file__).parents[1]
CHATML = YAML(typ="safe").load(ROOT / "specs" / "chat_formats" / "chatml.yaml")
ONE = 1  # thread: two of them wait for one another on a busy machine


def _silent(line: str) -> None:
    """Progress is not looked at."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/, adapter/ and fused/ of a tiny model, and validation samples."""
    root = tmp_path_factory.mktemp("recipe")
    # rows of 256 values, so that K-quants are K-quants; a head of its own, or every token would be followed by itself
    base = tiny_models.write_hf(root / "base", "llama", hidden_size=256, intermediate_size=256, head_dim=64)
    tiny_models.save_adapter(root / "adapter", base)
    fuse(base, root / "adapter", root / "fused", _silent)
    said = ["naber kanka", "iyidir valla senden naber", "hava çok güzel", "çay içelim mi", "the first thought is rarely the best one"]
    turns = [[said[index % 5], said[(index + 2) % 5] + "!" * (index // 5)] for index in range(12)]
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}], "metadata": {"id": str(index)}}
        for index, (asked, answer) in enumerate(turns)
    ]
    write_jsonl(root / "valid.jsonl", rows)
    return root


def _texts(made: Path, count: int = 12) -> list[Text]:
    return quantisations.draw_texts(made / "valid.jsonl", Tokenizer.load(made / "base", CHATML), 7, count)


def _write(made: Path, quantisation: str, target: Path) -> dict[str, Any]:
    metadata = {"general.name": "tiny"}
    written = write_gguf(made / "base", made / "adapter", target, quantisation, jinja_template(CHATML), metadata, _silent, "<|im_end|>")
    return written | check_gguf(target, made / "base")


def test_llama_cpp_gives_a_text_the_probabilities_that_its_server_gives_what_it_says(made: Path, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    _write(made, "F16", gguf)
    text = _texts(made)[0]
    prompt, answer = (
        list(text.ids[: text.positions[0]]),
        [text.ids[position] for position in text.positions[:-1]],
    )  # a grammar cannot force an end
    with serving(gguf, context=256, threads=ONE) as server:
        grammar = "root ::= " + " ".join(f"<[{token}]>" for token in answer)
        body = {"prompt": prompt, "n_predict": len(answer), "temperature": 0, "n_probs": 1, "grammar": grammar}
        said = server.post("/completion", body)["completion_probabilities"]
    scored = quantisations.score_in_llama(gguf, [Text(text.ids, text.positions[:-1])], ONE)
    assert scored.log_probabilities == pytest.approx([each["logprob"] for each in said], abs=0.01)
    assert scored.tops == [each["top_logprobs"][0]["id"] for each in said]


def test_what_texts_share_is_read_once_and_changes_nothing(tmp_path: Path) -> None:
    gguf = tiny_models.write_gguf(tiny_models.write_hf(tmp_path / "base", "gemma3"), tmp_path / "model.gguf")
    draw = random.Random(3)
    start = [draw.randrange(5, 300) for _ in range(150)]  # longer than a pass, and than the model's window of 16
    texts = [[2, *start, *(draw.randrange(5, 300) for _ in range(40))] for _ in range(3)]
    asked = list(range(152, 191))
    with scoring(gguf, 256, ONE) as score:
        together = [score(text, asked) for text in texts]
    for text, found in zip(texts, together, strict=True):
        with scoring(gguf, 256, ONE) as score:
            alone = score(text, asked)
        assert alone.log_probabilities == pytest.approx(found.log_probabilities, abs=0.01)


def test_a_file_that_is_no_gguf_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"no gguf")
    with pytest.raises(UserError, match=r"llama.cpp cannot read .*model\.gguf"), scoring(tmp_path / "model.gguf", 64, ONE) as score:
        score([1, 2], [1])


def test_texts_are_drawn_by_seed_and_ask_for_the_answer_alone(made: Path) -> None:
    tokenizer = Tokenizer.load(made / "base", CHATML)
    draw = partial(quantisations.draw_texts, made / "valid.jsonl", tokenizer)
    assert draw(7, 5) == draw(7, 5) != draw(8, 5)
    text = draw(7, 1)[0]
    answer = tokenizer.decode([text.ids[position] for position in text.positions], skip_special=False)
    assert answer.endswith("<|im_end|>") and "<|im_start|>" not in answer
    with pytest.raises(UserError, match="holds no samples"):
        quantisations.draw_texts(made / "none.jsonl", tokenizer, 7)


def test_figures_of_a_model_beside_another() -> None:
    reference, scored = Scored([-1.0, -2.0, -3.0, -2.0], [1, 2, 3, 4]), Scored([-1.5, -2.0, -3.5, -2.0], [1, 2, 9, 4])
    assert quantisations.agreement(scored, reference) == 0.75
    assert quantisations.loss(scored, reference) == pytest.approx(0.25)
    assert quantisations.perplexity(reference) == pytest.approx(2.718281828**2)


def test_the_table_has_f16_first_and_every_quantisation_beside_it(made: Path, tmp_path: Path) -> None:
    ggufs = {"Q8_0": tmp_path / "tiny-Q8_0.gguf", "Q4_0": tmp_path / "tiny-Q4_0.gguf"}
    figures = {name: _write(made, name, path) for name, path in ggufs.items()}
    lines: list[str] = []
    target = tmp_path / "quantisations.json"
    found = quantisations.measure(
        ggufs, figures, made / "fused", _texts(made), 0.05, partial(_write, made, "F16"), target, lines.append, threads=ONE
    )
    assert read_json(target) == found
    assert [(row["quantisation"], row["released"]) for row in found["quantisations"]] == [("F16", False), ("Q8_0", True), ("Q4_0", True)]
    f16, q8, q4 = found["quantisations"]
    assert (f16["loss"], f16["top_agreement"]) == (0, 1)
    assert abs(q8["loss"]) < abs(q4["loss"]) and q4["top_agreement"] < q8["top_agreement"]
    assert q4["size"] < q8["size"] < f16["size"] and q8["size"] == ggufs["Q8_0"].stat().st_size
    assert found["agreement"]["top_agreement"] >= 0.99 and found["agreement"]["mean_difference"] < 0.02
    assert sorted(path.name for path in tmp_path.iterdir()) == ["quantisations.json", "tiny-Q4_0.gguf", "tiny-Q8_0.gguf"]
    assert lines[0].startswith("F16: ") and "against F16" in lines[2] and "MLX and llama.cpp (F16) name the same token" in lines[3]


def test_a_fused_model_that_is_another_fails_with_both_figures_written(made: Path, tmp_path: Path) -> None:
    gguf = {"F16": tmp_path / "tiny-F16.gguf"}
    figures = {"F16": _write(made, "F16", gguf["F16"])}
    with pytest.raises(UserError, match="what is exported is not what was trained"):
        quantisations.measure(
            gguf, figures, made / "base", _texts(made), 0.05, partial(_write, made, "F16"), tmp_path / "q.json", _silent, threads=ONE
        )
    assert read_json(tmp_path / "q.json")["agreement"]["top_agreement"] < 0.99


@pytest.mark.parametrize(("budget", "chosen"), [(100.0, "Q4_0"), (-1.0, "F16")])
def test_auto_is_the_smallest_within_the_budget_and_f16_where_none_is(made: Path, tmp_path: Path, budget: float, chosen: str) -> None:
    sizes = quantisations.planned_sizes(made / "base", ("F16", "Q8_0", "Q4_0"))
    target = tmp_path / "tiny-auto.gguf"
    if chosen == "F16":
        sizes = {"F16": sizes["F16"]}
    figures = quantisations.choose(sizes, partial(_write, made), target, _texts(made, 4), max(budget, 0.0), _silent, threads=ONE)
    assert (figures["quantisation"], figures["size"]) == (chosen, target.stat().st_size)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-auto.gguf"]


def test_auto_passes_over_what_loses_more_than_the_budget(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = {"F16": 0.0, "Q8_0": 0.01, "Q4_0": 0.2}
    monkeypatch.setattr(quantisations, "score_in_llama", lambda path, texts, threads: Scored([-lost[path.stem]], [0]))
    sizes = {"F16": 3, "Q8_0": 2, "Q4_0": 1}
    lines: list[str] = []
    figures = quantisations.choose(sizes, partial(_write, made), tmp_path / "tiny-auto.gguf", [], 0.05, lines.append)
    assert figures["quantisation"] == "Q8_0"
    assert [line.split(",")[0] for line in lines] == ["auto: Q4_0", "auto: Q8_0"]


def test_planned_sizes_are_those_of_the_files_but_for_their_heads(made: Path, tmp_path: Path) -> None:
    planned = quantisations.planned_sizes(made / "base", ("F16", "Q4_K_M"))
    for name, size in planned.items():
        written = _write(made, name, tmp_path / f"{name}.gguf")["size"]
        assert 0 <= written - size < 40_000


def test_the_report_shows_what_was_measured() -> None:
    row = {"size": 2000, "bits_per_weight": 16.0, "perplexity": 20.0, "loss": 0.0, "top_agreement": 1.0}
    rows = [
        {"quantisation": "F16", **row, "released": False},
        {"quantisation": "auto", "chosen": "Q4_0", **row, "loss": 0.09, "top_agreement": 0.9, "released": True},
    ]
    engines = {"top_agreement": 0.999, "mean_difference": 0.001, "perplexity_in_mlx": 20.01}
    shown = view(Material({}, quantisations={"quantisations": rows, "agreement": engines, "loss_budget": 0.05}))["quantisations"]
    assert [line[0] for line in shown["lines"]] == ["F16 (not kept)", "auto (Q4_0)", "fused, in MLX"]
    assert shown["lines"][1][4:] == ["+0.0900 (over the budget)", "90.0 %"]
