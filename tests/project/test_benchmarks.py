"""The benchmarks' arithmetic, their tables and the exported graph; nothing here is timed."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from places import ROOT

from minisbert import SentenceTransformer

BENCHMARKS = ROOT / "benchmarks"
FILES = sorted(path.relative_to(BENCHMARKS) for path in BENCHMARKS.rglob("*.py"))
MACHINE = {
    "date": "2026-01-02",
    "threads": 2,
    "cpu": "Model 1",
    "family_model": "1/2",
    "instructions": "AVX512",
    "python": "3.11",
    "versions": {"minisbert": "0.1", "torch": "2.13", "onnx": "not installed"},
}


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def fast(median: float) -> dict[str, float]:
    return {"median": median, "low": median - 0.25, "high": median + 0.25}


def contender(speed: float, ratio: float, **more: Any) -> dict[str, Any]:
    return {
        "batch_size": 32,
        "texts_per_second": speed,
        "tokens_per_second": 10 * speed,
        "times_as_fast_as": {"sentence-transformers": fast(ratio)},
        "share_of_limit": 0.5,
        "max_difference": 2e-7,
        "min_cosine": 0.999999,
        **more,
    }


def encode_result() -> dict[str, Any]:
    contenders = {"minisbert fp32": contender(1234.4, 4.0), "sentence-transformers": contender(308.6, 1.0)}
    titles = {
        "texts": 100,
        "tokens": 1000,
        "mean_tokens": 10.0,
        "histogram": {"9-16": 100},
        "contenders": contenders,
        "seconds_at_limit": {"fp32": 0.05},
    }
    return {
        "machine": MACHINE,
        "data": "real texts",
        "rounds": 7,
        "classes": {"titles": titles},
        "spearman": {"minisbert fp32": 0.86716, "sentence-transformers": 0.86716},
        "not_available": {"minisbert int8": "ConfigError: got dtype 'int8'"},
        "limits": {"fp32": {"gflops": 500.0, "by": "oneDNN, 1,024 rows"}},
        "limits_not_available": {},
    }


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_imports(file: Path, load: Callable[[str], ModuleType]) -> None:
    pytest.importorskip("scipy")
    name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    source = (BENCHMARKS / file).read_text(encoding="utf-8")
    assert load(name).__doc__
    assert len(source.splitlines()) < 300


def test_the_suite_shows_its_help() -> None:
    done = subprocess.run([sys.executable, str(BENCHMARKS / "run.py"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert all(
        command in done.stdout for command in ("encode", "train", "latency", "startup", "memory", "cached", "kernels")
    )


def test_every_command_measures_and_makes_a_table(load: Callable[[str], ModuleType]) -> None:
    for command in load("run").COMMANDS:
        module = load(f"commands.{command}")
        assert callable(module.measure)
        assert callable(module.table_of)


@pytest.mark.parametrize(
    "file", [path for path in FILES if "argparse.ArgumentParser(" in (BENCHMARKS / path).read_text()]
)
def test_every_program_shows_its_help(
    file: Path, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [file.name, "--help"])
    with pytest.raises(SystemExit) as left:
        load(file.stem).main()
    assert left.value.code == 0
    assert "--help" in capsys.readouterr().out


# ---- timing ---------------------------------------------------------------------------------------------------------


def test_rounds_alternate_their_order_and_keep_the_times_apart(load: Callable[[str], ModuleType]) -> None:
    timing = load("timing")
    now, calls = [0.0], []

    def run(name: str, seconds: float) -> Callable[[], None]:
        def called() -> None:
            calls.append(name)
            now[0] += seconds

        return called

    seconds = timing.interleaved({"a": run("a", 1.0), "b": run("b", 2.0)}, 3, clock=lambda: now[0])
    assert calls == ["a", "b", "b", "a", "a", "b"]
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3}


def test_ratios_are_those_of_equal_rounds(load: Callable[[str], ModuleType]) -> None:
    # The ratio of the medians would be 2 too, but its spread would hide that the third round was a slow one.
    found = load("timing").times_as_fast([1.0, 2.0, 10.0], [2.0, 6.0, 10.0])
    assert found == {"median": 2.0, "low": 1.0, "high": 3.0}


@pytest.mark.parametrize(("share", "expected"), [(0.5, 5), (0.9, 9), (0.91, 10), (1.0, 10), (0.01, 1)])
def test_percentile(share: float, expected: int, load: Callable[[str], ModuleType]) -> None:
    assert load("timing").percentile([3, 1, 2, 10, 9, 8, 7, 6, 5, 4], share) == expected


def test_a_busy_machine_is_told(load: Callable[[str], ModuleType]) -> None:
    timing = load("timing")
    assert timing.warning({"others": 0.01, "quiet": True}) is None
    assert "40%" in timing.warning({"others": 0.4, "quiet": False})
    assert "cannot tell" in timing.warning({"others": None, "quiet": False})


# ---- limits ---------------------------------------------------------------------------------------------------------


def test_operations_of_minilm(load: Callable[[str], ModuleType]) -> None:
    limits = load("limits")
    assert limits.forward_flops([1]) == 21_233_664 + 9_216
    assert limits.forward_flops([10, 20]) == 30 * 21_233_664 + (10 * 10 + 20 * 20) * 9_216
    assert limits.training_flops([7]) == 3 * limits.forward_flops([7])
    assert limits.forward_flops([2], dim=4, intermediate=8, layers=1) == 2 * 2 * (4 * 16 + 2 * 32) + 4 * 4 * 4


def test_share_of_the_limit(load: Callable[[str], ModuleType]) -> None:
    assert load("limits").share(100e9, 0.5, 400.0) == pytest.approx(0.5)


def test_the_best_rate_is_that_of_the_best_median(load: Callable[[str], ModuleType]) -> None:
    rates = object.__new__(load("limits").Rates)
    rates.gflops = {"fp32": {"a": [1.0, 9.0, 2.0], "b": [3.0, 3.0, 3.0]}, "int8": {}}
    assert rates.best() == {"fp32": {"gflops": 3.0, "by": "b"}}
    assert rates.best(last=2) == {"fp32": {"gflops": 5.5, "by": "a"}}


def test_every_way_to_multiply_multiplies(load: Callable[[str], ModuleType]) -> None:
    limits = load("limits")
    limits.ROWS, rows = (16,), limits.ROWS
    try:
        rates = limits.Rates(dim=16, intermediate=32, seconds=0.0)
    finally:
        limits.ROWS = rows
    rates.measure()
    assert set(rates.best()) >= {"fp32", "bf16"}


# ---- large batches --------------------------------------------------------------------------------------------------


def test_large_batches_in_processes_of_their_own(
    minilm: Path, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = load("commands.cached")
    monkeypatch.setattr(command, "WAYS", {name: way for name, way in command.WAYS.items() if "minisbert" in name})
    monkeypatch.setattr(command, "QUICK_SIZES", (command.Size(8, 1, tuple(command.WAYS)),))
    result = command.measure(argparse.Namespace(quick=True, rounds=1, threads=1, data=None))
    (ways,) = result["batches"].values()
    assert set(ways) == set(command.WAYS)
    for one in ways.values():
        assert 0 < one["loaded"] <= one["peak"]
        assert one["seconds"]["median"] > 0
    shown = command.table_of(result)
    assert "minisbert, cached" in shown
    described = {**result, "data": "made-up texts", "rounds": 1}
    assert "| 8 | minisbert, cached |" in load("speed_tables").cached(described)
    picture = load("picture").draw_cached(
        {**result, "machine": {"cpu": "a CPU", "threads": 1}}, tmp_path / "cached.svg"
    )
    assert "pairs in a batch" in picture.read_text(encoding="utf-8")
    missing = {"batches": {"8": {"minisbert, cached": {"not_available": "MemoryError"}}}}
    assert "not available: MemoryError" in command.table_of(missing)


# ---- GPU ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")  # of the reference's Trainer
def test_the_gpu_script_works_on_a_cpu(
    minilm: Path, load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("datasets")
    monkeypatch.delitem(load("gpu.sizes").DTYPES, "fp16")  # slow on a CPU
    monkeypatch.setattr(load("workloads"), "CLASSES", ("titles", "mixed"))
    monkeypatch.setattr(load("gpu.training"), "SIDES", ("minisbert bf16", "sentence-transformers fp32"))
    monkeypatch.setattr(load("gpu.training"), "CARDS", ("004-msmarco-533k",))
    monkeypatch.setattr(load("gpu.training"), "LARGER", ())
    command = load("commands.gpu")
    result = command.measure(argparse.Namespace(device="cpu", quick=True, rounds=1, data=None))
    assert "not kept" in result["trial"]
    json.dumps(result)
    assert not result["encode"]["not_available"]
    assert not result["kernels"]["not_available"]
    assert not any("not_available" in part for part in result["memory"]["parts"].values())
    for one in result["encode"]["classes"].values():
        assert not one["not_available"]
        assert one["contenders"]["minisbert fp32"]["max_difference"] < 1e-5
        assert one["contenders"]["minisbert bf16"]["min_cosine"] > 0.999
        assert set(one["contenders"]["minisbert bf16"]["times_as_fast_as"]) == {"fp32", "own precision"}
        assert one["contenders"]["model alone fp32"]["share_of_memory"] > 0
    (case,) = result["train"].values()
    assert case["card"]["steps"] == 3 * -(-532_761 // 4)
    assert all(one["steps_per_second"] > 0 for one in case["sides"].values())
    assert "peak" in command.table_of(result)
    shown = load("gpu.tables").gpu({**result, "data": "made-up texts", "rounds": 1})
    assert "| minisbert bf16 |" in shown
    assert "minisbert bf16 |" in shown.partition("Training on the GPU")[2]


def test_a_gpu_is_needed(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = load("run")
    for arguments, said in (
        (["gpu"], "got no CUDA device; gpu needs one"),
        (["gpu", "--device", "cpu"], "without --quick"),
        (["encode", "--device", "cpu"], "expected it with gpu"),
    ):
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
        monkeypatch.setattr(run.os, "environ", dict(run.os.environ))
        with pytest.raises(SystemExit) as left:
            run.main()
        assert left.value.code == 2
        assert said in capsys.readouterr().err


def test_steps_and_memory_of_the_cards(load: Callable[[str], ModuleType]) -> None:
    cases = load("gpu.training").cases(load("gpu.sizes").FULL)
    known = [(case.loss, case.batch_size, case.precision, case.card_steps) for case in cases.values()]
    assert known == [
        ("CosineSimilarityLoss", 32, "fp16", 15_302),
        ("MultipleNegativesRankingLoss", 64, "fp32", 24_975),
        ("MultipleNegativesRankingLoss", 256, None, None),
        ("MultipleNegativesRankingLoss", 4_096, None, None),
    ]
    card = {"steps": 100, "rows": 1_000, "seconds_to_tokenize_a_row": 0.01}
    assert load("gpu.tables").whole_recipe(card, 50.0) == 12.0
    assert load("gpu.limits").traffic(1, 2) == 119_808  # 120 KB a token in half precision
    assert [len(column) for column in load("workloads").short_rows(None, 1_000).values()] == [1_000] * 2
    assert load("workloads").repeated_rows(3, {"a": ["x", "y"]}) == {"a": ["x", "y", "x"]}


def test_a_large_step_needs_a_large_device(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    properties = type("Properties", (), {"total_memory": 24e9})
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: properties)
    found = load("gpu.memory").measure(argparse.Namespace(device="cuda", quick=False, data=None))
    assert found == {"batch_size": 65_536, "not_run": "needs 64 GB of device memory; here are 24"}


# ---- texts ----------------------------------------------------------------------------------------------------------


def test_histogram(load: Callable[[str], ModuleType]) -> None:
    lengths = [1, 8, 9, 64, 256, 257, 1000]
    assert load("workloads").histogram(lengths) == {"1-8": 2, "9-16": 1, "33-64": 1, "193-256": 1, "257-": 2}


def test_made_up_texts_are_always_the_same(load: Callable[[str], ModuleType]) -> None:
    workloads = load("workloads")
    for kind in workloads.CLASSES:
        found = workloads.texts(None, kind, 50)
        assert found == workloads.texts(None, kind, 50)
        assert len(set(found)) == 50
    words = {kind: np.mean([len(text.split()) for text in workloads.texts(None, kind)]) for kind in workloads.SOURCES}
    assert words["titles"] < words["paragraphs"] < words["long"]
    assert "synthetic" in workloads.described(None)
    assert len(workloads.many(None, 3_000)) == 3_000


def test_rows_to_train_on_have_no_text_twice(load: Callable[[str], ModuleType]) -> None:
    workloads = load("workloads")
    rows = workloads.rows(None, 100)
    assert all(len(set(column)) == 100 for column in rows.values())
    rated = workloads.rated_titles(None, 100)
    assert [len(column) for column in rated.values()] == [100] * 3
    assert set(rated["label"]) == {0.0, 1.0}


# ---- contenders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_the_onnx_graph_is_the_model(
    architecture: str, tiny: Callable[[str], Path], load: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = SentenceTransformer(tiny(architecture), truncation="count")
    peers = load("peers")
    encode = peers.Padded(model, peers.onnx_runtime(model, tiny(architecture), 1, "float32"))
    texts = ["a cat sat on the mat", "dog", "", "the red sky and the blue sea ran fast", "one two three"] * 3
    for batch_size in (1, 4, 32):
        np.testing.assert_allclose(encode(texts, batch_size), model.encode(texts), atol=2e-6)


def test_what_cannot_be_made_is_told(tiny: Callable[[str], Path], load: Callable[[str], ModuleType]) -> None:
    names = ("minisbert fp32", "nonsense")
    made, missing = load("contenders").make_all(1, tiny("bert"), names)
    assert list(made) == ["minisbert fp32"]
    assert list(missing) == ["nonsense"]
    assert made["minisbert fp32"].at(32)(["a cat"]).shape == (1, 32)


def test_differences_of_embeddings(load: Callable[[str], ModuleType]) -> None:
    ours, theirs = np.array([[1, 0], [0, 1]], np.float32), np.array([[1, 0], [1, 0]], np.float32)
    assert load("commands.encode").differences(ours, theirs) == {"max_difference": 1.0, "min_cosine": 0.0}


# ---- results --------------------------------------------------------------------------------------------------------


def test_table_of_encode(load: Callable[[str], ModuleType]) -> None:
    shown = load("speed_tables").encode(encode_result())
    assert "| minisbert fp32 | 1,234 (4.00x, 3.75 to 4.25) |" in shown
    assert "| limit of the machine, fp32 | 2,000 |" in shown
    assert "| minisbert fp32 | 50% to 50% | 2.0e-07 | 0.999999 | 0.8672 |" in shown
    assert "Not available: minisbert int8." in shown
    load("commands.encode").table_of(encode_result())


def test_other_tables(load: Callable[[str], ModuleType]) -> None:
    tables = load("speed_tables")
    sides = {
        "minisbert fp32": {
            "steps_per_second": 4.0,
            "times_as_fast": fast(2.0),
            "times_as_fast_in_precision": fast(2.0),
            "share_of_limit": 0.25,
            "peak_mb": 1234.5,
            "first_loss": 1.5,
            "last_loss": 0.5,
        },
        "sentence-transformers bf16": {"not_available": "ValueError: no"},
    }
    stsb = {"steps": 180, "batch_size": 16, "spearman": {"before": 0.8672}}
    result = {"data": "real texts", "rounds": 7, "cases": {"MNRL, batch 8": {"sides": sides}}, "stsb": stsb}
    shown = tables.train(result)
    assert "| 4.00 | 2.00x, 1.75 to 2.25 | 2.00x, 1.75 to 2.25 | 25% | 1,234 | 1.5000, 0.5000 |" in shown
    assert "| before | 0.8672 |" in shown
    one = {"p50": 0.0016, "p90": 0.002, "times_as_fast": fast(4.0)}
    one["share_of_time"] = {"OpenVINO fp32": fast(0.5)}
    found = {"minisbert fp32": one}
    shown = tables.latency({"calls": 210, "contenders": found, "one core busy": found, "not_available": {}})
    assert "| minisbert fp32 | 1.60 ms | 2.00 ms | 1.60 ms | 2.00 ms | 4.00x, 3.75 to 4.25 |" in shown
    assert "| minisbert fp32 against OpenVINO fp32 | 0.50x, 0.25 to 0.75 |" in shown
    ways = {"encode": {"10": {"peak": 340.4}, "50": {"peak": 350.6, "loaded": 300.0}}}
    assert "| encode | 300 | 340 | 351 |" in tables.memory({"texts": [10, 50], "ways": ways})
    assert "torch 2.13." in tables.machine_line({"machine": MACHINE})
    gpu = {"name": "NVIDIA H200", "memory_gb": 150.1, "driver": "570.1", "cuda": "13.0", "triton": "3.9"}
    expected = "with an NVIDIA H200 (150 GB, driver 570.1, CUDA 13.0, triton 3.9) and 2 threads of an Model 1"
    assert expected in tables.machine_line({"machine": MACHINE, "gpu": gpu})


def test_report_shows_what_there_is(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = load("report")
    for file in (BENCHMARKS / "results").glob("*.json"):
        if file.stem not in report.SECTIONS:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert "Encoding (" not in report.render()
    (tmp_path / "encode.json").write_text(json.dumps(encode_result()))
    assert "Encoding (`benchmarks/run.py encode`, real texts, 7 rounds, interleaved)" in report.render()
    assert "Figures on a GPU are unmeasured" in report.render()


def test_a_quick_result_is_not_kept(
    load: Callable[[str], ModuleType],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    machine = load("machine")
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    machine.save("encode", {"value": 1}, keep=False)
    assert not list(tmp_path.iterdir())
    assert json.loads(capsys.readouterr().out)["value"] == 1
    machine.save("encode", {"value": 2})
    assert json.loads((tmp_path / "encode.json").read_text())["value"] == 2


def test_picture(load: Callable[[str], ModuleType], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    drawn = load("picture").draw_encode(encode_result(), tmp_path / "encode.svg")
    assert drawn.read_text(encoding="utf-8").startswith("<?xml")
