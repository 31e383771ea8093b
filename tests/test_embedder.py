"""`Embedder`: pickles as its arguments, loads once, and keeps tables of Arrow as they are but for one more column."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from minisbert import Embedder, SentenceTransformer, embedder
from minisbert.errors import ConfigError, InputError, InputTypeError

pa = pytest.importorskip("pyarrow")
TEXTS = ["a cat sat", "red sea", "the dog ran fast", "one two"]


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> Path:
    return tiny("bert")


@pytest.fixture
def expected(model: Path) -> np.ndarray:
    return SentenceTransformer(model, device="cpu").encode(TEXTS)


def test_pickle_hash_and_token_are_the_same_everywhere(model: Path) -> None:
    one = Embedder(model, normalize_embeddings=True)
    code = (
        "import pickle, sys; from minisbert import Embedder;"
        f"one = Embedder({str(model)!r}, normalize_embeddings=True);"
        "print(hash(one), pickle.dumps(one).hex(), 'torch' in sys.modules)"
    )
    there = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    before = pickle.dumps(one)
    assert there == [str(hash(one)), before.hex(), "False"]
    one(TEXTS)
    assert pickle.dumps(one) == before
    assert len(before) < 1000
    assert pickle.loads(before) == one
    assert hash(one) != hash(Embedder(model))


def test_other_weights_in_the_same_folder_are_another_embedder(model: Path, tmp_path: Path) -> None:
    folder, changed = tmp_path / "model", SentenceTransformer(model, device="cpu")
    shutil.copytree(model, folder)
    first = Embedder(folder, device="cpu")
    before = first(TEXTS)
    (folder / "README.md").write_text("another card")
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "config.json").write_text("{}")
    same = Embedder(folder, device="cpu")
    assert (same, hash(same), pickle.dumps(same)) == (first, hash(first), pickle.dumps(first))
    with torch.no_grad():
        next(iter(changed.parameters())).mul_(2)
    changed.save_pretrained(folder)
    second = Embedder(folder, device="cpu")
    assert second != first
    assert hash(second) != hash(first)
    assert second.__dask_tokenize__() != first.__dask_tokenize__()
    assert np.array_equal(second(TEXTS), changed.encode(TEXTS))
    assert np.array_equal(first(TEXTS), before)  # as it was loaded
    assert Embedder("some/name")._content == ""


def test_copies_load_once_in_a_process(model: Path, monkeypatch: pytest.MonkeyPatch, expected: np.ndarray) -> None:
    monkeypatch.setattr(embedder, "_LOADED", {})
    sent = pickle.dumps(Embedder(model, device="cpu"))
    for _ in range(3):
        assert np.array_equal(pickle.loads(sent)(TEXTS), expected)
    assert len(embedder._LOADED) == 1


def test_threads_are_set_while_it_embeds_and_then_restored(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Embedder(model, threads=3, device="cpu")
    seen, before = [], torch.get_num_threads()
    loaded = one.load()
    encode = loaded.encode
    monkeypatch.setattr(loaded, "encode", lambda *a, **b: (seen.append(torch.get_num_threads()), encode(*a, **b))[1])
    one(TEXTS)
    assert (seen, torch.get_num_threads()) == ([3], before)


KINDS = [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_table_keeps_nulls_chunks_and_metadata(kind: pa.DataType, model: Path, expected: np.ndarray) -> None:
    texts = pa.chunked_array([["left out", TEXTS[0], None], [*TEXTS[1:], None]], pa.string())
    if not pa.types.is_string_view(kind):
        texts = texts.cast(kind)
    else:
        texts = pa.chunked_array([pa.array(chunk.to_pylist(), kind) for chunk in texts.chunks])
    table = pa.table({"id": range(7), "text": texts}).replace_schema_metadata({"a": "b"}).slice(1)
    found = Embedder(model, device="cpu").embed_table(table, "text", "vector")
    assert found.schema.metadata == {b"a": b"b"}
    assert found.drop_columns(["vector"]).equals(table)
    column = found.column("vector").combine_chunks()
    assert column.type == pa.list_(pa.float32(), 32)
    assert column.is_null().to_pylist() == [False, True, False, False, False, True]
    rows = np.array(column.drop_null().to_pylist(), np.float32)
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    found.validate(full=True)


def test_values_are_not_copied_and_batches_stay_batches(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.ones((4, 32), np.float32)
    monkeypatch.setattr(Embedder, "encode", lambda self, texts: values)
    found = Embedder(model)(pa.RecordBatch.from_pydict({"text": TEXTS}))
    assert isinstance(found, pa.RecordBatch)
    values[2, 5] = 7
    assert found.column("embedding")[2].as_py()[5] == 7
    lists = Embedder(model, fixed_size=False)(pa.array(TEXTS))
    assert (lists.type, lists.to_pylist()) == (pa.list_(pa.float32()), values.tolist())


def test_an_empty_batch_is_typed(model: Path) -> None:
    found = Embedder(model, output_dtype="float16")(pa.table({"text": pa.array([], pa.string())}))
    assert (found.num_rows, found.schema.field("embedding").type) == (0, pa.list_(pa.float16(), 32))
    nulls = Embedder(model)(pa.array([None, None], pa.null()))
    assert (nulls.null_count, nulls.type) == (2, pa.list_(pa.float32(), 32))


def test_smaller_numbers(model: Path, expected: np.ndarray) -> None:
    half = Embedder(model, device="cpu", output_dtype="float16")
    assert np.array_equal(half(TEXTS), expected.astype(np.float16))
    small = Embedder(model, device="cpu", output_dtype="int8", truncate_dim=8)
    column = small(pa.array(TEXTS))
    assert column.type == pa.list_(pa.int8(), 8)
    assert column.to_pylist() == np.rint(expected[:, :8] * 127).astype(int).tolist()


def test_other_kinds_of_batches(model: Path, expected: np.ndarray) -> None:
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    one = Embedder(model, device="cpu")
    close = {"atol": 1e-6, "rtol": 0}
    np.testing.assert_allclose(one({"text": np.array(TEXTS), "id": [1]})["embedding"], expected, **close)
    frame = pd.DataFrame({"text": [*TEXTS, None]}, index=[3, 1, 4, 1, 5])
    found = one(frame)
    assert list(found.index) == [3, 1, 4, 1, 5]
    np.testing.assert_allclose(np.stack(found["embedding"][:4]), expected, **close)
    assert pd.isna(found["embedding"].iloc[4])
    assert list(one(frame["text"]).index) == [3, 1, 4, 1, 5]
    found = one(pl.DataFrame({"text": [*TEXTS, None]}))
    assert found.schema["embedding"] == pl.Array(pl.Float32, 32)
    np.testing.assert_allclose(found["embedding"].drop_nulls().to_numpy(), expected, **close)
    assert one(pl.Series(TEXTS)).dtype == pl.Array(pl.Float32, 32)
    batches = one(iter([TEXTS[:1], TEXTS[1:]]))
    assert [batch.shape for batch in batches] == [(1, 32), (3, 32)]


@pytest.mark.parametrize(
    ("batch", "error", "line"),
    [
        (pa.table({"txt": TEXTS}), InputError, "got no column 'text'; expected its texts: the columns are txt"),
        (pa.table({"text": TEXTS, "embedding": TEXTS}), InputError, "got a column 'embedding' already"),
        (pa.table({"text": [1]}), InputTypeError, "got a column of int64; expected one of string"),
        ({"text": ["a", None]}, InputTypeError, "got None in row 1; expected a text"),
        (3, InputTypeError, "got a batch of type builtins.int; expected a table"),
    ],
)
def test_wrong_batches_get_one_line(batch: object, error: type[Exception], line: str, model: Path) -> None:
    with pytest.raises(error) as caught:
        Embedder(model)(batch)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_arguments_get_one_line(model: Path) -> None:
    with pytest.raises(ConfigError, match="got threads=0; expected a whole number of at least 1"):
        Embedder(model, threads=0)
    with pytest.raises(ConfigError, match="got output_dtype='int4'; expected 'float32'"):
        Embedder(model, output_dtype="int4")
    with pytest.raises(ConfigError, match="a loaded model is not sent"):
        Embedder(SentenceTransformer(model))
    with pytest.raises(InputTypeError, match="got list; expected a pyarrow"):
        Embedder(model).embed_table(TEXTS)


FORKS = """
import multiprocessing, sys, torch
from minisbert import Embedder

