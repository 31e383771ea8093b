// Matrix products with weights as torch stores them: row-major, (columns, depth).
//
// Weights are packed a panel at a time, right before the panel is used, into memory of the calling thread that stays
// in its cache. No packed weight outlives the forward pass, so none can go stale. In a panel of up to PANEL vectors of
// columns, each step along the depth holds GROUP weights of every column, which fill 32 bits. Each sum is taken in the
// order of the depth, starting from the bias, for any number of rows and threads: the product of a row has the same
// bits in any batch.

#pragma once

#include "products.hpp"

extern "C" {

// A linear layer. In int8 the weight is packed, and the inputs are multiplied with their factors first.
struct Linear {
    const void *weight, *bias;  // (columns, depth), (columns,)
    const float* factors;       // (depth,), of int8 only
};
}

namespace {

constexpr int64_t FLOAT32 = 1, BFLOAT16 = 2, INT8 = 4;  // dtypes of products, as native.py numbers them
constexpr int64_t MOST_ROWS = 384;  // tokens that a thread takes through all layers together, if texts are short
constexpr int PANEL = 3;  // vectors of columns; the sums of a tile have to fit the registers
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#else
constexpr int TILE_ROWS = 4;
#endif
constexpr int HEADER = 1;  // vectors before the weights of each vector of columns: its bias
// With few rows, weights are packed CHUNK steps at a time, which stay in the first-level cache until they are used.
constexpr int64_t FEW_ROWS = 16, CHUNK = 32;
constexpr int64_t KEPT_ROWS = 32;  // whose sums are kept in memory between two parts of the depth, at most

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

    // Words of memory for a packed panel with its header.
    INLINED int64_t panel_words() const { return PANEL * W * (HEADER + steps()); }
};

// Memory of a thread for a packed panel, and for sums of its columns.
template <class K>
INLINE int64_t scratch_words(int64_t depth) {
    return PANEL * W * (HEADER + KEPT_ROWS + depth / K::GROUP);
}

// A use of sums with many constants. It is a function of its own, which reads them from memory: the compiler would keep
// the constants in registers that the sums need.
template <class F>
struct Apart {
    F use;
};
template <class F>
Apart(F) -> Apart<F>;

// Calls use(row, column, values) for every vector of sums, of `rows` rows of C vectors.
template <int C, class F>
INLINE void use_sums(const float* sums, int64_t rows, int64_t row, int64_t column, const F& use) {
#pragma GCC unroll 1
    for (int64_t r = 0; r < rows; r++)
        repeat<C>([&](auto c) ALWAYS_INLINE { use(row + r, column + c * W, load(sums + (r * C + c) * W)); });
}

template <int C, class F>
__attribute__((noinline)) void use_sums(const float* sums, int64_t rows, int64_t row, int64_t column,
                                        const Apart<F>& apart) {
    use_sums<C>(sums, rows, row, column, apart.use);
}

template <int R, int C, class F>
INLINE void use_sums(const vf (&sum)[R][C], int64_t row, int64_t column, const F& use) {
    repeat<R>([&](auto r) ALWAYS_INLINE {
        repeat<C>([&](auto c) ALWAYS_INLINE { use(row + r, column + c * W, sum[r][c]); });
    });
}

// A tile of sums to memory, from which a function apart reads it.
template <int R, int C>
INLINE void store_sums(const vf (&sum)[R][C], float* sums) {
    repeat<R>([&](auto r) { repeat<C>([&](auto c) { store(sums + (r * C + c) * W, sum[r][c]); }); });
}

