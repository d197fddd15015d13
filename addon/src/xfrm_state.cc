// SPDX-License-Identifier: Apache-2.0
/**
 * ESP security associations of the kernel, by NETLINK_XFRM.
 *
 * Keys are copied into one request and wiped with it, whatever comes; none is in an error, and what
 * the kernel tells of an SA is read without its keys and wiped as well.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include <vector>

#include "failure.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"
#include "xfrm.h"

namespace vnetd {
namespace {

constexpr size_t kMaxKeyBytes = 64;
constexpr size_t kAlgorithmNameBytes = sizeof(xfrm_algo::alg_name);
constexpr uint32_t kMaxReplayWindow = 4096;
constexpr uint32_t kLeastSpi = 256;

/** An algorithm by the kernel's name, with its key, which goes when this does. */
struct Algorithm {
  std::string name;
  Bytes key;
  /** of an authenticator or AEAD: how much of the ICV is sent */
  uint32_t icvBits = 0;

  Algorithm() = default;
  Algorithm(Algorithm&&) = default;
  Algorithm(const Algorithm&) = delete;
  ~Algorithm() {
    if (!key.empty()) explicit_bzero(key.data(), key.size());
  }
};

std::optional<Algorithm> readAlgorithm(const Napi::Object& options, const char* what,
                                       bool withIcv) {
  const auto value = optionalProperty(options, what);
  if (!value) return std::nullopt;
  const Napi::Object object = toObject(*value, what);
  Algorithm algorithm;
  algorithm.name = toText(object.Get("name"), what, kAlgorithmNameBytes - 1);
  const Napi::Value key = object.Get("key");
  algorithm.key = toBytes(key, what);
  // the caller's copy is of no use any more, whatever comes of this one
  auto array = key.As<Napi::Uint8Array>();
  if (!algorithm.key.empty()) explicit_bzero(array.Data(), array.ByteLength());
  if (algorithm.key.size() > kMaxKeyBytes) {
    failRange(std::string(what) + ": the key has more than " + std::to_string(kMaxKeyBytes) +
              " bytes");
  }
  if (withIcv) algorithm.icvBits = toUint32(object.Get("icvBits"), what, 1, 512);
  return algorithm;
}

/** All three structs begin alike: name, bits of the key; two have the bits of the ICV behind. */
void putAlgorithm(NetlinkRequest& request, uint16_t type, const Algorithm& algorithm,
                  bool withIcv) {
  uint8_t buffer[sizeof(xfrm_algo_auth) + kMaxKeyBytes] = {};
  const auto keyBits = static_cast<uint32_t>(algorithm.key.size() * 8);
  memcpy(buffer, algorithm.name.data(), algorithm.name.size());
  size_t at = kAlgorithmNameBytes;
  memcpy(buffer + at, &keyBits, sizeof keyBits);
  at += sizeof keyBits;
  if (withIcv) {
    memcpy(buffer + at, &algorithm.icvBits, sizeof algorithm.icvBits);
    at += sizeof algorithm.icvBits;
  }
  if (!algorithm.key.empty()) memcpy(buffer + at, algorithm.key.data(), algorithm.key.size());
  try {
    request.put(type, buffer, at + algorithm.key.size());
  } catch (...) {
    explicit_bzero(buffer, sizeof buffer);
    throw;
  }
  explicit_bzero(buffer, sizeof buffer);
}

/** Who an SA is: its destination, SPI, and mark. */
struct StateId {
  IpAddress destination;
  uint32_t spi;
  XfrmKey key;
};

StateId readStateId(const Napi::Object& options) {
  return StateId{toIpAddress(options.Get("destination"), "destination"),
                 toUint32(options.Get("spi"), "spi", kLeastSpi), readXfrmKey(options)};
}

std::string subjectOf(const StateId& id) {
  char spi[16];
  snprintf(spi, sizeof spi, "0x%08x", id.spi);
  return ipText(id.destination.family, id.destination.bytes.data()) + " spi " + spi;
}

uint64_t limitOf(const Napi::Object& limits, const char* name) {
  const auto value = optionalProperty(limits, name);
  return value ? static_cast<uint64_t>(toInteger(*value, name, 1, INT64_MAX)) : XFRM_INF;
}

uint64_t secondsOf(const Napi::Object& limits, const char* name) {
  const auto value = optionalProperty(limits, name);
  return value ? static_cast<uint64_t>(toInteger(*value, name, 1, INT32_MAX)) : 0;
}

