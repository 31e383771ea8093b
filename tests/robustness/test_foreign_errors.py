"""Arguments of wrong types, sizes and shapes give errors of one line, not those of Python, numpy or torch."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from minisbert import InputExample, datasets, losses, readers
from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError
from minisbert.evaluation import MSEEvaluator, MSEEvaluatorFromDataFrame, TranslationEvaluator

pytestmark = pytest.mark.filterwarnings("ignore")

WRONG: list[Any] = [
    *(10**400, -1, 0, 1.5, float("nan"), float("inf"), np.float32(1), True, None),
    *("x", "", "a\0b", b"x", object(), len, {}, {"a": 1}, [], [None], [1], [[1]], torch.zeros(3)),
    *([InputExample(texts="ab")], [InputExample(texts=["a"], label=[1])]),
]
EMBEDDINGS: list[Any] = [
    *(None, 1.5, "ab", [1, 2], [[1.0], [1.0, 2]], {"a": 1}, [None, None]),
    *(np.zeros(()), np.zeros(2), np.zeros((1, 3)), np.zeros((2, 3, 4)), np.array([["a"], ["b"]])),
    *(np.zeros((2, 2), complex), torch.zeros(2), torch.zeros(2, 3, 3)),
]


class Model(nn.Module):
    """A model as far as losses look at it."""

    def get_sentence_embedding_dimension(self) -> int:
        return 8


class Teacher:
    """Gives the same whatever the texts."""

    def __init__(self, embeddings: Any) -> None:
        self.embeddings = embeddings

    def encode(self, texts: list[str], **options: Any) -> Any:
        return np.ones((len(texts), 3)) if self.embeddings is ... else self.embeddings


def tried(call: Callable[[], Any]) -> None:
    with contextlib.suppress(MinisbertError):
        call()


def arguments(kind: type, known: dict[str, Any]) -> dict[str, Any]:
    return {name: known[name] for name in inspect.signature(kind).parameters if name in known}


LOSSES = [
    kind
    for name in losses.__all__
    if isinstance(kind := getattr(losses, name), type)
    and issubclass(kind, losses.Loss)
    and kind not in (losses.Loss, losses.DenoisingAutoEncoderLoss)
]


@pytest.mark.parametrize("kind", LOSSES)
def test_losses(kind: type[losses.Loss]) -> None:
    known = {"model": Model(), "guide": Model(), "loss": losses.CoSENTLoss(), "matryoshka_dims": [8, 4]}
    right = arguments(kind, {**known, "num_labels": 3, "embedding_dimension": 8})
    kind(**right)
    for name in inspect.signature(kind).parameters:
        for wrong in WRONG:
            tried(lambda name=name, wrong=wrong: kind(**{**right, name: wrong}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "f").write_text("a\tb\t1\n" * 3)
    for name, text in (("s1", "a"), ("s2", "b"), ("labels", "neutral")):
        (tmp_path / f"{name}.f").write_text(f"{text}\n")
    return tmp_path


def used(made: Any) -> None:
    """Read what there is to read."""
    if isinstance(made, readers.PairedFilesReader):
        made.get_examples()
    elif hasattr(made, "get_examples"):
        made.get_examples("f")
    elif isinstance(made, datasets.ParallelSentencesDataset):
        made.add_dataset([["a", "b"]])
        made[0]
    else:
        with contextlib.suppress(IndexError):  # the end of a data set without __iter__
            iterator: Iterator[Any] = iter(made)
            for _ in range(3):
                next(iterator, None)


EXAMPLES = [InputExample(texts=["a", "b"], label=1), InputExample(texts=["c", "d"], label=1)]
KINDS = [
    *(getattr(readers, name) for name in readers.__all__ if name != "InputExample"),
    *(getattr(datasets, name) for name in datasets.__all__),
    losses.ContrastiveTensionDataLoader,
]


@pytest.mark.parametrize("kind", KINDS)
def test_readers_and_data_sets(kind: type, folder: Path) -> None:
    known = {"dataset_folder": folder, "folder": folder, "filepaths": [folder / "f"], "examples": EXAMPLES}
    known |= {"train_examples": EXAMPLES, "batch_size": 1, "pos_neg_ratio": 1, "sentences": ["a", "b"] * 10}
    known |= {"noise_fn": str.upper, "student_model": None, "teacher_model": Teacher(...)}
    known |= {"s1_col_idx": 0, "s2_col_idx": 1, "s3_col_idx": 2, "score_col_idx": 2}
    right = arguments(kind, known)
    made = kind(**right)
    used(made)
    for name in inspect.signature(kind).parameters:
        for wrong in WRONG:
            tried(lambda name=name, wrong=wrong: used(kind(**{**right, name: wrong})))
    for method in ("get_examples", "add_dataset", "load_data"):
        if hasattr(made, method):
            call = getattr(made, method)
            given = arguments(call, {"filename": "f", "filepath": folder / "f", "parallel_sentences": [["a", "b"]]})
            for name in inspect.signature(call).parameters:
                for wrong in WRONG:
                    tried(lambda name=name, wrong=wrong, call=call, given=given: call(**{**given, name: wrong}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: datasets.DenoisingAutoEncoderDataset("text", str),
            "got str for sentences; expected a list of strings",
        ),
        (lambda: losses.ContrastiveTensionDataLoader("text", 8), "got str for sentences; expected a list of strings"),
        (lambda: datasets.NoDuplicatesDataLoader("text", 8), "got str for train_examples; expected a list of Input"),
        (lambda: datasets.SentencesDataset("text"), "got str for examples; expected a list of InputExample"),
        (
            lambda: datasets.SentenceLabelDataset(["text"]),
            "examples[0] is 'text'; expected an example of several texts",
        ),
        (
            lambda: datasets.SentencesDataset([InputExample(texts="text")]),
            "examples[0] has the texts 'text'; expected an example of several texts: pass InputExample(texts=[...])",
        ),
        (
            lambda: datasets.ParallelSentencesDataset(None, Teacher(...)).add_dataset("text"),
            "got str as parallel_sentences; expected rows of texts",
        ),
    ],
)
def test_a_text_is_not_taken_apart(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputTypeError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "embeddings",
    EMBEDDINGS,
    ids=lambda value: (
        f"{type(value).__name__} {np.shape(value)[:3]}"
        if isinstance(value, (np.ndarray, torch.Tensor))
        else repr(value)
    ),
)
def test_teachers_and_models_of_odd_shapes(embeddings: Any) -> None:
    odd, right, texts = Teacher(embeddings), Teacher(...), ["a", "b"]
    rows = [{"en": "a", "de": "b"}, {"en": "c", "de": "d"}]
    calls: list[Callable[[], Any]] = [
        lambda: MSEEvaluator(texts, texts, odd),
        lambda: MSEEvaluator(texts, texts, right).measure(odd),  # type: ignore[arg-type]
        lambda: MSEEvaluatorFromDataFrame(rows, odd, [("en", "de")]),
        lambda: MSEEvaluatorFromDataFrame(rows, right, [("en", "de")]).measure(odd),  # type: ignore[arg-type]
        lambda: TranslationEvaluator(texts, texts).measure(odd),  # type: ignore[arg-type]
    ]
    for call in calls:
        with pytest.raises(InputError, match="as embeddings of 2 texts; expected numbers of shape \\(2, dim\\)"):
            call()


@pytest.mark.parametrize("wrong", WRONG, ids=lambda value: type(value).__name__)
def test_tables_of_translations(wrong: Any) -> None:
    rows = [{"en": "a", "de": "b"}]
    for arguments in (
        (wrong, Teacher(...), [("en", "de")]),
        (rows, wrong, [("en", "de")]),
        (rows, Teacher(...), wrong),
    ):
        with pytest.raises(MinisbertError):
            MSEEvaluatorFromDataFrame(*arguments)


@pytest.mark.parametrize("weight", [None, "1", 10**400, float("nan"), float("inf"), torch.ones(2), [1.0]], ids=repr)
def test_a_layer_weighting_that_gives_no_number(weight: Any) -> None:
    loss = losses.AdaptiveLayerLoss(None, losses.CoSENTLoss(), layer_weighting=lambda layer: weight)
    layers = [[torch.randn(4, 8), torch.randn(4, 8)] for _ in range(3)]
    with pytest.raises(ConfigError, match="from layer_weighting for layer [01]; expected a finite number"):
        loss(layers, torch.rand(4))


@pytest.mark.parametrize("weight", [1, np.float32(1), torch.tensor(1.0), torch.ones(1)], ids=repr)
def test_a_layer_weighting_may_give_any_number(weight: Any) -> None:
    torch.manual_seed(0)
    layers = [[torch.randn(4, 8), torch.randn(4, 8)] for _ in range(3)]
    labels = torch.rand(4)
    plain, given = (
        losses.AdaptiveLayerLoss(None, losses.CoSENTLoss(), n_layers_per_step=-1, layer_weighting=weighting)
        for weighting in ("uniform", lambda layer: weight)
    )
    torch.testing.assert_close(given(layers, labels), plain(layers, labels))
