"""The pictures of a run: what is measured for them, the files, and how the card names them."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fixed_model import PlacedModel
from places import HELPERS, ROOT

from minisbert import SentenceTransformer, report
from minisbert.card import CardFacts, Description, FrontMatter, Picture, TrainingTime, parse, render
from minisbert.cli import main
from minisbert.data.roles import TrainingRows
from minisbert.errors import ConfigError, InputError
from minisbert.model.stack import ModuleStack
from minisbert.report import PairScores, RunReport, attach, draw_similarity, draw_training, pair_scores
from minisbert.training.history import TrainingHistory

CARD = (HELPERS / "card_small.md").read_text(encoding="utf-8")
BARE = CardFacts("Bare", FrontMatter(), Description(4, 16), ("SentenceTransformer()",), None)
BLUE, ORANGE, GREEN = (0, 114, 178), (213, 94, 0), (0, 158, 115)

# ---- the card -------------------------------------------------------------------------------------------------------

TITLES = [
    "Loss over 60 steps",
    "",
    " lead and trail ",
    "a ] in it",
    "[link](elsewhere.png)",
    "![](x)",
    "back\\slash",
    "ends in \\",
    "\\]\\",
    "two\nlines",
    "two\r\nlines",
    "a\n\n## Citation\n\n### Framework Versions",
    "&#10; and &amp; spelled out",
    "\\&#10;",
    "`code` *bold* _under_ <b> $x$",
    "```",
    "line\u2028separator, \x85 and \x0c",
    "naïve 😀 我们",
    "(a) b) (c",
]
FILES = ["training.png", "a b (1) [2] %20 & 'ü'.png", "..png", "-"]


@pytest.mark.parametrize("title", TITLES)
@pytest.mark.parametrize("file", FILES)
def test_pictures_survive_being_written_and_read(title: str, file: str) -> None:
    pictures = (Picture(title, file), Picture("another", "z.png"))
    facts = dataclasses.replace(BARE, pictures=pictures, training_time=TrainingTime("1.5 hours"))
    assert parse(render(facts)) == facts
    assert parse(render(facts).replace("\n", "\r\n")) == facts


def test_place_of_the_pictures() -> None:
    pictures = (Picture("One", "one.png"), Picture("Two [2]", "two.png"))
    without = dataclasses.replace(BARE, training_time=TrainingTime("1.5 hours"), versions={"Python": "3.11"})
    section = "### Pictures\n\n![One](one.png)\n\n![Two \\[2\\]](two.png)\n\n### Framework Versions"
    expected = render(without).replace("### Framework Versions", section)
    assert render(dataclasses.replace(without, pictures=pictures)) == expected
    assert "- **Training**: 1.5 hours\n\n### Pictures" in expected


def test_all_titles_together() -> None:
    facts = dataclasses.replace(BARE, pictures=tuple(Picture(title, f"{i}.png") for i, title in enumerate(TITLES)))
    assert parse(render(facts)) == facts


def test_images_on_the_web_are_no_pictures_of_the_folder() -> None:
    text = render(dataclasses.replace(BARE, pictures=(Picture("a", "a.png"),)))
    for elsewhere in ("https://example.org/a.png", "../a.png", "%2e%2e%2fa.png", "C%3Aa.png"):
        assert parse(text.replace("(a.png)", f"({elsewhere})")) == BARE


def test_a_section_of_that_name_elsewhere_is_something_else() -> None:
    text = render(BARE).replace("## Usage\n", "## Usage\n\n### Pictures\n![a](a.png)\n")
    assert "### Pictures" in text
    assert parse(text).pictures == ()


@pytest.mark.parametrize("file", ["", ".", "..", "../a.png", "/a.png", "b/a.png", "b\\a.png", "c:a.png", "a\0.png"])
def test_picture_outside_of_the_folder(file: str) -> None:
    with pytest.raises(InputError, match="expected the name of a file beside the card"):
        Picture("a", file)


# ---- naming pictures in a saved card --------------------------------------------------------------------------------


def test_attach(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    written = dataclasses.replace(BARE, title="ünï 😀", pictures=(Picture("old", "a.png"), Picture("kept", "b.png")))
    readme.write_text(render(written), encoding="utf-8", newline="\n")
    attach(tmp_path, [Picture("new", "a.png"), Picture("third", "c.png")])
    pictures = (Picture("kept", "b.png"), Picture("new", "a.png"), Picture("third", "c.png"))
    assert readme.read_bytes().decode() == render(dataclasses.replace(written, pictures=pictures))
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


OTHER_CARDS = {
    "empty": b"",
    "no card": b"# My model\n",
    "no UTF-8": render(BARE).encode() + b"\xff",
    "changed by hand": render(BARE).replace("## Usage", "My own words.\n\n## Usage").encode(),
    "of other software": CARD.encode(),
    "damaged": render(BARE).replace("tags:", "tags: [").replace("---\n", "---\ntags: [\n", 1).encode(),
}


@pytest.mark.parametrize("content", OTHER_CARDS.values(), ids=OTHER_CARDS)
def test_attach_leaves_other_cards_alone(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(content)
    with pytest.warns(UserWarning, match=r"README.md does not name the pictures a.png, b.png: .") as caught:
        attach(tmp_path, [Picture("a", "a.png"), Picture("b", "b.png")])
    assert len(caught) == 1
    assert (tmp_path / "README.md").read_bytes() == content


def test_attach_without_a_card(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="No such file"):
        attach(tmp_path / "none", [Picture("a", "a.png")])
    assert not (tmp_path / "none").exists()


# ---- similarities ---------------------------------------------------------------------------------------------------

PLACES = {"one": [1.0], "two": [2.0], "three": [3.0], "five": [5.0], "seven": [7.0], "eleven": [11.0]}


class Model(PlacedModel):
    """Similarities are products of numbers; notes how it was told to count cut texts."""

    quietly = ModuleStack.quietly

    def __init__(self) -> None:
        super().__init__(PLACES, similarity="dot")
        self.truncation, self.truncated_texts, self.training = "error", 3, True
        self.truncation_then: list[str] = []

    def train(self, mode: bool = True) -> None:
        self.training = mode

    def encode(self, inputs: Any, **options: Any) -> Any:
        self.truncation_then.append(self.truncation)
        self.truncated_texts += 1
        self.training = False
        return super().encode(inputs, **options)


def table(texts: dict[str, list[str]], labels: list[float] | None = None) -> TrainingRows:
    return TrainingRows(texts, labels, "label" if labels else None, "/some/rows.tsv")


def values(scores: PairScores) -> dict[str, list[float]]:
    assert all(group.dtype == np.float64 for group in scores.groups.values())
    return {name: group.tolist() for name, group in scores.groups.items()}


def test_two_labels() -> None:
    rows = table({"a": ["one", "two", "three"], "b": ["two", "five", "five"]}, [1, 0, 1])
    scores = pair_scores(Model(), rows)
    assert values(scores) == {"label 0": [10], "label 1": [2, 15]}
    assert scores.title == "Dot product in 3 rows of rows.tsv"
    assert scores.pairs == 3


def test_few_labels_keep_their_values() -> None:
    rows = table({"a": ["one"] * 4, "b": ["two", "three", "five", "seven"]}, [1, -1, 0.5, 1])
    assert values(pair_scores(Model(), rows)) == {"label -1": [3], "label 0.5": [5], "label 1": [2, 7]}


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([0.0, 0.1, 0.2, 0.59, 0.6, 1.0], ["0.0–0.2", "0.2–0.4", "0.4–0.6", "0.6–0.8", "0.8–1.0"]),
        ([0.0, 0.5, 1.0, 2.95, 3.0, 5.0], ["0.0–1.0", "1.0–2.0", "2.0–3.0", "3.0–4.0", "4.0–5.0"]),
        ([1.0, 1.01, 1.02, 1.05, 1.06, 1.1], ["1.00–1.02", "1.02–1.04", "1.04–1.06", "1.06–1.08", "1.08–1.10"]),
    ],
)
def test_graded_labels(labels: list[float], names: list[str]) -> None:
    rows = table({"a": ["one"] * 6, "b": list(PLACES)}, labels)
    groups = values(pair_scores(Model(), rows))
    assert groups == dict(zip(names, [[1, 2], [3], [5], [7], [11]], strict=True))


def test_range_without_rows_is_left_out() -> None:
    rows = table({"a": ["one"] * 6, "b": list(PLACES)}, [0, 1, 2, 3, 99, 100])
    assert values(pair_scores(Model(), rows)) == {"0.0–20.0": [1, 2, 3, 5], "80.0–100.0": [7, 11]}


def test_pairs_without_labels() -> None:
    rows = table({"a": ["one", "two"], "b": ["three", "five"]})
    assert values(pair_scores(Model(), rows)) == {"own positive": [3, 10], "another row's positive": [5, 6]}


@pytest.mark.parametrize("labels", [None, [1.0, 1.0]])
def test_hard_negatives(labels: list[float] | None) -> None:
    texts = {"a": ["one", "two"], "b": ["three", "five"], "c": ["seven", "seven"], "d": ["eleven", "one"]}
    assert values(pair_scores(Model(), table(texts, labels)))["hard negative"] == [7, 14, 11, 2]


def test_labels_that_are_all_the_same_say_nothing() -> None:
    rows = table({"a": ["one", "two"], "b": ["three", "five"]}, [1, 1])
    assert list(pair_scores(Model(), rows).groups) == ["own positive", "another row's positive"]


def test_another_rows_positive_is_never_an_own_one() -> None:
    rows = table({"a": ["one", "one", "two"], "b": ["three", "five", "three"]})
    assert values(pair_scores(Model(), rows)) == {"own positive": [3, 5, 6], "another row's positive": [10]}
    alike = table({"a": ["one", "two"], "b": ["three", "three"]})
    assert values(pair_scores(Model(), alike)) == {"own positive": [3, 6]}
    itself = table({"a": ["one", "two"], "b": ["two", "one"]})
    assert values(pair_scores(Model(), itself)) == {"own positive": [2, 2]}


def test_limit_and_seed() -> None:
    texts = list(PLACES) * 50
    rows = table({"a": texts, "b": ["one"] * 300}, [float(i) for i in range(300)])
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = (pair_scores(Model(), rows, limit=20, seed=seed) for seed in (1, 1, 2))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert first.pairs == other.pairs == 20
    assert values(first) == values(again) != values(other)
    assert pair_scores(Model(), rows).pairs == 300
    assert list(pair_scores(Model(), rows, limit=299).groups) == [
        f"{x:.1f}–{x + 59.8:.1f}" for x in np.arange(5) * 59.8
    ]


def test_the_model_is_left_as_it_was() -> None:
    model = Model()
    pair_scores(model, table({"a": ["one", "two"], "b": ["three", "five"]}))
    assert model.truncation_then == ["count"]
    assert [texts for _, texts in model.calls] == [["one", "three", "two", "five"]]
    with pytest.raises(KeyError):
        pair_scores(model, table({"a": ["one", "unknown"], "b": ["three", "five"]}))
    assert (model.truncation, model.truncated_texts, model.training) == ("error", 3, True)


def test_one_text_in_each_row() -> None:
    with pytest.raises(InputError, match=r"got the text columns \['a'\] of /some/rows.tsv .* at least two texts"):
        pair_scores(Model(), table({"a": ["one", "two"]}, [0, 1]))


def test_cut_texts_are_told_once(tiny: Callable[[str], Path]) -> None:
    model = SentenceTransformer(tiny("bert"), device="cpu", truncation="error")
    pair_scores(model, table({"a": ["the cat " * 60, "a"], "b": ["dog", "one"]}))
    assert model.truncated_texts == 0


# ---- pictures -------------------------------------------------------------------------------------------------------


def pixels(path: Path) -> np.ndarray:
    """The picture, (height, width, 3), 0 to 255."""
    image = pytest.importorskip("matplotlib.image").imread(path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    return np.asarray((image[..., :3] * 255).round(), np.int64)


def count(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(image - colour).max(-1) <= 2).sum())


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., np.ndarray]:
    """Draw into a file and read it."""
    pytest.importorskip("matplotlib")

    def draw(function: Callable[..., None], *arguments: Any, **options: Any) -> np.ndarray:
        path = tmp_path / "picture.png"
        function(*arguments, path, **options)
        return pixels(path)

    return draw


LOSSES = [{"step": 10 * i, "epoch": i / 9, "loss": 1 / i, "learning_rate": 1e-5 * (9 - i)} for i in range(1, 10)]
METRICS = [{"step": step, "eval_x": step / 90, "eval_y": 0.5} for step in (0, 30, 60, 90)]


@pytest.mark.parametrize(
    ("entries", "colours", "height"),
    [
        ([*LOSSES, *METRICS], {BLUE, GREEN, ORANGE}, 920),
        (LOSSES, {BLUE, GREEN}, 590),
        ([{"step": 5, "loss": 0.5}], {BLUE}, 380),
        (METRICS, {ORANGE}, 380),
        ([{"step": 5, "loss": float("nan")}, *METRICS, {"step": 7, "eval_x": float("inf")}], {ORANGE}, 380),
    ],
    ids=["all", "no metric", "one loss", "only metrics", "not finite"],
)
def test_training(entries: Any, colours: set[Any], height: int, draw: Callable[..., np.ndarray]) -> None:
    image = draw(draw_training, entries)
    assert image.shape == (height, 1200, 3)
    assert {colour for colour in (BLUE, ORANGE, GREEN) if count(image, colour) > 30} == colours
    assert 0.8 < (image == 255).all(-1).mean() < 0.99


def test_best_step_is_marked(draw: Callable[..., np.ndarray]) -> None:
    without = draw(draw_training, [*LOSSES, *METRICS])
    marked = draw(draw_training, [*LOSSES, *METRICS], best_step=60)
    changed = (without != marked).any(-1)
    assert changed[:330, 600:].any(0).sum() < 10  # one thin line in the panel of the loss,
    assert changed[:330].any(1).sum() > 100  # from bottom to top


def test_primary_metric_is_chosen(draw: Callable[..., np.ndarray]) -> None:
    assert (draw(draw_training, METRICS) == draw(draw_training, METRICS, primary="x")).all()
    assert (draw(draw_training, METRICS) != draw(draw_training, METRICS, primary="y")).any()


def test_many_losses_are_smoothed(draw: Callable[..., np.ndarray]) -> None:
    noise = np.random.default_rng(0).normal(size=101)
    entries = [{"step": i + 1, "loss": float(noise[i])} for i in range(101)]
    few, many = draw(draw_training, entries[:100]), draw(draw_training, entries)
    thick = [np.flatnonzero((np.abs(image - BLUE).max(-1) <= 2).any(1)) for image in (few, many)]
    assert np.ptp(thick[1]) < 0.6 * np.ptp(thick[0])  # the full colour is that of the mean, which moves less
    assert count(many, (166, 207, 229)) < count(few, BLUE)


@pytest.mark.parametrize("name", ["a$b$c^", "我们_$", "x" * 200, "two\nlines"])
def test_any_name_of_a_metric(name: str, draw: Callable[..., np.ndarray]) -> None:
    assert draw(draw_training, [{"step": 0, f"eval_{name}": 1.0}], primary=name).shape == (380, 1200, 3)


def scores(groups: dict[str, int], *, shift: float = 0.0) -> PairScores:
    draw = np.random.default_rng(0)
    return PairScores({name: draw.normal(shift, 0.2, size) for name, size in groups.items()}, "Cosine in $rows$")


@pytest.mark.parametrize(
    ("groups", "colours", "height"),
    [
        (["label 0"], {BLUE}, 560),
        (["label 0", "label 1"], {BLUE, ORANGE}, 560),
        (["own positive", "another row's positive", "hard negative"], {BLUE, ORANGE, GREEN}, 560),
        (["0.0–0.2", "0.2–0.4", "0.4–0.6", "0.6–0.8"], {BLUE, ORANGE}, 550),
        (["0.0–0.2", "0.2–0.4", "0.4–0.6", "0.6–0.8", "0.8–1.0"], {BLUE, ORANGE}, 640),
    ],
)
def test_similarity(groups: list[str], colours: set[Any], height: int, draw: Callable[..., np.ndarray]) -> None:
    sizes = {name: 50 + 30 * i for i, name in enumerate(groups)}
    image = draw(draw_similarity, scores(sizes), scores(sizes, shift=0.5))
    assert image.shape == (height, 1200, 3)
    for half in (image[:, :620], image[:, 620:]):
        assert {colour for colour in (BLUE, ORANGE, GREEN) if count(half, colour) > 30} == colours


def test_both_sides_have_the_same_axes(draw: Callable[..., np.ndarray]) -> None:
    image = draw(draw_similarity, scores({"label 0": 200}), scores({"label 0": 200}, shift=3.0))
    blue = np.abs(image[:480] - BLUE).max(-1) <= 2
    left, right = (np.flatnonzero(half[60:380].any(0)) for half in (blue[:, :630], blue[:, 630:]))
    assert left.max() < 300  # low similarities before
    assert right.min() > 300  # and high ones after


@pytest.mark.parametrize("kind", ["equal", "one pair", "some not finite", "a group that is not finite"])
def test_awkward_similarities(kind: str, draw: Callable[..., np.ndarray]) -> None:
    groups = {
        "equal": {"a": [0.5] * 4, "b": [0.5]},
        "one pair": {"a": [0.5]},
        "some not finite": {"a": [0.5, np.nan], "b": [np.inf, 0.1]},
        "a group that is not finite": {"a": [0.5, 0.6], "b": [np.nan]},
    }[kind]
    some = PairScores({name: np.array(group) for name, group in groups.items()}, "x")
    assert draw(draw_similarity, some, some).shape == (560, 1200, 3)


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    nothing = PairScores({"a": np.array([np.nan])}, "x")
    with pytest.raises(InputError, match="no finite similarity"):
        draw_similarity(nothing, nothing, tmp_path / "a.png")
    with pytest.raises(InputError, match="expected the same"):
        draw_similarity(scores({"a": 2}), scores({"b": 2}), tmp_path / "a.png")
    with pytest.raises(InputError, match="without a finite loss or metric"):
        draw_training([{"step": 1, "loss": float("nan")}], tmp_path / "a.png")
    with pytest.raises(InputError, match="cannot write .*No such file"):
        draw_training(LOSSES, tmp_path / "none" / "a.png")
    assert list(tmp_path.iterdir()) == []


# ---- matplotlib -----------------------------------------------------------------------------------------------------


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_matplotlib_is_loaded_only_to_draw() -> None:
    code = """
