// Matrix products with weights as torch stores them: row-major, (columns, depth).
//
// Weights are packed a panel at a time, right before the panel is used, into memory of the calling thread that stays
// in its cache. No copy of a weight outlives a product, so none can go stale. In a panel of up to PANEL vectors of
// columns, each step along the depth holds GROUP weights of every column, which fill 32 bits. Each sum is taken in the
// order of the depth, starting from the bias, for any number of rows and threads: the product of a row has the same
// bits in any batch.

#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <algorithm>

#include "vectors.hpp"

extern "C" {

// A linear layer. In int8, a column of the weight stands for its whole numbers times its scale.
struct Linear {
    const void *weight, *bias;  // (columns, depth), (columns,)
    const float* scale;         // (columns,), of int8 only
};
}

namespace {

constexpr int PANEL = 3;  // vectors of columns; the sums of a tile have to fit the registers
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#else
constexpr int TILE_ROWS = 4;
#endif
// Before the weights of a panel, for each vector of columns: bias, and in int8 scale and what the inputs' zero adds.
constexpr int HEADER = 3;
// With few rows, weights are packed CHUNK steps at a time, which stay in the first-level cache until they are used.
constexpr int64_t FEW_ROWS = 32, CHUNK = 16;

struct Float32 {
    typedef float Input;
    typedef float Weight;
    typedef float Parameter;  // biases, normalizations and embedding tables
    typedef vf Sum;
    static constexpr int GROUP = 1;
    INLINE Sum plus(Sum sum, int32_t group, vi weights) {
        float x;
        memcpy(&x, &group, 4);
        return sum + x * (vf)weights;
    }
};

// oneDNN has the better product where the processor has matrix registers.
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define HAS_BFLOAT16
struct Bfloat16 {
    typedef bf16 Input;
    typedef bf16 Weight;
    typedef bf16 Parameter;
    typedef vf Sum;
    static constexpr int GROUP = 2;
    INLINE Sum plus(Sum sum, int32_t group, vi weights) {
        return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(group), (__m512bh)weights);
    }
};
#endif

#if defined(__AVX512VNNI__) && !defined(__AMX_INT8__)
#define HAS_INT8
// Inputs are 0 to 255 with their zero at 128; the sums start from minus what that zero adds to them.
struct Int8 {
    typedef uint8_t Input;
    typedef int8_t Weight;
    typedef float Parameter;
    typedef vi Sum;
    static constexpr int GROUP = 4;
    INLINE Sum plus(Sum sum, int32_t group, vi weights) {
        return (vi)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(group), (__m512i)weights);
    }
};
#endif

template <class K>
constexpr bool is_int8 = sizeof(typename K::Weight) == 1;

// Linear layers of the same shape and input; the columns of their outputs are side by side.
template <class K>
struct Product {
    const Linear* layers;
    int64_t count, columns, depth;  // columns of one layer

    INLINED int64_t vectors() const { return count * columns / W; }
    INLINED int64_t panels() const { return (vectors() + PANEL - 1) / PANEL; }
    INLINED int64_t steps() const { return depth / K::GROUP; }

    INLINED const Linear& layer(int64_t vector) const { return layers[vector * W / columns]; }
    INLINED int64_t column(int64_t vector) const { return vector * W % columns; }
    // The weights of a vector of columns, as words of 32 bits: (W, steps()).
    INLINED const char* weights(int64_t vector) const {
        return (const char*)layer(vector).weight + column(vector) * steps() * 4;
    }
};

// Memory for packed weights, with their header, and for the sums of few rows between two chunks.
template <class K>
INLINE int64_t panel_words(int64_t depth) {
    return PANEL * W * (HEADER + FEW_ROWS + depth / K::GROUP);
}

// Brings memory into the cache, some lines at a time.
struct Prefetch {
    const char *next, *end;

    INLINED void lines(int64_t count) {
        for (const char* to = std::min(next + count * 64, end); next < to; next += 64) __builtin_prefetch(next, 0, 2);
    }
    INLINED int64_t left() const { return (end - next + 63) / 64; }
};

