// NEON with the dot product of ARMv8.2.
#pragma once
#include <arm_neon.h>

#include <cstdint>
#include <cstring>

namespace paredown {
namespace PAREDOWN_ISA {

struct Bytes { uint8x16_t at[4]; };  // rows 0 to 3, 4 to 7 and so on
struct Ints { int32x4_t at[4]; };
struct Floats { float32x4_t at[4]; };

constexpr bool SIGNED_BYTES = true;  // both sides of the dot product have a sign: codes beyond 7 bits are taken as 128 less
constexpr int TILE = 4, PANEL_BLOCKS = 1, FEW_BLOCKS = 1;

#define EACH(type, expression) type r; for (int i = 0; i < 4; i++) r.at[i] = expression; return r
inline Bytes load_bytes(const void* p) { EACH(Bytes, vld1q_u8((const uint8_t*)p + 16 * i)); }
inline void store_bytes(void* p, const Bytes& v) { for (int i = 0; i < 4; i++) vst1q_u8((uint8_t*)p + 16 * i, v.at[i]); }
inline Bytes fill_bytes(uint8_t value) { EACH(Bytes, vdupq_n_u8(value)); }
template <int N> inline Bytes field(const Bytes& v, uint8_t mask) {
  EACH(Bytes, vandq_u8(vshlq_u8(v.at[i], vdupq_n_s8(-N)), vdupq_n_u8(mask)));
}
template <int N> inline Bytes merge(const Bytes& low, const Bytes& high) { EACH(Bytes, vorrq_u8(low.at[i], vshlq_n_u8(high.at[i], N))); }
inline Bytes add_where(const Bytes& v, uint64_t mask, uint8_t value) {
  const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  const uint8x16_t bit = vld1q_u8(bits), b = vdupq_n_u8(value);
  EACH(Bytes, vaddq_u8(v.at[i], vandq_u8(b, vtstq_u8(bit, vcombine_u8(vdup_n_u8((uint8_t)(mask >> 16 * i)), vdup_n_u8((uint8_t)(mask >> (16 * i + 8))))))));
}
inline Bytes flip_signs(const Bytes& v) { EACH(Bytes, veorq_u8(v.at[i], vdupq_n_u8(128))); }
inline Bytes four_times(const uint8_t* sixteen) {
  uint8_t all[64];
  for (int i = 0; i < 64; i++) all[i] = sixteen[i / 4];
  return load_bytes(all);
}
inline Bytes expand_bytes(const Bytes& fill, uint64_t mask, const uint8_t*& p) {
  uint8_t all[64];
  store_bytes(all, fill);
  for (; mask; mask &= mask - 1) all[__builtin_ctzll(mask)] = *p++;
  return load_bytes(all);
}
inline Bytes expand_nibbles(const Bytes& fill, uint64_t mask, const uint8_t*& p) {
  uint8_t all[64];
  store_bytes(all, fill);
  int count = 0;
  for (; mask; mask &= mask - 1, count++) all[__builtin_ctzll(mask)] = (uint8_t)(p[count / 2] >> 4 * (count % 2)) & 15;
  p += (count + 1) / 2;
  return load_bytes(all);
}

inline Ints no_ints() { EACH(Ints, vdupq_n_s32(0)); }
template <bool Wide> inline Ints dot(const Ints& sum, const Bytes& codes, uint32_t inputs) {
  const int8x16_t x = vreinterpretq_s8_u32(vdupq_n_u32(inputs));
  EACH(Ints, vdotq_s32(sum.at[i], vreinterpretq_s8_u8(codes.at[i]), x));
}

inline Floats set(float v) { EACH(Floats, vdupq_n_f32(v)); }
inline Floats load(const float* p) { EACH(Floats, vld1q_f32(p + 4 * i)); }
inline void store(float* p, const Floats& v) { for (int i = 0; i < 4; i++) vst1q_f32(p + 4 * i, v.at[i]); }
inline Floats load_half(const uint16_t* p) { EACH(Floats, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i)))); }
inline Floats load_small(const uint8_t* p) {
  float all[16];
  for (int i = 0; i < 16; i++) all[i] = (float)p[i];
  return load(all);
}
inline Floats to_floats(const Ints& v) { EACH(Floats, vcvtq_f32_s32(v.at[i])); }
inline Floats mul(const Floats& a, const Floats& b) { EACH(Floats, vmulq_f32(a.at[i], b.at[i])); }
inline Floats sub(const Floats& a, const Floats& b) { EACH(Floats, vsubq_f32(a.at[i], b.at[i])); }
inline Floats add(const Floats& a, const Floats& b) { EACH(Floats, vaddq_f32(a.at[i], b.at[i])); }
inline Floats fma(const Floats& a, const Floats& b, const Floats& c) { EACH(Floats, vfmaq_f32(c.at[i], a.at[i], b.at[i])); }
inline Floats fnma(const Floats& a, const Floats& b, const Floats& c) { EACH(Floats, vfmsq_f32(c.at[i], a.at[i], b.at[i])); }
template <int J> inline Floats number(const Bytes& codes) {
  EACH(Floats, vcvtq_f32_u32(vandq_u32(vshlq_u32(vreinterpretq_u32_u8(codes.at[i]), vdupq_n_s32(-8 * J)), vdupq_n_u32(255))));
}
struct Table { float at[16]; };
inline Table load_table(const float* p) { Table t; memcpy(t.at, p, 64); return t; }
template <int J> inline Floats look_up(const Table& t, const Bytes& codes) {
  uint8_t all[64];
  store_bytes(all, codes);
  float found[16];
  for (int i = 0; i < 16; i++) found[i] = t.at[all[4 * i + J] & 15];
  return load(found);
}
#undef EACH
inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }
inline void prefetch_to_write(const void* p) { __builtin_prefetch(p, 1); }

}  // namespace PAREDOWN_ISA
}  // namespace paredown
