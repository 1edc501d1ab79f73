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

int main() {
  double int8 = 0, bf16 = 0, read = 0;
  const long steps = 400000, bytes = 256l << 20;
  char* memory = (char*)aligned_alloc(64, (size_t)bytes);
  memset(memory, 1, (size_t)bytes);
  volatile int sink = 0;
  for (int round = 0; round < 12; round++) {
    double started = now();
    __m512i a[16], one = _mm512_set1_epi32(0x3f803f80);
    for (int i = 0; i < 16; i++) a[i] = _mm512_set1_epi32(i);
    for (long k = 0; k < steps; k++) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) asm volatile("vpdpbusd %1, %1, %0" : "+v"(a[i]) : "v"(one));
    }
    double seconds = now() - started;
    int8 = int8 > 2048.0 * steps / seconds ? int8 : 2048.0 * steps / seconds;
    started = now();
    for (long k = 0; k < steps; k++) {
#pragma GCC unroll 16
      for (int i = 0; i < 16; i++) asm volatile("vdpbf16ps %1, %1, %0" : "+v"(a[i]) : "v"(one));
    }
    seconds = now() - started;
    bf16 = bf16 > 1024.0 * steps / seconds ? bf16 : 1024.0 * steps / seconds;
    started = now();
    for (long at = 0; at < bytes; at += 256) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) a[i] = _mm512_add_epi64(a[i], _mm512_load_si512(memory + at + 64 * i));
    }
    seconds = now() - started;
    read = read > (double)bytes / seconds ? read : (double)bytes / seconds;
    for (int i = 0; i < 16; i++) sink = sink + _mm512_reduce_add_epi32(a[i]);
  }
  printf("%.4g %.4g %.4g\n", int8, bf16, read);
}
