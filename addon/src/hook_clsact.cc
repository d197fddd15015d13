// SPDX-License-Identifier: Apache-2.0
/**
 * The clsact qdisc and BPF filters in it, for kernels without TCX.
 *
 * Attaching goes through libbpf. Asking is a dump of the hook's filters of our own, because
 * libbpf's query cannot tell a missing qdisc from a wrong argument.
 */
#include <arpa/inet.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <string.h>

#include "bpf_fd.h"
#include "failure.h"
#include "libbpf_log.h"
#include "netlink.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

struct Filter {
  uint32_t ifindex;
  bool ingress;
  uint32_t priority;
  uint32_t handle;

  std::string subject() const {
    return "ifindex " + std::to_string(ifindex) + (ingress ? " ingress" : " egress");
  }
  bpf_tc_hook hook() const {
    bpf_tc_hook hook;
    memset(&hook, 0, sizeof hook);
    hook.sz = sizeof hook;
    hook.ifindex = static_cast<int>(ifindex);
    hook.attach_point = ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
    return hook;
  }
  bpf_tc_opts options() const {
    bpf_tc_opts options;
    memset(&options, 0, sizeof options);
    options.sz = sizeof options;
    options.handle = handle;
    options.priority = priority;
    return options;
  }
};

Filter readFilter(const Napi::CallbackInfo& info, size_t from) {
  return Filter{toIfindex(info[from], "ifindex"), toIngress(info[from + 1], "direction"),
                toUint32(info[from + 2], "priority", 1, UINT16_MAX),
                toUint32(info[from + 3], "handle", 1)};
}

/** program id of the filter, 0 if it is not there */
uint32_t queryFilter(const Filter& filter) {
  NetlinkRequest request(RTM_GETTFILTER, 0);
  auto* header = request.header<tcmsg>();
  header->tcm_family = AF_UNSPEC;
  header->tcm_ifindex = static_cast<int>(filter.ifindex);
  header->tcm_parent = TC_H_MAKE(TC_H_CLSACT, filter.ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
  uint32_t programId = 0;
  NetlinkSession().dump(
      request, [&] { programId = 0; },
      [&](const nlmsghdr* message) {
        const auto* found = payloadOf<tcmsg>(message);
        if (found == nullptr || message->nlmsg_type != RTM_NEWTFILTER) return;
        if (found->tcm_handle != filter.handle) return;
        if (TC_H_MAJ(found->tcm_info) >> 16 != filter.priority) return;
        bool isBpf = false;
        uint32_t id = 0;
        forEachAttribute(message, sizeof(tcmsg), [&](uint16_t type, const nlattr* attribute) {
          if (type == TCA_KIND) isBpf = attributeText(attribute) == "bpf";
          if (type != TCA_OPTIONS) return;
          forEachNested(attribute, [&](uint16_t inner, const nlattr* option) {
            if (inner == TCA_BPF_ID) id = attributeU32(option);
          });
        });
        if (isBpf) programId = id;
      });
  return programId;
}

}  // namespace

Napi::Value clsactAttach(const Napi::CallbackInfo& info) {
  const int programFd = toFd(info[0], "progFd");
  const Filter filter = readFilter(info, 1);
  programIdOf(programFd);  // before anything is changed
  const LibbpfLog log;
  bpf_tc_hook hook = filter.hook();
  int error = bpf_tc_hook_create(&hook);
  if (error != 0 && error != -EEXIST) log.fail(error, filter.subject());
  bpf_tc_opts options = filter.options();
  options.prog_fd = programFd;
  options.flags = BPF_TC_F_REPLACE;
  const LibbpfLog attachLog;
  error = bpf_tc_attach(&hook, &options);
  if (error != 0) attachLog.fail(error, filter.subject());
  return info.Env().Undefined();
}

Napi::Value clsactQuery(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), queryFilter(readFilter(info, 0)));
}

/** All filters of the hook, of whatever kind and whosever. */
Napi::Value clsactFilters(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint32_t ifindex = toIfindex(info[0], "ifindex");
  const bool ingress = toIngress(info[1], "direction");
  NetlinkRequest request(RTM_GETTFILTER, 0);
  auto* header = request.header<tcmsg>();
  header->tcm_family = AF_UNSPEC;
  header->tcm_ifindex = static_cast<int>(ifindex);
  header->tcm_parent = TC_H_MAKE(TC_H_CLSACT, ingress ? TC_H_MIN_INGRESS : TC_H_MIN_EGRESS);
  Napi::Array result = Napi::Array::New(env);
  const auto add = [&](const nlmsghdr* message) {
    const auto* found = payloadOf<tcmsg>(message);
    if (found == nullptr || message->nlmsg_type != RTM_NEWTFILTER || found->tcm_handle == 0) return;
    Napi::Object filter = Napi::Object::New(env);
    filter.Set("priority", Napi::Number::New(env, TC_H_MAJ(found->tcm_info) >> 16));
    filter.Set("handle", Napi::Number::New(env, found->tcm_handle));
    forEachAttribute(message, sizeof(tcmsg), [&](uint16_t type, const nlattr* attribute) {
      if (type == TCA_KIND) filter.Set("kind", Napi::String::New(env, attributeText(attribute)));
    });
    result.Set(result.Length(), filter);
  };
  try {
    NetlinkSession().dump(
        request, [&] { result = Napi::Array::New(env); }, add);
  } catch (const SystemFailure& failure) {
    // there is no such qdisc
    if (failure.errnum != EINVAL && failure.errnum != ENOENT) throw;
  }
  return result;
}

Napi::Value clsactDetach(const Napi::CallbackInfo& info) {
  const Filter filter = readFilter(info, 0);
  if (queryFilter(filter) == 0) failSystem(ENOENT, filter.subject());
  const LibbpfLog log;
  const bpf_tc_hook hook = filter.hook();
  const bpf_tc_opts options = filter.options();
  const int error = bpf_tc_detach(&hook, &options);
  if (error != 0) log.fail(error, filter.subject());
  return info.Env().Undefined();
}

}  // namespace vnetd
