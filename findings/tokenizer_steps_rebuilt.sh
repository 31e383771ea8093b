#!/usr/bin/env bash
# transformers 4.57.6 (tokenizers 0.22.2) and 5.23.0 (tokenizers 0.23.3), Python 3.11. No torch needed.
#
# A BERT folder with config.json and tokenizer.json. BertTokenizer of 5.23.0 takes no more than the vocabulary and the
# added tokens from tokenizer.json and builds every step again: a folder without a post-processor gets [CLS] and [SEP],
# a pre-tokenizer other than BERT's is replaced, and so is the longest word that is split (max_input_chars_per_word).
# 4.57.6 kept all three. Both versions ignore the file's own "lowercase" and use do_lower_case of tokenizer_config.json,
# true if there is none, so that a cased vocabulary is read in lower case. tokenizer.json alone, through the tokenizers
# library, gives what the file says. Naming PreTrainedTokenizerFast in tokenizer_config.json keeps the file's steps.
#
# Output seen (tokens by tokenizer.json alone | 4.57.6 | 5.23.0):
#   no post-processor: hello world | hello world | [CLS] hello world [SEP]
#   split at spaces: [CLS] [UNK] world [SEP] | [CLS] [UNK] world [SEP] | [CLS] hello - world world [SEP]
#   words of 4 characters: [CLS] [UNK] [UNK] [SEP] | [CLS] [UNK] [UNK] [SEP] | [CLS] hello world [SEP]
#   cased: [CLS] Hello World [SEP] | [CLS] hello world [SEP] | [CLS] hello world [SEP]
#   cased, PreTrainedTokenizerFast: [CLS] Hello World [SEP] | [CLS] Hello World [SEP] | [CLS] Hello World [SEP]
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
export HF_HUB_OFFLINE=1 HF_HUB_DISABLE_PROGRESS_BARS=1 TRANSFORMERS_VERBOSITY=error
cat > tokens.py <<'PY'
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "hello", "world", "Hello", "World", "-"]


def build(lowercase: bool = True) -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [("[CLS]", 2), ("[SEP]", 3)]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return tokenizer


def tokens(name: str, tokenizer: Tokenizer, text: str, **config: str) -> tuple[str, list[str]]:
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    alone = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    loaded = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    return name, [" ".join(WORDS[index] for index in ids) for ids in (alone, loaded)]


bare, spaces, short = build(), build(), build()
bare.post_processor = None
spaces.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
short.model.max_input_chars_per_word = 4
rows = [
    tokens("no post-processor", bare, "hello world"),
    tokens("split at spaces", spaces, "hello-world world"),
    tokens("words of 4 characters", short, "hello world"),
    tokens("cased", build(lowercase=False), "Hello World"),
    tokens(
        "cased, PreTrainedTokenizerFast",
        build(lowercase=False),
        "Hello World",
        tokenizer_class="PreTrainedTokenizerFast",
        unk_token="[UNK]",
    ),
]
Path(sys.argv[1]).write_text(json.dumps(dict(rows)))
PY
python3 -m venv old
old/bin/pip install --quiet transformers==4.57.6 tokenizers==0.22.2
old/bin/python tokens.py 4.57.6.json
python3 -m venv new
new/bin/pip install --quiet transformers==5.23.0 tokenizers==0.23.3
new/bin/python tokens.py 5.23.0.json
python3 - <<'PY'
import json
import sys
from pathlib import Path

old, new = (json.loads(Path(f"{version}.json").read_text()) for version in ("4.57.6", "5.23.0"))
plain, cased = "[CLS] hello world [SEP]", "[CLS] Hello World [SEP]"
unknown = "[CLS] [UNK] [UNK] [SEP]"
expected = {
    "no post-processor": ("hello world", "hello world", plain),
    "split at spaces": (*["[CLS] [UNK] world [SEP]"] * 2, "[CLS] hello - world world [SEP]"),
    "words of 4 characters": (unknown, unknown, plain),
    "cased": (cased, plain, plain),
    "cased, PreTrainedTokenizerFast": (cased, cased, cased),
}
seen = {name: (alone, old[name][1], tokens) for name, (alone, tokens) in new.items()}
for name, row in seen.items():
    print(f"{name}: {' | '.join(row)}")
same = seen == expected and all(old[name][0] == new[name][0] for name in new)
sys.exit(None if same else "the behaviour has changed")
PY
