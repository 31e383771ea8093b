// Memory and OpenMP threads.
//
// Work is split statically. Sums over tokens are split into blocks, whose number does not depend on the threads, and
// added in order: results have the same bits for any number of threads.

#pragma once

#ifdef _OPENMP
#include <omp.h>
#endif
#include <stdlib.h>

#include "vectors.hpp"

namespace {

constexpr int64_t SMALL = 32768;  // elements below which threads cost more than they save

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
    for (int64_t t = 0; t < texts; t++) most = larger(most, offsets[t + 1] - offsets[t]);
    return most;
}

// Call work(text, part, buffer) for each part of each text, with about the same cost in each thread: a part of a text
// costs `linear` for each token and `square` for each pair of them.
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

}  // namespace