// One panel of C vectors of columns in the memory of a thread: packed, and multiplied with rows.
template <class K, int C>
struct Panel {
    const Product<K>& product;
    int64_t vector;  // the first one
    float *header, *sums;
    int32_t* packed;

    INLINED Panel(const Product<K>& p, int64_t v, float* memory)
        : product(p),
          vector(v),
          header(memory),
          sums(memory + HEADER * C * W),
          packed((int32_t*)sums + FEW_ROWS * C * W) {
        repeat<C>([&](auto c) {
            const Linear& layer = p.layer(v + c);
            const int64_t column = p.column(v + c);
            store(header + c * W, load((const typename K::Parameter*)layer.bias + column));
            if constexpr (is_int8<K>) {
                store(header + (C + c) * W, load(layer.scale + column));
                store(header + (2 * C + c) * W, vf{});
            }
        });
    }

    // Steps `from` to `to` of the depth; `lines` are prefetched for every W of them and each vector of columns.
    INLINED void pack(int64_t from, int64_t to, Prefetch& prefetch, int64_t lines) {
        repeat<C>([&](auto c) ALWAYS_INLINE {
            const int64_t steps = product.steps();
            const float* weights = (const float*)product.weights(vector + c);  // bits of any type
            int32_t* out = packed + c * W;
            vi zero = bits(load(header + (2 * C + c) * W));
            for (int64_t i = from; i < to; i += W) {
                const int64_t count = std::min<int64_t>(W, to - i);
                vf block[W];
                if (count == W)
                    repeat<W>([&](auto j) ALWAYS_INLINE { block[j] = load(weights + j * steps + i); });
                else
                    repeat<W>([&](auto j) { block[j] = load_some(weights + j * steps + i, count); });
                prefetch.lines(lines);
                transpose(block);
                repeat<W>([&](auto s) ALWAYS_INLINE {
                    if constexpr (is_int8<K>) zero = K::plus(zero, (int32_t)0x80808080, bits(block[s]));
                    if (s < count) memcpy(out + (i - from + s) * C * W, &block[s], 4 * W);
                });
            }
            if constexpr (is_int8<K>) store(header + (2 * C + c) * W, as_float(zero));
        });
    }

    // R rows of inputs times the packed steps, added to their sums so far; after the last step, to `use`.
    template <int R, class F>
    INLINED void tile(int64_t row, int64_t from, int64_t to, const typename K::Input* a, const float* scales,
                      const F& use) const {
        typename K::Sum sum[R][C];
        float* kept = sums + row * C * W;
        if (from == 0)
            repeat<C>([&](auto c) {
                sum[0][c] = typename K::Sum{};
                if constexpr (!is_int8<K>) sum[0][c] = load(header + c * W);
                repeat<R - 1>([&](auto r) { sum[r + 1][c] = sum[0][c]; });
            });
        else
            repeat<R>([&](auto r) { repeat<C>([&](auto c) { memcpy(&sum[r][c], kept + (r * C + c) * W, 4 * W); }); });
        a += row * product.depth;
        const int32_t* at = packed;
        for (int64_t i = from; i < to; i++, at += C * W) {
            vi weights[C];
            repeat<C>([&](auto c) { memcpy(&weights[c], at + c * W, 4 * W); });
            repeat<R>([&](auto r) {
                int32_t group;
                memcpy(&group, a + r * product.depth + i * K::GROUP, 4);
                repeat<C>([&](auto c) { sum[r][c] = K::plus(sum[r][c], group, weights[c]); });
            });
        }
        if (to < product.steps()) {
            repeat<R>([&](auto r) { repeat<C>([&](auto c) { memcpy(kept + (r * C + c) * W, &sum[r][c], 4 * W); }); });
            return;
        }
        repeat<R>([&](auto r) ALWAYS_INLINE {
            repeat<C>([&](auto c) ALWAYS_INLINE {
                const int64_t column = (vector + c) * W;
                if constexpr (is_int8<K>) {
                    const vf bias = load(header + c * W), scale = load(header + (C + c) * W);
                    const vi zero = bits(load(header + (2 * C + c) * W));
                    use(row + r, column,
                        __builtin_convertvector(sum[r][c] - zero, vf) * (scales[row + r] * scale) + bias);
                } else {
                    use(row + r, column, sum[r][c]);
                }
            });
        });
    }

