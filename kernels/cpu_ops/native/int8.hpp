// Matrix products in int8, with weights and inputs quantized in blocks of the depth.
//
// The weights are as quantized.py packs them, in strips of W columns. For each BLOCK inputs a strip has a vector of what
// the inputs' zero takes away, a vector of scales, and then a vector for each step: 4 weights of every column, which
// fill 32 bits. Inputs are 0 to 255 with their zero at 128, and have a scale for each row and block.

#pragma once

#include "linear.hpp"

namespace {

constexpr int64_t BLOCK = 96;
constexpr float LEAST = 1e-36f;  // largest value of a block that counts as zeros

INLINE int64_t block_count(int64_t depth) { return (depth + BLOCK - 1) / BLOCK; }

// Quantize a row, times a factor for each column, to whole numbers from -127 to 127, plus 128; for each block what one
// step stands for (0 for a block of zeros).
template <class T>
INLINE void quantize(int64_t depth, const T* row, const float* factors, uint8_t* out, float* scales) {
    for (int64_t from = 0; from < depth; from += BLOCK) {
        const int64_t to = smaller(from + BLOCK, depth);
        vi top = {};  // the bits of absolute values, which have the order of the values, infinity and NaN last
        for (int64_t d = from; d < to; d += W)
            top = max(top, bits(abs(rounded(load(row + d) * load(factors + d)))));
        const int32_t largest_bits = largest(top);
        float most;
        memcpy(&most, &largest_bits, 4);
        if (most == INFINITY) most = NAN;
        const float by = most > LEAST ? 127.0f / most : 0.0f;
        for (int64_t d = from; d < to; d += W) {
            const vf scaled = rounded(rounded(load(row + d) * load(factors + d)) * by);
            const vi whole = (bits(scaled + ROUND) - bits(splat(ROUND))) + 128;
            const vb narrow = __builtin_convertvector(whole, vb);
            memcpy(out + d, &narrow, sizeof narrow);
        }
        *scales++ = most / 127.0f;
    }
}

}  // namespace

#if defined(__AVX512VNNI__)
#define HAS_INT8

namespace {

struct Int8 {
    typedef uint8_t Input;
    typedef float Parameter;
    static constexpr int GROUP = 4;
};

// Words of a strip, and of one block of it.
INLINE int64_t strip_words(int64_t depth) { return W * (2 * block_count(depth) + depth / 4); }
constexpr int64_t BLOCK_WORDS = W * (2 + BLOCK / 4);

INLINE vi load_words(const int32_t* words) {
    vi v;
    memcpy(&v, words, sizeof v);
    return v;
}

// Add the products of a block to the sums of R rows, (R, C * W). `strip`: words between the C strips.
template <int R, int C, bool FETCH>
__attribute__((noinline)) void add_block(const int32_t* block, int64_t strip, int64_t steps, const uint8_t* a,
                                         int64_t depth, const float* scales, float* sums) {
    vi sum[R][C];
    repeat<C>([&](auto c) {
        sum[0][c] = load_words(block + c * strip);
        repeat<R - 1>([&](auto r) { sum[r + 1][c] = sum[0][c]; });
    });
    const int32_t* at = block + 2 * W;
    for (int64_t i = 0; i < steps; i++, at += W) {
        vi weights[C];
        repeat<C>([&](auto c) {
            weights[c] = load_words(at + c * strip);
            if (FETCH) __builtin_prefetch(at + (C + c) * strip, 0, 3);  // the next panel
        });
        repeat<R>([&](auto r) {
            int32_t group;
            memcpy(&group, a + r * depth + i * 4, 4);
            const __m512i inputs = _mm512_set1_epi32(group);
            repeat<C>([&](auto c) {
                sum[r][c] = (vi)_mm512_dpbusd_epi32((__m512i)sum[r][c], inputs, (__m512i)weights[c]);
            });
        });
    }
    const int64_t blocks = block_count(depth);
    repeat<C>([&](auto c) {
        const vf by = (vf)load_words(block + c * strip + W);
        repeat<R>([&](auto r) {
            float* to = sums + (r * C + c) * W;
            store(to, load(to) + __builtin_convertvector(sum[r][c], vf) * (by * scales[r * blocks]));
        });
    });
}

// C vectors of columns of some rows, times the weights plus the bias.
template <int C, class F>
INLINE void multiply_strips(int64_t rows, const uint8_t* a, const float* scales, const Product<Int8>& product,
                            int64_t vector, float* sums, const F& use) {
    const int64_t depth = product.depth, strip = strip_words(depth), blocks = block_count(depth);
    const int32_t* words = (const int32_t*)product.layer(vector).weight + product.column(vector) / W * strip;
    // Rows take turns with a block of weights while it is in the first-level cache.
    for (int64_t from = 0; from < rows; from += KEPT_ROWS) {
        const int64_t count = smaller(rows - from, KEPT_ROWS), tiles = (count + TILE_ROWS - 1) / TILE_ROWS;
        repeat<C>([&](auto c) {
            const vf bias = load((const float*)product.layer(vector + c).bias + product.column(vector + c));
            for (int64_t r = 0; r < count; r++) store(sums + (r * C + c) * W, bias);
        });
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t steps = smaller(BLOCK, depth - b * BLOCK) / 4;
            for (int64_t t = 0; t < tiles; t++) {
                const int64_t row = count * t / tiles, height = count * (t + 1) / tiles - row;
                const auto add = [&](auto r, auto fetch) ALWAYS_INLINE {
                    add_block<r, C, fetch>(words + b * BLOCK_WORDS, strip, steps,
                                           a + (from + row) * depth + b * BLOCK, depth,
                                           scales + (from + row) * blocks + b, sums + row * C * W);
                };
                repeat<TILE_ROWS>([&](auto r) ALWAYS_INLINE {
                    if (height != r + 1) return;
                    const std::integral_constant<int, r + 1> rows_of_tile;
                    from + row == 0 ? add(rows_of_tile, std::true_type()) : add(rows_of_tile, std::false_type());
                });
            }
        }
        use_sums<C>(sums, count, from, vector * W, use);
    }
}

template <class F>
__attribute__((noinline)) void multiply(int64_t rows, const uint8_t* a, const float* scales,
                                        const Product<Int8>& product, int64_t first, int64_t last, float* memory,
                                        const char*, const F& use) {
    for (int64_t p = first; p < last; p++) {
        // The strips of a panel are of one layer, or are taken one by one.
        const int64_t vector = p * PANEL, vectors = smaller(product.vectors() - vector, PANEL);
        const bool together = &product.layer(vector) == &product.layer(vector + vectors - 1);
        if (vectors == 3 && together)
            multiply_strips<3>(rows, a, scales, product, vector, memory, use);
        else if (vectors == 2 && together)
            multiply_strips<2>(rows, a, scales, product, vector, memory, use);
        else
            for (int64_t v = vector; v < vector + vectors; v++)
                multiply_strips<1>(rows, a, scales, product, v, memory, use);
    }
}

}  // namespace

#endif