void readLimits(const Napi::Object& options, xfrm_lifetime_cfg& lifetime) {
  unlimited(lifetime);
  const auto value = optionalProperty(options, "limits");
  if (!value) return;
  const Napi::Object limits = toObject(*value, "limits");
  lifetime.soft_byte_limit = limitOf(limits, "softBytes");
  lifetime.hard_byte_limit = limitOf(limits, "hardBytes");
  lifetime.soft_packet_limit = limitOf(limits, "softPackets");
  lifetime.hard_packet_limit = limitOf(limits, "hardPackets");
  lifetime.soft_add_expires_seconds = secondsOf(limits, "softSeconds");
  lifetime.hard_add_expires_seconds = secondsOf(limits, "hardSeconds");
}

void putReplay(NetlinkRequest& request, xfrm_usersa_info& info, const Napi::Object& options) {
  const bool esn = toBoolean(options.Get("esn"), "esn");
  const uint32_t window =
      toUint32(options.Get("replayWindow"), "replayWindow", esn ? 1 : 0, kMaxReplayWindow);
  if (esn) info.flags |= XFRM_STATE_ESN;
  if (window == 0) return;
  // the bitmap follows the struct; the window of xfrm_usersa_info itself ends at 32
  xfrm_replay_state_esn replay{};
  replay.bmp_len = (window + 31) / 32;
  replay.replay_window = window;
  Bytes bytes(sizeof replay + replay.bmp_len * sizeof(uint32_t));
  memcpy(bytes.data(), &replay, sizeof replay);
  request.put(XFRMA_REPLAY_ESN_VAL, bytes.data(), bytes.size());
}

/** What an algorithm is called in the kernel's configuration, and the modules that it is in. */
std::string optionOf(const std::string& name) {
  if (name.find("gcm(") != std::string::npos) {
    return "CONFIG_CRYPTO_GCM and CONFIG_CRYPTO_AES (modules gcm, aes_generic)";
  }
  if (name.find("cbc(") != std::string::npos) {
    return "CONFIG_CRYPTO_CBC and CONFIG_CRYPTO_AES (modules cbc, aes_generic)";
  }
  if (name.find("null") != std::string::npos) {
    return "CONFIG_CRYPTO_NULL (modules crypto_null, ecb)";
  }
  if (name.find("sha1") != std::string::npos) {
    return "CONFIG_CRYPTO_HMAC and CONFIG_CRYPTO_SHA1 (modules hmac, sha1_generic)";
  }
  return name;
}

/** What joins cipher and authenticator, and makes IVs; drbg's own default needs ecb. */
std::string joiningOptions(bool isAead) {
  const std::string random = "CONFIG_CRYPTO_DRBG_MENU";
  if (isAead) return "CONFIG_CRYPTO_SEQIV or " + random + " (modules seqiv, drbg, ecb, ctr)";
  return "CONFIG_CRYPTO_AUTHENC, CONFIG_CRYPTO_ECHAINIV or " + random +
         " (modules authenc, authencesn, echainiv, drbg, ecb)";
}

/** Adds to what the kernel said what it lacks. */
[[noreturn]] void failLacking(const SystemFailure& failure, int family,
                              const std::vector<std::string>& algorithms) {
  // no xfrm at all, which is said already
  if (failure.detail.find("the kernel lacks") != std::string::npos) throw failure;
  std::string lacks;
  if (failure.errnum == ENOSYS) {
    for (const std::string& name : algorithms) {
      lacks += (lacks.empty() ? "" : ", or ") + optionOf(name) + " for " + name;
    }
  } else if (failure.errnum == ENOENT) {
    lacks = joiningOptions(algorithms.size() == 1);
  } else if (failure.errnum == EPROTONOSUPPORT || failure.errnum == EPROTO) {
    lacks = family == AF_INET ? "CONFIG_INET_ESP (module esp4)" : "CONFIG_INET6_ESP (module esp6)";
  }
  if (lacks.empty()) throw failure;
  const std::string said = failure.detail.empty() ? "" : failure.detail + "; ";
  failSystem(failure.errnum, failure.subject, said + "the kernel lacks " + lacks);
}

void execute(NetlinkRequest& request, const StateId& id) {
  xfrmSession().execute(request, subjectOf(id));
}

