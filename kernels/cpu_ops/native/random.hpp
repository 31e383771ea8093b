// Dropout masks from a counter-based generator, which are drawn again wherever they are needed.
//
// It keeps an element where random(seed, row, column) >= threshold = p * 2^32, and scales it by 1 / (1 - p). The
// forward and backward pass draw the same numbers, instead of storing them.

#pragma once

#include "vectors.hpp"

namespace {

INLINE uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// The dropout of one row of a matrix.
struct Dropout {
    uint32_t first, second, threshold;
    float scale;

    INLINE Dropout row(uint64_t seed, uint64_t number, uint32_t threshold, float scale) {
        const uint64_t key = mixed(mixed(seed) + number * 0x9e3779b97f4a7c15u);
        return {(uint32_t)key, (uint32_t)(key >> 32), threshold, scale};
    }

    INLINED vu random(int64_t column) const {
        vu x = ((vu)lanes() + (uint32_t)column) * 0x9e3779b1u + first;
        x = (x ^ (x >> 16)) * 0x7feb352du;
        x = (x ^ (x >> 15)) * 0x846ca68bu;
        x = (x ^ (x >> 16)) + second;
        x = (x ^ (x >> 17)) * 0xed5ad4bbu;
        x = (x ^ (x >> 15)) * 0x31848babu;
        return x ^ (x >> 14);
    }

    INLINED vf operator()(vf x, int64_t column) const {
        return random(column) >= threshold ? x * scale : vf{};
    }
};

}  // namespace
