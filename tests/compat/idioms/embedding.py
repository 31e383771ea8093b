"""Habits of encoding texts, and of the tokenizer and the feature dictionaries below it."""

import copy
import io
import pickle

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, util

S = ["a cat sat on the mat", "the dog ran fast", "the sea is blue and the sky is red"]
P = {"query": "what is ", "passage": "the "}


def fill_a_matrix(m):
    matrix = np.zeros((len(S), m.get_sentence_embedding_dimension()), dtype=np.float32)
    for row, text in enumerate(S):
        matrix[row] = m.encode(text)
    return matrix


def pool_of_processes(m):
    pool = m.start_multi_process_pool(["cpu"])
    try:
        return m.encode_multi_process(S, pool), m.encode(S, pool=pool, chunk_size=2)
    finally:
        m.stop_multi_process_pool(pool)


def forward_without_gradient(m):
    m.eval()
    with torch.no_grad():
        features = util.batch_to_device(m.tokenize(S), m.device)
        return m(features)["sentence_embedding"]


def mean_pooling_by_hand(m):
    features = m.tokenizer(S, padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        tokens = m[0].auto_model(**features).last_hidden_state
    mask = features["attention_mask"].unsqueeze(-1).float()
    return torch.nn.functional.normalize((tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9), dim=1)


def training_step(m):
    m.train()
    embedding = m(m.tokenize(S))["sentence_embedding"]
    (embedding * torch.arange(embedding.shape[1])).sum().backward()
    return embedding, m[0].auto_model.encoder.layer[0].attention.self.query.weight.grad


def without_padding_of_long_texts(m):
    m.max_seq_length = 5
    return m.encode(S), m.tokenize(S)["input_ids"]


def saved_by_torch(m):
    file = io.BytesIO()
    torch.save(m, file)
    file.seek(0)
    return torch.load(file, weights_only=False).encode(S)


def state_of_another(m, folder):
    other = SentenceTransformer(folder)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(m.state_dict())
    return other.encode(S)


def chunks(m):
    return np.concatenate([m.encode(S[start : start + 2]) for start in range(0, len(S), 2)])


def sorted_tokens(m):
    lengths = [len(m.tokenizer.encode(text)) for text in S]
    return lengths, m.tokenizer.encode("a cat"), m.tokenizer.decode(m.tokenizer.encode("a cat"))


def added_tokens(m):
    added = m.tokenizer.add_tokens(["zebra"])
    m[0].auto_model.resize_token_embeddings(len(m.tokenizer))
    shape = m[0].auto_model.get_input_embeddings().weight.shape
    return added, len(m.tokenizer), shape, m.encode(S)


def special_tokens(m):
    m.tokenizer.add_special_tokens({"additional_special_tokens": ["[E1]"]})
    m._first_module().auto_model.resize_token_embeddings(len(m.tokenizer))
    return m.tokenizer.tokenize("[E1] a cat"), m.encode(S)


IDIOMS = {
    "encode(text)": lambda m: m.encode(S[0]),
    "encode(texts)": lambda m: m.encode(S),
    "encode(sentences=)": lambda m: m.encode(sentences=S),
    "encode(S, 32)": lambda m: m.encode(S, 32),
    "encode([])": lambda m: m.encode([]),
    "encode('')": lambda m: m.encode(["", " "]),
    "encode(S, batch_size=1)": lambda m: m.encode(S, batch_size=1),
    "encode(S, show_progress_bar=False, convert_to_tensor=True)": lambda m: m.encode(
        S, show_progress_bar=False, convert_to_tensor=True
    ),
    "encode(text, convert_to_tensor=True)": lambda m: m.encode(S[0], convert_to_tensor=True),
    "encode(S, convert_to_numpy=False)": lambda m: m.encode(S, convert_to_numpy=False),
    "encode(S, convert_to_numpy=True, convert_to_tensor=True)": lambda m: m.encode(
        S, convert_to_numpy=True, convert_to_tensor=True
    ),
    "encode(S, device='cpu')": lambda m: m.encode(S, device="cpu"),
    "encode(S, device=['cpu'])": lambda m: m.encode(S, device=["cpu"]),
    "encode(S, normalize_embeddings=True)": lambda m: m.encode(S, normalize_embeddings=True),
    "encode(array)": lambda m: m.encode(np.array(S)),
    "encode(tuple)": lambda m: m.encode(tuple(S)),
    "encode(column)": lambda m: m.encode(Dataset.from_dict({"text": S})["text"]),
    "encode(np.str_)": lambda m: m.encode([np.str_(text) for text in S]),
    "encode(pairs)": lambda m: m.encode([[S[0], S[1]]]),
    "encode(tuple pair)": lambda m: m.encode([(S[0], S[1])]),
    "encode(generator)": lambda m: m.encode(text for text in S),
    "encode(set)": lambda m: m.encode(set(S)),
    "encode(keys)": lambda m: m.encode(dict.fromkeys(S).keys()),
    "encode([None])": lambda m: m.encode([None]),
    "encode(None)": lambda m: m.encode(None),
    "encode([1, 2])": lambda m: m.encode([1, 2]),
    "encode([nan])": lambda m: m.encode([S[0], float("nan")]),
    "encode([{'text': a}])": lambda m: m.encode([{"text": S[0]}]),
    "encode([{'a': x}])": lambda m: m.encode([{"a": S[0]}]),
    "encode(series.tolist())": lambda m: m.encode(Dataset.from_dict({"text": S}).to_pandas()["text"].tolist()),
    "encode(series)": lambda m: m.encode(Dataset.from_dict({"text": S}).to_pandas()["text"]),
    "encode(S, output_value='token_embeddings')": lambda m: m.encode(S, output_value="token_embeddings"),
    "encode(text, output_value='token_embeddings')": lambda m: m.encode(S[0], output_value="token_embeddings"),
    "encode(S, output_value=None)": lambda m: [sorted(one) for one in m.encode(S, output_value=None)],
    "encode(S, output_value=None)[0]": lambda m: m.encode(S, output_value=None)[0]["sentence_embedding"],
    "encode(S, output_value='x')": lambda m: m.encode(S, output_value="x"),
    "encode(S, precision='int8')": lambda m: m.encode(S * 40, normalize_embeddings=True, precision="int8").shape,
    "encode(S, precision='binary')": lambda m: m.encode(S, precision="binary"),
    "encode(S, precision='ubinary')": lambda m: m.encode(S, precision="ubinary"),
    "encode(S, precision='x')": lambda m: m.encode(S, precision="x"),
    "encode(S, task=)": lambda m: m.encode(S, task="retrieval"),
    "encode(S, tsak=)": lambda m: m.encode(S, tsak="retrieval"),
    "encode(S, prompt=)": lambda m: m.encode(S, prompt="the "),
    "encode(S, prompt_name=)": lambda m, folder: SentenceTransformer(folder, prompts=P).encode(S, prompt_name="query"),
    "encode(S, prompt_name=unknown)": lambda m: m.encode(S, prompt_name="unknown"),
    "encode_query": lambda m, folder: SentenceTransformer(folder, prompts=P).encode_query(S),
    "encode_document by passage": lambda m, folder: SentenceTransformer(folder, prompts=P).encode_document(S),
    "encode_query without prompts": lambda m: m.encode_query(S[0]),
    "encode(S, truncate_dim=8)": lambda m: m.encode(S, truncate_dim=8),
    "fill a matrix": fill_a_matrix,
    "chunks": chunks,
    "pool of processes": pool_of_processes,
    "half": lambda m: m.half().encode(S),
    "bfloat16 tensor": lambda m: m.bfloat16().encode(S, convert_to_tensor=True),
    "double": lambda m: m.double().encode(S),
    "tolist": lambda m: m.encode(S).tolist(),
    "tokenizer(S)": lambda m: dict(m.tokenizer(S, padding=True, truncation=True, return_tensors="pt")),
    "len(tokenizer)": lambda m: (len(m.tokenizer), m.tokenizer.vocab_size, len(m.tokenizer.get_vocab())),
    "tokenizer.encode": sorted_tokens,
    "tokenizer.tokenize": lambda m: m.tokenizer.tokenize("unbelievable cat"),
    "tokenizer.model_max_length": lambda m: m.tokenizer.model_max_length,
    "tokenizer specials": lambda m: (m.tokenizer.cls_token, m.tokenizer.pad_token_id, m.tokenizer.all_special_tokens),
    "tokenizer.convert_ids_to_tokens": lambda m: m.tokenizer.convert_ids_to_tokens(m.tokenize(S)["input_ids"][0]),
    "tokenizer.save_pretrained": lambda m, place: len(m.tokenizer.save_pretrained(str(place / "tokenizer"))) > 0,
    "tokenize(S)": lambda m: {name: value for name, value in m.tokenize(S).items() if name != "modality"},
    "tokenize(S) names": lambda m: sorted(m.tokenize(S)),
    "tokenize(pairs)": lambda m: m.tokenize([(S[0], S[1]), (S[1], S[2])])["token_type_ids"],
    "add_tokens and resize": added_tokens,
    "add_special_tokens and resize": special_tokens,
    "m(m.tokenize(S))": lambda m: m(m.tokenize(S))["sentence_embedding"],
    "m.forward(features)": lambda m: sorted(m.forward(m.tokenize(S))),
    "forward without gradient": forward_without_gradient,
    "mean pooling by hand": mean_pooling_by_hand,
    "m[0](features)": lambda m: m[0](m[0].tokenize(S))["token_embeddings"],
    "m[1](m[0](features))": lambda m: m[1](m[0](m.tokenize(S)))["sentence_embedding"],
    "training step": training_step,
    "max_seq_length": without_padding_of_long_texts,
    "deepcopy": lambda m: copy.deepcopy(m).encode(S),
    "pickle": lambda m: pickle.loads(pickle.dumps(m)).encode(S),
    "torch.save of a model": saved_by_torch,
    "load_state_dict": state_of_another,
}