    template <int R, class F>
    INLINED void tiles(int64_t row, int64_t rows, int64_t from, int64_t to, const typename K::Input* a,
                       const float* scales, Prefetch& prefetch, int64_t lines, const F& use) const {
        for (; rows - row >= R; row += R) {
            prefetch.lines(lines);
            tile<R>(row, from, to, a, scales, use);
        }
        if constexpr (R > 1) tiles<R / 2>(row, rows, from, to, a, scales, prefetch, lines, use);
    }
};

template <class K, int C, class F>
INLINE void multiply_panel(int64_t rows, const typename K::Input* a, const float* scales, const Product<K>& product,
                           int64_t vector, float* memory, Prefetch prefetch, const F& use) {
    Panel<K, C> panel(product, vector, memory);
    const int64_t steps = product.steps(), lines = prefetch.left();
    if (rows <= FEW_ROWS) {
        const int64_t blocks = C * ((steps + W - 1) / W);
        for (int64_t from = 0; from < steps; from += CHUNK) {
            const int64_t to = std::min(from + CHUNK, steps);
            panel.pack(from, to, prefetch, (lines + blocks - 1) / blocks);
            panel.template tiles<TILE_ROWS>(0, rows, from, to, a, scales, prefetch, 0, use);
        }
    } else {
        panel.pack(0, steps, prefetch, 0);
        panel.template tiles<TILE_ROWS>(0, rows, 0, steps, a, scales, prefetch, (lines * TILE_ROWS + rows - 1) / rows, use);
    }
}

// Calls use(row, column, values) for every vector of `rows` rows times the weights plus the bias, in panels `first` to
// `last`.
//
// Args:
//     a: (rows, depth); in int8 with `scales`, what one step of each row stands for.
//     memory: for panel_words() words.
//     next: weights that are needed after the last panel, to be prefetched; may be null.
template <class K, class F>
__attribute__((noinline)) void multiply(int64_t rows, const typename K::Input* a, const float* scales,
                                        const Product<K>& product, int64_t first, int64_t last, float* memory,
                                        const char* next, const F& use) {
    const int64_t bytes = product.steps() * W * 4;  // of a vector of columns
    for (int64_t p = first; p < last; p++) {
        const int64_t vector = p * PANEL, vectors = std::min<int64_t>(PANEL, product.vectors() - vector);
        const char* then = p + 1 < last ? product.weights(vector + PANEL) : next;
        const Prefetch prefetch = {then, then ? then + vectors * bytes : then};
        if (vectors == 3)
            multiply_panel<K, 3>(rows, a, scales, product, vector, memory, prefetch, use);
        else if (vectors == 2)
            multiply_panel<K, 2>(rows, a, scales, product, vector, memory, prefetch, use);
        else
            multiply_panel<K, 1>(rows, a, scales, product, vector, memory, prefetch, use);
    }
}

// Quantize a row to whole numbers from -127 to 127, plus 128; returns what one step stands for (0 for a row of zeros).
INLINE float quantize(int64_t dim, const float* row, uint8_t* out) {
    vf top = {}, strange = {};  // NaN where the row holds NaN or an infinity
    for (int64_t d = 0; d < dim; d += W) {
        const vf value = load(row + d);
        top = max(top, abs(value));
        strange += value * 0.0f;
    }
    const float most = largest(top) + total(strange), by = most > 0 ? 127.0f / most : 0.0f;
    for (int64_t d = 0; d < dim; d += W) {
        const vf scaled = rounded(load(row + d) * by);
        const vi whole = (bits(scaled + ROUND) - bits(splat(ROUND))) + 128;
        const vb narrow = __builtin_convertvector(whole, vb);
        memcpy(out + d, &narrow, sizeof narrow);
    }
    return most / 127.0f;
}

}  // namespace
