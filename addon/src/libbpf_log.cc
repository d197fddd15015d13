// SPDX-License-Identifier: Apache-2.0
/** libbpf's warnings into errors' details; see libbpf_log.h. */
#include "libbpf_log.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include <vector>

#include "failure.h"

namespace vnetd {
namespace {

constexpr size_t kTailBytes = 4096;

thread_local LibbpfLog* current = nullptr;

}  // namespace

struct LibbpfLogSink {
  static int print(enum libbpf_print_level level, const char* format, va_list arguments) {
    if (level != LIBBPF_WARN || current == nullptr) return 0;
    va_list again;
    va_copy(again, arguments);
    const int length = vsnprintf(nullptr, 0, format, arguments);
    if (length > 0) {
      std::vector<char> line(static_cast<size_t>(length) + 1);
      vsnprintf(line.data(), line.size(), format, again);
      append(current->text_, line.data(), static_cast<size_t>(length));
    }
    va_end(again);
    return length;
  }

  static void append(std::string& text, const char* data, size_t length) {
    text.append(data, length);
    // twice the tail is kept, so that this moves memory only now and then
    if (text.size() > 2 * kTailBytes) text.erase(0, text.size() - kTailBytes);
  }
};

void installLibbpfLog() { libbpf_set_print(LibbpfLogSink::print); }

LibbpfLog::LibbpfLog() : outer_(current) { current = this; }

LibbpfLog::~LibbpfLog() { current = outer_; }

std::string LibbpfLog::tail() const {
  std::string end = text_;
  if (end.size() > kTailBytes) {
    end.erase(0, end.size() - kTailBytes);
    const size_t newline = end.find('\n');
    if (newline != std::string::npos) end.erase(0, newline + 1);
  }
  while (!end.empty() && end.back() == '\n') end.pop_back();
  return end;
}

void LibbpfLog::fail(int error, const std::string& subject) const {
  int errnum = error < 0 ? -error : error;
  std::string detail = tail();
  if (errnum >= __LIBBPF_ERRNO__START && errnum < __LIBBPF_ERRNO__END) {
    char text[128] = "";
    libbpf_strerror(errnum, text, sizeof text);
    detail = detail.empty() ? text : detail + "\n" + text;
    const bool notAnObject = errnum == LIBBPF_ERRNO__LIBELF || errnum == LIBBPF_ERRNO__FORMAT ||
                             errnum == LIBBPF_ERRNO__ENDIAN;
    errnum = notAnObject ? ENOEXEC : EINVAL;
  }
  failSystem(errnum, subject, detail);
}

}  // namespace vnetd
