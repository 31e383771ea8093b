// Matrix products with weights as torch stores them: row-major, (columns, depth).
//
// Weights are packed a panel at a time, right before the panel is used, into memory of the calling thread that stays
// in its cache; or all of them ahead (`pack_ahead`). No packed weight outlives the forward pass, so none can go stale.
// In a panel of up to PANEL vectors of columns, each step along the depth holds GROUP weights of every column, which
// fill 32 bits. Each sum is taken in the order of the depth, starting from the bias, for any number of rows and
// threads: the product of a row has the same bits in any batch.

#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

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
constexpr int64_t FEW_ROWS = 16, CHUNK = 32;

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

#if defined(__AVX512BF16__)
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

#if defined(__AVX512VNNI__)
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
    const float* packed = nullptr;  // all panels, if they are packed ahead

    INLINED int64_t vectors() const { return count * columns / W; }
    INLINED int64_t panels() const { return (vectors() + PANEL - 1) / PANEL; }
    INLINED int64_t steps() const { return depth / K::GROUP; }

    INLINED const Linear& layer(int64_t vector) const { return layers[vector * W / columns]; }
    INLINED int64_t column(int64_t vector) const { return vector * W % columns; }
    // The weights of a vector of columns, as words of 32 bits: (W, steps()).
    INLINED const char* weights(int64_t vector) const {
        return (const char*)layer(vector).weight + column(vector) * steps() * 4;
    }

    // Words of memory for a packed panel with its header, and for all panels.
    INLINED int64_t panel_words() const { return PANEL * W * (HEADER + steps()); }
    INLINED int64_t packed_words() const { return panels() * panel_words(); }
    INLINED const float* packed_panel(int64_t panel) const { return packed + panel * panel_words(); }
    // What a product with a panel reads first.
    INLINED const char* source(int64_t panel) const {
        return packed ? (const char*)packed_panel(panel) : weights(panel * PANEL);
    }
};

// Memory of a thread for a packed panel, and for the sums of few rows between two chunks.
template <class K>
INLINE int64_t scratch_words(int64_t depth) {
    return PANEL * W * (HEADER + FEW_ROWS + depth / K::GROUP);
}

// One panel of C vectors of columns: packed, and multiplied with rows.
template <class K, int C>
struct Panel {
    static constexpr int LINES = (C * W * 4 + 63) / 64;  // of 64 bytes, in a step
    const Product<K>& product;
    int64_t vector;  // the first one
    float* header;
    int32_t* packed;

    INLINED Panel(const Product<K>& p, int64_t v, float* memory)
        : product(p), vector(v), header(memory), packed((int32_t*)memory + HEADER * C * W) {}

    INLINED void start_packing() const {
        repeat<C>([&](auto c) {
            const Linear& layer = product.layer(vector + c);
            const int64_t column = product.column(vector + c);
            store(header + c * W, load((const typename K::Parameter*)layer.bias + column));
            if constexpr (is_int8<K>) {
                store(header + (C + c) * W, load(layer.scale + column));
                store(header + (2 * C + c) * W, vf{});
            }
        });
    }

    // Pack the steps `from` to `to` of the depth.
    __attribute__((noinline)) void pack(int64_t from, int64_t to) const {
        for (int64_t c = 0; c < C; c++) {
            const char* weights = product.weights(vector + c);
            int32_t* out = packed + c * W;
            vi zero[4] = {bits(load(header + (2 * C + c) * W))};  // four sums, since one would wait for itself
            int64_t i = from;
            for (; i + W <= to; i += W, out += W * C * W) pack_block<true>(weights + i * 4, W, out, zero);
            if (i < to) pack_block<false>(weights + i * 4, to - i, out, zero);
            if constexpr (is_int8<K>)
                store(header + (2 * C + c) * W, as_float(zero[0] + zero[1] + zero[2] + zero[3]));
        }
    }

    // W columns of weights, of W steps or of `count`.
    template <bool ALL>
    INLINED void pack_block(const char* weights, int64_t count, int32_t* out, vi* zero) const {
        const int64_t row = product.steps() * 4;
        vf block[W];
        repeat<W>([&](auto c) ALWAYS_INLINE {
            block[c] = ALL ? load((const float*)weights) : load_some((const float*)weights, count);
            weights += row;
            asm("" : "+r"(weights));  // one pointer that moves is faster than the W that the compiler would keep
        });
        transpose(block);
        repeat<W>([&](auto s) ALWAYS_INLINE {
            if constexpr (is_int8<K>) zero[s % 4] = K::plus(zero[s % 4], (int32_t)0x80808080, bits(block[s]));
            if (ALL || s < count) memcpy(out + s * C * W, &block[s], 4 * W);
        });
    }

    template <int R>
    INLINED void start(typename K::Sum (&sum)[R][C]) const {
        repeat<C>([&](auto c) {
            sum[0][c] = typename K::Sum{};
            if constexpr (!is_int8<K>) sum[0][c] = load(header + c * W);
            repeat<R - 1>([&](auto r) { sum[r + 1][c] = sum[0][c]; });
        });
    }

    // Add R rows of inputs, from `a` on, times `steps` packed steps. Each brings FETCH lines of `next` into the cache.
    template <int R, int FETCH>
    INLINED void accumulate(typename K::Sum (&sum)[R][C], const typename K::Input* a, int64_t steps,
                            const char* next) const {
        const int32_t* at = packed;
        for (int64_t i = 0; i < steps; i++, at += C * W) {
            vi weights[C];
            repeat<FETCH>([&](auto n) { __builtin_prefetch(next + (i * FETCH + n) * 64, 0, 3); });
            repeat<C>([&](auto c) { memcpy(&weights[c], at + c * W, 4 * W); });
            repeat<R>([&](auto r) {
                int32_t group;
                memcpy(&group, a + r * product.depth + i * K::GROUP, 4);
                repeat<C>([&](auto c) { sum[r][c] = K::plus(sum[r][c], group, weights[c]); });
            });
        }
    }

