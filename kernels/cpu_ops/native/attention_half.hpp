// Self-attention of long texts whose products are in bfloat16, with sums and softmax in float32; for inference only.

#pragma once

#include "attention.hpp"

namespace {

// Tokens from which a text's products are in bfloat16: below, converting to it takes as long as it saves.
constexpr int64_t LONG = 64;

// Floats of buffer that a head of at most `length` tokens takes.
INLINE int64_t attention_half_floats(int64_t length, int64_t dim) {
    const int64_t block = larger(block_rows(length), 8);
    return dim * padded(length) + score_floats(length) + block * (2 * dim + 1) + 128;
}

#ifdef HAS_BFLOAT16

// 2 * W floats as words of two neighbours.
INLINE vf halves(vf first, vf second) { return (vf)_mm512_cvtne2ps_pbh((__m512)second, (__m512)first); }

// Words of (first[i], second[i]).
INLINE vf paired(vf first, vf second) {
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)first));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)second));
    return (vf)_mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Columns of `length` rows: to (dim / 2, padded length) words of two neighbours in a row, zeros beyond the length.
INLINE void pack_keys(const float* from, int64_t row, int64_t length, int64_t dim, float* to) {
    const int64_t wide = padded(length);
    for (int64_t i = 0; i < length; i += W)
        for (int64_t d = 0; d < dim; d += 2 * W) {
            vf block[W];
            repeat<W>([&](auto j) {
                const float* at = from + (i + j) * row + d;
                block[j] = i + j < length ? halves(load(at), load(at + W)) : vf{};
            });
            transpose(block);
            repeat<W>([&](auto j) { store(to + (d / 2 + j) * wide + i, block[j]); });
        }
}

// Rows: to (half of the rows, dim) words of two neighbours in a column, zeros beyond the length.
INLINE void pack_values(const float* from, int64_t row, int64_t length, int64_t dim, float* to) {
    for (int64_t i = 0; i < length; i += 2)
        for (int64_t d = 0; d < dim; d += W) {
            const float* at = from + i * row + d;
            store(to + i / 2 * dim + d, paired(load(at), i + 1 < length ? load(at + row) : vf{}));
        }
}

// A row of a multiple of W floats to words of two neighbours, perhaps in place.
INLINE void pack_row(const float* from, int64_t width, float* to) {
    for (int64_t i = 0; i < width; i += 2 * W)
        store(to + i / 2, halves(load(from + i), i + W < width ? load(from + i + W) : vf{}));
}

// One head of one text, as `attend` computes it; dim is a multiple of 2 * W.
template <class T>
INLINE void attend_half(const float* q, const float* k, const float* v, int64_t row, int64_t length, int64_t dim,
                        float scale, T* out, int64_t out_row, Buffer& buffer) {
    const int64_t wide = padded(length), block = block_rows(length), words = dim / 2, pairs = (length + 1) / 2;
    buffer.used = 0;
    float* keys = buffer.take(words * wide);
    float* values = buffer.take(pairs * dim);
    float* queries = buffer.take(block * words);
    float* p = buffer.take(block * wide);
    float* factor = buffer.take(block);
    float* attended = buffer.take(block * dim);
    pack_keys(k, row, length, dim, keys);
    pack_values(v, row, length, dim, values);
    for (int64_t i = 0; i < length; i += block) {
        const int64_t rows = smaller(length - i, block);
        for (int64_t r = 0; r < rows; r++) pack_row(q + (i + r) * row, dim, queries + r * words);
        product<false, Bfloat16>(rows, wide, words, queries, words, 1, keys, wide, p, wide, nullptr);
        for (int64_t r = 0; r < rows; r++) {
            factor[r] = softmax(p + r * wide, length, scale, nullptr);
            pack_row(p + r * wide, wide, p + r * wide);
        }
        product<false, Bfloat16>(rows, dim, pairs, p, wide, 1, values, dim, attended, dim, factor);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t d = 0; d < dim; d += W) store(out + (i + r) * out_row + d, load(attended + r * dim + d));
    }
}

#endif

}  // namespace
