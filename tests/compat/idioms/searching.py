"""Habits of search, clustering, mining, quantization, and other tools in `util`."""

import logging

import numpy as np
import sentence_transformers
import torch
from datasets import Dataset
from sentence_transformers import LoggingHandler, SentenceTransformer, quantize_embeddings, util
from sentence_transformers.quantization import quantize_embeddings as from_its_module
from sentence_transformers.util import mine_hard_negatives

S = ["a cat sat on the mat", "the dog ran fast", "the sea is blue and the sky is red"]
MORE = [
    "a cat sat on a mat",
    "the dog ran slow",
    "the sky is blue",
    "how red is the tree",
    "one cat and two dog",
    "three dog ran to the sea",
    "a slow cat",
    "why is it so",
]
ROWS = {"q": S, "a": ["a cat sat", "dog ran", "sea and sky"]}


def best_first(pairs):
    return [(round(float(score), 4), *sorted(int(one) for one in place)) for score, *place in pairs]


def search_with_tensors(m):
    corpus = m.encode(MORE, convert_to_tensor=True)
    query = m.encode("the cat", convert_to_tensor=True)
    hits = util.semantic_search(query, corpus, top_k=3)[0]
    return [(MORE[hit["corpus_id"]], hit["score"]) for hit in hits]


def search_with_topk(m):
    corpus = m.encode(MORE, convert_to_tensor=True)
    scores = util.cos_sim(m.encode("the cat", convert_to_tensor=True), corpus)[0]
    top = torch.topk(scores, k=3)
    return top.values, top.indices


def search_with_numpy(m):
    scores = util.pytorch_cos_sim(m.encode("the cat"), m.encode(MORE))[0].cpu().numpy()
    return np.argpartition(-scores, range(3))[:3], scores


def normalized_dot(m):
    corpus = util.normalize_embeddings(m.encode(MORE, convert_to_tensor=True).to("cpu"))
    return util.semantic_search(corpus[:2], corpus, score_function=util.dot_score, top_k=2)


def communities(m):
    corpus = m.encode(MORE, batch_size=64, show_progress_bar=False, convert_to_tensor=True)
    return util.community_detection(corpus, min_community_size=1, threshold=0.75)


def clusters(m):
    from sklearn.cluster import AgglomerativeClustering, KMeans

    embeddings = m.encode(MORE)
    kmeans = KMeans(n_clusters=3, n_init=1, random_state=0).fit(embeddings)
    other = AgglomerativeClustering(n_clusters=None, distance_threshold=1.0).fit(embeddings)
    return kmeans.labels_, other.labels_


def translated_sentences(m):
    import itertools

    source, target = m.encode(S, convert_to_numpy=True), m.encode(MORE, convert_to_numpy=True)
    source /= np.linalg.norm(source, axis=1, keepdims=True)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    scores = source @ target.T
    forward, backward = scores.argmax(1), scores.argmax(0)
    return [
        (row, int(column))
        for row, column in itertools.product(range(len(S)), range(len(MORE)))
        if forward[row] == column and backward[column] == row
    ]


def mined(m):
    return mine_hard_negatives(Dataset.from_dict(ROWS), m, num_negatives=1, verbose=False)


def mined_triplets(m):
    found = util.mine_hard_negatives(
        dataset=Dataset.from_dict(ROWS),
        model=m,
        anchor_column_name="q",
        positive_column_name="a",
        range_min=0,
        range_max=2,
        max_score=0.9999,
        num_negatives=2,
        sampling_strategy="top",
        batch_size=4,
        use_faiss=False,
        output_format="triplet",
        verbose=False,
    )
    return found.column_names, found["negative"][:2]


def mined_tuples(m):
    return mine_hard_negatives(
        Dataset.from_dict(ROWS), m, corpus=MORE, output_format="n-tuple", num_negatives=2, verbose=False
    )


def quantized_search(m):
    corpus = m.encode(MORE, normalize_embeddings=True)
    calibration = m.encode(S * 4, normalize_embeddings=True)
    small = quantize_embeddings(corpus, precision="int8", calibration_embeddings=calibration)
    return small.dtype, small.shape, np.abs(small.astype(int)).max() <= 128


def rescored_binary(m):
    corpus = m.encode(MORE, normalize_embeddings=True)
    query = m.encode(S[:1], normalize_embeddings=True)
    bits = np.unpackbits(from_its_module(corpus, precision="ubinary"), axis=1)
    of_query = np.unpackbits(from_its_module(query, precision="ubinary"), axis=1)
    return (bits != of_query).sum(1), (bits * 2.0 - 1) @ query[0]


def truncated_by_hand(m, folder):
    small = SentenceTransformer(folder, truncate_dim=8)
    first, second = small.encode(MORE), m.encode(MORE)[..., :8]
    return small.similarity(first, first), np.abs(first - second).max() < 1e-5


def faiss_search(m):
    from sentence_transformers.quantization import semantic_search_faiss

    return semantic_search_faiss(m.encode(S), corpus_embeddings=m.encode(MORE), top_k=2)


