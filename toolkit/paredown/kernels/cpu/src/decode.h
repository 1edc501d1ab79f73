// Codes out of their planes, 16 rows x 16 inputs at a time (abi.h has the layout).
#pragma once
#include "engine.h"

#define INLINE inline __attribute__((always_inline))
#define PRAGMA(text) _Pragma(#text)
#ifndef UNROLL  // accumulators stay in registers only where their loops are unrolled
#define UNROLL(times) PRAGMA(GCC unroll times)
#endif

namespace paredown {
namespace PAREDOWN_ISA {

constexpr int64_t AHEAD = 2048;  // bytes that codes are asked for before they are needed: while they are multiplied in registers

template <int B> struct Dense {
  static constexpr int BITS = B;
  static constexpr bool SPARSE = false;
  const uint8_t* p;

  INLINE void open(const Weight& w, int64_t block) { p = w.codes + block * w.groups * w.group * 2 * B; }
  INLINE void begin_group(const uint8_t*) {}

  template <bool Ask> INLINE void next(Bytes q[4]) {
    for (int64_t i = 0; Ask && i < 32 * B; i += 64) prefetch(p + AHEAD + i);
    const uint8_t* rest = p;
    if constexpr (B == 8) {
UNROLL(4)
      for (int s = 0; s < 4; s++) q[s] = load_bytes(p + 64 * s);
    } else if constexpr (B >= 4) {
      const Bytes first = load_bytes(p), second = load_bytes(p + 64);
      q[0] = field<0>(first, 15), q[1] = field<4>(first, 15), q[2] = field<0>(second, 15), q[3] = field<4>(second, 15);
      rest = p + 128;
    }
    if constexpr (B == 2 || B == 3 || B == 6) {
      const Bytes v = load_bytes(rest);
      const Bytes twos[4] = {field<0>(v, 3), field<2>(v, 3), field<4>(v, 3), field<6>(v, 3)};
UNROLL(4)
      for (int s = 0; s < 4; s++) q[s] = B == 6 ? merge<4>(q[s], twos[s]) : twos[s];
      rest += 64;
    }
    if constexpr (B == 3 || B == 5) {
UNROLL(4)
      for (int s = 0; s < 4; s++) {
        uint64_t mask;
        memcpy(&mask, rest + 8 * s, 8);
        q[s] = add_where(q[s], mask, 1 << (B - 1));
      }
    }
    p += 32 * B;
  }
};

template <int B> struct Sparse {  // B is the width that codes are stored in, 4 or 8
  static constexpr int BITS = B;
  static constexpr bool SPARSE = true;
  const uint8_t* p;
  const uint64_t* mask;
  Bytes zero;

  INLINE void open(const Weight& w, int64_t block) {
    p = w.codes + w.offsets[block];
    mask = w.masks + block * w.groups * w.group / 4;
  }
  INLINE void begin_group(const uint8_t* zeros) {
    zero = four_times(zeros);
  }
  template <bool Ask> INLINE void next(Bytes q[4]) {
    for (int64_t i = 0; Ask && i < 128; i += 64) prefetch(p + AHEAD + i);
UNROLL(4)
    for (int s = 0; s < 4; s++) q[s] = B == 4 ? expand_nibbles(zero, *mask++, p) : expand_bytes(zero, *mask++, p);
  }
};

}  // namespace PAREDOWN_ISA
}  // namespace paredown
