// Self-attention that is not BERT's: a token sees a range of the tokens around it, as in sliding windows and causal
// attention, or scores have a bias.

#pragma once

#include "attention.hpp"

namespace {

constexpr int64_t WINDOW_ROWS = 32;  // queries whose keys are multiplied together, at most

// Floats between the scores of two queries: of all keys that a block of queries sees, from a whole vector on, and a
// vector that may be written beyond them.
INLINE int64_t window_row(int64_t length, int64_t before, int64_t after) {
    const int64_t reach = smaller(before, length) + smaller(after, length);
    return padded(smaller(length, WINDOW_ROWS + reach) + W) + W;
}

// Floats of buffer that a head of at most `length` tokens takes.
INLINE int64_t window_floats(int64_t length, int64_t dim) {
    return dim * padded(length) + larger(SCORES, 8 * window_row(length, length, length)) + WINDOW_ROWS * (dim + 1) + 64;
}

// One head of one text, as attend(); token i sees the tokens from i - before to i + after. Keys that no query of a
// block sees are left out. bias: null, or what is added to unscaled scores, by the distance from query to key.
template <class T>
__attribute__((noinline)) void attend_near(const float* q, const float* k, const float* v, int64_t row, int64_t length,
                                           int64_t dim, float scale, int64_t before, int64_t after,
                                           const float* bias, T* out, int64_t out_row, Buffer& buffer) {
    const int64_t wide = padded(length), step = window_row(length, before, after);
    const int64_t block = larger(8, smaller(WINDOW_ROWS, SCORES / step / 8 * 8));
    buffer.used = 0;
    float* keys = buffer.take(dim * wide);
    float* p = buffer.take(block * step);
    float* factor = buffer.take(block);
    float* attended = buffer.take(block * dim);
    pack_transposed(k, row, length, dim, keys);
    for (int64_t i = 0; i < length; i += block) {
        const int64_t rows = smaller(length - i, block);
        const int64_t from = larger(0, i - before) / W * W, to = smaller(length, i + rows + after);
        const int64_t columns = padded(to - from);
        product<false>(rows, columns, dim, q + i * row, row, 1, keys + from, wide, p, step, nullptr);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t first = larger(0, i + r - before) - from, end = smaller(length, i + r + after + 1) - from;
            float* scores = p + r * step;
            if (bias) {
                const float* added = bias + (from - i - r);
                for (int64_t j = 0; j < columns; j += W) store(scores + j, load(scores + j) + load(added + j));
            }
            factor[r] = softmax(scores + first, end - first, scale, nullptr);
            memset(scores, 0, (size_t)first * 4);
            memset(scores + end, 0, (size_t)(columns - end) * 4);
        }
        product<false>(rows, dim, to - from, p, step, 1, v + from * row, row, attended, dim, factor);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t d = 0; d < dim; d += W) store(out + (i + r) * out_row + d, load(attended + r * dim + d));
    }
}

}  // namespace
