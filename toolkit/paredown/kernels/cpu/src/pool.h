// A small pool of threads, made on first use and never larger than the most that was asked for.
#pragma once
#include <cstdint>

namespace paredown {

// Calls task(context, i) for i in [0, count), on up to `threads` threads with the caller's among them. Runs in the caller alone where
// another call is using the pool, or no thread can be made.
void parallel(int64_t count, int threads, void (*task)(void*, int64_t), void* context);

template <class F> void parallel_for(int64_t count, int threads, F&& f) {
  parallel(count, threads, [](void* context, int64_t i) { (*(F*)context)(i); }, &f);
}

}  // namespace paredown
