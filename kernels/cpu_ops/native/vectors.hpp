// Vectors of floats as wide as the machine's registers, and functions of them.
//
// They are the compiler's vector extension (`vector_size`) and need no alignment. Every dimension that they run along
// is a multiple of 16, which Python checks.

#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include <utility>

// Every file is compiled once for each instruction set, with LEVEL as its name. Functions of the library carry it in
// theirs; all others are in unnamed namespaces, templates of the standard library included: the linker would merge
// copies of one name, and might keep one that the processor cannot run.
#define NAMED_(level, name) level##_##name
#define NAMED(level, name) NAMED_(level, name)
#define EXPORT(name) __attribute__((visibility("default"))) NAMED(LEVEL, name)

#if defined(__AVX512F__)
constexpr int W = 16;  // floats in a vector
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

#define ALWAYS_INLINE __attribute__((always_inline))
#define INLINED inline ALWAYS_INLINE
#define INLINE static INLINED

namespace {

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef uint16_t vh __attribute__((vector_size(2 * W)));
typedef uint8_t vb __attribute__((vector_size(W)));
typedef uint16_t bf16;

template <class F, int... I>
INLINE void repeat_(F&& f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>()), ...);
}

template <int N, class F>  // a loop that the compiler unrolls before all other optimizations
INLINE void repeat(F&& f) {
    repeat_(f, std::make_integer_sequence<int, N>());
}

INLINE vf splat(float x) { return x - vf{}; }
INLINE vi bits(vf x) { return (vi)x; }
INLINE vf as_float(vi x) { return (vf)x; }

