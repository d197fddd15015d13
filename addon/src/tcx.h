// SPDX-License-Identifier: Apache-2.0
/** Which programs are to hang at devices' TCX hooks, and whether they do. */
#pragma once

#include <napi.h>

#include <cstdint>
#include <vector>

namespace vnetd {

/** A program that is to hang at the ingress of a device. */
struct TcxProgram {
  uint32_t ifindex;
  uint32_t programId;
};

/** Of two lists of numbers, equally long. */
std::vector<TcxProgram> toTcxPrograms(Napi::Value ifindexes, Napi::Value programIds);

/** Whether it does. Returns an errno, or 0; it is no error that the device is gone. */
int tcxHas(const TcxProgram& wanted, bool& has);

}  // namespace vnetd
