// One float16 in plain C++. Static: each object has its own, compiled with no other instructions than its machine's.
#pragma once
#include <cstdint>
#include <cstring>

namespace paredown {

static inline float half(uint16_t h) {
  const uint32_t magnitude = h & 0x7fff, moved = magnitude << 13;
  const float small = (float)magnitude * 0x1p-24f;  // below the normal range
  uint32_t bits;
  memcpy(&bits, &small, 4);
  if (magnitude >= 0x400) bits = moved + (magnitude < 0x7c00 ? 0x38000000 : 0x70000000);
  bits |= (uint32_t)(h & 0x8000) << 16;
  float v;
  memcpy(&v, &bits, 4);
  return v;
}

}  // namespace paredown
