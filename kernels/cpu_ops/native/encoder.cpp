// A whole BERT-family encoder over packed tokens, for inference, with the weights as they are in the modules.
//
// A thread takes some texts, a few hundred tokens, from the embeddings through all layers to the result: activations
// stay in its cache, and threads never wait for each other. Where there are too few texts for that, as with a single
// one, all threads share each stage of the same tokens (a Team).
//
// Everything but the products is in float32. A row is computed in the same order of operations in any batch and with
// any number of threads, so that the embedding of a text has the same bits in any batch.

#include <type_traits>

#include "attention.hpp"
#include "int8.hpp"
#include "norm.hpp"

extern "C" {

struct Norm {
    const void *weight, *bias;  // (dim,)
    float eps;
};

struct Layer {
    Linear qkv[3], output;  // query, key and value; all (dim, dim)
    Norm attention_norm;
    Linear up, down;  // (inner, dim), (dim, inner)
    Norm output_norm;
};

struct Encoder {
    int64_t dim, heads, inner, layers;
    int64_t word_rows, position_rows, type_rows;
    const void *words, *positions, *types;  // embedding tables, (rows, dim); types may be null
    Norm norm;
    const Layer* layer;
};
}
namespace {

constexpr int64_t MOST_ROWS = 384, LEAST_ROWS = 32;  // tokens that go through the layers together, in a thread

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

// The products of a layer.
template <class K>
struct LayerProducts {
    Product<K> qkv, output, up, down;

    INLINED LayerProducts(const Encoder& e, int64_t l)
        : qkv{e.layer[l].qkv, 3, e.dim, e.dim},
          output{&e.layer[l].output, 1, e.dim, e.dim},
          up{&e.layer[l].up, 1, e.inner, e.dim},
          down{&e.layer[l].down, 1, e.dim, e.inner} {}
};

template <class K>
constexpr bool is_int8 = sizeof(typename K::Input) == 1;

// Memory of one thread: a packed panel, and what attention needs for a head of at most `longest` tokens.
template <class K>
struct Scratch {
    Buffer panel, attention;

    Scratch(const Encoder& e, int64_t longest)
        : panel(scratch_words<K>(larger(e.dim, e.inner))), attention(attention_floats(longest, e.dim / e.heads)) {}
};

// The forward pass of some texts, with memory for at most `rows` tokens at a time.
template <class K>
struct Pass {
    typedef typename K::Input Input;
    typedef typename K::Parameter Parameter;
    static constexpr bool QUANTIZED = is_int8<K>, HALF = sizeof(Input) == 2;
    struct Gelu {
        INLINED vf operator()(vf x) const { return HALF ? gelu_to_round(x) : gelu(x); }
    };
    typedef std::conditional_t<QUANTIZED, float, Input> Activation;  // before it is quantized, if it is

    const Encoder& encoder;
    Buffer buffer;
    float *wide, *sums, *scales;
    Activation *attended, *inner;
    Input* input;

    Pass(const Encoder& e, int64_t rows)
        : encoder(e), buffer(rows * (widest(e) + 2 * e.dim + 2 * larger(e.dim, e.inner)) + 5 * 16) {
        wide = buffer.take(rows * widest(e));
        inner = (Activation*)wide;  // queries, keys and values are not needed any more then
        sums = buffer.take(rows * e.dim);
        attended = (Activation*)buffer.take(rows * e.dim);
        scales = buffer.take(rows * larger(e.dim, e.inner));
        input = (Input*)buffer.take(rows * larger(e.dim, e.inner));
    }

    static int64_t widest(const Encoder& e) { return larger(3 * e.dim, e.inner); }

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

    // The residual stream as a product reads it.
    const Input* prepare_hidden(int64_t rows, const float* hidden, const Product<K>& product, const Team& team) {
        if constexpr (HALF)
            return input;
        else
            return prepare(rows, hidden, product, team);
    }

