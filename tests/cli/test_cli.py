"""The commands: what they print where, what they write, and one line for everything the user can mend."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from places import ROOT

from minisbert import SentenceTransformer, __version__
from minisbert.cli import _parser, encode, main
from minisbert.cli.options import label_scale
from minisbert.errors import ConfigError
from minisbert.evaluation import EmbeddingSimilarityEvaluator

COMMANDS = ("demo", "train", "tokenize", "mine", "reproduce", "encode", "evaluate", "similarity", "inspect", "kernels")
WORDS = "cat dog mat sky sea tree one two three red".split()
FIRST = [f"the {word} ran" for word in WORDS]
SECOND = [f"a {word} sat on the mat" for word in WORDS]
SCORES = [0, 1, 2, 3, 4, 5, 4, 3, 2, 1]


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], str]:
    """Write a file and return its path."""

    def write(name: str, content: str | bytes) -> str:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / name)

    return write


@pytest.fixture
def data(write: Callable[..., str]) -> str:
    """Ten scored pairs."""
    lines = ["first\tsecond\tscore", *(f"{a}\t{b}\t{c}" for a, b, c in zip(FIRST, SECOND, SCORES, strict=True))]
    return write("pairs.tsv", "\n".join(lines) + "\n")


@pytest.fixture
def done(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run a command that ends well: its standard output and standard error."""

    def run(*arguments: Any) -> tuple[str, str]:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert status == 0, captured.err
        return captured.out, captured.err

    return run


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that cannot work: the one line it says."""

    def run(*arguments: Any, status: int = 2) -> str:
        try:
            got: Any = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            got = stop.code
        captured = capsys.readouterr()
        assert got == status
        assert captured.out == ""
        assert re.fullmatch(r"minisbert( \w+)?: error: .+\n", captured.err)
        return captured.err

    return run


def training(model: str, data: str, output: Any, *more: Any, loss: str = "cosine") -> list[Any]:
    """Arguments of a short run on the CPU."""
    scale = ["--scale", "0-5"] if loss == "cosine" else []
    return [
        *("train", "--model", model, "--data", data, "--loss", loss, *scale, "--epochs", 1, "--batch-size", 4),
        *("--device", "cpu", "--output", output, *more),
    ]


# ---- all commands ---------------------------------------------------------------------------------------------------


def test_every_default_is_in_the_help() -> None:
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        for action in command._actions:
            if action.default not in (None, False, (), argparse.SUPPRESS) and action.default != []:
                shown = f"{action.default:,}" if isinstance(action.default, int) else str(action.default)
                assert f"default: {shown}" in (action.help or ""), f"{name} {action.option_strings}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("minisbert tr", {"train "}),
        ("minisbert train --loss-", {"--loss-option "}),
        ("minisbert train --loss MultipleNegativesS", {"MultipleNegativesSymmetricRankingLoss "}),
        ("minisbert encode --precision f", {"float32", "float16"}),
    ],
)
def test_completion(line: str, expected: set[str], tmp_path: Path) -> None:
    pytest.importorskip("argcomplete")
    found = tmp_path / "found"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_SHELL": "bash", "_ARGCOMPLETE_STDOUT_FILENAME": str(found)}
    point = {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    subprocess.run([sys.executable, "-m", "minisbert"], env={**os.environ, **asked, **point}, check=False)
    assert set(found.read_text().split("\x0b")) == expected


# ---- train ----------------------------------------------------------------------------------------------------------


def test_quiet_training_says_the_end(done: Callable[..., Any], model: str, data: str, tmp_path: Path) -> None:
    out, err = done(*training(model, data, tmp_path / "out", "--quiet"))
    assert out == ""
    assert re.fullmatch(r"3 steps, mean loss 0\.\d+, \d+ s, [\d,]+ tokens/s; the model is in .+out\n", err)


def test_train_with_evaluation(done: Callable[..., Any], model: str, data: str, tmp_path: Path) -> None:
    out, err = done(*training(model, data, tmp_path / "out", "--eval", data, "--learning-rate", "1e-3"))
    header, *rows = [line.split() for line in out.splitlines()]
    assert header == ["metric", "before", "after", "change"]
    assert [row[0] for row in rows] == ["pearson_cosine", "spearman_cosine"]
    evaluator = EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES)
    before = evaluator(SentenceTransformer(model, device="cpu"))
    after = evaluator(SentenceTransformer(tmp_path / "out", device="cpu"))
    for name, first, last, change in rows:
        assert float(first) == pytest.approx(before[name], abs=6e-5)
        assert float(last) == pytest.approx(after[name], abs=6e-5)
        assert float(change) == pytest.approx(after[name] - before[name], abs=6e-5)
        assert change[0] in "+-"
    assert before != after
    start, end = err.splitlines()
    assert start.endswith("10 rows of " + data + ": texts first + second, label score, CosineSimilarityLoss")
    assert re.match(r"3 steps, mean loss \d\.\d{4}, .*the model is in ", end)
    assert (tmp_path / "out" / "eval" / "similarity_evaluation_results.csv").is_file()
    assert (tmp_path / "out" / "README.md").is_file()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_train_from_a_base_in_half_precision(
    dtype: str, done: Callable[..., Any], model: str, data: str, tmp_path: Path
) -> None:
    SentenceTransformer(model, device="cpu", dtype=dtype).save_pretrained(tmp_path / "half")
    done(*training(str(tmp_path / "half"), data, tmp_path / "out"))
    assert SentenceTransformer(tmp_path / "out", device="cpu").dtype == torch.float32


def test_train_evaluates_on_chosen_columns(
    done: Callable[..., Any], model: str, data: str, write: Callable[..., str], tmp_path: Path
) -> None:
    rows = [{"id": "7", "to": b, "from": a, "grade": c} for a, b, c in zip(FIRST, SECOND, SCORES, strict=True)]
    other = write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    same, _ = done(*training(model, data, tmp_path / "one", "--eval", data, "--eval-columns", "first,second,score"))
    out, _ = done(*training(model, data, tmp_path / "two", "--eval", other, "--eval-columns", "from,to,grade"))
    assert out == same


def test_train_on_chosen_columns(
    done: Callable[..., Any], model: str, write: Callable[..., str], tmp_path: Path
) -> None:
    rows = [
        {"id": i, "score": 9, "question": a, "reply": b} for i, (a, b) in enumerate(zip(FIRST, SECOND, strict=True))
    ]
    data = write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    arguments = training(model, data, tmp_path / "out", "--columns", "question,reply", loss="mnrl")
    out, err = done(*arguments, "--max-steps", 2, "--max-seq-length", 12)
    assert out == ""
    assert "texts question + reply, no label, MultipleNegativesRankingLoss" in err
    assert "\n2 steps" in err
    trained = SentenceTransformer(tmp_path / "out", device="cpu")
    assert trained.max_seq_length == 12
    assert np.abs(trained.encode(FIRST) - SentenceTransformer(model, device="cpu").encode(FIRST)).max() > 0


def test_train_resumes_to_the_same_weights(done: Callable[..., Any], model: str, data: str, tmp_path: Path) -> None:
    arguments = training(model, data, tmp_path / "out", "--save-every", 1, "--eval", data, "--eval-every", 1)
    whole, _ = done(*arguments)
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    (tmp_path / "out" / "model.safetensors").unlink()
    for step in (2, 3):
        shutil.rmtree(tmp_path / "out" / f"checkpoint-{step}")
    resumed, err = done(*arguments, "--resume")
    assert err.startswith(f"resuming {tmp_path / 'out' / 'checkpoint-1'}: 10 rows of")
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights
    assert resumed == whole
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "eval_spearman_cosine" in entry] == [1, 2, 3]


def test_train_options_reach_the_run(done: Callable[..., Any], model: str, data: str, tmp_path: Path) -> None:
    options = [
        "--gradient-accumulation",
        2,
        "--log-every",
        1,
        "--learning-rate",
        "3e-4",
        "--seed",
        7,
        "--save-every",
        1,
    ]
    done(*training(model, data, tmp_path / "out", *options, "--save-total-limit", 1, "--warmup-steps", "0.5"))
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [1, 2]
    assert [entry["learning_rate"] for entry in log] == pytest.approx([0.0, 3e-4])
    assert [path.name for path in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-2"]


def test_train_stops_early_by_the_loss_on_held_out_rows(
    done: Callable[..., Any], model: str, data: str, tmp_path: Path
) -> None:
    options = ["--eval-data", data, "--eval-every", 1, "--early-stopping-patience", 1, "--keep-best"]
    out, err = done(*training(model, data, tmp_path / "out", *options, "--epochs", 9, "--learning-rate", "0.1"))
    assert out == ""
    assert f"evaluating on: 10 rows of {data}: texts first + second, label score, CosineSimilarityLoss" in err
    log = [json.loads(line) for line in (tmp_path / "out" / "train_log.jsonl").read_text().splitlines()]
    found = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert len(found) < 27
    assert found[-1] >= found[-2] == min(found)
    assert re.search(rf"{len(found)} steps \(stopped early\), mean loss \d\.\d{{4}}, {min(found):.4f} on {data}, ", err)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "### Evaluation Dataset" in card
    assert "| Validation Loss |" in card
    assert "- `early_stopping_patience`: 1" in card


def test_train_keeps_the_best(done: Callable[..., Any], model: str, data: str, tmp_path: Path) -> None:
    done(*training(model, data, tmp_path / "out", "--eval", data, "--eval-every", 1, "--keep-best"))
    best = SentenceTransformer(tmp_path / "out" / "best", device="cpu").encode(FIRST)
    np.testing.assert_array_equal(SentenceTransformer(tmp_path / "out", device="cpu").encode(FIRST), best)


def test_resume_of_another_run(
    done: Callable[..., Any],
    refused: Callable[..., str],
    model: str,
    data: str,
    write: Callable[..., str],
    tmp_path: Path,
) -> None:
    done(*training(model, data, tmp_path / "out", "--save-every", 1))
    message = refused(*training(model, data, tmp_path / "out", "--resume", "--learning-rate", "0.1"))
    assert "checkpoint-3" in message
    assert "learning_rate was 5e-05 and is 0.1" in message
    other = write("other.tsv", "a\tb\tscore\nx\ty\t1\nz\tw\t2\n")
    assert "the losses differ" in refused(*training(model, other, tmp_path / "out", "--resume"))


# ---- encode ---------------------------------------------------------------------------------------------------------


def test_encode_a_text_file(done: Callable[..., Any], model: str, write: Callable[..., str], tmp_path: Path) -> None:
    output = tmp_path / "new" / "embeddings.npy"
    out, err = done("encode", model, write("texts.txt", "a cat\n\nthe dog\u2028ran\n"), "--output", output)
    assert (out, err) == ("", f"wrote {output}: 3 x 32 float32\n")
    expected = SentenceTransformer(model, device="cpu").encode(["a cat", "", "the dog\u2028ran"])
    np.testing.assert_array_equal(np.load(output), expected)
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize(
    "content", ["a cat\nthe dog\u2028ran\x0b\n", "a cat\r\nthe dog\u2028ran\x0b", "\ufeffa cat\nthe dog\u2028ran\x0b\n"]
)
def test_standard_input_is_read_as_a_file_is(
    content: str,
    done: Callable[..., Any],
    model: str,
    write: Callable[..., str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done("encode", model, write("texts.txt", content), "--output", tmp_path / "file.npy")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    done("encode", model, "-", "--output", tmp_path / "stdin.npy")
    assert np.load(tmp_path / "file.npy").shape == (2, 32)
    np.testing.assert_array_equal(np.load(tmp_path / "stdin.npy"), np.load(tmp_path / "file.npy"))


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.jsonl.gz"])
def test_encode_a_column(
    name: str, done: Callable[..., Any], model: str, data: str, write: Callable[..., str], tmp_path: Path
) -> None:
    if name.endswith(".gz"):
        rows = "".join(json.dumps({"score": 1, "second": text}) + "\n" for text in SECOND)
        data = write(name, gzip.compress(rows.encode()))
    done("encode", model, data, "--column", "second", "--output", tmp_path / "e.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "e.npy"), SentenceTransformer(model, device="cpu").encode(SECOND))


def test_encode_options(done: Callable[..., Any], model: str, data: str, tmp_path: Path) -> None:
    options = ["--truncate-dim", 16, "--normalize", "--batch-size", 3, "--prompt-name", "query", "--device", "cpu"]
    done("encode", model, data, "--column", "first", "--output", tmp_path / "e", *options)
    assert np.linalg.norm(np.load(tmp_path / "e"), axis=1) == pytest.approx(np.ones(10), abs=1e-6)
    _, err = done("encode", model, data, "--column", "first", "--output", tmp_path / "e", "--precision", "ubinary")
    assert err.endswith("10 x 4 uint8\n")
    expected = SentenceTransformer(model, device="cpu").encode(FIRST, precision="ubinary")
    np.testing.assert_array_equal(np.load(tmp_path / "e"), expected)


def test_encode_hands_its_options_on(
    done: Callable[..., Any], model: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def encode(self: SentenceTransformer, texts: list[str], **options: Any) -> np.ndarray:
        seen.update(options, texts=texts, dtype=str(next(self.parameters()).dtype))
        return np.zeros((len(texts), 2), np.float32)

    monkeypatch.setattr(SentenceTransformer, "encode", encode)
    options = ["--batch-size", 3, "--prompt-name", "query", "--dtype", "bfloat16", "--precision", "int8"]
    done("encode", model, data, "--column", "first", "--output", tmp_path / "e.npy", *options)
    wanted = {"texts": FIRST, "batch_size": 3, "prompt_name": "query", "precision": "int8", "dtype": "torch.bfloat16"}
    assert {name: seen[name] for name in wanted} == wanted


@pytest.mark.filterwarnings("default")
def test_encode_says_that_texts_were_cut(
    done: Callable[..., Any], model: str, write: Callable[..., str], tmp_path: Path
) -> None:
    _, err = done("encode", model, write("texts.txt", "cat " * 60), "--output", tmp_path / "e.npy")
    warning, last = err.splitlines()
    assert warning.startswith("minisbert: warning: 1 of 1 texts are longer than max_seq_length=48")
    assert last.startswith("wrote")


# ---- evaluate and similarity ----------------------------------------------------------------------------------------


def test_evaluate(done: Callable[..., Any], model: str, data: str) -> None:
    expected = EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES)(SentenceTransformer(model, device="cpu"))
    out, err = done("evaluate", model, "--sts", data)
    assert err == ""
    header, *rows = [line.split() for line in out.splitlines()]
    assert header == ["metric", "value"]
    assert {name: float(value) for name, value in rows} == pytest.approx(expected, abs=6e-7)
    assert len({len(line) for line in out.splitlines()}) == 1

    out, _ = done("evaluate", model, "--sts", data, "--json")
    assert json.loads(out) == {"model": model, "data": data, "rows": 10, **expected}
    assert out.count("\n") == 1


def test_evaluate_chosen_columns_in_another_number_type(
    done: Callable[..., Any], model: str, write: Callable[..., str]
) -> None:
    rows = [
        {"id": "7", "to": b, "from": a, "score": 1, "grade": c} for a, b, c in zip(FIRST, SECOND, SCORES, strict=True)
    ]
    data = write("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    options = ["--sts", data, "--columns", "from,to,grade", "--dtype", "bfloat16", "--device", "cpu", "--json"]
    out, _ = done("evaluate", model, *options)
    encoder = SentenceTransformer(model, device="cpu", dtype="bfloat16")
    expected = EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES)(encoder)
    assert json.loads(out) == {"model": model, "data": data, "rows": 10, **expected}
    assert expected != EmbeddingSimilarityEvaluator(FIRST, SECOND, SCORES)(SentenceTransformer(model, device="cpu"))


@pytest.mark.filterwarnings("ignore:all 2 scores are 1")
def test_evaluate_prints_json_that_every_parser_reads(
    done: Callable[..., Any], model: str, write: Callable[..., str]
) -> None:
    data = write("constant.tsv", "a\tb\tscore\nx\ty\t1\nz\tw\t1\n")

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    out, _ = done("evaluate", model, "--sts", data, "--json")
    assert json.loads(out, parse_constant=refuse)["pearson_cosine"] is None
    out, _ = done("evaluate", model, "--sts", data)
    assert [line.split()[-1] for line in out.splitlines()[1:]] == ["nan", "nan"]


def test_similarity(done: Callable[..., Any], model: str) -> None:
    texts = ["a cat", "the dog", "mat\n" * 20]
    out, err = done("similarity", model, *texts)
    assert err == ""
    encoder = SentenceTransformer(model, device="cpu")
    expected = encoder.similarity(encoder.encode(texts), encoder.encode(texts)).numpy()
    header, *rows = out.splitlines()
    assert header.split() == ["[1]", "[2]", "[3]"]
    assert [row.split("  ")[0] for row in rows[:2]] == ["[1] a cat", "[2] the dog"]
    assert re.match(r"\[3\] mat mat .*\.\.\.  ", rows[2])
    got = np.array([row.split()[-3:] for row in rows], float)
    np.testing.assert_allclose(got, expected, rtol=0, atol=6e-5)


# ---- help -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    example = shlex.split(text.partition("\nexample:\n")[2])
    assert example[:2] == ["minisbert", command]
    assert callable(_parser().parse_args(example[1:]).run)


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^ +{command}\s+[A-Z]", text, re.MULTILINE)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"minisbert {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["evaluate"]])
def test_help_and_wrong_use_do_not_wait_for_torch(arguments: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "minisbert", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == (0 if "--help" in arguments else 2)
    modules = {
        line.rpartition("|")[2].strip() for line in result.stderr.splitlines() if line.startswith("import time:")
    }
    assert "minisbert.cli" in modules
    assert not modules & {"torch", "numpy", "transformers", "tokenizers"}


# ---- wrong use and bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["COMMAND"]),
        (["trian"], ["'trian'", "train", "encode"]),
        (["train"], ["--model", "--data", "--loss", "--output"]),
        (
            ["similarity", "m", "a", "b", "--dimension", "3"],
            ["minisbert similarity: ", "--dimension 3: see minisbert s"],
        ),
        (["evaluate", "--model", "m", "--sts", "f"], ["minisbert evaluate: ", "--model; the model comes first"]),
        (["encode", "m", "f", "--model=n", "--output", "e"], ["--model=n; the model comes first, without an option: "]),
        (["demo", "--model", "m"], ["unrecognized arguments: --model m: see minisbert demo --help"]),
        (["encode", "m", "texts.txt"], ["--output"]),
        (["encode", "m", "texts.txt", "--output", "e", "--precision", "int4"], ["'int4'", "int8", "ubinary"]),
        (["encode", "m", "texts.txt", "--output", "e", "--truncate-dim", "0"], ["--truncate-dim", "0"]),
        (["encode", "m", "texts.txt", "--output", "e", "--truncate-dim", "-3"], ["--truncate-dim", "-3"]),
        (["evaluate", "m", "--sts", "f", "--columns", "a,,b"], ["--columns", "'a,,b'", "commas"]),
        (["similarity", "m", "a"], ["1 text", "at least two"]),
        (["merge", "a", "b", "--weight", "0.6,0.4", "--output", "o"], ["--weight: got '0.6,0.4'; expected a number: "]),
        (["distill", "m", "--epochs", "nan"], ["--epochs: got 'nan'; expected a whole number: "]),
    ],
)
def test_wrong_use(arguments: list[str], parts: list[str], refused: Callable[..., str]) -> None:
    message = refused(*arguments)
    for part in parts:
        assert part in message


@pytest.mark.parametrize("scale", ["5", "0-0", "5-0", "low-high", "0-", "-5", "nan-1", "0-inf", "0-1e999", "0:5", ""])
def test_bad_scale(scale: str, refused: Callable[..., str], model: str, data: str, tmp_path: Path) -> None:
    message = refused(*training(model, data, tmp_path / "out", loss="mnrl"), f"--scale={scale}")
    assert f"--scale: got {scale!r}; expected LOW-HIGH, such as 0-5" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "scale"),
    [("0-5", (0, 5)), ("-1-1", (-1, 1)), ("-5--1", (-5, -1)), ("0.5-1.5", (0.5, 1.5)), (" 1 - 10 ", (1, 10))],
)
def test_scale(text: str, scale: tuple[float, float]) -> None:
    assert label_scale(text) == scale


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--epochs", "0"], ["epochs=0", "from 1"]),
        (["--epochs", "two"], ["--epochs", "'two'"]),
        (["--batch-size", "-4"], ["batch_size=-4", "from 1"]),
        (["--learning-rate", "nan"], ["learning_rate=nan"]),
        (["--warmup-steps", "1.5"], ["warmup_steps=1.5"]),
        (["--precision", "fp8"], ["'fp8'", "fp32", "bf16"]),
        (["--loss", "triplet"], ["'triplet'", "cosine", "mnrl"]),
        (["--scale", "1-4"], ["pairs.tsv, line 2: got the label 0", "expected 1 to 4"]),
        (["--columns", "first,third,score"], ["'third'", "['first', 'second', 'score']"]),
        (["--columns", "first,score"], ["1 text column(s) ['first']", "CosineSimilarityLoss expects 2"]),
        (["--columns", "first,second"], ["label"]),
        (["--max-seq-length", "2"], ["max_seq_length=2", "3 to 64"]),
        (["--max-seq-length", "1000"], ["max_seq_length=1000", "3 to 64"]),
        (["--keep-best"], ["keep_best", "evaluator"]),
        (["--device", "gpu"], ["'gpu'", "cpu"]),
        (["--device", "cuda:99"], ["'cuda:99'", "cpu"]),
    ],
)
def test_settings_of_train_that_cannot_work(
    options: list[str], parts: list[str], refused: Callable[..., str], model: str, data: str, tmp_path: Path
) -> None:
    message = refused(*training(model, data, tmp_path / "out"), *options)
    for part in parts:
        assert part in message
    assert not list((tmp_path / "out").rglob("*.safetensors"))


BAD_DATA = {
    "unknown ending": ("rows.xlsx", "", ["rows.xlsx", ".tsv, .csv, .jsonl"]),
    "empty file": ("rows.tsv", "", ["rows.tsv"]),
    "no rows": ("rows.tsv", "a\tb\tscore\n", ["rows.tsv", "no rows"]),
    "one row": ("rows.tsv", "a\tb\tscore\nx\ty\t1\n", ["rows.tsv", "1 row", "at least two"]),
    "label is a word": ("rows.tsv", "a\tb\tscore\nx\ty\t1\nx\ty\tgood\n", ["rows.tsv, line 3", "'good'", "number"]),
    "label is nan": ("rows.jsonl", '{"a": "x", "b": "y", "score": NaN}\n', ["rows.jsonl, line 1", "nan", "number"]),
    "one field less": ("rows.csv", "a,b,score\nx,y,1\nx,1\n", ["rows.csv, line 3", "2 field(s)", "expected 3"]),
    "text is null": ("rows.jsonl", '{"a": null, "b": "y", "score": 1}\n', ["rows.jsonl, line 1", "None", "text"]),
    "not UTF-8": ("rows.tsv", b"a\tb\tscore\n\xff\ty\t1\n", ["rows.tsv, line 2", "UTF-8"]),
    "damaged gzip": ("rows.tsv.gz", gzip.compress(b"a\tb")[:10] + b"\xff" * 40, ["rows.tsv.gz"]),
    "three texts": ("rows.tsv", "a\tb\tc\tscore\nx\ty\tz\t1\nx\ty\tz\t1\n", ["['a', 'b', 'c']", "columns"]),
    "no score": ("rows.tsv", "a\tb\nx\ty\nz\tw\n", ["['a', 'b']", "score"]),
}


@pytest.mark.parametrize(("name", "content", "parts"), BAD_DATA.values(), ids=BAD_DATA)
@pytest.mark.parametrize("command", ["train", "evaluate", "train --eval"])
def test_bad_data(
    command: str,
    name: str,
    content: str | bytes,
    parts: list[str],
    refused: Callable[..., str],
    model: str,
    data: str,
    write: Callable[..., str],
    tmp_path: Path,
) -> None:
    file = write(name, content)
    commands = {
        "train": training(model, file, tmp_path / "out"),
        "evaluate": ["evaluate", model, "--sts", file],
        "train --eval": training(model, data, tmp_path / "out", "--eval", file),
    }
    message = refused(*commands[command])
    for part in parts:
        assert part in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["train", "evaluate", "encode", "encode --column"])
def test_missing_file(command: str, refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    file, output = tmp_path / "none.tsv", tmp_path / "out"
    commands = {
        "train": training(model, str(file), output),
        "evaluate": ["evaluate", model, "--sts", file],
        "encode": ["encode", model, file, "--output", output],
        "encode --column": ["encode", model, file, "--column", "a", "--output", output],
    }
    assert f"there is no file {file}" in refused(*commands[command])
    assert not output.exists()


@pytest.mark.parametrize(
    ("name", "content", "column", "parts"),
    [
        ("texts.txt", "", None, ["texts.txt", "no texts"]),
        ("texts.txt", b"fine\n\xff\n", None, ["texts.txt, line 2", "UTF-8"]),
        ("texts.txt.gz", "not gzip", None, ["texts.txt.gz", "gzip"]),
        ("rows.tsv", "a\tb\nx\ty\n", "c", ["rows.tsv", "rows.tsv: a, b", "--column c"]),
        ("rows.tsv", "a\tb\n", "a", ["rows.tsv", "no texts"]),
        ("rows.jsonl", '{"a": "x"}\n{"a": null}\n', "a", ["rows.jsonl, line 2", "None"]),
        ("rows.txt", "a\n", "a", ["rows.txt", ".tsv"]),
    ],
)
def test_texts_that_cannot_be_encoded(
    name: str,
    content: str | bytes,
    column: str | None,
    parts: list[str],
    refused: Callable[..., str],
    model: str,
    write: Callable[..., str],
    tmp_path: Path,
) -> None:
    chosen = ["--column", column] if column else []
    message = refused("encode", model, write(name, content), *chosen, "--output", tmp_path / "e.npy")
    for part in parts:
        assert part in message
    assert not (tmp_path / "e.npy").exists()


@pytest.mark.parametrize(("content", "part"), [(b"", "no texts"), (b"fine\n\xff\n", "UTF-8")])
def test_bad_standard_input(
    content: bytes,
    part: str,
    refused: Callable[..., str],
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    message = refused("encode", model, "-", "--output", tmp_path / "e.npy")
    assert "standard input" in message
    assert part in message


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--prompt-name", "passage"], ["'passage'", "['document', 'query']"]),
        (["--batch-size", "0"], ["batch", "0", "1"]),
        (["--device", "gpu"], ["'gpu'", "cpu"]),
        (["--dtype", "int4"], ["'int8'", "float32"]),
    ],
)
def test_options_of_encode_that_cannot_work(
    options: list[str], parts: list[str], refused: Callable[..., str], model: str, data: str, tmp_path: Path
) -> None:
    message = refused("encode", model, data, "--column", "first", "--output", tmp_path / "e.npy", *options)
    for part in parts:
        assert part in message
    assert not (tmp_path / "e.npy").exists()


@pytest.mark.parametrize("place", ["file", "file/below", "file/further/below", "x" * 300])
@pytest.mark.parametrize("command", ["train", "encode"])
def test_output_that_cannot_be_written(
    command: str,
    place: str,
    refused: Callable[..., str],
    model: str,
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(SentenceTransformer, "encode", None)  # it is said before the work, not after
    if command == "train":
        message = refused(*training(model, data, tmp_path / place, "--eval", data))
    elif place == "file":
        message = refused("encode", model, data, "--column", "first", "--output", tmp_path)
    else:
        message = refused("encode", model, data, "--column", "first", "--output", tmp_path / place)
    assert str(tmp_path) in message
    assert (tmp_path / "file").read_text() == "kept"


# ---- models that cannot be read -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["./none", "/none/such", "none/such/model", ""])
def test_no_such_folder(name: str, refused: Callable[..., str]) -> None:
    message = refused("similarity", name, "a", "b")
    assert repr(name) in message
    assert "expected a model folder or a name" in message


@pytest.mark.parametrize("command", ["train", "encode", "evaluate", "similarity"])
def test_unknown_name(
    command: str, refused: Callable[..., str], data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    name = "nobody/no-such-model"
    commands = {
        "train": training(name, data, tmp_path / "out"),
        "encode": ["encode", name, data, "--column", "first", "--output", tmp_path / "e.npy"],
        "evaluate": ["evaluate", name, "--sts", data],
        "similarity": ["similarity", name, "a", "b"],
    }
    message = refused(*commands[command])
    assert "nobody/no-such-model is neither a folder nor in the cache" in message
    assert "check the name" in message


def _only_config(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _cut(name: str, size: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size])


def _remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def _change(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


HALF_WRITTEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "config.json only": (_only_config, "tokenizer"),
    "nothing": (lambda folder: (_only_config(folder), _remove("config.json")(folder)), "modules.json nor config.json"),
    "no config": (_remove("config.json"), "config.json is missing"),
    "no weights": (_remove("model.safetensors"), "no weights"),
    "no tokenizer": (_remove("tokenizer.json"), "no tokenizer"),
    "no pooling": (_remove("1_Pooling/config.json"), "1_Pooling/config.json is missing"),
    "cut weights": (_cut("model.safetensors", 20_000), "model.safetensors cannot be read"),
    "cut header of the weights": (_cut("model.safetensors", 100), "model.safetensors cannot be read"),
    "empty weights": (_cut("model.safetensors", 0), "model.safetensors cannot be read"),
    "cut tokenizer": (_cut("tokenizer.json", 500), "tokenizer"),
    "cut config": (_cut("config.json", 50), "config.json cannot be read"),
    "cut modules": (_cut("modules.json", 50), "modules.json cannot be read"),
    "empty pooling": (_cut("1_Pooling/config.json", 0), "1_Pooling/config.json cannot be read"),
    "other size": (_change(hidden_size=64), "config.json asks for"),
    "more layers": (_change(num_hidden_layers=3), "lack"),
    "no heads": (_change(num_attention_heads=0), "config.json"),
    "size of a wrong type": (_change(hidden_size="32"), "hidden_size"),
    "unknown architecture": (_change(model_type="none-such"), "cannot load"),
}


@pytest.mark.parametrize(("damage", "part"), HALF_WRITTEN.values(), ids=HALF_WRITTEN)
def test_half_written_models(
    damage: Callable[[Path], object], part: str, refused: Callable[..., str], model: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(model, tmp_path / "model")
    damage(folder)
    assert part in refused("similarity", folder, "a cat", "a dog")


# ---- how a command ends ---------------------------------------------------------------------------------------------


def test_errors_of_many_lines_are_put_on_one(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: object) -> NoReturn:
        raise ConfigError("one\ntwo\n   three")

    monkeypatch.setattr(encode, "run_similarity", run)
    assert refused("similarity", "m", "a", "b") == "minisbert: error: one two three\n"


def test_interrupt(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    def run(options: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(encode, "run_similarity", run)
    assert refused("similarity", "m", "a", "b", status=130) == "minisbert: error: interrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX systems")
def test_a_reader_that_goes_away(model: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "minisbert", "similarity", model, "a cat", "a dog"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["kernels", "inspect"])
def test_a_full_disk(command: str, unbuffered: str, model: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "minisbert", command, *([model] if command == "inspect" else [])],
            cwd=ROOT,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert re.fullmatch(r"minisbert: error: cannot write to standard output \(No space left.*free space\n", done.stderr)


def test_python_m_exits_with_the_status_and_one_line(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "minisbert", "evaluate", "m", "--sts", str(tmp_path / "none.tsv")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("minisbert: error: there is no file")
    assert result.stderr.count("\n") == 1


def test_long_errors_are_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"{{base_model: x, loss: [{'y, ' * 9000}]}}", encoding="utf-8")
    assert main(["reproduce", str(path), "--data", "rows.tsv", "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert len(error) < 2100
    assert "['y', 'y', " in error
    assert error.endswith("for loss; expected a text (in quotes)\n")


@pytest.mark.parametrize("output", ["", "  ", "a\0b"])
@pytest.mark.parametrize("command", ["train", "encode", "demo", "reproduce"])
def test_an_output_without_a_name(
    command: str, output: str, model: str, data: str, refused: Callable[..., str]
) -> None:
    arguments = {
        "train": training(model, data, output),
        "encode": ["encode", model, data, "--output", output],
        "demo": ["demo", "--output", output],
        "reproduce": ["reproduce", "card.md", "--data", data, "--output", output],
    }
    assert "expected a name: pass . for the current folder" in refused(*arguments[command])


@pytest.mark.parametrize("name", ["model.safetensors", "README.md", "1_Pooling", "eval"])
def test_outputs_that_cannot_hold_a_model(
    name: str, model: str, data: str, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said before the model is loaded, let alone trained."""
    monkeypatch.setattr("minisbert.cli.train.load_model", lambda *_: pytest.fail("it was loaded"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).mkdir() if "." in name else (tmp_path / "out" / name).touch()
    assert re.search(
        r" is a (file|folder); expected a (folder|file) there", refused(*training(model, data, tmp_path / "out"))
    )


def test_resuming_where_there_is_nothing(
    model: str, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(one) for one in training(model, data, tmp_path / "out", "--resume", "--max-steps", 1)]
    assert main(arguments) == 0
    assert "starting from the first step, as there is no checkpoint in " in capsys.readouterr().err


def test_a_scale_that_begins_with_a_sign(model: str, data: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    message = refused(*training(model, data, tmp_path / "out")[:9], "--scale", "-1-1")
    assert "expected one argument (write --scale=-1 for one that begins with -)" in message


@pytest.mark.parametrize("path", ["~nouser-of-that-name/x", "x" * 5000, "/dev/zero", "é" * 200])
@pytest.mark.parametrize("command", ["encode", "inspect", "train", "similarity"])
def test_paths_that_nothing_can_have(
    command: str, path: str, model: str, data: str, tmp_path: Path, refused: Callable[..., str]
) -> None:
    arguments = {
        "encode": ["encode", model, path, "--output", tmp_path / "e.npy"],
        "inspect": ["inspect", path],
        "train": training(model, path, tmp_path / "out"),
        "similarity": ["similarity", path, "a", "b"],
    }
    assert path[:20] in refused(*arguments[command])


def test_what_the_terminal_cannot_show(model: str, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "minisbert", "inspect", model],
        cwd=ROOT,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert result.returncode == 0
