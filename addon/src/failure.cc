// SPDX-License-Identifier: Apache-2.0
/** Names and texts of errno values, and the owner of file descriptors; see failure.h. */
#include "failure.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

namespace vnetd {
namespace {

// The kernel's internal number, which BPF and drivers let out to user space; libc does not know it.
constexpr int kKernelNotSupported = 524;

}  // namespace

std::string errnoName(int errnum) {
  if (errnum == kKernelNotSupported) return "ENOTSUPP";
  const char* name = strerrorname_np(errnum);
  return name != nullptr ? name : "E" + std::to_string(errnum);
}

std::string errnoText(int errnum) {
  if (errnum == kKernelNotSupported) return "Operation is not supported by the kernel";
  const char* text = strerrordesc_np(errnum);
  return text != nullptr ? text : "Unknown error";
}

void UniqueFd::reset() {
  if (fd_ < 0) return;
  const int saved = errno;
  ::close(fd_);
  errno = saved;
  fd_ = -1;
}

UniqueFd UniqueFd::duplicate(int fd) {
  const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) failSystem(errno, "fd " + std::to_string(fd));
  return UniqueFd(copy);
}

}  // namespace vnetd