Napi::Value putState(const Napi::CallbackInfo& info, uint16_t type) {
  const Napi::Object options = toObject(info[0], "state");
  const StateId id = readStateId(options);
  const IpAddress source = toIpAddress(options.Get("source"), "source");
  const auto encryption = readAlgorithm(options, "encryption", false);
  const auto authentication = readAlgorithm(options, "authentication", true);
  const auto aead = readAlgorithm(options, "aead", true);

  NetlinkRequest request(type, 0);
  auto* sa = request.header<xfrm_usersa_info>();
  const uint8_t prefix = id.destination.maxPrefixLength();
  sa->sel = xfrmSelector(source, prefix, id.destination, prefix);
  if (const auto value = optionalProperty(options, "inner")) {
    const Napi::Object inner = toObject(*value, "inner");
    const IpAddress from = toIpAddress(inner.Get("source"), "inner.source");
    const IpAddress to = toIpAddress(inner.Get("destination"), "inner.destination");
    sa->sel = xfrmSelector(from, from.maxPrefixLength(), to, to.maxPrefixLength());
  }
  sa->id.daddr = xfrmAddress(id.destination);
  sa->id.spi = htonl(id.spi);
  sa->id.proto = IPPROTO_ESP;
  sa->saddr = xfrmAddress(source);
  sa->reqid = toUint32(options.Get("reqid"), "reqid");
  sa->family = static_cast<uint16_t>(source.family);
  sa->mode = toXfrmMode(options.Get("mode"), "mode");
  readLimits(options, sa->lft);
  std::vector<std::string> algorithms;
  if (encryption) putAlgorithm(request, XFRMA_ALG_CRYPT, *encryption, false);
  if (authentication) putAlgorithm(request, XFRMA_ALG_AUTH_TRUNC, *authentication, true);
  if (aead) putAlgorithm(request, XFRMA_ALG_AEAD, *aead, true);
  for (const auto* each : {&aead, &authentication, &encryption}) {
    if (*each) algorithms.push_back((*each)->name);
  }
  putReplay(request, *sa, options);
  putXfrmKey(request, id.key);
  if (const auto value = optionalProperty(options, "outputMark")) {
    const xfrm_mark mark = toXfrmMark(*value, "outputMark");
    request.putU32(XFRMA_SET_MARK, mark.v);
    request.putU32(XFRMA_SET_MARK_MASK, mark.m);
  }
  try {
    execute(request, id);
  } catch (const SystemFailure& failure) {
    failLacking(failure, source.family, algorithms);
  }
  return info.Env().Undefined();
}

/** A request that names an SA. */
NetlinkRequest idRequest(uint16_t type, const StateId& id) {
  NetlinkRequest request(type, 0);
  auto* header = request.header<xfrm_usersa_id>();
  header->daddr = xfrmAddress(id.destination);
  header->spi = htonl(id.spi);
  header->family = static_cast<uint16_t>(id.destination.family);
  header->proto = IPPROTO_ESP;
  putXfrmKey(request, id.key);
  return request;
}

std::string algorithmName(const nlattr* attribute) {
  // the name alone: what follows is the key
  const size_t length = mnl_attr_get_payload_len(attribute);
  const auto* text = static_cast<const char*>(mnl_attr_get_payload(attribute));
  return std::string(text,
                     strnlen(text, length < kAlgorithmNameBytes ? length : kAlgorithmNameBytes));
}

void parseReplay(XfrmState& state, const nlattr* attribute) {
  if (mnl_attr_get_payload_len(attribute) < sizeof(xfrm_replay_state_esn)) return;
  xfrm_replay_state_esn replay;
  memcpy(&replay, mnl_attr_get_payload(attribute), sizeof replay);
  state.hasReplay = true;
  state.replayWindow = replay.replay_window;
  state.received = static_cast<uint64_t>(replay.seq_hi) << 32 | replay.seq;
  state.sent = static_cast<uint64_t>(replay.oseq_hi) << 32 | replay.oseq;
}

void parseOldReplay(XfrmState& state, const nlattr* attribute) {
  if (state.hasReplay || mnl_attr_get_payload_len(attribute) < sizeof(xfrm_replay_state)) return;
  xfrm_replay_state replay;
  memcpy(&replay, mnl_attr_get_payload(attribute), sizeof replay);
  state.received = replay.seq;
  state.sent = replay.oseq;
}

/** The SA of a message that is one; another protocol's than ESP counts as well. */
std::optional<XfrmState> parseState(const nlmsghdr* message) {
  if (message->nlmsg_type != XFRM_MSG_NEWSA) return std::nullopt;
  const auto* info = payloadOf<xfrm_usersa_info>(message);
  if (info == nullptr) return std::nullopt;
  return parseXfrmState(message, *info, sizeof(xfrm_usersa_info));
}

void setNumber(Napi::Object object, const char* name, uint64_t number) {
  object.Set(name, Napi::Number::New(object.Env(), static_cast<double>(number)));
}

}  // namespace

