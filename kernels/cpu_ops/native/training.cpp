// The layers of a BERT-family encoder in training: a forward pass that keeps what its gradients need, and the gradients.
//
// Forward, a thread takes some texts through all layers. Backward, all threads share each stage of a layer, a part of
// the tokens at a time: gradients of weights are sums over all tokens, taken in an order that depends on neither the
// threads nor the texts. Everything but the products is in float32; in bfloat16, what they read is kept in bfloat16.

#include <type_traits>

#include "attention.hpp"
#include "gradients.hpp"
#include "norm.hpp"

extern "C" {

struct TrainedLinear {
    const float *weight, *bias;
    float *d_weight, *d_bias;  // null for none
};

struct TrainedNorm {
    const float *weight, *bias;
    float *d_weight, *d_bias, eps;
};

struct DropoutOf {
    uint32_t threshold;
    float scale;
    uint64_t seed;
};

struct TrainedLayer {
    TrainedLinear qkv[3], output;  // query, key and value; all (dim, dim)
    TrainedNorm attention_norm;
    TrainedLinear up, down;  // (inner, dim), (dim, inner)
    TrainedNorm output_norm;
    DropoutOf weights, attended, fed;  // of attention weights; of what attention and the feed-forward layers add
};

struct TrainedLayers {
    int64_t dim, heads, inner, layers;
    const TrainedLayer* layer;
};
}

namespace {

#if defined(HAS_BFLOAT16)
struct Half : Bfloat16 {
    typedef float Parameter;
};
#endif

constexpr int64_t MOST_ROWS = 384;  // tokens that a thread takes through the layers together, if texts are short
constexpr int64_t PART = 64;        // tokens in a sum for the gradient of a normalization
static_assert(SPAN % PART == 0, "spans are made of parts");

// Take memory piece by piece; with a null start it is only counted.
struct Pieces {
    char* start;
    int64_t bytes = 0;

    template <class T>
    T* take(int64_t count) {
        T* taken = start ? (T*)(start + bytes) : nullptr;
        bytes += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
        return taken;
    }
};

// What the forward pass keeps of a layer; rows are tokens.
template <class K>
struct Kept {
    typedef typename K::Input Input;
    Input *qkv, *attended, *inner;  // inner before its activation
    float *attention_xhat, *attention_rstd, *output_xhat, *output_rstd, *lse;
    Linear linears[6];  // query, key, value, output, up and down, with weights in Input

    Kept(Pieces& pieces, const TrainedLayers& t, const TrainedLayer& layer, int64_t tokens) {
        const int64_t dim = t.dim, rows = (tokens + K::GROUP - 1) / K::GROUP * K::GROUP;
        qkv = pieces.take<Input>(rows * 3 * dim);
        attended = pieces.take<Input>(rows * dim);
        inner = pieces.take<Input>(rows * t.inner);
        attention_xhat = pieces.take<float>(tokens * dim), attention_rstd = pieces.take<float>(tokens);
        output_xhat = pieces.take<float>(tokens * dim), output_rstd = pieces.take<float>(tokens);
        lse = pieces.take<float>(tokens * t.heads);
        for (int64_t i = 0; i < 6; i++) {
            const TrainedLinear& linear = of(layer, i);
            const void* weight = linear.weight;
            if constexpr (sizeof(Input) == 2) weight = pieces.take<Input>(size(t, i));
            linears[i] = {weight, linear.bias, nullptr};
        }
    }
    static const TrainedLinear& of(const TrainedLayer& layer, int64_t i) {
        return i < 3 ? layer.qkv[i] : i == 3 ? layer.output : i == 4 ? layer.up : layer.down;
    }
    static int64_t size(const TrainedLayers& t, int64_t i) { return t.dim * (i < 4 ? t.dim : t.inner); }
};

template <class K>
INLINE int64_t kept_bytes(const TrainedLayers& t, int64_t tokens) {
    Pieces pieces = {nullptr};
    Kept<K>(pieces, t, *t.layer, tokens);
    return pieces.bytes;
}

template <class K>
INLINE Kept<K> kept_of(char* memory, const TrainedLayers& t, int64_t l, int64_t tokens) {
    Pieces pieces = {memory + l * kept_bytes<K>(t, tokens)};
    return Kept<K>(pieces, t, t.layer[l], tokens);
}

INLINE Dropout row_of(const DropoutOf& drop, int64_t row) {
    return Dropout::row(drop.seed, (uint64_t)row, drop.threshold, drop.scale);
}

// Memory of one thread in the forward pass, for at most `rows` tokens of texts of at most `longest`.
template <class K>
struct ForwardMemory {
    Buffer buffer, attention;
    float *hidden, *sums, *panel, *wide;
    typename K::Input *input, *inner;