    // to = function(from times the weights, plus the bias), rows `width` apart; `next` is the product after this one.
    template <class T, class F>
    void multiply_all(int64_t rows, const Input* from, const Product<K>& product, T* to, int64_t width,
                      const Product<K>& next, Scratch<K>& scratch, const Team& team, const F& function) {
        const int64_t panels = product.panels();
        const auto use = [&](int64_t row, int64_t column, vf value)
                             ALWAYS_INLINE { store(to + row * width + column, function(value)); };
        const auto multiply_by = [&](const auto& then) {
            multiply(rows, from, scales, product, team.first(panels), team.first(panels, 1), scratch.panel.data,
                     next.weights(team.first(next.panels()) * PANEL), then);
        };
        if constexpr (std::is_same_v<F, Gelu>)
            multiply_by(Apart{use});
        else
            multiply_by(use);
        team.wait();
    }

    // Queries, keys and values, in one product if their inputs have the same factors.
    template <class F>
    void multiply_qkv(int64_t rows, const float* hidden, const Product<K>& qkv, const Product<K>& next,
                      Scratch<K>& scratch, const Team& team, const F& function) {
        const int64_t dim = encoder.dim;
        bool together = true;
        for (int64_t i = 1; i < 3 && is_int8<K>; i++)
            together &= !memcmp(qkv.layers[i].factors, qkv.layers->factors, (size_t)dim * 4);
        for (int64_t i = 0; i < (together ? 1 : 3); i++) {
            const Product<K> product = {qkv.layers + i, together ? 3 : 1, dim, dim};
            multiply_all(rows, prepare_hidden(rows, hidden, product, team), product, wide + i * dim, 3 * dim, next,
                         scratch, team, function);
        }
    }

    // Row i of the residual stream, normalized; in bfloat16 also as the next product reads it.
    void normalize(float* row, int64_t i, const Norm& norm) {
        const int64_t dim = encoder.dim;
        standardize(row, dim, norm.eps);
        affine(row, (const Parameter*)norm.weight, (const Parameter*)norm.bias, dim, row);
        if constexpr (HALF)
            for (int64_t d = 0; d < dim; d += W) store(input + i * dim + d, load(row + d));
    }

    // hidden = normalized(sums + hidden). In int8 a row is quantized next, by the same thread, which waits then.
    void add_norm(int64_t rows, const Norm& norm, float* hidden, const Team& team) {
        const int64_t dim = encoder.dim;
        team.share(rows, [&](int64_t i) {
            float* row = hidden + i * dim;
            for (int64_t d = 0; d < dim; d += W) store(row + d, load(row + d) + load(sums + i * dim + d));
            normalize(row, i, norm);
        });
        if (!QUANTIZED) team.wait();
    }

