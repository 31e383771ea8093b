"""Embeddings in files: results are those of the same embeddings in memory, and memory stays bounded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import Angles, vectors
from places import ROOT

from minisbert import SentenceTransformer, search, util
from minisbert.errors import InputError
from minisbert.evaluation import InformationRetrievalEvaluator
from minisbert.search import nearest
from minisbert.similarity import quantize_embeddings

ROWS, DIM = 700, 32
PRECISIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": lambda values: values,
    "float64": lambda values: values.astype(np.float64),
    "float16": lambda values: values.astype(np.float16),
    "int8": lambda values: quantize_embeddings(values, "int8"),
    "uint8": lambda values: quantize_embeddings(values, "uint8"),
    "ubinary": lambda values: quantize_embeddings(values, "ubinary"),
}
FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "text": str,
    "read-only map": lambda path: np.load(path, mmap_mode="r"),
    "writable map": lambda path: np.load(path, mmap_mode="r+"),
    "tensor over a map": lambda path: torch.from_numpy(np.load(path, mmap_mode="r+")),
}


@pytest.fixture
def little_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 100 rows of 32 dimensions."""
    monkeypatch.setattr(search, "_BLOCK", 100 * DIM)
    monkeypatch.setattr(search, "_LEAST_ROWS", 1)


@pytest.mark.usefixtures("little_blocks")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_searched_as_memory_is(precision: str, form: str, tmp_path: Path) -> None:
    values = vectors(ROWS, DIM, zero_row=7)
    values[300:310] = values[13]  # equal scores, in several blocks
    values[699] = values[13]
    corpus = PRECISIONS[precision](values)
    np.save(tmp_path / "corpus.npy", corpus)
    mapped = FORMS[form](tmp_path / "corpus.npy")
    queries = corpus[[13, 20]]
    score = util.hamming_sim if precision == "ubinary" else util.cos_sim
    expected = util.semantic_search(queries, corpus, top_k=15, score_function=score)
    assert util.semantic_search(queries, mapped, top_k=15, score_function=score) == expected
    if precision.startswith("float"):
        assert [hit["corpus_id"] for hit in expected[0][:12]] == [13, *range(300, 310), 699]
    pairs = util.paraphrase_mining_embeddings(corpus, query_chunk_size=150, score_function=score, top_k=5)
    assert pairs == util.paraphrase_mining_embeddings(mapped, query_chunk_size=150, score_function=score, top_k=5)


