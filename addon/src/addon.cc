// SPDX-License-Identifier: Apache-2.0
/**
 * Entry of the addon: publishes the operations and turns their failures into JavaScript errors.
 *
 * There is no state here, neither global nor for an environment: what lives on (ring buffers,
 * monitors) is owned by its LoopWatcher, so that any number of worker threads may load the addon.
 */
#include <napi.h>

#include <new>

#include "failure.h"
#include "libbpf_log.h"
#include "operations.h"

namespace vnetd {
namespace {

using Operation = Napi::Value (*)(const Napi::CallbackInfo&);

Napi::Error nativeError(Napi::Env env, const char* operation, const SystemFailure& failure) {
  const std::string code = errnoName(failure.errnum);
  std::string message = operation;
  if (!failure.subject.empty()) message += " " + failure.subject;
  message += ": " + errnoText(failure.errnum) + " (" + code + ")";
  // a verifier's log is too long for a message; its place is `detail`
  if (!failure.detail.empty() && failure.detail.find('\n') == std::string::npos) {
    message += ": " + failure.detail;
  }
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  error.Set("errno", Napi::Number::New(env, failure.errnum));
  error.Set("operation", Napi::String::New(env, operation));
  if (!failure.detail.empty()) error.Set("detail", Napi::String::New(env, failure.detail));
  return error;
}

template <Operation operation>
Napi::Value guard(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto* name = static_cast<const char*>(info.Data());
  try {
    return operation(info);
  } catch (const SystemFailure& failure) {
    throw nativeError(env, name, failure);
  } catch (const ArgumentFailure& failure) {
    const std::string message = std::string(name) + ": " + failure.message;
    if (failure.kind == ArgumentFailure::Kind::kType) throw Napi::TypeError::New(env, message);
    throw Napi::RangeError::New(env, message);
  } catch (const std::bad_alloc&) {
    throw nativeError(env, name, SystemFailure{ENOMEM, {}, {}});
  }
}

template <Operation operation>
void publish(Napi::Object exports, const char* name) {
  exports.Set(name,
              Napi::Function::New<guard<operation>>(exports.Env(), name, const_cast<char*>(name)));
}

Napi::Object initialize(Napi::Env, Napi::Object exports) {
  installLibbpfLog();
  publish<objectLoad>(exports, "objectLoad");
  publish<objectGet>(exports, "objectGet");
  publish<objectPin>(exports, "objectPin");
  publish<mapInfo>(exports, "mapInfo");
  publish<mapLookup>(exports, "mapLookup");
  publish<mapUpdate>(exports, "mapUpdate");
  publish<mapDelete>(exports, "mapDelete");
  publish<mapDump>(exports, "mapDump");
  publish<progTestRun>(exports, "progTestRun");
  publish<ringConsume>(exports, "ringConsume");
  publish<tcxAttach>(exports, "tcxAttach");
  publish<tcxInfo>(exports, "tcxInfo");
  publish<tcxUpdate>(exports, "tcxUpdate");
  publish<tcxPrograms>(exports, "tcxPrograms");
  publish<tcxLacking>(exports, "tcxLacking");
  publish<tcxWatch>(exports, "tcxWatch");
  publish<xdpAttach>(exports, "xdpAttach");
  publish<xdpDetach>(exports, "xdpDetach");
  publish<xdpQuery>(exports, "xdpQuery");
  publish<clsactAttach>(exports, "clsactAttach");
  publish<clsactQuery>(exports, "clsactQuery");
  publish<clsactFilters>(exports, "clsactFilters");
  publish<clsactDetach>(exports, "clsactDetach");
  publish<programId>(exports, "programId");
  publish<programInfo>(exports, "programInfo");
  publish<linkList>(exports, "linkList");
  publish<linkGet>(exports, "linkGet");
  publish<linkAt>(exports, "linkAt");
  publish<linkAddVeth>(exports, "linkAddVeth");
  publish<linkAddBridge>(exports, "linkAddBridge");
  publish<linkAddVxlan>(exports, "linkAddVxlan");
  publish<linkSet>(exports, "linkSet");
  publish<linkDelete>(exports, "linkDelete");
  publish<linkAddXfrm>(exports, "linkAddXfrm");
  publish<xfrmStateAdd>(exports, "xfrmStateAdd");
  publish<xfrmStateUpdate>(exports, "xfrmStateUpdate");
  publish<xfrmStateDelete>(exports, "xfrmStateDelete");
  publish<xfrmStateGet>(exports, "xfrmStateGet");
  publish<xfrmStateList>(exports, "xfrmStateList");
  publish<xfrmPolicySet>(exports, "xfrmPolicySet");
  publish<xfrmPolicyDelete>(exports, "xfrmPolicyDelete");
  publish<xfrmPolicyList>(exports, "xfrmPolicyList");
  publish<xfrmMonitor>(exports, "xfrmMonitor");
  publish<addressList>(exports, "addressList");
  publish<addressAdd>(exports, "addressAdd");
  publish<addressDelete>(exports, "addressDelete");
  publish<routeDeleteLocal>(exports, "routeDeleteLocal");
  publish<routeGet>(exports, "routeGet");
  publish<routeSet>(exports, "routeSet");
  publish<bridgeFdbList>(exports, "bridgeFdbList");
  publish<netlinkMonitor>(exports, "netlinkMonitor");
  publish<featuresSet>(exports, "featuresSet");
  publish<featuresGet>(exports, "featuresGet");
  publish<packetSocket>(exports, "packetSocket");
  publish<udpSocket>(exports, "udpSocket");
  publish<abstractListen>(exports, "abstractListen");
  publish<abstractConnect>(exports, "abstractConnect");
  publish<netnsIdentity>(exports, "netnsIdentity");
  publish<fileLock>(exports, "fileLock");
  publish<peerCredentials>(exports, "peerCredentials");
  publish<sdNotify>(exports, "sdNotify");
  publish<memoryHide>(exports, "memoryHide");
  publish<filesystemType>(exports, "filesystemType");
  publish<mountBpf>(exports, "mountBpf");
  publish<closeFd>(exports, "close");
  return exports;
}

NODE_API_MODULE(vnetd, initialize)

}  // namespace
}  // namespace vnetd
