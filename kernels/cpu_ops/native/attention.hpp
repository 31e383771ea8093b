// Self-attention within each text of a packed batch.

#pragma once

#include "products.hpp"
#include "random.hpp"
#include "threads.hpp"

namespace {

INLINE int64_t padded(int64_t length) { return (length + W - 1) / W * W; }

constexpr int64_t SCORES = 8192;  // floats of scores that are worked on at a time

INLINE int64_t block_rows(int64_t length) {
    if (length <= 0) return 0;
    const int64_t fit = SCORES / padded(length) / 8 * 8;
    return fit < 8 ? 8 : fit < length ? fit : length;
}

// Columns of `length` rows: to (dim, padded length), zeros beyond the length.
INLINE void pack_transposed(const float* from, int64_t row, int64_t length, int64_t dim, float* to) {
    const int64_t wide = padded(length);
    for (int64_t i = 0; i < length; i += W)
        for (int64_t d = 0; d < dim; d += W) {
            vf block[W];
            repeat<W>([&](auto j) { block[j] = i + j < length ? load(from + (i + j) * row + d) : vf{}; });
            transpose(block);
            repeat<W>([&](auto j) { store(to + (d + j) * wide + i, block[j]); });
        }
}

// Scores to exp(scale * (score - largest)), and 1 / their sum; logarithm of the sum of exp(scale * score).
INLINE float softmax(float* row, int64_t length, float scale, float* lse) {
    const int64_t full = length / W * W;
    const vi seen = lanes() < (int32_t)(length - full);
    vf top = splat(-INFINITY);
    for (int64_t i = 0; i < full; i += W) top = max(top, load(row + i));
    if (full < length) top = max(top, seen ? load(row + full) : top);
    const float most = largest(top);
    const vf shift = splat(-most * scale);
    vf sum = {};
    for (int64_t i = 0; i < full; i += W) {
        const vf p = exp(load(row + i) * scale + shift);
        store(row + i, p);
        sum += p;
    }
    if (full < length) {
        const vf p = seen ? exp(load(row + full) * scale + shift) : vf{};
        store(row + full, p);
        sum += p;
    }
    const float all = total(sum);
    if (lse) *lse = most * scale + logf(all);
    return 1.0f / all;
}

// What dropout and the backward pass need: row r of a head has the number first + r * step.
struct Rows {
    uint32_t threshold = 0;
    float keep_scale = 1;
    uint64_t seed = 0;
    float* lse = nullptr;
    int64_t first = 0, step = 0;
};

// Floats of the scores that are worked on at a time, for a text of at most `length` tokens.
INLINE int64_t score_floats(int64_t length) {
    return larger(SCORES, larger(block_rows(length), 8) * padded(length));
}

// Floats of buffer that a head of at most `length` tokens takes.
INLINE int64_t attention_floats(int64_t length, int64_t dim) {
    return dim * padded(length) + score_floats(length) + length * (dim + 1) + 64;
}

// One head of one text. q, k and v: (length, dim), rows `row` apart; out: rows `out_row` apart, float32 or bfloat16.
template <class T>
INLINE void attend(const float* q, const float* k, const float* v, int64_t row, int64_t length, int64_t dim,
                   float scale, T* out, int64_t out_row, Buffer& buffer, const Rows& numbered) {
    const int64_t wide = padded(length), block = block_rows(length);
    buffer.used = 0;
    float* keys = buffer.take(dim * wide);
    float* p = buffer.take(block * wide);
    float* factor = buffer.take(block);
    float* attended = buffer.take(block * dim);
    pack_transposed(k, row, length, dim, keys);
    for (int64_t i = 0; i < length; i += block) {
        const int64_t rows = length - i < block ? length - i : block;
        product<false>(rows, wide, dim, q + i * row, row, 1, keys, wide, p, wide, nullptr);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t number = numbered.first + (i + r) * numbered.step;
            factor[r] = softmax(p + r * wide, length, scale, numbered.lse ? numbered.lse + number : nullptr);
            if (!numbered.threshold) continue;
            const Dropout drop = Dropout::row(numbered.seed, (uint64_t)number, numbered.threshold, numbered.keep_scale);
            for (int64_t j = 0; j < wide; j += W) store(p + r * wide + j, drop(load(p + r * wide + j), j));
        }
        T* to = out + i * out_row;
        if constexpr (sizeof(T) == 4) {
            product<false>(rows, dim, length, p, wide, 1, v, row, to, out_row, factor);
        } else {
            product<false>(rows, dim, length, p, wide, 1, v, row, attended, dim, factor);
            for (int64_t r = 0; r < rows; r++)
                for (int64_t d = 0; d < dim; d += W) store(to + r * out_row + d, load(attended + r * dim + d));
        }
    }
}

