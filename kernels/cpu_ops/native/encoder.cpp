// A whole BERT-family encoder over packed tokens, for inference.
//
// A thread takes some texts, a few hundred tokens, from the embeddings through all layers to the result: what lies
// between the layers stays in its cache, and threads never wait for each other. Where there are too few texts for that,
// as with a single one, all threads share each stage of the same tokens (a Team).
//
// Everything but the products is in float32. A row is computed in the same order of operations in any batch and with
// any number of threads, so that a text has the same embedding, to the bit, in any company.

#include "attention.hpp"
#include "norm.hpp"
#include "panels.hpp"

extern "C" {

struct Product {
    const int32_t* panels;
    const float *bias, *scales;  // of int8; elsewhere the sums start from the bias
};

struct Norm {
    const float *weight, *bias;
    float eps;
};

struct Layer {
    Product qkv, output;
    Norm attention_norm;
    Product up, down;
    Norm output_norm;
};

struct Encoder {
    int64_t half_tables, dim, heads, inner, layers;
    int64_t word_rows, place_rows, kind_rows;
    const void *words, *places, *kinds;  // float32 or bfloat16; kinds may be null
    Norm norm;
    const Layer* layer;
};
}

namespace {

constexpr int64_t MOST_ROWS = 256, LEAST_ROWS = 32;  // tokens that go through the layers together, in a thread

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

// How the inputs of products stand in memory: as they were written, or made from it.
template <class K>
struct Inputs {
    typedef typename K::Input Written;
    INLINE vf value(typename K::Sum sum, const Product&, const float*, int64_t, int64_t) { return sum; }
};

#ifdef HAS_INT8
template <>
struct Inputs<Int8> {
    typedef float Written;
    INLINE vf value(vi sum, const Product& product, const float* scales, int64_t row, int64_t column) {
        return __builtin_convertvector(sum, vf) * (scales[row] * load(product.scales + column)) +
               load(product.bias + column);
    }
};
#endif

template <class K>
struct Pass {
    typedef typename K::Input Input;
    typedef typename Inputs<K>::Written Written;
    static constexpr bool QUANTIZED = sizeof(Input) == 1, HALF = sizeof(Input) == 2;

    const Encoder& encoder;
    float *wide, *sums, *scales;
    Written *written, *raised;
    Input *narrow;

    static int64_t floats(const Encoder& e, int64_t rows) {
        const int64_t wide = 3 * e.dim > e.inner ? 3 * e.dim : e.inner, most = e.dim > e.inner ? e.dim : e.inner;
        return rows * (wide + e.dim + e.dim + 1 + most) + 6 * 16;
    }

    Pass(const Encoder& e, int64_t rows, Buffer& buffer) : encoder(e) {
        const int64_t most = 3 * e.dim > e.inner ? 3 * e.dim : e.inner;
        wide = buffer.take(rows * most);
        raised = (Written*)wide;  // queries, keys and values are done with by then
        sums = buffer.take(rows * e.dim);
        written = (Written*)buffer.take(rows * e.dim);
        scales = buffer.take(rows);
        narrow = (Input*)buffer.take(rows * (e.dim > e.inner ? e.dim : e.inner));
    }

    // What a product reads: rows as they were written, or in int8.
    const Input* input(int64_t rows, int64_t dim, const Written* from, const Team& team) {
        if constexpr (QUANTIZED) {
            team.share(rows, [&](int64_t i) { scales[i] = quantize(dim, from + i * dim, narrow + i * dim); });
            team.wait();
            return narrow;
        } else {
            return from;
        }
    }

    template <class T, class F>
    void product(int64_t rows, int64_t columns, int64_t depth, const Input* from, const Product& by, T* to,
                 const Team& team, const F& then) {
        const int64_t panels = panel_count(columns);
        multiply<K>(rows, columns, depth, from, by.panels, team.first(panels), team.first(panels, 1),
                    [&](int64_t row, int64_t column, typename K::Sum sum) ALWAYS_INLINE {
                        store(to + row * columns + column, then(Inputs<K>::value(sum, by, scales, row, column)));
                    });
        team.wait();
    }

    // hidden = normalized(sums + hidden), and as the next product reads it in bfloat16.
    void add_norm(int64_t rows, const Norm& norm, float* hidden, const Team& team) {
        const int64_t dim = encoder.dim;
        team.share(rows, [&](int64_t i) {
            float* row = hidden + i * dim;
            for (int64_t d = 0; d < dim; d += W) store(row + d, load(row + d) + load(sums + i * dim + d));
            standardize(row, dim, norm.eps);
            affine(row, norm.weight, norm.bias, dim, row);
            if constexpr (HALF) halve(row, i);
        });
        team.wait();
    }

    void halve(const float* row, int64_t i) {
        for (int64_t d = 0; d < encoder.dim; d += W) store(narrow + i * encoder.dim + d, load(row + d));
    }

    const Input* given(int64_t rows, const float* hidden, const Team& team) {
        if constexpr (HALF)
            return narrow;
        else
            return input(rows, encoder.dim, hidden, team);
    }