    // The result of a sum of `row`, as a float.
    INLINED vf result(typename K::Sum sum, int64_t c, const float* scales, int64_t row) const {
        if constexpr (is_int8<K>) {
            const vi whole = sum - bits(load(header + (2 * C + c) * W));
            return __builtin_convertvector(whole, vf) * (scales[row] * load(header + (C + c) * W)) + load(header + c * W);
        } else {
            return sum;
        }
    }

    // Steps `from` to `to` for R rows from `row` on, whose sums are kept in memory.
    template <int R>
    __attribute__((noinline)) void chunk(int64_t row, int64_t from, int64_t to, const typename K::Input* a,
                                         float* sums, const char* next) const {
        typename K::Sum sum[R][C];
        float* kept = sums + row * C * W;
        if (from == 0)
            start(sum);
        else
            repeat<R>([&](auto r) { repeat<C>([&](auto c) { memcpy(&sum[r][c], kept + (r * C + c) * W, 4 * W); }); });
        a += row * product.depth + from * K::GROUP;
        if (row == 0)
            accumulate<R, LINES>(sum, a, to - from, next + from * LINES * 64);
        else
            accumulate<R, 0>(sum, a, to - from, nullptr);
        repeat<R>([&](auto r) { repeat<C>([&](auto c) { memcpy(kept + (r * C + c) * W, &sum[r][c], 4 * W); }); });
    }

    // All of a panel for few rows, which are split into tiles of about the same size.
    template <class F>
    INLINED void multiply_few(int64_t rows, const typename K::Input* a, const float* scales, float* sums,
                              const char* next, const F& use) const {
        const int64_t steps = product.steps(), tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
        const int64_t part = product.packed ? steps : CHUNK;
        for (int64_t from = 0; from < steps; from += part) {
            const int64_t to = smaller(from + part, steps);
            if (!product.packed) pack(from, to);
            for (int64_t t = 0; t < tiles; t++) {
                const int64_t row = rows * t / tiles, height = rows * (t + 1) / tiles - row;
                repeat<TILE_ROWS>([&](auto r) {
                    if (height == r + 1) chunk<r + 1>(row, from, to, a, sums, next);
                });
            }
        }
        for (int64_t row = 0; row < rows; row++)
            for (int64_t c = 0; c < C; c++) {
                typename K::Sum sum;
                memcpy(&sum, sums + (row * C + c) * W, sizeof sum);
                use(row, (vector + c) * W, result(sum, c, scales, row));
            }
    }

    // The packed panel for rows from `row` on. The first tiles fetch the next panel.
    template <int R, class F>
    INLINED void multiply(int64_t row, int64_t rows, const typename K::Input* a, const float* scales, const char* next,
                          const F& use) const {
        const int64_t steps = product.steps();
        for (; rows - row >= R; row += R) {
            typename K::Sum sum[R][C];
            start(sum);
            if (R == TILE_ROWS && row < LINES * R)
                accumulate<R, 1>(sum, a + row * product.depth, steps, next + row / R * steps * 64);
            else
                accumulate<R, 0>(sum, a + row * product.depth, steps, nullptr);
            repeat<R>([&](auto r) ALWAYS_INLINE {
                repeat<C>([&](auto c) ALWAYS_INLINE {
                    use(row + r, (vector + c) * W, result(sum[r][c], c, scales, row + r));
                });
            });
        }
        if constexpr (R > 1) multiply<R / 2>(row, rows, a, scales, next, use);
    }
};

// Calls use(panel) with panel p of a product, whose memory is given.
template <class K, class F>
INLINE void with_panel(const Product<K>& product, int64_t p, float* memory, const F& use) {
    const int64_t vector = p * PANEL, vectors = product.vectors() - vector;
    if (vectors >= 3)
        use(Panel<K, 3>(product, vector, memory));
    else if (vectors == 2)
        use(Panel<K, 2>(product, vector, memory));
    else
        use(Panel<K, 1>(product, vector, memory));
}

// Pack panel p of a product ahead.
template <class K>
void pack_ahead(const Product<K>& product, int64_t p) {
    with_panel(product, p, (float*)product.packed_panel(p), [&](const auto& panel) ALWAYS_INLINE {
        panel.start_packing();
        panel.pack(0, product.steps());
    });
}

// Calls use(row, column, values) for every vector of `rows` rows times the weights plus the bias, in panels `first` to
// `last`.
//
// Args:
//     a: (rows, depth); in int8 with `scales`, what one step of each row stands for.
//     memory: of this thread, for scratch_words() words.
//     next: weights that are needed after the last panel, and are fetched into the cache meanwhile.
template <class K, class F>
__attribute__((noinline)) void multiply(int64_t rows, const typename K::Input* a, const float* scales,
                                        const Product<K>& product, int64_t first, int64_t last, float* memory,
                                        const char* next, const F& use) {
    float* sums = memory + product.panel_words();
    for (int64_t p = first; p < last; p++) {
        const char* then = p + 1 < last ? product.source(p + 1) : next;
        with_panel(product, p, product.packed ? (float*)product.packed_panel(p) : memory, [&](const auto& panel)
                   ALWAYS_INLINE {
            if (!product.packed) panel.start_packing();
            if (rows <= FEW_ROWS) return panel.multiply_few(rows, a, scales, sums, then, use);
            if (!product.packed) panel.pack(0, product.steps());
            panel.template multiply<TILE_ROWS>(0, rows, a, scales, then, use);
        });
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