// Floats of buffer that the backward pass of a head of at most `length` tokens takes.
INLINE int64_t attention_backward_floats(int64_t length, int64_t dim) {
    return 2 * dim * padded(length) + 2 * score_floats(length) + 6 * length * dim + 256;
}

// A head's rows in float32: as they are, or converted into the buffer.
template <class T>
INLINE const float* head_rows(const T* from, int64_t& row, int64_t length, int64_t dim, Buffer& buffer) {
    if constexpr (sizeof(T) == 4) {
        return from;
    } else {
        float* to = buffer.take(length * dim);
        for (int64_t i = 0; i < length; i++)
            for (int64_t d = 0; d < dim; d += W) store(to + i * dim + d, load(from + i * row + d));
        row = dim;
        return to;
    }
}

// The backward pass of one head of one text. Weights are computed again from the forward pass's `numbered.lse`.
//
// Args:
//     q, k, v: (length, dim), rows `row` apart, as the gradients d_q, d_k and d_v; float32 or bfloat16.
//     out: what the forward pass gave, and its gradient `d_out`: rows `out_row` apart.
template <class T>
INLINE void attend_backward(const T* q_rows, const T* k_rows, const T* v_rows, int64_t row, int64_t length,
                            int64_t dim, float scale, const T* out, const float* d_out, int64_t out_row, T* d_q_rows,
                            T* d_k_rows, T* d_v_rows, Buffer& buffer, const Rows& numbered) {
    constexpr bool IN_PLACE = sizeof(T) == 4;
    const int64_t wide = padded(length), block = block_rows(length);
    buffer.used = 0;
    int64_t from_row = row;
    const float* q = head_rows(q_rows, from_row, length, dim, buffer);
    const float* k = head_rows(k_rows, from_row = row, length, dim, buffer);
    const float* v = head_rows(v_rows, from_row = row, length, dim, buffer);
    const int64_t to_row = IN_PLACE ? row : dim;
    const auto gradient = [&](T* rows) {
        if constexpr (IN_PLACE)
            return rows;
        else
            return buffer.take(length * dim);
    };
    float *d_q = gradient(d_q_rows), *d_k = gradient(d_k_rows), *d_v = gradient(d_v_rows);
    float* keys = buffer.take(dim * wide);
    float* values = buffer.take(dim * wide);
    pack_transposed(k, from_row, length, dim, keys);
    pack_transposed(v, from_row, length, dim, values);
    float* p = buffer.take(block * wide);
    float* d_p = buffer.take(block * wide);
    for (int64_t i = 0; i < length; i += block) {
        const int64_t rows = smaller(length - i, block);
        const float* grad = d_out + i * out_row;
        product<false>(rows, wide, dim, q + i * from_row, from_row, 1, keys, wide, p, wide, nullptr);
        product<false>(rows, wide, dim, grad, out_row, 1, values, wide, d_p, wide, nullptr);
        for (int64_t r = 0; r < rows; r++) {
            vf dot = {};
            for (int64_t d = 0; d < dim; d += W) dot += load(grad + r * out_row + d) * load(out + (i + r) * out_row + d);
            const float delta = total(dot);
            const int64_t number = numbered.first + (i + r) * numbered.step;
            const Dropout drop = Dropout::row(numbered.seed, (uint64_t)number, numbered.threshold, numbered.keep_scale);
            float *weights = p + r * wide, *gradients = d_p + r * wide;
            for (int64_t j = 0; j < wide; j += W) {  // columns beyond the text are not read
                const vf weight = exp(load(weights + j) * scale - numbered.lse[number]);
                vf kept = weight, gradient = load(gradients + j);
                if (numbered.threshold) {
                    const vf factor = drop(splat(1.0f), j);
                    kept *= factor, gradient *= factor;
                }
                store(weights + j, kept);
                store(gradients + j, weight * (gradient - delta) * scale);
            }
        }
        product<false>(rows, dim, length, d_p, wide, 1, k, from_row, d_q + i * to_row, to_row, nullptr);
        if (i == 0) {
            product<false>(length, dim, rows, d_p, 1, wide, q + i * from_row, from_row, d_k, to_row, nullptr);
            product<false>(length, dim, rows, p, 1, wide, grad, out_row, d_v, to_row, nullptr);
        } else {
            product<true>(length, dim, rows, d_p, 1, wide, q + i * from_row, from_row, d_k, to_row, nullptr);
            product<true>(length, dim, rows, p, 1, wide, grad, out_row, d_v, to_row, nullptr);
        }
    }
    if constexpr (!IN_PLACE)
        for (int64_t i = 0; i < length; i++)
            for (int64_t d = 0; d < dim; d += W) {
                store(d_q_rows + i * row + d, load(d_q + i * dim + d));
                store(d_k_rows + i * row + d, load(d_k + i * dim + d));
                store(d_v_rows + i * row + d, load(d_v + i * dim + d));
            }
}

}  // namespace