INLINE vf load(const float* p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE vf load(const bf16* p) {
    vh v;
    memcpy(&v, p, sizeof v);
    return (vf)(__builtin_convertvector(v, vu) << 16);
}

INLINE void store(float* p, vf v) { memcpy(p, &v, sizeof v); }

INLINE void store(bf16* p, vf v) {
    const vu u = (vu)v;
    const vu even = (u + 0x7fff + ((u >> 16) & 1)) >> 16;
    const vu out = (u & 0x7fffffff) > 0x7f800000 ? vu{} + 0x7fc0 : even;
    const vh half = __builtin_convertvector(out, vh);
    memcpy(p, &half, sizeof half);
}

INLINE vf load_some(const float* p, int64_t n) {
    vf v = {};
    memcpy(&v, p, (size_t)n * 4);
    return v;
}

INLINE void store_some(float* p, vf v, int64_t n) { memcpy(p, &v, (size_t)n * 4); }

INLINE vi lanes() {
    vi v;
    for (int i = 0; i < W; i++) v[i] = i;
    return v;
}

// Round a product before it is added to anything, as a program without fused multiply-add does.
INLINE vf rounded(vf product) {
#if defined(__AVX512F__)
    asm("" : "+v"(product));
#elif defined(__x86_64__)
    asm("" : "+x"(product));
#else
    asm("" : "+m"(product));
#endif
    return product;
}

INLINE int64_t smaller(int64_t a, int64_t b) { return b < a ? b : a; }
INLINE int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

INLINE vf max(vf a, vf b) { return a > b ? a : b; }
INLINE vi max(vi a, vi b) { return a > b ? a : b; }
INLINE vf abs(vf x) { return as_float(bits(x) & 0x7fffffff); }

// The lanes of x, each exchanged with the one S apart.
template <int S>
INLINE vf swapped(vf x) {
#if defined(__clang__)
    vf y;
    for (int i = 0; i < W; i++) y[i] = x[i ^ S];
    return y;
#else
    return __builtin_shuffle(x, lanes() ^ S);
#endif
}

template <int S = W / 2>
INLINE float total(vf x) {
    x = x + swapped<S>(x);
    if constexpr (S > 1) return total<S / 2>(x);
    return x[0];
}

// The largest of the lanes, floats or the bits of some.
template <int S = W / 2, class V>
INLINE auto largest(V x) {
    x = max(x, (V)swapped<S>((vf)x));
    if constexpr (S > 1)
        return largest<S / 2>(x);
    else
        return x[0];
}

// Transpose W x W values in registers: first 4 x 4 values within lanes of 128 bits, then the lanes.
INLINE void transpose(vf* r) {
#if defined(__clang__)
    vf t[W];
    for (int i = 0; i < W; i++)
        for (int j = 0; j < W; j++) t[i][j] = r[j][i];
    for (int i = 0; i < W; i++) r[i] = t[i];
#else
    const vi i = lanes(), lane = i & ~3, place = i & 3;
    const vi low = lane + place / 2 + place % 2 * W, high = low + 2;                // a0 b0 a1 b1, a2 b2 a3 b3
    const vi low_pairs = lane + place % 2 + place / 2 * W, high_pairs = low_pairs + 2;  // a0 a1 b0 b1, a2 a3 b2 b3
    const vi even_lanes = lane * 2 + place, odd_lanes = even_lanes + 4;             // of a, then of b
    vf t[W];
    repeat<W / 2>([&](auto n) {
        t[2 * n] = __builtin_shuffle(r[2 * n], r[2 * n + 1], low);
        t[2 * n + 1] = __builtin_shuffle(r[2 * n], r[2 * n + 1], high);
    });
    repeat<W / 4>([&](auto n) {
        repeat<2>([&](auto h) {
            r[4 * n + 2 * h] = __builtin_shuffle(t[4 * n + h], t[4 * n + h + 2], low_pairs);
            r[4 * n + 2 * h + 1] = __builtin_shuffle(t[4 * n + h], t[4 * n + h + 2], high_pairs);
        });
    });
    const auto swap_lanes = [&](auto distance) {
        repeat<W>([&](auto n) {
            if constexpr ((n & distance) == 0) {
                const vf a = r[n], b = r[n + distance];
                r[n] = __builtin_shuffle(a, b, even_lanes);
                r[n + distance] = __builtin_shuffle(a, b, odd_lanes);
            }
        });
    };
    if constexpr (W > 4) swap_lanes(std::integral_constant<int, 4>());
    if constexpr (W > 8) swap_lanes(std::integral_constant<int, 8>());
#endif
}

constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number, kept in the low bits

INLINE vf exp(vf x) {  // x is at most 88; below -87 it counts as -87
    x = x < -87.0f ? splat(-87.0f) : x;
    const vf shifted = x * 1.44269504089f + ROUND;
    const vf n = shifted - ROUND;
    const vf r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // log 2 in two parts, the first one exact
    vf p = r * 0.0013814468402415514f + 0.008368780836462975f;
    p = p * r + 0.04166839271783829f;
    p = p * r + 0.1666651964187622f;
    p = p * r + 0.4999999403953552f;
    p = (p * r + 1.0f) * r + 1.0f;
    return p * as_float((bits(shifted) + 127) << 23);
}

// Distribution function and density of the standard normal. erfc(t) exp(t^2) is a polynomial in 1 / (1 + 0.4 t),
// for t = |x| / sqrt 2.
INLINE void normal(vf x, vf& below, vf& density) {
    const vf u = 1.0f / (abs(x) * 0.28284271247f + 1.0f);
    const vf e = exp(x * x * -0.5f);
    vf p = u * 0.0669555248462214f - 0.3579164985175691f;
    p = p * u + 0.607916886088676f;
    p = p * u - 0.28773805218270065f;
    p = p * u + 0.3522843798728501f;
    p = p * u + 0.1610816433523132f;
    p = p * u + 0.23210600076185434f;
    p = p * u + 0.22531009745580302f;
    const vf tail = p * u * e * 0.5f;
    below = x < 0.0f ? tail : 1.0f - tail;
    density = e * 0.3989422804f;
}

INLINE vf gelu(vf x) {
    vf below, density;
    normal(x, below, density);
    return x * below;
}

// The distribution function, for what is rounded to bfloat16 or int8 next: x times it is within 1e-4 of gelu(x). Less
// one half it is a polynomial on -4.2 to 4.2 (minimax, its ends exact), and constant beyond.
INLINE vf below_to_round(vf x) {
    const vf low = x < -4.2f ? splat(-4.2f) : x, inside = low > 4.2f ? splat(4.2f) : low, t = inside * inside;
    vf p = t * -9.017678270772933e-10f + 7.94143772964162e-08f;
    p = p * t - 3.0379580948647344e-06f;
    p = p * t + 6.689107249258086e-05f;
    p = p * t - 0.0009506603819318116f;
    p = p * t + 0.009298241697251797f;
    p = p * t - 0.06552822887897491f;
    p = p * t + 0.3984659016132355f;
    return inside * p + 0.5f;
}

INLINE void normal_to_round(vf x, vf& below, vf& density) {
    below = below_to_round(x);
    density = exp(x * x * -0.5f) * 0.3989422804f;
}

INLINE vf gelu_to_round(vf x) { return x * below_to_round(x); }

}  // namespace
