// SPDX-License-Identifier: Apache-2.0
/**
 * What a BPF file descriptor stands for, checked before it is used.
 *
 * BPF_OBJ_GET_INFO_BY_FD answers for maps, programs and links alike and with different structures;
 * reading a program's as a map's would give sizes that are not sizes. So the kind is asked first.
 */
#pragma once

#include <linux/bpf.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vnetd {

enum class BpfKind { kMap, kProgram, kLink, kOther };

BpfKind bpfKind(int fd);

/** info of a map; EBADF or EINVAL when fd is none */
bpf_map_info mapInfoOf(int fd);

struct ProgramInfo {
  uint32_t id;
  // as much of it as the kernel keeps
  std::string name;
  std::vector<uint32_t> mapIds;
  bool jited;
};
/** info of a program; EBADF or EINVAL when fd is none */
ProgramInfo programInfoOf(int fd);
uint32_t programIdOf(int fd);

/** maps with one value for each CPU */
bool isPerCpu(uint32_t mapType);
/** bytes that the kernel copies for one value: per-CPU maps give one for each possible CPU */
size_t valueBytes(const bpf_map_info& info);
/** sums the words of a per-CPU value in place of the first; plain values stay as they are */
void sumPerCpu(const bpf_map_info& info, const uint8_t* perCpu, uint8_t* sum);

}  // namespace vnetd