    template <class T>
    void embed(int64_t rows, const int64_t* ids, const int64_t* places, const int64_t* kinds, float* hidden,
               const Team& team) {
        const Tables<T> tables = {(const T*)encoder.words, (const T*)encoder.places, (const T*)encoder.kinds};
        const Norm& norm = encoder.norm;
        team.share(rows, [&](int64_t i) {
            float* row = hidden + i * encoder.dim;
            tables.embed(ids[i], places[i], kinds ? kinds[i] : 0, encoder.dim, norm.eps, row);
            affine(row, norm.weight, norm.bias, encoder.dim, row);
            if constexpr (HALF) halve(row, i);
        });
        team.wait();
    }

    // The texts that offsets[0] to offsets[texts] tell; hidden: their rows, from the embeddings to the result.
    void layers(const int32_t* offsets, int64_t texts, float* hidden, Buffer& buffer, const Team& team) {
        const int64_t dim = encoder.dim, rows = offsets[texts] - offsets[0], head = dim / encoder.heads;
        const float scale = 1.0f / sqrtf((float)head);
        const auto plain = [](vf x) ALWAYS_INLINE { return x; };
        const auto activated = [](vf x) ALWAYS_INLINE { return gelu(x); };
        for (int64_t l = 0; l < encoder.layers; l++) {
            const Layer& layer = encoder.layer[l];
            product(rows, 3 * dim, dim, given(rows, hidden, team), layer.qkv, wide, team, plain);
            team.share(texts * encoder.heads, [&](int64_t i) {
                const int64_t text = i / encoder.heads, h = i % encoder.heads, start = offsets[text] - offsets[0];
                const float* q = wide + start * 3 * dim + h * head;
                attend(q, q + dim, q + 2 * dim, 3 * dim, offsets[text + 1] - offsets[text], head, scale,
                       written + start * dim + h * head, dim, buffer, Marked());
            });
            team.wait();
            product(rows, dim, dim, input(rows, dim, written, team), layer.output, sums, team, plain);
            add_norm(rows, layer.attention_norm, hidden, team);
            product(rows, encoder.inner, dim, given(rows, hidden, team), layer.up, raised, team, activated);
            product(rows, dim, encoder.inner, input(rows, encoder.inner, raised, team), layer.down, sums, team, plain);
            add_norm(rows, layer.output_norm, hidden, team);
        }
    }

    void run(const int32_t* offsets, int64_t texts, const int64_t* ids, const int64_t* places, const int64_t* kinds,
             float* out, Buffer& buffer, const Team& team) {
        const int64_t start = offsets[0], rows = offsets[texts] - start;
        kinds = kinds ? kinds + start : nullptr;
        if (encoder.half_tables)
            embed<bf16>(rows, ids + start, places + start, kinds, out + start * encoder.dim, team);
        else
            embed<float>(rows, ids + start, places + start, kinds, out + start * encoder.dim, team);
        layers(offsets, texts, out + start * encoder.dim, buffer, team);
    }
};

// Texts from `from` on that have `rows` tokens together, at least one.
int64_t texts_of(const int32_t* offsets, int64_t from, int64_t texts, int64_t rows) {
    int64_t to = from + 1;
    while (to < texts && offsets[to + 1] - offsets[from] <= rows) to++;
    return to;
}

// Whether `members` threads that share all work are faster than `threads` that take a text each.
INLINE bool too_few(int64_t texts, int64_t tokens, int64_t most, int64_t threads, int64_t members) {
    const int64_t turns = (texts + threads - 1) / threads;  // each as long as the longest text, at worst
    return texts < 4 * threads && 10 * tokens < 8 * members * most * turns;
}

template <class K>
void encode(const Encoder& encoder, const int64_t* ids, const int64_t* places, const int64_t* kinds,
            const int32_t* offsets, int64_t texts, int64_t threads, float* out) {
    const int64_t tokens = offsets[texts], most = longest(offsets, texts);
    const int64_t head_floats = attention_floats(most, encoder.dim / encoder.heads);
    const int64_t members = threads < panel_count(encoder.dim) ? threads : panel_count(encoder.dim);
    if (too_few(texts, tokens, most, threads, members)) {
        const int64_t rows = MOST_ROWS * threads > most ? MOST_ROWS * threads : most;
        Buffer space(Pass<K>::floats(encoder, tokens < rows ? tokens : rows));
        Pass<K> pass(encoder, tokens < rows ? tokens : rows, space);
#pragma omp parallel num_threads((int)members)
        {
            Team team = {0, 1};
#ifdef _OPENMP
            team = {omp_get_thread_num(), omp_get_num_threads()};
#endif
            Buffer buffer(head_floats);
            for (int64_t from = 0, to = 0; from < texts; from = to) {
                to = texts_of(offsets, from, texts, rows);
                pass.run(offsets + from, to - from, ids, places, kinds, out, buffer, team);
            }
        }
        return;
    }
    int64_t next = 0;
    const int64_t rows = MOST_ROWS > most ? MOST_ROWS : most;
#pragma omp parallel num_threads((int)threads)
    {
        Buffer space(Pass<K>::floats(encoder, rows)), buffer(head_floats);
        Pass<K> pass(encoder, rows, space);
        for (;;) {
            int64_t from, to;
#pragma omp critical(minisbert_texts)
            {
                from = next;
                if (from < texts) {  // smaller parts towards the end, so that threads end together
                    int64_t part = (tokens - offsets[from]) / (2 * threads);
                    part = part < LEAST_ROWS ? LEAST_ROWS : part > MOST_ROWS ? MOST_ROWS : part;
                    next = texts_of(offsets, from, texts, part);
                }
                to = next;
            }
            if (from >= texts) break;
            pass.run(offsets + from, to - from, ids, places, kinds, out, buffer, Team{0, 1});
        }
    }
}

// One product alone: sums of `rows` rows, as they are before anything is done with them.
template <class K>
void multiply_all(int64_t rows, int64_t columns, int64_t depth, const void* x, const int32_t* panels, int64_t threads,
                  void* out) {
    int64_t part = (rows + threads - 1) / threads;
    part = part < MOST_ROWS ? part : MOST_ROWS;
#pragma omp parallel for schedule(dynamic, 1) num_threads((int)threads)
    for (int64_t from = 0; from < rows; from += part)
        multiply<K>(rows - from < part ? rows - from : part, columns, depth,
                    (const typename K::Input*)x + from * depth, panels, 0, panel_count(columns),
                    [&](int64_t row, int64_t column, typename K::Sum sum) ALWAYS_INLINE {
                        memcpy((int32_t*)out + (from + row) * columns + column, &sum, sizeof sum);
                    });
}

bool within(const int64_t* numbers, int64_t count, int64_t rows) {
    for (int64_t i = 0; i < count; i++)
        if (numbers[i] < 0 || numbers[i] >= rows) return false;
    return true;
}

template <class K>
int64_t checked(const Encoder* encoder, const int64_t* ids, const int64_t* places, const int64_t* kinds,
                const int32_t* offsets, int64_t texts, int64_t threads, float* out) {
    const int64_t tokens = offsets[texts];
    if (!within(ids, tokens, encoder->word_rows) || !within(places, tokens, encoder->place_rows)) return 0;
    if (kinds && encoder->kinds && !within(kinds, tokens, encoder->kind_rows)) return 0;
    if (tokens) encode<K>(*encoder, ids, places, kinds, offsets, texts, threads, out);
    return 1;
}

}  // namespace

