// Normalization of rows, by mean and variance or by the root mean square.

#pragma once

#include "vectors.hpp"

namespace {

// Normalize `row` in place; returns 1 / standard deviation.
INLINE float standardize(float* row, int64_t dim, float eps) {
    vf a = {}, b = {};
    for (int64_t d = 0; d < dim; d += 2 * W) {
        a += load(row + d);
        if (d + W < dim) b += load(row + d + W);
    }
    const float mean = total(a + b) / (float)dim;
    a = b = vf{};
    for (int64_t d = 0; d < dim; d += 2 * W) {
        const vf x = load(row + d) - mean;
        a += x * x;
        if (d + W < dim) {
            const vf y = load(row + d + W) - mean;
            b += y * y;
        }
    }
    const float rstd = 1.0f / sqrtf(total(a + b) / (float)dim + eps);
    for (int64_t d = 0; d < dim; d += W) store(row + d, (load(row + d) - mean) * rstd);
    return rstd;
}

// Divide `row` by its root mean square, in place.
INLINE void divide_by_root_mean_square(float* row, int64_t dim, float eps) {
    vf a = {}, b = {};
    for (int64_t d = 0; d < dim; d += 2 * W) {
        a += load(row + d) * load(row + d);
        if (d + W < dim) b += load(row + d + W) * load(row + d + W);
    }
    const float by = 1.0f / sqrtf(total(a + b) / (float)dim + eps);
    for (int64_t d = 0; d < dim; d += W) store(row + d, load(row + d) * by);
}

// out = xhat * weight + bias; weight and bias are float32 or bfloat16.
template <class T>
INLINE void affine(const float* xhat, const T* weight, const T* bias, int64_t dim, float* out) {
    for (int64_t d = 0; d < dim; d += W) store(out + d, load(xhat + d) * load(weight + d) + load(bias + d));
}

// The backward pass of a row: use(d, gradient of the row before it was normalized) for each of its vectors. What the row
// adds to the gradients of weight and bias is added to `weights` and `biases`.
template <class F>
INLINE void norm_backward(const float* grad, const float* xhat, float rstd, const float* weight, int64_t dim,
                          float* weights, float* biases, const F& use) {
    vf plain = {}, scaled = {};
    for (int64_t d = 0; d < dim; d += W) {
        const vf g = load(grad + d), y = load(xhat + d), s = g * load(weight + d);
        store(weights + d, load(weights + d) + g * y);
        store(biases + d, load(biases + d) + g);
        plain += s, scaled += s * y;
    }
    const float mean = total(plain) / (float)dim, spread = total(scaled) / (float)dim;
    for (int64_t d = 0; d < dim; d += W)
        use(d, (load(grad + d) * load(weight + d) - mean - load(xhat + d) * spread) * rstd);
}

}  // namespace
