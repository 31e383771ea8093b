"""Distill a model into a smaller one: the student learns the teacher's embeddings of texts, without labels."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..card.facts import Origin
from ..data.roles import TrainingRows
from ..errors import ConfigError, InputError, InputTypeError, shown
from ..evaluation.evaluator import Measurement, TaskEvaluator
from ..losses import MSELoss
from ..model import EmbeddingModel
from ..modules import Dense, Normalize, WeightedLayerPooling
from ..modules.cutting import keep_layers
from ..sentence_transformer import SentenceTransformer
from ..similarity import normalize_embeddings
from ..text import check_texts
from ..training.config import TrainingConfig
from ..training.history import TrainingHistory
from ..training.trainer import Trainer

Projection: TypeAlias = Literal["pca", "dense"]
# The settings of a distillation where the caller gives none; others are those of TrainingConfig.
SETTINGS: Mapping[str, Any] = {"epochs": 1, "batch_size": 64, "learning_rate": 1e-4, "warmup_steps": 0.1}
HELD_OUT_SHARE, MOST_HELD_OUT = 0.1, 1000  # of the texts
_BLOCK = 10_000  # embeddings that are projected at once


class TeacherEvaluator(TaskEvaluator):
    """Compares a student's embeddings of texts with a teacher's.

    The metrics are `mean_cosine`, the primary one, and `negative_mse`, the mean squared difference times -100, as of
    `MSEEvaluator`.

    Args:
        texts: to embed.
        embeddings: those of the teacher, (texts, dim).
        name: put before the names of metrics.
        batch_size: most texts in one forward pass; by default only the number of tokens is limited.
        write_csv: append to a CSV file where an output path is given.
    """

    description = "Knowledge Distillation"

    def __init__(
        self,
        texts: Sequence[str],
        embeddings: NDArray[np.float32],
        *,
        name: str = "",
        batch_size: int | None = None,
        write_csv: bool = True,
    ) -> None:
        super().__init__(name, batch_size, show_progress_bar=False, write_csv=write_csv, truncate_dim=None)
        self.texts, self.embeddings = list(texts), embeddings
        self.csv_file = self.file_name("distillation")

    def measure(self, model: EmbeddingModel) -> Measurement:
        """Compare the embeddings of `model`, in all their dimensions, with those of the teacher."""
        with model.truncate_embeddings(None):
            own = self.embed(model.encode, self.texts)
        if own.shape != self.embeddings.shape:
            raise InputError(
                f"got embeddings of {own.shape[1]} numbers from the model; expected {self.embeddings.shape[1]}, as "
                f"from the teacher"
            )
        first, second = torch.from_numpy(own), torch.from_numpy(np.asarray(self.embeddings))
        cosine = torch.cosine_similarity(first, second, dim=1).double().mean().item()
        mse = float(np.square(own.astype(np.float64) - self.embeddings).mean())
        metrics = {"mean_cosine": cosine, "negative_mse": -100 * mse}
        return Measurement(metrics, "mean_cosine", {"mean_cosine": cosine, "MSE": 100 * mse})


@dataclass(frozen=True)
class Distillation:
    """A distillation that is ready to start.

    Attributes:
        student: the model to train.
        trainer: the run.
        rows: the texts, with the teacher's embeddings as labels.
        evaluator: compares the student with the teacher on texts that were kept from training.
    """

    student: SentenceTransformer
    trainer: Trainer
    rows: TrainingRows
    evaluator: TeacherEvaluator


@dataclass(frozen=True)
class Distilled:
    """A student that is trained.

    Attributes:
        student: the model.
        history: of the run.
        before: mean cosine with, and negative mean squared difference from, the teacher before the run, by name.
        after: the same after it.
    """

    student: SentenceTransformer
    history: TrainingHistory
    before: Mapping[str, float]
    after: Mapping[str, float]


def distill(
    teacher: str | Path | SentenceTransformer,
    texts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    student: str | Path | SentenceTransformer | None = None,
    projection: Projection | None = None,
    held_out: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    device: str | None = None,
    show_progress_bar: bool = True,
) -> Distilled:
    """Train a student to embed texts as a teacher does.

    The arguments are those of `prepare_distillation`. The student is not saved: call its `save_pretrained`.

    Raises:
        ConfigError: see there; of the training, see `Trainer.train`.
        InputError: see there.
    """
    run = prepare_distillation(
        teacher,
        texts,
        layers=layers,
        student=student,
        projection=projection,
        held_out=held_out,
        settings=settings,
        output_dir=output_dir,
        device=device,
        show_progress_bar=show_progress_bar,
    )
    before = run.evaluator(run.student)
    history = run.trainer.train()
    return Distilled(run.student, history, before, run.evaluator(run.student))


def prepare_distillation(
    teacher: str | Path | SentenceTransformer,
    texts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    student: str | Path | SentenceTransformer | None = None,
    projection: Projection | None = None,
    held_out: Sequence[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    output_dir: str | Path | None = None,
    device: str | None = None,
    show_progress_bar: bool = True,
) -> Distillation:
    """Make the student, the teacher's embeddings of all texts, and the run.

    The teacher embeds each text once; its embeddings are kept in a file without a name that is mapped into memory.

    Args:
        teacher: folder or name of a model, or a model.
        texts: to train on; each is taken once, and empty ones are left out.
        layers: the student is the teacher with only these layers, counted from 0.
        student: or it is this model, which is trained in place.
        projection: where the two have embeddings of different sizes: "pca" projects those of the teacher on the
            student's size, which must be the smaller one; "dense" adds a linear layer to the student that gives the
            teacher's size. By default "pca" where it is possible.
        held_out: texts to compare the two on, which are not trained on; by default a tenth of `texts`, at most 1,000.
        settings: fields of `TrainingConfig`; by default epochs=1, batch_size=64, learning_rate=1e-4, and, in runs of
            ten steps or more, warmup_steps=0.1.
        output_dir: folder for log, evaluations and checkpoints.
        device: where to compute.
        show_progress_bar: show one on a terminal.

    Raises:
        ConfigError: both or neither of `layers` and `student` are given, or the layers cannot be kept, or a setting or
            the projection is impossible.
        InputError: there are too few texts.
        ModelError: a model cannot be found or read.
    """
    given = dict(settings) if isinstance(settings, Mapping) else settings or {}
    config = _config(given)
    if (layers is None) == (student is None):
        got = "neither layers nor a student" if layers is None else "layers and a student"
        raise ConfigError(f"got {got}; expected one of them: the layers to keep of the teacher, or a model to train")
    if projection not in (None, "pca", "dense"):
        raise ConfigError(f"got projection={projection!r}; expected 'pca', 'dense' or None to choose one")
    trained, kept = _divided(texts, held_out, seed=config.seed)
    if "warmup_steps" not in given and config.steps_over(len(trained)) < 1 / SETTINGS["warmup_steps"]:
        config = _config(given := {"warmup_steps": 0, **given})  # which would be all of a short run
    model = teacher if isinstance(teacher, SentenceTransformer) else SentenceTransformer(teacher, device=device)
    pupil = _cut(model, layers) if layers is not None else _student(student, device)
    way, pupil = _projected(model, pupil, projection)
    labels, held_labels = _embeddings(model, pupil, (trained, kept), pca=way == "pca", progress=show_progress_bar)
    if prompt := pupil.prompt_text(None, None):  # which encode puts before texts, and training does not
        config = _config({"prompts": prompt, **given})
    pupil.origin = Origin("Distillation", _facts(model, pupil, teacher, student, layers, way, trained, kept))
    rows = TrainingRows({"text": trained}, labels, "label", "the texts", "list")
    evaluator = TeacherEvaluator(kept, held_labels, name="held-out")
    trainer = Trainer(
        pupil,
        rows,
        loss=MSELoss(),
        config=config,
        evaluator=evaluator,
        output_dir=output_dir,
        show_progress_bar=show_progress_bar,
    )
    return Distillation(pupil, trainer, rows, evaluator)


def _config(settings: Mapping[str, Any]) -> TrainingConfig:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"got settings={shown(settings)}; expected fields of TrainingConfig, such as {{'epochs': 3}}")
    known = [field.name for field in fields(TrainingConfig)]
    if unknown := [name for name in settings if name not in known]:
        raise ConfigError(f"got the setting {unknown[0]!r}; expected one of {', '.join(sorted(known))}")
    return TrainingConfig(**{**SETTINGS, **settings})


# ---- texts ----------------------------------------------------------------------------------------------------------


def _divided(texts: Sequence[str], held_out: Sequence[str] | None, *, seed: int) -> tuple[list[str], list[str]]:
    """Return the texts to train on and those to compare on, none in both."""
    own = _once(texts, "texts")
    if held_out is not None:
        kept = _once(held_out, "held_out")
    else:
        count = min(MOST_HELD_OUT, int(len(own) * HELD_OUT_SHARE))
        kept = [own[row] for row in np.random.default_rng(seed).choice(len(own), count, replace=False)] if count else []
    apart = set(kept)
    trained = [text for text in own if text not in apart]
    if len(trained) < 2 or not kept:
        raise InputError(
            f"got {len(own)} different texts{'' if held_out is None else f', {len(kept)} held out'}; expected at least "
            f"{int(1 / HELD_OUT_SHARE)} to hold some out, or two and held_out: add texts"
        )
    return trained, kept


def _once(texts: Sequence[str], name: str) -> list[str]:
    if isinstance(texts, str):
        raise InputTypeError(f"got one text as {name}; expected several: put it in a list")
    if not isinstance(texts, Iterable):
        raise InputTypeError(f"got {shown(texts)} as {name}; expected texts: pass a list")
    return [text for text in dict.fromkeys(check_texts(list(texts))) if text.strip()]


# ---- models ---------------------------------------------------------------------------------------------------------


def _cut(teacher: SentenceTransformer, layers: Sequence[int]) -> SentenceTransformer:
    """Return a copy of the teacher with some of its layers."""
    if isinstance(layers, (str, int)) or not isinstance(layers, Sequence):
        raise ConfigError(f"got layers={shown(layers)}; expected numbers of layers, such as [0, 2, 4]")
    if any(isinstance(module, WeightedLayerPooling) and module.used for module in teacher):
        raise ConfigError("got layers of a model with a WeightedLayerPooling, which is of all layers; expected student")
    student = copy.deepcopy(teacher)
    keep_layers(student.transformer, layers)
    student.float()
    student.training_record, student.origin = None, None
    return student


def _student(student: Any, device: str | None) -> SentenceTransformer:
    if isinstance(student, SentenceTransformer):
        return student
    return SentenceTransformer(student, device=device, dtype="float32")


def _projected(
    teacher: SentenceTransformer, student: SentenceTransformer, projection: Projection | None
) -> tuple[Projection | None, SentenceTransformer]:
    """Return the projection, and the student with the layer for it."""
    size, wanted = student.dimension(None), teacher.dimension(None)
    if size == wanted:
        if projection is not None:
            raise ConfigError(
                f"got projection={projection!r} for two models of size {size}; expected none: leave it out"
            )
        return None, student
    if projection == "pca" and size > wanted:
        raise ConfigError(
            f"got projection='pca' for a student of size {size} and a teacher of size {wanted}; expected a smaller "
            f"student, or 'dense'"
        )
    if (projection or ("pca" if size < wanted else "dense")) == "pca":
        return "pca", student
    modules = list(student)
    index = len(modules) - isinstance(modules[-1], Normalize)
    dense = Dense(size, wanted, activation_function="torch.nn.modules.linear.Identity")
    modules.insert(index, dense.to(student.device, student.dtype))
    wider = SentenceTransformer(
        modules=modules,
        device=str(student.device),
        prompts=student.prompts,
        default_prompt_name=student.default_prompt_name,
        similarity_fn_name=student.similarity_fn_name,
    )
    wider.base_model, wider.base_model_revision = student.base_model, student.base_model_revision
    return "dense", wider


# ---- embeddings -----------------------------------------------------------------------------------------------------


def _embeddings(
    teacher: SentenceTransformer,
    student: SentenceTransformer,
    texts: tuple[list[str], list[str]],
    *,
    pca: bool,
    progress: bool,
) -> list[NDArray[np.float32]]:
    """Return what the student's embeddings should be: for each list of texts, (texts, dim)."""
    found = []
    with teacher.truncate_embeddings(None):
        for some in texts:
            out = _unnamed(len(some), teacher.dimension(None))
            teacher.encode(some, out=out, show_progress_bar=progress)
            found.append(out)
    if not pca:
        return found
    axes = principal_axes(found[0], student.dimension(None))
    unit = isinstance(list(student)[-1], Normalize)
    projected = []
    for values in found:
        out = _unnamed(len(values), axes.shape[1])
        for rows in _blocks(len(values)):
            block = torch.from_numpy(values[rows]) @ torch.from_numpy(axes)
            out[rows] = (normalize_embeddings(block) if unit else block).numpy()
        projected.append(out)
    return projected


