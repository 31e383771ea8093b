// The layers of an encoder in training: their weights, and what the forward pass keeps for the backward pass.

#pragma once

#include <type_traits>

#include "gradients.hpp"
#include "random.hpp"

extern "C" {

struct TrainedLinear {
    const float *weight, *bias;
    float *d_weight, *d_bias;  // null for none
};

struct TrainedNorm {
    const float *weight, *bias;
    float *d_weight, *d_bias, eps;
};

struct DropoutOf {
    uint32_t threshold;
    float scale;
    uint64_t seed;
};

struct TrainedLayer {
    TrainedLinear qkv[3], output;  // query, key and value; all (dim, dim)
    TrainedNorm attention_norm;
    TrainedLinear up, down;  // (inner, dim), (dim, inner)
    TrainedNorm output_norm;
    DropoutOf weights, attended, fed;  // of attention weights; of what attention and the feed-forward layers add
};

struct TrainedLayers {
    int64_t dim, heads, inner, layers;
    const TrainedLayer* layer;
};
}

namespace {

#if defined(HAS_BFLOAT16)
struct Half : Bfloat16 {
    typedef float Parameter;
};
#endif

constexpr int64_t PART = 64;  // tokens in a sum for the gradient of a normalization
static_assert(SPAN % PART == 0, "spans are made of parts");

// Take memory piece by piece; with a null start it is only counted.
struct Pieces {
    char* start;
    int64_t bytes = 0;

    template <class T>
    T* take(int64_t count) {
        T* taken = start ? (T*)(start + bytes) : nullptr;
        bytes += (count * (int64_t)sizeof(T) + 63) / 64 * 64;
        return taken;
    }
};

// What the forward pass keeps of a layer; rows are tokens.
template <class K>
struct Kept {
    typedef typename K::Input Input;
    Input *qkv, *attended, *inner;  // inner before its activation
    float *attention_xhat, *attention_rstd, *output_xhat, *output_rstd, *lse;
    Linear linears[6];  // query, key, value, output, up and down, with weights in Input

    Kept(Pieces& pieces, const TrainedLayers& t, const TrainedLayer& layer, int64_t tokens) {
        const int64_t dim = t.dim, rows = (tokens + K::GROUP - 1) / K::GROUP * K::GROUP;
        qkv = pieces.take<Input>(rows * 3 * dim);
        attended = pieces.take<Input>(rows * dim);
        inner = pieces.take<Input>(rows * t.inner);
        attention_xhat = pieces.take<float>(tokens * dim), attention_rstd = pieces.take<float>(tokens);
        output_xhat = pieces.take<float>(tokens * dim), output_rstd = pieces.take<float>(tokens);
        lse = pieces.take<float>(tokens * t.heads);
        for (int64_t i = 0; i < 6; i++) {
            const TrainedLinear& linear = of(layer, i);
            const void* weight = linear.weight;
            if constexpr (sizeof(Input) == 2) weight = pieces.take<Input>(size(t, i));
            linears[i] = {weight, linear.bias, nullptr};
        }
    }
    static const TrainedLinear& of(const TrainedLayer& layer, int64_t i) {
        return i < 3 ? layer.qkv[i] : i == 3 ? layer.output : i == 4 ? layer.up : layer.down;
    }
    static int64_t size(const TrainedLayers& t, int64_t i) { return t.dim * (i < 4 ? t.dim : t.inner); }
};

template <class K>
INLINE int64_t kept_bytes(const TrainedLayers& t, int64_t tokens) {
    Pieces pieces = {nullptr};
    Kept<K>(pieces, t, *t.layer, tokens);
    return pieces.bytes;
}

template <class K>
INLINE Kept<K> kept_of(char* memory, const TrainedLayers& t, int64_t l, int64_t tokens) {
    Pieces pieces = {memory + l * kept_bytes<K>(t, tokens)};
    return Kept<K>(pieces, t, t.layer[l], tokens);
}

INLINE Dropout row_of(const DropoutOf& drop, int64_t row) {
    return Dropout::row(drop.seed, (uint64_t)row, drop.threshold, drop.scale);
}

}  // namespace
