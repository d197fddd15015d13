// SPDX-License-Identifier: Apache-2.0
/**
 * Hands the records of a BPF ring buffer to JavaScript.
 *
 * libbpf 1.1 can only consume everything that is there, so the callback stops it after a share: a
 * record that was called back is consumed, what is left keeps the descriptor readable, and the
 * event loop comes back after it has served the others.
 */
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>

#include "bpf_fd.h"
#include "failure.h"
#include "libbpf_log.h"
#include "loop_watcher.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr int kRecordsPerTurn = 256;

class RingWatcher : public LoopWatcher {
 public:
  RingWatcher(napi_env env, int mapFd) : LoopWatcher(env), mapFd_(UniqueFd::duplicate(mapFd)) {
    const LibbpfLog log;
    ring_ = ring_buffer__new(mapFd_.get(), onRecord, this, nullptr);
    if (ring_ == nullptr) log.fail(errno, "ring buffer");
  }
  ~RingWatcher() override { release(); }

  int pollFd() const { return ring_buffer__epoll_fd(ring_); }

 protected:
  void onReadable() override {
    records_ = 0;
    ring_buffer__consume(ring_);
  }

  void release() override {
    ring_buffer__free(ring_);  // takes null
    ring_ = nullptr;
    mapFd_.reset();
  }

 private:
  /** Called by libbpf, which is C: nothing may be thrown through it. */
  static int onRecord(void* context, void* data, size_t size) {
    auto* watcher = static_cast<RingWatcher*>(context);
    napi_handle_scope scope;
    if (napi_open_handle_scope(watcher->env(), &scope) != napi_ok) return -ECANCELED;
    const bool goOn = watcher->deliverRecord(data, size);
    napi_close_handle_scope(watcher->env(), scope);
    return goOn ? 0 : -ECANCELED;
  }

  bool deliverRecord(const void* data, size_t size) {
    napi_value buffer;
    if (napi_create_buffer_copy(env(), size, data, nullptr, &buffer) != napi_ok) return false;
    if (deliver(buffer) != Delivery::kDone || closed()) return false;
    return ++records_ < kRecordsPerTurn;
  }

  UniqueFd mapFd_;
  ring_buffer* ring_ = nullptr;
  int records_ = 0;
};

}  // namespace

Napi::Value ringConsume(const Napi::CallbackInfo& info) {
  const int fd = toFd(info[0], "mapFd");
  const Napi::Function onRecord = toFunction(info[1], "onRecord");
  const bpf_map_info map = mapInfoOf(fd);
  if (map.type != BPF_MAP_TYPE_RINGBUF) {
    failSystem(EINVAL, std::string("map ") + map.name, "the map is not a ring buffer");
  }
  const auto watcher = std::make_shared<RingWatcher>(info.Env(), fd);
  return LoopWatcher::start(watcher, onRecord, watcher->pollFd(), "VnetdRingBuffer");
}

}  // namespace vnetd
