// SPDX-License-Identifier: Apache-2.0
/** A descriptor watched on the environment's event loop; see loop_watcher.h. */
#include "loop_watcher.h"

#include <errno.h>

#include "failure.h"

namespace vnetd {
namespace {

void requireOk(napi_env env, napi_status status) {
  if (status != napi_ok) throw Napi::Error::New(env);
}

}  // namespace

Napi::Object LoopWatcher::start(const std::shared_ptr<LoopWatcher>& watcher,
                                Napi::Function callback, int fd, const char* resourceName) {
  const Napi::Env env = callback.Env();
  Napi::Object closable = Napi::Object::New(env);
  closable.Set("close",
               Napi::Function::New(
                   env, [watcher](const Napi::CallbackInfo&) { watcher->close(); }, "close"));
  watcher->begin(callback, fd, resourceName);
  return closable;
}

void LoopWatcher::begin(Napi::Function callback, int fd, const char* resourceName) {
  uv_loop_t* loop = nullptr;
  requireOk(env_, napi_get_uv_event_loop(env_, &loop));
  const int initialized = uv_poll_init(loop, &poll_, fd);
  if (initialized != 0) failSystem(initialized, "event loop");
  poll_.data = this;
  // from here on close() undoes everything, also when one of the following steps fails
  self_ = shared_from_this();
  try {
    requireOk(env_, napi_add_async_cleanup_hook(env_, onEnvironmentCleanup, this, &cleanupHook_));
    requireOk(env_, napi_create_reference(env_, callback, 1, &callback_));
    const Napi::String name = Napi::String::New(env_, resourceName);
    requireOk(env_, napi_async_init(env_, nullptr, name, &asyncContext_));
    const int started = uv_poll_start(&poll_, UV_READABLE, onPoll);
    if (started != 0) failSystem(started, "event loop");
  } catch (...) {
    close();
    throw;
  }
}

void LoopWatcher::close() {
  if (closed_) return;
  closed_ = true;
  if (!self_) return;  // never began
  uv_poll_stop(&poll_);
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_), onClosed);
  if (!running_) finish();
}

void LoopWatcher::finish() {
  release();
  if (callback_ != nullptr) napi_delete_reference(env_, callback_);
  if (asyncContext_ != nullptr) napi_async_destroy(env_, asyncContext_);
  callback_ = nullptr;
  asyncContext_ = nullptr;
}

void LoopWatcher::onClosed(uv_handle_t* handle) {
  auto* watcher = static_cast<LoopWatcher*>(handle->data);
  if (watcher->cleanupHook_ != nullptr) napi_remove_async_cleanup_hook(watcher->cleanupHook_);
  watcher->cleanupHook_ = nullptr;
  const std::shared_ptr<LoopWatcher> last = std::move(watcher->self_);
}

void LoopWatcher::onEnvironmentCleanup(napi_async_cleanup_hook_handle, void* data) {
  static_cast<LoopWatcher*>(data)->close();
}

void LoopWatcher::onPoll(uv_poll_t* handle, int status, int) {
  const std::shared_ptr<LoopWatcher> watcher =
      static_cast<LoopWatcher*>(handle->data)->shared_from_this();
  const Napi::Env env(watcher->env_);
  const Napi::HandleScope scope(env);
  watcher->running_ = true;
  watcher->onReadable();
  watcher->running_ = false;
  // libuv stops watching a descriptor with a pending error (a netlink socket that ran over); the
  // read has told and cleared it, and the descriptor is as good as before
  if (status < 0 && !watcher->closed_) uv_poll_start(handle, UV_READABLE, onPoll);
  if (watcher->closed_) watcher->finish();
}

LoopWatcher::Delivery LoopWatcher::deliver(napi_value argument) {
  napi_value callback;
  napi_value receiver;
  napi_value result;
  if (napi_get_reference_value(env_, callback_, &callback) != napi_ok ||
      napi_get_global(env_, &receiver) != napi_ok) {
    return Delivery::kImpossible;
  }
  if (napi_make_callback(env_, asyncContext_, receiver, callback, 1, &argument, &result) ==
      napi_ok) {
    return Delivery::kDone;
  }
  bool pending = false;
  napi_value exception;
  if (napi_is_exception_pending(env_, &pending) != napi_ok || !pending ||
      napi_get_and_clear_last_exception(env_, &exception) != napi_ok) {
    return Delivery::kImpossible;
  }
  // 'uncaughtException' if somebody listens, else the process (or worker) ends as usual
  if (napi_fatal_exception(env_, exception) != napi_ok) return Delivery::kImpossible;
  return Delivery::kThrew;
}

}  // namespace vnetd
