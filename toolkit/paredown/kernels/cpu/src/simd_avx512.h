// AVX-512 with VNNI, VBMI and VBMI2. What multiplies bf16 is compiled too; the driver asks for it where the machine has AVX512-BF16.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace paredown {
namespace PAREDOWN_ISA {

using Bytes = __m512i;
using Ints = __m512i;
using Floats = __m512;

#define PAREDOWN_BF16
constexpr bool SIGNED_BYTES = false;
constexpr int TILE = 12, PANEL_BLOCKS = 2, FEW_BLOCKS = 4;

inline Bytes load_bytes(const void* p) { return _mm512_loadu_si512(p); }
inline void store_bytes(void* p, Bytes v) { _mm512_storeu_si512(p, v); }
inline Bytes fill_bytes(uint8_t value) { return _mm512_set1_epi8((char)value); }
template <int N> inline Bytes field(Bytes v, uint8_t mask) {
  return _mm512_and_si512(N ? _mm512_srli_epi16(v, N) : v, _mm512_set1_epi8((char)mask));
}
template <int N> inline Bytes merge(Bytes low, Bytes high) { return _mm512_or_si512(low, _mm512_slli_epi16(high, N)); }
inline Bytes add_where(Bytes v, uint64_t mask, uint8_t value) {
  return _mm512_mask_add_epi8(v, mask, v, _mm512_set1_epi8((char)value));
}
inline Bytes flip_signs(Bytes v) { return v; }
inline Bytes four_times(const uint8_t* sixteen) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)sixteen));
  return _mm512_mullo_epi16(_mm512_or_si512(wide, _mm512_slli_epi32(wide, 16)), _mm512_set1_epi16(0x0101));
}
inline Bytes expand_bytes(Bytes fill, uint64_t mask, const uint8_t*& p) {
  const __m512i codes = _mm512_loadu_si512(p);
  p += _mm_popcnt_u64(mask);
  return _mm512_mask_expand_epi8(fill, mask, codes);
}
inline Bytes expand_nibbles(Bytes fill, uint64_t mask, const uint8_t*& p) {
  const __m512i pairs = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p));
  const __m512i codes = _mm512_and_si512(_mm512_or_si512(pairs, _mm512_slli_epi16(pairs, 4)), _mm512_set1_epi8(15));
  p += (_mm_popcnt_u64(mask) + 1) / 2;
  return _mm512_mask_expand_epi8(fill, mask, codes);
}

inline Ints no_ints() { return _mm512_setzero_si512(); }
template <bool Wide> inline Ints dot(Ints sum, Bytes codes, uint32_t inputs) {
  // as an instruction: with the intrinsic GCC 12 keeps a second copy of every sum on the stack
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(_mm512_set1_epi32((int)inputs)));
  return sum;
}

inline Floats set(float v) { return _mm512_set1_ps(v); }
inline Floats load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
inline Floats load_half(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
inline Floats load_small(const uint8_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))); }
inline Floats to_floats(Ints v) { return _mm512_cvtepi32_ps(v); }
inline Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
inline Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
inline Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
inline Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats fnma(Floats a, Floats b, Floats c) { return _mm512_fnmadd_ps(a, b, c); }
template <int J> inline Floats number(Bytes codes) {
  const __m512i moved = J ? _mm512_srli_epi32(codes, 8 * J) : codes;
  return _mm512_cvtepi32_ps(J == 3 ? moved : _mm512_and_si512(moved, _mm512_set1_epi32(255)));
}
using Table = __m512;
inline Table load_table(const float* p) { return _mm512_loadu_ps(p); }
template <int J> inline Floats look_up(const Table& t, Bytes codes) {  // the upper bits of an index do not count
  return _mm512_permutexvar_ps(J ? _mm512_srli_epi32(codes, 8 * J) : codes, t);
}
inline void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }
// As instructions: GCC drops calls of a function that only asks for a line.
inline void prefetch_far(const void* p) { asm volatile("prefetcht1 %0" : : "m"(*(const char*)p)); }
inline void prefetch_to_write(const void* p) { asm volatile("prefetchw %0" : : "m"(*(const char*)p)); }

// Codes as bf16: a look-up where 32 entries hold them, arithmetic beyond.
using BfTable = __m512i;
inline BfTable load_bf_table(const float* sixteen, int bits) {
  float numbers[32];
  for (int i = 0; i < 32; i++) numbers[i] = sixteen ? sixteen[i & 15] : (float)(bits == 5 ? i : i & ((1 << bits) - 1));
  const __m512bh both = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(numbers + 16), _mm512_loadu_ps(numbers));
  return (__m512i)both;
}
template <int B> inline __m512i as_bf16(const BfTable& t, __m512i words) {  // words of 16 bits: the code is in the low byte
  if constexpr (B <= 5) return _mm512_permutexvar_epi16(words, t);
  const __m512 even = _mm512_cvtepi32_ps(_mm512_and_si512(words, _mm512_set1_epi32(255)));
  const __m512 odd = _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(words, 16), _mm512_set1_epi32(255)));
  const __m512i upper = _mm512_srli_epi32(_mm512_castps_si512(even), 16);  // whole numbers up to 255 are exact
  return _mm512_or_si512(upper, _mm512_castps_si512(odd));
}
template <int B> inline Bytes even_bf16(const BfTable& t, Bytes codes) { return as_bf16<B>(t, codes); }
template <int B> inline Bytes odd_bf16(const BfTable& t, Bytes codes) { return as_bf16<B>(t, _mm512_srli_epi16(codes, 8)); }
inline Floats dot_bf16(Floats sum, Bytes numbers, uint32_t inputs) {
  asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(numbers), "v"(_mm512_set1_epi32((int)inputs)));  // as in `dot`
  return sum;
}
// 16 inputs as bf16, each four in the order 0, 2, 1, 3; returns them as rounded.
inline Floats store_bf16(void* to, Floats v) {
  const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(v);
  const __m256i order = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  _mm256_storeu_si256((__m256i*)to, _mm256_shuffle_epi8(rounded, order));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(rounded), 16));
}

}  // namespace PAREDOWN_ISA
}  // namespace paredown