def logged():
    logging.basicConfig(
        format="%(asctime)s - %(message)s", datefmt="%Y-%m-%d", level=logging.INFO, handlers=[LoggingHandler()]
    )
    logging.info("read the data")
    return isinstance(LoggingHandler(), logging.Handler)


def batched(m):
    features = util.batch_to_device(m.tokenize(S), torch.device("cpu"))
    return sorted(features), features["input_ids"].shape


def removed_duplicates(m):
    embeddings = m.encode([*S, S[0]], convert_to_tensor=True)
    pairs = util.paraphrase_mining_embeddings(embeddings, top_k=2)
    return {index for score, _, index in pairs if score > 0.99}


IDIOMS = {
    "__version__": lambda: tuple(map(int, sentence_transformers.__version__.split(".")[:2])) >= (2, 3),
    "modules by attribute": lambda: [
        hasattr(sentence_transformers, name)
        for name in "util losses evaluation models readers datasets SentenceTransformerTrainer CrossEncoder".split()
    ],
    "search with tensors": search_with_tensors,
    "search with topk": search_with_topk,
    "search with numpy": search_with_numpy,
    "search by positions": lambda m: util.semantic_search(m.encode(S), m.encode(MORE), 100, 500000, 2),
    "search of one query": lambda m: util.semantic_search(m.encode(S[0]), m.encode(MORE), top_k=2),
    "search by names": lambda m: util.semantic_search(
        query_embeddings=m.encode(S), corpus_embeddings=m.encode(MORE), query_chunk_size=2, corpus_chunk_size=3, top_k=2
    ),
    "search with lists of tensors": lambda m: util.semantic_search(
        m.encode(S, convert_to_numpy=False), m.encode(MORE, convert_to_numpy=False), top_k=1
    ),
    "search, empty corpus": lambda m: util.semantic_search(m.encode(S), m.encode([]), top_k=1),
    "normalized dot": normalized_dot,
    "cos_sim(a=, b=)": lambda m: util.cos_sim(a=m.encode(S), b=m.encode(S)),
    "cos_sim(vectors)": lambda m: util.cos_sim(m.encode(S[0]), m.encode(S[1])).item(),
    "cos_sim(lists)": lambda m: util.cos_sim(m.encode(S).tolist(), m.encode(S).tolist()),
    "pairwise_cos_sim": lambda m: util.pairwise_cos_sim(m.encode(S), m.encode(S[::-1])),
    "dot_score": lambda m: util.dot_score(m.encode(S), m.encode(S)),
    "euclidean_sim": lambda m: util.euclidean_sim(m.encode(S), m.encode(S)),
    "manhattan_sim": lambda m: util.pairwise_manhattan_sim(m.encode(S), m.encode(S)),
    "normalize_embeddings": lambda m: util.normalize_embeddings(m.encode(S, convert_to_tensor=True)),
    "truncate_embeddings": lambda m: util.truncate_embeddings(m.encode(S), 4),
    "paraphrase_mining": lambda m: best_first(util.paraphrase_mining(m, MORE)),
    "paraphrase_mining by positions": lambda m: best_first(util.paraphrase_mining(m, MORE, False, 16)),
    "paraphrase_mining by names": lambda m: best_first(
        util.paraphrase_mining(m, MORE, corpus_chunk_size=len(MORE), query_chunk_size=3, max_pairs=5, top_k=1)
    ),
    "duplicates": removed_duplicates,
    "communities": communities,
    "communities by positions": lambda m: util.community_detection(m.encode(MORE), 0.5, 1),
    "clusters of scikit-learn": clusters,
    "translated sentences": translated_sentences,
    "hard negatives": mined,
    "hard negatives as triplets": mined_triplets,
    "hard negatives of a corpus": mined_tuples,
    "int8 with calibration": quantized_search,
    "binary and rescoring": rescored_binary,
    "quantize_embeddings of a tensor": lambda m: quantize_embeddings(
        m.encode(S, convert_to_tensor=True), precision="ubinary"
    ),
    "truncated": truncated_by_hand,
    "faiss": faiss_search,
    "LoggingHandler": logged,
    "batch_to_device": batched,
    "http_get": lambda: callable(util.http_get),
    "fullname": lambda m: util.fullname(torch.nn.Tanh()),
    "import_from_string": lambda: util.import_from_string("torch.nn.Tanh").__name__,
    "SimilarityFunction": lambda: [
        str(one.value)
        for one in (
            sentence_transformers.SimilarityFunction("cosine"),
            sentence_transformers.evaluation.SimilarityFunction.DOT_PRODUCT,
        )
    ],
    "possible values": lambda: sentence_transformers.SimilarityFunction.possible_values(),
    "to_similarity_fn": lambda m: sentence_transformers.SimilarityFunction.to_similarity_fn("cosine")(
        m.encode(S), m.encode(S)
    ),
}
