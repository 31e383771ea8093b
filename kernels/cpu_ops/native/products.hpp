// Products of the small matrices of attention.

#pragma once

#include "vectors.hpp"


#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int COLUMNS = 4;  // largest tile of a product, in vectors; its sums have to fit the registers
constexpr int SUMS = 16;
#else
constexpr int COLUMNS = 2;
constexpr int SUMS = 8;
#endif

namespace {

// out (R, C * W) = factor * a (R, k) b (k, C * W), or added to out. `a` may be transposed: it has both strides.
template <int R, int C, bool ADD>
INLINE void tile(int64_t k, const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row, float* out,
                 int64_t out_row, const float* factor) {
    vf sum[R][C];
    repeat<R>([&](auto r) { repeat<C>([&](auto c) { sum[r][c] = vf{}; }); });
    for (int64_t i = 0; i < k; i++) {
        vf right[C];
        repeat<C>([&](auto c) { right[c] = load(b + i * b_row + c * W); });
        repeat<R>([&](auto r) {
            const vf left = splat(a[r * a_row + i * a_column]);
            repeat<C>([&](auto c) { sum[r][c] += left * right[c]; });
        });
    }
    repeat<R>([&](auto r) {
        const float by = factor ? factor[r] : 1.0f;
        repeat<C>([&](auto c) {
            float* to = out + r * out_row + c * W;
            store(to, ADD ? load(to) + sum[r][c] : sum[r][c] * by);
        });
    });
}

template <int R, int C, bool ADD>
INLINE int64_t strip(int64_t from, int64_t rows, int64_t k, const float* a, int64_t a_row, int64_t a_column,
                     const float* b, int64_t b_row, float* out, int64_t out_row, const float* factor) {
    for (; rows - from >= R; from += R)
        tile<R, C, ADD>(k, a + from * a_row, a_row, a_column, b, b_row, out + from * out_row, out_row,
                        factor ? factor + from : nullptr);
    if constexpr (R > 1)
        return strip<R / 2, C, ADD>(from, rows, k, a, a_row, a_column, b, b_row, out, out_row, factor);
    return from;
}

constexpr int tile_rows(int c) { return c * 8 <= SUMS ? 8 : c * 4 <= SUMS ? 4 : 2; }

// out (rows, columns) = factor * a (rows, k) b (k, columns), or added to out; columns is a multiple of W.
template <bool ADD>
__attribute__((noinline)) void product(int64_t rows, int64_t columns, int64_t k, const float* a, int64_t a_row,
                                       int64_t a_column, const float* b, int64_t b_row, float* out, int64_t out_row,
                                       const float* factor) {
    for (int64_t at = 0; at < columns;) {
        const int64_t left = (columns - at) / W;
        const float* from = b + at;
        float* to = out + at;
#define STRIP(C) strip<tile_rows(C), C, ADD>(0, rows, k, a, a_row, a_column, from, b_row, to, out_row, factor)
        if (COLUMNS >= 4 && left >= 4) {
            STRIP(4), at += 4 * W;
        } else if (COLUMNS >= 4 && left == 3) {
            STRIP(3), at += 3 * W;
        } else if (left >= 2) {
            STRIP(2), at += 2 * W;
        } else {
            STRIP(1), at += W;
        }
#undef STRIP
    }
}

}  // namespace
