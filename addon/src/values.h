// SPDX-License-Identifier: Apache-2.0
/**
 * JavaScript values to C++ and back.
 *
 * Everything that comes in is checked here and copied, so that nothing in the addon ever holds a
 * pointer into memory that a script can detach, shrink or rewrite. A wrong type throws a
 * TypeError, a value out of bounds a RangeError; both name the argument.
 */
#pragma once

#include <napi.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace vnetd {

using Bytes = std::vector<uint8_t>;
using MacAddress = std::array<uint8_t, 6>;

/** An IPv4 or IPv6 address in network order. */
struct IpAddress {
  int family;  // AF_INET or AF_INET6
  std::array<uint8_t, 16> bytes;
  size_t length() const;
  uint8_t maxPrefixLength() const { return static_cast<uint8_t>(length() * 8); }
};

int64_t toInteger(Napi::Value value, const char* what, int64_t min, int64_t max);
uint32_t toUint32(Napi::Value value, const char* what, uint32_t min = 0, uint32_t max = UINT32_MAX);
int toFd(Napi::Value value, const char* what);
uint32_t toIfindex(Napi::Value value, const char* what);
bool toBoolean(Napi::Value value, const char* what);
/** no NUL inside, at most maxBytes bytes of UTF-8, not empty */
std::string toText(Napi::Value value, const char* what, size_t maxBytes);
std::string toPath(Napi::Value value, const char* what);
/** a device name by the kernel's rules */
std::string toDeviceName(Napi::Value value, const char* what);
std::string toAlias(Napi::Value value, const char* what);
MacAddress toMac(Napi::Value value, const char* what);
IpAddress toIpAddress(Napi::Value value, const char* what);
/** true for "ingress", false for "egress" */
bool toIngress(Napi::Value value, const char* what);
Bytes toBytes(Napi::Value value, const char* what);
Napi::Array toArray(Napi::Value value, const char* what);
Napi::Object toObject(Napi::Value value, const char* what);
Napi::Function toFunction(Napi::Value value, const char* what);
/** own enumerable string keys with their values, in order */
std::vector<std::pair<std::string, Napi::Value>> toEntries(Napi::Value value, const char* what);

/** A property that may be left out: undefined counts as absent. */
std::optional<Napi::Value> optionalProperty(const Napi::Object& object, const char* name);

std::string macText(const uint8_t* bytes);
std::string ipText(int family, const void* bytes);

Napi::Value bufferOf(Napi::Env env, const uint8_t* bytes, size_t length);

}  // namespace vnetd
