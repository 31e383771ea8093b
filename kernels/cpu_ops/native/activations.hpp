// Activations of feed-forward layers, by number.

#pragma once

#include "vectors.hpp"

namespace {

constexpr int64_t GELU_TANH = 1, RELU = 2, SILU = 3;  // as native.py numbers them; 0 is exact GELU

// x / (1 + exp(-by))
INLINE vf gated_by_logistic(vf x, vf by) {
    const vf negated = -by, most = negated > 88.0f ? splat(88.0f) : negated;
    return x / (exp(most) + 1.0f);
}

INLINE vf silu(vf x) { return gated_by_logistic(x, x); }

// GELU by the hyperbolic tangent of a polynomial, which is a logistic function of twice the polynomial.
INLINE vf gelu_tanh(vf x) {
    return gated_by_logistic(x, x * (x * x * (2 * 0.7978845608028654f * 0.044715f) + 2 * 0.7978845608028654f));
}

INLINE vf relu(vf x) { return x < 0.0f ? vf{} : x; }

// An activation by its number; ROUNDED if its values are rounded to bfloat16 or int8 next.
template <bool ROUNDED>
INLINE vf activate(int64_t number, vf x) {
    switch (number) {
        case GELU_TANH:
            return gelu_tanh(x);
        case RELU:
            return relu(x);
        case SILU:
            return silu(x);
        default:
            return ROUNDED ? gelu_to_round(x) : gelu(x);
    }
}

}  // namespace
