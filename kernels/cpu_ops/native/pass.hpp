// The forward pass of some texts through all layers of an encoder.
//
// Everything but the products is in float32. A row is computed in the same order of operations in any batch and with
// any number of threads, so that the embedding of a text has the same bits in any batch.

#pragma once

#include <type_traits>

#include "activations.hpp"
#include "attention_half.hpp"
#include "int8.hpp"
#include "layers.hpp"
#include "norm.hpp"
#include "relative.hpp"
#include "rotary.hpp"
#include "window.hpp"

namespace {

struct Team {
    int64_t member, members;

    template <class F>
    INLINED void share(int64_t items, const F& work) const {
        for (int64_t i = first(items); i < first(items, 1); i++) work(i);
    }
    INLINED int64_t first(int64_t items, int64_t next = 0) const { return items * (member + next) / members; }
    INLINED void wait() const {
        if (members > 1) {
#pragma omp barrier
        }
    }
};

template <class K>
constexpr bool is_int8 = sizeof(typename K::Input) == 1;

// Memory of one thread: a packed panel, and what attention needs for a head of at most `longest` tokens.
template <class K>
struct Scratch {
    Buffer panel, attention;

    Scratch(const Encoder& e, int64_t longest)
        : panel(scratch_words<K>(larger(e.dim, e.inner))),
          attention(larger(larger(attention_floats(longest, head_size(e)), attention_half_floats(longest, head_size(e))),
                           window_floats(longest, head_size(e)))) {}
};

// The forward pass of some texts, with memory for at most `rows` tokens at a time.
template <class K>
struct Pass {
    typedef typename K::Input Input;
    typedef typename K::Parameter Parameter;
    static constexpr bool QUANTIZED = is_int8<K>, HALF = sizeof(Input) == 2;
    typedef std::conditional_t<QUANTIZED, float, Input> Activation;  // before it is quantized, if it is

    const Encoder& encoder;
    const Rotations& rotations;
    const RelativeBias<Parameter>& bias;
    Buffer buffer;
    float *wide, *sums, *scales, *normalized;
    Activation *attended, *inner;
    Input* input;

    Pass(const Encoder& e, const Rotations& turns, const RelativeBias<Parameter>& relative, int64_t rows)
        : encoder(e),
          rotations(turns),
          bias(relative),
          buffer(rows * (widest(e) + (e.norm_first ? 3 : 2) * e.dim + 2 * larger(e.dim, e.inner)) + 6 * 16) {
        wide = buffer.take(rows * widest(e));
        inner = (Activation*)wide;  // queries, keys and values are not needed any more then
        sums = buffer.take(rows * e.dim);
        attended = (Activation*)buffer.take(rows * e.dim);
        scales = buffer.take(rows * larger(e.dim, e.inner));
        input = (Input*)buffer.take(rows * larger(e.dim, e.inner));
        normalized = e.norm_first ? buffer.take(rows * e.dim) : nullptr;
    }

    static int64_t widest(const Encoder& e) {
        int64_t most = e.inner;
        for (int64_t l = 0; l < e.layers; l++) most = larger(most, e.dim + 2 * key_width(e, e.layer[l]));
        return most;
    }

    // Rows as a product reads them.
    const Input* prepare(int64_t rows, const Activation* from, const Product<K>& product, const Team& team) {
        if constexpr (QUANTIZED) {
            const int64_t depth = product.depth, blocks = block_count(depth);
            team.share(rows, [&](int64_t i) {
                quantize(depth, from + i * depth, product.layers->factors, input + i * depth, scales + i * blocks);
            });
            team.wait();
            return input;
        } else {
            return from;
        }
    }

    // The normalized input of a block as a product reads it.
    const Input* prepare_hidden(int64_t rows, const float* hidden, const Product<K>& product, const Team& team) {
        if constexpr (HALF)
            return input;
        else
            return prepare(rows, hidden, product, team);
    }

    // Calls use(row, column, values) with `from` times the weights, plus the bias; `next` is the product after this.
    template <class F>
    void multiply_each(int64_t rows, const Input* from, const Product<K>& product, const Product<K>& next,
                       Scratch<K>& scratch, const Team& team, const F& use) {
        const int64_t panels = product.panels();
        multiply(rows, from, scales, product, team.first(panels), team.first(panels, 1), scratch.panel.data,
                 next.weights(team.first(next.panels()) * PANEL), use);
        team.wait();
    }

    // to = function(from times the weights, plus the bias), rows `width` apart.
    template <class T, class F>
    void multiply_all(int64_t rows, const Input* from, const Product<K>& product, T* to, int64_t width,
                      const Product<K>& next, Scratch<K>& scratch, const Team& team, const F& function) {
        multiply_each(rows, from, product, next, scratch, team,
                      [&](int64_t row, int64_t column, vf value)
                          ALWAYS_INLINE { store(to + row * width + column, function(value)); });
    }