    ForwardMemory(const TrainedLayers& t, int64_t rows, int64_t longest)
        : buffer(rows * (2 * t.dim + 3 * t.dim + t.dim + t.inner) + scratch_words<K>(larger(t.dim, t.inner)) + 128),
          attention(attention_floats(longest, t.dim / t.heads)) {
        hidden = buffer.take(rows * t.dim), sums = buffer.take(rows * t.dim);
        panel = buffer.take(scratch_words<K>(larger(t.dim, t.inner)));
        wide = buffer.take(rows * 3 * t.dim);  // queries, keys and values in float32
        input = (typename K::Input*)buffer.take(rows * t.dim);
        inner = (typename K::Input*)buffer.take(rows * t.inner);
    }
};

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
                       ForwardMemory<K>& m) const {
        float* sums = m.sums;
        const int64_t dim = t.dim;
        multiply(rows, from, nullptr, product, 0, product.panels(), m.panel, next.weights(0),
                 [=](int64_t row, int64_t column, vf value) ALWAYS_INLINE { store(sums + row * dim + column, value); });
    }

    // hidden = normalized(dropout(sums) + hidden), for tokens from `start` on.
    void add_norm(int64_t rows, int64_t start, const TrainedNorm& norm, const DropoutOf& dropped, float* xhat,
                  float* rstd, ForwardMemory<K>& m) const {
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
    void texts(int64_t from, int64_t to, const float* embedded, float* out, ForwardMemory<K>& m) const {
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
                           dim, m.attention, numbered);
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

    // The first text that begins at or after a share of the tokens.
    int64_t text_at(int64_t texts, int64_t share, int64_t shares) const {
        int64_t text = 0;
        while (text < texts && offsets[text] * shares < tokens * share) text++;
        return text;
    }
};

template <class K>
void forward(const TrainedLayers& t, const float* embedded, const int32_t* offsets, int64_t texts, int64_t tokens,
             int64_t threads, char* kept, float* out) {
    const Forward<K> pass = {t, offsets, tokens, kept};
    // Groups of texts with about as many tokens each, as many for each thread.
    const int64_t groups = threads * ((tokens + threads * MOST_ROWS - 1) / (threads * MOST_ROWS));
    const int64_t most = longest(offsets, texts), rows = (tokens + groups - 1) / groups + most;
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
        ForwardMemory<K> memory(t, rows, most);
#pragma omp for schedule(dynamic, 1)
        for (int64_t g = 0; g < groups; g++) {
            const int64_t from = pass.text_at(texts, g, groups), to = pass.text_at(texts, g + 1, groups);
            if (to > from) pass.texts(from, to, embedded, out, memory);
        }
    }
}

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
        x_down = strips(inner), y_down = strips(dim), x_up = strips(dim), y_up = strips(inner);
        x_output = strips(dim), y_output = strips(dim), x_qkv = strips(dim), y_qkv = strips(3 * dim);
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

    template <int R, int C>
    INLINE void activation(int64_t row, int64_t column, const vf (&sum)[R][C], const Input* before, int64_t inner,
                           const BackwardMemory<K>& m) {
        alignas(64) float sums[R * C * W];
        repeat<R>([&](auto r) { repeat<C>([&](auto c) { store(sums + (r * C + c) * W, sum[r][c]); }); });
        activation<R, C>(sums, row, column, before, inner, m);
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

template <class F>
auto of_dtype(int64_t dtype, const F& use) {
#if defined(HAS_BFLOAT16)
    if (dtype == 2) return use(Half());
#endif
    return use(Float32());
}

}  // namespace

extern "C" {

// Bytes that the forward pass keeps for the backward pass; bytes that the backward pass needs besides.
int64_t EXPORT(training_kept)(int64_t dtype, const TrainedLayers* t, int64_t tokens) {
    return of_dtype(dtype, [&](auto k) { return t->layers * kept_bytes<decltype(k)>(*t, tokens); });
}

int64_t EXPORT(training_shared)(int64_t dtype, const TrainedLayers* t, int64_t tokens, int64_t threads) {
    return of_dtype(dtype, [&](auto k) {
        Pieces pieces = {nullptr};
        BackwardMemory<decltype(k)>(pieces, *t, tokens, tokens_of_a_stage(tokens, threads));
        return pieces.bytes;
    });
}

// The layers over packed tokens: embedded (tokens, dim) to out, the same. `kept` is for the backward pass.
void EXPORT(training_forward)(int64_t dtype, const TrainedLayers* t, const float* embedded, const int32_t* offsets,
                              int64_t texts, int64_t tokens, int64_t threads, char* kept, float* out) {
    of_dtype(dtype, [&](auto k) {
        forward<decltype(k)>(*t, embedded, offsets, texts, tokens, threads, kept, out);
    });
}

// The gradient of out, in d_hidden (tokens, dim), becomes that of the input of layer `lowest`. Writes the gradients of
// that layer and those above.
void EXPORT(training_backward)(int64_t dtype, const TrainedLayers* t, const float* embedded, const int32_t* offsets,
                               int64_t texts, int64_t tokens, int64_t threads, char* kept, char* shared,
                               float* d_hidden, int64_t lowest) {
    of_dtype(dtype, [&](auto k) {
        backward<decltype(k)>(*t, embedded, offsets, texts, tokens, threads, kept, shared, d_hidden, lowest);
    });
}

}  // extern "C"
