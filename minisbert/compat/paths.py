"""Module paths of sentence-transformers 2.x to 6.x, the names in each, and the home of each name in minisbert.

A path is written without its first part: "losses" is `sentence_transformers.losses`, "" the package itself. In a block
of rows, `stem: Name Other` is the module `stem` of a package of 6.x; its first name was the module's own name up to 5.3
(`losses.AnglELoss` became `sentence_transformer.losses.angle`). Names of other kinds of models are in `beyond`.
"""

from __future__ import annotations

from .beyond import BEYOND, BEYOND_RENAMED, SHARED, rows

_UTIL = """LoggingHandler ORIGINAL_TRANSFORMER_MODELS SimilarityFunction _convert_to_batch _convert_to_batch_tensor
    _convert_to_tensor _move_tensors_to_cpu all_gather all_gather_padded all_gather_with_grad append_to_last_row
    batch_to_device cat_padded_token_embeddings check_package_availability check_teacher_targets
    check_version_requirements community_detection compute_count_vector cos_sim disable_datasets_caching
    disable_logging disabled_tqdm dot_score euclidean_sim fullname get_device_name get_rank get_world_size http_get
    import_from_string import_module_class information_retrieval install_logger is_accelerate_available
    is_datasets_available is_dist_initialized is_sentence_transformer_model is_training_available load_dir_path
    load_file_path manhattan_sim maxsim maxsim_pairwise mean_maxsim mean_maxsim_pairwise normalize_embeddings
    pairwise_angle_sim pairwise_cos_sim pairwise_dot_score pairwise_euclidean_sim pairwise_manhattan_sim
    paraphrase_mining paraphrase_mining_embeddings pytorch_cos_sim quantize_embeddings repad_flattened_features
    resolve_ids save_to_hub_args_decorator select_max_active_dims semantic_search similarity_fct_name
    stack_padded_token_embeddings to_scipy_coo truncate_embeddings"""
# Where the objects are: a module of minisbert.compat. A name that is in none of these is a placeholder of `missing`.
_HOMES = {
    "model": "SentenceTransformer SentenceTransformerModelCardData",
    "models": """Dense Dropout InputModule LayerNorm Module Normalize Pooling StaticEmbedding Transformer
        WeightedLayerPooling""",
    "losses": """AdaptiveLayerLoss AnglELoss BatchAllTripletLoss BatchHardSoftMarginTripletLoss BatchHardTripletLoss
        BatchHardTripletLossDistanceFunction BatchSemiHardTripletLoss CachedGISTEmbedLoss
        CachedMultipleNegativesRankingLoss CachedMultipleNegativesSymmetricRankingLoss CoSENTLoss ContrastiveLoss
        ContrastiveTensionDataLoader ContrastiveTensionLoss ContrastiveTensionLossInBatchNegatives
        CosineSimilarityLoss DenoisingAutoEncoderLoss DistillKLDivLoss EmbedDistillLoss GISTEmbedLoss
        GlobalOrthogonalRegularizationLoss MSELoss MarginMSELoss Matryoshka2dLoss MatryoshkaLoss MegaBatchMarginLoss
        MultipleNegativesRankingLoss MultipleNegativesSymmetricRankingLoss OnlineContrastiveLoss SiameseDistanceMetric
        SoftmaxLoss TripletDistanceMetric TripletLoss""",
    "data": """DenoisingAutoEncoderDataset InputExample LabelSentenceReader NLIDataReader NoDuplicatesDataLoader
        PairedFilesReader ParallelSentencesDataset STSBenchmarkDataReader STSDataReader SentenceLabelDataset
        SentencesDataset TripletReader""",
    "samplers": """BatchSamplers DefaultBatchSampler GroupByLabelBatchSampler MultiDatasetBatchSamplers
        MultiDatasetDefaultBatchSampler NoDuplicatesBatchSampler ProportionalBatchSampler RoundRobinBatchSampler
        SetEpochMixin""",
    "collator": "BaseDataCollator SentenceTransformerDataCollator",
    "evaluation": """BaseEvaluator BinaryClassificationEvaluator EmbeddingSimilarityEvaluator
        InformationRetrievalEvaluator LabelAccuracyEvaluator MSEEvaluator MSEEvaluatorFromDataFrame NanoBEIREvaluator
        ParaphraseMiningEvaluator RerankingEvaluator SentenceEvaluator SequentialEvaluator TranslationEvaluator
        TripletEvaluator""",
    "util": f"{_UTIL} deprecated_kwargs get_installed_version",
    "util.indexes": "semantic_search_faiss semantic_search_usearch",
    "mining": "mine_hard_negatives",
    "training.arguments": "BaseTrainingArguments SentenceTransformerTrainingArguments",
    "training.trainer": "SentenceTransformerTrainer",
    "training.fit": "FitMixin",
}
HOMES: dict[str, str] = {name: home for home, names in _HOMES.items() for name in names.split()}

