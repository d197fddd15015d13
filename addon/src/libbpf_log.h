// SPDX-License-Identifier: Apache-2.0
/**
 * Takes what libbpf prints (its own warnings, the verifier's log, netlink's extended acks) so that
 * it ends in an error's `detail` and never on stderr.
 *
 * libbpf has one print callback for the whole process. Ours is set once, when the addon is first
 * loaded; it appends to the capture of the calling thread, if there is one, so worker threads do
 * not disturb each other. The library is linked "nodelete" because libbpf keeps the pointer.
 */
#pragma once

#include <string>

namespace vnetd {

/** Silences libbpf; called when the addon is loaded, any number of times. */
void installLibbpfLog();

/** While it lives, keeps the end of what libbpf warns about on this thread. */
class LibbpfLog {
 public:
  LibbpfLog();
  ~LibbpfLog();
  LibbpfLog(const LibbpfLog&) = delete;
  LibbpfLog& operator=(const LibbpfLog&) = delete;

  /** the last 4 KiB, starting at the beginning of a line */
  std::string tail() const;
  /** throws SystemFailure with the tail as detail; takes libbpf's own error numbers too */
  [[noreturn]] void fail(int error, const std::string& subject) const;

 private:
  friend struct LibbpfLogSink;
  std::string text_;
  LibbpfLog* outer_;
};

}  // namespace vnetd
