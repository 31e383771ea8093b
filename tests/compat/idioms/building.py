"""Habits of building models from modules, looking into them, changing them, and saving them."""

import json
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer, SimilarityFunction, models, util
from torch import nn

S = ["a cat sat on the mat", "the dog ran fast", "the sea is blue and the sky is red"]


def frozen(m):
    for parameter in m[0].auto_model.embeddings.parameters():
        parameter.requires_grad = False
    for layer in m[0].auto_model.encoder.layer[:1]:
        for parameter in layer.parameters():
            parameter.requires_grad = False
    return sum(parameter.numel() for parameter in m.parameters() if parameter.requires_grad)


def frozen_by_name(m):
    for name, parameter in m.named_parameters():
        if "embeddings" in name or "layer.0." in name:
            parameter.requires_grad_(False)
    return sorted(name for name, parameter in m.named_parameters() if parameter.requires_grad)


def fewer_layers(m):
    model = m._first_module().auto_model
    model.encoder.layer = nn.ModuleList([model.encoder.layer[0]])
    model.config.num_hidden_layers = 1
    return m.encode(S)


def fewer_layers_saved(m, place):
    model = m._first_module().auto_model
    model.encoder.layer = nn.ModuleList([layer for index, layer in enumerate(model.encoder.layer) if index in [1]])
    model.config.num_hidden_layers = 1
    m.save(str(place / "small"))
    return m.encode(S), SentenceTransformer(str(place / "small")).encode(S)


def no_decay(m):
    kept = ["bias", "LayerNorm.bias", "LayerNorm.weight"]
    return [
        len([p for n, p in m.named_parameters() if not any(k in n for k in kept)]),
        len([p for n, p in m.named_parameters() if any(k in n for k in kept)]),
    ]


def by_hand(folder):
    words = models.Transformer(folder, max_seq_length=16)
    pooling = models.Pooling(words.get_word_embedding_dimension(), pooling_mode_mean_tokens=True)
    return SentenceTransformer(modules=[words, pooling]).encode(S)


def by_hand_cls(folder):
    words = models.Transformer(folder)
    pooling = models.Pooling(
        words.get_word_embedding_dimension(),
        pooling_mode_cls_token=True,
        pooling_mode_mean_tokens=False,
        pooling_mode_max_tokens=False,
    )
    return SentenceTransformer(modules=[words, pooling, models.Normalize()]).encode(S), pooling.get_config_dict()


def with_dense(folder, place):
    words = models.Transformer(folder, max_seq_length=16)
    pooling = models.Pooling(words.get_word_embedding_dimension())
    torch.manual_seed(0)
    dense = models.Dense(
        in_features=pooling.get_sentence_embedding_dimension(), out_features=8, activation_function=nn.Tanh()
    )
    model = SentenceTransformer(modules=[words, pooling, dense])
    first = model.encode(S)
    model.save(str(place / "dense"))
    return first, SentenceTransformer(str(place / "dense")).encode(S)


def pca(m):
    embeddings = torch.from_numpy(m.encode(S * 4))
    components = torch.linalg.svd(embeddings)[2][:8]
    dense = models.Dense(in_features=32, out_features=8, bias=False, activation_function=nn.Identity())
    dense.linear.weight = nn.Parameter(components)
    m.add_module("dense", dense)
    return m.encode(S).shape, m.get_sentence_embedding_dimension()


def appended(m):
    m.append(models.Normalize())
    m.add_module("4", models.Normalize())
    return len(m), m.encode(S)


def replaced_pooling(m):
    m[1] = models.Pooling(32, pooling_mode="max")
    return m.encode(S)


def popped(m):
    m.pop(2)
    return [type(module).__name__ for module in m], m.encode(S)


def own_module(folder, place):
    class Scaled(nn.Module):
        def forward(self, features):
            features["sentence_embedding"] = features["sentence_embedding"] * 3
            return features

    model = SentenceTransformer(folder)
    return SentenceTransformer(modules=[model[0], model[1], Scaled()]).encode(S)


def plain_folder(folder, place):
    source, target = Path(folder), place / "plain"
    target.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    model = SentenceTransformer(str(target))
    return [type(module).__name__ for module in model], model.max_seq_length, model.encode(S)


def saved(m, place):
    m.save(str(place / "model"))
    return (
        sorted(str(one.relative_to(place)) for one in place.rglob("*") if one.is_file()),
        [one["type"].rsplit(".", 1)[-1] for one in json.loads((place / "model" / "modules.json").read_text())],
        SentenceTransformer(str(place / "model")).encode(S),
    )


def saved_without_card(m, place):
    m.save(str(place / "model"), create_model_card=False)
    return sorted(one.name for one in (place / "model").iterdir())


