// The two matrix products of the backward pass of linear layers: gradients of inputs and of weights.
//
// Weights are (outputs, inputs) as torch stores them. Inputs and gradients of outputs have a row for each token; what a
// weight's gradient is made of is kept in strips besides, in which GROUP tokens fill a word of 32 bits.

#pragma once

#include "panels.hpp"
#include "threads.hpp"

namespace {

// Tokens in a strip.
constexpr int64_t SPAN = 256;

// A matrix of tokens in strips of W columns, and in spans of SPAN tokens; a step of a strip holds GROUP tokens.
template <class K>
struct Strips {
    int32_t* words;
    int64_t columns;

    static constexpr int64_t STEPS = SPAN / K::GROUP;
    // One more step, so that the strips of a row do not all fall into the same set of a cache.
    static constexpr int64_t STRIP = (STEPS + 1) * W;

    static int64_t floats(int64_t tokens, int64_t columns) {
        return (tokens + SPAN - 1) / SPAN * (columns / W) * STRIP;
    }
    INLINED int32_t* strip(int64_t span, int64_t vector) const {
        return words + (span * (columns / W) + vector) * STRIP;
    }
    // The words of a token, or of it and the next one.
    INLINED int32_t* at(int64_t token, int64_t column) const {
        return strip(token / SPAN, column / W) + token % SPAN / K::GROUP * W;
    }
};

// A vector to memory in float32, or rounded to bfloat16 by the processor, which takes numbers below 2^-126 for 0.
INLINE void put(float* to, vf x) { store(to, x); }
#if defined(HAS_BFLOAT16)
INLINE void put(bf16* to, vf x) {
    const __m256bh half = _mm512_cvtneps_pbh((__m512)x);
    memcpy(to, &half, sizeof half);
}
#endif

// Tokens in groups as products read them: values of GROUP rows to rows of Input, or to the words of a strip.
template <class K>
struct Group {
    vf value[K::GROUP];

    INLINED void store_rows(typename K::Input* row, int64_t width) const {
        repeat<K::GROUP>([&](auto g) ALWAYS_INLINE { put(row + g * width, value[g]); });
    }
    INLINED void store_words(int32_t* words) const {
        if constexpr (K::GROUP == 1) {
            store((float*)words, value[0]);
        } else {
#if defined(HAS_BFLOAT16)
            const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)value[0]));
            const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)value[1]));
            const __m512i both = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
            memcpy(words, &both, sizeof both);
#endif
        }
    }
};

// The gradient of the input of some linear layers of one size, which take the same input: (rows, count * outputs) times
// the weights below each other.
template <class K>
struct InputGradient {
    const Linear* layers;
    int64_t count, outputs, inputs;

    typedef typename K::Input Input;
    INLINED int64_t depth() const { return count * outputs; }
    INLINED int64_t steps() const { return depth() / K::GROUP; }
    INLINED int64_t panels() const { return (inputs / W + PANEL - 1) / PANEL; }

    template <int C>
    __attribute__((noinline)) void pack(int64_t column, int32_t* to) const {
        for (int64_t l = 0; l < count; l++) {
            const Input* from = (const Input*)layers[l].weight + column;
            for (int64_t i = 0; i < outputs; i += K::GROUP, from += K::GROUP * inputs, to += C * W)
                repeat<C>([&](auto c) ALWAYS_INLINE {
                    if constexpr (K::GROUP == 1) {
                        memcpy(to + c * W, from + c * W, 4 * W);
                    } else {
                        vh low, high;
                        memcpy(&low, from + c * W, sizeof low);
                        memcpy(&high, from + inputs + c * W, sizeof high);
                        const vu both = __builtin_convertvector(low, vu) | __builtin_convertvector(high, vu) << 16;
                        memcpy(to + c * W, &both, sizeof both);
                    }
                });
        }
    }

    // Rows of gradients `a`, depth() wide, times a packed panel. Calls use(row, column, R rows of C vectors). The first
    // tiles fetch the columns from `next` on.
    template <int R, int C, class F>
    INLINED void multiply(int64_t row, int64_t rows, const Input* a, int64_t column, const int32_t* packed,
                          int64_t next, const F& use) const {
        constexpr int64_t LINES = (C * W * (int64_t)sizeof(Input) + 63) / 64, FETCHES = LINES * K::GROUP;
        const int64_t wide = depth(), steps = wide / K::GROUP;
        for (; rows - row >= R; row += R) {
            vf sum[R][C];
            repeat<R>([&](auto r) { repeat<C>([&](auto c) { sum[r][c] = vf{}; }); });
            const Input* from = a + row * wide;
            const int32_t* at = packed;
            const auto step = [&](int64_t i) ALWAYS_INLINE {
                vi weights[C];
                repeat<C>([&](auto c) { memcpy(&weights[c], at + c * W, 4 * W); });
                repeat<R>([&](auto r) {
                    int32_t group;
                    memcpy(&group, from + r * wide + i * K::GROUP, 4);
                    repeat<C>([&](auto c) { sum[r][c] = K::plus(sum[r][c], group, weights[c]); });
                });
                at += C * W;
            };
            const int64_t tile = row / R;
            if (R == TILE_ROWS && tile < FETCHES && next < inputs) {
                for (int64_t l = 0; l < count; l++) {
                    const Input* line = (const Input*)layers[l].weight + tile % K::GROUP * inputs + next;
                    for (int64_t i = 0; i < outputs / K::GROUP; i++, line += K::GROUP * inputs) {
                        __builtin_prefetch((const char*)line + tile / K::GROUP * 64, 0, 3);
                        step(l * outputs / K::GROUP + i);
                    }
                }
            } else {
                for (int64_t i = 0; i < steps; i++) step(i);
            }
            use(row, column, sum);
        }
        if constexpr (R > K::GROUP) multiply<R / 2, C>(row, rows, a, column, packed, next, use);
    }

