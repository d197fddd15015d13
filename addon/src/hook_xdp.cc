// SPDX-License-Identifier: Apache-2.0
/**
 * The XDP hook: a pinned BPF link at a device, in its driver ("native") or in the stack before TC
 * ("generic"). A device has one. What is pinned is read and updated by the functions of
 * hook_tcx.cc.
 */
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/if_link.h>
#include <string.h>

#include "bpf_fd.h"
#include "failure.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

uint32_t toModeFlag(Napi::Value value, const char* what) {
  const std::string mode = toText(value, what, 16);
  if (mode == "native") return XDP_FLAGS_DRV_MODE;
  if (mode == "generic") return XDP_FLAGS_SKB_MODE;
  failRange(std::string(what) + " must be \"native\" or \"generic\"");
}

const char* modeName(uint8_t mode) {
  switch (mode) {
    case XDP_ATTACHED_NONE:
      return "none";
    case XDP_ATTACHED_DRV:
      return "native";
    case XDP_ATTACHED_SKB:
      return "generic";
    default:
      return "other";
  }
}

}  // namespace

Napi::Value xdpAttach(const Napi::CallbackInfo& info) {
  const int programFd = toFd(info[0], "progFd");
  const uint32_t ifindex = toIfindex(info[1], "ifindex");
  bpf_link_create_opts options;
  memset(&options, 0, sizeof options);
  options.sz = sizeof options;
  options.flags = toModeFlag(info[2], "mode");
  const std::string pinPath = toPath(info[3], "pinPath");
  programIdOf(programFd);
  const UniqueFd link(bpf_link_create(programFd, static_cast<int>(ifindex), BPF_XDP, &options));
  if (!link.valid()) failSystem(errno, "ifindex " + std::to_string(ifindex));
  // when the pin fails the link goes with its last descriptor
  const int error = bpf_obj_pin(link.get(), pinPath.c_str());
  if (error != 0) failSystem(error, pinPath);
  return info.Env().Undefined();
}

/** At once, where removing the pin alone would do it some time later. The pin stays. */
Napi::Value xdpDetach(const Napi::CallbackInfo& info) {
  const std::string pinPath = toPath(info[0], "pinPath");
  const UniqueFd link(bpf_obj_get(pinPath.c_str()));
  if (!link.valid()) failSystem(errno, pinPath);
  if (bpfKind(link.get()) != BpfKind::kLink) failSystem(EINVAL, pinPath, "the pin is not a link's");
  const int error = bpf_link_detach(link.get());
  if (error != 0) failSystem(error, pinPath);
  return info.Env().Undefined();
}

Napi::Value xdpQuery(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  bpf_xdp_query_opts options;
  memset(&options, 0, sizeof options);
  options.sz = sizeof options;
  const int error = bpf_xdp_query(static_cast<int>(ifindex), 0, &options);
  if (error != 0) failSystem(error, "ifindex " + std::to_string(ifindex));
  const uint32_t ids[] = {options.prog_id, options.drv_prog_id, options.skb_prog_id,
                          options.hw_prog_id};
  uint32_t programId = 0;
  for (const uint32_t id : ids) {
    if (programId == 0) programId = id;
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("mode", modeName(options.attach_mode));
  result.Set("programId", Napi::Number::New(env, programId));
  return result;
}

}  // namespace vnetd
