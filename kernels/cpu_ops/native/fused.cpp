// What an encoder computes between its matrix products, over packed tokens, in one pass each.
//
// Plain C functions over pointers and sizes. Matrices are row-major; a packed batch of `texts` texts has the rows
// offsets[t] to offsets[t + 1] for text t.

#include "attention.hpp"
#include "norm.hpp"

extern "C" {

// qkv (tokens, 3 * heads * dim) to out (tokens, heads * dim); lse (tokens, heads) for the backward pass, or null.
// Dropout: row token * heads + head, column the key's place in its text.
void EXPORT(attention_forward)(const float* qkv, float* out, const int32_t* offsets, int64_t texts, int64_t heads,
                               int64_t dim, float scale, uint32_t threshold, float keep_scale, uint64_t seed,
                               float* lse) {
    const int64_t width = heads * dim, row = 3 * width, floats = attention_floats(longest(offsets, texts), dim);
    each_text(offsets, texts, heads, 20.0 * (double)dim, 2.0 * (double)dim, floats, [&](int64_t t, int64_t h,
                                                                                       Buffer& buffer) {
        const int64_t start = offsets[t], length = offsets[t + 1] - start;
        const float* q = qkv + start * row + h * dim;
        const Rows numbered = {threshold, keep_scale, seed, lse, start * heads + h, heads};
        attend(q, q + width, q + 2 * width, row, length, dim, scale, out + start * width + h * dim, width, buffer,
               numbered);
    });
}

// Writes d_qkv (tokens, 3 * heads * dim). The weights are computed again from lse.
void EXPORT(attention_backward)(const float* qkv, const float* out, const float* d_out, float* lse, float* d_qkv,
                                const int32_t* offsets, int64_t texts, int64_t heads, int64_t dim, float scale,
                                uint32_t threshold, float keep_scale, uint64_t seed) {
    const int64_t width = heads * dim, row = 3 * width;
    const int64_t floats = attention_backward_floats(longest(offsets, texts), dim);
    each_text(offsets, texts, heads, 40.0 * (double)dim, 5.0 * (double)dim, floats, [&](int64_t t, int64_t h,
                                                                                       Buffer& buffer) {
        const int64_t start = offsets[t], length = offsets[t + 1] - start;
        if (!length) return;
        const float* q = qkv + start * row + h * dim;
        float* d_q = d_qkv + start * row + h * dim;
        const Rows numbered = {threshold, keep_scale, seed, lse, start * heads + h, heads};
        attend_backward(q, q + width, q + 2 * width, row, length, dim, scale, out + start * width + h * dim,
                        d_out + start * width + h * dim, width, d_q, d_q + width, d_q + 2 * width, buffer, numbered);
    });
}

// out = normalized(dropout(x) + residual) * weight + bias. residual, xhat (the normalized values) and rstd may be null.
// Dropout: row the token, column the dimension.
void EXPORT(add_norm_forward)(int64_t tokens, int64_t dim, const float* x, const float* residual,
                              const float* weight, const float* bias, float eps, float* out, float* xhat,
                              float* rstd, uint32_t threshold, float keep_scale, uint64_t seed) {
#pragma omp parallel if (tokens * dim > SMALL)
    {
        Buffer buffer(dim);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tokens; i++) {
            float* row = xhat ? xhat + i * dim : buffer.data;
            const Dropout drop = Dropout::row(seed, (uint64_t)i, threshold, keep_scale);
            for (int64_t d = 0; d < dim; d += W) {
                vf sum = load(x + i * dim + d);
                if (threshold) sum = drop(sum, d);
                if (residual) sum += load(residual + i * dim + d);
                store(row + d, sum);
            }
            const float inverse = standardize(row, dim, eps);
            if (rstd) rstd[i] = inverse;
            affine(row, weight, bias, dim, out + i * dim);
        }
    }
}

// d_sum is the gradient of dropout(x) + residual, which is the residual's too; d_x may be null without dropout.
void EXPORT(add_norm_backward)(int64_t tokens, int64_t dim, const float* d_out, const float* xhat,
                               const float* rstd, const float* weight, float* d_x, float* d_sum, float* d_weight,
                               float* d_bias, uint32_t threshold, float keep_scale, uint64_t seed) {
    const int64_t block = tokens > 64 * 32 ? (tokens + 63) / 64 : 32, blocks = (tokens + block - 1) / block;
    Buffer buffer(blocks * 2 * dim);
#pragma omp parallel if (tokens * dim > SMALL)
    {
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; b++) {
            float *weights = buffer.data + b * 2 * dim, *biases = weights + dim;
            memset(weights, 0, (size_t)dim * 8);
            const int64_t end = (b + 1) * block < tokens ? (b + 1) * block : tokens;
            for (int64_t i = b * block; i < end; i++) {
                const Dropout drop = Dropout::row(seed, (uint64_t)i, threshold, keep_scale);
                norm_backward(d_out + i * dim, xhat + i * dim, rstd[i], weight, dim, weights, biases,
                              [&](int64_t d, vf sum) ALWAYS_INLINE {
                                  if (d_sum) store(d_sum + i * dim + d, sum);
                                  if (d_x) store(d_x + i * dim + d, threshold ? drop(sum, d) : sum);
                              });
            }
        }
#pragma omp for schedule(static)
        for (int64_t d = 0; d < dim; d += W) {
            vf weights = {}, biases = {};
            for (int64_t b = 0; b < blocks; b++) {
                weights += load(buffer.data + b * 2 * dim + d);
                biases += load(buffer.data + b * 2 * dim + dim + d);
            }
            store(d_weight + d, weights);
            store(d_bias + d, biases);
        }
    }
}

