"""The reference's util: positional arguments, small tools, files, and what they refuse."""

from __future__ import annotations

import functools
import http.server
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from common import vectors

from minisbert import SentenceTransformer
from minisbert import util as below
from minisbert.compat import models, util
from minisbert.compat.model import SentenceTransformer as CompatSentenceTransformer
from minisbert.errors import ConfigError, InputError, InputTypeError, ModelError
from minisbert.storage import locate

ROWS = vectors(12, 8)


# ---- search and similarities ----------------------------------------------------------------------------------------


def test_positional_arguments(tiny: Callable[[str], Path]) -> None:
    got = util.semantic_search(ROWS[:2], ROWS, 1, 5, 1)
    assert [[hit["corpus_id"] for hit in hits] for hits in got] == [[0], [1]]
    assert util.information_retrieval(ROWS[:2], ROWS, top_k=1) == util.semantic_search(ROWS[:2], ROWS, top_k=1)
    assert util.community_detection(ROWS, 0.5, 1) == below.community_detection(ROWS, 0.5, min_community_size=1)
    assert util.paraphrase_mining_embeddings(ROWS, 4, 5, 6, 2) == below.paraphrase_mining_embeddings(
        ROWS, query_chunk_size=4, corpus_chunk_size=5, max_pairs=6, top_k=2
    )
    model = SentenceTransformer(tiny("bert"), device="cpu")
    texts = ["the cat sat", "a dog ran", "the sea is blue"]
    pairs = util.paraphrase_mining(model, texts, False, 2, 10, 10, 5, 5, util.dot_score, 4)
    expected = below.paraphrase_mining(model, texts, score_function=below.dot_score, truncate_dim=4)
    assert len(pairs) == 3
    assert [pair[1:] for pair in pairs] == [pair[1:] for pair in expected]


def test_similarities_of_single_vectors() -> None:
    for name in ("cos", "dot", "euclidean", "manhattan"):
        function = getattr(util, f"pairwise_{name}_{'score' if name == 'dot' else 'sim'}")
        assert function(ROWS[0], ROWS[1]).shape == ()
        assert function(ROWS, ROWS[0]).shape == (12,)
        assert function(ROWS.tolist(), ROWS).shape == (12,)
        torch.testing.assert_close(function(ROWS[:6], ROWS[6:]), getattr(below, function.__name__)(ROWS[:6], ROWS[6:]))
    assert util.cos_sim(ROWS[0], ROWS).shape == util.pytorch_cos_sim(ROWS[0], ROWS).shape == (1, 12)
    assert list(inspect.signature(util.pairwise_angle_sim).parameters) == ["x", "y"]
    assert util.pairwise_euclidean_sim([3, 4], [0, 0]).item() == -5
    with pytest.raises(InputTypeError, match="expected a dense one"):
        util.pairwise_cos_sim(torch.eye(3).to_sparse(), torch.eye(3))


def test_quantization() -> None:
    assert util.quantize_embeddings(ROWS[0], "ubinary").shape == (1,)  # type: ignore[union-attr]
    matrices = util.quantize_embeddings([ROWS[:5], torch.tensor(ROWS[5:])], "int8")
    together = below.quantize_embeddings(ROWS, "int8")
    np.testing.assert_array_equal(np.concatenate(matrices), together)
    assert util.quantize_embeddings([], "int8") == []
    with pytest.raises(InputError, match="at least 2"):
        util.quantize_embeddings(ROWS[0], "int8")


