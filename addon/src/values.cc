// SPDX-License-Identifier: Apache-2.0
/** JavaScript values to C++ and back, checked and copied; see values.h. */
#include "values.h"

#include <arpa/inet.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include <cmath>

#include "failure.h"

namespace vnetd {
namespace {

constexpr size_t kAliasMaxBytes = 255;  // IFALIASZ less the NUL
constexpr int64_t kMaxSafeInteger = 9007199254740991;

int hexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

size_t IpAddress::length() const { return family == AF_INET ? 4 : 16; }

int64_t toInteger(Napi::Value value, const char* what, int64_t min, int64_t max) {
  if (!value.IsNumber()) failType(std::string(what) + " must be a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!std::isfinite(number) || number != std::floor(number) ||
      std::fabs(number) > static_cast<double>(kMaxSafeInteger)) {
    failRange(std::string(what) + " must be an integer");
  }
  const auto integer = static_cast<int64_t>(number);
  if (integer < min || integer > max) {
    failRange(std::string(what) + " must be from " + std::to_string(min) + " to " +
              std::to_string(max) + ", not " + std::to_string(integer));
  }
  return integer;
}

uint32_t toUint32(Napi::Value value, const char* what, uint32_t min, uint32_t max) {
  return static_cast<uint32_t>(toInteger(value, what, min, max));
}

int toFd(Napi::Value value, const char* what) {
  return static_cast<int>(toInteger(value, what, 0, INT_MAX));
}

uint32_t toIfindex(Napi::Value value, const char* what) {
  return static_cast<uint32_t>(toInteger(value, what, 1, INT_MAX));
}

bool toBoolean(Napi::Value value, const char* what) {
  if (!value.IsBoolean()) failType(std::string(what) + " must be a boolean");
  return value.As<Napi::Boolean>().Value();
}

std::string toText(Napi::Value value, const char* what, size_t maxBytes) {
  if (!value.IsString()) failType(std::string(what) + " must be a string");
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.empty()) failRange(std::string(what) + " must not be empty");
  if (text.find('\0') != std::string::npos) {
    failRange(std::string(what) + " must not contain a NUL character");
  }
  if (text.size() > maxBytes) {
    failRange(std::string(what) + " must be at most " + std::to_string(maxBytes) + " bytes long");
  }
  return text;
}

std::string toPath(Napi::Value value, const char* what) {
  return toText(value, what, PATH_MAX - 1);
}

std::string toDeviceName(Napi::Value value, const char* what) {
  std::string name = toText(value, what, IFNAMSIZ - 1);
  bool good = name != "." && name != "..";
  for (const char c : name) {
    // '%' would make the kernel pick a number
    if (c == '/' || c == ':' || c == '%' || strchr(" \t\n\v\f\r", c) != nullptr) good = false;
  }
  if (!good) failRange(std::string(what) + " is not a device name: \"" + name + "\"");
  return name;
}

std::string toAlias(Napi::Value value, const char* what) {
  // an empty alias removes the one that is there
  if (value.IsString() && value.As<Napi::String>().Utf8Value().empty()) return {};
  return toText(value, what, kAliasMaxBytes);
}

MacAddress toMac(Napi::Value value, const char* what) {
  const std::string text = toText(value, what, 64);
  MacAddress mac{};
  bool good = text.size() == 17;
  for (size_t i = 0; good && i < mac.size(); i++) {
    const int high = hexDigit(text[i * 3]);
    const int low = hexDigit(text[i * 3 + 1]);
    good = high >= 0 && low >= 0 && (i == 5 || text[i * 3 + 2] == ':');
    mac[i] = static_cast<uint8_t>((high << 4 | low) & 0xff);
  }
  if (!good) failRange(std::string(what) + " is not a MAC address: \"" + text + "\"");
  return mac;
}

IpAddress toIpAddress(Napi::Value value, const char* what) {
  const std::string text = toText(value, what, 64);
  IpAddress address{};
  for (const int family : {AF_INET, AF_INET6}) {
    address.family = family;
    if (inet_pton(family, text.c_str(), address.bytes.data()) == 1) return address;
  }
  failRange(std::string(what) + " is not an IPv4 or IPv6 address: \"" + text + "\"");
}

bool toIngress(Napi::Value value, const char* what) {
  const std::string direction = toText(value, what, 16);
  if (direction == "ingress") return true;
  if (direction == "egress") return false;
  failRange(std::string(what) + " must be \"ingress\" or \"egress\"");
}

Bytes toBytes(Napi::Value value, const char* what) {
  bool good = value.IsTypedArray();
  if (good) good = value.As<Napi::TypedArray>().TypedArrayType() == napi_uint8_array;
  if (!good) failType(std::string(what) + " must be a Uint8Array");
  const auto array = value.As<Napi::Uint8Array>();
  const size_t length = array.ByteLength();
  if (length == 0) return {};
  return Bytes(array.Data(), array.Data() + length);
}

Napi::Array toArray(Napi::Value value, const char* what) {
  if (!value.IsArray()) failType(std::string(what) + " must be an array");
  return value.As<Napi::Array>();
}

Napi::Object toObject(Napi::Value value, const char* what) {
  if (!value.IsObject() || value.IsFunction() || value.IsArray()) {
    failType(std::string(what) + " must be an object");
  }
  return value.As<Napi::Object>();
}

Napi::Function toFunction(Napi::Value value, const char* what) {
  if (!value.IsFunction()) failType(std::string(what) + " must be a function");
  return value.As<Napi::Function>();
}

std::vector<std::pair<std::string, Napi::Value>> toEntries(Napi::Value value, const char* what) {
  const Napi::Object object = toObject(value, what);
  napi_value names;
  const napi_status status = napi_get_all_property_names(
      object.Env(), object, napi_key_own_only,
      static_cast<napi_key_filter>(napi_key_enumerable | napi_key_skip_symbols),
      napi_key_numbers_to_strings, &names);
  if (status != napi_ok) throw Napi::Error::New(object.Env());
  const Napi::Array list(object.Env(), names);
  std::vector<std::pair<std::string, Napi::Value>> entries;
  for (uint32_t i = 0; i < list.Length(); i++) {
    const Napi::Value name = list.Get(i);
    entries.emplace_back(name.As<Napi::String>().Utf8Value(), object.Get(name));
  }
  return entries;
}

std::optional<Napi::Value> optionalProperty(const Napi::Object& object, const char* name) {
  const Napi::Value value = object.Get(name);
  if (value.IsUndefined()) return std::nullopt;
  return value;
}

std::string macText(const uint8_t* bytes) {
  char text[18];
  snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2],
           bytes[3], bytes[4], bytes[5]);
  return text;
}

std::string ipText(int family, const void* bytes) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(family, bytes, text, sizeof text);
  return text;
}

Napi::Value bufferOf(Napi::Env env, const uint8_t* bytes, size_t length) {
  return Napi::Buffer<uint8_t>::Copy(env, bytes, length);
}

}  // namespace vnetd
