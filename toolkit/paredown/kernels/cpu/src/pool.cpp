#include "pool.h"

#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace paredown {
namespace {

constexpr int SPINS = 2000;  // some microseconds: the next call often comes at once

struct Pool {
  const pid_t owner = getpid();  // threads do not survive a fork
  std::mutex turn, asleep;
  std::condition_variable wake;
  int made = 0;

  std::atomic<uint64_t> generation{0};  // how many helpers it wants in the low 16 bits: both are read at once
  std::atomic<int64_t> next{0}, count{0};
  std::atomic<int> working{0};
  void (*task)(void*, int64_t) = nullptr;
  void* context = nullptr;

  void work() {
    for (int64_t i; (i = next.fetch_add(1)) < count.load();) task(context, i);
  }

  void serve(int place) {
    for (uint64_t seen = 0;;) {
      for (int spin = 0; spin < SPINS && generation.load() == seen; spin++) std::this_thread::yield();
      if (generation.load() == seen) {
        std::unique_lock<std::mutex> lock(asleep);
        wake.wait(lock, [&] { return generation.load() != seen; });
      }
      seen = generation.load();
      if (place < (int)(seen & 0xffff)) {
        work();
        working.fetch_sub(1);
      }
    }
  }

  void grow(int helpers) {
    try {
      while (made < helpers) {
        std::thread(&Pool::serve, this, made).detach();
        made++;
      }
    } catch (const std::system_error&) {  // as many as there are
    }
  }

  void run(int64_t tasks, int helpers, void (*f)(void*, int64_t), void* with) {
    grow(helpers);
    task = f, context = with;
    count = tasks, next = 0;
    const int used = made < helpers ? made : helpers;
    working = used;
    {
      std::lock_guard<std::mutex> lock(asleep);
      generation.store(((generation.load() >> 16) + 1) << 16 | (uint64_t)used);
    }
    wake.notify_all();
    work();
    while (working.load() > 0) std::this_thread::yield();
  }
};

std::atomic<Pool*> current{nullptr};

Pool& pool() {
  Pool* found = current.load();
  if (found && found->owner == getpid()) return *found;
  Pool* made = new Pool;  // never deleted: its threads wait in it until the process ends
  if (current.compare_exchange_strong(found, made)) return *made;
  delete made;
  return *current.load();
}

}  // namespace

void parallel(int64_t count, int threads, void (*task)(void*, int64_t), void* context) {
  const int helpers = (int)(threads < count ? threads : count) - 1;
  if (helpers > 0) {
    Pool& shared = pool();
    std::unique_lock<std::mutex> turn(shared.turn, std::try_to_lock);
    if (turn.owns_lock()) return shared.run(count, helpers, task, context);
  }
  for (int64_t i = 0; i < count; i++) task(context, i);
}

}  // namespace paredown
