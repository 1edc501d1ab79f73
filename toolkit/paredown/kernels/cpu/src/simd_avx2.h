// AVX2 with FMA, F16C and BMI2; with PAREDOWN_VNNI the dot product of AVX-VNNI.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

namespace paredown {
namespace PAREDOWN_ISA {

struct Bytes { __m256i low, high; };  // rows 0 to 7, and 8 to 15
struct Ints { __m256i low, high; };
struct Floats { __m256 low, high; };

#ifdef PAREDOWN_VNNI
constexpr bool SIGNED_BYTES = false;
#else
constexpr bool SIGNED_BYTES = true;  // maddubs saturates with codes beyond 7 bits: those are taken with a sign
#endif
constexpr int TILE = 4, PANEL_BLOCKS = 1, FEW_BLOCKS = 2;

#define BOTH(type, expression_low, expression_high) return type { expression_low, expression_high }
inline Bytes load_bytes(const void* p) {
  BOTH(Bytes, _mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1));
}
inline void store_bytes(void* p, Bytes v) {
  _mm256_storeu_si256((__m256i*)p, v.low);
  _mm256_storeu_si256((__m256i*)p + 1, v.high);
}
inline Bytes fill_bytes(uint8_t value) { BOTH(Bytes, _mm256_set1_epi8((char)value), _mm256_set1_epi8((char)value)); }
template <int N> inline Bytes field(Bytes v, uint8_t mask) {
  const __m256i m = _mm256_set1_epi8((char)mask);
  BOTH(Bytes, _mm256_and_si256(_mm256_srli_epi16(v.low, N), m), _mm256_and_si256(_mm256_srli_epi16(v.high, N), m));
}
template <int N> inline Bytes merge(Bytes low, Bytes high) {
  BOTH(Bytes, _mm256_or_si256(low.low, _mm256_slli_epi16(high.low, N)), _mm256_or_si256(low.high, _mm256_slli_epi16(high.high, N)));
}
inline __m256i spread_mask(uint32_t mask) {  // a byte of ones for each set bit
  const __m256i place = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)mask), place);
  return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
}
inline Bytes add_where(Bytes v, uint64_t mask, uint8_t value) {
  const __m256i b = _mm256_set1_epi8((char)value);
  BOTH(Bytes, _mm256_add_epi8(v.low, _mm256_and_si256(spread_mask((uint32_t)mask), b)),
       _mm256_add_epi8(v.high, _mm256_and_si256(spread_mask((uint32_t)(mask >> 32)), b)));
}
inline Bytes flip_signs(Bytes v) {
  const __m256i sign = _mm256_set1_epi8((char)0x80);
  BOTH(Bytes, _mm256_xor_si256(v.low, sign), _mm256_xor_si256(v.high, sign));
}
inline Bytes four_times(const uint8_t* sixteen) {
  const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)sixteen));
  const __m256i place = _mm256_setr_epi32(0x00000000, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505, 0x06060606, 0x07070707);
  BOTH(Bytes, _mm256_shuffle_epi8(all, place), _mm256_shuffle_epi8(all, _mm256_add_epi8(place, _mm256_set1_epi8(8))));
}
inline uint64_t ones_of(uint8_t mask) { return _pdep_u64(mask, 0x0101010101010101u) * 255; }  // a byte of ones for each set bit
inline Bytes blend(Bytes fill, uint64_t mask, const uint64_t* spread) {
  const Bytes v = load_bytes(spread);
  BOTH(Bytes, _mm256_blendv_epi8(fill.low, v.low, spread_mask((uint32_t)mask)),
       _mm256_blendv_epi8(fill.high, v.high, spread_mask((uint32_t)(mask >> 32))));
}
inline Bytes expand_bytes(Bytes fill, uint64_t mask, const uint8_t*& p) {
  uint64_t spread[8];
  for (int i = 0; i < 8; i++) {
    const uint8_t part = (uint8_t)(mask >> 8 * i);
    uint64_t codes;
    memcpy(&codes, p, 8);
    spread[i] = _pdep_u64(codes, ones_of(part));
    p += _mm_popcnt_u32(part);
  }
  return blend(fill, mask, spread);
}
inline Bytes expand_nibbles(Bytes fill, uint64_t mask, const uint8_t*& p) {
  uint64_t spread[8];
  int count = 0;
  for (int i = 0; i < 8; i++) {
    const uint8_t part = (uint8_t)(mask >> 8 * i);
    uint64_t codes;
    memcpy(&codes, p + count / 2, 8);
    spread[i] = _pdep_u64(codes >> 4 * (count % 2), ones_of(part) & 0x0f0f0f0f0f0f0f0fu);
    count += _mm_popcnt_u32(part);
  }
  p += (count + 1) / 2;
  return blend(fill, mask, spread);
}

