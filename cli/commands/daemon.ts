// SPDX-License-Identifier: Apache-2.0
/** run, attach, detach, status, hosts and version: the daemon and the devices it uses. */
import type {
  AttachedDevice,
  ConfigurationInfo,
  DropInfo,
  HostInfo,
  Params,
  ReloadInfo,
  StatusInfo,
  VersionInfo,
} from "../../src/api/contract.js";
import { errorParts, VnetdError } from "../../src/base/errors.js";
import { checkDeviceName } from "../../src/base/ifname.js";
import { version } from "../../src/base/version.js";
import { shortVnetId } from "../../src/base/vnet-id.js";
import type { CommandSpec, Invocation } from "../command.js";
import { daemonOptions, daemonPaths, givenDaemonArguments } from "../daemon-options.js";
import { durationText } from "../printable.js";
import { runDaemon } from "../run.js";
import { bootUnit, startDaemon } from "../start-daemon.js";
import { detachCommand } from "./detach.js";
import type { Column } from "../table.js";

const deviceColumns: readonly Column<AttachedDevice>[] = [
  { title: "DEVICE", text: ({ device }) => device },
  { title: "ADDRESS", text: ({ address }) => address ?? "" },
  {
    title: "STATE",
    text: ({ up }) => (up ? "up" : "down"),
    colour: ({ up }) => (up ? "good" : "bad"),
  },
  { title: "MODE", text: ({ mode, xdp }) => (xdp === null ? mode : `xdp ${xdp}`) },
  { title: "MTU", text: ({ mtu }) => String(mtu), right: true },
  { title: "GROUP", text: ({ group, port }) => `${group}:${port}` },
  { title: "MERGE", text: ({ merge }) => (merge ? "on" : "off") },
  { title: "TO ALL BY", text: ({ groupWay }) => groupWay },
  { title: "BECAUSE", text: ({ groupWhy }) => groupWhy },
];

const dropColumns: readonly Column<DropInfo>[] = [
  { title: "VNET", text: ({ vnet }) => (vnet === null ? "" : shortVnetId(vnet)) },
  { title: "DIRECTION", text: ({ direction }) => direction },
  { title: "REASON", text: ({ reason }) => reason },
  { title: "FRAMES", text: ({ frames }) => String(frames), right: true },
  { title: "BYTES", text: ({ bytes }) => String(bytes), right: true },
];

interface HostPath {
  host: HostInfo;
  path: HostInfo["paths"][number] | undefined;
}

const hostColumns: readonly Column<HostPath>[] = [
  { title: "HOST", text: ({ host }) => host.hostId },
  { title: "NAME", text: ({ host }) => host.name },
  { title: "SOFTWARE", text: ({ host }) => host.software },
  { title: "ADDRESS", text: ({ path }) => path?.address ?? "" },
  { title: "DEVICE", text: ({ path }) => path?.device ?? "" },
  {
    title: "PATH",
    text: ({ path }) => (path === undefined ? "" : path.primary ? "primary" : "other"),
  },
  { title: "MTU", text: ({ path }) => String(path?.mtu ?? ""), right: true },
  {
    title: "HEARD",
    text: ({ path }) => (path === undefined ? "" : durationText(path.heardSeconds)),
    right: true,
  },
  { title: "VNETS", text: ({ host }) => host.vnets.map(shortVnetId).join(" ") },
];

function reportDevice(invocation: Invocation, device: AttachedDevice): void {
  if (invocation.output.json) return invocation.output.value(device);
  const mode = device.xdp === null ? device.mode : `xdp ${device.xdp}`;
  invocation.output.line(
    `attached ${device.device}: ${device.address ?? "no address"}, ${mode}, mtu ${device.mtu}, group ${device.group}:${device.port}`,
  );
  if (device.xdp === "generic") {
    invocation.output.note(
      `the driver of ${device.device} does not run XDP programs: the stack does, which is no faster than mode tc`,
    );
  }
  if (device.problem !== "") invocation.output.note(`${device.device}: ${device.problem}`);
}

function attachParams(device: string, mode: string | undefined): Params<"attach"> {
  if (mode === undefined) return { device };
  if (mode === "tc" || mode === "xdp") return { device, mode };
  throw new VnetdError("USAGE", `"${mode}" is no mode`, { hint: "It is tc or xdp." });
}

async function attach(invocation: Invocation): Promise<void> {
  const device = checkDeviceName(invocation.positional("DEV"), "device");
  const persist = invocation.flag("persist");
  const params = attachParams(device, invocation.option("mode"));
  const unit = persist ? bootUnit(invocation, invocation.environment.systemd) : undefined;
  try {
    const attached = persist
      ? await attachOrFind(invocation, params)
      : await invocation.request("attach", params);
    reportDevice(invocation, attached);
    for (const { by } of givenDaemonArguments(invocation)) {
      invocation.output.note(`a daemon runs already: ${by} is not used`);
    }
  } catch (error) {
    if (errorParts(error).code !== "NO_DAEMON") throw error;
    const started = await startDaemon(invocation, invocation.environment.systemd);
    try {
      reportDevice(invocation, await attachOrFind(invocation, params));
    } catch (failure) {
      await started.stop();
      throw failure;
    }
  }
  if (unit === undefined) return;
  await unit.enable();
  if (!invocation.output.json) invocation.output.line("vnetd.service starts at every boot");
}

/**
 * A device that is attached already is as good: a daemon that was just started may have remembered it, and
 * with --persist only the boot may be wanted.
 */
