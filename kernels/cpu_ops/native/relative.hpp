// A bias of attention scores that depends on the distance of the two tokens, as in MPNet.

#pragma once

#include "layers.hpp"
#include "threads.hpp"

namespace {

INLINE float scalar(const float* p) { return *p; }

INLINE float scalar(const bf16* p) {
    const uint32_t word = (uint32_t)*p << 16;
    float x;
    memcpy(&x, &word, 4);
    return x;
}

// What is added to the scores of every head before they are scaled, for texts of at most `longest` tokens.
template <class Parameter>
struct RelativeBias {
    int64_t width, zero;  // floats of a head, and which of them is for the distance 0
    Buffer table;         // (heads, width); empty if the encoder has no such bias

    RelativeBias(const Encoder& e, int64_t longest)
        : width(e.relative ? 2 * longest + W : 0), zero(longest), table(e.heads * width) {
        const float factor = sqrtf((float)head_size(e));
        for (int64_t i = 0; i < width; i++) {
            const int64_t distance = larger(-e.reach, smaller(e.reach, i - zero));
            const auto* row = (const Parameter*)e.relative + e.buckets[e.reach + distance] * e.heads;
            for (int64_t h = 0; h < e.heads; h++) table.data[h * width + i] = scalar(row + h) * factor;
        }
    }

    // Of a head, by the position of the key less that of the query; null if there is none.
    INLINED const float* by_distance(int64_t head) const {
        return width ? table.data + head * width + zero : nullptr;
    }
};

}  // namespace
