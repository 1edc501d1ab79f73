#define PAREDOWN_ISA neon_dotprod
#include "simd_neon.h"

#include "rows.h"

namespace paredown {
const Engine* engine_neon_dotprod() { return PAREDOWN_ISA::engine(); }
}  // namespace paredown