    // Rows `from` to `to` times panel p, whose memory is given; the numbers of rows are multiples of GROUP.
    template <class F>
    INLINED void panel(int64_t p, int64_t from, int64_t to, const Input* a, int32_t* memory, const F& use) const {
        const int64_t column = p * PANEL * W, vectors = inputs / W - p * PANEL;
        const auto columns = [&](auto c) ALWAYS_INLINE {
            pack<c>(column, memory);
            multiply<TILE_ROWS, c>(from, to, a, column, memory, column + c * W, use);
        };
        if (vectors >= 3)
            columns(std::integral_constant<int, 3>());
        else if (vectors == 2)
            columns(std::integral_constant<int, 2>());
        else
            columns(std::integral_constant<int, 1>());
    }

    // All of it by the threads of a parallel region, without a barrier at the end.
    template <class F>
    INLINED void share(int64_t rows, const Input* a, int64_t threads, int32_t* memory, const F& use) const {
        // Panels are enough for few threads; for more, the rows are split too.
        const int64_t most = larger(rows / 128, 1), wanted = (4 * threads + panels() - 1) / panels();
        const int64_t parts = smaller(most, wanted);
        const int64_t height = ((rows + parts - 1) / parts + TILE_ROWS - 1) / TILE_ROWS * TILE_ROWS;
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < panels() * parts; i++) {
            const int64_t from = i % parts * height;
            panel(i / parts, smaller(from, rows), smaller(from + height, rows), a, memory, use);
        }
    }
};

// Sums over tokens: gradients of a weight, (outputs, inputs), and of a bias.
template <class K>
struct WeightGradient {
    Strips<K> d_y, x;
    int64_t column, outputs;   // the columns of d_y that belong to these outputs
    float *d_weight, *d_bias;  // null for none

    static constexpr int64_t ROWS = 64;  // of the weight, in a part; its gradients stay in the cache
    static constexpr int HEIGHT = TILE_ROWS < W ? TILE_ROWS : W;  // rows of a tile, which are in one strip

    INLINED int64_t parts() const { return d_weight || d_bias ? (outputs + ROWS - 1) / ROWS : 0; }

    // Calls use(span, steps) for each span of the tokens.
    template <class F>
    INLINE void each_span(int64_t tokens, const F& use) {
        for (int64_t span = 0, done = 0; done < tokens; span++, done += SPAN)
            use(span, (smaller(tokens - done, SPAN) + K::GROUP - 1) / K::GROUP);
    }

    template <int C>
    INLINED void tile(int64_t tokens, int64_t row, int64_t vector, bool add) const {
        float* out = d_weight + row * x.columns + vector * W;
        vf sum[HEIGHT][C];
        repeat<HEIGHT>([&](auto r) {
            repeat<C>([&](auto c) { sum[r][c] = add ? load(out + r * x.columns + c * W) : vf{}; });
        });
        each_span(tokens, [&](int64_t span, int64_t steps) ALWAYS_INLINE {
            const int32_t *a = d_y.strip(span, (column + row) / W) + row % W, *b[C];
            repeat<C>([&](auto c) { b[c] = x.strip(span, vector + c); });
            for (int64_t i = 0; i < steps; i++) {
                vi right[C];
                repeat<C>([&](auto c) { memcpy(&right[c], b[c] + i * W, 4 * W); });
                repeat<HEIGHT>([&](auto r) {
                    repeat<C>([&](auto c) { sum[r][c] = K::plus(sum[r][c], a[i * W + r], right[c]); });
                });
            }
        });
        repeat<HEIGHT>([&](auto r) {
            repeat<C>([&](auto c) { store(out + r * x.columns + c * W, sum[r][c]); });
        });
    }

    // Part p of the rows, over tokens whose gradients are added to what is there, if `add`.
    void part(int64_t p, int64_t tokens, bool add) const {
        const int64_t first = p * ROWS, last = smaller(first + ROWS, outputs), vectors = x.columns / W;
        for (int64_t v = 0; d_weight && v < vectors; v += PANEL) {
            for (int64_t row = first; row < last; row += HEIGHT) {
                if (vectors - v >= 3)
                    tile<3>(tokens, row, v, add);
                else if (vectors - v == 2)
                    tile<2>(tokens, row, v, add);
                else
                    tile<1>(tokens, row, v, add);
            }
        }
        for (int64_t row = first; d_bias && row < last; row += W) {
            vf sum = add ? load(d_bias + row) : vf{};
            each_span(tokens, [&](int64_t span, int64_t steps) ALWAYS_INLINE {
                const int32_t* from = d_y.strip(span, (column + row) / W);
                for (int64_t i = 0; i < steps; i++) {
                    vi word;
                    memcpy(&word, from + i * W, 4 * W);
                    if constexpr (K::GROUP == 1)
                        sum += as_float(word);
                    else
                        sum += as_float(word << 16) + as_float(word & ~0xffff);
                }
            });
            store(d_bias + row, sum);
        }
    }
};

// Some such sums over the same tokens by the threads of a parallel region, without a barrier at the end.
template <class K, size_t N>
INLINE void share(const WeightGradient<K> (&gradients)[N], int64_t tokens, bool add) {
    int64_t parts = 0;
    for (const auto& gradient : gradients) parts += gradient.parts();
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t i = 0; i < parts; i++) {
        int64_t part = i, g = 0;
        while (part >= gradients[g].parts()) part -= gradients[g++].parts();
        gradients[g].part(part, tokens, add);
    }
}

}  // namespace
