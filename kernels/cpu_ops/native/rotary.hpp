// Rotary position embeddings: pairs of elements of a head turn by an angle that grows with the position.

#pragma once

#include "layers.hpp"
#include "threads.hpp"

namespace {

typedef float v8 __attribute__((vector_size(32)));  // half a head is a multiple of 8

// Cosines and sines of all rotations of an encoder, for texts of at most `longest` tokens.
struct Rotations {
    int64_t head, longest;
    Buffer table;  // (rotations, longest, head): the cosines of the pairs, then their sines

    Rotations(const Encoder& e, int64_t most)
        : head(head_size(e)), longest(most), table(e.rotations * most * head_size(e)) {
        for (int64_t r = 0; r < e.rotations; r++)
            for (int64_t position = 0; position < longest; position++)
                for (int64_t i = 0; i < head / 2; i++) {
                    const float angle = (float)position * e.frequencies[r * head / 2 + i];
                    float* to = row(r, position) + i;
                    to[0] = cosf(angle), to[head / 2] = sinf(angle);
                }
    }

    INLINED float* row(int64_t rotation, int64_t position) const {
        return table.data + (rotation * longest + position) * head;
    }
};

// Rotate heads that are side by side, each by the same cosines and sines. The pairs are elements i and i + head / 2.
INLINE void rotate(float* x, int64_t heads, int64_t head, const float* turn) {
    const int64_t half = head / 2;
    for (int64_t h = 0; h < heads; h++, x += head)
        for (int64_t i = 0; i < half; i += 8) {
            v8 first, second, cosine, sine;
            memcpy(&first, x + i, 32), memcpy(&second, x + half + i, 32);
            memcpy(&cosine, turn + i, 32), memcpy(&sine, turn + half + i, 32);
            const v8 turned = first * cosine - second * sine, other = second * cosine + first * sine;
            memcpy(x + i, &turned, 32), memcpy(x + half + i, &other, 32);
        }
}

}  // namespace