extern "C" {

// Which products are here: 1 for float32, and 2 for bfloat16, and 4 for int8.
int64_t encoder_kinds() {
    int64_t kinds = 1;
#ifdef HAS_BFLOAT16
    kinds += 2;
#endif
#ifdef HAS_INT8
    kinds += 4;
#endif
    return kinds;
}

int64_t encoder_words(int64_t kind, int64_t columns, int64_t depth) {
#ifdef HAS_BFLOAT16
    if (kind == 2) return laid_out_words<Bfloat16>(columns, depth);
#endif
#ifdef HAS_INT8
    if (kind == 4) return laid_out_words<Int8>(columns, depth);
#endif
    return laid_out_words<Float32>(columns, depth);
}

void encoder_lay_out(int64_t kind, int64_t columns, int64_t depth, const void* weight, const int32_t* starts,
                     int32_t* to) {
#ifdef HAS_BFLOAT16
    if (kind == 2) return lay_out<Bfloat16>(columns, depth, (const bf16*)weight, starts, to);
#endif
#ifdef HAS_INT8
    if (kind == 4) return lay_out<Int8>(columns, depth, (const int8_t*)weight, starts, to);
#endif
    lay_out<Float32>(columns, depth, (const float*)weight, starts, to);
}

// x (rows, depth) times a laid-out weight, to float32, of int8 to int32, (rows, columns).
void encoder_product(int64_t kind, int64_t rows, int64_t columns, int64_t depth, const void* x, const int32_t* panels,
                     int64_t threads, void* out) {
#ifdef HAS_BFLOAT16
    if (kind == 2) return multiply_all<Bfloat16>(rows, columns, depth, x, panels, threads, out);
#endif
#ifdef HAS_INT8
    if (kind == 4) return multiply_all<Int8>(rows, columns, depth, x, panels, threads, out);
#endif
    multiply_all<Float32>(rows, columns, depth, x, panels, threads, out);
}

// Ids, places and types (or null) of packed tokens to `out`, (tokens, dim). Returns 0, having done nothing, where a
// number is not in its table.
int64_t encoder_run(int64_t kind, const Encoder* encoder, const int64_t* ids, const int64_t* places,
                    const int64_t* kinds, const int32_t* offsets, int64_t texts, int64_t threads, float* out) {
#ifdef HAS_BFLOAT16
    if (kind == 2) return checked<Bfloat16>(encoder, ids, places, kinds, offsets, texts, threads, out);
#endif
#ifdef HAS_INT8
    if (kind == 4) return checked<Int8>(encoder, ids, places, kinds, offsets, texts, threads, out);
#endif
    return checked<Float32>(encoder, ids, places, kinds, offsets, texts, threads, out);
}

}  // extern "C"