std::optional<XfrmState> parseXfrmState(const nlmsghdr* message, const xfrm_usersa_info& info,
                                        size_t headerBytes) {
  if (info.family != AF_INET && info.family != AF_INET6) return std::nullopt;
  XfrmState state;
  state.info = info;
  state.replayWindow = info.replay_window;
  uint32_t outputMark = 0;
  uint32_t outputMask = UINT32_MAX;
  forEachAttribute(message, headerBytes, [&](uint16_t type, const nlattr* attribute) {
    parseXfrmKey(state.key, type, attribute);
    if (type == XFRMA_ALG_CRYPT) state.encryption = algorithmName(attribute);
    if (type == XFRMA_ALG_AUTH || type == XFRMA_ALG_AUTH_TRUNC) {
      state.authentication = algorithmName(attribute);
    }
    if (type == XFRMA_ALG_AEAD) state.aead = algorithmName(attribute);
    if (type == XFRMA_REPLAY_ESN_VAL) parseReplay(state, attribute);
    if (type == XFRMA_REPLAY_VAL) parseOldReplay(state, attribute);
    if (type == XFRMA_SET_MARK) outputMark = attributeU32(attribute);
    if (type == XFRMA_SET_MARK_MASK) outputMask = attributeU32(attribute);
  });
  if (outputMark != 0) state.outputMark = xfrm_mark{outputMark, outputMask};
  return state;
}

Napi::Object xfrmStateObject(Napi::Env env, const XfrmState& state) {
  const xfrm_usersa_info& info = state.info;
  Napi::Object object = Napi::Object::New(env);
  object.Set("source", Napi::String::New(env, xfrmAddressText(info.family, info.saddr)));
  object.Set("destination", Napi::String::New(env, xfrmAddressText(info.family, info.id.daddr)));
  setNumber(object, "protocol", info.id.proto);
  setNumber(object, "spi", ntohl(info.id.spi));
  setNumber(object, "reqid", info.reqid);
  object.Set("mode", Napi::String::New(env, xfrmModeText(info.mode)));
  object.Set("encryption", Napi::String::New(env, state.encryption));
  object.Set("authentication", Napi::String::New(env, state.authentication));
  object.Set("aead", Napi::String::New(env, state.aead));
  object.Set("esn", Napi::Boolean::New(env, (info.flags & XFRM_STATE_ESN) != 0));
  setNumber(object, "replayWindow", state.replayWindow);
  setXfrmKey(object, state.key);
  if (state.outputMark) object.Set("outputMark", xfrmMarkObject(env, *state.outputMark));
  setNumber(object, "packets", info.curlft.packets);
  setNumber(object, "bytes", info.curlft.bytes);
  setNumber(object, "addedSeconds", info.curlft.add_time);
  setNumber(object, "usedSeconds", info.curlft.use_time);
  setNumber(object, "sentSequence", state.sent);
  setNumber(object, "receivedSequence", state.received);
  setNumber(object, "replayWindowErrors", info.stats.replay_window);
  setNumber(object, "replayErrors", info.stats.replay);
  setNumber(object, "integrityErrors", info.stats.integrity_failed);
  return object;
}

Napi::Value xfrmStateAdd(const Napi::CallbackInfo& info) { return putState(info, XFRM_MSG_NEWSA); }

Napi::Value xfrmStateUpdate(const Napi::CallbackInfo& info) {
  return putState(info, XFRM_MSG_UPDSA);
}

Napi::Value xfrmStateDelete(const Napi::CallbackInfo& info) {
  const StateId id = readStateId(toObject(info[0], "id"));
  NetlinkRequest request = idRequest(XFRM_MSG_DELSA, id);
  bool found = true;
  try {
    execute(request, id);
  } catch (const SystemFailure& failure) {
    if (failure.errnum != ESRCH) throw;
    found = false;
  }
  return Napi::Boolean::New(info.Env(), found);
}

Napi::Value xfrmStateGet(const Napi::CallbackInfo& info) {
  const StateId id = readStateId(toObject(info[0], "id"));
  NetlinkRequest request = idRequest(XFRM_MSG_GETSA, id);
  std::optional<XfrmState> state;
  try {
    xfrmSession().execute(request, subjectOf(id), [&](const nlmsghdr* message) {
      if (auto found = parseState(message)) state = std::move(found);
    });
  } catch (const SystemFailure& failure) {
    if (failure.errnum != ESRCH) throw;
  }
  return state ? xfrmStateObject(info.Env(), *state) : info.Env().Undefined();
}

Napi::Value xfrmStateList(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const IfIdFilter filter(info[0]);
  NetlinkRequest request(XFRM_MSG_GETSA, 0);
  std::vector<XfrmState> states;
  xfrmSession().dump(
      request, [&] { states.clear(); },
      [&](const nlmsghdr* message) {
        auto state = parseState(message);
        if (state && filter.takes(state->key)) states.push_back(std::move(*state));
      });
  Napi::Array array = Napi::Array::New(env, states.size());
  for (uint32_t i = 0; i < states.size(); i++) array.Set(i, xfrmStateObject(env, states[i]));
  return array;
}

}  // namespace vnetd
