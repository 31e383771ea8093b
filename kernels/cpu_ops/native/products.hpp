// What a product multiplies at a time, by dtype; and the products of the small matrices of attention.

#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "vectors.hpp"

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int COLUMNS = 4;  // largest tile of a product, in vectors; its sums have to fit the registers
constexpr int SUMS = 16;
#else
constexpr int COLUMNS = 2;
constexpr int SUMS = 8;
#endif

namespace {

// GROUP numbers that follow each other along the depth fill a word of 32 bits.
struct Float32 {
    typedef float Input;
    typedef float Parameter;  // biases, normalizations and embedding tables
    typedef vf Sum;
    static constexpr int GROUP = 1;
    template <class S, class B>  // vectors of any width
    INLINE S plus(S sum, int32_t group, B others) {
        float x;
        memcpy(&x, &group, 4);
        return sum + x * (S)others;
    }
};

#if defined(__AVX512BF16__)
#define HAS_BFLOAT16
struct Bfloat16 {
    typedef bf16 Input;
    typedef bf16 Parameter;
    typedef vf Sum;
    static constexpr int GROUP = 2;
    INLINE vf plus(vf sum, int32_t group, vi others) {
        return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(group), (__m512bh)others);
    }
    INLINE __m256 plus(__m256 sum, int32_t group, __m256i others) {
        return _mm256_dpbf16_ps(sum, (__m256bh)_mm256_set1_epi32(group), (__m256bh)others);
    }
};
#endif

// out (R, C * W) = factor * a (R, k) b (k, C * W), or added to out. `a` may be transposed: it has both strides. The
// elements of a and b are words.
template <class K, int R, int C, bool ADD>
INLINE void tile(int64_t k, const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row, float* out,
                 int64_t out_row, const float* factor) {
    vf sum[R][C];
    repeat<R>([&](auto r) { repeat<C>([&](auto c) { sum[r][c] = vf{}; }); });
    for (int64_t i = 0; i < k; i++) {
        vi right[C];
        repeat<C>([&](auto c) { right[c] = bits(load(b + i * b_row + c * W)); });
        repeat<R>([&](auto r) {
            int32_t left;
            memcpy(&left, a + r * a_row + i * a_column, 4);
            repeat<C>([&](auto c) { sum[r][c] = K::plus(sum[r][c], left, right[c]); });
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

template <class K, int R, int C, bool ADD>
INLINE int64_t strip(int64_t from, int64_t rows, int64_t k, const float* a, int64_t a_row, int64_t a_column,
                     const float* b, int64_t b_row, float* out, int64_t out_row, const float* factor) {
    for (; rows - from >= R; from += R)
        tile<K, R, C, ADD>(k, a + from * a_row, a_row, a_column, b, b_row, out + from * out_row, out_row,
                        factor ? factor + from : nullptr);
    if constexpr (R > 1)
        return strip<K, R / 2, C, ADD>(from, rows, k, a, a_row, a_column, b, b_row, out, out_row, factor);
    return from;
}

constexpr int tile_rows(int c) { return c * 8 <= SUMS ? 8 : c * 4 <= SUMS ? 4 : 2; }

// out (rows, columns) = factor * a (rows, k) b (k, columns), or added to out; columns is a multiple of W.
template <bool ADD, class K = Float32>
__attribute__((noinline)) void product(int64_t rows, int64_t columns, int64_t k, const float* a, int64_t a_row,
                                       int64_t a_column, const float* b, int64_t b_row, float* out, int64_t out_row,
                                       const float* factor) {
    for (int64_t at = 0; at < columns;) {
        const int64_t left = (columns - at) / W;
        const float* from = b + at;
        float* to = out + at;
#define STRIP(C) strip<K, tile_rows(C), C, ADD>(0, rows, k, a, a_row, a_column, from, b_row, to, out_row, factor)
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
