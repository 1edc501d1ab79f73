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
        codes[r].template next<true>(q);
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

// Decoded weights of some blocks, and where the codes are that the next panel will be made of: memory brings them meanwhile.
struct Panel {
  const uint8_t* weights;
  int64_t stride;          // bytes from block to block
  const float* factors;    // of each group: scales, and zero points times them
  int64_t groups, length;  // words of a group, or of each of its halves
  bool zeros;
  const uint8_t* next[PANEL_BLOCKS];
  int64_t ahead;           // bytes of it that a tile asks for in each group
};

// Takes a tile's sums out of their registers: times their scales, onto `results`. The first half of a group waits in `half` for the
// other, with which it shares the weight's scale.
template <class C, int MR> struct Fold {
  static constexpr int NR = PANEL_BLOCKS;
  const float *factors, *scales, *sums;
  float *half, *results;
  bool zeros;

  INLINE void first(int m, int r, const typename C::Sum& sum) const {
    if constexpr (C::RANGES) store(half + (m * NR + r) * BLOCK, mul(to_floats(sum), set(scales[m])));
  }
  template <bool Halves> INLINE void last(int m, int r, const typename C::Sum& sum) const {
    float* to = results + (m * NR + r) * BLOCK;
    const Floats scale = C::GROUPED ? load(factors + 16 * r) : set(1);
    Floats f = load(to);
    if constexpr (C::RANGES) {
      const Floats whole = to_floats(sum), input = set(scales[m]);
      f = fma(Halves ? fma(whole, input, load(half + (m * NR + r) * BLOCK)) : mul(whole, input), scale, f);
    } else {
      f = C::scaled(sum, scale, 1, f);
    }
    if (C::RANGES || (C::GROUPED && zeros)) f = fnma(load(factors + 16 * (NR + r)), set(sums[m]), f);
    store(to, f);
  }
};

enum Part { NONE, WHOLE, FIRST_HALF, LAST_HALF };  // of a group

// The first word of a part. Sums of the part before are taken out one by one as their registers begin anew, so that stores and other
// arithmetic run beside dot products.
template <class C, int MR, Part Before, class Sums>
INLINE void begin(Sums& a, Fold<C, MR>& fold, const uint8_t* panel, int64_t stride, const uint32_t* x) {
  Bytes v[PANEL_BLOCKS];
UNROLL(4)
  for (int r = 0; r < PANEL_BLOCKS; r++) v[r] = load_bytes(panel + r * stride);
UNROLL(16)
  for (int m = 0; m < MR; m++) {
    // or GCC loads everything first, and puts sums on the stack for it
    asm volatile("" : "+r"(fold.factors), "+r"(fold.half), "+r"(fold.results), "+r"(x));
UNROLL(4)
    for (int r = 0; r < PANEL_BLOCKS; r++) {
      if constexpr (Before == FIRST_HALF) fold.first(m, r, a[m][r]);
      else if constexpr (Before != NONE) fold.template last<Before == LAST_HALF>(m, r, a[m][r]);
      a[m][r] = C::dot(C::none(), v[r], x[m]);
    }
  }
}

template <class C, int MR, int STEPS, class Sums> INLINE void go_on(Sums& a, const uint8_t* panel, int64_t stride, const uint32_t* x) {
  constexpr int NR = PANEL_BLOCKS;
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
}

// A panel times tile `index` of MR tokens, from words x and their factors on.
template <class C, int MR, bool Halves>
void tile(const Panel& panel, int64_t index, const uint32_t* x, const float* scales, const float* sums, float* results) {
  constexpr int STEPS = 4;  // a part has at least four words; GCC copies every sum where the loop is not unrolled
  const int64_t stride = panel.stride, words = panel.length;
  const uint8_t* from = panel.weights;
  float half[MR * PANEL_BLOCKS * BLOCK];
  typename C::Sum a[MR][PANEL_BLOCKS];
  Fold<C, MR> fold = {panel.factors, scales, sums, half, results, panel.zeros};
  const auto ask = [&](int64_t g) __attribute__((always_inline)) {
    for (int r = 0; r < PANEL_BLOCKS; r++)
      for (int64_t i = 0; i < panel.ahead; i += 64) prefetch_far(panel.next[r] + (index * panel.groups + g) * panel.ahead + i);
  };
  const auto rest = [&]() __attribute__((always_inline)) {
    go_on<C, MR, STEPS - 1>(a, from + 64, stride, x + MR);
    for (int64_t k = STEPS; k < words; k += STEPS) go_on<C, MR, STEPS>(a, from + 64 * k, stride, x + k * MR);
    from += 64 * words, x += words * MR;
  };
  const auto other_half = [&]() __attribute__((always_inline)) {
    begin<C, MR, FIRST_HALF>(a, fold, from, stride, x);
    fold.scales += MR, fold.sums += MR;
    rest();
  };
  begin<C, MR, NONE>(a, fold, from, stride, x);
  ask(0);
  rest();
  for (int64_t g = 1; g < panel.groups; g++) {
    if constexpr (Halves) other_half();
    begin<C, MR, Halves ? LAST_HALF : WHOLE>(a, fold, from, stride, x);
    fold.factors += 32 * PANEL_BLOCKS, fold.scales += MR, fold.sums += MR;
    ask(g);
    rest();
  }
  if constexpr (Halves) other_half();
UNROLL(4)
  for (int r = 0; r < PANEL_BLOCKS; r++)
UNROLL(16)
    for (int m = 0; m < MR; m++) fold.template last<Halves>(m, r, a[m][r]);
}

