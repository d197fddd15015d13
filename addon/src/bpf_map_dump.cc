// SPDX-License-Identifier: Apache-2.0
/**
 * All entries of a map.
 *
 * Read in batches, which is several times faster for per-CPU maps; map types without them are
 * walked key by key. A map that changes meanwhile gives what was there when its part was read: an
 * entry that comes or goes may be in the answer or not, and one that stays is in it once.
 * An array that is filled from its beginning need not be read to its end.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include <algorithm>
#include <unordered_set>

#include "bpf_fd.h"
#include "failure.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr size_t kBatchBytes = 1 << 20;
constexpr uint32_t kBatchMaxEntries = 8192;
constexpr int kKernelNotSupported = 524;

struct Dump {
  size_t count = 0;
  Bytes keys;
  Bytes values;
};

class MapReader {
 public:
  MapReader(int fd, uint32_t atMost)
      : fd_(fd), info_(mapInfoOf(fd)), valueBytes_(valueBytes(info_)), atMost_(atMost) {
    if (info_.key_size == 0) {
      failSystem(EOPNOTSUPP, subject(), "a map of this type has no keys to list");
    }
  }

  Dump read() {
    if (atMost_ > 0 && !readBatches()) readKeyByKey();
    return std::move(dump_);
  }

 private:
  std::string subject() const { return std::string("map ") + info_.name; }

  bool isFull() const { return dump_.count >= atMost_; }

  void append(const uint8_t* key, const uint8_t* value) {
    dump_.keys.insert(dump_.keys.end(), key, key + info_.key_size);
    const size_t offset = dump_.values.size();
    dump_.values.resize(offset + info_.value_size);
    sumPerCpu(info_, value, dump_.values.data() + offset);
    dump_.count++;
  }

  /** false when the kernel has no batches for this type of map */
  bool readBatches() {
    const size_t entryBytes = info_.key_size + valueBytes_;
    auto capacity =
        static_cast<uint32_t>(std::clamp<size_t>(kBatchBytes / entryBytes, 1, kBatchMaxEntries));
    capacity = std::max<uint32_t>(std::min({capacity, info_.max_entries, atMost_}), 1);
    // hashes take a bucket's number here, tries a whole key
    const size_t cursorBytes = std::max<size_t>(info_.key_size, sizeof(uint32_t));
    Bytes cursor(cursorBytes);
    Bytes next(cursorBytes);
    Bytes keys;
    Bytes values;
    bool first = true;
    for (;;) {
      keys.resize(size_t{capacity} * info_.key_size);
      values.resize(size_t{capacity} * valueBytes_);
      uint32_t count = capacity;
      const int error = bpf_map_lookup_batch(fd_, first ? nullptr : cursor.data(), next.data(),
                                             keys.data(), values.data(), &count, nullptr);
      if (error == -ENOSPC) {
        // one bucket of the hash holds more than fits: the same place again with more room
        if (capacity >= info_.max_entries) failSystem(error, subject());
        capacity = capacity > info_.max_entries / 2 ? info_.max_entries : capacity * 2;
        continue;
      }
      if (first && (error == -EINVAL || error == -EOPNOTSUPP || error == -kKernelNotSupported)) {
        return false;
      }
      if (error != 0 && error != -ENOENT) failSystem(error, subject());
      for (uint32_t i = 0; i < std::min(count, capacity) && !isFull(); i++) {
        append(keys.data() + size_t{i} * info_.key_size, values.data() + i * valueBytes_);
      }
      if (error == -ENOENT || isFull()) return true;
      std::swap(cursor, next);
      first = false;
    }
  }

  void readKeyByKey() {
    Bytes key(info_.key_size);
    Bytes value(valueBytes_);
    std::unordered_set<std::string> seen;
    bool first = true;
    // when the key we stand on is deleted the kernel starts again at the first one: what was seen
    // is skipped, and the steps are bounded
    const uint64_t maxSteps = uint64_t{info_.max_entries} * 4 + 1024;
    for (uint64_t step = 0; step < maxSteps; step++) {
      Bytes following(info_.key_size);
      int error = bpf_map_get_next_key(fd_, first ? nullptr : key.data(), following.data());
      if (error == -ENOENT) return;
      if (error != 0) failSystem(error, subject());
      first = false;
      key = following;
      if (!seen.emplace(key.begin(), key.end()).second) continue;
      error = bpf_map_lookup_elem(fd_, key.data(), value.data());
      if (error == -ENOENT) continue;
      if (error != 0) failSystem(error, subject());
      append(key.data(), value.data());
      if (isFull()) return;
    }
    failSystem(EAGAIN, subject(), "the map changes faster than it can be read");
  }

  const int fd_;
  const bpf_map_info info_;
  const size_t valueBytes_;
  const uint32_t atMost_;
  Dump dump_;
};

}  // namespace

Napi::Value mapDump(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = toFd(info[0], "mapFd");
  const uint32_t atMost = info[1].IsUndefined() ? UINT32_MAX : toUint32(info[1], "atMost");
  const Dump dump = MapReader(fd, atMost).read();
  Napi::Object result = Napi::Object::New(env);
  result.Set("count", Napi::Number::New(env, static_cast<double>(dump.count)));
  result.Set("keys", bufferOf(env, dump.keys.data(), dump.keys.size()));
  result.Set("values", bufferOf(env, dump.values.data(), dump.values.size()));
  return result;
}

}  // namespace vnetd
