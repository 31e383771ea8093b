"""Folders written by sentence-transformers 4.0.1, 5.1.2 and 6.2.0 load here, and folders written here load there."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
import torch
from model_folders import edit, load, read
from references import run_in
from tokenizers import Tokenizer

from minisbert import SentenceTransformer, modules
from minisbert.storage.dialects import MODULE_TYPES, POOLING_KEYS, WRITTEN_TYPES

pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings(
        "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:a new tokenizer.json is saved"
    ),
]

TEXTS = [
    "a cat sat on the mat",
    "one",
    "Why IS the Sky blue, and the sea not?",
    "",
    "the dog ran fast to " * 20 + "the sea",
    "x1-y2 (three)",
    "naïve ÀÉ 我们",
]
BOUND = 1e-6
ACTIVATION = "torch.nn.modules.activation."

# In the older environments: load every folder, embed, and save again where that is asked for.
OLDER = """
import json, sys, logging, warnings, torch
torch.set_num_threads(1)
warnings.simplefilter("ignore"); logging.disable(logging.WARNING)
from sentence_transformers import SentenceTransformer
jobs, texts = json.load(open(sys.argv[1]))
result = {}
for name, folder, save_to in jobs:
    try:
        model = SentenceTransformer(folder, device="cpu", local_files_only=True)
        model.eval()
        result[name] = model.encode(texts).tolist()
        if save_to:
            model.save(save_to, create_model_card=False)
    except Exception as error:
        result[name] = f"{type(error).__name__}: {error}"
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of the older dialect that say something in every way that all three versions understand."""
    root = tmp_path_factory.mktemp("formats")
    found = {name: tiny_models.build(root / name, name) for name in tiny_models.ARCHITECTURES}

    def variant(name: str, base: str) -> Path:
        found[name] = shutil.copytree(found[base], root / name)
        return found[name]

    for kind, base in (("RobertaTokenizer", "roberta"), ("MPNetTokenizer", "mpnet")):
        edit(variant(kind, base) / "tokenizer_config.json", tokenizer_class=kind)
    for mode, key in zip(POOLING_KEYS.values(), POOLING_KEYS, strict=True):
        keys = dict.fromkeys(POOLING_KEYS, False)
        edit(variant(mode, "bert") / "1_Pooling" / "config.json", **{**keys, key: True})
    edit(variant("all modes", "bert") / "1_Pooling" / "config.json", **dict.fromkeys(POOLING_KEYS, True))
    prompted = variant("prompt left out", "bert")
    edit(prompted / "1_Pooling" / "config.json", include_prompt=False)
    edit(prompted / "config_sentence_transformers.json", prompts={"query": "what is "}, default_prompt_name="query")
    edit(variant("16 tokens", "bert") / "sentence_bert_config.json", max_seq_length=16)
    edit(variant("cut left", "xlm-roberta") / "tokenizer_config.json", truncation_side="left")
    cased = variant("cased", "bert")
    edit(cased / "tokenizer_config.json", do_lower_case=False)
    lowered = variant("cased, in lower case", "cased")
    edit(lowered / "sentence_bert_config.json", do_lower_case=True)
    edit(variant("bytes, in lower case", "roberta") / "sentence_bert_config.json", do_lower_case=True)
    no_length = variant("no length", "distilbert")
    (no_length / "sentence_bert_config.json").unlink()
    variant("vocabulary alone", "bert")
    vocabulary = read(found["bert"] / "tokenizer.json")["model"]["vocab"]
    (found["vocabulary alone"] / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.get)) + "\n")
    (found["vocabulary alone"] / "tokenizer.json").unlink()
    found["dense, norm, dropout"] = root / "dense"
    base = load(found["bert"])
    torch.manual_seed(0)
    parts = [modules.Dense(32, 8, activation_function=f"{ACTIVATION}GELU"), modules.LayerNorm(8), modules.Dropout(0.3)]
    SentenceTransformer(modules=[base[0], base[1], *parts, modules.Normalize()], device="cpu").save(root / "dense")
    return found


def theirs(reference: Any, folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return reference.SentenceTransformer(str(folder), device="cpu")


@dataclass(frozen=True)
class Case:
    """One folder and what becomes of it.

    Attributes:
        base: as it was made.
        ours: as minisbert saves it.
        six: as 6.2.0 saves it.
        ours_of_six: that, as minisbert saves it.
        embeddings: ours, of `base`.
        embeddings_of_six: those of 6.2.0, of `base`.
    """

    base: Path
    ours: Path
    six: Path
    ours_of_six: Path
    embeddings: np.ndarray
    embeddings_of_six: np.ndarray


@pytest.fixture(scope="module")
def reference() -> Any:
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def cases(reference: Any, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    root = tmp_path_factory.mktemp("cases")
    found = {}
    for name, folder in folders.items():
        model, their_model = load(folder), theirs(reference, folder)
        places = [root / place / name for place in ("ours", "six", "ours of six")]
        found[name] = Case(folder, *places, model.encode(TEXTS), their_model.encode(TEXTS))
        model.save_pretrained(found[name].ours, create_model_card=False)
        their_model.save_pretrained(str(found[name].six), create_model_card=False)
        rewrite(found[name].six, found[name].ours_of_six)
    return found


def rewrite(folder: Path, target: Path) -> np.ndarray:
    """Load and save a folder twice: the second time everything stays as it is."""
    model = load(folder)
    model.save_pretrained(target, create_model_card=False)
    again = target.with_name(f"{target.name}, again")
    load(target).save_pretrained(again, create_model_card=False)
    for path in (path for path in target.rglob("*") if path.is_file()):
        assert path.read_bytes() == (again / path.relative_to(target)).read_bytes(), path
    return model.encode(TEXTS)


def changed_files(pairs: Iterable[tuple[Path, Path]]) -> tuple[int, int]:
    """How many weights, tokenizers and encoder configurations a rewrite changed, and how many there are.

    A tokenizer.json that alone gives other tokens than the model uses is meant to change, and does not count.
    """
    same = [
        path.read_bytes() == (target / path.relative_to(folder)).read_bytes() or tells_other_tokens(path, folder)
        for folder, target in pairs
        for path in folder.rglob("*")
        if path.name in ("model.safetensors", "tokenizer.json") or path == folder / "config.json"
    ]
    return same.count(False), len(same)


def tells_other_tokens(path: Path, folder: Path) -> bool:
    """Whether a tokenizer.json, read without any other file, gives other tokens than the model of the folder uses."""
    if path.name != "tokenizer.json":
        return False
    alone = Tokenizer.from_file(str(path))
    alone.no_truncation()
    alone.no_padding()
    texts: list[Any] = [*TEXTS, ("a cat", "the Dog ran")]
    used = load(folder).tokenizer.encode_batch_fast(texts)
    if [one.ids for one in alone.encode_batch_fast(texts)] != [one.ids for one in used]:
        return True
    # A vocabulary of all bytes needs no unknown token, and RobertaTokenizer names none.
    return read(folder / "tokenizer_config.json")["tokenizer_class"] == "RobertaTokenizer" and bool(
        read(path)["model"].get("unk_token")
    )


def largest(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    return max(float(np.abs(got - expected).max()) for got, expected in pairs)


def test_folders_of_6(reference: Any, cases: dict[str, Case], compare: Callable[..., None]) -> None:
    bases = largest((case.embeddings, case.embeddings_of_six) for case in cases.values())
    compare("older folders, loaded here and by 6.2.0", bases, BOUND, cases=len(cases))
    models = {name: load(case.six) for name, case in cases.items()}
    loaded = largest((models[name].encode(TEXTS), case.embeddings_of_six) for name, case in cases.items())
    compare("folders of 6.2.0, loaded here", loaded, BOUND, cases=len(cases))
    for name, case in cases.items():
        written = read(case.ours / "sentence_bert_config.json")
        assert written["max_seq_length"] == models[name].max_seq_length, name
    back = largest(
        (theirs(reference, folder).encode(TEXTS), case.embeddings_of_six)
        for case in cases.values()
        for folder in (case.ours, case.ours_of_six)
    )
    compare("folders written here, loaded by 6.2.0", back, 0, cases=2 * len(cases))
    changed, files = changed_files((case.six, case.ours_of_six) for case in cases.values())
    compare("files that change when a folder of 6.2.0 is rewritten here", changed, 0, cases=files)


@pytest.mark.parametrize("version", ["5.1.2", "4.0.1"])
def test_folders_of_older_versions(
    version: str, cases: dict[str, Case], tmp_path: Path, compare: Callable[..., None]
) -> None:
    jobs: list[list[str | None]] = []
    for name, case in cases.items():
        (tmp_path / "theirs" / name).mkdir(parents=True)
        jobs.append([name, str(case.base), str(tmp_path / "theirs" / name)])
        jobs += [[f"{name}: ours", str(case.ours), None], [f"{name}: six", str(case.ours_of_six), None]]
    (tmp_path / "jobs.json").write_text(json.dumps([jobs, TEXTS]))
    result = run_in(version, OLDER, tmp_path / "jobs.json")
    assert [f"{name}: {value}" for name, value in result.items() if isinstance(value, str)] == []
    expected = {name: np.array(value) for name, value in result.items()}
    bases = largest((case.embeddings, expected[name]) for name, case in cases.items())
    compare(f"older folders, loaded here and by {version}", bases, BOUND, cases=len(cases))
    loaded = largest((rewrite(tmp_path / "theirs" / name, tmp_path / "ours" / name), expected[name]) for name in cases)
    compare(f"folders of {version}, loaded here", loaded, BOUND, cases=len(cases))
    back = largest((expected[f"{name}: {side}"], expected[name]) for name in cases for side in ("ours", "six"))
    compare(f"folders written here, loaded by {version}", back, 0, cases=2 * len(cases))
    changed, files = changed_files((tmp_path / "theirs" / name, tmp_path / "ours" / name) for name in cases)
    compare(f"files that change when a folder of {version} is rewritten here", changed, 0, cases=files)
    if version == "5.1.2":
        for name, case in cases.items():
            check_same_files(tmp_path / "theirs" / name, case.ours)


def check_same_files(theirs: Path, ours: Path) -> None:
    """What 5.1.2 writes stands in our folder too, byte for byte."""
    for path in (path for path in theirs.rglob("*") if path.is_file()):
        own, name = ours / path.relative_to(theirs), path.name
        if name == "config_sentence_transformers.json":
            settings, written = read(path), read(own)
            assert {**settings, "__version__": 0} == {**written, "__version__": 0}
        elif path.parent != theirs or name in ("modules.json", "sentence_bert_config.json", "model.safetensors"):
            assert path.read_bytes() == own.read_bytes(), path


def test_every_type_name_is_one_that_6_imports(reference: Any) -> None:
    from sentence_transformers.util import import_from_string

    packages = ["sentence_transformers"]
    packages += [f"{first}.{second}" for first in packages[:1] for second in ("models", "modules", "base.modules")]
    kinds = ("sentence_transformer", "sparse_encoder", "cross_encoder", "multi_vector_encoder")
    packages += [f"sentence_transformers.{kind}.{last}" for kind in kinds for last in ("models", "modules")]
    accepted = set()
    for package, kind in itertools.product(packages, WRITTEN_TYPES):
        for name in (kind, f"{kind}.{kind}", f"{re.sub('(?<=[a-z])(?=[A-Z])', '_', kind).lower()}.{kind}"):
            try:
                found = import_from_string(f"{package}.{name}")
            except (ImportError, AttributeError):
                continue
            if isinstance(found, type):
                assert found.__name__ == MODULE_TYPES[f"{package}.{name}"]
                accepted.add(f"{package}.{name}")
    assert accepted == set(MODULE_TYPES)


def test_weights_of_the_real_model(reference: Any, minilm: Path, tmp_path: Path, compare: Callable[..., None]) -> None:
    load(minilm).save_pretrained(tmp_path / "ours")
    theirs(reference, minilm).save_pretrained(str(tmp_path / "theirs"))
    ours, expected = ((tmp_path / side / "model.safetensors").read_bytes() for side in ("ours", "theirs"))
    compare("weights file of all-MiniLM-L6-v2, written here and by 6.2.0", float(ours != expected), 0)