def test_ranges_of_few_embeddings_are_noticed(tiny: Callable[[str], Path], caplog: pytest.LogCaptureFixture) -> None:
    model = CompatSentenceTransformer(str(tiny("bert")), device="cpu")
    texts = ["a cat", "dog", "the sea"]
    many = np.tile(ROWS, (9, 1))
    for count, quantize in (
        (3, lambda: model.encode(texts, precision="int8")),
        (3, lambda: model.encode(texts, precision="uint8", convert_to_numpy=False)),
        (11, lambda: model.encode(texts, precision="int8", output_value="token_embeddings")),
        (12, lambda: util.quantize_embeddings(ROWS, "uint8")),
        (12, lambda: util.quantize_embeddings([ROWS[:5], ROWS[5:]], "int8")),
        (None, lambda: model.encode(texts * 34, precision="int8")),
        (None, lambda: model.encode(texts, precision="binary")),
        (None, lambda: util.quantize_embeddings(many, "int8")),
        (None, lambda: util.quantize_embeddings([many[:50], many[50:]], "int8")),
        (None, lambda: util.quantize_embeddings(ROWS, "int8", calibration_embeddings=ROWS)),
        (None, lambda: util.quantize_embeddings([ROWS], "int8", ranges=np.stack([ROWS.min(0), ROWS.max(0)]))),
    ):
        caplog.clear()
        quantize()
        said = [record.getMessage().partition(" of ")[0] for record in caplog.records]
        assert said == ([] if count is None else [f"got {count} embeddings to take the ranges"])


def test_late_interaction_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    document = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    assert util.maxsim(query, document).tolist() == [[5.0]]
    assert util.maxsim([query], [document, document[:1]]).tolist() == [[5.0, 2.0]]
    assert util.mean_maxsim_pairwise([query], [document]).tolist() == [2.5]
    masks = torch.tensor([[1, 0]]), torch.tensor([[False, True, True]])
    assert util.maxsim(query, document, *masks).tolist() == [[1.0]]
    assert util.maxsim([], [document]).shape == (0, 1)
    assert util.maxsim([query], [torch.zeros(0, 2)]).item() == -1e9
    with pytest.raises(InputError, match="b_mask over 2 tokens for embeddings of 3"):
        util.maxsim(query, document, None, torch.ones(1, 2))
    with pytest.raises(InputError, match="2 queries and 1 documents"):
        util.maxsim_pairwise([query, query], [document])


