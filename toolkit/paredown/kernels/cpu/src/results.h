// Results out of registers: low-rank factors, bias and activation, conversion.
//
// Plain loops over floats, which the compiler turns into vectors of the instruction set that it compiles for.
#pragma once
#include "decode.h"

namespace paredown {
namespace PAREDOWN_ISA {

INLINE uint32_t bits_of(float v) { uint32_t b; memcpy(&b, &v, 4); return b; }
INLINE float float_of(uint32_t b) { float v; memcpy(&v, &b, 4); return v; }

INLINE uint16_t to_bf16(float v) {  // to nearest, ties to even; NaN stays one
  const uint32_t b = bits_of(v);
  return (uint16_t)((b & 0x7fffffff) > 0x7f800000 ? (b >> 16 | 0x40) : (b + 0x7fff + (b >> 16 & 1)) >> 16);
}

INLINE uint16_t to_half(float v) {  // likewise
  const uint32_t b = bits_of(v), sign = b >> 16 & 0x8000, magnitude = b & 0x7fffffff;
  if (magnitude > 0x7f800000) return (uint16_t)(sign | 0x7e00);
  if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (magnitude < 0x38800000) return (uint16_t)(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)));  // 0.5 has steps of 2^-24
  return (uint16_t)(sign | ((magnitude + 0xfff + (magnitude >> 13 & 1)) - 0x38000000) >> 13);
}

// e^v to 2e-7 of its value.
INLINE float exponential(float v) {
  const float low = -87.0f, high = 88.0f;
  v = v < low ? low : v;
  v = v > high ? high : v;
  const float magic = 12582912.0f, whole = v * 1.44269504f + magic;
  const float n = whole - magic, r = v - n * 0.693359375f + n * 2.12194440e-4f;
  const float p = 1 + r * (1 + r * (0.5f + r * (0.166666657f + r * (0.0416666567f + r * (0.00833345205f + r * 0.00139304355f)))));
  return p * float_of((uint32_t)(bits_of(whole) - 0x4b400000 + 127) << 23);
}
// erfc after Abramowitz and Stegun, 7.1.28 (3e-7), which needs no exponential. In float32 the 16th power leaves 2e-6 of erf near 0;
// the result is off by at most 8e-7, and by 2.5e-6 of its value above -1.
INLINE float gelu(float v) {
  const float z = (v < 0 ? -v : v) * 0.707106781f;
  float root = 1 + z * (0.0705230784f + z * (0.0422820123f + z * (0.0092705272f + z * (0.0001520143f + z * (0.0002765672f + z * 0.0000430638f)))));
  root *= root, root *= root, root *= root, root *= root;
  const float rest = v * (0.5f / root);
  return v < 0 ? rest : v - rest;
}
INLINE float silu(float v) { return v / (1 + exponential(-v)); }
INLINE float gelu_tanh(float v) { return v / (1 + exponential(-1.59576912f * (v + 0.044715f * v * v * v))); }

inline void activate(int32_t activation, float* v, int64_t count) {  // many, so that the long chains of several overlap
  switch (activation) {
    case GELU: for (int64_t i = 0; i < count; i++) v[i] = gelu(v[i]); break;
    case GELU_TANH: for (int64_t i = 0; i < count; i++) v[i] = gelu_tanh(v[i]); break;
    case SILU: for (int64_t i = 0; i < count; i++) v[i] = silu(v[i]); break;
    case RELU: for (int64_t i = 0; i < count; i++) v[i] = v[i] < 0 ? 0 : v[i]; break;
    default: break;
  }
}

INLINE void write(const float* from, int64_t rows, const Call& call, int64_t place) {  // of one block
  if (call.y_type == FLOAT32) {
    if (rows == BLOCK) memcpy((float*)call.y + place, from, 64);
    else memcpy((float*)call.y + place, from, (size_t)rows * 4);
    return;
  }
  uint16_t sixteen[16];
  if (call.y_type == BFLOAT16) for (int i = 0; i < 16; i++) sixteen[i] = to_bf16(from[i]);
  else for (int i = 0; i < 16; i++) sixteen[i] = to_half(from[i]);
  memcpy((uint16_t*)call.y + place, sixteen, (size_t)rows * 2);
}

