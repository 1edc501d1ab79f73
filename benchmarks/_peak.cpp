// What one core of this machine can do at most: int8 and bf16 dot products in registers, and reading memory. CPU time.
#include <immintrin.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

static double now() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Sums stay in registers: a function of its own, and no array that is read elsewhere.
#define SIXTEEN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13) DO(14) DO(15)
#define DECLARE(i) __m512i a##i = _mm512_setzero_si512();
#define INT8_DOT(i) asm volatile("vpdpbusd %1, %1, %0" : "+v"(a##i) : "v"(one));
#define BF16_DOT(i) asm volatile("vdpbf16ps %1, %1, %0" : "+v"(a##i) : "v"(one));

static double int8_seconds(long steps) {
  const __m512i one = _mm512_set1_epi8(1);
  SIXTEEN(DECLARE)
  const double started = now();
  for (long k = 0; k < steps; k++) { SIXTEEN(INT8_DOT) }
  return now() - started;
}

static double bf16_seconds(long steps) {
  const __m512i one = _mm512_set1_epi32(0x3f803f80);
  SIXTEEN(DECLARE)
  const double started = now();
  for (long k = 0; k < steps; k++) { SIXTEEN(BF16_DOT) }
  return now() - started;
}

int main() {
  double int8 = 0, bf16 = 0, read = 0;
  const long steps = 400000, bytes = 256l << 20;
  char* memory = (char*)aligned_alloc(64, (size_t)bytes);
  memset(memory, 1, (size_t)bytes);
  volatile int sink = 0;
  for (int round = 0; round < 12; round++) {
    double seconds = int8_seconds(steps);
    int8 = int8 > 2048.0 * steps / seconds ? int8 : 2048.0 * steps / seconds;
    seconds = bf16_seconds(steps);
    bf16 = bf16 > 1024.0 * steps / seconds ? bf16 : 1024.0 * steps / seconds;
    const double started = now();
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    for (long at = 0; at < bytes; at += 256) {
      a = _mm512_add_epi64(a, _mm512_load_si512(memory + at));
      b = _mm512_add_epi64(b, _mm512_load_si512(memory + at + 64));
      c = _mm512_add_epi64(c, _mm512_load_si512(memory + at + 128));
      d = _mm512_add_epi64(d, _mm512_load_si512(memory + at + 192));
    }
    seconds = now() - started;
    read = read > (double)bytes / seconds ? read : (double)bytes / seconds;
    sink = sink + _mm512_reduce_add_epi32(_mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d)));
  }
  printf("%.4g %.4g %.4g\n", int8, bf16, read);
}
