// What a BERT-family encoder does around its matrix products, over packed tokens, in one pass each.
//
// Plain C functions over pointers and sizes. Matrices are row-major; a packed batch of `texts` texts has the rows
// offsets[t] to offsets[t + 1] for text t. Every dimension that vectors run along is a multiple of 16 (Python checks).
// Vectors are the compiler's own (`vector_size`), as wide as the machine's registers, and need no alignment.
//
// Threads are OpenMP's. Work is cut statically, and sums over tokens are cut into blocks whose number does not depend
// on the threads and added in order: results are equal to the bit for any number of threads.
//
// Dropout keeps an element where random(seed, row, column) >= threshold = p * 2^32, and scales it by 1 / (1 - p). The
// forward and backward pass draw the same numbers again instead of storing them.

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <utility>

#if defined(__AVX512F__)
constexpr int W = 16;  // floats in a vector
#elif defined(__AVX__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int COLUMNS = 4;  // largest tile of a product, in vectors; its sums have to fit the registers
constexpr int SUMS = 16;
#else
constexpr int COLUMNS = 2;
constexpr int SUMS = 8;
#endif

#define INLINE static inline __attribute__((always_inline))

namespace {

typedef float vf __attribute__((vector_size(4 * W)));
typedef int32_t vi __attribute__((vector_size(4 * W)));
typedef uint32_t vu __attribute__((vector_size(4 * W)));
typedef uint16_t vh __attribute__((vector_size(2 * W)));
typedef uint8_t vb __attribute__((vector_size(W)));
typedef uint16_t bf16;

constexpr int64_t SMALL = 32768;  // elements below which threads cost more than they save

// ---- vectors ----------------------------------------------------------------------------------------------------

template <class F, int... I>
INLINE void repeat_(F&& f, std::integer_sequence<int, I...>) {
    (f(std::integral_constant<int, I>()), ...);
}

template <int N, class F>  // a loop that is unrolled before anything else is decided
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

// A product that is rounded before it is added to anything, where the last bit has to be another program's.
INLINE vf rounded(vf product) {
    asm("" : "+m"(product));
    return product;
}

INLINE vf max(vf a, vf b) { return a > b ? a : b; }
INLINE vf abs(vf x) { return as_float(bits(x) & 0x7fffffff); }

// The lanes of x, folded S apart.
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

template <int S = W / 2>
INLINE float largest(vf x) {
    x = max(x, swapped<S>(x));
    if constexpr (S > 1) return largest<S / 2>(x);
    return x[0];
}

// Transpose W x W values in registers: swap blocks of S x S off the diagonal, for S = W / 2 down to 1.
template <int S = W / 2>
INLINE void transpose(vf* r) {
#if defined(__clang__)
    vf t[W];
    for (int i = 0; i < W; i++)
        for (int j = 0; j < W; j++) t[i][j] = r[j][i];
    for (int i = 0; i < W; i++) r[i] = t[i];
#else
    const vi lane = lanes();
    const vi upper = (lane & S) != 0;
    const vi first = upper ? W + lane - S : lane, second = upper ? W + lane : lane + S;
    repeat<W>([&](auto i) {
        if constexpr ((i & S) == 0) {
            const vf a = r[i], b = r[i + S];
            r[i] = __builtin_shuffle(a, b, first);
            r[i + S] = __builtin_shuffle(a, b, second);
        }
    });
    if constexpr (S > 1) transpose<S / 2>(r);
#endif
}

// ---- functions --------------------------------------------------------------------------------------------------

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

INLINE uint64_t mixed(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// The dropout of one row of a matrix.
struct Dropout {
    uint32_t first, second, threshold;
    float scale;

    INLINE Dropout row(uint64_t seed, uint64_t number, uint32_t threshold, float scale) {
        const uint64_t key = mixed(mixed(seed) + number * 0x9e3779b97f4a7c15u);
        return {(uint32_t)key, (uint32_t)(key >> 32), threshold, scale};
    }

    inline __attribute__((always_inline)) vu random(int64_t column) const {
        vu x = ((vu)lanes() + (uint32_t)column) * 0x9e3779b1u + first;
        x = (x ^ (x >> 16)) * 0x7feb352du;
        x = (x ^ (x >> 15)) * 0x846ca68bu;
        x = (x ^ (x >> 16)) + second;
        x = (x ^ (x >> 17)) * 0xed5ad4bbu;
        x = (x ^ (x >> 15)) * 0x31848babu;
        return x ^ (x >> 14);
    }

    inline __attribute__((always_inline)) vf operator()(vf x, int64_t column) const {
        return random(column) >= threshold ? x * scale : vf{};
    }
};

// ---- products ---------------------------------------------------------------------------------------------------

// out (R, C * W) = factor * a (R, k) b (k, C * W), or added to out. `a` may be transposed: it has both strides.
template <int R, int C, bool ADD>
INLINE void tile(int64_t k, const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t b_row, float* out,
                 int64_t out_row, const float* factor) {
    vf sum[R][C];
    repeat<R>([&](auto r) { repeat<C>([&](auto c) { sum[r][c] = vf{}; }); });
    for (int64_t i = 0; i < k; i++) {
        vf right[C];
        repeat<C>([&](auto c) { right[c] = load(b + i * b_row + c * W); });
        repeat<R>([&](auto r) {
            const vf left = splat(a[r * a_row + i * a_column]);
            repeat<C>([&](auto c) { sum[r][c] += left * right[c]; });
        });
    }
    repeat<R>([&](auto r) {
        const float by = factor ? factor[r] : 1.0f;
        repeat<C>([&](auto c) {
            float* to = out + r * out_row + c * W;
            store(to, ADD ? load(to) + sum[r][c] : sum[r][c] * by);
        });
    });
}

template <int R, int C, bool ADD>
INLINE int64_t strip(int64_t from, int64_t rows, int64_t k, const float* a, int64_t a_row, int64_t a_column,
                     const float* b, int64_t b_row, float* out, int64_t out_row, const float* factor) {
    for (; rows - from >= R; from += R)
        tile<R, C, ADD>(k, a + from * a_row, a_row, a_column, b, b_row, out + from * out_row, out_row,
                        factor ? factor + from : nullptr);
    if constexpr (R > 1)
        return strip<R / 2, C, ADD>(from, rows, k, a, a_row, a_column, b, b_row, out, out_row, factor);
    return from;
}

constexpr int tile_rows(int c) { return c * 8 <= SUMS ? 8 : c * 4 <= SUMS ? 4 : 2; }

// out (rows, columns) = factor * a (rows, k) b (k, columns), or added to out; columns is a multiple of W.
template <bool ADD>
__attribute__((noinline)) void product(int64_t rows, int64_t columns, int64_t k, const float* a, int64_t a_row,
                                       int64_t a_column, const float* b, int64_t b_row, float* out, int64_t out_row,
                                       const float* factor) {
    for (int64_t at = 0; at < columns;) {
        const int64_t left = (columns - at) / W;
        const float* from = b + at;
        float* to = out + at;
#define STRIP(C) strip<tile_rows(C), C, ADD>(0, rows, k, a, a_row, a_column, from, b_row, to, out_row, factor)
        if (COLUMNS >= 4 && left >= 4) {
            STRIP(4), at += 4 * W;
        } else if (COLUMNS >= 4 && left == 3) {
            STRIP(3), at += 3 * W;
        } else if (left >= 2) {
            STRIP(2), at += 2 * W;
        } else {
            STRIP(1), at += W;
        }
#undef STRIP
    }
}

// ---- texts and threads ------------------------------------------------------------------------------------------

struct Buffer {
    float* data;
    explicit Buffer(int64_t floats) : data((float*)aligned_alloc(64, ((size_t)floats * 4 + 127) / 64 * 64)) {
        if (!data) abort();
    }
    ~Buffer() { free(data); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
    float* take(int64_t floats) {
        float* taken = data + used;
        used += (floats + 15) / 16 * 16;
        return taken;
    }
    int64_t used = 0;
};

int64_t longest(const int32_t* offsets, int64_t texts) {
    int64_t most = 0;
    for (int64_t t = 0; t < texts; t++) most = offsets[t + 1] - offsets[t] > most ? offsets[t + 1] - offsets[t] : most;
    return most;
}

INLINE int64_t padded(int64_t length) { return (length + W - 1) / W * W; }

// Call work(text, part, buffer) for each part of each text, with as much to do in each thread: a part of a text costs
// `linear` for each token and `square` for each pair of them.
template <class F>
void each_text(const int32_t* offsets, int64_t texts, int64_t parts, double linear, double square, int64_t floats,
               const F& work) {
    double all = 0;
    for (int64_t t = 0; t < texts; t++) {
        const double n = offsets[t + 1] - offsets[t];
        all += n * (linear + n * square);
    }
    all *= (double)parts;
#pragma omp parallel if (all > SMALL)
    {
        int64_t thread = 0, threads = 1;
#ifdef _OPENMP
        thread = omp_get_thread_num(), threads = omp_get_num_threads();
#endif
        const double from = all * (double)thread / (double)threads;
        const double to = thread + 1 == threads ? all * 2 + 1 : all * (double)(thread + 1) / (double)threads;
        Buffer buffer(floats);
        double at = 0;
        for (int64_t t = 0; t < texts; t++) {
            const double n = offsets[t + 1] - offsets[t], cost = n * (linear + n * square);
            for (int64_t part = 0; part < parts; part++, at += cost) {
                if (at < from || at >= to) continue;
                buffer.used = 0;
                work(t, part, buffer);
            }
        }
    }
}

// ---- attention --------------------------------------------------------------------------------------------------

constexpr int64_t SCORES = 8192;  // floats of scores that are worked on at a time

INLINE int64_t block_rows(int64_t length) {
    if (length <= 0) return 0;
    const int64_t fit = SCORES / padded(length) / 8 * 8;
    return fit < 8 ? 8 : fit < length ? fit : length;
}

// Columns of `length` rows: to (dim, padded length), zeros beyond the length.
template <class T>
INLINE void pack_transposed(const T* from, int64_t row, int64_t length, int64_t dim, float* to) {
    const int64_t wide = padded(length);
    for (int64_t i = 0; i < length; i += W)
        for (int64_t d = 0; d < dim; d += W) {
            vf block[W];
            repeat<W>([&](auto j) { block[j] = i + j < length ? load(from + (i + j) * row + d) : vf{}; });
            transpose(block);
            repeat<W>([&](auto j) { store(to + (d + j) * wide + i, block[j]); });
        }
}

// Scores to exp(scale * (score - largest)), and 1 / their sum; logarithm of the sum of exp(scale * score).
INLINE float softmax(float* row, int64_t length, float scale, float* lse) {
    const int64_t full = length / W * W;
    const vi seen = lanes() < (int32_t)(length - full);
    vf top = splat(-INFINITY);
    for (int64_t i = 0; i < full; i += W) top = max(top, load(row + i));
    if (full < length) top = max(top, seen ? load(row + full) : top);
    const float most = largest(top);
    const vf shift = splat(-most * scale);
    vf sum = {};
    for (int64_t i = 0; i < full; i += W) {
        const vf p = exp(load(row + i) * scale + shift);
        store(row + i, p);
        sum += p;
    }
    if (full < length) {
        const vf p = seen ? exp(load(row + full) * scale + shift) : vf{};
        store(row + full, p);
        sum += p;
    }
    const float all = total(sum);
    if (lse) *lse = most * scale + logf(all);
    return 1.0f / all;
}

// Where the rows of one head can be read as float32: in place, or copied.
INLINE const float* readable(const float* from, int64_t, int64_t, int64_t, Buffer&, int64_t&) { return from; }

INLINE const float* readable(const bf16* from, int64_t row, int64_t length, int64_t dim, Buffer& buffer,
                             int64_t& new_row) {
    float* to = buffer.take(length * dim);
    for (int64_t i = 0; i < length; i++)
        for (int64_t d = 0; d < dim; d += W) store(to + i * dim + d, load(from + i * row + d));
    new_row = dim;
    return to;
}

template <class T>
void attention_forward_(const T* qkv, T* out, const int32_t* offsets, int64_t texts, int64_t heads, int64_t dim,
                        float scale, uint32_t threshold, float keep_scale, uint64_t seed, float* lse) {
    const int64_t width = heads * dim, most = longest(offsets, texts);
    const int64_t rows_most = block_rows(most) > 8 ? block_rows(most) : 8;
    const int64_t scores = SCORES > rows_most * padded(most) ? SCORES : rows_most * padded(most);
    const int64_t floats = dim * padded(most) + scores + padded(most) + 3 * most * dim + 256;
    each_text(offsets, texts, heads, 20.0 * (double)dim, 2.0 * (double)dim, floats, [&](int64_t t, int64_t h,
                                                                                       Buffer& buffer) {
        const int64_t start = offsets[t], length = offsets[t + 1] - start, wide = padded(length);
        if (!length) return;
        const T* base = qkv + start * 3 * width + h * dim;
        int64_t q_row = 3 * width, v_row = 3 * width;
        float* keys = buffer.take(dim * wide);
        pack_transposed(base + width, 3 * width, length, dim, keys);
        const float* q = readable(base, 3 * width, length, dim, buffer, q_row);
        const float* v = readable(base + 2 * width, 3 * width, length, dim, buffer, v_row);
        const int64_t block = block_rows(length);
        float* p = buffer.take(block * wide);
        float* factor = buffer.take(block);
        for (int64_t i = 0; i < length; i += block) {
            const int64_t rows = length - i < block ? length - i : block;
            product<false>(rows, wide, dim, q + i * q_row, q_row, 1, keys, wide, p, wide, nullptr);
            for (int64_t r = 0; r < rows; r++) {
                const int64_t number = (start + i + r) * heads + h;
                factor[r] = softmax(p + r * wide, length, scale, lse ? lse + number : nullptr);
                if (!threshold) continue;
                const Dropout drop = Dropout::row(seed, (uint64_t)number, threshold, keep_scale);
                for (int64_t j = 0; j < wide; j += W) store(p + r * wide + j, drop(load(p + r * wide + j), j));
            }
            T* to = out + (start + i) * width + h * dim;
            if constexpr (sizeof(T) == 4) {
                product<false>(rows, dim, length, p, wide, 1, v, v_row, to, width, factor);
            } else {
                const int64_t mark = buffer.used;
                float* wider = buffer.take(rows * dim);
                product<false>(rows, dim, length, p, wide, 1, v, v_row, wider, dim, factor);
                for (int64_t r = 0; r < rows; r++)
                    for (int64_t d = 0; d < dim; d += W) store(to + r * width + d, load(wider + r * dim + d));
                buffer.used = mark;
            }
        }
    });
}

// ---- normalization ----------------------------------------------------------------------------------------------

// Normalize `row`; gives 1 / standard deviation and leaves the normalized values in `row`.
INLINE float standardize(float* row, int64_t dim, float eps) {
    vf a = {}, b = {};
    for (int64_t d = 0; d < dim; d += 2 * W) {
        a += load(row + d);
        if (d + W < dim) b += load(row + d + W);
    }
    const float mean = total(a + b) / (float)dim;
    a = b = vf{};
    for (int64_t d = 0; d < dim; d += 2 * W) {
        const vf x = load(row + d) - mean;
        a += x * x;
        if (d + W < dim) {
            const vf y = load(row + d + W) - mean;
            b += y * y;
        }
    }
    const float rstd = 1.0f / sqrtf(total(a + b) / (float)dim + eps);
    for (int64_t d = 0; d < dim; d += W) store(row + d, (load(row + d) - mean) * rstd);
    return rstd;
}

// out = xhat * weight + bias, and the same rounded to bfloat16.
INLINE void affine(const float* xhat, const float* weight, const float* bias, int64_t dim, float* out, bf16* half) {
    for (int64_t d = 0; d < dim; d += W) {
        const vf y = load(xhat + d) * load(weight + d) + load(bias + d);
        if (out) store(out + d, y);
        if (half) store(half + d, y);
    }
}

template <class T>
void add_norm_forward_(int64_t tokens, int64_t dim, const T* x, const float* residual, const float* weight,
                       const float* bias, float eps, float* out, bf16* half, float* xhat, float* rstd,
                       uint32_t threshold, float keep_scale, uint64_t seed) {
#pragma omp parallel if (tokens * dim > SMALL)
    {
        Buffer buffer(dim);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tokens; i++) {
            float* row = xhat ? xhat + i * dim : buffer.data;
            const Dropout drop = Dropout::row(seed, (uint64_t)i, threshold, keep_scale);
            for (int64_t d = 0; d < dim; d += W) {
                vf sum = load(x + i * dim + d);
                if (threshold) sum = drop(sum, d);
                if (residual) sum += load(residual + i * dim + d);
                store(row + d, sum);
            }
            const float inverse = standardize(row, dim, eps);
            if (rstd) rstd[i] = inverse;
            affine(row, weight, bias, dim, out ? out + i * dim : nullptr, half ? half + i * dim : nullptr);
        }
    }
}

// False where an id is not in its table.
template <class T>
bool embed_norm_(int64_t tokens, int64_t dim, const int64_t* ids, const int64_t* positions, const int64_t* types,
                 const T* words, int64_t word_rows, const T* places, int64_t place_rows, const T* kinds,
                 int64_t kind_rows, const float* weight, const float* bias, float eps, float* out, bf16* half) {
    int64_t bad = 0;
#pragma omp parallel if (tokens * dim > SMALL) reduction(+ : bad)
    {
        Buffer buffer(dim);
        float* row = buffer.data;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < tokens; i++) {
            const int64_t id = ids[i], place = positions[i], kind = types ? types[i] : 0;
            if (id < 0 || id >= word_rows || place < 0 || place >= place_rows ||
                (kinds && (kind < 0 || kind >= kind_rows))) {
                bad++;
                continue;
            }
            for (int64_t d = 0; d < dim; d += W) {
                vf sum = load(words + id * dim + d);
                if (kinds) sum += load(kinds + kind * dim + d);
                store(row + d, sum + load(places + place * dim + d));
            }
            standardize(row, dim, eps);
            affine(row, weight, bias, dim, out ? out + i * dim : nullptr, half ? half + i * dim : nullptr);
        }
    }
    return !bad;
}

template <class T>
void mean_pool_(const T* values, const int32_t* offsets, int64_t texts, int64_t dim, float* out, bool normalize) {
    each_text(offsets, texts, 1, (double)dim, 0, 0, [&](int64_t t, int64_t, Buffer&) {
        float* to = out + t * dim;
        const int64_t start = offsets[t], end = offsets[t + 1];
        const float count = end > start ? (float)(end - start) : 1e-9f;
        vf square = {};
        for (int64_t d = 0; d < dim; d += W) {
            vf sum = {};
            for (int64_t i = start; i < end; i++) sum += load(values + i * dim + d);
            sum /= count;
            square += sum * sum;
            store(to + d, sum);
        }
        if (!normalize) return;
        const float length = sqrtf(total(square));
        const float by = length < 1e-12f ? 1e-12f : length;
        for (int64_t d = 0; d < dim; d += W) store(to + d, load(to + d) / by);
    });
}

}  // namespace

