"""Arguments of wrong kinds and wrong names: each is refused in one line that says what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from minisbert.compat import evaluation, models, util
from minisbert.compat.data import InputExample
from minisbert.compat.losses import MatryoshkaLoss, MultipleNegativesRankingLoss
from minisbert.compat.model import SentenceTransformer, SentenceTransformerModelCardData
from minisbert.compat.training.arguments import SentenceTransformerTrainingArguments
from minisbert.compat.training.callbacks import CallbackHandler
from minisbert.compat.training.trainer import SentenceTransformerTrainer
from minisbert.errors import ConfigError, InputError, InputTypeError, MinisbertError

FIRST, SECOND = ["a", "b"], ["c", "d"]
SAMPLE = {"query": "x", "positive": ["a"], "negative": ["b"]}
SEARCH: tuple[Any, ...] = ({"q": "x"}, {"d": "y"}, {"q": {"d"}})
Case = tuple[Callable[..., Any], type[MinisbertError], str]

binary = evaluation.BinaryClassificationEvaluator
similar = evaluation.EmbeddingSimilarityEvaluator
search = evaluation.InformationRetrievalEvaluator
rerank = evaluation.RerankingEvaluator
mining = evaluation.ParaphraseMiningEvaluator
sequential = evaluation.SequentialEvaluator

EVALUATORS: dict[str, Case] = {
    "text": (lambda: binary("ab", "cd", [0, 1]), InputTypeError, "got sentences1='ab'; expected a list of texts: put"),
    "none": (lambda: binary(FIRST, None, [0, 1]), InputTypeError, "got sentences2=None; expected a list of texts"),
    "one label": (lambda: binary(FIRST, SECOND, 1), InputTypeError, "got labels=1; expected a list of numbers 0 and 1"),
    "one score": (lambda: similar(FIRST, SECOND, 0.5), InputTypeError, "got scores=0.5; expected a list of numbers"),
    "name": (lambda: similar(FIRST, SECOND, [0, 1], name=5), InputTypeError, "got name=5; expected a text that names"),
    "function name": (
        lambda: similar(FIRST, SECOND, [0, 1], similarity_fn_names="cosine"),
        InputTypeError,
        "got similarity_fn_names='cosine'; expected a list of names",
    ),
    "examples": (
        lambda: binary.from_input_examples(5),
        InputTypeError,
        "got examples=5; expected a list of InputExample",
    ),
    "tuples": (
        lambda: similar.from_input_examples([("a", "b", 1)]),
        InputTypeError,
        r"got examples\[0\]=\('a', 'b', 1\); expected an InputExample",
    ),
    "one text": (
        lambda: evaluation.TripletEvaluator.from_input_examples([InputExample(texts=["a", "b"])]),
        InputError,
        r"got examples\[0\] with 2 text\(s\); expected 3",
    ),
    "queries": (lambda: search(["q"], *SEARCH[1:]), InputTypeError, r"got queries=\['q'\]; expected texts by id"),
    "corpus": (lambda: search(SEARCH[0], "d", SEARCH[2]), InputTypeError, "got corpus='d'; expected texts by id"),
    "relevant": (lambda: search(*SEARCH[:2], None), InputTypeError, "got relevant_docs=None; expected a set of ids"),
    "at k": (lambda: search(*SEARCH, mrr_at_k=10), InputTypeError, "got mrr_at_k=10; expected a list of whole numbers"),
    "functions": (
        lambda: search(*SEARCH, score_functions=["cosine"]),
        InputTypeError,
        r"got score_functions=\['cosine'\]; expected functions by name",
    ),
    "samples": (lambda: rerank("abc"), InputTypeError, "got samples='abc'; expected a list of dicts with query"),
    "sample": (lambda: rerank([1]), InputTypeError, r"got samples\[0\]=1; expected query, positive and negative"),
    "keys": (
        lambda: rerank([{"query": "x", "positive": "a"}]),
        InputError,
        r"samples\[0\] has the keys \['query', 'pos",
    ),
    "positive": (
        lambda: rerank([{**SAMPLE, "positive": 5}]),
        InputTypeError,
        r"got samples\[0\]\['positive'\]=5; expected a list of texts",
    ),
    "similarity": (
        lambda: rerank([SAMPLE], similarity_fct="cos"),
        InputTypeError,
        "got similarity_fct='cos'; expected a function of two tensors",
    ),
    "sentences": (lambda: mining(FIRST), InputTypeError, r"got sentences_map=\['a', 'b'\]; expected texts by id"),
    "pairs": (lambda: mining({"a": "x"}, "ab"), InputTypeError, "got duplicates_list='ab'; expected a list of pairs"),
    "pair": (
        lambda: mining({"a": "x"}, [("a",)]),
        InputTypeError,
        r"got duplicates_list\[0\]=\('a',\); expected a pair",
    ),
    "duplicates": (
        lambda: mining({"a": "x"}, duplicates_dict={"a": ["b"]}),
        InputTypeError,
        r"got duplicates_dict\['a'\]=\['b'\]; expected True by id",
    ),
    "teacher": (
        lambda: evaluation.MSEEvaluator(FIRST, SECOND, "model"),
        InputTypeError,
        r"got teacher_model='model'; expected a model with encode\(\)",
    ),
    "one evaluator": (
        lambda: sequential(evaluation.TranslationEvaluator(FIRST, SECOND)),
        InputTypeError,
        "got evaluators=.*; expected several: put a single one in a list",
    ),
    "evaluators": (
        lambda: sequential(["a"]),
        InputTypeError,
        r"got evaluators\[0\]='a'; expected a function of a model",
    ),
    "main score": (
        lambda: sequential([], main_score_function="x"),
        InputTypeError,
        "got main_score_function='x'; expected a function of a list of numbers",
    ),
    "data sets": (
        lambda: evaluation.NanoBEIREvaluator("msmarco"),
        InputTypeError,
        "got dataset_names='msmarco'; expected a list of names",
    ),
    "texts": (lambda: InputExample(texts=5), InputTypeError, "got texts=5; expected a list of texts"),
}  # type: ignore[assignment]


@pytest.mark.parametrize("name", EVALUATORS)
def test_evaluators(name: str) -> None:
    make, error, message = EVALUATORS[name]
    with pytest.raises(error, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


def test_what_is_taken() -> None:
    binary(tuple(FIRST), np.array(SECOND), torch.tensor([0, 1]))
    search(*SEARCH[:2], {"q": ["d"]}, mrr_at_k=(1, 2), name=None)
    rerank({"one": {**SAMPLE, "positive": "a"}})
    mining({"a": "x", "b": "y"}, [["a", "b"]], {"a": {"b": True}})
    with pytest.warns(UserWarning, match="each letter is a text"):
        example = InputExample(texts="ab")
    assert binary.from_input_examples([example]).sentences1 == ["a"]


MODULES: dict[str, Case] = {
    "size": (lambda: models.Pooling("384"), ConfigError, "got embedding_dimension='384'; expected a whole number"),
    "mode": (lambda: models.Pooling(8, 5), ConfigError, r"got pooling mode \[5\]; expected one or several of cls"),
    "prompt": (lambda: models.Pooling(8, include_prompt="x"), ConfigError, "got include_prompt='x'; expected True or"),
    "no features": (lambda: models.Pooling(8)("abc"), InputTypeError, "got 'abc' for features; expected a dictionary"),
    "a tensor": (lambda: models.Normalize()(torch.ones(1)), InputTypeError, r"got tensor\(.*\) for features; expected"),
    "keys": (lambda: models.Dense(8, 3)({"x": 1}), InputTypeError, "got features with the keys x; expected a tensor"),
    "empty": (lambda: models.LayerNorm(8)({}), InputTypeError, r"got features with the keys \(none\); expected"),
    "bias": (lambda: models.Dense(8, 3, bias="x"), ConfigError, "got bias='x'; expected True or False"),
    "weight": (
        lambda: models.Dense(8, 3, init_weight=torch.ones(8, 3)),
        ConfigError,
        r"got init_weight=a tensor \(8, 3\) of torch.float32; expected a tensor of floats, \(3, 8\)",
    ),
    "array": (
        lambda: models.Dense(8, 3, init_bias=[1]),
        ConfigError,
        r"got init_bias=\[1\]; expected a tensor of floats",
    ),
    "length": (lambda: models.Transformer("x", "y"), ConfigError, "got max_seq_length='y'; expected a whole number"),
    "case": (lambda: models.Transformer("x", do_lower_case=0), ConfigError, "got do_lower_case=0; expected True or"),
    "folder": (lambda: models.Pooling.load(5), MinisbertError, "got 5 of type int; expected a model folder or name"),
    "modules": (lambda: SentenceTransformer(modules="ab"), ConfigError, "got modules='ab'; expected a Transformer and"),
    "one module": (
        lambda: SentenceTransformer(modules=models.Normalize()),
        ConfigError,
        r"got modules=Normalize\(\); expected a Transformer and the modules after it in a list",
    ),
    "module": (lambda: SentenceTransformer(modules=[5]), ConfigError, r"got 5 as modules\[0\]; expected a module"),
    "first": (
        lambda: SentenceTransformer(modules=[models.Normalize()]),
        MinisbertError,
        "the first module is a Normalize; expected a Transformer",
    ),
}  # type: ignore[assignment]


@pytest.mark.parametrize("name", MODULES)
def test_modules(name: str) -> None:
    make, error, message = MODULES[name]
    with pytest.raises(error, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


@pytest.fixture
def model(tiny: Callable[[str], Path]) -> SentenceTransformer:
    return SentenceTransformer(str(tiny("bert")), device="cpu")


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_names_of_arguments_of_encode(method: str, model: SentenceTransformer) -> None:
    encode = getattr(model, method)
    with pytest.raises(ConfigError, match="got batchsize=8 for encode, .* expected batch_size: fix the name"):
        encode("a", batchsize=8)
    with pytest.raises(ConfigError, match="got zzz=8 for encode, .* expected none: leave it out"):
        encode("a", zzz=8)
    with pytest.raises(TypeError, match=rf"{method}\(\) missing a? ?.*required .*argument: 'inputs'"):
        encode()
    with pytest.raises(TypeError, match=r"encode\w*\(\) got inputs twice"):
        encode(inputs="a", sentences="a")


def test_names_of_arguments(model: SentenceTransformer) -> None:
    for call, function, name in (
        (lambda: SentenceTransformer(modell="x"), "SentenceTransformer.__init__", "modell"),
        (lambda: MultipleNegativesRankingLoss(model, scal=20), "MultipleNegativesRankingLoss.__init__", "scal"),
        (lambda: models.Pooling(8, pooling_mode_mean=True), "Pooling.__init__", "pooling_mode_mean"),
        (lambda: models.Transformer("x", max_len=1), "Transformer.__init__", "max_len"),
        (lambda: binary(FIRST, SECOND, [0, 1], nam="x"), "BinaryClassificationEvaluator.__init__", "nam"),
        (lambda: binary.from_input_examples([], nam="x"), "BinaryClassificationEvaluator.__init__", "nam"),
        (lambda: util.information_retrieval([], [], topk=1), "semantic_search", "topk"),
        (lambda: model.fit([], epoch=3), "fit", "epoch"),
    ):
        with pytest.raises(TypeError, match=rf"{function}\(\) got an unexpected keyword argument '{name}'"):
            call()


def test_training(model: SentenceTransformer, tmp_path: Path) -> None:
    loss = MultipleNegativesRankingLoss(model)
    rows = DataLoader([InputExample(texts=FIRST)], batch_size=1)  # type: ignore[arg-type]
    arguments = SentenceTransformerTrainingArguments(str(tmp_path), seed="x", use_cpu=True)  # type: ignore[arg-type]
    for call, error, message in (
        (lambda: model.fit(None), InputTypeError, "got train_objectives=None; expected a list of pairs"),
        (
            lambda: model.fit([(loss, rows)]),
            ConfigError,
            r"got the objective \(MultipleNegativesRankingLoss, DataLoader",
        ),
        (lambda: model.fit([(rows, None)]), ConfigError, r"got the objective \(DataLoader, NoneType\); expected"),
        (lambda: model.fit([(rows, loss)], epochs="x"), ConfigError, "got epochs='x'; expected a whole number"),
        (lambda: model.fit([([InputExample()], loss)]), InputError, "expected examples with texts"),
        (lambda: SentenceTransformerTrainer(model, arguments), ConfigError, "got seed='x'; expected a whole number"),
        (lambda: CallbackHandler(5), InputTypeError, "got callbacks=5; expected a list of callbacks"),
        (lambda: CallbackHandler([5]), ConfigError, "got the callback 5; expected a TrainerCallback"),
        (lambda: MatryoshkaLoss(model, loss, 5), InputTypeError, "got matryoshka_dims=5; expected a list of whole"),
    ):
        with pytest.raises(error, match=message):
            call()  # type: ignore[no-untyped-call]


def test_models_and_mining(model: SentenceTransformer, tiny: Callable[[str], Path]) -> None:
    folder = str(tiny("bert"))
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"a": ["x", "y"], "b": ["z", "w"]})
    for call, error, message in (
        (lambda: SentenceTransformer(folder, prompts=["a"]), ConfigError, r"got prompts=\['a'\]; expected strings by"),
        (
            lambda: SentenceTransformer(folder, model_card_data={}),
            ConfigError,
            "got model_card_data={}; expected a Sent",
        ),
        (
            lambda: SentenceTransformerModelCardData(train_datasets="x"),
            InputTypeError,
            "got train_datasets='x'; expected",
        ),
        (lambda: model.start_multi_process_pool(5), ConfigError, "got 5 as devices of a pool; expected a list"),
        (lambda: model.start_multi_process_pool("cpu"), ConfigError, "got 'cpu' as devices of a pool; expected a list"),
        (lambda: model.save(5), InputTypeError, "got path=5; expected where to write"),
        (lambda: util.mine_hard_negatives(rows, "model"), InputTypeError, "got model='model'; expected a Sentence"),
    ):
        with pytest.raises(error, match=message):
            call()  # type: ignore[no-untyped-call]
    with pytest.warns(UserWarning, match=r"got anchor_column_name='q', none of \['a', 'b'\]"):
        util.mine_hard_negatives(rows, model, anchor_column_name="q", num_negatives=1, verbose=False)
