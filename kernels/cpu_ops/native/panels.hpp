// Products with weights that are laid out beforehand.
//
// A weight (columns, depth) stands as panels of PANEL vectors of columns; the last one may be narrower. A panel is read
// from front to back: what the sums start from, then for each step along the depth GROUP weights of every column, which
// fill 32 bits. Each sum is taken in the order of the depth, however many rows and threads there are: a row's product
// is the same to the bit in any company.

#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "threads.hpp"

namespace {

constexpr int PANEL = 3;  // vectors; the sums of a tile have to fit the registers
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int TILE_ROWS = 8;
#else
constexpr int TILE_ROWS = 4;
#endif

struct Float32 {
    typedef float Input;
    typedef float Weight;
    typedef vf Sum;
    static constexpr int GROUP = 1;
    INLINE Sum plus(Sum sum, int32_t group, vi weights) {
        float x;
        memcpy(&x, &group, 4);
        return sum + x * (vf)weights;
    }
};

// oneDNN has the better product where the processor has matrix registers.
#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#define HAS_BFLOAT16
struct Bfloat16 {
    typedef bf16 Input;
    typedef bf16 Weight;
    typedef vf Sum;
    static constexpr int GROUP = 2;
    INLINE Sum plus(Sum sum, int32_t group, vi weights) {
        return (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(group), (__m512bh)weights);
    }
};
#endif

#if defined(__AVX512VNNI__) && !defined(__AMX_INT8__)
#define HAS_INT8
// Inputs are 0 to 255 with their zero at 128; the sums start from what that zero adds to them.
struct Int8 {
    typedef uint8_t Input;
    typedef int8_t Weight;
    typedef vi Sum;
    static constexpr int GROUP = 4;
    INLINE Sum plus(Sum sum, int32_t group, vi weights) {
        return (vi)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(group), (__m512i)weights);
    }
};
#endif

INLINE int64_t panel_words(int64_t vectors, int64_t steps) { return vectors * W * (steps + 1); }

// Words of 32 bits that a weight takes.
template <class K>
int64_t laid_out_words(int64_t columns, int64_t depth) {
    return panel_words(columns / W, depth / K::GROUP);
}

// starts: what the sums start from, (columns,), of 32 bits each.
template <class K>
void lay_out(int64_t columns, int64_t depth, const typename K::Weight* weight, const int32_t* starts, int32_t* to) {
    const int64_t steps = depth / K::GROUP;
#pragma omp parallel for schedule(static)
    for (int64_t at = 0; at < columns; at += PANEL * W) {
        const int64_t wide = columns - at < PANEL * W ? columns - at : PANEL * W;
        int32_t* panel = to + panel_words(at / W, steps);
        memcpy(panel, starts + at, (size_t)wide * 4);
        for (int64_t i = 0; i < steps; i++)
            for (int64_t c = 0; c < wide; c++)
                memcpy(panel + (i + 1) * wide + c, weight + (at + c) * depth + i * K::GROUP, 4);
    }
}

template <class K, int R, int C, class F>
INLINE void panel_tile(int64_t steps, const typename K::Input* a, int64_t depth, const int32_t* panel, const F& use) {
    typename K::Sum sum[R][C];
    repeat<C>([&](auto c) {
        memcpy(&sum[0][c], panel + c * W, 4 * W);
        repeat<R - 1>([&](auto r) { sum[r + 1][c] = sum[0][c]; });
    });
    for (int64_t i = 0; i < steps; i++) {
        panel += C * W;
        vi weights[C];
        repeat<C>([&](auto c) { memcpy(&weights[c], panel + c * W, 4 * W); });
        repeat<R>([&](auto r) {
            int32_t group;
            memcpy(&group, a + r * depth + i * K::GROUP, 4);
            repeat<C>([&](auto c) { sum[r][c] = K::plus(sum[r][c], group, weights[c]); });
        });
    }
    repeat<R>([&](auto r) ALWAYS_INLINE { repeat<C>([&](auto c) ALWAYS_INLINE { use(r, c * W, sum[r][c]); }); });
}

// Brings memory into the cache, some words at a time.
struct Ahead {
    const int32_t *next, *end;
    int64_t words;

    INLINED void fetch() {
        for (const int32_t* to = next + words < end ? next + words : end; next < to; next += 16)
            __builtin_prefetch(next, 0, 2);
    }
};

template <class K, int C, int R, class F>
INLINE void panel_rows(int64_t from, int64_t rows, int64_t depth, const typename K::Input* a, const int32_t* panel,
                       Ahead& ahead, const F& use) {
    for (; rows - from >= R; from += R) {
        ahead.fetch();
        panel_tile<K, R, C>(depth / K::GROUP, a + from * depth, depth, panel,
                            [&](int64_t r, int64_t c, typename K::Sum sum) ALWAYS_INLINE { use(from + r, c, sum); });
    }
    if constexpr (R > 1) panel_rows<K, C, R / 2>(from, rows, depth, a, panel, ahead, use);
}

// Gives use(row, column, sums) every vector of a (rows, depth) times the weight, in panels `first` to `last`. What
// follows a panel in memory is fetched while the rows go through it: the next panel, where the weights of an encoder
// stand one after the other.
template <class K, class F>
__attribute__((noinline)) void multiply(int64_t rows, int64_t columns, int64_t depth, const typename K::Input* a,
                                        const int32_t* panels, int64_t first, int64_t last, const F& use) {
    for (int64_t p = first; p < last; p++) {
        const int64_t at = p * PANEL * W, vectors = columns - at < PANEL * W ? (columns - at) / W : PANEL;
        const int32_t* panel = panels + panel_words(p * PANEL, depth / K::GROUP);
        const int64_t words = panel_words(vectors, depth / K::GROUP);
        Ahead ahead = {panel + words, panel + 2 * words, (words * TILE_ROWS + rows - 1) / rows};
        const auto placed = [&](int64_t row, int64_t c, typename K::Sum sum) ALWAYS_INLINE { use(row, at + c, sum); };
        if (vectors == 3)
            panel_rows<K, 3, TILE_ROWS>(0, rows, depth, a, panel, ahead, placed);
        else if (vectors == 2)
            panel_rows<K, 2, TILE_ROWS>(0, rows, depth, a, panel, ahead, placed);
        else
            panel_rows<K, 1, TILE_ROWS>(0, rows, depth, a, panel, ahead, placed);
    }
}

INLINE int64_t panel_count(int64_t columns) { return (columns / W + PANEL - 1) / PANEL; }

// A row to whole numbers from -127 to 127, plus 128; gives what one step stands for (0 for a row of zeros).
INLINE float quantize(int64_t dim, const float* row, uint8_t* out) {
    vf top = {}, strange = {};  // no number where the row holds one that is none or infinite
    for (int64_t d = 0; d < dim; d += W) {
        const vf value = load(row + d);
        top = max(top, abs(value));
        strange += value * 0.0f;
    }
    const float most = largest(top) + total(strange), by = most > 0 ? 127.0f / most : 0.0f;
    for (int64_t d = 0; d < dim; d += W) {
        const vf scaled = rounded(load(row + d) * by);
        const vi whole = (bits(scaled + ROUND) - bits(splat(ROUND))) + 128;
        const vb narrow = __builtin_convertvector(whole, vb);
        memcpy(out + d, &narrow, sizeof narrow);
    }
    return most / 127.0f;
}

}  // namespace
