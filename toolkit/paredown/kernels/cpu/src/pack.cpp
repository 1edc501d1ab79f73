// Codes [rows, inputs], a byte each, into the layout of abi.h; and rows gathered from it, or from the file's own layout.
#include <cstring>

#include "abi.h"
#include "half.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace paredown;

namespace {

struct Codes {
  const uint8_t* at;
  int64_t rows, inputs;
  uint8_t operator()(int64_t row, int64_t input) const { return row < rows && input < inputs ? at[row * inputs + input] : 0; }
};

// Code number `index` of a stream of bits in words of 32; a code may straddle two words.
inline uint32_t code_at(const uint32_t* words, int64_t stride, int64_t index, int32_t bits) {
  const int64_t bit = index * bits, word = bit / 32, shift = bit % 32;
  uint64_t both = words[word * stride];
  if (shift + bits > 32) both |= (uint64_t)words[(word + 1) * stride] << 32;
  return (uint32_t)(both >> shift) & ((1u << bits) - 1);
}

// The code of place i (row x input) in step s of a block's chunk.
inline uint32_t code_in(const uint8_t* chunk, int32_t bits, int64_t s, int64_t i) {
  if (bits == 8) return chunk[64 * s + i];
  uint32_t code = 0;
  if (bits >= 4) {
    code = chunk[64 * (s / 2) + i] >> 4 * (s % 2) & 15;
    chunk += 128;
  }
  if (bits != 4 && bits != 5) {
    code |= (uint32_t)(chunk[i] >> 2 * s & 3) << (bits == 6 ? 4 : 0);
    chunk += 64;
  }
  if (bits == 3 || bits == 5) code |= (uint32_t)(chunk[8 * s + i / 8] >> i % 8 & 1) << (bits - 1);  // bytes of a mask rise, as on every machine here
  return code;
}

}  // namespace

// out: [blocks, padded / 16, 32 bits] bytes.
EXPORT void pd_pack_dense(const uint8_t* codes, int64_t rows, int64_t inputs, int64_t padded, int32_t bits, uint8_t* out) {
  const Codes at{codes, rows, inputs};
  for (int64_t row = 0; row < rows; row += BLOCK) {
    for (int64_t k = 0; k < padded; k += CHUNK, out += 32 * bits) {
      uint8_t step[4][64];
      for (int64_t s = 0; s < 4; s++)
        for (int64_t i = 0; i < 64; i++) step[s][i] = at(row + i / 4, k + 4 * s + i % 4);
      uint8_t* to = out;
      if (bits == 8) {
        memcpy(to, step, 256);
        continue;
      }
      if (bits >= 4) {
        for (int64_t half = 0; half < 2; half++, to += 64)
          for (int64_t i = 0; i < 64; i++) to[i] = (uint8_t)((step[2 * half][i] & 15) | step[2 * half + 1][i] << 4);
      }
      if (bits != 4 && bits != 5) {
        const int down = bits == 6 ? 4 : 0;
        for (int64_t i = 0; i < 64; i++) {
          uint8_t fields = 0;
          for (int64_t s = 0; s < 4; s++) fields = (uint8_t)(fields | ((step[s][i] >> down) & 3) << 2 * s);
          to[i] = fields;
        }
        to += 64;
      }
      if (bits == 3 || bits == 5) {
        for (int64_t s = 0; s < 4; s++, to += 8) {
          uint64_t mask = 0;
          for (int64_t i = 0; i < 64; i++) mask |= (uint64_t)(step[s][i] >> (bits - 1) & 1) << i;
          memcpy(to, &mask, 8);
        }
      }
    }
  }
}

// Returns the bytes of the codes; with `out` null nothing else is done. masks: [blocks, padded / 4], offsets: [blocks].
EXPORT int64_t pd_pack_sparse(const uint8_t* codes, const uint8_t* kept, int64_t rows, int64_t inputs, int64_t padded, int32_t bits, uint8_t* out,
                              uint64_t* masks, int64_t* offsets) {
  const Codes at{codes, rows, inputs}, keep{kept, rows, inputs};
  int64_t size = 0;
  for (int64_t row = 0; row < rows; row += BLOCK) {
    if (out) offsets[row / BLOCK] = size;
    for (int64_t k = 0; k < padded; k += 4) {
      uint64_t mask = 0;
      int64_t count = 0;
      for (int64_t i = 0; i < 64; i++) {
        const int64_t r = row + i / 4, c = k + i % 4;
        if (!keep(r, c)) continue;
        mask |= (uint64_t)1 << i;
        if (out && bits > 4) out[size + count] = at(r, c);
        if (out && bits <= 4) {
          uint8_t& pair = out[size + count / 2];
          pair = count % 2 ? (uint8_t)(pair | at(r, c) << 4) : at(r, c);
        }
        count++;
      }
      size += bits > 4 ? count : (count + 1) / 2;
      if (out) *masks++ = mask;
    }
  }
  return size;
}

// Rows of a dense weight without factors.
EXPORT void pd_rows(const Weight* w, const int64_t* ids, int64_t count, float* out) {
  const int64_t chunks = w->group / CHUNK;
  for (int64_t n = 0; n < count; n++) {
    const int64_t block = ids[n] / BLOCK, row = ids[n] % BLOCK;
    const uint8_t* chunk = w->codes + block * w->groups * w->group * 2 * w->bits;
    for (int64_t g = 0; g < w->groups; g++) {
      const int64_t at = (block * w->groups + g) * BLOCK + row;
      const float scale = w->wide_scales ? ((const float*)w->scales)[at] : half(((const uint16_t*)w->scales)[at]);
      for (int64_t c = 0; c < chunks; c++, chunk += 32 * w->bits) {
        for (int64_t k = 0; k < CHUNK && g * w->group + c * CHUNK + k < w->inputs; k++) {
          const uint32_t code = code_in(chunk, w->bits, k / 4, 4 * row + k % 4);
          *out++ = (w->table ? w->table[code] : (float)code - (float)w->zeros[at]) * scale;
        }
      }
    }
  }
}

// Rows of the file's layout: words [rows, row_words], scales [rows, groups], zeros packed down the columns or null.
EXPORT void pd_gather(const uint32_t* words, int64_t row_words, const uint16_t* scales, const uint32_t* zeros, int64_t groups, int64_t dim,
                      int32_t bits, const int64_t* ids, int64_t count, float* out) {
  const int64_t group = dim / groups;
  for (int64_t i = 0; i < count; i++) {
    const uint32_t* row = words + ids[i] * row_words;
    for (int64_t g = 0; g < groups; g++) {
      const float scale = half(scales[ids[i] * groups + g]);
      const float zero = (float)(zeros ? code_at(zeros + g, groups, ids[i], bits) : 1u << (bits - 1));
      for (int64_t k = g * group; k < (g + 1) * group; k++) *out++ = ((float)code_at(row, 1, k, bits) - zero) * scale;
    }
  }
}
