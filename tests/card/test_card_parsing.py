"""Model cards to facts and back, on a small card and on facts of every kind."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import HELPERS

from minisbert.card import (
    CardFacts,
    Citation,
    ColumnStatistics,
    DatasetFacts,
    Description,
    Emissions,
    Evaluation,
    FrontMatter,
    IndexedMetric,
    IndexedResult,
    Link,
    LossFacts,
    Metric,
    ModelIndex,
    NamedDataset,
    Picture,
    TrainingLogs,
    TrainingTime,
    Usage,
    WidgetExample,
    parse,
    render,
    repair,
)
from minisbert.card.composing import number_text
from minisbert.card.markdown import read_table, write_table
from minisbert.card.parsing import read_number
from minisbert.errors import InputError

CARD = (HELPERS / "card_small.md").read_text(encoding="utf-8")

FULL = CardFacts(
    title="A name: of a model",
    front_matter=FrontMatter(
        language=("en", "de"),
        license="mit",
        tags=("sentence-transformers", "loss:MatryoshkaLoss"),
        base_model="some/base",
        widget=(WidgetExample("what: is", ("- a", "ünï 😀", "it's", "")),),
        datasets=("some/data",),
        metrics=("spearman_cosine",),
        model_index=(
            ModelIndex(
                "A name: of a model",
                (
                    IndexedResult(
                        "semantic-similarity",
                        "Semantic Similarity",
                        "sts dev",
                        "sts-dev",
                        (
                            IndexedMetric("spearman_cosine", 0.1234567890123, "Spearman Cosine"),
                            IndexedMetric("x", None, "X"),
                        ),
                    ),
                ),
            ),
        ),
        co2_eq_emissions=Emissions(12.5, 0.25, "codecarbon", "fine-tuning", True, "A CPU", 31.2, 0.5, "2 x A GPU"),
    ),
    description=Description(
        dimension=8,
        max_seq_length=float("inf"),
        similarity="dot",
        base_model="some/base",
        base_model_revision="abc123",
        max_query_length=32,
        max_document_length=64,
        modalities=("Text", "Image"),
        training_datasets=(NamedDataset("first", "some/first"), NamedDataset("second")),
        language=("en", "de"),
        license="mit",
    ),
    architecture=("SentenceTransformer(", "  (0): Transformer({'a': 1}) with Transformer model: BertModel ", ")"),
    usage=Usage("me/model", ("a 'query'\n", 'say "it"', "back\\slash", "😀"), True, ((1.0, -0.25, 12.5),)),
    sources=(Link("Documentation of it", "https://sbert.net"), Link("Code", "https://example.org")),
    evaluations=(
        Evaluation(
            "Semantic Similarity",
            "EmbeddingSimilarityEvaluator",
            "https://example.org/#E",
            ("dev", "test"),
            {"truncate_dim": 4},
            (Metric("pearson_cosine", (0.5, "nan")), Metric("spearman_cosine", (1, 0.25), primary=True)),
        ),
        Evaluation("Own", "package.Own", None, (), "not: JSON", (Metric("accuracy", (0.75,), primary=True),)),
    ),
    training_datasets=tuple(
        DatasetFacts(
            name=name,
            loss=LossFacts("MatryoshkaLoss", "https://example.org/#m", {"dims": [4, 2], "name": "ü", "none": None}),
            columns=("a", "b", "label"),
            size=1_234_567,
            id="some/first" if name == "first" else None,
            revision="0123456789abcdef" if name == "first" else None,
            statistics_rows=100,
            statistics=(
                ColumnStatistics(
                    "a", "string", "text", (("min", "3 tokens"), ("mean", "4.5 tokens"), ("max", "9 tokens"))
                ),
                ColumnStatistics("b", "image", "image", ()),
                ColumnStatistics("label", "int", "", (("0", "~25.00%"), ("1", "~75.00%"))),
            ),
            samples=(("x | y \\| z", "<b>two\nlines</b>", "1"), ("", "`tick` | ", "[1, 2, ...]")),
        )
        for name in ("first", "second", "third", "fourth")
    ),
    evaluation_datasets=(DatasetFacts("", LossFacts("own.Loss"), ("only",)),),
    non_default_hyperparameters={"seed": "7"},
    hyperparameters={"seed": "7", "mp_parameters": "", "prompts": "one\ntwo", "fsdp": "[]"},
    logs=TrainingLogs(
        ("Epoch", "Step", "Training Loss", "dev_x"),
        tuple((f"{step / 100}", str(step), "0.016", "-") for step in range(101)),
        (3,),
    ),
    training_time=TrainingTime("1.5 hours", "2.0 minutes", "1.5 hours"),
    pictures=(Picture("The [course]\nof it", "the course.png"), Picture("", "b.png")),
    versions={"Python": "3.11.7", "Sentence Transformers": "6.2.0"},
    resources=(Link("Read this", "https://example.org/this"),),
    citations=(
        Citation(("Sentence Transformers", "SoftmaxLoss"), "@misc{a,\n    title={A}\n}"),
        Citation(("A", "B", "C"), "@misc{b}"),
    ),
)
BARE = CardFacts("Bare", FrontMatter(), Description(4, 16), ("SentenceTransformer()",), None)


@pytest.mark.parametrize("facts", [FULL, BARE], ids=["full", "bare"])
def test_facts_survive_being_written_and_read(facts: CardFacts) -> None:
    assert parse(render(facts)) == facts
    assert parse(render(facts).replace("\n", "\r\n")) == facts


def test_small_card() -> None:
    facts = parse(CARD)
    assert facts.title == "SentenceTransformer based on some/base"
    assert facts.front_matter.tags[-1] == "loss:CosineSimilarityLoss"
    assert facts.front_matter.model_index[0].results[0].metrics[1].value == 0.8486391228018985
    assert facts.description == Description(
        dimension=384, max_seq_length=128, base_model="some/base", base_model_revision="c9745ed"
    )
    assert facts.architecture[1].endswith("BertModel ")
    assert facts.usage == Usage(
        "sentence_transformers_model_id", ("Is it 300%?", "It's so", "ünï\n😀"), False, ((1.0, 0.1331, -0.3391),) * 3
    )
    assert [link.url for link in facts.sources] == ["https://sbert.net", "https://github.com/UKPLab/x"]
    assert facts.evaluations == (
        Evaluation(
            "Semantic Similarity",
            "EmbeddingSimilarityEvaluator",
            "https://sbert.net/docs/evaluation.html#E",
            (),
            None,
            (Metric("pearson_cosine", (0.8939,)), Metric("spearman_cosine", (0.8486,), primary=True)),
        ),
    )
    assert facts.training_datasets == (
        DatasetFacts(
            name="",
            loss=LossFacts(
                "CosineSimilarityLoss", "https://sbert.net/#cos", {"loss_fct": "torch.nn.modules.loss.MSELoss"}
            ),
            columns=("sentence_0", "label"),
            size=489_640,
            statistics_rows=1000,
            statistics=(
                ColumnStatistics("sentence_0", "string", None, (("min", "5 tokens"), ("mean", "16.07 tokens"))),
                ColumnStatistics("label", "float", None, (("min", "0.0"), ("mean", "0.52"))),
            ),
            samples=(("a | b", "1.0"), ("two\nlines", "0.0")),
        ),
    )
    assert facts.evaluation_datasets == ()
    assert facts.non_default_hyperparameters == {"num_train_epochs": "1"}
    assert facts.hyperparameters == {"num_train_epochs": "1", "mp_parameters": "", "warmup_ratio": "0.0"}
    assert facts.logs == TrainingLogs(
        ("Epoch", "Step", "Training Loss", "spearman_cosine"),
        (("0.0327", "500", "0.1015", "0.8486"), ("0.0654", "1000", "0.016", "-")),
        (0,),
    )
    assert facts.logs.values("spearman_cosine") == (0.8486, None)
    assert facts.training_time is None
    assert facts.versions == {"Python": "3.12.3", "Sentence Transformers": "4.0.1"}
    assert [citation.names for citation in facts.citations] == [("Sentence Transformers",), ("A", "B", "C")]
    assert facts.citations[1].bibtex == "@misc{x,\n    year={2017}\n}"
    assert parse(render(facts)) == facts


def test_front_matter_is_kept_to_the_byte() -> None:
    assert render(parse(CARD)).split("\n---\n")[0] == CARD.split("\n---\n")[0]


def test_card_that_was_decoded_twice_is_repaired() -> None:
    broken = "\n".join(
        line.encode().decode("cp1252") if "\x9d" not in line.encode().decode("latin-1") else line
        for line in CARD.split("\n")
    )
    assert broken != CARD
    assert repair(broken) == CARD
    assert parse(broken) == parse(CARD)


def test_card_that_only_speaks_of_such_text_is_left_alone() -> None:
    facts = dataclasses.replace(BARE, title="Ã© is é in cp1252")
    assert parse(render(facts)) == facts


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "without front matter"),
        ("# A title", "without front matter"),
        ("---\ntags: []\n---\n\n# A title", "Model Description"),
        (CARD.replace("Sentence Transformer\n", "Cross Encoder\n"), "Cross Encoder"),
        (CARD.replace("tags:", "tags: ["), "cannot be read as YAML"),
        (CARD.replace("tags:", "flags:"), "unknown fields flags"),
        (CARD.replace("value: 0.8486391228018985", "value: high"), "wrong type"),
        (CARD.replace("|:", "|"), "without an expected table"),
        (CARD.replace("|:--------|", "|"), "without an expected table"),
        (CARD.replace("| details |", "| other   |"), "cannot be read"),
    ],
)
def test_other_texts_are_refused_in_one_line(text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.data())
def test_damaged_card_is_read_or_refused(data: st.DataObject) -> None:
    lines = CARD.split("\n")
    first = data.draw(st.integers(0, len(lines) - 1))
    last = data.draw(st.integers(first, min(len(lines), first + 40)))
    try:
        facts = parse("\n".join(lines[:first] + lines[last:]))
    except InputError:
        return
    assert facts.description.dimension in (384, None)
    assert render(facts)


CELLS = st.text(st.characters(exclude_characters="\n\r|", exclude_categories=["Cs"])).map(str.strip)


@settings(deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4), CELLS)
def test_any_cell_survives_a_table(rows: list[tuple[str, str]], name: str) -> None:
    header, read = read_table(write_table((name, "b"), rows, margin="  "))
    assert header == (name, "b")
    assert read == rows


def test_bar_in_a_cell_is_no_border() -> None:
    table = "| a | b |\n|:------|:--|\n| x | y | z |"
    assert read_table(table) == (("a", "b"), [("x | y", "z")])


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.98951, "0.9895"), (0.016, "0.016"), (1.0, "1.0"), (5, "5"), (-1, "-1"), (0.55704, "0.5570"), (1e-05, "1e-05")],
)
def test_numbers_of_logs(value: float, text: str) -> None:
    assert number_text(value) == text


def test_numbers_of_metrics() -> None:
    assert [read_number(text) for text in ("0.5", "1", "nan", "0.50", "x")] == [0.5, 1, "nan", "0.50", "x"]


def test_long_lists_are_folded_away() -> None:
    text = render(FULL)
    assert text.count("<details><summary>first</summary>") == 1
    few = dataclasses.replace(FULL, training_datasets=FULL.training_datasets[:3])
    assert "<summary>first</summary>" not in render(few)
    logs = FULL.logs
    assert logs is not None
    short = dataclasses.replace(FULL, logs=dataclasses.replace(logs, rows=logs.rows[:100]))
    folded = "<details><summary>Click to expand</summary>\n\n| Epoch"
    assert folded in text
    assert folded not in render(short)
