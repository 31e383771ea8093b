// The description of an encoder: its layers as data, and the weights where the modules keep them.
//
// Python fills these structures (native.py). Whatever a model has no bias for points to zeros.

#pragma once

#include "panels.hpp"

extern "C" {

// Layer normalization, or one by the root mean square alone; without a weight, none at all.
struct Norm {
    const void *weight, *bias;  // (dim,)
    float eps;
    int32_t rms;
};

struct Layer {
    Linear qkv[3], output;  // query and output: (dim, dim); key and value: (key_value_heads * head, dim)
    Norm attention_norm;
    Linear up, gate, down;  // (inner, dim) twice, gate without a weight if there is none; (dim, inner)
    Norm output_norm;       // of the feed-forward layers
    int64_t activation, key_value_heads;
    int64_t before, after;  // a token attends to tokens at most so many positions before and after it
    int64_t rotation;       // which row of `frequencies` rotates queries and keys; -1 for none
};

struct Encoder {
    int64_t dim, heads, inner, layers;
    int64_t norm_first;  // blocks normalize their input, and last_norm the result; else they normalize their output
    int64_t word_rows, position_rows, type_rows;
    const void *words, *positions, *types;  // embedding tables, (rows, dim); positions and types may be null
    Norm norm, last_norm;
    int64_t rotations;
    const float* frequencies;  // (rotations, head / 2): angles by which a pair of elements turns in one position
    int64_t reach;
    const int32_t* buckets;  // (2 * reach + 1,): rows of `relative` for distances from -reach to reach
    const void* relative;    // (buckets, heads): bias of the scores of attention, or null
    const Layer* layer;
};
}

namespace {

INLINE int64_t head_size(const Encoder& e) { return e.dim / e.heads; }

// Columns of the keys of a layer, and of its values.
INLINE int64_t key_width(const Encoder& e, const Layer& layer) { return layer.key_value_heads * head_size(e); }

// The products of a layer.
template <class K>
struct LayerProducts {
    Product<K> query, output, up, gate, down;  // query: with key and value, where these have as many columns

    INLINED LayerProducts(const Encoder& e, int64_t l)
        : query{e.layer[l].qkv, key_width(e, e.layer[l]) == e.dim ? 3 : 1, e.dim, e.dim},
          output{&e.layer[l].output, 1, e.dim, e.dim},
          up{&e.layer[l].up, 1, e.inner, e.dim},
          gate{&e.layer[l].gate, 1, e.inner, e.dim},
          down{&e.layer[l].down, 1, e.dim, e.inner} {}
};

}  // namespace