// ---- what Python calls ------------------------------------------------------------------------------------------

extern "C" {

// qkv (tokens, 3 * heads * dim) to out (tokens, heads * dim); lse (tokens, heads) for the backward pass, or null.
// Dropout: row token * heads + head, column the key's place in its text.
void attention_forward(const float* qkv, float* out, const int32_t* offsets, int64_t texts, int64_t heads, int64_t dim,
                       float scale, uint32_t threshold, float keep_scale, uint64_t seed, float* lse) {
    attention_forward_(qkv, out, offsets, texts, heads, dim, scale, threshold, keep_scale, seed, lse);
}

void attention_forward_bf16(const bf16* qkv, bf16* out, const int32_t* offsets, int64_t texts, int64_t heads,
                            int64_t dim, float scale, uint32_t threshold, float keep_scale, uint64_t seed,
                            float* lse) {
    attention_forward_(qkv, out, offsets, texts, heads, dim, scale, threshold, keep_scale, seed, lse);
}

// Writes d_qkv (tokens, 3 * heads * dim). The weights are computed again from lse.
void attention_backward(const float* qkv, const float* out, const float* d_out, const float* lse, float* d_qkv,
                        const int32_t* offsets, int64_t texts, int64_t heads, int64_t dim, float scale,
                        uint32_t threshold, float keep_scale, uint64_t seed) {
    const int64_t width = heads * dim, row = 3 * width, most = longest(offsets, texts);
    const int64_t rows_most = block_rows(most) > 8 ? block_rows(most) : 8;
    const int64_t scores = SCORES > rows_most * padded(most) ? SCORES : rows_most * padded(most);
    const int64_t floats = 2 * dim * padded(most) + 2 * scores + 256;
    each_text(offsets, texts, heads, 40.0 * (double)dim, 5.0 * (double)dim, floats, [&](int64_t t, int64_t h,
                                                                                       Buffer& buffer) {
        const int64_t start = offsets[t], length = offsets[t + 1] - start, wide = padded(length);
        if (!length) return;
        const float *q = qkv + start * row + h * dim, *k = q + width, *v = k + width;
        float *d_q = d_qkv + start * row + h * dim, *d_k = d_q + width, *d_v = d_k + width;
        float* keys = buffer.take(dim * wide);
        float* values = buffer.take(dim * wide);
        pack_transposed(k, row, length, dim, keys);
        pack_transposed(v, row, length, dim, values);
        const int64_t block = block_rows(length);
        float* p = buffer.take(block * wide);
        float* d_p = buffer.take(block * wide);
        for (int64_t i = 0; i < length; i += block) {
            const int64_t rows = length - i < block ? length - i : block;
            const float* given = d_out + (start + i) * width + h * dim;
            const float* made = out + (start + i) * width + h * dim;
            product<false>(rows, wide, dim, q + i * row, row, 1, keys, wide, p, wide, nullptr);
            product<false>(rows, wide, dim, given, width, 1, values, wide, d_p, wide, nullptr);
            for (int64_t r = 0; r < rows; r++) {
                vf dot = {};
                for (int64_t d = 0; d < dim; d += W) dot += load(given + r * width + d) * load(made + r * width + d);
                const float delta = total(dot);
                const int64_t number = (start + i + r) * heads + h;
                const Dropout drop = Dropout::row(seed, (uint64_t)number, threshold, keep_scale);
                float *weights = p + r * wide, *slopes = d_p + r * wide;
                for (int64_t j = 0; j < wide; j += W) {  // what stands beyond the text is not read again
                    const vf weight = exp(load(weights + j) * scale - lse[number]);
                    vf kept = weight, slope = load(slopes + j);
                    if (threshold) {
                        const vf factor = drop(splat(1.0f), j);
                        kept *= factor, slope *= factor;
                    }
                    store(weights + j, kept);
                    store(slopes + j, weight * (slope - delta) * scale);
                }
            }
            product<false>(rows, dim, length, d_p, wide, 1, k, row, d_q + i * row, row, nullptr);
            if (i == 0) {
                product<false>(length, dim, rows, d_p, 1, wide, q + i * row, row, d_k, row, nullptr);
                product<false>(length, dim, rows, p, 1, wide, given, width, d_v, row, nullptr);
            } else {
                product<true>(length, dim, rows, d_p, 1, wide, q + i * row, row, d_k, row, nullptr);
                product<true>(length, dim, rows, p, 1, wide, given, width, d_v, row, nullptr);
            }
        }
    });
}

// out = normalized(dropout(x) + residual) * weight + bias. residual, half (out in bfloat16), xhat (the normalized
// values) and rstd may be null. Dropout: row the token, column the dimension.
void add_norm_forward(int64_t tokens, int64_t dim, const float* x, const float* residual, const float* weight,
                      const float* bias, float eps, float* out, bf16* half, float* xhat, float* rstd,
                      uint32_t threshold, float keep_scale, uint64_t seed) {
    add_norm_forward_(tokens, dim, x, residual, weight, bias, eps, out, half, xhat, rstd, threshold, keep_scale, seed);
}

void add_norm_forward_bf16(int64_t tokens, int64_t dim, const bf16* x, const float* residual, const float* weight,
                           const float* bias, float eps, float* out, bf16* half, float* xhat, float* rstd,
                           uint32_t threshold, float keep_scale, uint64_t seed) {
    add_norm_forward_(tokens, dim, x, residual, weight, bias, eps, out, half, xhat, rstd, threshold, keep_scale, seed);
}

// d_sum is the slope of dropout(x) + residual, which is the residual's; d_x may be null where nothing is dropped.
void add_norm_backward(int64_t tokens, int64_t dim, const float* d_out, const float* xhat, const float* rstd,
                       const float* weight, float* d_x, float* d_sum, float* d_weight, float* d_bias,
                       uint32_t threshold, float keep_scale, uint64_t seed) {
    const int64_t block = tokens > 64 * 32 ? (tokens + 63) / 64 : 32, blocks = (tokens + block - 1) / block;
    Buffer buffer(blocks * 2 * dim);
#pragma omp parallel if (tokens * dim > SMALL)
    {
#pragma omp for schedule(static)
        for (int64_t b = 0; b < blocks; b++) {
            float *weights = buffer.data + b * 2 * dim, *biases = weights + dim;
            memset(weights, 0, (size_t)dim * 8);
            const int64_t end = (b + 1) * block < tokens ? (b + 1) * block : tokens;
            for (int64_t i = b * block; i < end; i++) {
                const float *given = d_out + i * dim, *x = xhat + i * dim;
                vf plain = {}, scaled = {};
                for (int64_t d = 0; d < dim; d += W) {
                    const vf g = load(given + d), y = load(x + d), s = g * load(weight + d);
                    store(weights + d, load(weights + d) + g * y);
                    store(biases + d, load(biases + d) + g);
                    plain += s, scaled += s * y;
                }
                const float mean = total(plain) / (float)dim, slope = total(scaled) / (float)dim, inverse = rstd[i];
                const Dropout drop = Dropout::row(seed, (uint64_t)i, threshold, keep_scale);
                for (int64_t d = 0; d < dim; d += W) {
                    const vf s = load(given + d) * load(weight + d);
                    const vf sum = (s - mean - load(x + d) * slope) * inverse;
                    if (d_sum) store(d_sum + i * dim + d, sum);
                    if (d_x) store(d_x + i * dim + d, threshold ? drop(sum, d) : sum);
                }
            }
        }
#pragma omp for schedule(static)
        for (int64_t d = 0; d < dim; d += W) {
            vf weights = {}, biases = {};
            for (int64_t b = 0; b < blocks; b++) {
                weights += load(buffer.data + b * 2 * dim + d);
                biases += load(buffer.data + b * 2 * dim + dim + d);
            }
            store(d_weight + d, weights);
            store(d_bias + d, biases);
        }
    }
}

// x * (1 + erf(x / sqrt 2)) / 2.
void gelu_forward(int64_t count, const float* x, float* out) {
#pragma omp parallel for schedule(static) if (count > SMALL)
    for (int64_t i = 0; i < count / W; i++) store(out + i * W, gelu(load(x + i * W)));
    const int64_t done = count / W * W, left = count - done;
    if (left) store_some(out + done, gelu(load_some(x + done, left)), left);
}

void gelu_backward(int64_t count, const float* x, const float* d_out, float* d_x) {
    const auto slope = [](vf value) {
        vf below, density;
        normal(value, below, density);
        return abs(value) > 20.0f ? below : below + value * density;
    };
#pragma omp parallel for schedule(static) if (count > SMALL)
    for (int64_t i = 0; i < count / W; i++) store(d_x + i * W, load(d_out + i * W) * slope(load(x + i * W)));
    const int64_t done = count / W * W, left = count - done;
    if (left) store_some(d_x + done, load_some(d_out + done, left) * slope(load_some(x + done, left)), left);
}

// Normalized sum of a word's, a type's and a place's row; types or the table of types may be null (row 0, none).
// Returns 0 where an id is not in its table.
int64_t embed_norm(int64_t tokens, int64_t dim, const int64_t* ids, const int64_t* positions, const int64_t* types,
                   const float* words, int64_t word_rows, const float* places, int64_t place_rows, const float* kinds,
                   int64_t kind_rows, const float* weight, const float* bias, float eps, float* out, bf16* half) {
    return embed_norm_(tokens, dim, ids, positions, types, words, word_rows, places, place_rows, kinds, kind_rows,
                       weight, bias, eps, out, half);
}

int64_t embed_norm_bf16(int64_t tokens, int64_t dim, const int64_t* ids, const int64_t* positions,
                        const int64_t* types, const bf16* words, int64_t word_rows, const bf16* places,
                        int64_t place_rows, const bf16* kinds, int64_t kind_rows, const float* weight,
                        const float* bias, float eps, float* out, bf16* half) {
    return embed_norm_(tokens, dim, ids, positions, types, words, word_rows, places, place_rows, kinds, kind_rows,
                       weight, bias, eps, out, half);
}

// Mean of each text's rows, of length 1 if asked.
void mean_pool(const float* values, const int32_t* offsets, int64_t texts, int64_t dim, float* out,
               int64_t normalize) {
    mean_pool_(values, offsets, texts, dim, out, normalize);
}

void mean_pool_bf16(const bf16* values, const int32_t* offsets, int64_t texts, int64_t dim, float* out,
                    int64_t normalize) {
    mean_pool_(values, offsets, texts, dim, out, normalize);
}

// Each row to whole numbers from -127 to 127, plus 128; scale: what one step stands for (0 for a row of zeros).
void quantize_rows(int64_t rows, int64_t dim, const float* x, uint8_t* out, float* scales) {
#pragma omp parallel for schedule(static) if (rows * dim > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        vf top = {}, strange = {};  // no number where x holds one that is none or infinite
        for (int64_t d = 0; d < dim; d += W) {
            const vf value = load(x + i * dim + d);
            top = max(top, abs(value));
            strange += value * 0.0f;
        }
        const float most = largest(top) + total(strange), by = most > 0 ? 127.0f / most : 0.0f;
        scales[i] = most / 127.0f;
        for (int64_t d = 0; d < dim; d += W) {
            const vf scaled = rounded(load(x + i * dim + d) * by);
            const vi whole = (bits(scaled + ROUND) - bits(splat(ROUND))) + 128;
            const vb narrow = __builtin_convertvector(whole, vb);
            memcpy(out + i * dim + d, &narrow, sizeof narrow);
        }
    }
}

