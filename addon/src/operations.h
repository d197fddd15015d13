// SPDX-License-Identifier: Apache-2.0
/**
 * The operations of src/native/contract.ts, one function each, named as there.
 *
 * Each is called through guard() in addon.cc, which turns what they throw into JavaScript errors
 * and adds the operation's name.
 */
#pragma once

#include <napi.h>

namespace vnetd {

// bpf_object.cc
Napi::Value objectLoad(const Napi::CallbackInfo& info);
Napi::Value objectGet(const Napi::CallbackInfo& info);
Napi::Value objectPin(const Napi::CallbackInfo& info);
// bpf_map.cc
Napi::Value mapInfo(const Napi::CallbackInfo& info);
Napi::Value mapLookup(const Napi::CallbackInfo& info);
Napi::Value mapUpdate(const Napi::CallbackInfo& info);
Napi::Value mapDelete(const Napi::CallbackInfo& info);
// bpf_map_dump.cc
Napi::Value mapDump(const Napi::CallbackInfo& info);
// bpf_test_run.cc
Napi::Value progTestRun(const Napi::CallbackInfo& info);
// ring_buffer.cc
Napi::Value ringConsume(const Napi::CallbackInfo& info);
// hook_tcx.cc
Napi::Value tcxAttach(const Napi::CallbackInfo& info);
Napi::Value tcxInfo(const Napi::CallbackInfo& info);
Napi::Value tcxUpdate(const Napi::CallbackInfo& info);
Napi::Value tcxPrograms(const Napi::CallbackInfo& info);
Napi::Value tcxLacking(const Napi::CallbackInfo& info);
Napi::Value programId(const Napi::CallbackInfo& info);
Napi::Value programInfo(const Napi::CallbackInfo& info);
// tcx_watch.cc
Napi::Value tcxWatch(const Napi::CallbackInfo& info);
// hook_xdp.cc
Napi::Value xdpAttach(const Napi::CallbackInfo& info);
Napi::Value xdpDetach(const Napi::CallbackInfo& info);
Napi::Value xdpQuery(const Napi::CallbackInfo& info);
// hook_clsact.cc
Napi::Value clsactAttach(const Napi::CallbackInfo& info);
Napi::Value clsactQuery(const Napi::CallbackInfo& info);
Napi::Value clsactFilters(const Napi::CallbackInfo& info);
Napi::Value clsactDetach(const Napi::CallbackInfo& info);
// link.cc
Napi::Value linkList(const Napi::CallbackInfo& info);
Napi::Value linkGet(const Napi::CallbackInfo& info);
Napi::Value linkAt(const Napi::CallbackInfo& info);
// link_change.cc
Napi::Value linkAddVeth(const Napi::CallbackInfo& info);
Napi::Value linkAddBridge(const Napi::CallbackInfo& info);
Napi::Value linkAddVxlan(const Napi::CallbackInfo& info);
Napi::Value linkAddXfrm(const Napi::CallbackInfo& info);
Napi::Value linkSet(const Napi::CallbackInfo& info);
Napi::Value linkDelete(const Napi::CallbackInfo& info);
// address.cc
Napi::Value addressList(const Napi::CallbackInfo& info);
Napi::Value addressAdd(const Napi::CallbackInfo& info);
Napi::Value addressDelete(const Napi::CallbackInfo& info);
Napi::Value routeDeleteLocal(const Napi::CallbackInfo& info);
// xfrm_state.cc
Napi::Value xfrmStateAdd(const Napi::CallbackInfo& info);
Napi::Value xfrmStateUpdate(const Napi::CallbackInfo& info);
Napi::Value xfrmStateDelete(const Napi::CallbackInfo& info);
Napi::Value xfrmStateGet(const Napi::CallbackInfo& info);
Napi::Value xfrmStateList(const Napi::CallbackInfo& info);
// xfrm_policy.cc
Napi::Value xfrmPolicySet(const Napi::CallbackInfo& info);
Napi::Value xfrmPolicyDelete(const Napi::CallbackInfo& info);
Napi::Value xfrmPolicyList(const Napi::CallbackInfo& info);
// xfrm_monitor.cc
Napi::Value xfrmMonitor(const Napi::CallbackInfo& info);
// route.cc
Napi::Value routeGet(const Napi::CallbackInfo& info);
Napi::Value routeSet(const Napi::CallbackInfo& info);
// bridge_fdb.cc
Napi::Value bridgeFdbList(const Napi::CallbackInfo& info);
// netlink_monitor.cc
Napi::Value netlinkMonitor(const Napi::CallbackInfo& info);
// ethtool_features.cc
Napi::Value featuresSet(const Napi::CallbackInfo& info);
Napi::Value featuresGet(const Napi::CallbackInfo& info);
// udp_socket.cc
Napi::Value packetSocket(const Napi::CallbackInfo& info);
Napi::Value udpSocket(const Napi::CallbackInfo& info);
// netns.cc
Napi::Value netnsIdentity(const Napi::CallbackInfo& info);
// process.cc
Napi::Value abstractListen(const Napi::CallbackInfo& info);
Napi::Value abstractConnect(const Napi::CallbackInfo& info);
Napi::Value fileLock(const Napi::CallbackInfo& info);
Napi::Value peerCredentials(const Napi::CallbackInfo& info);
Napi::Value sdNotify(const Napi::CallbackInfo& info);
Napi::Value memoryHide(const Napi::CallbackInfo& info);
Napi::Value filesystemType(const Napi::CallbackInfo& info);
Napi::Value mountBpf(const Napi::CallbackInfo& info);
Napi::Value closeFd(const Napi::CallbackInfo& info);

}  // namespace vnetd
