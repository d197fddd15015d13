// SPDX-License-Identifier: Apache-2.0
/** What Node lacks about files, local sockets and the service manager. */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "failure.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr size_t kMaxStateBytes = 4096;

std::string fdSubject(int fd) { return "fd " + std::to_string(fd); }

/**
 * NOTIFY_SOCKET as this environment's process.env has it: libc's getenv is not safe while another
 * thread sets variables, and a worker has an environment of its own.
 */
std::optional<std::string> notifySocket(Napi::Env env) {
  const Napi::Value process = env.Global().Get("process");
  if (!process.IsObject()) return std::nullopt;
  const Napi::Value variables = process.As<Napi::Object>().Get("env");
  if (!variables.IsObject()) return std::nullopt;
  const Napi::Value value = variables.As<Napi::Object>().Get("NOTIFY_SOCKET");
  if (!value.IsString()) return std::nullopt;
  std::string path = value.As<Napi::String>().Utf8Value();
  if (path.empty()) return std::nullopt;
  return path;
}

/** A name that is no path: it is of the network namespace, and free again when nobody has it. */
socklen_t abstractAddress(const std::string& name, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (name.empty() || name.size() >= sizeof address.sun_path) failSystem(ENAMETOOLONG, name);
  memcpy(address.sun_path + 1, name.data(), name.size());
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
}

template <typename Call>
Napi::Value abstractSocket(const Napi::CallbackInfo& info, Call call) {
  const std::string name = toText(info[0], "name", sizeof(sockaddr_un::sun_path));
  sockaddr_un address;
  const socklen_t length = abstractAddress(name, address);
  UniqueFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) failSystem(errno, name);
  if (call(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    failSystem(errno, name);
  }
  return Napi::Number::New(info.Env(), fd.release());
}

}  // namespace

Napi::Value abstractListen(const Napi::CallbackInfo& info) {
  return abstractSocket(info, [](int fd, const sockaddr* address, socklen_t length) {
    return bind(fd, address, length) != 0 ? -1 : listen(fd, SOMAXCONN);
  });
}

Napi::Value abstractConnect(const Napi::CallbackInfo& info) {
  return abstractSocket(info, [](int fd, const sockaddr* address, socklen_t length) {
    return connect(fd, address, length);
  });
}

Napi::Value fileLock(const Napi::CallbackInfo& info) {
  const int fd = toFd(info[0], "fd");
  int error;
  do {
    error = flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
  } while (error == EINTR);
  if (error != 0 && error != EWOULDBLOCK) failSystem(error, fdSubject(fd));
  return Napi::Boolean::New(info.Env(), error == 0);
}

Napi::Value peerCredentials(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = toFd(info[0], "socketFd");
  int domain = 0;
  socklen_t length = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) {
    failSystem(errno, fdSubject(fd));
  }
  if (domain != AF_UNIX) failSystem(EAFNOSUPPORT, fdSubject(fd), "not a local socket");
  ucred credentials{};
  length = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
    failSystem(errno, fdSubject(fd));
  }
  // a socket without a peer answers with nobody's credentials, which must not pass for somebody's
  if (credentials.uid == static_cast<uid_t>(-1)) failSystem(ENOTCONN, fdSubject(fd));
  Napi::Object result = Napi::Object::New(env);
  result.Set("pid", Napi::Number::New(env, credentials.pid));
  result.Set("uid", Napi::Number::New(env, credentials.uid));
  result.Set("gid", Napi::Number::New(env, credentials.gid));
  return result;
}

Napi::Value sdNotify(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string state = toText(info[0], "state", kMaxStateBytes);
  const auto path = notifySocket(env);
  if (!path) return Napi::Boolean::New(env, false);
  const bool abstract = path->front() == '@';
  if (!abstract && path->front() != '/') failSystem(EAFNOSUPPORT, *path);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  // an abstract name has no NUL behind it and a path has one
  if (path->size() + (abstract ? 0 : 1) > sizeof address.sun_path) {
    failSystem(ENAMETOOLONG, *path);
  }
  memcpy(address.sun_path, path->data(), path->size());
  if (abstract) address.sun_path[0] = '\0';
  const auto length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path->size() + (abstract ? 0 : 1));
  const UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd.valid()) failSystem(errno, *path);
  if (sendto(fd.get(), state.data(), state.size(), MSG_NOSIGNAL,
             reinterpret_cast<const sockaddr*>(&address), length) < 0) {
    failSystem(errno, *path);
  }
  return Napi::Boolean::New(env, true);
}

Napi::Value memoryHide(const Napi::CallbackInfo& info) {
  // the hard limit too: it cannot be raised again, nor by what this process starts
  const rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) failSystem(errno, "RLIMIT_CORE");
  // a core_pattern that pipes to a program takes no notice of the limit, but of this
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) failSystem(errno, "PR_SET_DUMPABLE");
  return info.Env().Undefined();
}

Napi::Value filesystemType(const Napi::CallbackInfo& info) {
  const std::string path = toPath(info[0], "path");
  struct statfs status {};
  if (statfs(path.c_str(), &status) != 0) failSystem(errno, path);
  return Napi::Number::New(info.Env(), static_cast<uint32_t>(status.f_type));
}

Napi::Value mountBpf(const Napi::CallbackInfo& info) {
  const std::string path = toPath(info[0], "path");
  constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount("bpf", path.c_str(), "bpf", kFlags, "mode=700") != 0) failSystem(errno, path);
  return info.Env().Undefined();
}

Napi::Value closeFd(const Napi::CallbackInfo& info) {
  const int fd = toFd(info[0], "fd");
  // Linux releases the descriptor also when close is interrupted
  if (close(fd) != 0 && errno != EINTR) failSystem(errno, fdSubject(fd));
  return info.Env().Undefined();
}

}  // namespace vnetd
