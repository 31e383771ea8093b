"""Habits of evaluators, and of what minisbert has no model for."""

import csv

import torch
from sentence_transformers import SentenceTransformer, SimilarityFunction, evaluation
from sentence_transformers.evaluation import (
    BinaryClassificationEvaluator,
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    MSEEvaluator,
    ParaphraseMiningEvaluator,
    RerankingEvaluator,
    SentenceEvaluator,
    SequentialEvaluator,
    TranslationEvaluator,
    TripletEvaluator,
)

ONE = ["a cat sat on the mat", "the dog ran fast", "the sky is blue", "why is it so"]
OTHER = ["a cat sat on a mat", "the dog ran slow", "how red is the tree", "three dog ran to the sea"]
SCORES = [0.9, 0.6, 0.2, 0.0]
QUERIES = {"q1": "the cat", "q2": "the dog"}
CORPUS = {"d1": ONE[0], "d2": ONE[1], "d3": ONE[2], "d4": OTHER[1]}
RELEVANT = {"q1": {"d1"}, "q2": {"d2", "d4"}}
SHORT = {"accuracy_at_k": [1], "precision_recall_at_k": [1, 2], "mrr_at_k": [2], "ndcg_at_k": [2], "map_at_k": [2]}


class Own(SentenceEvaluator):
    """The share of texts whose embedding begins with a positive number."""

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        return float((model.encode(ONE)[:, 0] > 0).mean())


class OwnMetrics(SentenceEvaluator):
    """Metrics by name, the first of which is the main one."""

    def __init__(self):
        super().__init__()
        self.primary_metric = "first"

    def __call__(self, model, output_path=None, epoch=-1, steps=-1):
        metrics = self.prefix_name_to_metrics({"first": float(model.encode(ONE).sum()), "second": 1.0}, "own")
        self.store_metrics_in_model_card_data(model, metrics, epoch, steps)
        return metrics


def written(m, place):
    evaluator = EmbeddingSimilarityEvaluator(ONE, OTHER, SCORES, name="sts-test")
    metrics = evaluator(m, output_path=str(place))
    rows = [list(csv.reader(one.open())) for one in sorted(place.rglob("*.csv"))]
    return metrics, evaluator.primary_metric, evaluator.csv_file, rows[0][0], len(rows[0])


def retrieval(m, **options):
    return InformationRetrievalEvaluator(QUERIES, CORPUS, RELEVANT, **{**SHORT, **options})(m)


def translation(m, place):
    evaluator = TranslationEvaluator(ONE, OTHER, name="en-de", batch_size=2)
    return m.evaluate(evaluator, str(place)), evaluator.primary_metric


def sequence(m):
    chain = SequentialEvaluator(
        [
            EmbeddingSimilarityEvaluator(ONE, OTHER, SCORES, main_similarity=SimilarityFunction.COSINE, name="a"),
            TripletEvaluator(ONE, OTHER, OTHER[::-1], name="b"),
        ],
        main_score_function=lambda scores: scores[-1],
    )
    return chain(m)


def refused(name):
    kind = getattr(__import__("sentence_transformers"), name)
    return kind("a/model")


def reranked():
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoder as Same

    return CrossEncoder is Same, CrossEncoder("no/model").predict([("a", "b")])


def images(m):
    from PIL import Image

    return m.encode([Image.new("RGB", (8, 8))])


def image_model():
    from sentence_transformers import models

    return SentenceTransformer(modules=[models.CLIPModel("no/model")])


def adapted(m):
    from peft import LoraConfig, TaskType

    m.add_adapter(LoraConfig(task_type=TaskType.FEATURE_EXTRACTION, r=4, lora_alpha=8, lora_dropout=0.1))
    return sum(parameter.numel() for parameter in m.parameters() if parameter.requires_grad) > 0


IDIOMS = {
    "from_input_examples": lambda m: EmbeddingSimilarityEvaluator.from_input_examples(
        [
            __import__("sentence_transformers").InputExample(texts=[a, b], label=score)
            for a, b, score in zip(ONE, OTHER, SCORES, strict=True)
        ],
        name="dev",
    )(m),
    "EmbeddingSimilarityEvaluator(batch size in place)": lambda m: EmbeddingSimilarityEvaluator(ONE, OTHER, SCORES, 16)(
        m
    ),
    "EmbeddingSimilarityEvaluator(all similarities)": lambda m: EmbeddingSimilarityEvaluator(
        ONE, OTHER, SCORES, similarity_fn_names=["cosine", "dot", "euclidean", "manhattan"]
    )(m),
    "EmbeddingSimilarityEvaluator(precision)": lambda m: EmbeddingSimilarityEvaluator(
        ONE, OTHER, SCORES, precision="ubinary"
    )(m),
    "EmbeddingSimilarityEvaluator(other lengths)": lambda m: EmbeddingSimilarityEvaluator(ONE, OTHER[:2], SCORES)(m),
    "written results": written,
    "retrieval": retrieval,
    "retrieval by name": lambda m: retrieval(m, name="nfcorpus", show_progress_bar=False, corpus_chunk_size=2),
    "retrieval, truncated": lambda m: (
        retrieval(m, truncate_dim=8, score_functions={"dot": torch.matmul}) if False else retrieval(m, truncate_dim=8)
    ),
    "retrieval, numbers as ids": lambda m: InformationRetrievalEvaluator(
        {1: "the cat"}, dict(enumerate(ONE)), {1: {0}}, **SHORT
    )(m),
    "retrieval, lists of documents": lambda m: InformationRetrievalEvaluator(
        QUERIES, CORPUS, {"q1": ["d1"], "q2": ["d2"]}, **SHORT
    )(m),
    "retrieval, unknown documents": lambda m: len(
        InformationRetrievalEvaluator(QUERIES, CORPUS, {"q1": {"d1", "zz"}, "q2": {"d2"}})(m)
    ),
    "retrieval, queries without documents": lambda m: InformationRetrievalEvaluator(
        QUERIES, CORPUS, {"q1": {"d1"}}, **SHORT
    )(m),
    "triplets": lambda m: TripletEvaluator(ONE, OTHER, OTHER[::-1], name="dev")(m),
    "triplets by name": lambda m: TripletEvaluator(
        anchors=ONE, positives=OTHER, negatives=OTHER[::-1], main_similarity_function="cosine"
    )(m),
    "binary classification": lambda m: BinaryClassificationEvaluator(ONE, OTHER, [1, 1, 0, 0])(m),
    "paraphrase mining": lambda m: ParaphraseMiningEvaluator(
        dict(zip("abcd", ONE, strict=True)) | dict(zip("efgh", OTHER, strict=True)), [("a", "e"), ("b", "f")]
    )(m),
    "reranking": lambda m: RerankingEvaluator([{"query": ONE[0], "positive": [OTHER[0]], "negative": OTHER[1:]}])(m),
    "MSEEvaluator": lambda m: MSEEvaluator(ONE, OTHER, teacher_model=m)(m),
    "translation": translation,
    "sequence": sequence,
    "m.evaluate": lambda m: m.evaluate(TripletEvaluator(ONE, OTHER, OTHER[::-1])),
    "own evaluator": lambda m: m.evaluate(Own()),
    "own metrics": lambda m: m.evaluate(OwnMetrics()),
    "evaluation.SimilarityFunction": lambda: evaluation.SimilarityFunction.COSINE.value,
    "CrossEncoder": lambda: refused("CrossEncoder"),
    "SparseEncoder": lambda: refused("SparseEncoder"),
    "retrieve and rerank": reranked,
    "images": images,
    "CLIPModel": image_model,
    "adapter of PEFT": adapted,
}
