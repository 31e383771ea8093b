"""The tokenizer classes of transformers 5.23: the one that a model folder asks for, and who builds it here.

transformers 5 does not simply load tokenizer.json: it looks up a class, and most classes build the tokenizer again from
the vocabulary and tokenizer_config.json. The tables hold the facts of its `tokenization_auto.py`; model types of
pictures and sounds are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Loads tokenizer.json as it is. Classes that transformers 5.23 does not know are replaced by this one.
GENERIC = "TokenizersBackend"

# Built here, without transformers: class to the model types that have it where no file names a class.
NATIVE: Mapping[str, tuple[str, ...]] = {
    "BertTokenizer": (
        *("bert", "chinese_clip", "convbert", "distilbert", "electra", "ernie", "layoutlm", "lxmert", "megatron-bert"),
        *("mobilebert", "nomic_bert", "squeezebert", "visual_bert"),
    ),
    "DistilBertTokenizer": (),
    "ConvBertTokenizer": (),
    "MPNetTokenizer": ("mpnet",),
    "RobertaTokenizer": (
        *("bart", "data2vec-text", "ibert", "led", "lilt", "longformer", "mra", "mvp", "roberta"),
        "roberta-prelayernorm",
    ),
    "XLMRobertaTokenizer": ("gte", "jina_embeddings_v3", "metaclip_2", "xlm-roberta", "xmod"),
    "CamembertTokenizer": ("camembert",),
    "DebertaV2Tokenizer": ("deberta-v2",),
    "Qwen2Tokenizer": (
        *("colqwen2", "internvl", "qwen2", "qwen2_5_omni", "qwen2_5_vl", "qwen2_moe", "qwen2_vl", "qwen3"),
        *("qwen3_moe", "qwen3_next", "qwen3_vl", "qwen3_vl_moe"),
    ),
    "GemmaTokenizer": (
        *("gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n", "gemma3n_text", "recurrent_gemma", "t5gemma"),
        "zaya",
    ),
    # Any model type that is in no table has this class too; for these it also replaces one that a file names.
    GENERIC: (
        *("bigbird_pegasus", "ernie4_5", "ernie4_5_moe", "flex_olmo", "fuyu"),
        *("glm", "glm4", "glm4_moe", "glm4_moe_lite", "gpt_bigcode", "granite", "granitemoe", "granitemoehybrid"),
        *("granitemoeshared", "hyperclovax", "internlm3", "iquestcoder", "jamba"),
        *("kimi_linear", "kosmos-2", "llava", "llava_next", "mimo_v2_flash", "minicpm3", "minimax_m2"),
        *("ministral", "ministral3", "mistral", "mistral3", "mixtral", "modernbert", "modernbert-decoder"),
        *("nemotron", "nystromformer", "olmo2", "olmo3", "olmo_hybrid", "pegasus_x", "persimmon", "phi3"),
        *("phimoe", "pix2struct", "smolvlm", "stablelm", "umt5", "vipllava", "xlm-roberta-xl"),
    ),
}

# Built by transformers, which is imported for them alone.
FOREIGN: Mapping[str, tuple[str, ...]] = {
    "AlbertTokenizer": ("albert", "yoso"),
    "BarthezTokenizer": (),
    "BartphoTokenizer": (),
    "BertGenerationTokenizer": ("bert-generation",),
    "BertJapaneseTokenizer": (),
    "BertweetTokenizer": (),
    "BigBirdTokenizer": ("big_bird",),
    "BioGptTokenizer": ("biogpt",),
    "BlenderbotSmallTokenizer": ("blenderbot-small",),
    "BlenderbotTokenizer": ("blenderbot",),
    "ByT5Tokenizer": (),
    "CLIPTokenizer": ("aimv2", "clip", "clipseg", "groupvit", "owlv2", "owlvit", "xclip"),
    "CTRLTokenizer": ("ctrl",),
    "CanineTokenizer": ("canine",),
    "CodeGenTokenizer": (),
    "CodeLlamaTokenizer": (),
    "CohereTokenizer": ("cohere", "cohere2"),
    "CpmAntTokenizer": ("cpmant",),
    "CpmTokenizer": (),
    "DPRContextEncoderTokenizer": (),
    "DPRQuestionEncoderTokenizer": ("dpr",),
    "DPRReaderTokenizer": (),
    "DebertaTokenizer": ("deberta",),
    "EsmTokenizer": ("esm",),
    "EsmcTokenizer": ("esmc", "esmfold2"),
    "FNetTokenizer": ("fnet",),
    "FSMTTokenizer": ("fsmt",),
    "FlaubertTokenizer": ("flaubert",),
    "FunnelTokenizer": ("funnel",),
    "GPT2Tokenizer": (
        *("codegen", "dbrx", "gpt2", "gpt_neo", "gptj", "hyperclovax_vision_v2", "jais2", "opt", "phi", "starcoder2"),
    ),
    "GPTNeoXJapaneseTokenizer": ("gpt_neox_japanese",),
    "GPTNeoXTokenizer": ("falcon_mamba", "gpt_neox", "mamba", "mamba2", "mpt", "olmo", "olmoe", "rwkv", "xlstm"),
    "GPTSw3Tokenizer": ("gpt-sw3",),
    "HerbertTokenizer": (),
    "LlamaTokenizer": ("idefics", "idefics2"),
    "LukeTokenizer": ("luke",),
    "M2M100Tokenizer": ("m2m_100",),
    "MBart50Tokenizer": (),
    "MBartTokenizer": ("mbart",),
    "MLukeTokenizer": (),
    "MarianTokenizer": ("marian",),
    "MyT5Tokenizer": (),
    "NllbTokenizer": ("nllb-moe",),
    "OpenAIGPTTokenizer": ("openai-gpt",),
    "PLBartTokenizer": ("plbart",),
    "PegasusTokenizer": ("pegasus",),
    "PerceiverTokenizer": ("perceiver",),
    "PhobertTokenizer": (),
    "ProphetNetTokenizer": ("prophetnet",),
    "Qwen3_5Tokenizer": ("qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen4_exp"),
    "ReformerTokenizer": ("reformer",),
    "RemBertTokenizer": ("rembert",),
    "RoCBertTokenizer": ("roc_bert",),
    "RoFormerTokenizer": ("roformer",),
    "SeamlessM4TTokenizer": ("seamless_m4t", "seamless_m4t_v2"),
    "Siglip2Tokenizer": ("siglip2",),
    "SiglipTokenizer": ("siglip",),
    "SplinterTokenizer": ("splinter",),
    "T5Tokenizer": ("mt5", "switch_transformers", "t5"),
    "XGLMTokenizer": ("xglm",),
    "XLMTokenizer": ("xlm",),
    "XLNetTokenizer": ("xlnet",),
}

# They take something else than texts (sounds, tables, pages with boxes), or make something else of them.
REFUSED: Mapping[str, tuple[str, ...]] = {
    "ClvpTokenizer": ("clvp",),
    "DiaTokenizer": ("dia",),
    "FastSpeech2ConformerTokenizer": ("fastspeech2_conformer",),
    "LasrTokenizer": ("lasr_ctc", "lasr_encoder"),
    "LayoutLMv2Tokenizer": ("layoutlmv2",),
    "LayoutLMv3Tokenizer": ("layoutlmv3",),
    "LayoutXLMTokenizer": ("layoutxlm",),
    "MarkupLMTokenizer": ("markuplm",),
    "MgpstrTokenizer": ("mgp-str",),
    "NougatTokenizer": (),
    "ParakeetTokenizer": ("parakeet_ctc", "parakeet_rnnt", "parakeet_tdt"),
    "Pop2PianoTokenizer": (),
    "RagTokenizer": ("rag",),
    "Speech2TextTokenizer": ("speech_to_text",),
    "SpeechT5Tokenizer": ("speecht5",),
    "TapasTokenizer": ("tapas",),
    "UdopTokenizer": ("udop",),
    "VitsTokenizer": ("vits",),
    "Wav2Vec2CTCTokenizer": ("hubert", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-bert", "wav2vec2-conformer"),
    "Wav2Vec2PhonemeCTCTokenizer": (),
    "WhisperTokenizer": ("whisper",),
}

# Other names of a class.
ALIASES: Mapping[str, str] = {
    "BartTokenizer": "RobertaTokenizer",
    "BloomTokenizer": GENERIC,
    "ElectraTokenizer": "BertTokenizer",
    "LEDTokenizer": "RobertaTokenizer",
    "LayoutLMTokenizer": "BertTokenizer",
    "LongformerTokenizer": "RobertaTokenizer",
    "LxmertTokenizer": "BertTokenizer",
    "MobileBertTokenizer": "BertTokenizer",
    "MvpTokenizer": "RobertaTokenizer",
    "PreTrainedTokenizer": GENERIC,
    "PythonBackend": GENERIC,
    "SqueezeBertTokenizer": "BertTokenizer",
}

_REGISTERED: Mapping[str, str] = {
    model_type: name for table in (NATIVE, FOREIGN, REFUSED) for name, types in table.items() for model_type in types
}
# Models whose folders are known to name a wrong class, if their own is not the generic one.
_WRONGLY_NAMED = {
    *("camembertv2-base", "hyperclovax_vision_v2", "qwen2", "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen4_exp"),
    "siglip2",
}


def tokenizer_class(own: Mapping[str, Any], config: Mapping[str, Any], content: bytes = b"") -> str:
    """Return the class that transformers 5.23 takes for a folder: a key of one of the tables.

    Args:
        own: content of tokenizer_config.json, or {}.
        config: content of config.json.
        content: that of tokenizer.json, if there is one.
    """
    registered = _REGISTERED.get(str(config.get("model_type")))
    named = own.get("tokenizer_class") or config.get("tokenizer_class")
    if not isinstance(named, str):
        return registered or GENERIC
    known = _known(named)
    if registered not in (None, known) and not needs_code(own):
        if registered == GENERIC:
            return GENERIC
        if _WRONGLY_NAMED & {str(config.get("model_type")), str(config.get("model_name"))}:
            return registered
    if known == "LlamaTokenizer" and b'"ByteLevel"' in content and not needs_code(own):
        return GENERIC
    return known or GENERIC


def is_known(own: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Return True if transformers has a class for the folder, so that code in it is not needed."""
    return str(config.get("model_type")) in _REGISTERED or _known(str(own.get("tokenizer_class"))) is not None


def needs_code(own: Mapping[str, Any]) -> bool:
    """Return True if tokenizer_config.json names a class in the folder's own code."""
    mapping = own.get("auto_map")
    return bool(mapping.get("AutoTokenizer") if isinstance(mapping, Mapping) else mapping)


def _known(name: str) -> str | None:
    """Return the key of a class in the tables, or None if transformers 5.23 has no such class."""
    name = name.removesuffix("Fast")
    name = ALIASES.get(name, name)
    return name if any(name in table for table in (NATIVE, FOREIGN, REFUSED)) else None
