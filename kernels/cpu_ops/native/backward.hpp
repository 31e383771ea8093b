// The backward pass of training: all threads share each stage of a layer, a part of the tokens at a time.

#pragma once

#include "attention.hpp"
#include "norm.hpp"
#include "trained.hpp"

namespace {

// Memory that all threads share in the backward pass, besides gradients.
template <class K>
struct BackwardMemory {
    typedef typename K::Input Input;
    float *d_attended, *output_sums, *attention_sums;
    Input *d_qkv, *d_add, *d_inner;
    Strips<K> x_down, y_down, x_up, y_up, x_output, y_output, x_qkv, y_qkv;

    // `some`: tokens of a stage.
    BackwardMemory(Pieces& pieces, const TrainedLayers& t, int64_t tokens, int64_t some) {
        const int64_t dim = t.dim, inner = t.inner, rows = (tokens + K::GROUP - 1) / K::GROUP * K::GROUP;
        const auto strips = [&](int64_t columns) {
            return Strips<K>{pieces.take<int32_t>(Strips<K>::floats(some, columns)), columns};
        };
        d_attended = pieces.take<float>(tokens * dim);
        d_qkv = pieces.take<Input>(rows * 3 * dim);
        output_sums = pieces.take<float>(some / PART * 2 * dim), attention_sums = pieces.take<float>(some / PART * 2 * dim);
        d_add = pieces.take<Input>(some * dim), d_inner = pieces.take<Input>(some * inner);
        // The projections of attention come later than the feed-forward layers, so that both use the same memory.
        const int64_t start = pieces.bytes;
        x_down = strips(inner), y_down = strips(dim), x_up = strips(dim), y_up = strips(inner);
        x_output = strips(dim), y_output = strips(dim);
        const int64_t most = pieces.bytes;
        pieces.bytes = start;
        x_qkv = strips(dim), y_qkv = strips(3 * dim);
        pieces.bytes = larger(pieces.bytes, most);
    }
};

// Tokens of a stage: enough for all threads, and few enough for what they share to stay in a cache.
INLINE int64_t tokens_of_a_stage(int64_t tokens, int64_t threads) {
    return smaller((tokens + SPAN - 1) / SPAN, larger(4, threads)) * SPAN;
}

template <class K>
struct Backward {
    typedef typename K::Input Input;
    static constexpr int G = K::GROUP;
    const TrainedLayers& t;
    const float* embedded;
    const int32_t* offsets;
    int64_t texts, tokens, threads, some;
    char* kept;
    const BackwardMemory<K>& m;
    float* d_hidden;  // the gradient of the residual stream, from the result down to the embeddings

    // Memory of one thread.
    struct Thread {
        Buffer panel, attention;
        Thread(const TrainedLayers& t, int64_t longest)
            : panel(PANEL * W * larger(3 * t.dim, t.inner)),
              attention(attention_backward_floats(longest, t.dim / t.heads)) {}
        int32_t* packed() const { return (int32_t*)panel.data; }
    };

    // GROUP rows from `token` on, of those before `end`: value(row, d) to rows and to words of strips.
    template <class F>
    INLINED void store_group(int64_t token, int64_t end, int64_t width, Input* rows, const Strips<K>& strips,
                             int64_t start, const F& value) const {
        for (int64_t d = 0; d < width; d += W) {
            Group<K> group;
            repeat<G>([&](auto g) ALWAYS_INLINE { group.value[g] = token + g < end ? value(token + g, d) : vf{}; });
            if (rows) group.store_rows(rows + (token - start) * width + d, width);
            group.store_words(strips.at(token - start, d));
        }
    }

