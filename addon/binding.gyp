# SPDX-License-Identifier: Apache-2.0
{
  "targets": [
    {
      "target_name": "vnetd",
      "dependencies": [
        "<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"
      ],
      "sources": [
        "src/address.cc",
        "src/addon.cc",
        "src/bpf_fd.cc",
        "src/bpf_map.cc",
        "src/bpf_map_dump.cc",
        "src/bpf_object.cc",
        "src/bpf_test_run.cc",
        "src/bridge_fdb.cc",
        "src/ethtool_features.cc",
        "src/failure.cc",
        "src/hook_clsact.cc",
        "src/hook_tcx.cc",
        "src/hook_xdp.cc",
        "src/libbpf_log.cc",
        "src/link.cc",
        "src/link_change.cc",
        "src/loop_watcher.cc",
        "src/netlink.cc",
        "src/netlink_monitor.cc",
        "src/netlink_watcher.cc",
        "src/netns.cc",
        "src/packet_socket.cc",
        "src/process.cc",
        "src/ring_buffer.cc",
        "src/route.cc",
        "src/tcx_watch.cc",
        "src/udp_socket.cc",
        "src/values.cc",
        "src/xfrm.cc",
        "src/xfrm_monitor.cc",
        "src/xfrm_policy.cc",
        "src/xfrm_state.cc"
      ],
      "cflags!": ["-fno-exceptions"],
      "cflags_cc!": ["-fno-exceptions", "-std=gnu++17", "-std=gnu++20"],
      "cflags_cc": [
        "-std=c++17",
        "-fno-rtti",
        "-fvisibility=hidden",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-isystem <(node_root_dir)/include/node",
        "-isystem <!(node -p \"require('path').resolve(require('node-addon-api').include_dir)\")",
        "<!@(pkg-config --cflags libbpf libmnl)"
      ],
      "defines": [
        "NAPI_VERSION=8",
        "_GNU_SOURCE",
        # a worker that is terminated within an operation cannot be thrown anything: no abort then
        "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
      ],
      "libraries": ["<!@(pkg-config --libs libbpf libmnl)"],
      "ldflags": [
        # libbpf keeps a pointer to our print callback: the code must outlive every worker
        "-Wl,-z,nodelete",
        "-Wl,--no-undefined-version"
      ]
    }
  ]
}
