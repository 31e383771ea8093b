// What of this library the processor can run. Compiled once, for any processor, with the names of the levels that were
// compiled (HOLDS_avx2 and so on) and a digest of the sources (SOURCES).

#include <stdint.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define EXPORT __attribute__((visibility("default")))

extern "C" {

// The digest of the sources that this library was compiled from.
EXPORT const char* library_sources() { return SOURCES; }

// The levels that are here and that the processor and the operating system can run: bit i for level i, in the order of
// LEVELS in library.py.
EXPORT int64_t library_levels() {
    int64_t levels = 1;
#if defined(HOLDS_avx2)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) levels |= 2;
#endif
#if defined(HOLDS_avx512)
    const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    if (avx512) levels |= 4;
#endif
#if defined(HOLDS_avx512_vnni)
    if (avx512 && __builtin_cpu_supports("avx512vnni")) levels |= 8;
#endif
#if defined(HOLDS_avx512_bf16)
    if (avx512 && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16")) levels |= 16;
#endif
    return levels;
}

// The dtypes, as encoder.cpp numbers them, of products for which the processor has matrix registers (AMX).
EXPORT int64_t library_matrix_dtypes() {
    int64_t dtypes = 0;
#if defined(__x86_64__)
    unsigned a, b, c, d;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && d >> 24 & 1) dtypes = (d >> 22 & 1) * 2 + (d >> 25 & 1) * 4;
#endif
    return dtypes;
}

}  // extern "C"
