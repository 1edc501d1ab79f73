// Codes times inputs, at three precisions of the inputs, on the primitives of one instruction set.
//
// Few tokens: codes are decoded in registers and multiplied at once. More tokens: the codes of a few blocks and at most
// PANEL_BYTES are decoded into a panel, which all tiles of tokens then multiply with; so decoding costs little, whatever the format.
#pragma once
#include "results.h"

namespace paredown {
namespace PAREDOWN_ISA {

// One word of 32 bits holds as many inputs as a lane multiplies at once; a step of 4 inputs is WORDS of them.
template <bool Wide> struct AsInt8 {  // Wide: codes of 8 bits where the dot product wants them signed, as 128 less
  static constexpr int WORDS = 1, LESS = Wide ? 128 : 0;
  static constexpr bool RANGES = true;
  static constexpr bool GROUPED = true;
  using Sum = Ints;
  static INLINE Sum none() { return no_ints(); }
  static INLINE Sum dot(Sum sum, Bytes w, uint32_t x) { return PAREDOWN_ISA::dot<Wide>(sum, w, x); }
  static INLINE Floats scaled(Sum sum, Floats scale, float input_scale, Floats to) {
    return fma(mul(to_floats(sum), scale), set(input_scale), to);
  }
  template <int B> struct Spread {
    INLINE void open(const Weight&) {}
    INLINE void group(Floats, Floats) {}
    template <int I> INLINE Bytes word(const Bytes& q) const { return Wide ? flip_signs(q) : q; }
  };
};

#ifdef PAREDOWN_BF16
struct AsBf16 {
  static constexpr int WORDS = 2, LESS = 0;
  static constexpr bool RANGES = false;
  static constexpr bool GROUPED = true;
  using Sum = Floats;
  static INLINE Sum none() { return set(0); }
  static INLINE Sum dot(Sum sum, Bytes w, uint32_t x) { return dot_bf16(sum, w, x); }
  static INLINE Floats scaled(Sum sum, Floats scale, float, Floats to) { return fma(sum, scale, to); }
  template <int B> struct Spread {
    BfTable table;
    INLINE void open(const Weight& w) { table = load_bf_table(w.table, B); }
    INLINE void group(Floats, Floats) {}
    template <int I> INLINE Bytes word(const Bytes& q) const { return I == 0 ? even_bf16<B>(table, q) : odd_bf16<B>(table, q); }
  };
};
#endif

struct AsFloat32 {
  static constexpr int WORDS = 4, LESS = 0;
  static constexpr bool RANGES = false;
  static constexpr bool GROUPED = false;  // scales and zero points are in the decoded numbers already
  using Sum = Floats;
  static INLINE Sum none() { return set(0); }
  static INLINE Sum dot(Sum sum, Bytes w, uint32_t x) {
    Floats numbers;
    float input;
    memcpy(&numbers, &w, 64), memcpy(&input, &x, 4);
    return fma(numbers, set(input), sum);
  }
  static INLINE Floats scaled(Sum sum, Floats, float, Floats to) { return add(sum, to); }
  template <int B> struct Spread {
    Floats scale, zero;
    Table table;
    bool looked_up;
    INLINE void open(const Weight& w) {
      looked_up = B <= 4 && w.table;
      if (looked_up) table = load_table(w.table);
    }
    INLINE void group(Floats s, Floats z) { scale = s, zero = z; }
    template <int I> INLINE Bytes word(const Bytes& q) const {
      const Floats v = mul(looked_up ? look_up<I>(table, q) : sub(number<I>(q), zero), scale);
      Bytes r;
      memcpy(&r, &v, 64);
      return r;
    }
  };
};

INLINE Floats scales_at(const Weight& w, int64_t index) {  // of [block, group]
  return w.wide_scales ? load((const float*)w.scales + 16 * index) : load_half((const uint16_t*)w.scales + 16 * index);
}
template <class C> INLINE Floats zeros_at(const Weight& w, int64_t index) {
  if (w.table) return set(0);
  const Floats z = load_small(w.zeros + 16 * index);
  return C::LESS ? sub(z, set(C::LESS)) : z;
}
INLINE const uint8_t* zero_codes(const Weight& w, int64_t index) { return w.zeros + 16 * index; }

template <class C, int I, int MR> INLINE void add_words(typename C::Sum* sums, int stride, const Bytes& v, const uint32_t* x) {
UNROLL(16)
  for (int m = 0; m < MR; m++) sums[m * stride] = C::dot(sums[m * stride], v, x[I * MR + m]);
}

// Some blocks of rows times all tiles of tokens.
struct Job {
  Results out;
  const Inputs* tiles;
  int64_t count;
  bool few;
  uint8_t* panel;
  float* results;  // scratch
};

// Decoding in registers, for MR tokens and NR blocks.
template <class C, class D, int MR, int NR>
void few(const Job& job) {
  const Weight& w = job.out.w;
  const int64_t block = job.out.block;
  const Inputs& in = job.tiles[0];
  const int64_t last = ceil_div(w.rows, BLOCK) - 1;
  typename C::template Spread<D::BITS> spread[NR];
  Floats f[MR][NR];
  int64_t own[NR];
  D codes[NR];
  for (int r = 0; r < NR; r++) {
    own[r] = block + r < last ? block + r : last;
    codes[r].open(w, own[r]);
    spread[r].open(w);
    for (int m = 0; m < MR; m++) f[m][r] = set(0);
  }
  const uint32_t* x = in.words;
  const int64_t parts = C::RANGES ? parts_of(w, INT8) : 1, part = w.group / parts;
  for (int64_t i = 0; i < w.groups * parts; i++) {
    const int64_t g = i / parts;
    typename C::Sum sums[MR][NR];
UNROLL(16)
    for (int r = 0; r < NR; r++) {
      codes[r].begin_group(zero_codes(w, own[r] * w.groups + g));
      if (!C::GROUPED) spread[r].group(scales_at(w, own[r] * w.groups + g), zeros_at<C>(w, own[r] * w.groups + g));
UNROLL(16)
      for (int m = 0; m < MR; m++) sums[m][r] = C::none();
    }
    for (int64_t k = 0; k < part; k += CHUNK) {
UNROLL(16)
      for (int r = 0; r < NR; r++) {
        Bytes q[4];
        codes[r].template next<false>(q);
UNROLL(4)
        for (int s = 0; s < 4; s++) {
          const uint32_t* at = x + s * C::WORDS * MR;
          add_words<C, 0, MR>(&sums[0][r], NR, spread[r].template word<0>(q[s]), at);
          if constexpr (C::WORDS > 1) add_words<C, 1, MR>(&sums[0][r], NR, spread[r].template word<1>(q[s]), at);
          if constexpr (C::WORDS > 2) {
            add_words<C, 2, MR>(&sums[0][r], NR, spread[r].template word<2>(q[s]), at);
            add_words<C, 3, MR>(&sums[0][r], NR, spread[r].template word<3>(q[s]), at);
          }
        }
      }
      x += 4 * C::WORDS * MR;
    }
UNROLL(16)
    for (int r = 0; r < NR; r++) {
      const Floats scale = C::GROUPED ? scales_at(w, own[r] * w.groups + g) : set(1);
      const Floats zero = C::GROUPED ? mul(scale, zeros_at<C>(w, own[r] * w.groups + g)) : set(0);
UNROLL(16)
      for (int m = 0; m < MR; m++) {
        f[m][r] = C::scaled(sums[m][r], scale, in.scales[i * MR + m], f[m][r]);
        if (C::GROUPED && !w.table) f[m][r] = fnma(zero, set(in.sums[i * MR + m]), f[m][r]);
      }
    }
  }
  for (int m = 0; m < MR; m++)
    for (int r = 0; r < NR; r++) store(job.results + (m * NR + r) * BLOCK, f[m][r]);
  finish(job.out, 0, MR, job.results);
}

// Of factors alone.
inline void none(const Job& job) {
  for (int64_t t = 0, width = job.tiles[0].width; t < job.count; t++) {
    memset(job.results, 0, (size_t)(width * job.out.blocks * BLOCK) * 4);
    finish(job.out, t * width, width, job.results);
  }
}

// A panel, whose blocks are `stride` bytes apart, times one tile of MR tokens: `groups` groups of `parts` times `words` words, from words
// x and group factors on.
template <class C, int MR>
void tile(const uint8_t* panel, int64_t stride, const float* factors, int64_t groups, int64_t parts, int64_t words, const uint32_t* x, const float* scales,
          const float* sums, bool zeros, float* results) {
  constexpr int NR = PANEL_BLOCKS, STEPS = 4;  // a group has at least four words; GCC copies every sum where the loop is not unrolled
  float half[MR * NR * BLOCK];
  for (int64_t i = 0; i < groups * parts; i++) {
    typename C::Sum a[MR][NR];
UNROLL(16)
    for (int m = 0; m < MR; m++)
UNROLL(4)
      for (int r = 0; r < NR; r++) a[m][r] = C::none();
    for (int64_t k = 0; k < words; k += STEPS) {
UNROLL(4)
      for (int step = 0; step < STEPS; step++) {
        Bytes v[NR];
UNROLL(4)
        for (int r = 0; r < NR; r++) v[r] = load_bytes(panel + r * stride + 64 * step);
UNROLL(16)
        for (int m = 0; m < MR; m++)
UNROLL(4)
          for (int r = 0; r < NR; r++) a[m][r] = C::dot(a[m][r], v[r], x[step * MR + m]);
      }
      panel += 64 * STEPS;
      x += STEPS * MR;
    }
    if constexpr (C::RANGES) {
      if (parts == 2 && i % 2 == 0) {  // the scale of the weight waits for the other half
UNROLL(16)
        for (int m = 0; m < MR; m++)
UNROLL(4)
          for (int r = 0; r < NR; r++) store(half + (m * NR + r) * BLOCK, mul(to_floats(a[m][r]), set(scales[m])));
        scales += MR, sums += MR;
        continue;
      }
    }
UNROLL(4)
    for (int r = 0; r < NR; r++) {
      const Floats scale = C::GROUPED ? load(factors + 16 * r) : set(1), zero = C::GROUPED ? load(factors + 16 * (NR + r)) : set(0);
UNROLL(16)
      for (int m = 0; m < MR; m++) {
        float* to = results + (m * NR + r) * BLOCK;
        Floats f = load(to);
        if constexpr (C::RANGES) {
          const Floats sum = to_floats(a[m][r]), input = set(scales[m]);
          f = fma(parts == 2 ? fma(sum, input, load(half + (m * NR + r) * BLOCK)) : mul(sum, input), scale, f);
        } else {
          f = C::scaled(a[m][r], scale, 1, f);
        }
        if (C::GROUPED && zeros) f = fnma(zero, set(sums[m]), f);
        store(to, f);
      }
    }
    factors += 32 * NR;
    if (C::GROUPED) scales += MR, sums += MR;
  }
}

template <class C> INLINE void any_tile(int64_t width, const uint8_t* panel, int64_t stride, const float* factors, int64_t groups, int64_t parts, int64_t words, const uint32_t* x,
                                        const float* scales, const float* sums, bool zeros, float* results) {
#define TOKENS(MR) case MR: if constexpr (MR <= TILE) return tile<C, MR>(panel, stride, factors, groups, parts, words, x, scales, sums, zeros, results); break;
  switch (width) {
    TOKENS(2) TOKENS(4) TOKENS(6) TOKENS(8) TOKENS(10) TOKENS(12)
  }
#undef TOKENS
}

template <class C, class D> void decode_group(const Weight& w, D& codes, int64_t index, typename C::template Spread<D::BITS>& spread, int64_t far,
                                              uint8_t* panel) {
  codes.begin_group(zero_codes(w, index));
  if (!C::GROUPED) spread.group(scales_at(w, index), zeros_at<C>(w, index));
  for (int64_t k = 0; k < w.group; k += CHUNK) {
    Bytes q[4];
    codes.template next<true>(q, far);
UNROLL(4)
    for (int s = 0; s < 4; s++) {
      store_bytes(panel, spread.template word<0>(q[s]));
      if constexpr (C::WORDS > 1) store_bytes(panel + 64, spread.template word<1>(q[s]));
      if constexpr (C::WORDS > 2) {
        store_bytes(panel + 128, spread.template word<2>(q[s]));
        store_bytes(panel + 192, spread.template word<3>(q[s]));
      }
      panel += C::WORDS * 64;
    }
  }
}

// The sums of one tile stay in the first-level cache where a panel holds all groups; else all tiles' wait for the next panel.
template <class C, class D>
void many(const Job& job) {
  const Weight& w = job.out.w;
  const int64_t block = job.out.block;
  uint8_t* panel = job.panel;
  constexpr int NR = PANEL_BLOCKS;
  const int64_t last = ceil_div(w.rows, BLOCK) - 1, words = w.group / 4 * C::WORDS;
  const int64_t parts = C::RANGES ? parts_of(w, INT8) : 1;
  const int64_t at_once = PANEL_BYTES / (64 * NR * words);  // groups
  constexpr bool AS_IT_IS = C::WORDS == 1 && !C::LESS && D::BITS == 8 && !D::SPARSE;  // codes that are what a panel holds
  const int64_t stride = !AS_IT_IS ? PANEL_BYTES / NR : block < last ? w.groups * w.group * 16 : 0;
  const int64_t far = at_once * w.group * 2 * D::BITS;  // bytes of a block's codes in a panel; of a sparse one, at most
  float* factors = (float*)(panel + PANEL_BYTES);
  D codes[NR];
  typename C::template Spread<D::BITS> spread[NR];
  int64_t own[NR];
  for (int r = 0; r < NR; r++) {
    own[r] = block + r < last ? block + r : last;
    codes[r].open(w, own[r]);
    spread[r].open(w);
  }
  for (int64_t g = 0; g < w.groups; g += at_once) {
    const int64_t groups = w.groups - g < at_once ? w.groups - g : at_once;
    for (int64_t i = 0; i < groups; i++) {
      for (int r = 0; r < NR; r++) {
        const int64_t index = own[r] * w.groups + g + i;
        if (!AS_IT_IS) decode_group<C, D>(w, codes[r], index, spread[r], far, panel + r * stride + i * words * 64);
        if (!C::GROUPED) continue;
        const Floats scale = scales_at(w, index);
        store(factors + (i * 2 * NR + r) * BLOCK, scale);
        store(factors + (i * 2 * NR + NR + r) * BLOCK, mul(scale, zeros_at<C>(w, index)));
      }
    }
    const uint8_t* from = panel;
    if constexpr (AS_IT_IS) from = codes[0].p + g * w.group * 16;
    for (int64_t t = 0; t < job.count; t++) {
      const Inputs& in = job.tiles[t];
      const int64_t size = in.width * NR * BLOCK;
      float* to = job.results + (groups < w.groups ? t * size : 0);
      if (g == 0) memset(to, 0, (size_t)size * 4);
      if (g + groups == w.groups) ask_for_results(job.out, t * in.width, in.width);
      const uint32_t* x = in.words + g * words * in.width;
      if constexpr (C::GROUPED) any_tile<C>(in.width, from, stride, factors, groups, parts, words / parts, x, in.scales + g * parts * in.width, in.sums + g * parts * in.width, !w.table, to);
      else any_tile<C>(in.width, from, stride, factors, 1, 1, groups * words, x, nullptr, nullptr, false, to);
      if (g + groups == w.groups) finish(job.out, t * in.width, in.width, to);
    }
  }
}

}  // namespace PAREDOWN_ISA
}  // namespace paredown