class Flat:
    """An index that compares with every row, as FAISS's."""

    def __init__(self, dim: int) -> None:
        self.d = dim

    def add(self, rows: np.ndarray) -> None:
        self.rows = rows.astype(np.float32)

    def search(self, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        scores = queries.astype(np.float32) @ self.rows.T
        order = np.argsort(-scores, axis=1)[:, :count]
        missing = [(0, 0), (0, count - order.shape[1])]
        found = np.take_along_axis(scores, order, axis=1)
        return np.pad(found, missing), np.pad(order, missing, constant_values=-1)

    def reconstruct(self, row: int) -> np.ndarray:
        return self.rows[row]


def test_an_index(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "faiss", SimpleNamespace(IndexFlatIP=Flat, METRIC_INNER_PRODUCT=0))
    hits, _, index = util.semantic_search_faiss(ROWS[:3], ROWS, top_k=20, output_index=True)
    assert [len(found) for found in hits] == [12] * 3
    assert "rescore needs a quantized corpus" in caplog.text
    exact = util.semantic_search(ROWS[:3], ROWS, top_k=12, score_function=util.dot_score)
    assert [[hit["corpus_id"] for hit in found] for found in hits] == [
        [hit["corpus_id"] for hit in found] for found in exact
    ]
    again, _ = util.semantic_search_faiss(ROWS[:3], corpus_index=index, rescore=False, top_k=20)
    assert again == hits
    ranges = np.stack([ROWS.min(axis=0), ROWS.max(axis=0)])
    quantized = util.quantize_embeddings(ROWS, "uint8", ranges)
    hits, _ = util.semantic_search_faiss(ROWS[:3], quantized, None, "uint8", 2, ranges, rescore_multiplier=6)
    for found, expected in zip(hits, exact, strict=True):
        assert [hit["score"] for hit in found] == pytest.approx([hit["score"] for hit in expected[:2]], abs=0.1)
    with pytest.raises(ConfigError, match="neither of corpus_embeddings and corpus_index"):
        util.semantic_search_faiss(ROWS)
    with pytest.raises(ConfigError, match="got corpus_precision='int8'"):
        util.semantic_search_faiss(ROWS, ROWS, corpus_precision="int8")  # type: ignore[arg-type]


def test_packages_of_indexes_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("faiss", "usearch.index"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match="pip install faiss-cpu"):
        util.semantic_search_faiss(ROWS, ROWS)
    with pytest.raises(ConfigError, match="pip install usearch"):
        util.semantic_search_usearch(ROWS, ROWS)


# ---- tensors --------------------------------------------------------------------------------------------------------


def test_devices() -> None:
    batch = {"input_ids": torch.zeros(2), "texts": ["a"]}
    assert util.batch_to_device(batch, torch.device("meta")) is batch
    assert batch["input_ids"].device.type == "meta"  # type: ignore[attr-defined]
    moved = util._move_tensors_to_cpu({"a": [torch.zeros(1), (torch.ones(2), "text")]})
    assert moved["a"][1][0].tolist() == [1.0, 1.0]
    assert util.get_device_name().split(":")[0] in ("cpu", "cuda", "mps")
    assert util._convert_to_batch_tensor([1.0, 2.0]).shape == (1, 2)
    assert util._convert_to_tensor([ROWS[0], ROWS[1]]).shape == (2, 8)


def test_active_dimensions() -> None:
    row = torch.tensor([[1.0, -3.0, 2.0]])
    assert util.select_max_active_dims(row, 2).tolist() == [[0.0, -3.0, 2.0]]
    assert util.select_max_active_dims(row, None) is row
    assert util.compute_count_vector(torch.tensor([[1.0, 0.0], [2.0, 0.0]])).tolist() == [2, 0]
    with pytest.raises(ConfigError, match="got max_active_dims=0"):
        util.select_max_active_dims(row, 0)
    with pytest.raises(InputError, match="3 dimensions"):
        util.compute_count_vector(torch.zeros(1, 1, 1))


def test_truncation() -> None:
    assert util.truncate_embeddings(ROWS, -2).shape == (12, 6)
    assert util.truncate_embeddings(torch.tensor(ROWS), None).shape == (12, 8)


# ---- names ----------------------------------------------------------------------------------------------------------


def test_names() -> None:
    assert util.fullname(SentenceTransformer) == "minisbert.sentence_transformer.SentenceTransformer"
    assert util.fullname("text") == "str"
    assert util.similarity_fct_name(functools.partial(util.cos_sim, b=1)) == "cos_sim(b=1)"
    assert util.similarity_fct_name(util.dot_score) == "dot_score"
    assert util.import_from_string("minisbert.SentenceTransformer") is SentenceTransformer
    assert util.import_module_class("torch.nn.Linear") is torch.nn.Linear
    for name in ("nothing", "minisbert.Nothing", "no.such.module"):
        with pytest.raises(ImportError):
            util.import_from_string(name)
    with pytest.raises(ConfigError, match="trust_remote_code=True"):
        util.import_module_class("my_code.Module", "some/model")


def test_old_names_of_arguments(caplog: pytest.LogCaptureFixture) -> None:
    @util.deprecated_kwargs(old="new")
    def function(new: int = 0) -> int:
        return new

    assert (function(old=3), function(old=3, new=4), function(5)) == (3, 4, 5)  # type: ignore[call-arg]
    assert "the argument old is now called new" in caplog.text

    @util.save_to_hub_args_decorator
    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    assert save(None, repo_name="x") == ((), {"repo_id": "x"})
    assert save(None, "x", "organization", True) == (("x", "organization", None, True), {})


def test_scores_of_a_teacher(caplog: pytest.LogCaptureFixture) -> None:
    logits = torch.tensor([[0.0, 500.0]])
    util.check_teacher_targets(logits.softmax(-1), logits, 1.0, "Loss")
    assert "1 of 2 teacher scores become 0" in caplog.text
    with pytest.raises(InputError, match="NaN as a teacher's score for Loss"):
        util.check_teacher_targets(logits, logits * torch.nan, 1.0, "Loss")


# ---- surroundings ---------------------------------------------------------------------------------------------------


def test_one_process() -> None:
    tensor = torch.ones(2, 3)
    assert (util.get_rank(), util.get_world_size(), util.is_dist_initialized()) == (0, 1, False)
    assert util.all_gather(tensor) is util.all_gather_with_grad(tensor) is tensor
    assert util.all_gather_padded(tensor[None], tensor)[1] is tensor


def test_packages(caplog: pytest.LogCaptureFixture) -> None:
    assert util.is_training_available()
    assert not util.check_package_availability("no-such-package", "nobody")
    assert util.get_installed_version("torch") == torch.__version__
    assert util.get_installed_version("no-such-package") is None
    util.check_version_requirements(None)
    util.check_version_requirements({"pytorch": ">=2", "python": {"specifier": ">3", "reason": "x"}})
    with pytest.raises(ImportError, match=r"model needs torch>=99 \(got .*; too old\), nothing>1 \(got none\)"):
        util.check_version_requirements({"torch": {"specifier": ">=99", "reason": "too old"}, "nothing": ">1"}, "model")
    util.check_version_requirements({"torch": "about 2"})
    assert "cannot read the requirement" in caplog.text


def test_logging(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("tests.compat")
    logger.addHandler(handler := util.LoggingHandler())
    try:
        logger.warning("heard")
        with util.disable_logging():
            logger.warning("not heard")
    finally:
        logger.removeHandler(handler)
    assert "heard" in capsys.readouterr().out
    assert [record.message for record in caplog.records] == ["heard"]
    assert util.disabled_tqdm(total=3).disable


def test_a_logger_in_colours() -> None:
    pytest.importorskip("datasets")
    with util.disable_datasets_caching():
        pass
    try:
        import coloredlogs  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="pip install coloredlogs"):
            util.install_logger(logging.getLogger("tests.compat"))


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server on this machine with one file."""
    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "file.txt").write_text("hello")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_download(address: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "copy.txt"
    util.http_get(f"{address}/file.txt", str(target))
    assert target.read_text() == "hello"
    with pytest.raises(OSError, match="404"):
        util.http_get(f"{address}/other.txt", str(tmp_path / "other.txt"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "served"]
    with pytest.raises(ConfigError, match="expected one that begins with http"):
        util.http_get("file:///etc/hostname", str(target))


def test_files_of_a_folder(tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny("bert")
    assert util.is_sentence_transformer_model(str(folder))
    assert not util.is_sentence_transformer_model(str(tmp_path))
    assert util.load_file_path(str(folder), "config.json", "1_Pooling") == str(folder / "1_Pooling" / "config.json")
    assert util.load_file_path(str(folder), "nothing.json") is None
    assert util.load_dir_path(str(folder), "1_Pooling") == str(folder / "1_Pooling")
    assert util.load_dir_path(str(folder), "9_Nothing") is None
    for path in ("../other", "/etc", "a/../../b", "C:\\x"):
        with pytest.raises(ConfigError, match="expected a name without"):
            util.load_file_path(str(folder), path)


def test_files_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    (tmp_path / "sub").mkdir()
    asked: list[Any] = []

    def file(repository: str, name: str, **options: Any) -> str:
        asked.append((repository, name, options["revision"]))
        if name == "no.json":
            raise LocalEntryNotFoundError("not there")
        return "found"

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", file)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda repository, **options: str(tmp_path))
    assert util.load_file_path("some/model", "a.json", "sub", revision="main") == "found"
    assert util.load_file_path("some/model", "no.json") is None
    assert asked == [("some/model", "sub/a.json", "main"), ("some/model", "no.json", None)]
    assert util.load_dir_path("some/model", "sub") == str(tmp_path / "sub")
    assert util.load_dir_path("some/model", "other") is None


def test_files_of_a_model_are_found_in_one_way(monkeypatch: pytest.MonkeyPatch, tiny: Callable[[str], Path]) -> None:
    folder = tiny("bert")
    monkeypatch.setattr(locate, "packaged_model", lambda: folder)
    for place in (util, models.Module):
        assert place.load_dir_path("all-MiniLM-L6-v2", "1_Pooling") == str(folder / "1_Pooling")
        assert place.load_file_path("all-MiniLM-L6-v2", "modules.json") == str(folder / "modules.json")
        assert place.load_file_path("all-MiniLM-L6-v2", "other.json") is None
        assert place.load_dir_path(f"{folder}/", "") == str(folder)
        with pytest.raises(ConfigError, match="expected a name without"):
            place.load_dir_path(str(folder), "../other")
        with pytest.raises(ModelError, match="local_files_only is set"):
            place.load_dir_path("no/such-model", "", local_files_only=True)
    assert util.is_sentence_transformer_model("sentence-transformers/all-MiniLM-L6-v2")
    assert models.Pooling.load("all-MiniLM-L6-v2", "1_Pooling").pooling_mode == ("mean",)
    with pytest.raises(
        ModelError, match=r"config.json does not fit Dense \(missing a required argument: 'in_features'"
    ):
        models.Dense.load("all-MiniLM-L6-v2", "9_Dense")


def test_a_row_that_grows(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n")
    assert not util.append_to_last_row(path, [3])
    path.write_text("a,b\n1,2\n")
    assert util.append_to_last_row(str(path), [3])
    assert path.read_text().split() == ["a,b", "1,2,3"]


# ---- ids ------------------------------------------------------------------------------------------------------------


def test_ids() -> None:
    datasets = pytest.importorskip("datasets")
    make = datasets.Dataset.from_dict
    documents = make({"id": ["a", "b"], "text": ["A", "B"]})
    resolve = util.resolve_ids({"query_id": documents, "category_ids": documents})
    batch = {"query_id": ["a", "b"], "category_ids": [["a", "b"], ["b", "a"]], "label": [1, 0], "other": [0, 0]}
    assert resolve(batch) == {"query": ["A", "B"], "category_1": ["A", "B"], "category_2": ["B", "A"], "label": [1, 0]}
    lists = util.resolve_ids({"category_ids": documents}, output_format="lists")
    assert lists(batch) == {"categories": [["A", "B"], ["B", "A"]], "label": [1, 0]}
    data = make(batch)
    data.set_transform(resolve)
    assert data[0]["category_2"] == "B"
    with pytest.raises(KeyError, match="'c' in the column 'query_id' is not in its lookup"):
        resolve({"query_id": ["c"], "category_ids": [["a"]]})
    with pytest.raises(InputError, match=r"lists of \[1, 2\] ids"):
        resolve({"query_id": ["a", "b"], "category_ids": [["a"], ["a", "b"]]})
    with pytest.warns(UserWarning, match="several rows of one id"):
        util.resolve_ids({"x": make({"id": ["a", "a"], "text": ["A", "B"]})})


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"id": ["a"], "x_id": ["b"], "text": ["A"]}, {}, "got 2 columns of ids in the lookup of 'query_id'"),
        ({"id": ["a"], "text": ["A"], "title": ["T"]}, {}, "got 2 columns of values"),
        ({"id": ["a"], "text": ["A"]}, {"output_format": "rows"}, "got output_format='rows'"),
        ({"id": ["a"], "text": ["A"]}, {"max_list_length": 0}, "got max_list_length=0"),
        ({"id": ["a"], "text": ["A"]}, {"keep_columns": "label"}, "got 'label' as keep_columns"),
        (None, {}, "got NoneType as the lookup"),
    ],
)
def test_ids_that_cannot_be_looked_up(columns: Any, options: dict[str, Any], message: str) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict(columns) if columns else None
    with pytest.raises((ConfigError, InputTypeError), match=message):
        util.resolve_ids({"query_id": data}, **options)
