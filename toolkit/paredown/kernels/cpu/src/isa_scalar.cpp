#define PAREDOWN_ISA scalar
#include "simd_scalar.h"

#include "rows.h"

namespace paredown {
const Engine* engine_scalar() { return PAREDOWN_ISA::engine(); }
}  // namespace paredown
