// Layer normalization of rows, and the embeddings before the first one.

#pragma once

#include "vectors.hpp"

namespace {

// Normalize `row`; gives 1 / standard deviation and leaves the normalized values in `row`.
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

// out = xhat * weight + bias, in float32 or bfloat16.
template <class T>
INLINE void affine(const float* xhat, const float* weight, const float* bias, int64_t dim, T* out) {
    for (int64_t d = 0; d < dim; d += W) store(out + d, load(xhat + d) * load(weight + d) + load(bias + d));
}

// Rows of the embedding tables; those of types may be missing.
template <class T>
struct Tables {
    const T *words, *places, *kinds;

    // The normalized sum of a word's, a type's and a place's row.
    INLINED void embed(int64_t id, int64_t place, int64_t kind, int64_t dim, float eps,
                                                     float* row) const {
        for (int64_t d = 0; d < dim; d += W) {
            vf sum = load(words + id * dim + d);
            if (kinds) sum += load(kinds + kind * dim + d);
            store(row + d, sum + load(places + place * dim + d));
        }
        standardize(row, dim, eps);
    }
};

}  // namespace