    // The backward pass of dropout(x) + residual and its normalization for a part of the tokens from `start` on; what
    // is added to d_weight and d_bias to `sums`, of each part.
    void add_norm(int64_t part, int64_t start, int64_t end, const TrainedNorm& norm, const DropoutOf& dropped,
                  const float* xhat, const float* rstd, float* sums, const Strips<K>& strips) const {
        const int64_t dim = t.dim, from = start + part * PART, to = smaller(from + PART, end);
        float *weights = sums + part * 2 * dim, *biases = weights + dim;
        memset(weights, 0, (size_t)dim * 8);
        for (int64_t token = from; token < to; token += G) {
            for (int64_t i = token; i < smaller(token + G, to); i++) {
                float* grad = d_hidden + i * dim;
                norm_backward(grad, xhat + i * dim, rstd[i], norm.weight, dim, weights, biases,
                              [=](int64_t d, vf sum) ALWAYS_INLINE { store(grad + d, sum); });
            }
            Dropout drops[G];
            repeat<G>([&](auto g) ALWAYS_INLINE { drops[g] = row_of(dropped, token + g); });
            store_group(token, to, dim, m.d_add, strips, start, [&](int64_t i, int64_t d) ALWAYS_INLINE {
                const vf x = load(d_hidden + i * dim + d);
                return dropped.threshold ? drops[i - token](x, d) : x;
            });
        }
    }

    // GROUP rows of what a normalization gave, to strips.
    INLINED void normalized_to_strips(int64_t token, int64_t end, int64_t start, const TrainedNorm& norm,
                                      const float* xhat, const Strips<K>& strips) const {
        store_group(token, end, t.dim, nullptr, strips, start, [&](int64_t i, int64_t d) ALWAYS_INLINE {
            return load(xhat + i * t.dim + d) * load(norm.weight + d) + load(norm.bias + d);
        });
    }

    // Adds a product to the gradient of the residual stream, for the tokens `start` to `end`.
    INLINED auto adding(int64_t start, int64_t end) const {
        float* to = d_hidden + start * t.dim;
        const int64_t dim = t.dim, rows = end - start;
        return [=](int64_t row, int64_t column, const auto& sum) ALWAYS_INLINE {
            each_value(row, rows, sum, [&](int64_t i, int64_t c, vf value) ALWAYS_INLINE {
                float* at = to + i * dim + column + c;
                store(at, load(at) + value);
            });
        };
    }

    // Calls use(row, column within the tile, value) for the rows of a tile that are there.
    template <int R, int C, class F>
    INLINE void each_value(int64_t row, int64_t rows, const vf (&sum)[R][C], const F& use) {
        repeat<R>([&](auto r) ALWAYS_INLINE {
            if (row + r < rows) repeat<C>([&](auto c) ALWAYS_INLINE { use(row + r, c * W, sum[r][c]); });
        });
    }

    // From the output of a layer to that of its attention, for the tokens `start` to `end`.
    void feed_forward(const TrainedLayer& layer, const Kept<K>& k, int64_t start, int64_t end, Thread& thread) const {
        const int64_t dim = t.dim, inner = t.inner, count = end - start, rows = (count + G - 1) / G * G;
        const int64_t parts = (count + PART - 1) / PART;
#pragma omp for schedule(static)
        for (int64_t p = 0; p < parts; p++)
            add_norm(p, start, end, layer.output_norm, layer.fed, k.output_xhat, k.output_rstd, m.output_sums, m.y_down);
        const Input* before = k.inner + start * inner;
        const InputGradient<K> down = {k.linears + 5, 1, dim, inner}, up = {k.linears + 4, 1, inner, dim},
                               output = {k.linears + 3, 1, dim, dim};
        const BackwardMemory<K>& memory = m;
        down.share(rows, m.d_add, threads, thread.packed(),
                   [=, &memory](int64_t row, int64_t column, const auto& sum) ALWAYS_INLINE {
                       activation(row, column, sum, before, inner, memory);
                   });
#pragma omp barrier
        up.share(rows, m.d_inner, threads, thread.packed(), adding(start, end));
#pragma omp barrier
#pragma omp for schedule(static)
        for (int64_t p = 0; p < parts; p++) {
            add_norm(p, start, end, layer.attention_norm, layer.attended, k.attention_xhat, k.attention_rstd,
                     m.attention_sums, m.y_output);
            const int64_t from = start + p * PART, to = smaller(from + PART, end);
            for (int64_t token = from; token < to; token += G) {
                normalized_to_strips(token, to, start, layer.attention_norm, k.attention_xhat, m.x_up);
                store_group(token, to, dim, nullptr, m.x_output, start,
                            [&](int64_t i, int64_t d) ALWAYS_INLINE { return load(k.attended + i * dim + d); });
            }
        }
        float* d_attended = m.d_attended + start * dim;
        output.share(rows, m.d_add, threads, thread.packed(),
                     [=](int64_t row, int64_t column, const auto& sum) ALWAYS_INLINE {
                         each_value(row, count, sum, [&](int64_t i, int64_t c, vf value) ALWAYS_INLINE {
                             store(d_attended + i * dim + column + c, value);
                         });
                     });
        const auto gradient = [&](const TrainedLinear& linear, const Strips<K>& y, const Strips<K>& x) {
            return WeightGradient<K>{y, x, 0, y.columns, linear.d_weight, linear.d_bias};
        };
        const WeightGradient<K> gradients[] = {gradient(layer.down, m.y_down, m.x_down),
                                               gradient(layer.up, m.y_up, m.x_up),
                                               gradient(layer.output, m.y_output, m.x_output)};
        share(gradients, count, start > 0);
        sum_norm(layer.output_norm, m.output_sums, parts, start > 0);
        sum_norm(layer.attention_norm, m.attention_sums, parts, start > 0);
#pragma omp barrier
    }

