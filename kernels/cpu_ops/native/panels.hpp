// Matrix products with weights as torch stores them: row-major, (columns, depth).
//
// Weights are packed a panel at a time, right before the panel is used, into memory of the calling thread that stays
// in its cache. No packed weight outlives the forward pass, so none can go stale. In a panel of up to PANEL vectors of
// columns, each step along the depth holds GROUP weights of every column, which fill 32 bits. Each sum is taken in the
// order of the depth, starting from the bias, for any number of rows and threads: the product of a row has the same
// bits in any batch.

#pragma once

#include "lanes.hpp"

namespace {

// One panel of C vectors of columns: packed, and multiplied with rows.
template <class K, int C>
struct Panel {
    static constexpr int LINES = (C * W * 4 + 63) / 64;  // of 64 bytes, in a step
    const Product<K>& product;
    int64_t vector;  // the first one
    float* header;
    int32_t* packed;

    INLINED Panel(const Product<K>& p, int64_t v, float* memory)
        : product(p), vector(v), header(memory), packed((int32_t*)memory + HEADER * C * W) {}

    INLINED void start_packing() const {
        repeat<C>([&](auto c) ALWAYS_INLINE {
            const Linear& layer = product.layer(vector + c);
            const int64_t column = product.column(vector + c);
            store(header + c * W, load((const typename K::Parameter*)layer.bias + column));
        });
    }

    __attribute__((noinline)) void pack() const {
        const int64_t steps = product.steps();
        for (int64_t c = 0; c < C; c++) {
            const char* weights = product.weights(vector + c);
            int32_t* out = packed + c * W;
            int64_t i = 0;
            for (; i + W <= steps; i += W, out += W * C * W) pack_block<true>(weights + i * 4, W, out);
            if (i < steps) pack_block<false>(weights + i * 4, steps - i, out);
        }
    }

    // W columns of weights, of W steps or of `count`.
    template <bool ALL>
    INLINED void pack_block(const char* weights, int64_t count, int32_t* out) const {
        const int64_t row = product.steps() * 4;
        vf block[W];
        repeat<W>([&](auto c) ALWAYS_INLINE {
            block[c] = ALL ? load((const float*)weights) : load_some((const float*)weights, count);
            weights += row;
            asm("" : "+r"(weights));  // one pointer that moves is faster than the W that the compiler would keep
        });
        transpose(block);
        repeat<W>([&](auto s) ALWAYS_INLINE {
            if (ALL || s < count) memcpy(out + s * C * W, &block[s], 4 * W);
        });
    }

    template <int R>
    INLINED void start(typename K::Sum (&sum)[R][C]) const {
        repeat<C>([&](auto c) ALWAYS_INLINE {
            sum[0][c] = load(header + c * W);
            repeat<R - 1>([&](auto r) ALWAYS_INLINE { sum[r + 1][c] = sum[0][c]; });
        });
    }

    // Add R rows of inputs, from `a` on, times `steps` packed steps. With FETCH each brings a line of `next` into the
    // cache.
    template <int R, bool FETCH>
    INLINED void accumulate(typename K::Sum (&sum)[R][C], const typename K::Input* a, int64_t steps,
                            const char* next) const {
        const int32_t* at = packed;
        for (int64_t i = 0; i < steps; i++, at += C * W) {
            vi weights[C];
            if (FETCH) __builtin_prefetch(next + i * 64, 0, 3);
            repeat<C>([&](auto c) ALWAYS_INLINE { memcpy(&weights[c], at + c * W, 4 * W); });
            repeat<R>([&](auto r) ALWAYS_INLINE {
                int32_t group;
                memcpy(&group, a + r * product.depth + i * K::GROUP, 4);
                repeat<C>([&](auto c) ALWAYS_INLINE { sum[r][c] = K::plus(sum[r][c], group, weights[c]); });
            });
        }
    }

    // The packed panel for rows from `row` on. The first tiles fetch the next panel.
    template <int R, class F>
    INLINED void multiply(int64_t row, int64_t rows, const typename K::Input* a, const char* next, const F& use) const {
        const int64_t steps = product.steps();
        for (; rows - row >= R; row += R) {
            typename K::Sum sum[R][C];
            start(sum);
            if (R == TILE_ROWS && row < LINES * R)
                accumulate<R, true>(sum, a + row * product.depth, steps, next + row / R * steps * 64);
            else
                accumulate<R, false>(sum, a + row * product.depth, steps, nullptr);
            use_sums<R, C>(sum, row, vector * W, use);
        }
        if constexpr (R > 1) multiply<R / 2>(row, rows, a, next, use);
    }
};

// Calls use(panel) with panel p of a product, whose memory is given.
template <class K, class F>
INLINE void with_panel(const Product<K>& product, int64_t p, float* memory, const F& use) {
    const int64_t vector = p * PANEL, vectors = product.vectors() - vector;
    if (vectors >= 3)
        use(Panel<K, 3>(product, vector, memory));
    else if (vectors == 2)
        use(Panel<K, 2>(product, vector, memory));
    else
        use(Panel<K, 1>(product, vector, memory));
}

// Calls use(row, column, values) for every vector of `rows` rows times the weights plus the bias, in panels `first` to
// `last`.
//
// Args:
//     a: (rows, depth).
//     memory: of this thread, for scratch_words() words.
//     next: weights that are needed after the last panel, and are fetched into the cache meanwhile.
template <class K, class F>
__attribute__((noinline)) void multiply(int64_t rows, const typename K::Input* a, const float*,
                                        const Product<K>& product, int64_t first, int64_t last, float* memory,
                                        const char* next, const F& use) {
    if (rows <= FEW_ROWS) {
        const int64_t vectors = smaller(last * PANEL, product.vectors());
        return multiply_few(rows, a, product, first * PANEL, vectors, memory, next, use);
    }
    for (int64_t p = first; p < last; p++) {
        const char* then = p + 1 < last ? product.weights((p + 1) * PANEL) : next;
        with_panel(product, p, memory, [&](const auto& panel) ALWAYS_INLINE {
            panel.start_packing();
            panel.pack();
            panel.template multiply<TILE_ROWS>(0, rows, a, then, use);
        });
    }
}

}  // namespace