async function attachOrFind(
  invocation: Invocation,
  params: Params<"attach">,
): Promise<AttachedDevice> {
  try {
    return await invocation.request("attach", params);
  } catch (error) {
    if (errorParts(error).code !== "ALREADY_ATTACHED") throw error;
    const { attached } = await invocation.request("status", {});
    const remembered = attached.find((each) => each.device === params.device);
    if (remembered === undefined) throw error;
    return remembered;
  }
}

function showStatus(invocation: Invocation, status: StatusInfo): void {
  const { output } = invocation;
  const { table } = status;
  output.line(
    `vnetd ${status.version}, pid ${status.pid}, up ${durationText(status.uptimeSeconds)}, kernel ${status.kernel}`,
  );
  output.line(`host id  ${status.hostId}`);
  output.line(`bpffs    ${status.bpffs} (layout ${status.layout})`);
  showConfiguration(invocation, status.configuration);
  output.line(`vnets    ${status.vnets}, by ${status.encapsulation} unless they name another`);
  output.line(`hosts    ${status.hosts}`);
  const { secure } = status;
  if (secure.vnets > 0) {
    const changing = secure.changing === 0 ? "" : `; ${secure.changing} changing the secret`;
    output.line(
      `secure   ${secure.vnets}, keys for ${secure.keyed} of ${secure.paths} paths${changing}`,
    );
  }
  output.line(
    `entries  ${table.entries} of ${table.limit} (learned ${table.learned}, moved ${table.moved}, aged ${table.aged})`,
  );
  if (status.attached.length > 0) {
    output.text("\n");
    output.table(status.attached, deviceColumns);
  }
  if (status.drops.length > 0) {
    output.text("\n");
    output.table(status.drops, dropColumns);
  }
  // those of the devices are among them
  for (const problem of status.problems) output.note(problem);
}

function showConfiguration(
  { output }: Invocation,
  { file, loadedSeconds, failure }: ConfigurationInfo,
): void {
  const refused = failure === null ? "" : `; not taken ${durationText(failure.ageSeconds)} ago`;
  output.line(`config   ${file}, read ${durationText(loadedSeconds)} ago${refused}`);
}

const changeColumns: readonly Column<ReloadInfo["changes"][number]>[] = [
  { title: "KEY", text: ({ key }) => key },
  { title: "BEFORE", text: ({ before }) => before },
  { title: "NOW", text: ({ after }) => after },
];

async function reload(invocation: Invocation): Promise<void> {
  const { output } = invocation;
  const reloaded = await invocation.request("reload", {});
  if (output.json) return output.value(reloaded);
  const { file, changes } = reloaded;
  if (changes.length === 0) return output.line(`${file} was read: nothing is different`);
  output.line(`${file} was read, and is in use`);
  output.table(changes, changeColumns);
  for (const { needs } of changes) if (needs !== null) output.note(needs);
}

async function showVersion(invocation: Invocation): Promise<void> {
  let daemon: VersionInfo | null = null;
  try {
    daemon = await invocation.request("version", {});
  } catch (error) {
    const { code, message } = errorParts(error);
    if (code !== "NO_DAEMON" && code !== "PERMISSION") throw error;
    if (!invocation.output.json) invocation.output.note(message);
  }
  if (invocation.output.json) {
    invocation.output.value({ version, daemon });
    return;
  }
  invocation.output.line(`vnetd ${version}`);
  if (daemon !== null) {
    invocation.output.line(`daemon ${daemon.version} (API ${daemon.api}, layout ${daemon.layout})`);
  }
}

export const daemonCommands: readonly CommandSpec[] = [
  {
    name: "run",
    describe: "be the daemon, in the foreground",
    options: daemonOptions,
    run: (invocation) => runDaemon(daemonPaths(invocation)),
  },
  {
    name: "attach",
    describe: "carry vnets over a network device; starts the daemon if none runs",
    positionals: [{ name: "DEV", describe: "the device, for example eth0", completes: "device" }],
    options: [
      {
        name: "persist",
        describe: "also at every boot: systemd starts the daemon then",
        flag: true,
      },
      {
        name: "mode",
        describe:
          "xdp: XDP receives what hosts that are known send, where the driver can; tc, the default: TC receives all. Of a device that is attached already it is changed, while everything runs",
        value: "xdp|tc",
      },
      ...daemonOptions.map((option) => ({
        ...option,
        describe: `of a daemon that is started: ${option.describe}`,
      })),
    ],
    epilogue:
      "The daemon keeps in its state directory what is attached, and attaches it again whenever it starts, until detach.",
    run: attach,
  },
  detachCommand,
  {
    name: "hosts",
    describe: "list the other hosts of ours that were heard, with the paths to them",
    run: async (invocation) => {
      const hosts = await invocation.request("hosts", {});
      if (invocation.output.json) return invocation.output.value(hosts);
      const rows = hosts.flatMap((host): HostPath[] =>
        host.paths.length === 0
          ? [{ host, path: undefined }]
          : host.paths.map((path) => ({ host, path })),
      );
      invocation.output.rows(rows, hostColumns, "no other host of ours was heard");
    },
  },
  {
    name: "status",
    describe: "show the daemon, its devices and what was dropped",
    run: async (invocation) => {
      const status = await invocation.request("status", {});
      if (invocation.output.json) invocation.output.value(status);
      else showStatus(invocation, status);
    },
  },
  {
    name: "reload",
    describe: "let the daemon read its configuration again, and say what changed",
    epilogue:
      "Everything is changed while frames flow; if the file cannot be used, the configuration before stays whole. SIGHUP does the same.",
    run: reload,
  },
  {
    name: "version",
    describe: "show the releases of this command and of the daemon",
    run: showVersion,
  },
];