one, texts = Embedder(sys.argv[1], device="cpu", threads=2), ["a cat sat", "red sea"] * 500

def embed(number):
    model, seen = one.load(), []
    encode = type(model).encode
    model.encode = lambda *texts, **options: (seen.append(torch.get_num_threads()), encode(model, *texts, **options))[1]
    own = Embedder(sys.argv[1], device="cpu")
    return own(texts).tobytes(), seen[0]

if __name__ == "__main__":
    before = one(texts).tobytes()  # with threads that a forked process does not have
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found, threads in pool.map(embed, range(4)):
            assert (found, threads) == (before, 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_processes_that_are_forked_after_it_has_embedded(model: Path) -> None:
    without = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    subprocess.run([sys.executable, "-c", FORKS, str(model)], check=True, timeout=120, env=without)


TOKENS = """
import importlib.util, sys, joblib
from minisbert import Embedder
one = Embedder(sys.argv[1], normalize_embeddings=True)
print(joblib.hash(one))
if importlib.util.find_spec("dask"):
    from dask.base import tokenize
    print(tokenize(one))
"""


def test_joblib_and_dask_name_it_alike_in_every_process(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("joblib")
    Embedder(model, normalize_embeddings=True)(TEXTS)  # has loaded here
    exec(TOKENS.replace("sys.argv[1]", repr(str(model))), {})
    command = [sys.executable, "-c", TOKENS, str(model)]
    there = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert capsys.readouterr().out == there


def test_memory_does_not_grow_with_batches(model: Path) -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs /proc")
    batch, one = pa.table({"text": TEXTS * 500}), Embedder(model, device="cpu", threads=1)
    used = []
    for _ in range(50):
        one(batch)
        line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
        used.append(int(line.split()[1]) / 1024)
    assert used[49] - used[4] < 10, used  # 45 results have 11.5 MB