def saved_with_prompts(m, place):
    m.prompts = {"query": "what is "}
    m.default_prompt_name = "query"
    m.similarity_fn_name = "dot"
    m.save_pretrained(str(place / "model"))
    again = SentenceTransformer(str(place / "model"))
    return again.prompts["query"], again.default_prompt_name, again.similarity_fn_name, again.encode(S)


def saved_by_name(m, place):
    m.save(str(place / "model"), "someone/my-model")
    m.save(str(place / "other"), model_name="someone/my-model")
    return ["someone/my-model" in (place / name / "README.md").read_text() for name in ("model", "other")]


def truncated(m):
    with m.truncate_sentence_embeddings(8):
        inside = m.encode(S), m.get_sentence_embedding_dimension()
    return inside, m.encode(S).shape


def similarity_changed(m):
    first = m.similarity_fn_name
    m.similarity_fn_name = SimilarityFunction.DOT_PRODUCT
    embeddings = m.encode(S)
    return first, m.similarity_fn_name, m.similarity(embeddings, embeddings)


def unknown_default_prompt(m):
    m.prompts = {"query": "what is "}
    m.default_prompt_name = "passage"
    return m.encode(S)


def longer_than_positions(m):
    m.max_seq_length = 1024
    return m.max_seq_length, m.encode(S)


def dropout_changed(m):
    for module in m.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.3
    m.train()
    return m.encode(S)


def quantized(m):
    return torch.quantization.quantize_dynamic(m, {nn.Linear}, dtype=torch.qint8).encode(S).shape