_LOSSES = rows("""
    adaptive_layer: AdaptiveLayerLoss
    angle: AnglELoss
    batch_all_triplet: BatchAllTripletLoss
    batch_hard_soft_margin_triplet: BatchHardSoftMarginTripletLoss
    batch_hard_triplet: BatchHardTripletLoss BatchHardTripletLossDistanceFunction
    batch_semi_hard_triplet: BatchSemiHardTripletLoss
    cached_gist_embed: CachedGISTEmbedLoss
    cached_multiple_negatives_ranking: CachedMultipleNegativesRankingLoss
    cached_multiple_negatives_symmetric_ranking: CachedMultipleNegativesSymmetricRankingLoss
    contrastive: ContrastiveLoss SiameseDistanceMetric
    contrastive_tension: ContrastiveTensionLoss ContrastiveTensionLossInBatchNegatives ContrastiveTensionDataLoader
    cosent: CoSENTLoss
    cosine_similarity: CosineSimilarityLoss
    denoising_auto_encoder: DenoisingAutoEncoderLoss
    distill_kl_div: DistillKLDivLoss
    embed_distill: EmbedDistillLoss
    gist_embed: GISTEmbedLoss
    global_orthogonal_regularization: GlobalOrthogonalRegularizationLoss
    margin_mse: MarginMSELoss
    matryoshka: MatryoshkaLoss
    matryoshka_2d: Matryoshka2dLoss
    mega_batch_margin: MegaBatchMarginLoss
    mse: MSELoss
    multiple_negatives_ranking: MultipleNegativesRankingLoss
    multiple_negatives_symmetric_ranking: MultipleNegativesSymmetricRankingLoss
    online_contrastive: OnlineContrastiveLoss
    softmax: SoftmaxLoss
    triplet: TripletLoss TripletDistanceMetric
""")
_EVALUATION = rows("""
    binary_classification: BinaryClassificationEvaluator
    embedding_similarity: EmbeddingSimilarityEvaluator
    information_retrieval: InformationRetrievalEvaluator
    label_accuracy: LabelAccuracyEvaluator
    mse: MSEEvaluator
    mse_from_dataframe: MSEEvaluatorFromDataFrame
    nano_beir: NanoBEIREvaluator
    paraphrase_mining: ParaphraseMiningEvaluator
    reranking: RerankingEvaluator
    translation: TranslationEvaluator
    triplet: TripletEvaluator
""")
_DATASETS = rows("""
    denoising_auto_encoder: DenoisingAutoEncoderDataset
    no_duplicates_dataloader: NoDuplicatesDataLoader
    parallel_sentences: ParallelSentencesDataset
    sentence_label: SentenceLabelDataset
    sentences: SentencesDataset
""")
_READERS = rows("""
    input_example: InputExample
    label_sentence: LabelSentenceReader
    nli_data: NLIDataReader
    paired_files: PairedFilesReader
    sts_data: STSDataReader STSBenchmarkDataReader
    triplet: TripletReader
""")
_MODULES = rows("""
    bow: BoW
    clip_model: CLIPModel
    cnn: CNN
    dropout: Dropout
    layer_norm: LayerNorm
    lstm: LSTM
    pooling: Pooling
    static_embedding: StaticEmbedding
    weighted_layer_pooling: WeightedLayerPooling
    word_embeddings: WordEmbeddings
    word_weights: WordWeights
""")
_BASE_MODULES = rows("""
    dense: Dense
    input_module: InputModule
    module: Module
    normalize: Normalize
    router: Router Asym
    transformer: Transformer
""")
_TOKENIZER = rows("""
    phrase: PhraseTokenizer
    whitespace: WhitespaceTokenizer
    word: WordTokenizer TransformersTokenizerWrapper ENGLISH_STOP_WORDS
""")
_BASE_EVALUATION = rows("""
    evaluator: SentenceEvaluator BaseEvaluator
    sequential: SequentialEvaluator
""")
# Packages of 6.x: their rows, the package that older code imports them from, and names that only the package offers.
_PACKAGES = {
    "sentence_transformer.losses": (_LOSSES, "losses", ""),
    "sentence_transformer.evaluation": (
        _EVALUATION,
        "evaluation",
        "BaseEvaluator SentenceEvaluator SequentialEvaluator SimilarityFunction",
    ),
    "sentence_transformer.datasets": (_DATASETS, "datasets", ""),
    "sentence_transformer.readers": (_READERS, "readers", ""),
    "sentence_transformer.modules": (
        _MODULES,
        "models",
        "Asym Dense InputModule Module Normalize Router Transformer",
    ),
    "sentence_transformer.modules.tokenizer": (_TOKENIZER, "models.tokenizer", ""),
    "base.modules": (_BASE_MODULES, "models", ""),
    "base.evaluation": (_BASE_EVALUATION, "evaluation", ""),
}
_SIMILARITIES = """SimilarityFunction cos_sim dot_score euclidean_sim manhattan_sim pairwise_cos_sim pairwise_dot_score
    pairwise_euclidean_sim pairwise_manhattan_sim"""
