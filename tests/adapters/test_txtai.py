"""txtai: indexes by a function and by a method, searched, saved and loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer
from minisbert.errors import ConfigError

pytestmark = [pytest.mark.downstream, pytest.mark.filterwarnings("ignore")]
pytest.importorskip("txtai")

from txtai import Embeddings

from minisbert.adapters.txtai import transform

METHOD = "minisbert.adapters.txtai.MinisbertVectors"


def ranked(queries: np.ndarray, documents: np.ndarray) -> list[tuple[int, float]]:
    """Rows with their cosine similarities, the most similar first."""
    unit = documents / np.linalg.norm(documents, axis=1, keepdims=True)
    scores = unit @ (queries / np.linalg.norm(queries))
    return [(int(row), pytest.approx(float(scores[row]), abs=1e-5)) for row in np.argsort(-scores)]


def test_a_function(folder: Path, model: SentenceTransformer, texts: list[str], tmp_path: Path) -> None:
    expected = ranked(model.encode("a cat", truncate_dim=8), model.encode(texts, truncate_dim=8))
    for given in (model, str(folder)):
        function = transform(given, truncate_dim=8)
        assert np.array_equal(function(texts), model.encode(texts, truncate_dim=8))
        for path in ({}, {"path": str(folder)}):
            index = Embeddings(method="external", transform=function, **path)
            index.index(texts)
            assert index.search("a cat", 4) == expected
    index.save(str(tmp_path / "index"))
    again = Embeddings()
    again.load(str(tmp_path / "index"), config={"transform": function})
    assert again.search("a cat", 4) == expected


def test_a_method_tells_queries_from_documents(
    folder: Path, model: SentenceTransformer, texts: list[str], tmp_path: Path
) -> None:
    index = Embeddings(path=str(folder), method=METHOD, gpu=False)
    index.index(texts)
    expected = ranked(model.encode_query("a cat"), model.encode_document(texts))
    assert index.search("a cat", 4) == expected
    index.save(str(tmp_path / "index"))
    again = Embeddings()
    again.load(str(tmp_path / "index"))
    assert again.search("a cat", 4) == expected
    options = {"truncate_dim": 8, "query_prompt": "", "batch_size": 2}
    index = Embeddings(path=str(folder), method=METHOD, vectors=options, content=True)
    index.index(texts)
    found = [(int(row["id"]), row["score"]) for row in index.search("a cat", 4)]
    assert found == ranked(
        model.encode("a cat", prompt="", truncate_dim=8), model.encode_document(texts, truncate_dim=8)
    )


def test_wrong_options(folder: Path, model: SentenceTransformer) -> None:
    with pytest.raises(ImportError) as caught:
        Embeddings(path=str(folder), method=METHOD, vectors={"truncate": 3})
    assert isinstance(caught.value.__cause__, ConfigError)
    assert "got 'truncate' in vectors; expected options such as truncate_dim" in str(caught.value.__cause__)
    with pytest.raises(ConfigError, match="got dtype='int8' with a loaded model"):
        transform(model, dtype="int8")
