// Linear layers with weights as torch stores them: row-major, (columns, depth); and the use of their sums.

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
};

// Memory of a thread: for a packed panel and sums of its columns, or for what Lanes has.
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
    repeat<R>([&](auto r) ALWAYS_INLINE {
        repeat<C>([&](auto c) ALWAYS_INLINE { store(sums + (r * C + c) * W, sum[r][c]); });
    });
}

template <int R, int C, class F>
INLINE void use_sums(const vf (&sum)[R][C], int64_t row, int64_t column, const Apart<F>& apart) {
    alignas(64) float sums[R * C * W];
    store_sums(sum, sums);
    use_sums<C>(sums, R, row, column, apart);
}

}  // namespace