import sys
import minisbert, minisbert.report
print([name for name in ("matplotlib", "torch", "numpy") if name in sys.modules])
from minisbert.report import *
from minisbert.cli import main
print("matplotlib" in sys.modules)
"""
    assert run(code) == "[]\nFalse\n"
    assert report.__all__ == sorted(report.__all__, key=lambda name: (name.islower(), name))
    with pytest.raises(AttributeError, match="has no attribute 'pyplot'"):
        report.pyplot  # noqa: B018


def test_matplotlib_is_left_as_it_was(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    code = f"""
import os, sys
os.environ["MPLBACKEND"] = "agg"  # to look up the one it would choose loads pyplot
import matplotlib, numpy
before = dict(matplotlib.rcParams)
from minisbert.report import PairScores, draw_similarity, draw_training
draw_training([{{"step": 1, "loss": 0.5}}], {str(tmp_path / "a.png")!r})
scores = PairScores({{"a": numpy.arange(5.0)}}, "x")
draw_similarity(scores, scores, {str(tmp_path / "b.png")!r})
print("matplotlib.pyplot" in sys.modules, before == dict(matplotlib.rcParams))
"""
    assert run(code) == "False True\n"
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)


def test_without_matplotlib(no_matplotlib: None, tmp_path: Path) -> None:
    calls: list[Callable[[], object]] = [
        report.require_matplotlib,
        lambda: RunReport(Model(), table({"a": ["one", "two"], "b": ["three", "five"]})),  # type: ignore[arg-type]
        lambda: draw_training(LOSSES, tmp_path / "a.png"),
        lambda: draw_similarity(scores({"a": 2}), scores({"a": 2}), tmp_path / "a.png"),
    ]
    for call in calls:
        with pytest.raises(ConfigError) as caught:
            call()
        assert (
            str(caught.value) == 'got report without matplotlib; expected it installed: pip install "minisbert[report]"'
        )


# ---- a whole run ----------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> str:
    words = "cat dog mat sky sea tree one two three red".split()
    lines = [f"the {word} ran\ta {word} sat on the mat\t{i % 6}" for i, word in enumerate(words)]
    (tmp_path / "pairs.tsv").write_text("\n".join(["first\tsecond\tscore", *lines]) + "\n")
    return str(tmp_path / "pairs.tsv")


def training(folder: Path, data: str, output: Path, *more: str) -> list[str]:
    settings = ["--epochs", "2", "--batch-size", "4", "--log-every", "1", "--learning-rate", "1e-3", "--device", "cpu"]
    start = ["train", "--model", str(folder), "--data", data, "--loss", "cosine", "--scale", "0-5"]
    return [*start, *settings, "--output", str(output), *more]


def test_train_with_report(
    tiny: Callable[[str], Path], data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    plain, drawn = tmp_path / "plain", tmp_path / "drawn"
    more = ["--eval", data, "--eval-every", "2"]
    outputs = []
    for arguments in (
        training(tiny("bert"), data, plain, *more),
        training(tiny("bert"), data, drawn, *more, "--report"),
    ):
        assert main(arguments) == 0
        captured = capsys.readouterr()
        outputs.append(captured.out)
        assert "warning" not in captured.err
    assert outputs[0] == outputs[1]
    assert (plain / "model.safetensors").read_bytes() == (drawn / "model.safetensors").read_bytes()
    before, after = (parse((folder / "README.md").read_text(encoding="utf-8")) for folder in (plain, drawn))
    assert before.pictures == ()
    assert after.pictures == (
        Picture("Loss, learning rate and spearman_cosine over 6 training steps", "training.png"),
        Picture("Cosine similarity in 10 evaluation rows of pairs.tsv, before and after training", "similarity.png"),
    )
    assert dataclasses.replace(after, pictures=(), training_time=None) == dataclasses.replace(
        before, training_time=None
    )
    assert pixels(drawn / "training.png").shape == (920, 1200, 3)
    assert pixels(drawn / "similarity.png").shape == (640, 1200, 3)  # labels of the evaluation, 0 to 5, in ranges
    assert not list(plain.glob("*.png"))


def test_train_with_report_on_the_training_rows(tiny: Callable[[str], Path], data: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    columns = ["--columns", "first,second", "--loss", "mnrl"]
    arguments = [one for one in training(tiny("bert"), data, tmp_path / "out") if one not in ("--scale", "0-5")]
    assert main([*arguments, *columns, "--report"]) == 0
    titles = [one.title for one in parse((tmp_path / "out" / "README.md").read_text(encoding="utf-8")).pictures]
    assert titles[0] == "Loss and learning rate over 6 training steps"
    assert pixels(tmp_path / "out" / "training.png").shape == (590, 1200, 3)
    assert pixels(tmp_path / "out" / "similarity.png").shape == (560, 1200, 3)


def test_train_without_matplotlib(
    no_matplotlib: None, data: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(training(tmp_path / "none", data, tmp_path / "out", "--report")) == 2
    message = (
        'minisbert: error: got report without matplotlib; expected it installed: pip install "minisbert[report]"\n'
    )
    assert capsys.readouterr().err == message
    assert not (tmp_path / "out").exists()


def test_a_failed_picture_is_a_warning(
    tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    model = SentenceTransformer(tiny("bert"), device="cpu")
    rows = table({"a": ["the cat", "a dog", "red"], "b": ["cat", "dog", "blue sky"]})
    drawn = RunReport(model, rows)
    model.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_bytes()
    for parameter in model.parameters():
        parameter.data.fill_(float("nan"))
    with pytest.warns(UserWarning, match=r"the report could not be drawn: .*(finite|nan)"):
        drawn.write(tmp_path, TrainingHistory())
    assert (tmp_path / "README.md").read_bytes() == card


@pytest.mark.parametrize("largest", [1e300, 1.7e308])
def test_labels_of_any_size(largest: float) -> None:
    labels = [-largest, 0.0, largest / 2, largest, -largest / 2, largest / 4]
    scores = pair_scores(Model(), table({"a": list(PLACES), "b": list(PLACES)}, labels))
    assert scores.pairs == 6
    assert all(len(name) < 40 for name in scores.groups)
