// SPDX-License-Identifier: Apache-2.0
/** Kinds and properties of BPF file descriptors; see bpf_fd.h. */
#include "bpf_fd.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <vector>

#include "failure.h"

namespace vnetd {
namespace {

std::string fdSubject(int fd) { return "fd " + std::to_string(fd); }

size_t possibleCpus() {
  const int cpus = libbpf_num_possible_cpus();
  if (cpus <= 0) failSystem(cpus < 0 ? cpus : EINVAL, "possible CPUs");
  return static_cast<size_t>(cpus);
}

// MAX_USED_MAPS of the kernel
constexpr uint32_t kMostMaps = 64;

size_t roundUp8(size_t bytes) { return (bytes + 7) & ~size_t{7}; }

}  // namespace

BpfKind bpfKind(int fd) {
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  char target[PATH_MAX];
  const ssize_t length = readlink(path.c_str(), target, sizeof target - 1);
  if (length < 0) failSystem(errno == ENOENT ? EBADF : errno, fdSubject(fd));
  const std::string name(target, static_cast<size_t>(length));
  // newer kernels write some of these names in brackets
  if (name.find("bpf-map") != std::string::npos) return BpfKind::kMap;
  if (name.find("bpf-prog") != std::string::npos) return BpfKind::kProgram;
  if (name.find("bpf_link") != std::string::npos || name.find("bpf-link") != std::string::npos) {
    return BpfKind::kLink;
  }
  return BpfKind::kOther;
}

bpf_map_info mapInfoOf(int fd) {
  if (bpfKind(fd) != BpfKind::kMap) failSystem(EINVAL, fdSubject(fd), "not a BPF map");
  bpf_map_info info;
  memset(&info, 0, sizeof info);
  uint32_t length = sizeof info;
  const int error = bpf_obj_get_info_by_fd(fd, &info, &length);
  if (error != 0) failSystem(error, fdSubject(fd));
  return info;
}

uint32_t programIdOf(int fd) { return programInfoOf(fd).id; }

ProgramInfo programInfoOf(int fd) {
  if (bpfKind(fd) != BpfKind::kProgram) failSystem(EINVAL, fdSubject(fd), "not a BPF program");
  std::vector<uint32_t> mapIds(kMostMaps);
  bpf_prog_info info;
  memset(&info, 0, sizeof info);
  info.map_ids = reinterpret_cast<uintptr_t>(mapIds.data());
  info.nr_map_ids = kMostMaps;
  uint32_t length = sizeof info;
  const int error = bpf_obj_get_info_by_fd(fd, &info, &length);
  if (error != 0) failSystem(error, fdSubject(fd));
  mapIds.resize(info.nr_map_ids < kMostMaps ? info.nr_map_ids : kMostMaps);
  const std::string name(info.name, strnlen(info.name, sizeof info.name));
  return ProgramInfo{info.id, name, mapIds, info.jited_prog_len > 0};
}

bool isPerCpu(uint32_t mapType) {
  return mapType == BPF_MAP_TYPE_PERCPU_HASH || mapType == BPF_MAP_TYPE_PERCPU_ARRAY ||
         mapType == BPF_MAP_TYPE_LRU_PERCPU_HASH || mapType == BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE;
}

size_t valueBytes(const bpf_map_info& info) {
  if (!isPerCpu(info.type)) return info.value_size;
  return roundUp8(info.value_size) * possibleCpus();
}

void sumPerCpu(const bpf_map_info& info, const uint8_t* perCpu, uint8_t* sum) {
  if (!isPerCpu(info.type)) {
    memcpy(sum, perCpu, info.value_size);
    return;
  }
  const size_t stride = roundUp8(info.value_size);
  const size_t words = stride / sizeof(uint64_t);
  const size_t cpus = possibleCpus();
  for (size_t word = 0; word < words; word++) {
    uint64_t total = 0;
    for (size_t cpu = 0; cpu < cpus; cpu++) {
      uint64_t part;
      memcpy(&part, perCpu + cpu * stride + word * sizeof part, sizeof part);
      total += part;
    }
    const size_t offset = word * sizeof total;
    const size_t room = info.value_size - offset;
    memcpy(sum + offset, &total, room < sizeof total ? room : sizeof total);
  }
}

}  // namespace vnetd