    // True if two linear layers take the same input, which factors in int8 tell apart.
    bool same_input(const Linear& a, const Linear& b) const {
        return !QUANTIZED || !memcmp(a.factors, b.factors, (size_t)encoder.dim * 4);
    }

    // Queries, keys and values, in one product if they have the same input and as many columns.
    template <class F>
    void multiply_qkv(int64_t rows, const float* hidden, const Layer& layer, const Product<K>& next,
                      Scratch<K>& scratch, const Team& team, const F& function) {
        const int64_t dim = encoder.dim, keys = key_width(encoder, layer);
        const Input* from = nullptr;
        for (int64_t i = 0, to = 0, column = 0; i < 3; i = to) {
            const int64_t columns = i ? keys : dim;
            for (to = i + 1; to < 3 && columns == keys && same_input(layer.qkv[i], layer.qkv[to]);) to++;
            const Product<K> product = {layer.qkv + i, to - i, columns, dim};
            if (!from || !same_input(layer.qkv[i - 1], layer.qkv[i]))
                from = prepare_hidden(rows, hidden, product, team);
            multiply_all(rows, from, product, wide + column, dim + 2 * keys, next, scratch, team, function);
            column += product.count * columns;
        }
    }

    // inner = activation(up(hidden)), times gate(hidden) if the layer has a gate.
    void multiply_inner(int64_t rows, const float* hidden, const Layer& layer, const LayerProducts<K>& products,
                        Scratch<K>& scratch, const Team& team) {
        const bool gated = layer.gate.weight;
        const int64_t width = encoder.inner;
        const Input* from = prepare_hidden(rows, hidden, products.up, team);
        // One product for all activations, which are chosen apart from its loop.
        const int64_t number = layer.activation;
        Activation* to = inner;
        multiply_each(rows, from, products.up, gated ? products.gate : products.down, scratch, team,
                      Apart{[=](int64_t row, int64_t column, vf value) ALWAYS_INLINE {
                          store(to + row * width + column, activate<HALF || QUANTIZED>(number, value));
                      }});
        if (!gated) return;
        if (!same_input(layer.up, layer.gate)) from = prepare_hidden(rows, hidden, products.gate, team);
        multiply_each(rows, from, products.gate, products.down, scratch, team,
                      [&](int64_t row, int64_t column, vf value) ALWAYS_INLINE {
                          Activation* to = inner + row * width + column;
                          store(to, load(to) * value);
                      });
    }

    void rotate_all(const int32_t* offsets, int64_t texts, const Layer& layer, const Team& team) {
        const int64_t width = encoder.dim + 2 * key_width(encoder, layer);
        for (int64_t t = 0; t < texts; t++)
            team.share(offsets[t + 1] - offsets[t], [&](int64_t i) {
                rotate(wide + (offsets[t] - offsets[0] + i) * width, encoder.heads + layer.key_value_heads,
                       rotations.head, rotations.row(layer.rotation, i));
            });
        team.wait();
    }

    void attend_all(const int32_t* offsets, int64_t texts, const Layer& layer, Scratch<K>& scratch, const Team& team) {
        const int64_t dim = encoder.dim, head = head_size(encoder), keys = key_width(encoder, layer);
        const int64_t width = dim + 2 * keys, shared = encoder.heads / layer.key_value_heads;
        const float scale = 1.0f / sqrtf((float)head);
        team.share(texts * encoder.heads, [&](int64_t i) {
            const int64_t text = i / encoder.heads, h = i % encoder.heads, start = offsets[text] - offsets[0];
            const int64_t length = offsets[text + 1] - offsets[text];
            const float *q = wide + start * width + h * head, *k = wide + start * width + dim + h / shared * head;
            Activation* to = attended + start * dim + h * head;
            const bool all = !encoder.relative && layer.before + 1 >= length && layer.after + 1 >= length;
#ifdef HAS_BFLOAT16
            if constexpr (HALF || QUANTIZED)
                if (all && length >= LONG && head % (2 * W) == 0)
                    return attend_half(q, k, k + keys, width, length, head, scale, to, dim, scratch.attention);
#endif
            if (all)
                attend(q, k, k + keys, width, length, head, scale, to, dim, scratch.attention, Rows());
            else
                attend_near(q, k, k + keys, width, length, head, scale, layer.before, layer.after,
                            bias.by_distance(h), to, dim, scratch.attention);
        });
        team.wait();
    }

