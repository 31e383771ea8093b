// The layers of a BERT-family encoder in training: a forward pass that keeps what its gradients need, and the gradients.
//
// Gradients of weights are sums over all tokens, taken in an order that depends on neither the threads nor the texts.
// Everything but the products is in float32; in bfloat16, what they read is kept in bfloat16.

#include "backward.hpp"
#include "forward.hpp"

namespace {

template <class F>
auto of_dtype(int64_t dtype, const F& use) {
#if defined(HAS_BFLOAT16)
    if (dtype == BFLOAT16) return use(Half());
#endif
    return use(Float32());
}

}  // namespace

extern "C" {

// Bytes that the forward pass keeps for the backward pass.
int64_t EXPORT(training_kept)(int64_t dtype, const TrainedLayers* t, const float*, const int32_t*, int64_t,
                              int64_t tokens, int64_t) {
    return of_dtype(dtype, [&](auto k) { return t->layers * kept_bytes<decltype(k)>(*t, tokens); });
}

// Bytes that each of the two passes needs besides.
int64_t EXPORT(training_shared)(int64_t dtype, const TrainedLayers* t, const float*, const int32_t* offsets,
                                int64_t texts, int64_t tokens, int64_t threads) {
    return of_dtype(dtype, [&](auto k) {
        Pieces forward = {nullptr}, backward = {nullptr};
        ForwardMemory<decltype(k)>(forward, *t, forward_rows(tokens, threads, longest(offsets, texts)));
        BackwardMemory<decltype(k)>(backward, *t, tokens, tokens_of_a_stage(tokens, threads));
        return larger(forward.bytes * threads, backward.bytes);
    });
}

// The layers over packed tokens: embedded (tokens, dim) to out, the same. `kept` is for the backward pass.
void EXPORT(training_forward)(int64_t dtype, const TrainedLayers* t, const float* embedded, const int32_t* offsets,
                              int64_t texts, int64_t tokens, int64_t threads, char* kept, char* shared, float* out) {
    of_dtype(dtype, [&](auto k) {
        forward<decltype(k)>(*t, embedded, offsets, texts, tokens, threads, kept, shared, out);
    });
}

// The gradient of out, in d_hidden (tokens, dim), becomes that of the input of layer `lowest`. Writes the gradients of
// that layer and those above.
void EXPORT(training_backward)(int64_t dtype, const TrainedLayers* t, const float* embedded, const int32_t* offsets,
                               int64_t texts, int64_t tokens, int64_t threads, char* kept, char* shared,
                               float* d_hidden, int64_t lowest) {
    of_dtype(dtype, [&](auto k) {
        backward<decltype(k)>(*t, embedded, offsets, texts, tokens, threads, kept, shared, d_hidden, lowest);
    });
}

}  // extern "C"