    // The gradient of GELU for a tile, and its value again: to rows and to strips. The function is apart from the loop
    // of the product for the reason that Apart names.
    template <int R, int C>
    __attribute__((noinline)) static void activation(const float* sums, int64_t row, int64_t column,
                                                     const Input* before, int64_t inner, const BackwardMemory<K>& m) {
#pragma GCC unroll 1
        for (int64_t r = 0; r < R; r += G)
            repeat<C>([&](auto c) ALWAYS_INLINE {
                const int64_t first = row + r, d = column + c * W;
                Group<K> value, gradient;
                repeat<G>([&](auto g) ALWAYS_INLINE {
                    const vf x = load(before + (first + g) * inner + d);
                    vf below, density;
                    if constexpr (G == 1)
                        normal(x, below, density);
                    else
                        normal_to_round(x, below, density);
                    value.value[g] = x * below;
                    gradient.value[g] = load(sums + ((r + g) * C + c) * W) *
                                        (abs(x) > 20.0f ? below : below + x * density);
                });
                value.store_words(m.x_down.at(first, d));
                gradient.store_words(m.y_up.at(first, d));
                gradient.store_rows(m.d_inner + first * inner + d, inner);
            });
    }

    template <int R, int C>
    INLINE void activation(int64_t row, int64_t column, const vf (&sum)[R][C], const Input* before, int64_t inner,
                           const BackwardMemory<K>& m) {
        alignas(64) float sums[R * C * W];
        store_sums(sum, sums);
        activation<R, C>(sums, row, column, before, inner, m);
    }

    // From the gradients of queries, keys and values to the input of a layer, for the tokens `start` to `end`.
    void projections(int64_t l, const Kept<K>& k, int64_t start, int64_t end, Thread& thread) const {
        const int64_t dim = t.dim, count = end - start, rows = (count + G - 1) / G * G, parts = (count + PART - 1) / PART;
        const TrainedLayer& layer = t.layer[l];
#pragma omp for schedule(static)
        for (int64_t p = 0; p < parts; p++) {
            const int64_t from = start + p * PART, to = smaller(from + PART, end);
            for (int64_t token = from; token < to; token += G) {
                store_group(token, to, 3 * dim, nullptr, m.y_qkv, start,
                            [&](int64_t i, int64_t d) ALWAYS_INLINE { return load(m.d_qkv + i * 3 * dim + d); });
                if (l > 0)
                    normalized_to_strips(token, to, start, t.layer[l - 1].output_norm,
                                         kept_of<K>(kept, t, l - 1, tokens).output_xhat, m.x_qkv);
                else
                    store_group(token, to, dim, nullptr, m.x_qkv, start,
                                [&](int64_t i, int64_t d) ALWAYS_INLINE { return load(embedded + i * dim + d); });
            }
        }
        const InputGradient<K> qkv = {k.linears, 3, dim, dim};
        qkv.share(rows, m.d_qkv + start * 3 * dim, threads, thread.packed(), adding(start, end));
        WeightGradient<K> gradients[3];
        for (int64_t i = 0; i < 3; i++)
            gradients[i] = {m.y_qkv, m.x_qkv, i * dim, dim, layer.qkv[i].d_weight, layer.qkv[i].d_bias};
        share(gradients, count, start > 0);
#pragma omp barrier
    }

