// The forward pass of training: a thread takes some texts through all layers.

#pragma once

#include "attention.hpp"
#include "norm.hpp"
#include "trained.hpp"

namespace {

// Memory of one thread in the forward pass, for at most `rows` tokens.
template <class K>
struct ForwardMemory {
    float *hidden, *sums, *panel, *wide;
    typename K::Input *input, *inner;

    ForwardMemory(Pieces& pieces, const TrainedLayers& t, int64_t rows) {
        hidden = pieces.take<float>(rows * t.dim), sums = pieces.take<float>(rows * t.dim);
        panel = pieces.take<float>(scratch_words<K>(larger(t.dim, t.inner)));
        wide = pieces.take<float>(rows * 3 * t.dim);  // queries, keys and values in float32
        input = pieces.take<typename K::Input>(rows * t.dim);
        inner = pieces.take<typename K::Input>(rows * t.inner);
    }
};

// Groups of texts with about as many tokens each, as many for each thread; and tokens of a group, at most.
INLINE int64_t forward_groups(int64_t tokens, int64_t threads) {
    return threads * ((tokens + threads * MOST_ROWS - 1) / (threads * MOST_ROWS));
}

INLINE int64_t forward_rows(int64_t tokens, int64_t threads, int64_t longest) {
    const int64_t groups = forward_groups(tokens, threads);
    return (tokens + groups - 1) / groups + longest;
}

template <class K>
struct Forward {
    typedef typename K::Input Input;
    static constexpr bool HALF = sizeof(Input) == 2;
    const TrainedLayers& t;
    const int32_t* offsets;
    int64_t tokens;
    char* kept;

    // sums = from times the weights plus the bias.
    void multiply_rows(int64_t rows, const Input* from, const Product<K>& product, const Product<K>& next,
                       const ForwardMemory<K>& m) const {
        float* sums = m.sums;
        const int64_t dim = t.dim;
        multiply(rows, from, nullptr, product, 0, product.panels(), m.panel, next.weights(0),
                 [=](int64_t row, int64_t column, vf value) ALWAYS_INLINE { store(sums + row * dim + column, value); });
    }

    // hidden = normalized(dropout(sums) + hidden), for tokens from `start` on.
    void add_norm(int64_t rows, int64_t start, const TrainedNorm& norm, const DropoutOf& dropped, float* xhat,
                  float* rstd, const ForwardMemory<K>& m) const {
        const int64_t dim = t.dim;
        for (int64_t i = 0; i < rows; i++) {
            float *hidden = m.hidden + i * dim, *row = xhat + (start + i) * dim;
            const Dropout drop = row_of(dropped, start + i);
            for (int64_t d = 0; d < dim; d += W) {
                const vf sum = load(m.sums + i * dim + d);
                store(row + d, (dropped.threshold ? drop(sum, d) : sum) + load(hidden + d));
            }
            rstd[start + i] = standardize(row, dim, norm.eps);
            affine(row, norm.weight, norm.bias, dim, hidden);
            if constexpr (HALF)
                for (int64_t d = 0; d < dim; d += W) put(m.input + i * dim + d, load(hidden + d));
        }
    }