    // hidden = normalized sum of the embeddings of a word, a token type (if the model has them) and a position.
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
                store(row + d, sum + load(position_table + positions[i] * dim + d));
            }
            normalize(row, i, encoder.norm);
        });
        if (!QUANTIZED) team.wait();
    }

    // The layers, for texts at offsets[0] to offsets[texts]; hidden: their rows, from the embeddings to the result.
    void layers(const int32_t* offsets, int64_t texts, float* hidden, Scratch<K>& scratch, const Team& team) {
        const int64_t dim = encoder.dim, rows = offsets[texts] - offsets[0], head = dim / encoder.heads;
        const float scale = 1.0f / sqrtf((float)head);
        const auto identity = [](vf x) ALWAYS_INLINE { return x; };
        for (int64_t l = 0; l < encoder.layers; l++) {
            const Layer& layer = encoder.layer[l];
            const LayerProducts<K> products(encoder, l), after(encoder, (l + 1) % encoder.layers);
            const auto& [qkv, output, up, down] = products;
            multiply_qkv(rows, hidden, qkv, output, scratch, team, identity);
            team.share(texts * encoder.heads, [&](int64_t i) {
                const int64_t text = i / encoder.heads, h = i % encoder.heads, start = offsets[text] - offsets[0];
                const float* q = wide + start * 3 * dim + h * head;
                attend(q, q + dim, q + 2 * dim, 3 * dim, offsets[text + 1] - offsets[text], head, scale,
                       attended + start * dim + h * head, dim, scratch.attention, Rows());
            });
            team.wait();
            multiply_all(rows, prepare(rows, attended, output, team), output, sums, dim, up, scratch, team, identity);
            add_norm(rows, layer.attention_norm, hidden, team);
            multiply_all(rows, prepare_hidden(rows, hidden, up, team), up, inner, encoder.inner, down, scratch, team,
                         Gelu());
            multiply_all(rows, prepare(rows, inner, down, team), down, sums, dim, after.qkv, scratch, team, identity);
            add_norm(rows, layer.output_norm, hidden, team);
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

// The end of texts that begin at `from` and have at most `rows` tokens together; at least one text.
int64_t texts_until(const int32_t* offsets, int64_t from, int64_t texts, int64_t rows) {
    int64_t to = from + 1;
    while (to < texts && offsets[to + 1] - offsets[from] <= rows) to++;
    return to;
}

// True if `members` threads that share all work are faster than `threads` that take a text each.
INLINE bool too_few(int64_t texts, int64_t tokens, int64_t most, int64_t threads, int64_t members) {
    const int64_t turns = (texts + threads - 1) / threads;  // each as long as the longest text, at worst
    return texts < 4 * threads && 10 * tokens < 8 * members * most * turns;
}

template <class K>
void encode(const Encoder& encoder, const int64_t* ids, const int64_t* positions, const int64_t* types,
            const int32_t* offsets, int64_t texts, int64_t threads, float* out) {
    const int64_t tokens = offsets[texts], most = longest(offsets, texts);
    const int64_t members = smaller(threads, Product<K>{nullptr, 1, encoder.dim, encoder.dim}.panels());
    if (too_few(texts, tokens, most, threads, members)) {
        const int64_t rows = larger(MOST_ROWS * threads, most);
        Pass<K> pass(encoder, smaller(tokens, rows));
#pragma omp parallel num_threads((int)members)
        {
            Team team = {0, 1};
#ifdef _OPENMP
            team = {omp_get_thread_num(), omp_get_num_threads()};
#endif
            Scratch<K> scratch(encoder, most);
            for (int64_t from = 0, to = 0; from < texts; from = to) {
                to = texts_until(offsets, from, texts, rows);
                pass.run(offsets + from, to - from, ids, positions, types, out, scratch, team);
            }
        }
        return;
    }
    int64_t next = 0;
    const int64_t rows = larger(MOST_ROWS, most);
#pragma omp parallel num_threads((int)threads)
    {
        Pass<K> pass(encoder, rows);
        Scratch<K> scratch(encoder, most);
        for (;;) {
            int64_t from, to;
#pragma omp critical(minisbert_texts)
            {
                from = next;
                if (from < texts) {  // smaller parts towards the end, so that threads end together
                    const int64_t part = (tokens - offsets[from]) / (2 * threads);
                    next = texts_until(offsets, from, texts, larger(LEAST_ROWS, smaller(part, MOST_ROWS)));
                }
                to = next;
            }
            if (from >= texts) break;
            pass.run(offsets + from, to - from, ids, positions, types, out, scratch, Team{0, 1});
        }
    }
}

// x (rows, depth) times the weight of `layer` plus its bias, to float32, (rows, columns). x is in float32, or in
// bfloat16 for such weights.
template <class K>
void multiply_rows(int64_t rows, int64_t columns, int64_t depth, const void* x, const Linear* layer, int64_t threads,
                   float* out) {
    const int64_t part = smaller((rows + threads - 1) / threads, MOST_ROWS);
    const Product<K> product = {layer, 1, columns, depth};
#pragma omp parallel num_threads((int)threads)
    {
        Buffer memory(scratch_words<K>(depth) + (is_int8<K> ? 2 * part * depth : 0) + 64);
        float *scratch = memory.take(scratch_words<K>(depth)), *scales = nullptr;
        typename K::Input* quantized = nullptr;
        if (is_int8<K>) scales = memory.take(part * depth), quantized = (typename K::Input*)memory.take(part * depth);
#pragma omp for schedule(dynamic, 1)
        for (int64_t from = 0; from < rows; from += part) {
            const int64_t count = smaller(rows - from, part);
            const auto* input = (const typename K::Input*)x + from * depth;
            if constexpr (is_int8<K>) {
                for (int64_t i = 0; i < count; i++)
                    quantize(depth, (const float*)x + (from + i) * depth, layer->factors, quantized + i * depth,
                             scales + i * block_count(depth));
                input = quantized;
            }
            multiply(count, input, scales, product, 0, product.panels(), scratch, product.weights(0),
                     [&](int64_t row, int64_t column, vf value)
                         ALWAYS_INLINE { store(out + (from + row) * columns + column, value); });
        }
    }
}

bool within(const int64_t* numbers, int64_t count, int64_t rows) {
    for (int64_t i = 0; i < count; i++)
        if (numbers[i] < 0 || numbers[i] >= rows) return false;
    return true;
}

template <class K>
int64_t checked(const Encoder& encoder, const int64_t* ids, const int64_t* positions, const int64_t* types,
                const int32_t* offsets, int64_t texts, int64_t tokens, int64_t threads, float* out) {
    if (texts < 0 || offsets[0] || offsets[texts] != tokens) return 0;
    for (int64_t t = 0; t < texts; t++)
        if (offsets[t] > offsets[t + 1]) return 0;
    if (!within(ids, tokens, encoder.word_rows) || !within(positions, tokens, encoder.position_rows)) return 0;
    if (types && encoder.types && !within(types, tokens, encoder.type_rows)) return 0;
    if (tokens) encode<K>(encoder, ids, positions, types, offsets, texts, threads, out);
    return 1;
}

constexpr int64_t FLOAT32 = 1, BFLOAT16 = 2, INT8 = 4;

// Calls use(K()) for the products of a dtype; those of float32 where that dtype has none.
template <class F>
auto of_dtype(int64_t dtype, const F& use) {
#ifdef HAS_BFLOAT16
    if (dtype == BFLOAT16) return use(Bfloat16());
#endif
#ifdef HAS_INT8
    if (dtype == INT8) return use(Int8());
#endif
    return use(Float32());
}

}  // namespace

extern "C" {

// The dtypes of products that are available: a sum of FLOAT32, BFLOAT16 and INT8.
int64_t EXPORT(encoder_dtypes)() {
    int64_t dtypes = FLOAT32;
#ifdef HAS_BFLOAT16
    dtypes += BFLOAT16;
#endif
#ifdef HAS_INT8
    dtypes += INT8;
#endif
    return dtypes;
}

// One product alone.
void EXPORT(encoder_product)(int64_t dtype, int64_t rows, int64_t columns, int64_t depth, const void* x,
                             const Linear* layer, int64_t threads, float* out) {
    of_dtype(dtype, [&](auto k) {
        multiply_rows<decltype(k)>(rows, columns, depth, x, layer, threads, out);
    });
}

// Ids, positions and types (or null) of packed tokens to `out`, (tokens, dim). Returns 0, having computed nothing, if a
// number is not in its table, or the offsets fall or are not of `tokens` tokens.
int64_t EXPORT(encoder_run)(int64_t dtype, const Encoder* encoder, const int64_t* ids, const int64_t* positions,
                            const int64_t* types, const int32_t* offsets, int64_t texts, int64_t tokens,
                            int64_t threads, float* out) {
    return of_dtype(dtype, [&](auto k) {
        return checked<decltype(k)>(*encoder, ids, positions, types, offsets, texts, tokens, threads, out);
    });
}

}  // extern "C"