def test_blocks_are_small_for_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def score(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        shapes.append((len(a), len(b)))
        return util.dot_score(a, b)

    monkeypatch.setattr(search, "_BLOCK", 2**16)
    monkeypatch.setattr(search, "_BLOCK_SCORES", 2**17)
    corpus = vectors(5_000, 32)
    util.semantic_search(corpus[:100], corpus, score_function=score)
    assert shapes == [(100, 1310), (100, 1310), (100, 1310), (100, 1070)]
    shapes.clear()
    util.semantic_search(corpus[:3], corpus, score_function=score, query_chunk_size=60)
    assert max(shapes) == (3, 2048)


def test_packed_bits_are_compared_by_definition() -> None:
    values, queries = vectors(50, 20), vectors(4, 20, seed=1)
    expected = -((queries[:, None] > 0) != (values[None] > 0)).sum(axis=-1)
    for precision in ("binary", "ubinary"):
        left, right = (quantize_embeddings(rows, precision) for rows in (queries, values))
        assert (util.hamming_sim(left, right).numpy() == expected).all()
    assert util.hamming_sim(left, right[:0]).shape == (4, 0)


def test_a_row_of_a_later_block_is_named() -> None:
    corpus = vectors(10, 4)
    corpus[6] = np.nan
    with pytest.raises(InputError, match="row 106 of the corpus holds NaN"):
        nearest(corpus[:1], corpus, top_k=1, corpus_chunk_size=5, first_row=100)
    assert nearest(corpus[:1], corpus[:5], top_k=1, first_row=100)[1].item() == 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "expected a whole .npy file"),
        (b"text", "expected a whole .npy file"),
        ("half", "expected a whole .npy file"),
        (np.zeros(3), r"got float64 of shape \(3,\) in .*expected rows of numbers"),
        (np.array([["a"]]), "got <U1 of shape"),
        (np.array([[None]]), "expected a whole .npy file"),
    ],
)
def test_a_file_that_holds_no_embeddings(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "corpus.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif content == "half":
        np.save(path, vectors(10))
        path.write_bytes(path.read_bytes()[:300])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        util.semantic_search([[1.0]], path)


# ---- texts ----------------------------------------------------------------------------------------------------------


def test_paraphrases_of_texts_through_a_map(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    texts = ["the cat sat", "a dog ran to the sea", "the cat sat", "why is the sky blue"]
    dim = model.get_sentence_embedding_dimension()
    out = np.lib.format.open_memmap(tmp_path / "out.npy", mode="w+", dtype=np.float32, shape=(4, dim))
    assert util.paraphrase_mining(model, texts, out=out) == util.paraphrase_mining(model, texts)
    assert (out == model.encode(texts)).all()


CORPUS = ["20", "40", "70", "100", "40", "20"]  # two are repeated
PAIRS = {"question": ["0", "90"], "answer": ["10", "70"]}


class Counting(Angles):
    """Angles that remember what was embedded."""

    def encode_document(self, texts: list[str], **options: Any) -> torch.Tensor:
        self.documents = texts
        return self.embed(texts)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_negatives_from_embeddings_in_a_file(dtype: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisbert.mining._CORPUS_CHUNK", 2)
    options = {"num_negatives": 3, "output_scores": True, "verbose": False, "absolute_margin": 0}
    expected = util.mine_hard_negatives(PAIRS, Angles(), corpus=CORPUS, **options)
    np.save(tmp_path / "corpus.npy", 3 * Angles().embed(CORPUS).numpy().astype(dtype))  # of any length
    (tmp_path / "corpus.txt").write_text("\n".join(CORPUS))
    model = Counting()
    for corpus in (CORPUS, tmp_path / "corpus.txt", str(tmp_path / "corpus.txt")):
        got = util.mine_hard_negatives(
            PAIRS, model, corpus=corpus, corpus_embeddings=tmp_path / "corpus.npy", **options
        )
        assert model.documents == ["10"]  # the one that is not in the corpus
        assert got.keys() == expected.keys()
        assert all(got[name] == expected[name] for name in ("question", "answer", "negative"))
        tolerance = 1e-6 if dtype == np.float32 else 1e-3
        assert np.allclose(got["scores"], expected["scores"], atol=tolerance)


def test_negatives_from_a_file_of_texts(tmp_path: Path) -> None:
    expected = util.mine_hard_negatives(PAIRS, Angles(), corpus=CORPUS, verbose=False)
    for name, content in {
        "one.tsv": "any\n" + "\n".join(CORPUS),
        "text.tsv": "id\ttext\n" + "\n".join(f"x\t{text}" for text in CORPUS),
    }.items():
        (tmp_path / name).write_text(content)
        assert util.mine_hard_negatives(PAIRS, Angles(), corpus=tmp_path / name, verbose=False) == expected
    (tmp_path / "two.tsv").write_text("id\tbody\na\t1\n")
    with pytest.raises(InputError, match=r"two.tsv has the columns \['id', 'body'\]; expected one"):
        util.mine_hard_negatives(PAIRS, Angles(), corpus=tmp_path / "two.tsv", verbose=False)


@pytest.mark.parametrize("shape", [(5, 2), (6, 3)])
def test_embeddings_that_do_not_fit_the_corpus(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"got corpus_embeddings of shape .*; expected \(6, 2\): embed the corpus"):
        util.mine_hard_negatives(PAIRS, Angles(), corpus=CORPUS, corpus_embeddings=np.ones(shape), verbose=False)


def test_retrieval_from_embeddings_in_a_file(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu")
    words = "cat dog sea sky tree blue red".split()
    corpus = {key: f"the {word}" for key, word in zip("gfedcba", words, strict=True)}  # not in the order of ids
    queries = {number: f"a {word}" for number, word in enumerate(words)}
    relevant = dict(zip(range(7), map(set, "gfedcba"), strict=True))
    np.save(tmp_path / "corpus.npy", model.encode_document(list(corpus.values())))
    options: dict[str, Any] = {"corpus_chunk_size": 3, "accuracy_at_k": [1, 2, 3]}
    for dim in (None, 5):
        expected = InformationRetrievalEvaluator(queries, corpus, relevant, truncate_dim=dim, **options)(model)
        task = InformationRetrievalEvaluator(
            queries, corpus, relevant, truncate_dim=dim, corpus_embeddings=tmp_path / "corpus.npy", **options
        )
        assert task(model) == expected
    with pytest.raises(InputError, match="got 6 corpus_embeddings for 7 documents; expected one for each"):
        InformationRetrievalEvaluator(queries, corpus, relevant, corpus_embeddings=np.ones((6, 4)))


# ---- memory ---------------------------------------------------------------------------------------------------------

PEAK = """
import threading, time
import numpy as np, torch
from minisbert import util
from minisbert.search import semantic_search
torch.set_num_threads(1)

def anonymous():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024

rows, dim, path = {rows}, {dim}, {path!r}
corpus = np.memmap(path, mode="w+", dtype=np.float16, shape=(rows, dim))  # holes
draw = np.random.default_rng(0)
places = np.sort(draw.choice(rows, 50, replace=False))
corpus[places] = draw.normal(size=(50, dim))
queries = draw.normal(size=(5, dim)).astype(np.float32)
util.semantic_search(queries, queries)
seen, done = [anonymous()], False

def watch():
    while not done:
        seen.append(anonymous())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
{call}
done = True
thread.join()
print(max(seen) - seen[0])
"""
SEARCH = """
found = util.semantic_search(queries, corpus, top_k=5)
small = util.semantic_search(queries, np.asarray(corpus[places]), top_k=5)
assert [[hit["corpus_id"] for hit in hits] for hits in found] == [
    [places[hit["corpus_id"]] for hit in hits] for hits in small
]
"""
MINE = """
class Model:
    similarity = staticmethod(util.cos_sim)
    similarity_pairwise = staticmethod(util.pairwise_cos_sim)
    encode_query = staticmethod(lambda texts, **_: torch.from_numpy(queries[: len(texts)]))
    encode_document = staticmethod(lambda texts, **_: torch.from_numpy(-queries[: len(texts)]))

pairs = {"anchor": list("abcde"), "positive": list("vwxyz")}
texts = [str(row) for row in range(rows)]
mined = util.mine_hard_negatives(pairs, Model, corpus=texts, corpus_embeddings=corpus, num_negatives=1, verbose=False)
nearest = util.semantic_search(queries, np.asarray(corpus[places]), top_k=1)
assert mined["negative"] == [str(places[hits[0]["corpus_id"]]) for hits in nearest]
"""
PARAPHRASES = """
found = util.paraphrase_mining_embeddings(corpus, query_chunk_size=rows // 16, top_k=1, max_pairs=5)
assert len(found) == 5
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc of Linux")


def peak(call: str, rows: int, dim: int, folder: Path) -> float:
    """MiB of anonymous memory that a search takes at most."""
    code = PEAK.replace("{rows}", str(rows)).replace("{dim}", str(dim)).replace("{call}", call)
    code = code.replace("{path!r}", repr(str(folder / "corpus.bin")))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@needs_proc
def test_memory_for_a_file_of_64_mib(tmp_path: Path) -> None:
    assert peak(SEARCH, 2**18, 128, tmp_path) < 110  # one copy as float32 is 128


@needs_proc
@pytest.mark.long
@pytest.mark.parametrize(
    ("call", "rows", "dim", "most"),
    [(SEARCH, 2**20, 512, 120), (MINE, 2**17, 4096, 260), (PARAPHRASES, 2**12, 2**13, 130)],
    ids=["search", "mine", "paraphrases"],
)
def test_memory_for_a_large_file(call: str, rows: int, dim: int, most: float, tmp_path: Path) -> None:
    size = peak(call, rows, dim, tmp_path)
    assert size < most, size
