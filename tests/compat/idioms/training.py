"""Habits of examples, readers, losses, `fit` and the Trainer."""

import csv
import gzip
import math

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import (
    InputExample,
    SentencesDataset,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
    datasets,
    losses,
    readers,
    util,
)
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.training_args import BatchSamplers, MultiDatasetBatchSamplers
from torch import nn
from torch.utils.data import DataLoader

PAIRS = [
    ("a cat sat on the mat", "a cat sat on a mat", 0.9),
    ("the dog ran fast", "the dog ran slow", 0.6),
    ("the sky is blue", "how red is the tree", 0.2),
    ("why is it so", "three dog ran to the sea", 0.0),
]
TRIPLETS = {"anchor": [a for a, _, _ in PAIRS], "positive": [b for _, b, _ in PAIRS], "negative": ["the sea"] * 4}
SCORED = {"sentence1": TRIPLETS["anchor"], "sentence2": TRIPLETS["positive"], "score": [s for _, _, s in PAIRS]}


def examples():
    return [InputExample(texts=[a, b], label=score) for a, b, score in PAIRS]


def changed_example():
    example = InputExample("id", ["a", "b"])
    first = example.label
    example.label = 0.5
    example.texts.append("c")
    return example.guid, first, example.label, example.texts


def loss_by_hand(m, loss, labels):
    features = [m.tokenize(TRIPLETS["anchor"]), m.tokenize(TRIPLETS["positive"])]
    value = loss(features, labels)
    value.backward()
    return value, m[0].auto_model.encoder.layer[1].output.dense.weight.grad