inline Ints no_ints() { BOTH(Ints, _mm256_setzero_si256(), _mm256_setzero_si256()); }
template <bool Wide> inline __m256i dot_half(__m256i sum, __m256i codes, __m256i inputs) {
#ifdef PAREDOWN_VNNI
  return PAREDOWN_VNNI(sum, codes, inputs);
#else
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i pairs = Wide ? _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(inputs, codes)) : _mm256_maddubs_epi16(codes, inputs);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
#endif
}
template <bool Wide> inline Ints dot(Ints sum, Bytes codes, uint32_t inputs) {
  const __m256i x = _mm256_set1_epi32((int)inputs);
  BOTH(Ints, dot_half<Wide>(sum.low, codes.low, x), dot_half<Wide>(sum.high, codes.high, x));
}

inline Floats set(float v) { BOTH(Floats, _mm256_set1_ps(v), _mm256_set1_ps(v)); }
inline Floats load(const float* p) { BOTH(Floats, _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
inline void store(float* p, Floats v) {
  _mm256_storeu_ps(p, v.low);
  _mm256_storeu_ps(p + 8, v.high);
}
inline Floats load_half(const uint16_t* p) {
  BOTH(Floats, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p + 1)));
}
inline Floats load_small(const uint8_t* p) {
  const __m128i v = _mm_loadu_si128((const __m128i*)p);
  BOTH(Floats, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(v)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(v, 8))));
}
inline Floats to_floats(Ints v) { BOTH(Floats, _mm256_cvtepi32_ps(v.low), _mm256_cvtepi32_ps(v.high)); }
inline Floats mul(Floats a, Floats b) { BOTH(Floats, _mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)); }
inline Floats sub(Floats a, Floats b) { BOTH(Floats, _mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)); }
inline Floats add(Floats a, Floats b) { BOTH(Floats, _mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)); }
inline Floats fma(Floats a, Floats b, Floats c) { BOTH(Floats, _mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)); }
inline Floats fnma(Floats a, Floats b, Floats c) {
  BOTH(Floats, _mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high));
}
template <int J> inline Ints place(Bytes v) {  // byte J of each four
  const __m256i m = _mm256_set1_epi32(255);
  if (J == 3) BOTH(Ints, _mm256_srli_epi32(v.low, 24), _mm256_srli_epi32(v.high, 24));
  BOTH(Ints, _mm256_and_si256(_mm256_srli_epi32(v.low, 8 * J), m), _mm256_and_si256(_mm256_srli_epi32(v.high, 8 * J), m));
}
template <int J> inline Floats number(Bytes codes) { return to_floats(place<J>(codes)); }
struct Table { __m256 low, high; };
inline Table load_table(const float* p) { BOTH(Table, _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)); }
inline __m256 look_up_half(const Table& t, __m256i index) {
  const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(index, 28));  // bit 3 to the sign
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t.low, index), _mm256_permutevar8x32_ps(t.high, index), upper);
}
template <int J> inline Floats look_up(const Table& t, Bytes codes) {
  BOTH(Floats, look_up_half(t, _mm256_srli_epi32(codes.low, 8 * J)), look_up_half(t, _mm256_srli_epi32(codes.high, 8 * J)));
}
#undef BOTH
inline void prefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }
// As instructions: GCC drops calls of a function that only asks for a line.
inline void prefetch_far(const void* p) { asm volatile("prefetcht1 %0" : : "m"(*(const char*)p)); }
inline void prefetch_to_write(const void* p) { asm volatile("prefetchw %0" : : "m"(*(const char*)p)); }

}  // namespace PAREDOWN_ISA
}  // namespace paredown
