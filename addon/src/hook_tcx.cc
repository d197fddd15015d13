// SPDX-License-Identifier: Apache-2.0
/**
 * TCX hooks: pinned BPF links at a device's ingress or egress (Linux 6.6 and later).
 *
 * A pinned link outlives the process and holds the program; updating it replaces the program with
 * no packet in between seeing none. Debian 12's headers are older than TCX, so its numbers and the
 * part of struct bpf_link_info that it uses are given here.
 */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "bpf_fd.h"
#include "failure.h"
#include "operations.h"
#include "tcx.h"
#include "values.h"

namespace vnetd {
namespace {

constexpr int kAttachTcxIngress = 46;
constexpr int kAttachTcxEgress = 47;
constexpr uint32_t kLinkTypeTcx = 11;
constexpr uint32_t kLinkTypeXdp = 6;
/** as many as the kernel lets hang at one hook */
constexpr uint32_t kMaxPrograms = 64;

/** The beginning of struct bpf_link_info as the kernel fills it for TCX and XDP, and room for the
 * rest. */
struct TcxLinkInfo {
  uint32_t type;
  uint32_t id;
  uint32_t programId;
  uint32_t padding;
  uint32_t ifindex;
  uint32_t attachType;
  uint8_t rest[104];
};

UniqueFd openLink(const std::string& pinPath) {
  UniqueFd fd(bpf_obj_get(pinPath.c_str()));
  if (!fd.valid()) failSystem(errno, pinPath);
  if (bpfKind(fd.get()) != BpfKind::kLink) failSystem(EINVAL, pinPath, "the pin is not a link's");
  return fd;
}

TcxLinkInfo readInfo(const UniqueFd& fd, const std::string& pinPath) {
  TcxLinkInfo link;
  memset(&link, 0, sizeof link);
  uint32_t length = sizeof link;
  const int error = bpf_obj_get_info_by_fd(fd.get(), &link, &length);
  if (error != 0) failSystem(error, pinPath);
  if (link.type != kLinkTypeTcx && link.type != kLinkTypeXdp) {
    failSystem(EINVAL, pinPath, "the link is neither a TCX nor an XDP link");
  }
  return link;
}

struct Programs {
  uint32_t ids[kMaxPrograms];
  uint32_t count = 0;
};

/** What hangs at a device's hook, in its order; returns an errno, or 0. */
int queryPrograms(uint32_t ifindex, bool ingress, Programs& programs) {
  // the beginning of union bpf_attr for BPF_PROG_QUERY
  struct {
    uint32_t target;
    uint32_t type;
    uint32_t queryFlags;
    uint32_t attachFlags;
    uint64_t ids;
    uint32_t count;
    uint8_t rest[36];
  } query = {};
  query.target = ifindex;
  query.type = ingress ? kAttachTcxIngress : kAttachTcxEgress;
  query.ids = reinterpret_cast<uintptr_t>(programs.ids);
  query.count = kMaxPrograms;
  if (syscall(SYS_bpf, BPF_PROG_QUERY, &query, sizeof query) != 0 && errno != ENOSPC) return errno;
  programs.count = std::min(query.count, kMaxPrograms);
  return 0;
}

}  // namespace

std::vector<TcxProgram> toTcxPrograms(Napi::Value ifindexes, Napi::Value programIds) {
  const Napi::Array devices = toArray(ifindexes, "ifindexes");
  const Napi::Array programs = toArray(programIds, "programIds");
  if (devices.Length() != programs.Length()) {
    failRange("as many programs as devices are expected");
  }
  std::vector<TcxProgram> wanted;
  for (uint32_t at = 0; at < devices.Length(); at++) {
    wanted.push_back(
        {toIfindex(devices.Get(at), "ifindex"), toUint32(programs.Get(at), "program id")});
  }
  return wanted;
}

int tcxHas(const TcxProgram& wanted, bool& has) {
  Programs programs;
  const int error = queryPrograms(wanted.ifindex, true, programs);
  const uint32_t* const begin = programs.ids;
  const uint32_t* const end = begin + programs.count;
  has = error == 0 && std::find(begin, end, wanted.programId) != end;
  return error == EINVAL || error == ENOENT || error == ENODEV ? 0 : error;
}

Napi::Value tcxAttach(const Napi::CallbackInfo& info) {
  const int programFd = toFd(info[0], "progFd");
  const uint32_t ifindex = toIfindex(info[1], "ifindex");
  const bool ingress = toIngress(info[2], "direction");
  const std::string pinPath = toPath(info[3], "pinPath");
  programIdOf(programFd);
  const auto type =
      static_cast<enum bpf_attach_type>(ingress ? kAttachTcxIngress : kAttachTcxEgress);
  const UniqueFd link(bpf_link_create(programFd, static_cast<int>(ifindex), type, nullptr));
  if (!link.valid()) failSystem(errno, "ifindex " + std::to_string(ifindex));
  // when the pin fails the link goes with its last descriptor
  const int error = bpf_obj_pin(link.get(), pinPath.c_str());
  if (error != 0) failSystem(error, pinPath);
  return info.Env().Undefined();
}

Napi::Value tcxInfo(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const std::string pinPath = toPath(info[0], "pinPath");
  const TcxLinkInfo link = readInfo(openLink(pinPath), pinPath);
  Napi::Object result = Napi::Object::New(env);
  result.Set("linkId", Napi::Number::New(env, link.id));
  result.Set("programId", Napi::Number::New(env, link.programId));
  result.Set("ifindex", Napi::Number::New(env, link.ifindex));
  return result;
}

Napi::Value tcxUpdate(const Napi::CallbackInfo& info) {
  const std::string pinPath = toPath(info[0], "pinPath");
  const int programFd = toFd(info[1], "progFd");
  programIdOf(programFd);
  const UniqueFd link = openLink(pinPath);
  readInfo(link, pinPath);
  const int error = bpf_link_update(link.get(), programFd, nullptr);
  if (error != 0) failSystem(error, pinPath);
  return info.Env().Undefined();
}

/** [] where the kernel has no TCX */
Napi::Value tcxPrograms(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  const bool ingress = toIngress(info[1], "direction");
  Programs programs;
  const int error = queryPrograms(ifindex, ingress, programs);
  if (error == EINVAL || error == ENOENT) return Napi::Array::New(env);
  if (error != 0) failSystem(error, "ifindex " + std::to_string(ifindex));
  Napi::Array result = Napi::Array::New(env, programs.count);
  for (uint32_t at = 0; at < programs.count; at++)
    result.Set(at, Napi::Number::New(env, programs.ids[at]));
  return result;
}

/** A device that is gone lacks it as well. */
Napi::Value tcxLacking(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Array lacking = Napi::Array::New(env);
  uint32_t at = 0;
  for (const TcxProgram& wanted : toTcxPrograms(info[0], info[1])) {
    bool has = false;
    const int error = tcxHas(wanted, has);
    if (error != 0) failSystem(error, "ifindex " + std::to_string(wanted.ifindex));
    if (!has) lacking.Set(lacking.Length(), Napi::Number::New(env, at));
    at += 1;
  }
  return lacking;
}

Napi::Value programId(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), programIdOf(toFd(info[0], "progFd")));
}

}  // namespace vnetd