template <class C, bool Halves>
INLINE void any_tile(int64_t width, const Panel& panel, int64_t index, const uint32_t* x, const float* scales, const float* sums, float* results) {
#define TOKENS(MR) case MR: if constexpr (MR <= TILE) return tile<C, MR, Halves>(panel, index, x, scales, sums, results); break;
  switch (width) {
    TOKENS(2) TOKENS(4) TOKENS(6) TOKENS(8) TOKENS(10) TOKENS(12)
  }
#undef TOKENS
}

template <class C, class D>
void decode_group(const Weight& w, D& codes, int64_t index, typename C::template Spread<D::BITS>& spread, uint8_t* panel) {
  codes.begin_group(zero_codes(w, index));
  if (!C::GROUPED) spread.group(scales_at(w, index), zeros_at<C>(w, index));
  for (int64_t k = 0; k < w.group; k += CHUNK) {
    Bytes q[4];
    codes.template next<false>(q);
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
  constexpr int NR = PANEL_BLOCKS;
  const int64_t last = ceil_div(w.rows, BLOCK) - 1, words = w.group / 4 * C::WORDS, parts = C::RANGES ? parts_of(w, INT8) : 1;
  const int64_t width = job.tiles[0].width;  // of every tile but the last
  const int64_t panels = ceil_div(w.groups, PANEL_BYTES / (64 * NR * words)), at_once = ceil_div(w.groups, panels);  // groups
  constexpr bool AS_IT_IS = C::WORDS == 1 && !C::LESS && D::BITS == 8 && !D::SPARSE;  // codes that are what a panel holds
  float* factors = (float*)(job.panel + PANEL_BYTES);
  D codes[NR];
  typename C::template Spread<D::BITS> spread[NR];
  int64_t own[NR];
  for (int r = 0; r < NR; r++) {
    own[r] = block + r < last ? block + r : last;
    codes[r].open(w, own[r]);
    spread[r].open(w);
  }
  Panel panel = {job.panel, PANEL_BYTES / NR, factors, 1, 0, !w.table, {}, 0};
  if (AS_IT_IS) panel.stride = block < last ? w.groups * w.group * 16 : 0;
  for (int64_t g = 0; g < w.groups; g += at_once) {
    const int64_t groups = w.groups - g < at_once ? w.groups - g : at_once;
    const bool ends = g + groups == w.groups;
    if (AS_IT_IS) panel.weights = codes[0].p;
    for (int r = 0; r < NR; r++) {
      for (int64_t i = 0; i < groups; i++) {
        const int64_t index = own[r] * w.groups + g + i;
        if (!AS_IT_IS) decode_group<C, D>(w, codes[r], index, spread[r], job.panel + r * panel.stride + i * words * 64);
        if (!C::GROUPED) continue;
        const Floats scale = scales_at(w, index);
        store(factors + (i * 2 * NR + r) * BLOCK, scale);
        store(factors + (i * 2 * NR + NR + r) * BLOCK, mul(scale, zeros_at<C>(w, index)));
      }
      if (AS_IT_IS) codes[r].p += groups * w.group * 16;
      D other = codes[r];
      if (ends) other.open(w, own[r] + NR < last ? own[r] + NR : last);
      panel.next[r] = other.p;
    }
    panel.groups = C::GROUPED ? groups : 1, panel.length = C::GROUPED ? words / parts : groups * words;
    panel.ahead = ceil_div(groups * w.group * 2 * D::BITS, 64 * job.count * panel.groups) * 64;
    for (int64_t t = 0; t < job.count; t++) {
      const Inputs& in = job.tiles[t];
      float* to = job.results + (groups < w.groups ? t * width * NR * BLOCK : 0);
      if (g == 0) memset(to, 0, (size_t)(in.width * NR * BLOCK) * 4);
      if (ends) ask_for_results(job.out, t * width, in.width);
      const uint32_t* x = in.words + g * words * in.width;
      const float *scales = in.scales + g * parts * in.width, *sums = in.sums + g * parts * in.width;
      if (C::RANGES && parts == 2) any_tile<C, C::RANGES>(in.width, panel, t, x, scales, sums, to);
      else any_tile<C, false>(in.width, panel, t, x, scales, sums, to);
      if (ends) finish(job.out, t * width, in.width, to);
    }
  }
}

}  // namespace PAREDOWN_ISA
}  // namespace paredown