    // Row i, normalized where it is; in bfloat16 also as the next product reads it.
    void normalize(float* row, int64_t i, const Norm& norm) {
        const int64_t dim = encoder.dim;
        if (norm.weight) {
            if (norm.rms)
                divide_by_root_mean_square(row, dim, norm.eps);
            else
                standardize(row, dim, norm.eps);
            affine(row, (const Parameter*)norm.weight, (const Parameter*)norm.bias, dim, row);
        }
        if constexpr (HALF)
            for (int64_t d = 0; d < dim; d += W) store(input + i * dim + d, load(row + d));
    }

    // The input of a block that normalizes it: row i of the residual stream, normalized elsewhere.
    void normalize_copy(const float* row, int64_t i, const Norm& norm) {
        const int64_t dim = encoder.dim;
        memcpy(normalized + i * dim, row, (size_t)dim * 4);
        normalize(normalized + i * dim, i, norm);
    }

    // hidden += sums; then it is normalized, or a copy of it if that is the input of another block. In int8 a row is
    // quantized next, by the same thread, which waits then.
    void add_norm(int64_t rows, const Norm& norm, float* hidden, bool copy, const Team& team) {
        const int64_t dim = encoder.dim;
        team.share(rows, [&](int64_t i) {
            float* row = hidden + i * dim;
            for (int64_t d = 0; d < dim; d += W) store(row + d, load(row + d) + load(sums + i * dim + d));
            copy ? normalize_copy(row, i, norm) : normalize(row, i, norm);
        });
        if (!QUANTIZED) team.wait();
    }

    // hidden = normalized sum of the embeddings of a word, a token type and a position, if the model has these.
    void embed(int64_t rows, const int64_t* ids, const int64_t* positions, const int64_t* types, float* hidden,
               const Team& team) {
        const auto *word_table = (const Parameter*)encoder.words, *position_table = (const Parameter*)encoder.positions,
                   *type_table = (const Parameter*)encoder.types;
        const int64_t dim = encoder.dim;
        team.share(rows, [&](int64_t i) {
            float* row = hidden + i * dim;
            for (int64_t d = 0; d < dim; d += W) {
                vf sum = load(word_table + ids[i] * dim + d);
                if (type_table) sum += load(type_table + (types ? types[i] : 0) * dim + d);
                if (position_table) sum += load(position_table + positions[i] * dim + d);
                store(row + d, sum);
            }
            normalize(row, i, encoder.norm);
            if (encoder.norm_first) normalize_copy(row, i, encoder.layer->attention_norm);
        });
        if (!QUANTIZED) team.wait();
    }

    // The layers, for texts at offsets[0] to offsets[texts]; hidden: their rows, from the embeddings to the result.
    void layers(const int32_t* offsets, int64_t texts, float* hidden, Scratch<K>& scratch, const Team& team) {
        const int64_t dim = encoder.dim, rows = offsets[texts] - offsets[0];
        const bool first = encoder.norm_first;
        const float* taken = first ? normalized : hidden;  // by the blocks
        const auto identity = [](vf x) ALWAYS_INLINE { return x; };
        for (int64_t l = 0; l < encoder.layers; l++) {
            const bool last = l + 1 == encoder.layers;
            const Layer &layer = encoder.layer[l], &following = encoder.layer[last ? 0 : l + 1];
            const LayerProducts<K> products(encoder, l), after(encoder, last ? 0 : l + 1);
            const Product<K>&output = products.output, &down = products.down;
            multiply_qkv(rows, taken, layer, output, scratch, team, identity);
            if (layer.rotation >= 0) rotate_all(offsets, texts, layer, team);
            attend_all(offsets, texts, layer, scratch, team);
            multiply_all(rows, prepare(rows, attended, output, team), output, sums, dim, products.up, scratch, team,
                         identity);
            add_norm(rows, first ? layer.output_norm : layer.attention_norm, hidden, first, team);
            multiply_inner(rows, taken, layer, products, scratch, team);
            multiply_all(rows, prepare(rows, inner, down, team), down, sums, dim, after.query, scratch, team, identity);
            const Norm& next = last ? encoder.last_norm : following.attention_norm;
            add_norm(rows, first ? next : layer.output_norm, hidden, first && !last, team);
        }
    }

    void run(const int32_t* offsets, int64_t texts, const int64_t* ids, const int64_t* positions, const int64_t* types,
             float* out, Scratch<K>& scratch, const Team& team) {
        const int64_t start = offsets[0], rows = offsets[texts] - start;
        if (!rows) return;
        float* hidden = out + start * encoder.dim;
        embed(rows, ids + start, positions + start, types ? types + start : nullptr, hidden, team);
        layers(offsets, texts, hidden, scratch, team);
    }
};

}  // namespace
