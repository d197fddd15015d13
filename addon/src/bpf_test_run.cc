// SPDX-License-Identifier: Apache-2.0
/** BPF_PROG_TEST_RUN for TC programs: a packet and a few fields of struct __sk_buff in and out. */
#include <bpf/bpf.h>
#include <errno.h>
#include <string.h>

#include "bpf_fd.h"
#include "failure.h"
#include "operations.h"
#include "values.h"

namespace vnetd {
namespace {

// one call blocks the event loop for as long as it runs
constexpr uint32_t kMaxRepeat = 10'000'000;
constexpr uint32_t kMaxPacketBytes = 1 << 20;
constexpr uint32_t kDefaultGrowthBytes = 256;

struct Request {
  uint32_t repeat = 1;
  uint32_t outSize = 0;
  __sk_buff context;
  bool contextGiven = false;
  // of an XDP program: by which device the packet comes
  uint32_t xdpIfindex = 0;
};

Request readRequest(Napi::Value value, size_t inputLength) {
  Request request;
  memset(&request.context, 0, sizeof request.context);
  request.outSize = static_cast<uint32_t>(inputLength) + kDefaultGrowthBytes;
  if (value.IsUndefined()) return request;
  const Napi::Object options = toObject(value, "options");
  if (const auto repeat = optionalProperty(options, "repeat")) {
    request.repeat = toUint32(*repeat, "options.repeat", 1, kMaxRepeat);
  }
  if (const auto outSize = optionalProperty(options, "outSize")) {
    request.outSize = toUint32(*outSize, "options.outSize", 0, kMaxPacketBytes);
  }
  const auto field = [&](const char* name, __u32* target) {
    const auto given = optionalProperty(options, name);
    if (!given) return;
    *target = toUint32(*given, (std::string("options.") + name).c_str());
    request.contextGiven = true;
  };
  field("mark", &request.context.mark);
  field("ifindex", &request.context.ifindex);
  field("ingressIfindex", &request.context.ingress_ifindex);
  field("gsoSize", &request.context.gso_size);
  field("gsoSegs", &request.context.gso_segs);
  if (const auto ifindex = optionalProperty(options, "xdpIfindex")) {
    request.xdpIfindex = toUint32(*ifindex, "options.xdpIfindex", 1);
  }
  return request;
}

}  // namespace

Napi::Value progTestRun(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const int fd = toFd(info[0], "progFd");
  const Bytes packet = toBytes(info[1], "data");
  if (packet.size() > kMaxPacketBytes) failRange("data must be at most 1 MiB long");
  Request request = readRequest(info[2], packet.size());
  if (bpfKind(fd) != BpfKind::kProgram) {
    failSystem(EINVAL, "fd " + std::to_string(fd), "not a BPF program");
  }

  Bytes out(request.outSize);
  __sk_buff contextOut;
  memset(&contextOut, 0, sizeof contextOut);
  bpf_test_run_opts options;
  memset(&options, 0, sizeof options);
  options.sz = sizeof options;
  options.data_in = packet.data();
  options.data_size_in = static_cast<uint32_t>(packet.size());
  if (!out.empty()) {
    options.data_out = out.data();
    options.data_size_out = request.outSize;
  }
  if (request.contextGiven) {
    options.ctx_in = &request.context;
    options.ctx_size_in = sizeof request.context;
  }
  options.ctx_out = &contextOut;
  options.ctx_size_out = sizeof contextOut;
  xdp_md xdp;
  memset(&xdp, 0, sizeof xdp);
  if (request.xdpIfindex != 0) {
    xdp.data_end = static_cast<uint32_t>(packet.size());
    xdp.ingress_ifindex = request.xdpIfindex;
    options.ctx_in = &xdp;
    options.ctx_size_in = sizeof xdp;
    options.ctx_out = &xdp;
    options.ctx_size_out = sizeof xdp;
  }
  options.repeat = static_cast<int>(request.repeat);
  const int error = bpf_prog_test_run_opts(fd, &options);
  if (error != 0) failSystem(error, "program " + std::to_string(programIdOf(fd)));

  const size_t length = std::min<size_t>(options.data_size_out, out.size());
  Napi::Object result = Napi::Object::New(env);
  // TC_ACT_UNSPEC is -1: the value is signed
  result.Set("retval", Napi::Number::New(env, static_cast<int32_t>(options.retval)));
  result.Set("data", bufferOf(env, out.data(), length));
  result.Set("durationNs", Napi::Number::New(env, options.duration));
  result.Set("mark", Napi::Number::New(env, contextOut.mark));
  // in front of the packet in `data`
  result.Set("metadataBytes", Napi::Number::New(env, xdp.data));
  return result;
}

}  // namespace vnetd
