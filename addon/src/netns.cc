// SPDX-License-Identifier: Apache-2.0
/**
 * Which network namespace one is: its inode, by which it is found below /proc and which the kernel
 * gives again once it is gone, and its cookie (Linux 5.14), which no other has until the machine
 * boots again.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <system_error>
#include <thread>

#include "failure.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr char kOwn[] = "/proc/thread-self/ns/net";

/** errno of the first step that fails, or 0 */
struct Cookie {
  int error;
  uint64_t value;
};

/** of the calling thread's namespace */
Cookie cookieHere() {
  const UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  Cookie cookie{};
  socklen_t length = sizeof cookie.value;
  if (!fd.valid() ||
      getsockopt(fd.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie.value, &length) != 0) {
    cookie.error = errno;
  }
  return cookie;
}

/** On a thread that ends in there: the others stay where they are. */
Cookie cookieIn(int namespaceFd) {
  Cookie cookie{};
  try {
    std::thread([&] {
      cookie = setns(namespaceFd, CLONE_NEWNET) == 0 ? cookieHere() : Cookie{errno, 0};
    }).join();
  } catch (const std::system_error& failure) {
    cookie.error = failure.code().value();
  }
  return cookie;
}

}  // namespace

Napi::Value netnsIdentity(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const bool own = info[0].IsUndefined();
  const std::string path = own ? kOwn : toPath(info[0], "path");
  // a pipe or a device must not be waited for
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  struct stat status {};
  if (!fd.valid() || fstat(fd.get(), &status) != 0) failSystem(errno, path);
  if (ioctl(fd.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    failSystem(EINVAL, path, "it is no network namespace");
  }
  const Cookie cookie = own ? cookieHere() : cookieIn(fd.get());
  if (cookie.error != 0) failSystem(cookie.error, path);
  Napi::Object result = Napi::Object::New(env);
  result.Set("inode", Napi::BigInt::New(env, static_cast<uint64_t>(status.st_ino)));
  result.Set("cookie", Napi::BigInt::New(env, cookie.value));
  return result;
}

}  // namespace vnetd
