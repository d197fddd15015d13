// SPDX-License-Identifier: Apache-2.0
/**
 * The two ways in which an operation of the addon fails, as C++ exceptions, and the fd that is
 * closed whatever happens.
 *
 * The code that talks to the kernel throws these and knows nothing of JavaScript; addon.cc turns
 * them into the NativeError, TypeError and RangeError of src/native/contract.ts. The operation's
 * name is added there.
 */
#pragma once

#include <string>
#include <utility>

namespace vnetd {

/** The kernel (or libbpf) refused. */
struct SystemFailure {
  /** positive errno */
  int errnum;
  /** what it was about: a path, a device, a map's name; may be empty */
  std::string subject;
  /** netlink's extended ack, or the end of libbpf's and the verifier's log; may be empty */
  std::string detail;
};

/** The caller gave something that cannot be passed on. */
struct ArgumentFailure {
  enum class Kind { kType, kRange };
  Kind kind;
  std::string message;
};

[[noreturn]] inline void failSystem(int errnum, std::string subject = {}, std::string detail = {}) {
  throw SystemFailure{errnum < 0 ? -errnum : errnum, std::move(subject), std::move(detail)};
}

[[noreturn]] inline void failType(std::string message) {
  throw ArgumentFailure{ArgumentFailure::Kind::kType, std::move(message)};
}

[[noreturn]] inline void failRange(std::string message) {
  throw ArgumentFailure{ArgumentFailure::Kind::kRange, std::move(message)};
}

/** "EEXIST"; "E524" style for a number that has no name */
std::string errnoName(int errnum);
/** "File exists" */
std::string errnoText(int errnum);

/** Owns a file descriptor. */
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = other.release();
    }
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  void reset();

  /** A close-on-exec duplicate of fd, which stays the caller's. */
  static UniqueFd duplicate(int fd);

 private:
  int fd_ = -1;
};

}  // namespace vnetd
