// SPDX-License-Identifier: Apache-2.0
/**
 * A descriptor watched on the environment's event loop that calls a JavaScript function.
 *
 * Base of ring buffers and the netlink monitor. It keeps the loop alive until close(). It closes
 * itself when its environment goes (a worker ends, the process exits), may be closed from within
 * its own callback, and turns what the callback throws into an uncaughtException. Everything
 * happens on the environment's thread.
 */
#pragma once

#include <napi.h>
#include <uv.h>

#include <memory>

namespace vnetd {

class LoopWatcher : public std::enable_shared_from_this<LoopWatcher> {
 public:
  virtual ~LoopWatcher() = default;
  LoopWatcher(const LoopWatcher&) = delete;
  LoopWatcher& operator=(const LoopWatcher&) = delete;

  /** Watches fd from now on; gives the contract's Closable. Throws SystemFailure. */
  static Napi::Object start(const std::shared_ptr<LoopWatcher>& watcher, Napi::Function callback,
                            int fd, const char* resourceName);

 protected:
  explicit LoopWatcher(napi_env env) : env_(env) {}

  enum class Delivery {
    kDone,
    /** the callback threw, and the process goes on */
    kThrew,
    /** JavaScript cannot run any more */
    kImpossible,
  };

  /** Called in a handle scope when fd is readable; must do a bounded amount of work. */
  virtual void onReadable() = 0;
  /** Frees the kernel's side; called once, never within onReadable. */
  virtual void release() = 0;

  Delivery deliver(napi_value argument);
  bool closed() const { return closed_; }
  napi_env env() const { return env_; }

 private:
  void begin(Napi::Function callback, int fd, const char* resourceName);
  void close();
  void finish();
  static void onPoll(uv_poll_t* handle, int status, int events);
  static void onClosed(uv_handle_t* handle);
  static void onEnvironmentCleanup(napi_async_cleanup_hook_handle handle, void* data);

  napi_env env_;
  napi_ref callback_ = nullptr;
  napi_async_context asyncContext_ = nullptr;
  napi_async_cleanup_hook_handle cleanupHook_ = nullptr;
  uv_poll_t poll_{};
  /** keeps us until the loop has let go of poll_ */
  std::shared_ptr<LoopWatcher> self_;
  bool closed_ = false;
  bool running_ = false;
};

}  // namespace vnetd
