#define PAREDOWN_ISA avx2
#include "simd_avx2.h"

#include "rows.h"

namespace paredown {
const Engine* engine_avx2() { return PAREDOWN_ISA::engine(); }
}  // namespace paredown