// out = activation(sums * scale of the row + bias); activation 0 none, 1 GELU; bias may be null. out may be sums.
void dequantize(int64_t rows, int64_t dim, const float* sums, const float* scales, const float* bias,
                int64_t activation, float* out) {
#pragma omp parallel for schedule(static) if (rows * dim > SMALL)
    for (int64_t i = 0; i < rows; i++)
        for (int64_t d = 0; d < dim; d += W) {
            vf y = load(sums + i * dim + d) * scales[i];
            if (bias) y += load(bias + d);
            store(out + i * dim + d, activation ? gelu(y) : y);
        }
}

// AdamW without weight decay on the rows listed, in rising order: grad is (count, dim), the others whole tables.
// Returns 0, having changed nothing, where the rows do not rise or are not in the table of `table_rows`.
int64_t adamw_rows(float* param, const float* grad, float* exp_avg, float* exp_avg_sq, const int64_t* rows,
                   int64_t count, int64_t table_rows, int64_t dim, double lr, double beta1, double beta2, double eps,
                   int64_t step) {
    for (int64_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= table_rows || (i && rows[i] <= rows[i - 1])) return 0;
    const float step_size = (float)(lr / (1 - pow(beta1, (double)step)));
    const float correction = (float)sqrt(1 - pow(beta2, (double)step));
    const float toward = (float)(1 - beta1), keep = (float)beta2, square = (float)(1 - beta2), least = (float)eps;
#pragma omp parallel for schedule(static) if (count * dim > SMALL)
    for (int64_t i = 0; i < count; i++)
        for (int64_t d = 0; d < dim; d += W) {
            const int64_t at = rows[i] * dim + d;
            const vf g = load(grad + i * dim + d), old = load(exp_avg + at);
            const vf mean = old + (g - old) * toward;
            const vf mean_square = square * g * g + rounded(load(exp_avg_sq + at) * keep);
            vf root;
            for (int j = 0; j < W; j++) root[j] = __builtin_sqrtf(mean_square[j]);
            store(exp_avg + at, mean);
            store(exp_avg_sq + at, mean_square);
            store(param + at, load(param + at) - step_size * mean / (root / correction + least));
        }
    return 1;
}

// 1 where dropout keeps the element: out (rows, columns), for rows first_row and on.
void dropout_mask(uint64_t seed, int64_t first_row, int64_t rows, int64_t columns, uint32_t threshold, uint8_t* out) {
#pragma omp parallel for schedule(static) if (rows * columns > SMALL)
    for (int64_t i = 0; i < rows; i++) {
        const Dropout drop = Dropout::row(seed, (uint64_t)(first_row + i), threshold, 1.0f);
        for (int64_t j = 0; j < columns; j += W) {
            const vu drawn = drop.random(j);
            for (int64_t l = 0; l < W && j + l < columns; l++) out[i * columns + j + l] = drawn[l] >= threshold;
        }
    }
}

}  // extern "C"