def own_loop(m):
    loader = DataLoader(examples(), shuffle=False, batch_size=2, collate_fn=m.smart_batching_collate)
    loss = losses.CosineSimilarityLoss(m)
    optimizer = torch.optim.AdamW(m.parameters(), lr=1e-3)
    m.train()
    values = []
    for _ in range(2):
        for features, labels in loader:
            value = loss([util.batch_to_device(one, m.device) for one in features], labels.to(m.device))
            value.backward()
            torch.nn.utils.clip_grad_norm_(m.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            values.append(value.item())
    return values, m.encode("the cat")


def fitted(m, loss=None, data=None, **options):
    loader = DataLoader(data or examples(), shuffle=False, batch_size=2)
    loss = loss or losses.CosineSimilarityLoss(m)
    returned = m.fit(
        train_objectives=[(loader, loss)], **{"epochs": 1, "warmup_steps": 0, "show_progress_bar": False, **options}
    )
    return returned, m.encode("the cat")


def fitted_by_positions(m):
    loader = DataLoader(examples(), shuffle=False, batch_size=2)
    return m.fit([(loader, losses.CosineSimilarityLoss(m))], evaluator_of(m), 1, None, "WarmupLinear", 1)


def evaluator_of(m):
    return EmbeddingSimilarityEvaluator.from_input_examples(examples(), name="dev")


def fitted_with_evaluation(m, place):
    scores = []
    fitted(
        m,
        evaluator=evaluator_of(m),
        evaluation_steps=1,
        epochs=2,
        warmup_steps=math.ceil(2 * 2 * 0.1),
        output_path=str(place / "best"),
        save_best_model=True,
        callback=lambda score, epoch, steps: scores.append((score, epoch, steps)),
    )
    with (place / "best" / "eval" / "similarity_evaluation_dev_results.csv").open() as file:
        rows = len(list(csv.reader(file)))
    return len(scores), rows, SentenceTransformer(str(place / "best")).encode("a cat")


def two_objectives(m):
    first = DataLoader(examples(), batch_size=2)
    second = DataLoader([InputExample(texts=[a, b]) for a, b, _ in PAIRS], batch_size=3)
    m.fit(
        train_objectives=[
            (first, losses.CosineSimilarityLoss(m)),
            (second, losses.MultipleNegativesRankingLoss(m)),
        ],
        epochs=1,
        steps_per_epoch=2,
        warmup_steps=1,
        show_progress_bar=False,
    )
    return m.encode("the cat").shape


def softmax(m):
    data = [InputExample(texts=[a, b], label=index % 3) for index, (a, b, _) in enumerate(PAIRS)]
    loss = losses.SoftmaxLoss(model=m, sentence_embedding_dimension=m.get_sentence_embedding_dimension(), num_labels=3)
    nn.init.constant_(loss.classifier.weight, 0.01)
    nn.init.zeros_(loss.classifier.bias)
    return fitted(m, loss, data)[1].shape


def denoising(m):
    data = datasets.DenoisingAutoEncoderDataset([a for a, _, _ in PAIRS], noise_fn=lambda text: text[: len(text) // 2])
    loss = losses.DenoisingAutoEncoderLoss(m, tie_encoder_decoder=True)
    return fitted(m, loss, data, weight_decay=0, scheduler="constantlr", optimizer_params={"lr": 3e-5})[1].shape


def contrastive_tension(m):
    from sentence_transformers.losses import ContrastiveTensionDataLoader

    loader = ContrastiveTensionDataLoader([a for a, _, _ in PAIRS], batch_size=4, pos_neg_ratio=2)
    loss = losses.ContrastiveTensionLoss(m)
    m.fit([(loader, loss)], epochs=1, warmup_steps=0, show_progress_bar=False, optimizer_class=torch.optim.RMSprop)
    return m.encode("the cat").shape


def simcse(m):
    return fitted(m, losses.MultipleNegativesRankingLoss(m), [InputExample(texts=[a, a]) for a, _, _ in PAIRS])[1].shape


def teacher(m, folder, place):
    with gzip.open(place / "talks.tsv.gz", "wt", encoding="utf8") as file:
        file.writelines(f"{a}\t{b}\n" for a, b, _ in PAIRS)
    student = SentenceTransformer(folder)
    data = datasets.ParallelSentencesDataset(
        student_model=student, teacher_model=m, batch_size=4, use_embedding_cache=True
    )
    data.load_data(str(place / "talks.tsv.gz"), max_sentences=100, max_sentence_length=250)
    loader = DataLoader(data, shuffle=False, batch_size=2)
    student.fit([(loader, losses.MSELoss(model=student))], epochs=1, warmup_steps=0, show_progress_bar=False)
    return len(data), student.encode("the cat").shape


def no_duplicates(m):
    loader = datasets.NoDuplicatesDataLoader([InputExample(texts=[a, b]) for a, b, _ in PAIRS], batch_size=2)
    m.fit([(loader, losses.MultipleNegativesRankingLoss(m))], epochs=1, warmup_steps=0, show_progress_bar=False)
    return len(loader), m.encode("a").shape


def sentence_label(m):
    data = datasets.SentenceLabelDataset(
        [InputExample(texts=[text], label=index // 2) for index, text in enumerate(SCORED["sentence1"])],
        samples_per_label=2,
    )
    loader = DataLoader(data, batch_size=4, drop_last=True)
    m.fit([(loader, losses.BatchAllTripletLoss(model=m))], epochs=1, warmup_steps=0, show_progress_bar=False)
    return m.encode("a").shape


def distillation(m, folder):
    student = SentenceTransformer(folder)
    data = [InputExample(texts=[a], label=m.encode(a)) for a, _, _ in PAIRS]
    return fitted(student, losses.MSELoss(student), data)[1]


def augmented(m):
    silver = [(a, b) for a in SCORED["sentence1"] for b in SCORED["sentence2"][:2]]
    hits = util.semantic_search(m.encode(SCORED["sentence1"], convert_to_tensor=True), m.encode(SCORED["sentence2"]))
    scores = util.pairwise_cos_sim(m.encode([a for a, _ in silver]), m.encode([b for _, b in silver]))
    data = [InputExample(texts=[a, b], label=float(score)) for (a, b), score in zip(silver, scores, strict=True)]
    return len(hits), fitted(m, data=data)[1]


def read_sts(place):
    with gzip.open(place / "sts.tsv.gz", "wt", encoding="utf8") as file:
        file.writelines(f"{a}\t{b}\t{score * 5}\n" for a, b, score in PAIRS)
    reader = readers.STSDataReader(str(place), s1_col_idx=0, s2_col_idx=1, score_col_idx=2)
    return [(one.texts, float(one.label)) for one in reader.get_examples("sts.tsv.gz")]


def read_triplets(place):
    (place / "triplets.csv").write_text("a\tb\tc\nthe cat\tcat\tdog\n")
    reader = readers.TripletReader(str(place), has_header=True)
    return [one.texts for one in reader.get_examples("triplets.csv")]


def arguments(place, **options):
    return SentenceTransformerTrainingArguments(
        output_dir=str(place / "out"),
        **{
            "num_train_epochs": 1,
            "per_device_train_batch_size": 2,
            "learning_rate": 1e-4,
            "warmup_ratio": 0.1,
            "report_to": "none",
            "disable_tqdm": True,
            "save_strategy": "no",
            "use_cpu": True,
            **options,
        },
    )


def trained(m, place, data, loss, evaluation=None, **options):
    trainer = SentenceTransformerTrainer(
        model=m, args=arguments(place, **options), train_dataset=data, eval_dataset=evaluation, loss=loss
    )
    output = trainer.train()
    return output.training_loss, output.global_step, m.encode("the cat")


def trained_on_several(m, place):
    data = {"pairs": Dataset.from_dict(SCORED), "triplets": Dataset.from_dict(TRIPLETS)}
    loss = {"pairs": losses.CoSENTLoss(m), "triplets": losses.MultipleNegativesRankingLoss(m)}
    sampler = MultiDatasetBatchSamplers.ROUND_ROBIN
    return trained(m, place, data, loss, multi_dataset_batch_sampler=sampler)[1]


def trained_on_lists(m, place):
    data = Dataset.from_dict({**TRIPLETS, "negative": [["the sea", "the sky"]] * 4})
    return trained(m, place, data, losses.MultipleNegativesRankingLoss(m))[1:]


def kept_checkpoints(m, place):
    options = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, "logging_steps": 1}
    trained(m, place, Dataset.from_dict(SCORED), losses.CosineSimilarityLoss(m), **options)
    return sorted(one.name for one in (place / "out").iterdir() if one.is_dir())


def trained_and_evaluated(m, place):
    trainer = SentenceTransformerTrainer(
        model=m,
        args=arguments(place, eval_strategy="epoch", per_device_eval_batch_size=4),
        train_dataset=Dataset.from_dict(SCORED),
        eval_dataset=Dataset.from_dict(SCORED),
        loss=losses.CoSENTLoss(m),
        evaluator=evaluator_of(m),
    )
    trainer.train()
    return sorted(trainer.evaluate()), len(trainer.state.log_history)


def searched(m, place, folder):
    trainer = SentenceTransformerTrainer(
        model=None,
        model_init=lambda trial: SentenceTransformer(folder),
        args=arguments(place),
        train_dataset=Dataset.from_dict(TRIPLETS),
        loss=lambda model: losses.MultipleNegativesRankingLoss(model),
    )
    return trainer.hyperparameter_search(hp_space=lambda trial: {"learning_rate": 1e-5}, n_trials=1, backend="optuna")


def matryoshka(m, place):
    loss = losses.MatryoshkaLoss(m, losses.MultipleNegativesRankingLoss(m), matryoshka_dims=[32, 16, 8])
    return trained(m, place, Dataset.from_dict(TRIPLETS), loss, batch_sampler=BatchSamplers.NO_DUPLICATES)[1]


def test_split(m, place):
    data = DatasetDict({"train": Dataset.from_dict(SCORED), "test": Dataset.from_dict(SCORED)})
    renamed = data["train"].rename_column("score", "label")
    return trained(m, place, renamed, losses.CosineSimilarityLoss(m), data["test"], eval_strategy="epoch")[1]


LABELS = torch.tensor([score for _, _, score in PAIRS])
IDIOMS = {
    "InputExample": changed_example,
    "InputExample()": lambda: vars(InputExample()),
    "str(InputExample)": lambda: str(InputExample(texts=["a", "b"], label=1)),
    "SentencesDataset": lambda m: len(SentencesDataset(examples(), model=m)),
    "CosineSimilarityLoss(m, L1)": lambda m: loss_by_hand(m, losses.CosineSimilarityLoss(m, nn.L1Loss()), LABELS),
    "CosineSimilarityLoss by hand": lambda m: loss_by_hand(m, losses.CosineSimilarityLoss(m), LABELS),
    "MNRL(m, 20.0)": lambda m: loss_by_hand(m, losses.MultipleNegativesRankingLoss(m, 20.0), None),
    "MNRL(similarity_fct)": lambda m: loss_by_hand(
        m, losses.MultipleNegativesRankingLoss(model=m, scale=1.0, similarity_fct=util.dot_score), None
    ),
    "MNRL(gather_across_devices)": lambda m: loss_by_hand(
        m, losses.MultipleNegativesRankingLoss(m, gather_across_devices=False), LABELS
    ),
    "CoSENT, AnglE": lambda m: [loss_by_hand(m, kind(m), LABELS)[0] for kind in (losses.CoSENTLoss, losses.AnglELoss)],
    "ContrastiveLoss": lambda m: loss_by_hand(
        m, losses.ContrastiveLoss(m, losses.SiameseDistanceMetric.COSINE_DISTANCE, 0.5), (LABELS > 0.5).int()
    ),
    "OnlineContrastiveLoss": lambda m: loss_by_hand(
        m,
        losses.OnlineContrastiveLoss(model=m, distance_metric=losses.SiameseDistanceMetric.COSINE_DISTANCE, margin=0.5),
        (LABELS > 0.5).int(),
    ),
    "TripletLoss(metric)": lambda m: (
        type(losses.TripletLoss(m, distance_metric=losses.TripletDistanceMetric.COSINE, triplet_margin=0.3)).__name__
    ),
    "loss.get_config_dict": lambda m: sorted(losses.MultipleNegativesRankingLoss(m).get_config_dict()),
    "Matryoshka by hand": lambda m: loss_by_hand(
        m, losses.MatryoshkaLoss(m, losses.CoSENTLoss(m), [32, 16], n_dims_per_step=-1), LABELS
    )[0],
    "smart_batching_collate": lambda m: [len(part) for part in m.smart_batching_collate(examples())],
    "own loop": own_loop,
    "fit": fitted,
    "fit by positions": fitted_by_positions,
    "fit, evaluation": fitted_with_evaluation,
    "fit, optimizer": lambda m: fitted(
        m, optimizer_class=torch.optim.AdamW, optimizer_params={"lr": 1e-5, "eps": 1e-6}, weight_decay=0.0
    ),
    "fit, warmupcosine": lambda m: fitted(m, scheduler="warmupcosine", warmup_steps=1),
    "fit, constantlr": lambda m: fitted(m, scheduler="constantlr"),
    "fit, unknown scheduler": lambda m: fitted(m, scheduler="linear"),
    "fit, use_amp": lambda m: fitted(m, use_amp=True),
    "fit, checkpoints": lambda m, place: (
        fitted(m, checkpoint_path=str(place), checkpoint_save_steps=1, checkpoint_save_total_limit=1)[0],
        len(list(place.iterdir())),
    ),
    "fit, two objectives": two_objectives,
    "fit, integer labels": lambda m: fitted(m, data=[InputExample(texts=["a", "b"], label=n % 2) for n in range(4)]),
    "fit, drop_last": lambda m: m.fit(
        [(DataLoader(examples()[:3], batch_size=2, drop_last=True), losses.CosineSimilarityLoss(m))],
        show_progress_bar=False,
    ),
    "fit, workers": lambda m: m.fit(
        [(DataLoader(examples(), batch_size=2, num_workers=1), losses.CosineSimilarityLoss(m))],
        show_progress_bar=False,
    ),
    "fit, class of a loss": lambda m: fitted(m, losses.CosineSimilarityLoss),
    "fit, object as optimizer": lambda m: fitted(m, optimizer_class=object),
    "fit, SoftmaxLoss": softmax,
    "fit, TSDAE": denoising,
    "fit, contrastive tension": contrastive_tension,
    "fit, SimCSE": simcse,
    "fit, multilingual": teacher,
    "fit, no duplicates": no_duplicates,
    "fit, triplets of labels": sentence_label,
    "fit, distillation": distillation,
    "fit, augmented": augmented,
    "STSDataReader": read_sts,
    "TripletReader": read_triplets,
    "Trainer": lambda m, place: trained(m, place, Dataset.from_dict(SCORED), losses.CoSENTLoss(m)),
    "Trainer, class of a loss": lambda m, place: trained(m, place, Dataset.from_dict(SCORED), losses.CoSENTLoss)[1],
    "Trainer, several": trained_on_several,
    "Trainer, lists of negatives": trained_on_lists,
    "Trainer, checkpoints": kept_checkpoints,
    "Trainer, evaluation": trained_and_evaluated,
    "Trainer, default loss": lambda m, place: trained(m, place, Dataset.from_dict(TRIPLETS), None)[1],
    "Trainer, Matryoshka": matryoshka,
    "Trainer, test split": test_split,
    "Trainer, hyperparameter search": searched,
    "Trainer, list of dictionaries": lambda m, place: trained(
        m, place, Dataset.from_list([{"a": a, "b": b} for a, b, _ in PAIRS]), losses.MultipleNegativesRankingLoss(m)
    )[1],
    "Trainer, missing text": lambda m, place: trained(
        m,
        place,
        Dataset.from_dict({**TRIPLETS, "negative": ["the sea", None, "a", "b"]}),
        losses.MultipleNegativesRankingLoss(m),
    ),
    "arguments": lambda place: np.array(
        [arguments(place).warmup_ratio or 0.1, arguments(place).per_device_eval_batch_size]
    ),
    "arguments misspelt": lambda place: arguments(place, batch_sizes=3),
}
