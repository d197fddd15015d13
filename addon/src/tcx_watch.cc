// SPDX-License-Identifier: Apache-2.0
/**
 * Watches that programs stay at devices' TCX hooks: asks the kernel, which does not tell, again and
 * again, and calls JavaScript only when one is missing. A question takes less than a microsecond;
 * what JavaScript does when it is woken up takes a hundred times as long.
 */
#include <errno.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "failure.h"
#include "loop_watcher.h"
#include "operations.h"
#include "tcx.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr uint32_t kMaxPeriodMs = 60'000;

UniqueFd timerOf(uint32_t periodMs) {
  UniqueFd timer(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  timespec period;
  period.tv_sec = periodMs / 1000;
  period.tv_nsec = static_cast<long>(periodMs % 1000) * 1'000'000;
  const itimerspec times = {period, period};
  if (!timer.valid() || timerfd_settime(timer.get(), 0, &times, nullptr) != 0) {
    failSystem(errno, "timer");
  }
  return timer;
}

class TcxWatch : public LoopWatcher {
 public:
  TcxWatch(napi_env env, std::vector<TcxProgram> programs, uint32_t periodMs)
      : LoopWatcher(env), programs_(std::move(programs)), timer_(timerOf(periodMs)) {}

  int pollFd() const { return timer_.get(); }

 protected:
  void onReadable() override {
    uint64_t expirations;
    if (read(timer_.get(), &expirations, sizeof expirations) != sizeof expirations) return;
    napi_value nothing;
    if (!areThere() && napi_get_undefined(env(), &nothing) == napi_ok) deliver(nothing);
  }

  void release() override { timer_.reset(); }

 private:
  /** Where the kernel does not answer the caller is to find out why. */
  bool areThere() const {
    return std::all_of(programs_.begin(), programs_.end(), [](const TcxProgram& wanted) {
      bool has = false;
      return tcxHas(wanted, has) == 0 && has;
    });
  }

  const std::vector<TcxProgram> programs_;
  UniqueFd timer_;
};

}  // namespace

Napi::Value tcxWatch(const Napi::CallbackInfo& info) {
  std::vector<TcxProgram> programs = toTcxPrograms(info[0], info[1]);
  const uint32_t periodMs = toUint32(info[2], "periodMs", 1, kMaxPeriodMs);
  const Napi::Function onLacking = toFunction(info[3], "onLacking");
  const auto watch = std::make_shared<TcxWatch>(info.Env(), std::move(programs), periodMs);
  return LoopWatcher::start(watch, onLacking, watch->pollFd(), "VnetdTcxWatch");
}

}  // namespace vnetd
