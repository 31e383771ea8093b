// A whole encoder over packed tokens, for inference, with the weights as they are in the modules.
//
// A thread takes some texts, a few hundred tokens, from the embeddings through all layers to the result: activations
// stay in its cache, and threads never wait for each other. Where there are too few texts for that, as with a single
// one, all threads share each stage of the same tokens (a Team).

#include "pass.hpp"

namespace {

constexpr int64_t LEAST_ROWS = 32;  // tokens that go through the layers together in a thread, at least

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
    const Rotations rotations(encoder, most);
    const RelativeBias<typename K::Parameter> bias(encoder, most);
    if (too_few(texts, tokens, most, threads, members)) {
        const int64_t rows = larger(MOST_ROWS * threads, most);
        Pass<K> pass(encoder, rotations, bias, smaller(tokens, rows));
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
        Pass<K> pass(encoder, rotations, bias, rows);
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
    if (!within(ids, tokens, encoder.word_rows)) return 0;
    if (encoder.positions && !within(positions, tokens, encoder.position_rows)) return 0;
    if (types && encoder.types && !within(types, tokens, encoder.type_rows)) return 0;
    if (tokens) encode<K>(encoder, ids, positions, types, offsets, texts, threads, out);
    return 1;
}

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
