// Products of few rows, which fill the lanes of vectors: no weight is packed.
//
// A sum has a lane for each row. At each step along the depth it takes a vector of inputs, which are transposed before,
// times one weight, read from where it lies. A sum is taken in the same order as in panels.hpp, from the same products,
// and has the same bits.

#pragma once

#include "linear.hpp"

namespace {

#if defined(__AVX512F__)
constexpr int64_t FEW_ROWS = W;  // more take longer than to pack the weights
typedef __m256 Narrow;
typedef __m256i NarrowBits;
#else
constexpr int64_t FEW_ROWS = 2 * W;
#endif
constexpr int64_t CHUNK = 32;  // steps whose weights are brought together, in the first-level cache

// W columns at a time, for V vectors of rows.
template <class K, class Vector, class Bits, int V>
struct Lanes {
    static constexpr int LANES = sizeof(Vector) / 4, ROWS = V * LANES, COLUMNS = W < SUMS / V ? W : SUMS / V;
    static_assert(ROWS <= CHUNK && ROWS <= PANEL * W && CHUNK + ROWS <= PANEL * (HEADER + KEPT_ROWS), "scratch_words");
    const Product<K>& product;
    int64_t rows;
    float *inputs, *weights, *sums;  // (steps, ROWS), (W, CHUNK) and (W, ROWS) words

    INLINED Lanes(const Product<K>& p, int64_t r, float* memory)
        : product(p), rows(r), inputs(memory), weights(memory + ROWS * p.steps()), sums(weights + W * CHUNK) {}

    __attribute__((noinline)) void take(const float* a) const {
        const int64_t steps = product.steps();
        for (int64_t row = 0; row < ROWS; row += LANES)
            for (int64_t i = 0; i < steps; i += W) {
                const int64_t count = smaller(W, steps - i);
                vf block[W];
                repeat<W>([&](auto r) ALWAYS_INLINE {
                    block[r] = row + r < rows ? load_some(a + (row + r) * steps + i, count) : vf{};
                });
                transpose(block);
                for (int64_t s = 0; s < count; s++) memcpy(inputs + (i + s) * ROWS + row, &block[s], LANES * 4);
            }
    }

    // Bring together the weights of W columns, of `count` steps.
    INLINED void gather(const float* from, int64_t count) const {
        for (int64_t c = 0; c < W; c++, from += product.steps()) {
            if (count == CHUNK)
                memcpy(weights + c * CHUNK, from, CHUNK * 4);
            else
                memcpy(weights + c * CHUNK, from, (size_t)count * 4);
        }
    }

    // Add `count` steps to the sums of some columns; FETCH: bring the next weights into the cache meanwhile.
    template <bool FETCH>
    INLINED void add(int64_t column, const float* x, int64_t count, const char* next) const {
        Vector sum[COLUMNS][V];
        float* kept = sums + column * ROWS;
        memcpy(sum, kept, sizeof sum);
        const float* from = weights + column * CHUNK;
        for (int64_t i = 0; i < count; i++) {
            Bits input[V];
            if (FETCH) __builtin_prefetch(next + i * W * 4, 0, 0);
            memcpy(input, x + i * ROWS, sizeof input);
            repeat<COLUMNS>([&](auto c) ALWAYS_INLINE {
                int32_t group;
                memcpy(&group, from + c * CHUNK + i, 4);
                repeat<V>([&](auto v) ALWAYS_INLINE { sum[c][v] = K::plus(sum[c][v], group, input[v]); });
            });
        }
        memcpy(kept, sum, sizeof sum);
    }

    // The sums of a vector of columns, (rows, W), in the memory of the weights.
    __attribute__((noinline)) float* multiply(int64_t vector, const char* next) const {
        const float* from = (const float*)product.weights(vector);
        const auto* bias = (const typename K::Parameter*)product.layer(vector).bias + product.column(vector);
        const vf start = load(bias);
        repeat<W>([&](auto c) ALWAYS_INLINE {
            const vf value = splat(start[(int)c]);
            repeat<V>([&](auto v) ALWAYS_INLINE { memcpy(sums + c * ROWS + v * LANES, &value, LANES * 4); });
        });
        for (int64_t i = 0; i < product.steps(); i += CHUNK) {
            const int64_t count = smaller(CHUNK, product.steps() - i);
            gather(from + i, count);
            add<true>(0, inputs + i * ROWS, count, next + i * W * 4);
            for (int64_t column = COLUMNS; column < W; column += COLUMNS)
                add<false>(column, inputs + i * ROWS, count, nullptr);
        }
        for (int64_t row = 0; row < ROWS; row += LANES) {
            vf block[W];
            repeat<W>([&](auto c) ALWAYS_INLINE { block[c] = load_some(sums + c * ROWS + row, LANES); });
            transpose(block);
            repeat<LANES>([&](auto r) ALWAYS_INLINE { store(weights + (row + r) * W, block[r]); });
        }
        return weights;
    }
};

template <class Vector, class Bits, int V, class K, class F>
INLINE void multiply_lanes(int64_t rows, const typename K::Input* a, const Product<K>& product, int64_t first,
                           int64_t last, float* memory, const char* next, const F& use) {
    const Lanes<K, Vector, Bits, V> lanes(product, rows, memory);
    lanes.take((const float*)a);
    for (int64_t v = first; v < last; v++)
        use_sums<1>(lanes.multiply(v, v + 1 < last ? product.weights(v + 1) : next), rows, 0, v * W, use);
}

// Calls use(row, column, values) for the vectors of columns `first` to `last` of at most FEW_ROWS rows.
template <class K, class F>
INLINE void multiply_few(int64_t rows, const typename K::Input* a, const Product<K>& product, int64_t first,
                         int64_t last, float* memory, const char* next, const F& use) {
#if defined(__AVX512F__)
    if (rows <= W / 2)
        multiply_lanes<Narrow, NarrowBits, 1>(rows, a, product, first, last, memory, next, use);
    else
        multiply_lanes<vf, vi, 1>(rows, a, product, first, last, memory, next, use);
#else
    if (rows <= W)
        multiply_lanes<vf, vi, 1>(rows, a, product, first, last, memory, next, use);
    else
        multiply_lanes<vf, vi, 2>(rows, a, product, first, last, memory, next, use);
#endif
}

}  // namespace
