// SPDX-License-Identifier: Apache-2.0
/**
 * Single entries of BPF maps.
 *
 * The sizes that the kernel will read and write are asked of the kernel for every call: a key or
 * value of another size throws before the call is made.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "bpf_fd.h"
#include "failure.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

std::string mapSubject(const bpf_map_info& info) { return std::string("map ") + info.name; }

Bytes toSizedBytes(Napi::Value value, const char* what, uint32_t size) {
  Bytes bytes = toBytes(value, what);
  if (bytes.size() != size) {
    failRange(std::string(what) + " must be " + std::to_string(size) + " bytes long, not " +
              std::to_string(bytes.size()));
  }
  return bytes;
}

/** queues and stacks have no key: the kernel wants a null pointer there */
const void* keyPointer(const Bytes& key) { return key.empty() ? nullptr : key.data(); }

}  // namespace

Napi::Value mapInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const bpf_map_info map = mapInfoOf(toFd(info[0], "mapFd"));
  Napi::Object result = Napi::Object::New(env);
  result.Set("type", Napi::Number::New(env, map.type));
  result.Set("keySize", Napi::Number::New(env, map.key_size));
  result.Set("valueSize", Napi::Number::New(env, map.value_size));
  result.Set("maxEntries", Napi::Number::New(env, map.max_entries));
  result.Set("id", Napi::Number::New(env, map.id));
  result.Set("name", Napi::String::New(env, map.name));
  return result;
}

Napi::Value mapLookup(const Napi::CallbackInfo& info) {
  const int fd = toFd(info[0], "mapFd");
  const bpf_map_info map = mapInfoOf(fd);
  const Bytes key = toSizedBytes(info[1], "key", map.key_size);
  Bytes value(valueBytes(map));
  const int error = bpf_map_lookup_elem(fd, keyPointer(key), value.data());
  if (error == -ENOENT) return info.Env().Undefined();
  if (error != 0) failSystem(error, mapSubject(map));
  Bytes sum(map.value_size);
  sumPerCpu(map, value.data(), sum.data());
  return bufferOf(info.Env(), sum.data(), sum.size());
}

Napi::Value mapUpdate(const Napi::CallbackInfo& info) {
  const int fd = toFd(info[0], "mapFd");
  const bpf_map_info map = mapInfoOf(fd);
  const Bytes key = toSizedBytes(info[1], "key", map.key_size);
  const Bytes given = toSizedBytes(info[2], "value", map.value_size);
  const uint32_t flags = info[3].IsUndefined() ? 0 : toUint32(info[3], "flags", 0, BPF_EXIST);
  Bytes value(valueBytes(map));
  memcpy(value.data(), given.data(), given.size());
  const int error = bpf_map_update_elem(fd, keyPointer(key), value.data(), flags);
  if (error != 0) failSystem(error, mapSubject(map));
  return info.Env().Undefined();
}

Napi::Value mapDelete(const Napi::CallbackInfo& info) {
  const int fd = toFd(info[0], "mapFd");
  const bpf_map_info map = mapInfoOf(fd);
  const Bytes key = toSizedBytes(info[1], "key", map.key_size);
  const int error = bpf_map_delete_elem(fd, keyPointer(key));
  if (error != 0 && error != -ENOENT) failSystem(error, mapSubject(map));
  return Napi::Boolean::New(info.Env(), error == 0);
}

}  // namespace vnetd
