"""Every loss over embeddings equals the reference's: value, gradients, parameters for the card, and citation."""

from __future__ import annotations

import inspect
import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest
import torch
from loss_cases import CASES as ALL_CASES
from loss_cases import DIM, GUIDED, LAYERED, ROWS, Bound, Case, batch, computed, made
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from minisbert import losses, util
from minisbert.card.composing import papers
from minisbert.errors import ConfigError
from minisbert.losses import loss_names

reference = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
functions = pytest.importorskip("sentence_transformers.util")
pytestmark = pytest.mark.parity

BOUNDS = {torch.float32: 5e-7, torch.float64: 1e-12}  # of the largest element
CASES = [case for case in ALL_CASES if case.loss not in LAYERED]  # those need an encoder: see the replays
SMALL = 0.25  # or of this, if all elements are smaller, as where the exact value is 0


class Given(nn.Module):
    """A model for the reference's losses that has embedded the texts already."""

    device = torch.device("cpu")
    dtype = torch.float32
    shown = "sentence_embedding"
    max_seq_length = 8
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, "a")))

    def get_max_seq_length(self) -> int:
        return self.max_seq_length

    def get_embedding_dimension(self) -> int:
        return DIM

    get_sentence_embedding_dimension = get_embedding_dimension

    def __getitem__(self, index: int) -> nn.Module:
        return self

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"sentence_embedding": features[self.shown]}


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def both(case: Case, dtype: torch.dtype) -> tuple[Bound, nn.Module]:
    """Make a loss and the reference's, with equal layers of their own."""
    model = Given()
    torch.manual_seed(0)
    ours = made(case, losses, util, model).to(dtype)
    torch.manual_seed(0)
    theirs = made(case, reference, functions, model).to(dtype)
    if case.loss in GUIDED:
        (theirs.model1 if hasattr(theirs, "model1") else theirs.guide).shown = "guided"
    return Bound(ours), theirs


def value_of(loss: nn.Module, parts: Sequence[Tensor], *, labels: Tensor | None) -> Tensor:
    """The reference's value: terms are added up, as its trainer does."""
    half = len(parts) // 2 if type(loss).__name__ in GUIDED else len(parts)
    features = [{"sentence_embedding": part, "input_ids": torch.zeros(len(part), 1)} for part in parts[:half]]
    for texts, part in zip(features, parts[half:], strict=False):
        texts["guided"] = part
    result = loss(features, labels)
    return sum(result.values()) if isinstance(result, dict) else result


def share(got: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference as a share of the largest element."""
    left, right = torch.cat([one.flatten() for one in got]), torch.cat([one.flatten() for one in expected])
    return float((left - right).abs().max()) / max(float(right.abs().max()), SMALL)


@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize("kind", ["random", "duplicates"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_value_and_gradients(case: Case, kind: str, dtype: torch.dtype, compare: Callable[..., None]) -> None:
    ours, theirs = both(case, dtype)
    for rows in ROWS:
        for columns in case.columns:
            parts, labels = batch(case, rows, columns, kind=kind)
            parts = [part.to(dtype) for part in parts]
            if labels is not None and labels.is_floating_point():
                labels = labels.to(dtype)
            random.seed(1)
            value, gradients = computed(partial(ours, labels=labels), parts)
            random.seed(1)
            expected, expected_gradients = computed(partial(value_of, theirs, labels=labels), parts)
            compare(f"{case.loss}: values, {dtype}", share([value], [expected]), BOUNDS[dtype])
            compare(f"{case.loss}: gradients, {dtype}", share(gradients, expected_gradients), BOUNDS[dtype])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision(case: Case, dtype: torch.dtype, compare: Callable[..., None]) -> None:
    """Losses compute in float32, where the reference computes some in half precision: compare with that of floats."""
    ours, theirs = both(case, torch.float32)
    parts, labels = batch(case, 7, case.columns[0])
    if labels is not None and labels.is_floating_point():
        labels = labels.float()
    halves = [part.to(dtype) for part in parts]
    random.seed(1)
    value = ours(halves, labels)
    random.seed(1)
    expected = value_of(theirs, [half.float() for half in halves], labels=labels)
    assert value.dtype == torch.float32
    compare(f"{case.loss}: values, {dtype}", share([value], [expected]), BOUNDS[torch.float32])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_parameters_and_citation(case: Case) -> None:
    ours, theirs = both(case, torch.float32)
    config, expected = ours.loss.get_config_dict(), theirs.get_config_dict()
    assert list(config) == list(expected)
    config.pop("guide", None)
    expected.pop("guide", None)
    assert config == expected
    cited = (getattr(theirs, "citation", None) or "").strip()
    assert papers().get(ours.loss.paper, "") == cited


def test_citation_in_any_order() -> None:
    directions = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    for count in range(1, len(directions) + 1):
        for chosen in itertools.permutations(directions, count):
            for mode in ("joint", "per_direction"):
                try:
                    theirs = reference.MultipleNegativesRankingLoss(None, directions=chosen, partition_mode=mode)
                except ValueError:
                    with pytest.raises(ConfigError):
                        losses.MultipleNegativesRankingLoss(directions=chosen, partition_mode=mode)
                else:
                    ours = losses.MultipleNegativesRankingLoss(directions=chosen, partition_mode=mode)
                    assert papers()[ours.paper] == theirs.citation.strip()


def test_arguments_and_defaults() -> None:
    """Constructors take the reference's arguments with its defaults; only options without a name may be reordered."""
    for name in loss_names():
        ours = inspect.signature(getattr(losses, name).__init__).parameters
        theirs = inspect.signature(getattr(reference, name).__init__).parameters
        assert list(ours) == list(theirs), name
        for option, parameter in theirs.items():
            default = ours[option].default
            if option in ("self", "model") or isinstance(parameter.default, nn.Module):
                continue
            if default is inspect.Parameter.empty or parameter.default is inspect.Parameter.empty:
                assert default is parameter.default, (name, option)
            elif callable(default):
                given = {"embedding_dimension": DIM, "num_labels": 2} if name == "SoftmaxLoss" else {}
                config = [getattr(library, name)(Given(), **given).get_config_dict() for library in (losses, reference)]
                assert config[0][option] == config[1][option], (name, option)
            else:
                assert default == parameter.default, (name, option)


def test_all_names_of_distances() -> None:
    for family in ("TripletDistanceMetric", "SiameseDistanceMetric", "BatchHardTripletLossDistanceFunction"):
        names = {name for name in vars(getattr(reference, family)) if not name.startswith("_")}
        assert {name for name in vars(getattr(losses, family)) if not name.startswith("_")} == names
