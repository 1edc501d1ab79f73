// Rows of inputs into tiles: conversion, rounding, and the products with the right factor of a low-rank correction.
//
// Plain loops over floats, which the compiler turns into vectors of the instruction set that it compiles for.
#pragma once
#include "multiply.h"

namespace paredown {
namespace PAREDOWN_ISA {

inline void load_row(const Call& call, int64_t token, int64_t inputs, int64_t padded, float* row) {
  if (call.x_type == FLOAT32) {
    memcpy(row, (const float*)call.x + token * call.stride, (size_t)inputs * 4);
  } else {
    const uint16_t* from = (const uint16_t*)call.x + token * call.stride;
    if (call.x_type == BFLOAT16) {
      for (int64_t k = 0; k < inputs; k++) row[k] = float_of((uint32_t)from[k] << 16);
    } else {
      int64_t k = 0;
      for (; k + 16 <= inputs; k += 16) store(row + k, load_half(from + k));
      uint16_t rest[16] = {};
      float last[16];
      for (int64_t i = k; i < inputs; i++) rest[i - k] = from[i];
      store(last, load_half(rest));
      for (; k < inputs; k++) row[k] = last[k % 16];
    }
  }
  for (int64_t k = inputs; k < padded; k++) row[k] = 0;
}

// Symmetric integers up to `largest` over the group's own range. A group that is not finite has scale NaN, and so has the result.
INLINE void round_group(const float* row, int64_t group, float largest, int8_t* to, float& scale, float& sum) {
  uint32_t top = 0;
  for (int64_t k = 0; k < group; k++) {
    const uint32_t magnitude = bits_of(row[k]) & 0x7fffffff;
    top = magnitude > top ? magnitude : top;
  }
  const float most = float_of(top);
  const bool finite = top < 0x7f800000, some = most > 1e-30f && finite;
  const float inverse = some ? largest / most : 0.0f, magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  int32_t total = 0;
  if (some) {
    for (int64_t k = 0; k < group; k++) {
      const int32_t code = (int32_t)(bits_of(row[k] * inverse + magic) - 0x4b400000);
      to[k] = (int8_t)code;
      total += code;
    }
  } else {
    for (int64_t k = 0; k < group; k++) to[k] = 0;
  }
  scale = some ? most / largest : finite ? 0.0f : float_of(0x7fc00000);
  sum = scale * (float)total;
}

// Words of one row at the call's precision; scales and sums of part i of all groups go to place i * width.
inline const uint32_t* round_row(const Weight& w, const Call& call, const float* row, uint32_t* packed, int64_t width, float* scales, float* sums) {
  if (call.precision == INT8) {
    const int64_t parts = parts_of(w, INT8), part = w.group / parts;
    for (int64_t i = 0; i < w.groups * parts; i++)
      round_group(row + i * part, part, (float)call.largest, (int8_t*)packed + i * part, scales[i * width], sums[i * width]);
    if (parts == 2)  // a zero point is the same in both halves: it is corrected for with the second
      for (int64_t i = 0; i < w.groups * 2; i += 2) sums[(i + 1) * width] += sums[i * width], sums[i * width] = 0;
    return packed;
  }
  if (call.precision == F32) return (const uint32_t*)row;
#ifdef PAREDOWN_BF16
  for (int64_t g = 0; g < w.groups; g++) {
    Floats total = set(0);
    for (int64_t k = g * w.group; k < (g + 1) * w.group; k += 16) total = add(total, store_bf16((uint16_t*)packed + k, load(row + k)));
    float sixteen[16], sum = 0;
    store(sixteen, total);
    for (int i = 0; i < 16; i++) sum += sixteen[i];
    sums[g * width] = sum;
  }
#endif
  return packed;
}

// One row times the right factor.
inline void project(const Weight& w, const float* row, float* ranks) {
  for (int64_t r = 0; r < w.rank; r += 16) {
    const int64_t base = r * w.inputs;
    Floats total[4] = {set(0), set(0), set(0), set(0)};
    for (int64_t k = 0; k < w.inputs; k++) {
      const Floats factor = w.wide_factors ? load((const float*)w.right + base + 16 * k) : load_half((const uint16_t*)w.right + base + 16 * k);
      total[k % 4] = fma(factor, set(row[k]), total[k % 4]);
    }
    float sixteen[16];
    store(sixteen, add(add(total[0], total[1]), add(total[2], total[3])));
    for (int64_t i = r; i < w.rank && i < r + 16; i++) ranks[i] = sixteen[i - r];
  }
}

inline void prepare(const Weight& w, const Call& call, int64_t first, int64_t count, int64_t width, float* row, uint32_t* packed, uint32_t* words,
                    float* scales, float* sums, float* ranks) {
  const int64_t padded = w.groups * w.group, length = padded / (call.precision == INT8 ? 4 : call.precision == BF16 ? 2 : 1);
  for (int64_t m = 0; m < count; m++) {
    load_row(call, first + m, w.inputs, padded, row);
    const uint32_t* from = round_row(w, call, row, packed, width, scales + m, sums + m);
    if (width == 1) memcpy(words, from, (size_t)length * 4);
    else for (int64_t i = 0; i < length; i++) words[i * width + m] = from[i];
    project(w, row, ranks + m * w.rank);
  }
  for (int64_t m = count; m < width; m++) {
    for (int64_t i = 0; i < length; i++) words[i * width + m] = 0;
    for (int64_t i = 0; i < w.groups * parts_of(w, call.precision); i++) scales[i * width + m] = sums[i * width + m] = 0;
  }
}

// Where decoding in registers pays: what is decoded there is decoded again for every four tokens.
inline int64_t few_tokens(const Weight& w, Precision precision) { return precision == F32 || w.masks ? 1 : 4; }

template <class C, class D> void multiply_as(const Job& job) {
  if (job.few && job.tiles[0].width == 1) return few<C, D, 1, FEW_BLOCKS>(job);
  if constexpr (C::GROUPED && !D::SPARSE) {
    if (job.few) return few<C, D, 4, FEW_BLOCKS>(job);
  }
  many<C, D>(job);
}

template <class C> void multiply_bits(const Job& job) {
  const Weight& w = job.out.w;
  if (w.masks) return w.bits <= 4 ? multiply_as<C, Sparse<4>>(job) : multiply_as<C, Sparse<8>>(job);
  switch (w.bits) {
    case 2: return multiply_as<C, Dense<2>>(job);
    case 3: return multiply_as<C, Dense<3>>(job);
    case 4: return multiply_as<C, Dense<4>>(job);
    case 5: return multiply_as<C, Dense<5>>(job);
    case 6: return multiply_as<C, Dense<6>>(job);
    case 8: return multiply_as<C, Dense<8>>(job);
    default: return none(job);
  }
}

inline void multiply(const Weight& w, const Call& call, int64_t block, const Inputs* tiles, int64_t count, bool few, int64_t first, int64_t tokens,
                     const float* ranks, uint8_t* panel, float* results) {
  const Job job = {results_of(w, call, block, few ? FEW_BLOCKS : PANEL_BLOCKS, first, tokens, ranks), tiles, count, few, panel, results};
  if (call.precision == INT8) {
    const bool wide = SIGNED_BYTES && (w.bits == 8 || (w.masks && w.bits > 4));
    wide ? multiply_bits<AsInt8<SIGNED_BYTES>>(job) : multiply_bits<AsInt8<false>>(job);
#ifdef PAREDOWN_BF16
  } else if (call.precision == BF16) {
    multiply_bits<AsBf16>(job);
#endif
  } else {
    multiply_bits<AsFloat32>(job);
  }
}

inline const Engine* engine() {
  static const Engine e = {TILE, PANEL_BLOCKS, FEW_BLOCKS, few_tokens, prepare, multiply};
  return &e;
}

}  // namespace PAREDOWN_ISA
}  // namespace paredown
