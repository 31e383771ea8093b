"""spaCy: vectors of documents and spans, batches, saved pipelines and processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minisbert import SentenceTransformer

pytestmark = [pytest.mark.downstream, pytest.mark.filterwarnings("ignore")]
spacy = pytest.importorskip("spacy")

from spacy.language import Language
from spacy.tokens import Doc

from minisbert.adapters.spacy import SentenceVectors

TEXT = "A cat sat on the mat. The red sea is wide."


def blank(folder: Path, **config: object) -> Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("minisbert", config={"model": str(folder), "device": "cpu", **config})
    return nlp


def test_vectors_are_those_of_the_model(folder: Path, model: SentenceTransformer) -> None:
    doc, other = blank(folder)(TEXT), blank(folder)("a red dog")
    assert np.array_equal(doc.vector, model.encode(TEXT))
    assert np.array_equal(doc._.embedding, model.encode(TEXT))
    assert doc.has_vector
    assert doc.vector_norm == pytest.approx(np.linalg.norm(doc.vector))
    span = doc[1:3]
    assert np.array_equal(span.vector, model.encode("cat sat"))
    assert doc.similarity(other) == pytest.approx(float(model.similarity(doc.vector, other.vector)), abs=1e-6)
    assert span.similarity(other) == pytest.approx(float(model.similarity(span.vector, other.vector)), abs=1e-6)
    options = {"prompt": "p: ", "truncate_dim": 4, "normalize_embeddings": True}
    assert np.array_equal(blank(folder, **options)(TEXT).vector, model.encode(TEXT, **options))


def test_similarity_is_that_of_the_model(folder: Path) -> None:
    model = SentenceTransformer(folder, device="cpu", similarity_fn_name="euclidean")
    vectors = SentenceVectors(model)
    nlp = spacy.blank("en")
    one, other = vectors(nlp("a cat")), vectors(nlp("a red dog"))
    assert one.similarity(other) == pytest.approx(float(model.similarity(one.vector, other.vector)))
    assert one.similarity(other) < 0


def test_batches_embed_documents_and_sentences_at_once(folder: Path, model: SentenceTransformer) -> None:
    texts = [TEXT, "", "a cat", "Rain. More rain. Rain."]
    calls = []

    class Counted(SentenceTransformer):
        def encode(self, inputs: object = None, **options: object) -> object:
            calls.append(len(inputs))  # type: ignore[arg-type]
            return super().encode(inputs, **options)  # type: ignore[arg-type]

    Language.component("counted_vectors", func=SentenceVectors(Counted(folder, device="cpu"), sentences=True))
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.add_pipe("counted_vectors")
    docs = list(nlp.pipe(texts, batch_size=2))
    assert calls == [4, 6]
    for text, doc in zip(texts, docs, strict=True):
        assert doc.text == text
        np.testing.assert_allclose(doc.vector, model.encode(text), atol=1e-6)
        for sentence in doc.sents:
            np.testing.assert_allclose(sentence.vector, model.encode(sentence.text), atol=1e-6)
    assert calls == [4, 6]
    assert len(docs[0][0:2].vector) == len(docs[0].vector)
    assert calls == [4, 6, 1]


def test_a_saved_pipeline_loads_in_another_process(folder: Path, model: SentenceTransformer, tmp_path: Path) -> None:
    blank(folder, truncate_dim=4).to_disk(tmp_path / "pipeline")
    script = f"""
import spacy, minisbert.adapters.spacy
print(*spacy.load({str(tmp_path / "pipeline")!r})("a cat").vector.tolist())
"""
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(np.float32(found.stdout.split()), model.encode("a cat", truncate_dim=4), atol=1e-6)


def test_documents_of_other_processes_keep_the_embedding(folder: Path, model: SentenceTransformer) -> None:
    nlp = blank(folder)
    for doc in [
        *nlp.pipe(["a cat", "a red dog"], n_process=2, batch_size=1),
        Doc(nlp.vocab).from_bytes(nlp("a cat").to_bytes()),
    ]:
        np.testing.assert_allclose(doc._.embedding, model.encode(doc.text), atol=1e-6)
        assert nlp.get_pipe("minisbert").attach(doc) is doc
        assert np.array_equal(doc.vector, doc._.embedding)
        np.testing.assert_allclose(doc[:1].vector, model.encode("a"), atol=1e-6)


def test_an_unknown_option_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="unexpected argument: 'devise'"):
        blank(folder, devise="cpu")