_SAMPLERS = """DefaultBatchSampler GroupByLabelBatchSampler MultiDatasetDefaultBatchSampler NoDuplicatesBatchSampler
    ProportionalBatchSampler RoundRobinBatchSampler"""
_EXPORTS = """export_dynamic_quantized_onnx_model export_optimized_onnx_model
    export_static_quantized_openvino_model"""
_CARD = """format_log generate_model_card get_losses get_versions"""
_OTHER_MODELS = [
    f"{kind}{part}"
    for kind in ("CrossEncoder", "SparseEncoder", "MultiVectorEncoder")
    for part in ("", "Trainer", "TrainingArguments", "ModelCardData")
]

_ALONE = {
    "": f"""DefaultBatchSampler InputExample LoggingHandler MultiDatasetDefaultBatchSampler ParallelSentencesDataset
        SentenceTransformer SentenceTransformerModelCardData SentenceTransformerTrainer
        SentenceTransformerTrainingArguments SentencesDataset SimilarityFunction mine_hard_negatives
        quantize_embeddings resolve_ids {_EXPORTS} {" ".join(_OTHER_MODELS)}""",
    "backend": f"""{_EXPORTS} _save_pretrained_wrapper backend_should_export backend_warn_to_save load_onnx_model
        load_openvino_model save_or_push_to_hub_model""",
    "backend.load": "load_onnx_model load_openvino_model",
    "backend.optimize": "export_optimized_onnx_model",
    "backend.quantize": "export_dynamic_quantized_onnx_model export_static_quantized_openvino_model",
    "backend.utils": """_save_pretrained_wrapper backend_should_export backend_warn_to_save
        save_or_push_to_hub_model""",
    "base": f"""BaseDataCollator BaseModel BaseTrainer BaseTrainingArguments BatchSamplers MultiDatasetBatchSamplers
        PeftAdapterMixin {_SAMPLERS}""",
    "base.data_collator": "BaseDataCollator",
    "base.losses": "CachedLossMixin RandContext column_merging_disabled has_static_embedding_input uses_gradient_cache",
    "base.losses.gradcache": "CachedLossMixin RandContext has_static_embedding_input uses_gradient_cache",
    "base.losses.merged_forward": """chunked_padded_forward column_merging_disabled embed_columns embed_columns_padded
        merge_feature_batches""",
    "base.merging": "merge_models",
    "base.modality": """InputFormatter format_modality infer_batch_modality infer_modality is_audio_url_or_path
        is_image_url_or_path is_message_dict is_video_url_or_path raise_unsupported_modality_error""",
    "base.modality_types": """AudioDict AudioInput ImageInput MessageDict MessageFormat MessageInput Modality
        MultimodalInput PairInput PairableInput ProcessorArgName SingleInput TextInput VideoDict VideoInput""",
    "base.model": "BaseModel",
    "base.model_card": f"BaseModelCardCallback BaseModelCardData format_duration {_CARD}",
    "base.peft_mixin": "PeftAdapterMixin peft_wrapper",
    "base.sampler": f"BatchSamplers MultiDatasetBatchSamplers SetEpochMixin {_SAMPLERS}",
    "base.trainer": "BaseTrainer TrackioCallback",
    "base.training_args": "BaseTrainingArguments BatchSamplers MultiDatasetBatchSamplers",
    "sentence_transformer": """SentenceTransformer SentenceTransformerDataCollator SentenceTransformerModelCardData
        SentenceTransformerTrainer SentenceTransformerTrainingArguments""",
    "sentence_transformer.data_collator": "SentenceTransformerDataCollator",
    "sentence_transformer.deprecated_model_card_templates": "ModelCardTemplate",
    "sentence_transformer.fit_mixin": "EvaluatorCallback FitMixin OriginalCallback SaveModelCallback",
    "sentence_transformer.model": "SentenceTransformer",
    "sentence_transformer.model_card": f"""ModelCardCallback SentenceTransformerModelCardCallback
        SentenceTransformerModelCardData {_CARD}""",
    "sentence_transformer.trainer": "SentenceTransformerTrainer",
    "sentence_transformer.training_args": """BatchSamplers MultiDatasetBatchSamplers
        SentenceTransformerTrainingArguments""",
    "similarity_functions": _SIMILARITIES,
    "util": f"{_UTIL} mine_hard_negatives",
    "util.dataset": "resolve_ids",
    "util.decorators": """cross_encoder_init_args_decorator cross_encoder_predict_rank_args_decorator deprecated_kwargs
        save_to_hub_args_decorator transformer_kwargs_decorator""",
    "util.deprecated_import": "setup_deprecated_module_imports",
    "util.distributed": """all_gather all_gather_padded all_gather_with_grad distributed_evaluation get_rank
        get_world_size""",
    "util.environment": """check_package_availability check_version_requirements get_device_name get_installed_version
        is_accelerate_available is_datasets_available is_dist_initialized is_training_available
        suggest_extra_on_exception""",
    "util.file_io": """IncompleteSnapshotError RevisionResolutionError disabled_tqdm http_get
        is_sentence_transformer_model load_dir_path load_file_path""",
    "util.hard_negatives": "mine_hard_negatives",
    "util.logging": "LoggingHandler install_logger",
    "util.misc": """ORIGINAL_TRANSFORMER_MODELS append_to_last_row check_teacher_targets disable_datasets_caching
        disable_logging fullname import_from_string import_module_class similarity_fct_name""",
    "util.quantization": "quantize_embeddings semantic_search_faiss semantic_search_usearch",
    "util.retrieval": """community_detection information_retrieval paraphrase_mining paraphrase_mining_embeddings
        semantic_search""",
    "util.similarity": f"""{_SIMILARITIES} maxsim maxsim_pairwise mean_maxsim mean_maxsim_pairwise pairwise_angle_sim
        pytorch_cos_sim""",
    "util.tensor": """_convert_to_batch _convert_to_batch_tensor _convert_to_tensor _move_tensors_to_cpu
        batch_to_device cat_padded_token_embeddings compute_count_vector normalize_embeddings repad_flattened_features
        select_max_active_dims stack_padded_token_embeddings to_scipy_coo truncate_embeddings""",
}
_RENAMED = {
    "LoggingHandler": "util.logging",
    "SentenceTransformer": "sentence_transformer.model",
    "data_collator": "sentence_transformer.data_collator",
    "evaluation.SimilarityFunction": "util.similarity",
    "fit_mixin": "sentence_transformer.fit_mixin",
    "model_card": "sentence_transformer.model_card",
    "model_card_templates": "sentence_transformer.deprecated_model_card_templates",
    "models.Asym": "base.modules.router",
    "peft_mixin": "base.peft_mixin",
    "quantization": "util.quantization",
    "sampler": "base.sampler",
    "sentence_transformer.modules.normalize": "base.modules.normalize",
    "similarity_functions": "util.similarity",
    "trainer": "sentence_transformer.trainer",
    "training_args": "sentence_transformer.training_args",
    **BEYOND_RENAMED,
}
# Names that a module has only because it imports them itself; code imports them from there all the same.
_ALSO = {
    "modules": "InputModule Module",
    "losses": f"RandContext SentenceTransformer InputExample Transformer batch_to_device fullname util {_SIMILARITIES}",
    "evaluation": f"""DatasetNameType SentenceTransformer SentenceEvaluator BaseEvaluator
        InformationRetrievalEvaluator InputExample batch_to_device is_datasets_available paraphrase_mining
        pytorch_cos_sim {_SIMILARITIES}""",
    "datasets": "SentenceTransformer InputExample",
    "readers": "InputExample",
    "model": f"""BaseModel Module Normalize Pooling Router SentenceEvaluator SentenceTransformerModelCardData FitMixin
        PeftAdapterMixin Transformer batch_to_device fullname generate_model_card get_device_name import_from_string
        is_sentence_transformer_model load_dir_path load_file_path quantize_embeddings save_to_hub_args_decorator
        truncate_embeddings {_SIMILARITIES}""",
    "trainer": f"""BaseEvaluator BatchSamplers CoSENTLoss MultiDatasetBatchSamplers SentenceEvaluator
        SentenceTransformer SentenceTransformerDataCollator SentenceTransformerModelCardCallback
        SentenceTransformerTrainingArguments SequentialEvaluator {_SAMPLERS}""",
    "training_args": "BatchSamplers DefaultBatchSampler MultiDatasetBatchSamplers MultiDatasetDefaultBatchSampler",
    "fit_mixin": """BatchSamplers MultiDatasetBatchSamplers NoDuplicatesDataLoader SentenceEvaluator
        SentenceLabelDataset SentenceTransformerTrainingArguments batch_to_device fullname""",
}