    // The gradients of queries, keys and values of all tokens.
    void attention(const TrainedLayer& layer, const Kept<K>& k, Thread& thread) const {
        const int64_t dim = t.dim, head = dim / t.heads;
        const float scale = 1.0f / sqrtf((float)head);
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < texts * t.heads; i++) {
            // The longest texts, which are the last, come first, so that threads end together.
            const int64_t text = texts - 1 - i / t.heads, h = i % t.heads;
            const int64_t start = offsets[text], length = offsets[text + 1] - start;
            if (!length) continue;
            const Input* q = k.qkv + start * 3 * dim + h * head;
            Input* d_q = m.d_qkv + start * 3 * dim + h * head;
            const Rows numbered = {layer.weights.threshold, layer.weights.scale, layer.weights.seed,
                                   k.lse,                   start * t.heads + h, t.heads};
            attend_backward(q, q + dim, q + 2 * dim, 3 * dim, length, head, scale, k.attended + start * dim + h * head,
                            m.d_attended + start * dim + h * head, dim, d_q, d_q + dim, d_q + 2 * dim, thread.attention,
                            numbered);
        }
    }

    // Adds the sums of parts to the gradients of a normalization.
    void sum_norm(const TrainedNorm& norm, const float* sums, int64_t parts, bool add) const {
        const int64_t dim = t.dim;
#pragma omp for schedule(static) nowait
        for (int64_t d = 0; d < 2 * dim; d += W) {
            float* to = d < dim ? norm.d_weight : norm.d_bias;
            if (!to) continue;
            to += d % dim;
            vf sum = add ? load(to) : vf{};
            for (int64_t p = 0; p < parts; p++) sum += load(sums + p * 2 * dim + d);
            store(to, sum);
        }
    }

    // All layers from the last one down to `lowest`.
    void run(int64_t lowest, int64_t longest) const {
        Thread thread(t, longest);
        for (int64_t l = t.layers - 1; l >= lowest; l--) {
            const TrainedLayer& layer = t.layer[l];
            const Kept<K> k = kept_of<K>(kept, t, l, tokens);
            for (int64_t start = 0; start < tokens; start += some)
                feed_forward(layer, k, start, smaller(start + some, tokens), thread);
            attention(layer, k, thread);
            for (int64_t start = 0; start < tokens; start += some)
                projections(l, k, start, smaller(start + some, tokens), thread);
        }
    }
};

template <class K>
void backward(const TrainedLayers& t, const float* embedded, const int32_t* offsets, int64_t texts, int64_t tokens,
              int64_t threads, char* kept, char* shared, float* d_hidden, int64_t lowest) {
    const int64_t some = tokens_of_a_stage(tokens, threads), most = longest(offsets, texts);
    Pieces pieces = {shared};
    const BackwardMemory<K> memory(pieces, t, tokens, some);
    if (tokens % K::GROUP)  // the row that fills the last group is read, but counts for nothing
        for (int64_t l = 0; l < t.layers; l++)
            memset(kept_of<K>(kept, t, l, tokens).inner + tokens * t.inner, 0, (size_t)t.inner * sizeof(typename K::Input));
    const Backward<K> pass = {t, embedded, offsets, texts, tokens, threads, some, kept, memory, d_hidden};
#pragma omp parallel num_threads((int)threads)
    pass.run(lowest, most);
}

}  // namespace