template <int R, int C, class F>
INLINE void use_sums(const vf (&sum)[R][C], int64_t row, int64_t column, const Apart<F>& apart) {
    alignas(64) float sums[R * C * W];
    store_sums(sum, sums);
    use_sums<C>(sums, R, row, column, apart);
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
        });
    }

    // Pack the steps `from` to `to` of the depth.
    __attribute__((noinline)) void pack(int64_t from, int64_t to) const {
        for (int64_t c = 0; c < C; c++) {
            const char* weights = product.weights(vector + c);
            int32_t* out = packed + c * W;
            int64_t i = from;
            for (; i + W <= to; i += W, out += W * C * W) pack_block<true>(weights + i * 4, W, out);
            if (i < to) pack_block<false>(weights + i * 4, to - i, out);
        }
    }

    // W columns of weights, of W steps or of `count`.
    template <bool ALL>
    INLINED void pack_block(const char* weights, int64_t count, int32_t* out) const {
        const int64_t row = product.steps() * 4;
        vf block[W];
        repeat<W>([&](auto c) ALWAYS_INLINE {
            block[c] = ALL ? load((const float*)weights) : load_some((const float*)weights, count);
            weights += row;
            asm("" : "+r"(weights));  // one pointer that moves is faster than the W that the compiler would keep
        });
        transpose(block);
        repeat<W>([&](auto s) ALWAYS_INLINE {
            if (ALL || s < count) memcpy(out + s * C * W, &block[s], 4 * W);
        });
    }

    template <int R>
    INLINED void start(typename K::Sum (&sum)[R][C]) const {
        repeat<C>([&](auto c) {
            sum[0][c] = load(header + c * W);
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
    INLINED void multiply_few(int64_t rows, const typename K::Input* a, float* sums, const char* next,
                              const F& use) const {
        const int64_t steps = product.steps(), tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
        for (int64_t from = 0; from < steps; from += CHUNK) {
            const int64_t to = smaller(from + CHUNK, steps);
            pack(from, to);
            for (int64_t t = 0; t < tiles; t++) {
                const int64_t row = rows * t / tiles, height = rows * (t + 1) / tiles - row;
                repeat<TILE_ROWS>([&](auto r) {
                    if (height == r + 1) chunk<r + 1>(row, from, to, a, sums, next);
                });
            }
        }
        use_sums<C>(sums, rows, 0, vector * W, use);
    }

    // The packed panel for rows from `row` on. The first tiles fetch the next panel.
    template <int R, class F>
    INLINED void multiply(int64_t row, int64_t rows, const typename K::Input* a, const char* next, const F& use) const {
        const int64_t steps = product.steps();
        for (; rows - row >= R; row += R) {
            typename K::Sum sum[R][C];
            start(sum);
            if (R == TILE_ROWS && row < LINES * R)
                accumulate<R, 1>(sum, a + row * product.depth, steps, next + row / R * steps * 64);
            else
                accumulate<R, 0>(sum, a + row * product.depth, steps, nullptr);
            use_sums<R, C>(sum, row, vector * W, use);
        }
        if constexpr (R > 1) multiply<R / 2>(row, rows, a, next, use);
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

// Calls use(row, column, values) for every vector of `rows` rows times the weights plus the bias, in panels `first` to
// `last`.
//
// Args:
//     a: (rows, depth).
//     memory: of this thread, for scratch_words() words.
//     next: weights that are needed after the last panel, and are fetched into the cache meanwhile.
template <class K, class F>
__attribute__((noinline)) void multiply(int64_t rows, const typename K::Input* a, const float*,
                                        const Product<K>& product, int64_t first, int64_t last, float* memory,
                                        const char* next, const F& use) {
    float* sums = memory + product.panel_words();
    for (int64_t p = first; p < last; p++) {
        const char* then = p + 1 < last ? product.weights((p + 1) * PANEL) : next;
        with_panel(product, p, memory, [&](const auto& panel) ALWAYS_INLINE {
            panel.start_packing();
            if (rows <= FEW_ROWS) return panel.multiply_few(rows, a, sums, then, use);
            panel.pack(0, product.steps());
            panel.template multiply<TILE_ROWS>(0, rows, a, then, use);
        });
    }
}

}  // namespace
