"""Every loss against its definition, written as loops over rows in float64, and what the losses have in common."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from loss_cases import CASES, DIM, LAYERED, LAYERS, ROWS, Bound, Case, batch, computed, made
from torch import Tensor, nn

from minisbert import losses, util
from minisbert.losses import loss_names

Rows = Sequence[np.ndarray]  # the columns of a batch


class Sized(nn.Module):
    """A model with embeddings of a size."""

    def get_sentence_embedding_dimension(self) -> int:
        return DIM


def make(case: Case) -> Any:
    torch.manual_seed(0)
    return made(case, losses, util, Sized())


def bound(case: Case, dtype: torch.dtype = torch.float32) -> Bound:
    return Bound(make(case).to(dtype))


# ---- definitions ----------------------------------------------------------------------------------------------------


def cos(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def angle(a: np.ndarray, b: np.ndarray) -> float:
    one, other = (v[: DIM // 2] + 1j * v[DIM // 2 :] for v in (a / np.linalg.norm(a), b / np.linalg.norm(b)))
    product = (one * other.conj()).sum()
    return float(abs(product.real + product.imag))


SIMILARITY: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "cos_sim": cos,
    "dot_score": lambda a, b: float(a @ b),
    "pairwise_cos_sim": cos,
    "pairwise_dot_score": lambda a, b: float(a @ b),
}


def distance(name: str, a: np.ndarray, b: np.ndarray) -> float:
    if "cos" in name.lower():
        return 1 - cos(a, b)
    shift = 1e-6 if name.startswith("Siamese") else 0.0  # torch's pairwise_distance adds it to differences
    difference = np.abs(a - b + shift)
    return float(difference.sum() if "MANHATTAN" in name else np.sqrt((difference**2).sum()))


def relu(value: float) -> float:
    return max(value, 0.0)


def log_sum_exp(values: Sequence[float]) -> float:
    return float(np.logaddexp.reduce(values))


def cosent(scores: Sequence[float], labels: Sequence[float]) -> float:
    pairs = [(i, j) for i in range(len(scores)) for j in range(len(scores)) if labels[i] < labels[j]]
    return log_sum_exp([0.0, *(scores[i] - scores[j] for i, j in pairs)])


def define_cosine(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    return float(np.mean([(cos(a, b) - y) ** 2 for a, b, y in zip(*parts, labels, strict=True)]))


def define_cosent(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    similarity = SIMILARITY[options.get("similarity_fct", "pairwise_cos_sim")]
    return cosent([options.get("scale", 20) * similarity(a, b) for a, b in zip(*parts, strict=True)], labels)


def define_angle(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    values = np.ones(len(parts[0])) if labels is None else labels
    scores = [options.get("scale", 20) * angle(a, b) for part in parts[1:] for a, b in zip(parts[0], part, strict=True)]
    return cosent(scores, np.concatenate([values, *([1 - values] * (len(parts) - 2))]))


def define_ranking(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    similarity, scale = SIMILARITY[options.get("similarity_fct", "cos_sim")], options.get("scale", 20)
    queries, *docs = parts
    directions = options.get("directions", ("query_to_doc",))
    mode, strength = options.get("hardness_mode"), options.get("hardness_strength", 0)
    rows, losses_of_rows = range(len(queries)), []
    for i in rows:
        scores: dict[str, list[float]] = {name: [] for name in directions}
        for j in rows:
            for column, doc in enumerate(docs):
                hard = column > 0 if i == j else False
                in_batch = i != j
                raw = similarity(queries[i], doc[j])
                raised = {"hard_negatives": hard, "in_batch_negatives": in_batch, "all_negatives": hard or in_batch}
                penalty = strength * raw if raised.get(mode, False) else 0.0
                scores["query_to_doc"].append(scale * raw + penalty)
                if "doc_to_doc" in directions and in_batch:
                    scores["doc_to_doc"].append(scale * similarity(doc[j], docs[0][i]))
            if "query_to_query" in directions and i != j:
                scores["query_to_query"].append(scale * similarity(queries[i], queries[j]))
            if "doc_to_query" in directions:
                scores["doc_to_query"].append(scale * similarity(docs[0][i], queries[j]))
        right = scale * similarity(queries[i], docs[0][i])
        if options.get("partition_mode") == "per_direction":
            total = float(np.mean([log_sum_exp(part) for part in scores.values()]))
        else:
            total = log_sum_exp([score for part in scores.values() for score in part])
        losses_of_rows.append(total - right)
    return float(np.mean(losses_of_rows))


def define_symmetric(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    both = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"}
    return define_ranking({**options, **both}, parts, labels)


def define_mega_batch(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    high, low = options.get("positive_margin", 0.8), options.get("negative_margin", 0.3)
    anchors, positives = parts
    values = []
    for i, anchor in enumerate(anchors):
        others = [cos(anchor, positive) for j, positive in enumerate(positives) if j != i]
        values.append(relu(high - cos(anchor, positives[i])) + (relu(max(others) - low) if others else 0.0))
    return float(np.mean(values))


def define_contrastive(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    name, margin = options.get("distance_metric", "Siamese.COSINE_DISTANCE"), options.get("margin", 0.5)
    distances = [distance(name, a, b) for a, b in zip(*parts, strict=True)]
    values = [d**2 / 2 if y == 1 else relu(margin - d) ** 2 / 2 for d, y in zip(distances, labels, strict=True)]
    return float(np.mean(values) if options.get("size_average", True) else np.sum(values))


def define_online(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    name, margin = options.get("distance_metric", "Siamese.COSINE_DISTANCE"), options.get("margin", 0.5)
    distances = [distance(name, a, b) for a, b in zip(*parts, strict=True)]
    near = [d for d, y in zip(distances, labels, strict=True) if y == 1]
    far = [d for d, y in zip(distances, labels, strict=True) if y == 0]
    highest = max(near) if near else np.mean(far)
    lowest = min(far) if far else np.mean(near)
    return sum(d**2 for d in near if d > lowest) + sum(relu(margin - d) ** 2 for d in far if d < highest)


def define_triplet(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    name, margin = options.get("distance_metric", "Triplet.EUCLIDEAN"), options.get("triplet_margin", 5)
    values = [relu(distance(name, a, p) - distance(name, a, n) + margin) for a, p, n in zip(*parts, strict=True)]
    return float(np.mean(values))


def in_batch(options: dict[str, Any], parts: Rows) -> tuple[np.ndarray, float]:
    name = options.get("distance_metric", "BatchHard.euclidean_distance")
    return np.array([[distance(name, a, b) for b in parts[0]] for a in parts[0]]), options.get("margin", 5)


def define_batch_all(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    d, margin = in_batch(options, parts)
    rows = range(len(d))
    triples = [(a, p, n) for a in rows for p in rows for n in rows if a != p and labels[a] == labels[p] != labels[n]]
    values = [value for a, p, n in triples if (value := relu(d[a, p] - d[a, n] + margin)) > 1e-12]
    return float(np.mean(values)) if values else 0.0


def hardest(d: np.ndarray, labels: Any) -> list[float]:
    gaps = []
    for a, row in enumerate(d):
        near = [row[p] for p in range(len(d)) if p != a and labels[p] == labels[a]]
        far = [row[n] for n in range(len(d)) if labels[n] != labels[a]]
        gaps.append(max(near, default=0.0) - (min(far) if far else row[a] + max(row)))
    return gaps


def define_batch_hard(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    d, margin = in_batch(options, parts)
    return float(np.mean([relu(gap + margin) for gap in hardest(d, labels)]))


def define_soft_margin(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    return float(np.mean([math.log1p(math.exp(gap)) for gap in hardest(in_batch(options, parts)[0], labels)]))


def define_semi_hard(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    d, margin = in_batch(options, parts)
    rows, values = range(len(d)), []
    for a, p in ((a, p) for a in rows for p in rows if a != p and labels[a] == labels[p]):
        far = [d[a, n] for n in rows if labels[n] != labels[a]]
        chosen = min((one for one in far if one > d[a, p]), default=max(far, default=min(d[a])))
        values.append(relu(d[a, p] - chosen + margin))
    return float(np.mean(values)) if values else 0.0


def define_distillation(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    measure = {
        "mse": lambda a, b: ((a - b) ** 2).mean(),
        "l2": lambda a, b: np.linalg.norm(a - b),
        "cosine": lambda a, b: 1 - cos(a, b),
    }[options.get("distance_metric", "cosine")]
    if "projection_dim" in options:
        layer = make(Case("MSELoss", {"projection_dim": options["projection_dim"]})).projection.double()
        parts = [layer(torch.from_numpy(part)).detach().numpy() for part in parts]
    targets = [labels] * len(parts) if labels.ndim == 2 else np.moveaxis(labels, 1, 0)
    pairs = [pair for columns in zip(parts, targets, strict=True) for pair in zip(*columns, strict=True)]
    return float(np.mean([measure(a, b) for a, b in pairs]))


def define_mse(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    return define_distillation({**options, "distance_metric": "mse"}, parts, labels)


def define_margins(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    similarity = SIMILARITY[options.get("similarity_fct", "pairwise_dot_score")]
    queries, positives, *negatives = parts
    wanted = labels.reshape(len(queries), -1)
    if wanted.shape[1] > len(negatives):
        wanted = wanted[:, :1] - wanted[:, 1:]
    errors = [
        similarity(query, positives[i]) - similarity(query, negative[i]) - wanted[i, column]
        for i, query in enumerate(queries)
        for column, negative in enumerate(negatives)
    ]
    return float(np.mean(np.square(errors)))


def define_divergence(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    similarity = SIMILARITY[options.get("similarity_fct", "pairwise_dot_score")]
    student = options.get("student_temperature", options.get("temperature", 1.0))
    teacher = options.get("teacher_temperature", options.get("temperature", 1.0))
    total = 0.0
    for i, query in enumerate(parts[0]):
        scores = np.array([similarity(query, part[i]) for part in parts[1:]]) / student
        wanted = labels[i] / teacher
        logs, wanted_logs = scores - log_sum_exp(scores), wanted - log_sum_exp(wanted)
        total += float((np.exp(wanted_logs) * (wanted_logs - logs)).sum())
    return total / len(parts[0]) * student**2


def define_softmax(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    classifier = make(Case("SoftmaxLoss", options)).classifier.double()
    weight, bias = classifier.weight.detach().numpy(), classifier.bias.detach().numpy()
    values = []
    for u, v, label in zip(*parts, labels, strict=True):
        seen = [u, v] if options.get("concatenation_sent_rep", True) else []
        seen += [np.abs(u - v)] if options.get("concatenation_sent_difference", True) else []
        seen += [u * v] if options.get("concatenation_sent_multiplication", False) else []
        scores = weight @ np.concatenate(seen) + bias
        values.append(log_sum_exp(scores) - scores[label])
    return float(np.mean(values))


def define_orthogonal(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    similarity = SIMILARITY[options.get("similarity_fct", "cos_sim")]
    means, seconds = [], []
    for part in parts:
        pairs = [similarity(a, b) for i, a in enumerate(part) for j, b in enumerate(part) if i != j]
        means.append(np.mean(pairs) ** 2 if pairs else 0.0)
        seconds.append(relu(float(np.mean(np.square(pairs))) - 1 / DIM) if pairs else 0.0)
    total = np.mean if options.get("aggregation", "mean") == "mean" else np.sum
    first, second = (options.get(name, 1.0) or 0.0 for name in ("mean_weight", "second_moment_weight"))
    return float(first * total(means) + second * total(seconds))


def define_tension(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    texts, copies = parts
    one, other = (define_ranking(options, columns, labels) for columns in ((copies, texts), (texts, copies)))
    return (one + other) / 2


def define_guided(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    (queries, positives, *negatives), theirs = parts[: len(parts) // 2], parts[len(parts) // 2 :]
    temperature, margin = options.get("temperature", 0.01), options.get("margin", 0.0)
    total = 0.0
    for i in range(len(queries)):
        right = cos(theirs[0][i], theirs[1][i])
        least = right - margin * (abs(right) if options.get("margin_strategy") == "relative" else 1)
        scores = [cos(queries[i], positives[i])]
        for j in range(len(queries)):
            pairs = [
                (queries, negative, theirs[0], their) for negative, their in zip(negatives, theirs[2:], strict=True)
            ]
            if i != j:
                pairs.append((queries, positives, theirs[0], theirs[1]))
            if options.get("contrast_anchors", True):
                pairs.append((queries, queries, theirs[0], theirs[0]))
            if options.get("contrast_positives", True):
                pairs.append((positives, positives, theirs[1], theirs[1]))
            scores += [cos(a[i], b[j]) for a, b, guide_a, guide_b in pairs if cos(guide_a[i], guide_b[j]) <= least]
        total += log_sum_exp(np.array(scores) / temperature) - scores[0] / temperature
    return total / len(queries)


def define_matryoshka(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    sizes = options["matryoshka_dims"]
    weights = options.get("matryoshka_weights", [1] * len(sizes))
    chosen = sorted(zip(sizes, weights, strict=True), reverse=True)
    if (drawn := options.get("n_dims_per_step", -1)) > 0:
        chosen = random.sample(chosen, drawn)
    total = 0.0
    for size, weight in chosen:
        cut = [part[:, :size] / np.linalg.norm(part[:, :size], axis=1, keepdims=True) for part in parts]
        of_sizes = labels[..., :size] if np.ndim(labels) > 1 else labels
        total += weight * DEFINITIONS[options["loss"]]({}, cut, of_sizes)
    return total


def define_layers(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    columns = len(parts) // LAYERS
    *prior, last = (parts[first : first + columns] for first in range(0, len(parts), columns))
    chosen: Sequence[int] = range(len(prior))

    def inner(some: Rows) -> float:
        if "matryoshka_dims" in options:
            return define_matryoshka({"n_dims_per_step": 1, **options}, some, labels)
        return DEFINITIONS[options["loss"]]({}, some, labels)

    total = options.get("last_layer_weight", 1.0) * inner(last)
    if 0 < (drawn := options.get("n_layers_per_step", 1)) < len(prior):
        chosen = random.sample(chosen, drawn)
    for layer in chosen:
        weight = {"uniform": 1.0, "log": 1 / (1 + math.log(1 + layer)), "linear": 1 / (1 + layer)}
        share = weight[options.get("layer_weighting", "uniform")] / len(chosen)
        total += inner(prior[layer]) * share * options.get("prior_layers_weight", 1.0)
        if temperature := options.get("kl_temperature", 0.3):
            divergences = []
            for text, teacher in zip(np.concatenate(prior[layer]), np.concatenate(last), strict=True):
                one, other = (row / temperature - log_sum_exp(row / temperature) for row in (text, teacher))
                divergences.append(float((np.exp(other) * (other - one)).sum()))
            total += float(np.mean(divergences)) * temperature * options.get("kl_div_weight", 1.0)
    return total


def define_contrastive_tension(options: dict[str, Any], parts: Rows, labels: Any) -> float:
    total = 0.0
    for one, other, label in zip(*parts, labels, strict=True):
        score = float(one @ other)
        total += math.log1p(math.exp(-score)) if label else math.log1p(math.exp(score))
    return total


DEFINITIONS: dict[str, Callable[[dict[str, Any], Rows, Any], float]] = {
    "AdaptiveLayerLoss": define_layers,
    "Matryoshka2dLoss": define_layers,
    "ContrastiveTensionLoss": define_contrastive_tension,
    "CosineSimilarityLoss": define_cosine,
    "CoSENTLoss": define_cosent,
    "AnglELoss": define_angle,
    "MultipleNegativesRankingLoss": define_ranking,
    "MultipleNegativesSymmetricRankingLoss": define_symmetric,
    "MegaBatchMarginLoss": define_mega_batch,
    "ContrastiveLoss": define_contrastive,
    "OnlineContrastiveLoss": define_online,
    "TripletLoss": define_triplet,
    "BatchAllTripletLoss": define_batch_all,
    "BatchHardTripletLoss": define_batch_hard,
    "BatchHardSoftMarginTripletLoss": define_soft_margin,
    "BatchSemiHardTripletLoss": define_semi_hard,
    "EmbedDistillLoss": define_distillation,
    "MSELoss": define_mse,
    "MarginMSELoss": define_margins,
    "DistillKLDivLoss": define_divergence,
    "SoftmaxLoss": define_softmax,
    "ContrastiveTensionLossInBatchNegatives": define_tension,
    "GISTEmbedLoss": define_guided,
    "GlobalOrthogonalRegularizationLoss": define_orthogonal,
    "MatryoshkaLoss": define_matryoshka,
    "CachedMultipleNegativesRankingLoss": define_ranking,
    "CachedMultipleNegativesSymmetricRankingLoss": define_symmetric,
    "CachedGISTEmbedLoss": define_guided,
}


def test_every_loss_has_a_definition_and_a_case() -> None:
    over_tokens = {"DenoisingAutoEncoderLoss"}  # see test_denoising.py
    assert set(DEFINITIONS) == set(loss_names()) - over_tokens == {case.loss for case in CASES}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_value(case: Case) -> None:
    loss = bound(case, torch.float64)
    for rows in ROWS:
        for columns in case.columns:
            parts, labels = batch(case, rows, columns)
            random.seed(1)
            value = loss(parts, labels).item()
            random.seed(1)
            plain = None if labels is None else labels.numpy()
            expected = DEFINITIONS[case.loss](case.options, [part.numpy() for part in parts], plain)
            # The labels of the first are rounded to float32, and so is the scale of the other.
            rounded = case.loss in ("CosineSimilarityLoss", "ContrastiveTensionLossInBatchNegatives")
            assert value == pytest.approx(expected, rel=1e-6 if rounded else 1e-10, abs=1e-10)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_are_those_of_the_value(case: Case) -> None:
    """Of a random batch, which is at no point where the loss bends; penalties of hardness have no gradient."""
    if "hardness_mode" in case.options or case.loss == "CosineSimilarityLoss":
        pytest.skip("its penalties have no gradient, or its labels are rounded to float32")
    if case.loss in LAYERED and case.options.get("kl_temperature") != 0:
        pytest.skip("the last layer has no gradient of the divergence")
    loss = bound(case, torch.float64)
    parts, labels = batch(case, 5, case.columns[-1])

    def value(*leaves: Tensor) -> Tensor:
        random.seed(1)
        return loss(leaves, labels)

    assert torch.autograd.gradcheck(value, [part.requires_grad_() for part in parts])


def test_the_last_layer_has_no_gradient_of_the_divergence() -> None:
    case = Case("AdaptiveLayerLoss", {"loss": "TripletLoss"}, (3,))
    parts, _ = batch(case, 4, 3)
    gradients = {}
    for temperature in (0.0, 0.5):
        case.options["kl_temperature"] = temperature
        random.seed(1)
        gradients[temperature] = computed(bound(case, torch.float64), parts)[1]
    for with_it, without in zip(gradients[0.5][-3:], gradients[0.0][-3:], strict=True):
        torch.testing.assert_close(with_it, without, rtol=0, atol=0)
    assert any(not torch.equal(a, b) for a, b in zip(gradients[0.5][:-3], gradients[0.0][:-3], strict=True))


def test_penalties_are_constants() -> None:
    """With hardness, the gradient is that of scores to which numbers are added."""
    parts, _ = batch(Case("x"), 4, 3)
    plain = losses.MultipleNegativesRankingLoss(similarity_fct=util.dot_score, scale=1.0)
    strong = losses.MultipleNegativesRankingLoss(
        similarity_fct=util.dot_score, scale=1.0, hardness_mode="all_negatives", hardness_strength=2.0
    )
    queries, positives, negatives = (part.clone().requires_grad_() for part in parts)
    scores = queries @ torch.cat([positives, negatives]).T
    penalties = 2.0 * scores.detach()
    penalties[torch.arange(4), torch.arange(4)] = 0
    plain.rank(scores + penalties).backward()
    expected = [leaf.grad for leaf in (queries, positives, negatives)]
    for got, wanted in zip(computed(strong, parts)[1], expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_is_computed_in_float32(case: Case, dtype: torch.dtype) -> None:
    loss = bound(case)
    parts, labels = batch(case, 7, case.columns[0])
    halves = [part.to(dtype) for part in parts]
    random.seed(1)
    value = loss(halves, labels)
    random.seed(1)
    assert value.dtype == torch.float32
    assert value.item() == loss([half.float() for half in halves], labels).item()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_duplicates_and_single_rows_give_finite_gradients(case: Case) -> None:
    loss = bound(case)
    for rows in ROWS:
        parts, labels = batch(case, rows, case.columns[0], kind="duplicates")
        value, gradients = computed(
            lambda leaves, labels=labels: loss(leaves, labels), [part.float() for part in parts]
        )
        assert value.shape == ()
        assert value.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)