// Where the results of some blocks of rows go: [tokens of the chunk, rows].
struct Results {
  const Weight& w;
  const Call& call;
  int64_t block, blocks;
  int64_t first, tokens;  // of the call
  const float* ranks;     // [tokens, rank]: the inputs times the right factor
  float bias[MOST_BLOCKS * BLOCK];
};

inline Results results_of(const Weight& w, const Call& call, int64_t block, int64_t blocks, int64_t first, int64_t tokens, const float* ranks) {
  Results out = {w, call, block, blocks, first, tokens, ranks, {}};
  const int64_t rows = w.rows - block * BLOCK < blocks * BLOCK ? w.rows - block * BLOCK : blocks * BLOCK;
  if (call.bias) memcpy(out.bias, call.bias + block * BLOCK, (size_t)rows * 4);
  return out;
}

// Asks for the lines that `finish` will write, while a tile is multiplied: stores that miss wait for each other.
inline void ask_for_results(const Results& out, int64_t start, int64_t width) {
  const int64_t size = out.call.y_type == FLOAT32 ? 4 : 2, row = out.block * BLOCK, count = out.tokens - start < width ? out.tokens - start : width;
  const int64_t bytes = (out.w.rows - row < out.blocks * BLOCK ? out.w.rows - row : out.blocks * BLOCK) * size;
  for (int64_t m = 0; m < count; m++) {
    const char* to = (const char*)out.call.y + ((out.first + start + m) * out.w.rows + row) * size;
    for (int64_t i = 0; i < bytes; i += 64) prefetch_to_write(to + i);
  }
}

// Adds what the factors correct and the bias, activates, and writes `sums` [up to width tokens, blocks of rows], token `start` of the
// chunk and on, while they are still in the first-level cache.
inline void finish(const Results& out, int64_t start, int64_t width, float* sums) {
  const Weight& w = out.w;
  const int64_t count = out.tokens - start < width ? out.tokens - start : width;
  const bool plain = out.call.activation == IDENTITY && out.call.y_type == FLOAT32;
  for (int64_t r = 0; r < out.blocks && (out.block + r) * BLOCK < w.rows; r++) {
    const int64_t row = (out.block + r) * BLOCK, rows = w.rows - row < BLOCK ? w.rows - row : BLOCK;
    const Floats bias = load(out.bias + r * BLOCK);
    float* to = (float*)out.call.y + (out.first + start) * w.rows + row;
    for (int64_t m = 0; m < count; m++) {
      float* from = sums + (m * out.blocks + r) * BLOCK;
      Floats v = load(from);
      for (int64_t i = 0; i < w.rank; i++) {
        const int64_t at = ((out.block + r) * w.rank + i) * BLOCK;
        v = fma(w.wide_factors ? load((const float*)w.left + at) : load_half((const uint16_t*)w.left + at), set(out.ranks[(start + m) * w.rank + i]), v);
      }
      store(plain && rows == BLOCK ? to + m * w.rows : from, add(v, bias));
      if (plain && rows < BLOCK) memcpy(to + m * w.rows, from, (size_t)rows * 4);
    }
  }
  if (plain) return;
  activate(out.call.activation, sums, count * out.blocks * BLOCK);
  for (int64_t r = 0; r < out.blocks && (out.block + r) * BLOCK < w.rows; r++) {
    const int64_t row = (out.block + r) * BLOCK, rows = w.rows - row < BLOCK ? w.rows - row : BLOCK;
    for (int64_t m = 0; m < count; m++) write(sums + (m * out.blocks + r) * BLOCK, rows, out.call, (out.first + start + m) * w.rows + row);
  }
}

}  // namespace PAREDOWN_ISA
}  // namespace paredown
