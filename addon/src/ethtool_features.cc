// SPDX-License-Identifier: Apache-2.0
/**
 * A device's offload features by ethtool's names.
 *
 * The kernel may accept a request and leave a feature as it was (it is fixed, or depends on another
 * one); so the result is read back and the first feature that did not change is named.
 */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <map>
#include <vector>

#include "failure.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr uint32_t kMaxFeatures = 4096;
constexpr uint32_t kBlockBits = 32;

/** A command structure with a tail of a length known only at run time. */
template <typename Header>
class CommandBuffer {
 public:
  explicit CommandBuffer(size_t tailBytes) : words_((sizeof(Header) + tailBytes + 7) / 8) {}
  Header* get() { return reinterpret_cast<Header*>(words_.data()); }

 private:
  std::vector<uint64_t> words_;
};

struct Feature {
  bool available = false;
  bool active = false;
};

class FeatureDevice {
 public:
  explicit FeatureDevice(std::string device)
      : device_(std::move(device)), socket_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    if (!socket_.valid()) failSystem(errno, device_);
    readNames();
  }

  /** by bit number */
  std::vector<Feature> read() {
    const size_t blocks = blockCount();
    CommandBuffer<ethtool_gfeatures> command(blocks * sizeof(ethtool_get_features_block));
    command.get()->cmd = ETHTOOL_GFEATURES;
    command.get()->size = static_cast<uint32_t>(blocks);
    call(command.get());
    std::vector<Feature> features(names_.size());
    for (size_t i = 0; i < names_.size() && i / kBlockBits < command.get()->size; i++) {
      const ethtool_get_features_block& block = command.get()->features[i / kBlockBits];
      const uint32_t bit = 1u << (i % kBlockBits);
      features[i].available = (block.available & bit) != 0;
      features[i].active = (block.active & bit) != 0;
    }
    return features;
  }

  /** by bit number; false where the bit is not part of the request */
  void write(const std::map<size_t, bool>& changes) {
    const size_t blocks = blockCount();
    CommandBuffer<ethtool_sfeatures> command(blocks * sizeof(ethtool_set_features_block));
    command.get()->cmd = ETHTOOL_SFEATURES;
    command.get()->size = static_cast<uint32_t>(blocks);
    for (const auto& [index, on] : changes) {
      ethtool_set_features_block& block = command.get()->features[index / kBlockBits];
      block.valid |= 1u << (index % kBlockBits);
      if (on) block.requested |= 1u << (index % kBlockBits);
    }
    call(command.get());
  }

  const std::vector<std::string>& names() const { return names_; }
  const std::string& device() const { return device_; }

 private:
  size_t blockCount() const { return (names_.size() + kBlockBits - 1) / kBlockBits; }

  /** ioctl's value: ETHTOOL_SFEATURES answers with flags */
  void call(void* command) {
    ifreq request{};
    memcpy(request.ifr_name, device_.c_str(), device_.size());
    request.ifr_data = static_cast<char*>(command);
    if (ioctl(socket_.get(), SIOCETHTOOL, &request) < 0) failSystem(errno, device_);
  }

  void readNames() {
    CommandBuffer<ethtool_sset_info> info(sizeof(uint32_t));
    info.get()->cmd = ETHTOOL_GSSET_INFO;
    info.get()->sset_mask = uint64_t{1} << ETH_SS_FEATURES;
    call(info.get());
    const uint32_t count = info.get()->sset_mask == 0 ? 0 : info.get()->data[0];
    if (count == 0 || count > kMaxFeatures) failSystem(EOPNOTSUPP, device_, "no feature names");
    CommandBuffer<ethtool_gstrings> strings(size_t{count} * ETH_GSTRING_LEN);
    strings.get()->cmd = ETHTOOL_GSTRINGS;
    strings.get()->string_set = ETH_SS_FEATURES;
    strings.get()->len = count;
    call(strings.get());
    for (uint32_t i = 0; i < count && i < strings.get()->len; i++) {
      const auto* name =
          reinterpret_cast<const char*>(strings.get()->data + size_t{i} * ETH_GSTRING_LEN);
      names_.emplace_back(name, strnlen(name, ETH_GSTRING_LEN));
    }
  }

  std::string device_;
  UniqueFd socket_;
  std::vector<std::string> names_;
};

std::map<size_t, bool> readChanges(const FeatureDevice& device, Napi::Value value) {
  std::map<size_t, bool> changes;
  for (const auto& [name, on] : toEntries(value, "features")) {
    const bool wanted = toBoolean(on, ("features." + name).c_str());
    const auto& names = device.names();
    const auto found = std::find(names.begin(), names.end(), name);
    if (name.empty() || found == names.end()) {
      failSystem(EOPNOTSUPP, device.device(), name + ": the kernel has no feature of this name");
    }
    changes[static_cast<size_t>(found - names.begin())] = wanted;
  }
  return changes;
}

}  // namespace

Napi::Value featuresSet(const Napi::CallbackInfo& info) {
  FeatureDevice device(toDeviceName(info[0], "device"));
  const auto wanted = readChanges(device, info[1]);
  const auto before = device.read();
  std::map<size_t, bool> changes;
  for (const auto& [index, on] : wanted) {
    // a fixed feature that is as wanted needs nothing
    if (before[index].available) changes[index] = on;
  }
  if (!changes.empty()) device.write(changes);
  const auto after = device.read();
  for (const auto& [index, on] : wanted) {
    if (after[index].active == on) continue;
    failSystem(EOPNOTSUPP, device.device(),
               device.names()[index] + (before[index].available
                                            ? ": the device keeps the feature as it was"
                                            : ": the feature is fixed on this device"));
  }
  return info.Env().Undefined();
}

Napi::Value featuresGet(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  FeatureDevice device(toDeviceName(info[0], "device"));
  const auto features = device.read();
  Napi::Object result = Napi::Object::New(env);
  for (size_t i = 0; i < features.size(); i++) {
    const std::string& name = device.names()[i];
    if (!name.empty()) result.Set(name, Napi::Boolean::New(env, features[i].active));
  }
  return result;
}

}  // namespace vnetd