_LISTED = {path: tuple(names.split()) for path, names in _ALONE.items()} | BEYOND
for _package, (_rows, _old, _extra) in _PACKAGES.items():
    _LISTED[_package] = (*(name for names in _rows.values() for name in names), *_extra.split())
    _RENAMED.setdefault(_old, _package)
    for _stem, _names in _rows.items():
        _LISTED[f"{_package}.{_stem}"] = _names
        _RENAMED.setdefault(f"{_old}.{_names[0]}", f"{_package}.{_stem}")

# The names that each module offers, without those that it imports itself.
NAMES: dict[str, tuple[str, ...]] = _LISTED | {old: _LISTED[new] for old, new in _RENAMED.items()}


def also(path: str) -> tuple[str, ...]:
    """Return the names that a module imports itself, and that can therefore be imported from it."""
    parts = _RENAMED.get(path, path).split(".")
    if parts[0] in ("sentence_transformer", "base") and len(parts) > 1:
        kind = parts[1] if len(parts) > 2 else parts[-1]
        return tuple(_ALSO.get(kind, "").split())
    return ()


def home(path: str, name: str) -> str | None:
    """Return the module of minisbert.compat that has a name of a module, or None if minisbert has no such thing."""
    return HOMES.get(name) if _kind(path, name) == "" else None


def origin(path: str, name: str) -> str:
    """Return the one module that stands for all those that offer the same name."""
    kind = _kind(path, name)
    listed = [one for one, names in _LISTED.items() if one and name in names and _kind(one, name) == kind]
    return next((one for one in listed if kind or one not in BEYOND), path)


def _kind(path: str, name: str) -> str:
    """Return the package of models of another kind that a name belongs to, or "" for dense models."""
    if path == "":
        return next((package for package in BEYOND if name in BEYOND[package]), "") if name in _OTHER_MODELS else ""
    path = _RENAMED.get(path, path)
    return path.partition(".")[0] if path in BEYOND and name not in SHARED else ""
