"""Module paths of sentence-transformers for models that minisbert has not: cross, sparse and multi-vector encoders."""

from __future__ import annotations


def rows(text: str) -> dict[str, tuple[str, ...]]:
    """Read lines of `module: Name Name`, of which a module may have several, into its names by module."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.strip().splitlines():
        stem, names = line.split(":")
        found[stem.strip()] = (*found.get(stem.strip(), ()), *names.split())
    return found


# Packages: the modules in each, and what the package offers itself; without such a list, the names of all its modules.
_PACKAGES = {
    "cross_encoder": (
        rows("""
            data_collator: CrossEncoderDataCollator
            model: CrossEncoder
            model_card: CrossEncoderModelCardData CrossEncoderModelCardCallback
            trainer: CrossEncoderTrainer
            training_args: CrossEncoderTrainingArguments
            util: cross_encoder_init_args_decorator cross_encoder_predict_rank_args_decorator
            fit_mixin: FitMixin FitMixinLoss
        """),
        """CrossEncoder CrossEncoderDataCollator CrossEncoderModelCardData CrossEncoderTrainer
            CrossEncoderTrainingArguments""",
    ),
    "cross_encoder.evaluation": (
        rows("""
            classification: CrossEncoderClassificationEvaluator
            correlation: CrossEncoderCorrelationEvaluator
            nano_beir: CrossEncoderNanoBEIREvaluator
            reranking: CrossEncoderRerankingEvaluator
            deprecated: CEBinaryAccuracyEvaluator CEBinaryClassificationEvaluator CECorrelationEvaluator
            deprecated: CEF1Evaluator CERerankingEvaluator CESoftmaxAccuracyEvaluator
            CEBinaryAccuracyEvaluator: CEBinaryAccuracyEvaluator
            CEBinaryClassificationEvaluator: CEBinaryClassificationEvaluator
            CECorrelationEvaluator: CECorrelationEvaluator
            CEF1Evaluator: CEF1Evaluator
            CERerankingEvaluator: CERerankingEvaluator
            CESoftmaxAccuracyEvaluator: CESoftmaxAccuracyEvaluator
        """),
        "",
    ),
    "cross_encoder.losses": (
        rows("""
            adr_mse: ADRMSELoss
            binary_cross_entropy: BinaryCrossEntropyLoss
            cached_multiple_negatives_ranking: CachedMultipleNegativesRankingLoss
            cross_entropy: CrossEntropyLoss
            lambda_loss: LambdaLoss LambdaRankScheme NDCGLoss1Scheme NDCGLoss2PPScheme NDCGLoss2Scheme
            lambda_loss: NoWeightingScheme
            list_mle: ListMLELoss
            list_net: ListNetLoss
            margin_mse: MarginMSELoss
            mse: MSELoss
            multiple_negatives_ranking: MultipleNegativesRankingLoss
            plist_mle: PListMLELoss PListMLELambdaWeight
            rank_net: RankNetLoss
        """),
        "",
    ),
    "cross_encoder.modules": (
        rows("logit_score: LogitScore"),
        "Asym Dense InputModule LogitScore Module Router Transformer",
    ),
    "multi_vector_encoder": (
        rows("""
            data_collator: MultiVectorEncoderDataCollator
            model: MultiVectorEncoder
            model_card: MultiVectorEncoderModelCardData MultiVectorEncoderModelCardCallback
            trainer: MultiVectorEncoderTrainer
            training_args: MultiVectorEncoderTrainingArguments
            interpretability: get_n_patches maxsim_heatmap maxsim_similarity_map real_query_token_slice
            interpretability: render_similarity_map_on_image
        """),
        """MultiVectorEncoder MultiVectorEncoderDataCollator MultiVectorEncoderModelCardData
            MultiVectorEncoderTrainer MultiVectorEncoderTrainingArguments maxsim maxsim_pairwise""",
    ),
    "multi_vector_encoder.evaluation": (
        rows("""
            distillation: MultiVectorDistillationEvaluator
            information_retrieval: MultiVectorInformationRetrievalEvaluator
            nano_beir: MultiVectorNanoBEIREvaluator
            reranking: MultiVectorRerankingEvaluator
            triplet: MultiVectorTripletEvaluator
        """),
        "",
    ),
    "multi_vector_encoder.losses": (
        rows("""
            cached_multiple_negatives_ranking: CachedMultiVectorMultipleNegativesRankingLoss
            distill_kl_div: MultiVectorDistillKLDivLoss
            margin_mse: MultiVectorMarginMSELoss
            multiple_negatives_ranking: MultiVectorMultipleNegativesRankingLoss
        """),
        "",
    ),
    "multi_vector_encoder.modules": (
        rows("""
            multi_vector_mask: MultiVectorMask
            token_pooling: BaseTokenPooling HierarchicalTokenPooling LambdaTokenPooling
        """),
        "",
    ),
    "multi_vector_encoder.scoring": (
        rows("""
            colbert: colbert_kd_scores colbert_scores mean_colbert_kd_scores mean_colbert_scores
            colbert: colbert_scores_pairwise mean_colbert_scores_pairwise
            xtr: XTRKDScores XTRScores xtr_kd_scores xtr_scores xtr_scores_pairwise
        """),
        "",
    ),
    "sparse_encoder": (
        rows("""
            data_collator: SparseEncoderDataCollator
            model: SparseEncoder
            model_card: SparseEncoderModelCardData SparseEncoderModelCardCallback
            trainer: SparseEncoderTrainer
            training_args: SparseEncoderTrainingArguments
            search_engines: semantic_search_elasticsearch semantic_search_opensearch semantic_search_qdrant
            search_engines: semantic_search_seismic
        """),
        """SparseEncoder SparseEncoderDataCollator SparseEncoderModelCardData SparseEncoderTrainer
            SparseEncoderTrainingArguments""",
    ),
    "sparse_encoder.callbacks": (
        rows("splade_callbacks: SpladeRegularizerWeightSchedulerCallback SchedulerType"),
        "",
    ),
    "sparse_encoder.evaluation": (
        rows("""
            reciprocal_rank_fusion: ReciprocalRankFusionEvaluator
            sparse_binary_classification: SparseBinaryClassificationEvaluator
            sparse_embedding_similarity: SparseEmbeddingSimilarityEvaluator
            sparse_information_retrieval: SparseInformationRetrievalEvaluator
            sparse_mse: SparseMSEEvaluator
            sparse_nano_beir: SparseNanoBEIREvaluator
            sparse_reranking: SparseRerankingEvaluator
            sparse_translation: SparseTranslationEvaluator
            sparse_triplet: SparseTripletEvaluator
        """),
        "",
    ),
    "sparse_encoder.losses": (
        rows("""
            cached_splade: CachedSpladeLoss
            csr: CSRLoss CSRReconstructionLoss
            flops: FlopsLoss
            sparse_angle: SparseAnglELoss
            sparse_cosent: SparseCoSENTLoss
            sparse_cosine_similarity: SparseCosineSimilarityLoss
            sparse_distill_kl_div: SparseDistillKLDivLoss
            sparse_margin_mse: SparseMarginMSELoss
            sparse_mse: SparseMSELoss
            sparse_multiple_negatives_ranking: SparseMultipleNegativesRankingLoss
            sparse_triplet: SparseTripletLoss
            splade: SpladeLoss
        """),
        "",
    ),
    "sparse_encoder.modules": (
        rows("""
            mlm_transformer: MLMTransformer
            sparse_auto_encoder: SparseAutoEncoder
            sparse_static_embedding: SparseStaticEmbedding
            splade_pooling: SpladePooling
        """),
        """Asym Dense InputModule MLMTransformer Module Router SparseAutoEncoder SparseStaticEmbedding SpladePooling
            Transformer""",
    ),
}
# Names in these packages that mean the same as in others; all other names are their own.
SHARED = frozenset({"Asym", "Dense", "InputModule", "Module", "Router", "Transformer", "maxsim", "maxsim_pairwise"})
_OLD_PACKAGES = {"sparse_encoder.modules": "sparse_encoder.models"}

BEYOND: dict[str, tuple[str, ...]] = {
    path: names
    for package, (modules, own) in _PACKAGES.items()
    for path, names in (
        (package, tuple(own.split()) or tuple(dict.fromkeys(name for names in modules.values() for name in names))),
        *((f"{package}.{stem}", names) for stem, names in modules.items()),
    )
}
# Paths up to 5.3, and their names in 6.x.
BEYOND_RENAMED: dict[str, str] = {
    "cross_encoder.CrossEncoder": "cross_encoder.model",
    "sparse_encoder.SparseEncoder": "sparse_encoder.model",
    "sparse_encoder.models": "sparse_encoder.modules",
    **{
        f"{_OLD_PACKAGES.get(package, package)}.{names[0]}": f"{package}.{stem}"
        for package, (modules, _) in _PACKAGES.items()
        if package.endswith((".losses", ".evaluation", ".modules")) and not package.startswith("multi")
        for stem, names in modules.items()
        if stem not in (names[0], "deprecated")
    },
}