IDIOMS = {
    "auto_model": lambda m: type(m[0].auto_model).__name__,
    "auto_model.config": lambda m: (m[0].auto_model.config.hidden_size, m[0].auto_model.config.max_position_embeddings),
    "word_embeddings": lambda m: m[0].auto_model.embeddings.word_embeddings.weight.shape,
    "encoder.layer": lambda m: (type(m[0].auto_model.encoder.layer[0]).__name__, len(m[0].auto_model.encoder.layer)),
    "freeze layers": frozen,
    "freeze by name": frozen_by_name,
    "fewer layers": fewer_layers,
    "fewer layers, saved": fewer_layers_saved,
    "weight decay groups": no_decay,
    "requires_grad_(False)": lambda m: any(p.requires_grad for p in m.requires_grad_(False).parameters()),
    "m[0].tokenizer": lambda m: len(m[0].tokenizer),
    "m[0].max_seq_length": lambda m: (m[0].max_seq_length, m.max_seq_length, m.get_max_seq_length()),
    "_first_module": lambda m: (type(m._first_module()).__name__, type(m._last_module()).__name__),
    "names of modules": lambda m: list(m._modules),
    "pooling": lambda m: (m[1].pooling_mode_mean_tokens, m[1].get_pooling_mode_str(), m[1].word_embedding_dimension),
    "_modules['1']": lambda m: m._modules["1"].pooling_mode_mean_tokens,
    "m[1].get_sentence_embedding_dimension": lambda m: m[1].get_sentence_embedding_dimension(),
    "m[0].get_word_embedding_dimension": lambda m: (
        m[0].get_word_embedding_dimension(),
        m[0].get_embedding_dimension(),
    ),
    "dimension": lambda m: (m.get_sentence_embedding_dimension(), m.get_embedding_dimension()),
    "named_parameters": lambda m: sorted(name for name, _ in m.named_parameters()),
    "first parameter": lambda m: next(iter(m.named_parameters()))[0],
    "state_dict": lambda m: sorted(m.state_dict()),
    "number of parameters": lambda m: sum(parameter.numel() for parameter in m.parameters()),
    "shape of first parameter": lambda m: next(m.parameters()).shape,
    "to, eval, train": lambda m: (m.to("cpu").eval().training, m.train().training, str(m.device)),
    "_target_device": lambda m: str(m._target_device),
    "dtype": lambda m: str(m.dtype),
    "isinstance Sequential": lambda m: isinstance(m, nn.Sequential),
    "max_seq_length above positions": longer_than_positions,
    "max_seq_length None": lambda m: setattr(m, "max_seq_length", None),
    "str(model)": lambda m: str(m).startswith("SentenceTransformer("),
    "by hand": by_hand,
    "by hand, cls": by_hand_cls,
    "with dense": with_dense,
    "dense from PCA": pca,
    "Pooling(word_embedding_dimension=)": lambda: models.Pooling(word_embedding_dimension=32).get_pooling_mode_str(),
    "Pooling(32, 'cls')": lambda: models.Pooling(32, "cls").get_pooling_mode_str(),
    "Pooling(pooling_mode=lasttoken)": lambda: models.Pooling(32, pooling_mode="lasttoken").get_pooling_mode_str(),
    "Pooling(two modes)": lambda: models.Pooling(
        32, pooling_mode_max_tokens=True, pooling_mode_mean_tokens=True
    ).get_sentence_embedding_dimension(),
    "Dense(positions)": lambda: models.Dense(32, 8, True, nn.Tanh()).get_sentence_embedding_dimension(),
    "Dense(own activation)": lambda: models.Dense(32, 8, activation_function=nn.SELU()).get_config_dict(),
    "Normalize()": lambda: type(models.Normalize()).__name__,
    "append": appended,
    "replace pooling": replaced_pooling,
    "pop": popped,
    "own module": own_module,
    "plain folder": plain_folder,
    "modules of a model": lambda m: SentenceTransformer(modules=[m[0], m[1]]).encode(S),
    "children": lambda m: [type(module).__name__ for module in m.children()],
    "SentenceTransformer(Path)": lambda folder: SentenceTransformer(Path(folder)).encode(S),
    "SentenceTransformer(name, None)": lambda folder: SentenceTransformer(folder, None).encode(S),
    "SentenceTransformer(name, None, 'cpu')": lambda folder: SentenceTransformer(folder, None, "cpu").encode(S),
    "SentenceTransformer(trust_remote_code)": lambda folder: SentenceTransformer(
        folder, device="cpu", trust_remote_code=True
    ).encode(S),
    "SentenceTransformer(backend)": lambda folder: SentenceTransformer(folder, backend="torch").get_backend(),
    "SentenceTransformer(backend=onnx)": lambda folder: SentenceTransformer(folder, backend="unknown"),
    "SentenceTransformer(torch_dtype)": lambda folder: SentenceTransformer(
        folder, model_kwargs={"torch_dtype": "float16"}
    ).encode(S),
    "SentenceTransformer(dtype)": lambda folder: str(
        SentenceTransformer(folder, model_kwargs={"dtype": torch.bfloat16}).dtype
    ),
    "SentenceTransformer(attn_implementation)": lambda folder: SentenceTransformer(
        folder, model_kwargs={"attn_implementation": "eager"}
    ).encode(S),
    "SentenceTransformer(tokenizer_kwargs)": lambda folder: (
        SentenceTransformer(folder, tokenizer_kwargs={"model_max_length": 8}).max_seq_length
    ),
    "SentenceTransformer(config_kwargs)": lambda folder: (
        SentenceTransformer(folder, config_kwargs={"hidden_dropout_prob": 0.5})[0].auto_model.config.hidden_dropout_prob
    ),
    "SentenceTransformer()": lambda: SentenceTransformer().encode(S),
    "SentenceTransformer(no such folder)": lambda place: SentenceTransformer(str(place / "none")),
    "SentenceTransformer(similarity_fn_name)": lambda folder: (
        SentenceTransformer(folder, similarity_fn_name=SimilarityFunction.DOT_PRODUCT).similarity_fn_name
    ),
    "SentenceTransformer(default_prompt_name)": lambda folder: SentenceTransformer(
        folder, prompts={"q": "what is "}, default_prompt_name="q"
    ).encode(S),
    "SentenceTransformer(default_prompt_name unknown)": lambda folder: SentenceTransformer(
        folder, prompts={"q": "what is "}, default_prompt_name="z"
    ),
    "SentenceTransformer(truncate_dim)": lambda folder: SentenceTransformer(folder, truncate_dim=8).encode(S),
    "SentenceTransformer(cache_folder)": lambda folder, place: SentenceTransformer(
        folder, cache_folder=str(place), revision=None, local_files_only=True, token=None
    ).encode(S),
    "unknown default prompt": unknown_default_prompt,
    "prompts": lambda m: m.prompts,
    "similarity": lambda m: m.similarity(embeddings1=m.encode(S), embeddings2=m.encode(S)),
    "similarity of lists": lambda m: m.similarity(m.encode(S).tolist(), m.encode(S).tolist()),
    "similarity_pairwise": lambda m: m.similarity_pairwise(m.encode(S), m.encode(S[::-1])),
    "similarity_fn_name": similarity_changed,
    "similarity_fn_name unknown": lambda m: setattr(m, "similarity_fn_name", "x"),
    "cosine with util": lambda m: util.cos_sim(m.encode(S[0]), m.encode(S)),
    "save": saved,
    "save without card": saved_without_card,
    "save with prompts": saved_with_prompts,
    "save by name": saved_by_name,
    "save(safe_serialization)": lambda m, place: m.save_pretrained(str(place / "m"), safe_serialization=True),
    "save(safe_serialization=False)": lambda m, place: (
        m.save(str(place / "m"), safe_serialization=False),
        sorted(one.name for one in (place / "m").iterdir()),
    ),
    "save_to_hub": lambda m: callable(m.save_to_hub) and callable(m.push_to_hub),
    "model_card_data": lambda m: type(m.model_card_data).__name__,
    "truncate_sentence_embeddings": truncated,
    "dropout": dropout_changed,
    "quantize_dynamic": quantized,
    "compile": lambda m: callable(m.compile),
    "gradient_checkpointing_enable": lambda m: m.gradient_checkpointing_enable(),
}