    // All layers, for texts `from` to `to`.
    void texts(int64_t from, int64_t to, const float* embedded, float* out, const ForwardMemory<K>& m,
               Buffer& attention) const {
        const int64_t dim = t.dim, start = offsets[from], rows = offsets[to] - start, head = dim / t.heads;
        const float scale = 1.0f / sqrtf((float)head);
        memcpy(m.hidden, embedded + start * dim, (size_t)(rows * dim) * 4);
        if constexpr (HALF)
            for (int64_t i = 0; i < rows * dim; i += W) put(m.input + i, load(m.hidden + i));
        const Input* input = m.input;
        if constexpr (!HALF) input = m.hidden;
        for (int64_t l = 0; l < t.layers; l++) {
            const TrainedLayer& layer = t.layer[l];
            const Kept<K> k = kept_of<K>(kept, t, l, tokens), after = kept_of<K>(kept, t, (l + 1) % t.layers, tokens);
            const Product<K> qkv = {k.linears, 3, dim, dim}, output = {k.linears + 3, 1, dim, dim},
                             up = {k.linears + 4, 1, t.inner, dim}, down = {k.linears + 5, 1, dim, t.inner},
                             next = {after.linears, 3, dim, dim};
            Input *to_qkv = k.qkv + start * 3 * dim, *to_inner = k.inner + start * t.inner;
            float* wide = m.wide;
            Input* inner = m.inner;
            const int64_t width = t.inner;
            multiply(rows, input, nullptr, qkv, 0, qkv.panels(), m.panel, output.weights(0),
                     [=](int64_t row, int64_t column, vf value) ALWAYS_INLINE {
                         put(to_qkv + row * 3 * dim + column, value);
                         if constexpr (HALF) store(wide + row * 3 * dim + column, value);
                     });
            const float* queries = wide;
            if constexpr (!HALF) queries = to_qkv;
            for (int64_t text = from; text < to; text++)
                for (int64_t h = 0; h < t.heads; h++) {
                    const int64_t first = offsets[text], length = offsets[text + 1] - first;
                    const float* q = queries + (first - start) * 3 * dim + h * head;
                    const Rows numbered = {layer.weights.threshold, layer.weights.scale, layer.weights.seed,
                                           k.lse,                   first * t.heads + h, t.heads};
                    attend(q, q + dim, q + 2 * dim, 3 * dim, length, head, scale, k.attended + first * dim + h * head,
                           dim, attention, numbered);
                }
            multiply_rows(rows, k.attended + start * dim, output, up, m);
            add_norm(rows, start, layer.attention_norm, layer.attended, k.attention_xhat, k.attention_rstd, m);
            multiply(rows, input, nullptr, up, 0, up.panels(), m.panel, down.weights(0),
                     Apart{[=](int64_t row, int64_t column, vf value) ALWAYS_INLINE {
                         put(to_inner + row * width + column, value);
                         put(inner + row * width + column, HALF ? gelu_to_round(value) : gelu(value));
                     }});
            multiply_rows(rows, inner, down, next, m);
            add_norm(rows, start, layer.output_norm, layer.fed, k.output_xhat, k.output_rstd, m);
        }
        memcpy(out + start * dim, m.hidden, (size_t)(rows * dim) * 4);
    }

    // The text that begins nearest to a share of the tokens.
    int64_t text_at(int64_t texts, int64_t share, int64_t shares) const {
        int64_t text = 0;
        while (text < texts && (offsets[text] + offsets[text + 1]) * shares < 2 * tokens * share) text++;
        return text;
    }
};

template <class K>
void forward(const TrainedLayers& t, const float* embedded, const int32_t* offsets, int64_t texts, int64_t tokens,
             int64_t threads, char* kept, char* shared, float* out) {
    const Forward<K> pass = {t, offsets, tokens, kept};
    const int64_t groups = forward_groups(tokens, threads), most = longest(offsets, texts);
    const int64_t rows = forward_rows(tokens, threads, most);
#pragma omp parallel num_threads((int)threads)
    {
        if constexpr (sizeof(typename K::Input) == 2) {
#pragma omp for schedule(dynamic, 1)
            for (int64_t i = 0; i < t.layers * 6; i++) {
                const Kept<K> k = kept_of<K>(kept, t, i / 6, tokens);
                const float* weight = Kept<K>::of(t.layer[i / 6], i % 6).weight;
                auto* to = (typename K::Input*)k.linears[i % 6].weight;
                for (int64_t j = 0; j < Kept<K>::size(t, i % 6); j += W) put(to + j, load(weight + j));
            }
        }
        Pieces counted = {nullptr};
        ForwardMemory<K>(counted, t, rows);
        int64_t thread = 0;
#ifdef _OPENMP
        thread = omp_get_thread_num();
#endif
        Pieces pieces = {shared + thread * counted.bytes};
        const ForwardMemory<K> memory(pieces, t, rows);
        Buffer attention(attention_floats(most, t.dim / t.heads));
#pragma omp for schedule(dynamic, 1)
        for (int64_t g = 0; g < groups; g++) {
            const int64_t from = pass.text_at(texts, g, groups), to = pass.text_at(texts, g + 1, groups);
            if (to > from) pass.texts(from, to, embedded, out, memory, attention);
        }
    }
}

}  // namespace
