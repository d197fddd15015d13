// SPDX-License-Identifier: Apache-2.0
/** Three hosts on a LAN, what they report, and cables where there should be none. */
import type { StatusInfo } from "../../src/api/contract.js";
import { eventually, type Guest, type Host, type Lab } from "../lib/lab.js";
import { attachedHosts, callApi, longId } from "./world.js";

/** a, b and c, with vnets 97, 98 and 99 and no others */
export async function threeHosts(lab: Lab, config = ""): Promise<[Host, Host, Host]> {
  const options = { config: `defaultVnets: false\n${config}` };
  const hosts = (await attachedHosts(lab, ["a", "b", "c"], options)) as [Host, Host, Host];
  const vnets = lab.file("vnets.sxp", "(vnet (id 97)) (vnet (id 98)) (vnet (id 99))");
  for (const host of hosts) await host.vnetd(["vnet-create", vnets]);
  return hosts;
}

export async function status(host: Host): Promise<StatusInfo> {
  const answer = await callApi(host, '{"v":1,"id":1,"method":"status","params":{}}\n');
  return answer?.["result"] as StatusInfo;
}
export const problems = async (host: Host): Promise<string[]> => (await status(host)).problems;
export const problem = (host: Host, pattern: RegExp, timeoutMs = 10_000): Promise<string> =>
  eventually(async () => (await problems(host)).find((text) => pattern.test(text)), {
    what: `${host.name} to report ${String(pattern)}`,
    timeoutMs,
  }) as Promise<string>;
export const noProblem = (host: Host, timeoutMs = 30_000): Promise<unknown> =>
  eventually(
    async () => {
      const found = await problems(host);
      if (found.length > 0) throw new Error(found.join("\n"));
      return true;
    },
    { what: `${host.name} to report nothing`, timeoutMs },
  );
export const dropped = async (host: Host, reason: string, vnet?: string): Promise<number> =>
  (await status(host)).drops
    .filter((row) => row.reason === reason && (vnet === undefined || row.vnet === longId(vnet)))
    .reduce((sum, { frames }) => sum + frames, 0);

/** packets that a host has sent to the underlay */
export async function sent(host: Host): Promise<number> {
  const [link] = await host.ip<{ stats64: { tx: { packets: number } } }[]>(
    "-s",
    "link",
    "show",
    "dev",
    "eth0",
  );
  return link?.stats64.tx.packets ?? 0;
}

/** A cable between the bridges of two vnets of a host. */
export async function join(host: Host): Promise<() => Promise<void>> {
  await host.exec("ip link add j97 type veth peer name j98");
  await host.exec("ip link set j97 master vnet0097 up");
  await host.exec("ip link set j98 master vnet0098 up");
  return async () => void (await host.tryExec("ip link delete j97"));
}

/** A second device of a host on the LAN, as a port of vnet 97's bridge. */
export async function bridgeToLan(host: Host): Promise<() => Promise<void>> {
  await host.lab.connectHost(host, "eth1", "lan0", "169.254.9.9/32");
  await host.exec("ip address flush dev eth1");
  await host.exec("ip link set eth1 master vnet0097");
  return async () => void (await host.tryExec("ip link delete eth1"));
}

export const say = (guest: Guest): Promise<unknown> => guest.tryExec("ping -c 1 -W 0.1 10.0.0.200");

/** Python that has a broadcast frame of the guest's, and a socket to send it by: s.send(frame). */
export const broadcastFrame = `
import fcntl, socket, struct
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
# SIOCGIFHWADDR: /sys is that of another namespace
mac = fcntl.ioctl(s, 0x8927, struct.pack("256s", b"eth0"))[18:24]
frame = b"\\xff" * 6 + mac + b"\\x88\\xb6" + b"x" * 46
`;