// Dropout of x, (tokens, dim): row the token, column the dimension. It is the backward pass too.
void EXPORT(dropout)(int64_t tokens, int64_t dim, const float* x, float* out, uint32_t threshold, float keep_scale,
                     uint64_t seed) {
#pragma omp parallel for schedule(static) if (tokens * dim > SMALL)
    for (int64_t i = 0; i < tokens; i++) {
        const Dropout drop = Dropout::row(seed, (uint64_t)i, threshold, keep_scale);
        for (int64_t d = 0; d < dim; d += W) store(out + i * dim + d, drop(load(x + i * dim + d), d));
    }
}

// x * (1 + erf(x / sqrt 2)) / 2.
void EXPORT(gelu_forward)(int64_t count, const float* x, float* out) {
#pragma omp parallel for schedule(static) if (count > SMALL)
    for (int64_t i = 0; i < count / W; i++) store(out + i * W, gelu(load(x + i * W)));
    const int64_t done = count / W * W, left = count - done;
    if (left) store_some(out + done, gelu(load_some(x + done, left)), left);
}

void EXPORT(gelu_backward)(int64_t count, const float* x, const float* d_out, float* d_x) {
    const auto derivative = [](vf value) {
        vf below, density;
        normal(value, below, density);
        return abs(value) > 20.0f ? below : below + value * density;
    };
#pragma omp parallel for schedule(static) if (count > SMALL)
    for (int64_t i = 0; i < count / W; i++) store(d_x + i * W, load(d_out + i * W) * derivative(load(x + i * W)));
    const int64_t done = count / W * W, left = count - done;
    if (left) store_some(d_x + done, load_some(d_out + done, left) * derivative(load_some(x + done, left)), left);
}

// Mean of the rows of each text.
void EXPORT(mean_pool)(const float* values, const int32_t* offsets, int64_t texts, int64_t dim, float* out) {
    each_text(offsets, texts, 1, (double)dim, 0, 0, [&](int64_t t, int64_t, Buffer&) {
        float* to = out + t * dim;
        const int64_t start = offsets[t], end = offsets[t + 1];
        const float count = end > start ? (float)(end - start) : 1e-9f;
        for (int64_t d = 0; d < dim; d += W) {
            vf sum = {};
            for (int64_t i = start; i < end; i++) sum += load(values + i * dim + d);
            store(to + d, sum / count);
        }
    });
}

// AdamW without weight decay on some rows, in rising order: grad is (count, dim), the others are whole tables. Returns
// 0, having changed nothing, if the rows do not rise or are not in the table of `table_rows`.
int64_t EXPORT(adamw_rows)(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, const int64_t* rows,
                           int64_t count, int64_t table_rows, int64_t dim, double lr, double beta1, double beta2,
                           double eps, int64_t step) {
    for (int64_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= table_rows || (i && rows[i] <= rows[i - 1])) return 0;
    const float step_size = (float)(lr / (1 - pow(beta1, (double)step)));
    const float correction = (float)sqrt(1 - pow(beta2, (double)step));
    const float toward = (float)(1 - beta1), keep = (float)beta2, square = (float)(1 - beta2), least = (float)eps;
#pragma omp parallel for schedule(static) if (count * dim > SMALL)
    for (int64_t i = 0; i < count; i++)
        for (int64_t d = 0; d < dim; d += W) {
            const int64_t at = rows[i] * dim + d;
            const vf g = load(grad + i * dim + d), old = load(exp_avg + at);
            const vf mean = old + (g - old) * toward;
            const vf mean_square = square * g * g + rounded(load(exp_avg_sq + at) * keep);
            vf root;
            for (int j = 0; j < W; j++) root[j] = __builtin_sqrtf(mean_square[j]);
            store(exp_avg + at, mean);
            store(exp_avg_sq + at, mean_square);
            store(param + at, load(param + at) - step_size * mean / (root / correction + least));
        }
    return 1;
}

// 1 where dropout keeps the element: out (rows, columns), for rows first_row and on.
void EXPORT(dropout_mask)(uint64_t seed, int64_t first_row, int64_t rows, int64_t columns, uint32_t threshold,
                          uint8_t* out) {
#pragma omp parallel for schedule(static) if (rows * columns > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        const Dropout drop = Dropout::row(seed, (uint64_t)(first_row + i), threshold, 1.0f);
        for (int64_t j = 0; j < columns; j += W) {
            const vu drawn = drop.random(j);
            for (int64_t l = 0; l < W && j + l < columns; l++) out[i * columns + j + l] = drawn[l] >= threshold;
        }
    }
}

}  // extern "C"
