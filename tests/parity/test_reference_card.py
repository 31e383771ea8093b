"""Cards that the reference writes are read without loss, and our own cards state what the reference's would."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from card_cases import FITTED, TRAINED, examples, scored, texts, triplets
from card_skeleton import headings, skeleton
from places import HELPERS
from references import run_in
from torch.utils.data import DataLoader

from minisbert import InputExample, SentenceTransformer, Trainer, TrainingConfig, evaluation, losses
from minisbert.card import CardFacts, parse, render
from minisbert.card.composing import papers
from minisbert.card.markdown import read_document
from minisbert.card.parsing import comes_from_fit

pytestmark = [
    pytest.mark.parity,
    pytest.mark.long,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.usefixtures("one_thread"),
]

SCRIPT = HELPERS / "reference_cards.py"
VERSIONS = ("4.0.1", "5.1.2", "6.2.0")
# What our cards say otherwise: our own versions, optimizer and clock; settings that we do not have; no reading list.
OTHERWISE = {"versions", "resources", "training_time", "hyperparameters", "non_default_hyperparameters"}


@pytest.fixture(scope="module")
def reference_cards(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, str]]:
    """The cards a version writes, by case."""
    done: dict[str, dict[str, str]] = {}

    def cards(version: str) -> dict[str, str]:
        if version not in done:
            output = tmp_path_factory.mktemp("cards") / version
            code = (
                f"import runpy, sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); "
                f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
            )
            written = run_in(version, code, tiny("bert"), output)["written"]
            done[version] = {name: (output / f"{name}.md").read_bytes().decode() for name in written}
        return done[version]

    return cards


@pytest.mark.parametrize("version", VERSIONS)
def test_cards_are_read_and_written_without_loss(
    version: str, reference_cards: Callable[[str], dict[str, str]], compare: Callable[..., None]
) -> None:
    cards = reference_cards(version)
    assert len(cards) >= 20
    wrong: list[str] = []
    for name, card in cards.items():
        facts = parse(card)
        written = render(facts)
        wrong += [f"{name}: facts"] if parse(written) != facts else []
        same = read_document(written).front_matter == read_document(card).front_matter
        wrong += [] if same else [f"{name}: front matter"]
        wrong += [f"{name}: {line}" for line in set(skeleton(card)) ^ set(skeleton(written))]
        assert headings(written) == headings(card), name
        read = "\n".join(card.split("\r"))  # as from a file that was opened with universal newlines
        wrong += [f"{name}: newlines"] if parse(render(parse(read))) != parse(read) else []
    assert not wrong
    compare(f"model cards of {version}: facts, headings, tables, YAML", len(wrong), 0, cases=len(cards))


@pytest.mark.parametrize("name", TRAINED)
def test_trained_card_states_what_the_reference_would(
    name: str,
    reference_cards: Callable[[str], dict[str, str]],
    tiny: Callable[[str], Path],
    tmp_path: Path,
    compare: Callable[..., None],
) -> None:
    theirs = parse(reference_cards("6.2.0")[name])
    ours = _train(TRAINED[name], tiny("bert"), tmp_path)
    if name == "ours_few":  # too few rows for examples: each library then has sentences of its own
        assert ours.usage is not None
        ours = dataclasses.replace(ours, usage=theirs.usage)
    different = _different_fields(ours, theirs)
    if "best" in TRAINED[name]:  # ours tells the results of the weights that were kept, theirs those of the last
        results = [path for path in different if path.startswith(("evaluations", "front_matter.model_index"))]
        different = [path for path in different if path not in results]
        assert len(results) >= 4
        assert ours.logs is not None
        (kept,) = ours.logs.bold_rows
        primary = [metric.values[0] for one in ours.evaluations for metric in one.metrics if metric.primary]
        assert primary == [ours.logs.values(column)[kept] for column in ours.logs.columns[3:]]
    assert not different
    shared = ours.hyperparameters.keys() - {"optim", "replay"}
    assert len(shared) > 15
    assert {key: ours.hyperparameters[key] for key in shared} == {key: theirs.hyperparameters[key] for key in shared}
    machine = {"disable_tqdm", "use_cpu", "dataloader_pin_memory"}
    set_by_them = {key: value for key, value in theirs.non_default_hyperparameters.items() if key not in machine}
    assert ours.non_default_hyperparameters == {**set_by_them, "replay": "6.2"}
    compare("model card of a trained model: fields", len(different), 0, cases=len(dataclasses.fields(CardFacts)))


@pytest.mark.parametrize("name", FITTED)
def test_card_of_fit_states_what_the_reference_would(
    name: str,
    reference_cards: Callable[[str], dict[str, str]],
    tiny: Callable[[str], Path],
    tmp_path: Path,
    compare: Callable[..., None],
) -> None:
    theirs = parse(reference_cards("6.2.0")[name])
    ours = _fit(FITTED[name], tiny("bert"), tmp_path / "model")
    # Ours shows the whole run and marks the step whose weights were kept; theirs ends with that step.
    if ours.logs is not None and theirs.logs is not None:
        kept = len(theirs.logs.rows)
        assert ours.logs.bold_rows == (kept - 1,)
        ours = dataclasses.replace(ours, logs=dataclasses.replace(ours.logs, rows=ours.logs.rows[:kept], bold_rows=()))
    different = _different_fields(ours, theirs)
    assert not different
    assert comes_from_fit(theirs) is ("max_grad_norm" not in FITTED[name]["settings"])
    assert not comes_from_fit(ours)
    # Theirs states the defaults of settings that `fit` does not use.
    settings = {"warmup_steps": 2, **FITTED[name]["settings"]}
    used = {
        "learning_rate": settings.get("optimizer_params", {}).get("lr", 2e-5),
        "weight_decay": settings.get("weight_decay", 0.01),
        "warmup_steps": 2,
    }
    unused = {"learning_rate": 5e-5, "weight_decay": 0.0, "warmup_steps": 0}
    assert {key: float(ours.hyperparameters[key]) for key in used} == used
    assert {key: float(theirs.hyperparameters[key]) for key in unused} == unused
    limit = settings.get("max_grad_norm", 1)
    assert float(ours.hyperparameters["max_grad_norm"]) == float(theirs.hyperparameters["max_grad_norm"]) == limit
    shared = ours.hyperparameters.keys() - {*used, "max_grad_norm", "optim", "replay", "load_best_model_at_end"}
    assert len(shared) > 11
    assert {key: ours.hyperparameters[key] for key in shared} == {key: theirs.hyperparameters[key] for key in shared}
    compare("model card of a trained model: fields", len(different), 0, cases=len(dataclasses.fields(CardFacts)))


def _different_fields(ours: CardFacts, theirs: CardFacts) -> list[str]:
    return [
        path
        for field in dataclasses.fields(CardFacts)
        if field.name not in OTHERWISE
        for path in _differences(getattr(ours, field.name), getattr(theirs, field.name), field.name)
    ]


def test_citations_are_those_of_the_reference(compare: Callable[..., None]) -> None:
    reference = pytest.importorskip("sentence_transformers.sentence_transformer.losses")
    directions = {
        "MultipleNegativesSymmetricRankingLoss": ("query_to_doc", "doc_to_query"),
        "MultipleNegativesRankingLoss in all directions": (
            "query_to_doc",
            "query_to_query",
            "doc_to_query",
            "doc_to_doc",
        ),
    }
    cited = {name: bibtex for name, bibtex in papers().items() if name != "Sentence Transformers"}
    assert len(cited) == 27
    theirs = {}
    for name in cited:
        mode = "per_direction" if name == "MultipleNegativesSymmetricRankingLoss" else "joint"
        options = types.SimpleNamespace(directions=directions.get(name, ("query_to_doc",)), partition_mode=mode)
        theirs[name] = getattr(reference, name.split()[0]).citation.fget(options).strip()
    wrong = [name for name, bibtex in cited.items() if theirs[name] != bibtex]
    assert not wrong
    compare("model cards: citations", len(wrong), 0, cases=len(cited))


def _train(case: dict[str, Any], folder: Path, output: Path) -> CardFacts:
    model = SentenceTransformer(folder, device="cpu")
    rows = case["rows"]
    loss = {name: getattr(losses, kind)(model) for name, kind in case["losses"].items()}
    evaluator = _evaluator(case["dev"])
    held_out = case.get("held_out", {})
    settings = TrainingConfig(
        epochs=2,
        seed=case["seed"],
        log_every=2,
        eval_each_epoch=evaluator is not None or bool(held_out),
        replay="6.2",
        **case.get("settings", [{}])[0],
    )
    if "best" in case:
        settings = dataclasses.replace(
            settings, epochs=4, learning_rate=1e-2, eval_each_epoch=False, eval_every=2, keep_best=True
        )
    Trainer(
        model,
        rows.get("", rows),
        loss=loss.get("", loss),
        eval_data=held_out.get("", held_out) or None,
        evaluator=evaluator,
        config=settings,
        output_dir=output / "run" if "best" in case else None,
        show_progress_bar=False,
    ).train()
    model.save_pretrained(output)
    return parse((output / "README.md").read_bytes().decode())


def _fit(case: dict[str, Any], folder: Path, output: Path) -> CardFacts:
    model = SentenceTransformer(folder, device="cpu")
    torch.manual_seed(11)
    objectives = [
        (
            DataLoader(examples(columns, InputExample), batch_size=8, shuffle=True),
            getattr(losses, case["losses"][name])(model),
        )
        for name, columns in case["rows"].items()
    ]
    model.fit(
        objectives,
        evaluator=_evaluator(case["dev"]),
        epochs=2,
        warmup_steps=2,
        output_path=output,
        show_progress_bar=False,
        replay="6.2",
        **case["settings"],
    )
    return parse((output / "README.md").read_bytes().decode())


def _evaluator(parts: list[tuple[str, str]]) -> evaluation.Evaluator | None:
    def make(kind: str, name: str) -> evaluation.Evaluator:
        if kind == "triplet":
            return evaluation.TripletEvaluator(*triplets().values(), name=name)
        if kind == "binary":
            return evaluation.BinaryClassificationEvaluator(texts(8, 5), texts(8, 6), [0, 1] * 4, name=name)
        return evaluation.EmbeddingSimilarityEvaluator(*scored(8).values(), name=name)

    made = [make(kind, name) for kind, name in parts]
    return evaluation.SequentialEvaluator(made) if len(made) > 1 else made[0] if made else None


def _differences(ours: Any, theirs: Any, path: str) -> Iterator[str]:
    """Where two facts differ: floats may by 1e-6, and the reference indents after other line breaks than newline."""
    if dataclasses.is_dataclass(ours) and type(ours) is type(theirs):
        for field in dataclasses.fields(ours):
            yield from _differences(getattr(ours, field.name), getattr(theirs, field.name), f"{path}.{field.name}")
    elif isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        for place, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(one, other, f"{path}[{place}]")
    elif isinstance(ours, float) and isinstance(theirs, float):
        yield from [] if abs(ours - theirs) <= 1e-6 else [f"{path}: {ours} {theirs}"]
    elif ".samples" in path and isinstance(ours, str) and isinstance(theirs, str):
        yield from [] if _one_line(ours) == _one_line(theirs) else [f"{path}: {ours} {theirs}"]
    elif ours != theirs:
        yield f"{path}: {ours} {theirs}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
