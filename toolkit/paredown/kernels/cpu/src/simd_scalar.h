// Plain C++: what every machine runs, and what the others are tested against.
#pragma once
#include <cstdint>
#include <cstring>

#include "half.h"

#define UNROLL(times)  // vectors are arrays here: unrolled, they would only be long

namespace paredown {
namespace PAREDOWN_ISA {

struct Bytes { uint8_t at[64]; };
struct Ints { int32_t at[16]; };
struct Floats { float at[16]; };

constexpr bool SIGNED_BYTES = false;
constexpr int TILE = 4, PANEL_BLOCKS = 1, FEW_BLOCKS = 1;

inline Bytes load_bytes(const void* p) { Bytes v; memcpy(v.at, p, 64); return v; }
inline void store_bytes(void* p, const Bytes& v) { memcpy(p, v.at, 64); }
inline Bytes fill_bytes(uint8_t value) { Bytes v; memset(v.at, value, 64); return v; }
template <int N> inline Bytes field(const Bytes& v, uint8_t mask) {  // (each byte >> N) & mask
  Bytes r;
  for (int i = 0; i < 64; i++) r.at[i] = (uint8_t)(v.at[i] >> N) & mask;
  return r;
}
template <int N> inline Bytes merge(const Bytes& low, const Bytes& high) {  // low | high << N
  Bytes r;
  for (int i = 0; i < 64; i++) r.at[i] = (uint8_t)(low.at[i] | high.at[i] << N);
  return r;
}
inline Bytes add_where(Bytes v, uint64_t mask, uint8_t value) {
  for (int i = 0; i < 64; i++) v.at[i] = (uint8_t)(v.at[i] + (mask >> i & 1 ? value : 0));
  return v;
}
inline Bytes flip_signs(Bytes v) { return v; }
inline Bytes four_times(const uint8_t* sixteen) {
  Bytes r;
  for (int i = 0; i < 64; i++) r.at[i] = sixteen[i / 4];
  return r;
}
inline Bytes expand_bytes(Bytes fill, uint64_t mask, const uint8_t*& p) {
  for (int i = 0; i < 64; i++)
    if (mask >> i & 1) fill.at[i] = *p++;
  return fill;
}
inline Bytes expand_nibbles(Bytes fill, uint64_t mask, const uint8_t*& p) {
  int count = 0;
  for (int i = 0; i < 64; i++)
    if (mask >> i & 1) fill.at[i] = (uint8_t)(p[count / 2] >> 4 * (count % 2)) & 15, count++;
  p += (count + 1) / 2;
  return fill;
}

inline Ints no_ints() { return Ints{}; }
template <bool Wide> inline Ints dot(Ints sum, const Bytes& codes, uint32_t inputs) {
  int8_t x[4];
  memcpy(x, &inputs, 4);
  for (int i = 0; i < 16; i++)
    for (int j = 0; j < 4; j++) sum.at[i] += codes.at[4 * i + j] * x[j];
  return sum;
}

#define EACH(expression) Floats r; for (int i = 0; i < 16; i++) r.at[i] = expression; return r
inline Floats set(float v) { EACH(v); }
inline Floats load(const float* p) { EACH(p[i]); }
inline void store(float* p, const Floats& v) { memcpy(p, v.at, 64); }
inline Floats load_half(const uint16_t* p) { EACH(half(p[i])); }
inline Floats load_small(const uint8_t* p) { EACH((float)p[i]); }
inline Floats to_floats(const Ints& v) { EACH((float)v.at[i]); }
inline Floats mul(const Floats& a, const Floats& b) { EACH(a.at[i] * b.at[i]); }
inline Floats sub(const Floats& a, const Floats& b) { EACH(a.at[i] - b.at[i]); }
inline Floats add(const Floats& a, const Floats& b) { EACH(a.at[i] + b.at[i]); }
inline Floats fma(const Floats& a, const Floats& b, const Floats& c) { EACH(a.at[i] * b.at[i] + c.at[i]); }
inline Floats fnma(const Floats& a, const Floats& b, const Floats& c) { EACH(c.at[i] - a.at[i] * b.at[i]); }
template <int J> inline Floats number(const Bytes& codes) { EACH((float)codes.at[4 * i + J]); }
struct Table { float at[16]; };
inline Table load_table(const float* p) { Table t; memcpy(t.at, p, 64); return t; }
template <int J> inline Floats look_up(const Table& t, const Bytes& codes) { EACH(t.at[codes.at[4 * i + J] & 15]); }
#undef EACH
inline void prefetch(const void*) {}
inline void prefetch_far(const void*) {}
inline void prefetch_to_write(const void*) {}

}  // namespace PAREDOWN_ISA
}  // namespace paredown
