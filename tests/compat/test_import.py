"""`import sentence_transformers` and every module path of its versions 2 to 6, answered by minisbert.compat."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import pickle
import subprocess
import sys
import types
from collections.abc import Iterator

import pytest
from compat_import import installed

from minisbert import compat
from minisbert.compat import paths
from minisbert.errors import ConfigError


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    with installed():
        yield


@pytest.mark.parametrize("path", paths.NAMES, ids=lambda path: path or "sentence_transformers")
def test_every_path_has_its_names(path: str) -> None:
    module = importlib.import_module(f"sentence_transformers.{path}".rstrip("."))
    for name in (*paths.NAMES[path], *paths.also(path)):
        assert getattr(module, name) is not None, name
    assert set(paths.NAMES[path]) <= set(dir(module))


def test_a_home_has_its_names() -> None:
    for name, home in paths.HOMES.items():
        assert hasattr(importlib.import_module(f"minisbert.compat.{home}"), name), f"{home}.{name}"


@pytest.mark.parametrize(
    "line",
    [
        "from sentence_transformers import SentenceTransformer, InputExample, losses, util, models, evaluation",
        "from sentence_transformers import datasets, readers",
        "from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments",
        "from sentence_transformers.SentenceTransformer import SentenceTransformer",
        "from sentence_transformers.losses import *",
        "from sentence_transformers.losses.CosineSimilarityLoss import CosineSimilarityLoss",
        "from sentence_transformers.losses.TripletLoss import TripletDistanceMetric",
        "import sentence_transformers.losses.CoSENTLoss as m",
        "from sentence_transformers.evaluation.SimilarityFunction import SimilarityFunction",
        "from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator, SentenceEvaluator",
        "from sentence_transformers.models.Transformer import Transformer",
        "from sentence_transformers.models.tokenizer.WhitespaceTokenizer import WhitespaceTokenizer",
        "from sentence_transformers.training_args import BatchSamplers",
        "from sentence_transformers.trainer import SentenceTransformerTrainer",
        "from sentence_transformers.similarity_functions import SimilarityFunction",
        "from sentence_transformers.quantization import quantize_embeddings, semantic_search_faiss",
        "from sentence_transformers.util.similarity import cos_sim",
        "from sentence_transformers.sentence_transformer.losses.cosent import CoSENTLoss",
        "from sentence_transformers.base.sampler import DefaultBatchSampler",
        "from sentence_transformers.cross_encoder import CrossEncoder",
    ],
)
def test_how_code_imports(line: str) -> None:
    exec(line, {})


def test_the_package_is_a_module_and_its_member_the_class() -> None:
    import sentence_transformers.cross_encoder.losses.LambdaLoss as imported  # noqa: N813
    from sentence_transformers.cross_encoder import losses
    from sentence_transformers.cross_encoder.losses import LambdaLoss

    assert isinstance(losses, types.ModuleType)
    assert losses.LambdaLoss is LambdaLoss is imported
    assert isinstance(LambdaLoss, type)
    assert isinstance(sys.modules["sentence_transformers.cross_encoder.losses.LambdaLoss"], types.ModuleType)


def test_modules_below_are_attributes() -> None:
    import sentence_transformers

    assert sentence_transformers.losses is importlib.import_module("sentence_transformers.losses")
    assert sentence_transformers.models.tokenizer.__name__ == "sentence_transformers.models.tokenizer"
    assert {"losses", "util", "SentenceTransformer"} <= set(dir(sentence_transformers))
    assert sentence_transformers.util.logger is logging.getLogger("sentence_transformers.util")


def test_the_version_is_the_one_that_is_followed() -> None:
    import sentence_transformers

    assert sentence_transformers.__version__ == "6.2.0"
    assert sentence_transformers.__MODEL_HUB_ORGANIZATION__ == "sentence-transformers"


@pytest.mark.parametrize(
    ("line", "module"),
    [
        ("from sentence_transformers import CosinLoss", "sentence_transformers"),
        ("from sentence_transformers.losses import CosinLoss", "sentence_transformers.losses"),
        ("import sentence_transformers.losses.CosinLoss", "sentence_transformers.losses"),
        ("from sentence_transformers.losses.CoSENTLoss import CosinLoss", "sentence_transformers.losses.CoSENTLoss"),
    ],
)
def test_a_name_that_is_not_there(line: str, module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match=f"^{module} has no CosinLoss as of .*docs/names.md"):
        exec(line)


def test_an_attribute_that_is_not_there() -> None:
    import sentence_transformers

    assert not hasattr(sentence_transformers, "CosinLoss")
    with pytest.raises(AttributeError, match="has no cos_simm.* expected a name such as cos_sim"):
        _ = sentence_transformers.util.cos_simm


def test_find_spec() -> None:
    assert importlib.util.find_spec("sentence_transformers") is not None
    assert importlib.util.find_spec("sentence_transformers.losses.CoSENTLoss") is not None
    assert importlib.util.find_spec("sentence_transformers.nothing") is None


def test_modules_and_placeholders_are_pickled_by_name() -> None:
    from sentence_transformers.models import Router

    assert pickle.loads(pickle.dumps(Router)) is Router


def test_attributes_can_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    import sentence_transformers

    monkeypatch.setattr("sentence_transformers.models.Router", len)
    assert sentence_transformers.models.Router is len


def test_install_twice_and_uninstall() -> None:
    before = len(sys.meta_path)
    compat.install()
    import sentence_transformers

    assert len(sys.meta_path) == before
    compat.uninstall()
    compat.uninstall()
    assert len(sys.meta_path) == before - 1
    assert "sentence_transformers" not in sys.modules
    compat.install()
    assert importlib.import_module("sentence_transformers") is not sentence_transformers


def test_install_is_refused_after_the_package_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    compat.uninstall()
    real = types.ModuleType("sentence_transformers")
    real.__version__ = "5.1.2"
    monkeypatch.setitem(sys.modules, "sentence_transformers", real)
    with pytest.raises(ConfigError, match=r"after sentence_transformers 5.1.2 was imported.*put it above"):
        compat.install()
    del real.__version__
    with pytest.raises(ConfigError, match="after sentence_transformers was imported"):
        compat.install()


def test_names_of_the_package_are_in_compat() -> None:
    from minisbert.compat import CrossEncoder

    assert CrossEncoder is sys.modules["minisbert.compat"].CrossEncoder
    assert {"install", "CrossEncoder", "SentenceTransformer"} <= set(dir(compat))
    with pytest.raises(AttributeError, match="has no nothing as of .* expected a name such as"):
        _ = compat.nothing


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("from minisbert.compat import SentenceTransfomer", "^minisbert.compat has no .* as SentenceTransformer, "),
        ("from minisbert.compat import Nope", "^minisbert.compat has no Nope as of .* as DefaultBatchSampler, "),
        ("from minisbert.compat.losses import CosinLoss", "^minisbert.compat.losses has no CosinLoss .* CosineSim"),
        ("from minisbert.compat.losses import Nope", "^minisbert.compat.losses has no Nope .* such as AdaptiveLayer"),
        ("from minisbert.compat.evaluation import TripletEval", "^minisbert.compat.evaluation .* as TripletEvaluator"),
        ("from minisbert.compat.models import Poolin", "^minisbert.compat.models has no Poolin .* such as Pooling"),
        ("from minisbert.compat.util import cos_simm", "^minisbert.compat.util has no cos_simm .* such as cos_sim"),
        (
            "from minisbert.compat import TripletLoss",
            "TripletLoss; it is in minisbert.compat.losses$",
        ),
        ("from minisbert.compat.util import InputExample", "no InputExample; it is in minisbert.compat$"),
        ("from minisbert.compat import STSDataReader", r"in sentence_transformers.readers after compat.install\(\)$"),
        ("from minisbert.compat import datasets", r"it is sentence_transformers.datasets after compat.install\(\)$"),
        ("from sentence_transformers import TripletLoss", "TripletLoss; it is in sentence_transformers.losses$"),
    ],
)
def test_a_name_that_is_not_there_in_compat(line: str, said: str) -> None:
    with pytest.raises(ImportError, match=said):
        exec(line)
    _, module, _, name = line.split()
    found = importlib.import_module(module)
    assert not hasattr(found, name)
    with pytest.raises(AttributeError, match=said):
        getattr(found, name)


def test_placeholders_and_modules_below_a_package() -> None:
    from sentence_transformers.models import Router as Same

    from minisbert.compat.losses import pairs  # noqa: F401
    from minisbert.compat.models import Router

    assert Router is Same
    code = "from minisbert.compat import collator, paths; from minisbert.compat.util import files"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_install_and_import_are_light() -> None:
    code = (
        "import sys; from minisbert import compat; compat.install(); import sentence_transformers.losses; "
        "from sentence_transformers import CrossEncoder; "
        "print([name for name in ('torch', 'numpy', 'transformers', 'datasets') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_import_minisbert_does_not_import_compat() -> None:
    code = "import sys, minisbert; print('minisbert.compat' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
