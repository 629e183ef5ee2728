/* What one core can do at best: its clock, and multiply-adds per second of float32 and of 8-bit integers.

   Independent accumulators in registers, no memory: nothing that multiplies with these instructions is faster. Each
   figure is the best of five, for other programs slow a core down.
   cc -O2 -march=native peak.c -o peak && ./peak  ->  GHz, GFLOP/s of float32, Gop/s of uint8 x int8 (0 without VNNI) */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

#if defined(__AVX512F__)
typedef __m512 floats;
typedef __m512i bytes;
#define LANES 16
#define SET(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#elif defined(__AVX2__) && defined(__FMA__)
typedef __m256 floats;
typedef __m256i bytes;
#define LANES 8
#define SET(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#else
#error "written for x86 with AVX2 or AVX-512"
#endif

#if defined(__AVX512VNNI__)
#define DOT(a, b, c) _mm512_dpbusd_epi32(a, b, c)
#define BYTES(x) _mm512_set1_epi8(x)
#elif defined(__AVXVNNI__) && !defined(__AVX512F__)
#define DOT(a, b, c) _mm256_dpbusd_avx_epi32(a, b, c)
#define BYTES(x) _mm256_set1_epi8(x)
#endif

#define KEEP(x) __asm__ volatile("" : "+v"(x)) /* the compiler may not leave it out */
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11)
#define CHAINS 12
#define ROUNDS 4000000L

static double ghz(void) {
    const long steps = 200000000L;
    uint64_t x = 1;
    double start = now();
    for (long i = 0; i < steps; i += 8) /* a chain of dependent additions, one cycle each */
        __asm__ volatile("add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n"
                         "add $1, %0\n add $1, %0\n add $1, %0\n add $1, %0\n" : "+r"(x));
    return steps / (now() - start) * 1e-9;
}

static double gflops(void) {
#define FLOATS(k) floats f##k = SET(k);
#define MULTIPLY(k) f##k = FMA(a, b, f##k); KEEP(f##k);
    floats a = SET(1.0000001f), b = SET(0.5f);
    EACH(FLOATS)
    double start = now();
    for (long i = 0; i < ROUNDS; i++) { EACH(MULTIPLY) }
    return 2.0 * LANES * CHAINS * ROUNDS / (now() - start) * 1e-9;
}

static double gops(void) {
#if defined(DOT)
#define INTEGERS(k) bytes n##k = BYTES(k);
#define PRODUCTS(k) n##k = DOT(n##k, a, b); KEEP(n##k);
    bytes a = BYTES(3), b = BYTES(1);
    EACH(INTEGERS)
    double start = now();
    for (long i = 0; i < ROUNDS; i++) { EACH(PRODUCTS) }
    return 8.0 * LANES * CHAINS * ROUNDS / (now() - start) * 1e-9; /* four products and sums a lane */
#else
    return 0;
#endif
}

static double best(double (*measure)(void)) {
    double most = 0;
    for (int k = 0; k < 5; k++) {
        double found = measure();
        if (found > most) most = found;
    }
    return most;
}

int main(void) {
    printf("%.3f %.2f %.2f\n", best(ghz), best(gflops), best(gops));
    return 0;
}
