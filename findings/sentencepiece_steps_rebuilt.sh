#!/usr/bin/env bash
# transformers 4.57.6 (tokenizers 0.22.2) and 5.23.0 (tokenizers 0.23.3), Python 3.11. No torch needed.
#
# A folder with a Unigram tokenizer.json whose pre-tokenizer is Metaspace alone, as the newer conversion from
# sentencepiece writes it. For XLM-RoBERTa and CamemBERT, 4.57.6 loads it as it is. 5.23.0 builds the steps again: it
# splits at white space first, so that two spaces are no longer a token, pieces across words are never found
# (split=false), and a normalizer other than sentencepiece's table, here lower case, is lost.
# Worse with "tokenizer_class": "RobertaTokenizer", which 4.57.6 loads as well: 5.23.0 builds a byte-level BPE without
# merges from the Unigram vocabulary. Of the two words "hello world" one letter remains, without an error, a warning or
# an unknown token.
#
# Output seen (4.57.6 | 5.23.0; a space is written as _):
#   two spaces: <s> _hello _ _world </s> | <s> _hello _world </s>
#   pieces across words: <s> _hello_world </s> | <s> _hello _world </s>
#   lower case: <s> _hello _world </s> | <s> _ <unk> _ <unk> </s>
#   CamemBERT, two spaces: <s> _hello _ _world </s> | <s> _hello _world </s>
#   RobertaTokenizer: <s> _hello _world </s> | <s> h </s>
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

PIECES = ["<s>", "<pad>", "</s>", "<unk>", "▁hello", "▁world", "▁", "h", "▁hello▁world", "<mask>"]
SCORES = [0.0, 0.0, 0.0, 0.0, -1.0, -1.0, -2.0, -5.0, -1.2, 0.0]


def tokens(name: str, text: str, *, split: bool = True, lower: bool = False, **config: str) -> tuple[str, str]:
    tokenizer = Tokenizer(models.Unigram(list(zip(PIECES, SCORES, strict=True)), unk_id=3))
    tokenizer.normalizer = normalizers.Lowercase() if lower else None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    ends = [("<s>", 0), ("</s>", 2)]
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    model_type = config.pop("model_type", "xlm-roberta")
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    return name, " ".join(PIECES[index] for index in ids).replace("▁", "_")


rows = [
    tokens("two spaces", "hello  world"),
    tokens("pieces across words", "hello world", split=False),
    tokens("lower case", "HELLO WORLD", lower=True),
    tokens("CamemBERT, two spaces", "hello  world", model_type="camembert"),
    tokens("RobertaTokenizer", "hello world", tokenizer_class="RobertaTokenizer"),
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
for name in old:
    print(f"{name}: {old[name]} | {new[name]}")
both, spaces = "<s> _hello _world </s>", "<s> _hello _ _world </s>"
same = list(old.values()) == [spaces, "<s> _hello_world </s>", both, spaces, both]
same &= list(new.values()) == [both, both, "<s> _ <unk> _ <unk> </s>", both, "<s> h </s>"]
sys.exit(None if same else "the behaviour has changed")
PY