def _unnamed(rows: int, dim: int) -> NDArray[np.float32]:
    """Make an array in a file that is gone when the array is."""
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=(rows, dim))


def principal_axes(values: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return the directions in which values differ most: (dim, count), orthonormal.

    Args:
        values: (rows, dim); they are read in blocks.
        count: number of directions.
    """
    mean = values.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((len(mean), len(mean)))
    for rows in _blocks(len(values)):
        centred = values[rows] - mean
        covariance += centred.T @ centred
    axes: NDArray[np.float32] = np.linalg.eigh(covariance)[1][:, ::-1][:, :count].astype(np.float32)
    return np.ascontiguousarray(axes)


def _blocks(count: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, count, _BLOCK))


# ---- card -----------------------------------------------------------------------------------------------------------


def _facts(
    model: SentenceTransformer,
    pupil: SentenceTransformer,
    teacher: Any,
    student: Any,
    layers: Sequence[int] | None,
    projection: Projection | None,
    trained: Sequence[str],
    kept: Sequence[str],
) -> dict[str, str]:
    facts = {"Teacher": _name(model, teacher)}
    if layers is not None:
        facts["Layers"] = f"{', '.join(map(str, layers))} of the teacher's"
    else:
        facts["Student"] = _name(pupil, student)
    if projection is not None:
        facts["Projection"] = (
            f"the teacher's embeddings from {model.dimension(None)} to {pupil.dimension(None)} numbers, by PCA"
            if projection == "pca"
            else f"a dense layer gives the student the teacher's {model.dimension(None)} numbers"
        )
    facts["Texts"] = f"{len(trained):,}, and {len(kept):,} held out to compare on"
    return facts


def _name(model: SentenceTransformer, given: Any) -> str:
    """Return the name of a model on the Hub, or that of its folder."""
    if model.base_model or isinstance(given, SentenceTransformer):
        return model.base_model or "a model in memory"
    return Path(given).expanduser().resolve().name
