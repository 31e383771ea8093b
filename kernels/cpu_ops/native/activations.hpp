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

// Calls use(function) with an activation; HALF if its values are rounded to bfloat16 next.
template <bool HALF, class F>
INLINE void with_activation(int64_t number, const F& use) {
    if (number == GELU_TANH)
        use([](vf x) ALWAYS_INLINE { return gelu_tanh(x); });
    else if (number == RELU)
        use([](vf x) ALWAYS_INLINE { return relu(x); });
    else if (number == SILU)
        use([](vf x) ALWAYS_INLINE { return silu(x); });
    else
        use([](vf x) ALWAYS_INLINE { return HALF ? gelu_to_round(x) : gelu(x); });
}

}  // namespace
