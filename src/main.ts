// SPDX-License-Identifier: Apache-2.0
/**
 * `vnetd run`: the daemon's life.
 *
 * Starts everything, says so on one line of stdout (and to systemd), and ends on SIGTERM or SIGINT
 * without touching the data plane, which forwards with no daemon. SIGHUP reads the configuration again,
 * as `vnetd reload` does. Errors before it is ready are thrown, as VnetdErrors, to the command line.
 */
import { readFileSync } from "node:fs";
import type { Socket } from "node:net";
import { createHandlers } from "./api/handlers.js";
import { ApiServer, type Handlers, type StreamHandlers } from "./api/server.js";
import { streamHandlers } from "./api/watch-handlers.js";
import { VnetdError } from "./base/errors.js";
import { logFileVariable, type RunOptions } from "./base/paths.js";
import { version } from "./base/version.js";
import { defaultPaths } from "./base/paths.js";
import { configChanges } from "./config/config-changes.js";
import {
  daemonConfigDefaults,
  loadDaemonConfig,
  parseListenAddress,
  parseLogFormat,
  type DaemonConfig,
  type ListenAddress,
} from "./config/daemon-config.js";
import { reconfigure } from "./controller/reconfigure.js";
import { Reloads, type TakenConfig } from "./controller/reloads.js";
import { Controller } from "./controller.js";
import { checkBpffs } from "./dataplane/generation.js";
import { objectPathOf } from "./dataplane/object-path.js";
import type { Removal } from "./dataplane/removal.js";
import { errnoName, kernelError } from "./host/errno.js";
import { BpfDirectory, lockNamespace } from "./host/sole-daemon.js";
import { createLog, type AdjustableLog, type LogForm, type LogLevel } from "./log.js";
import { boundLogFile } from "./log-file.js";
import { logFormOf, logTarget } from "./log-form.js";
import { Access } from "./metrics/access.js";
import { MetricsServer } from "./metrics/http.js";
import { MetricsPage } from "./metrics/page.js";
import type { Native } from "./native/contract.js";
import { loadNative } from "./native/load.js";
import { ServiceManager } from "./service-manager.js";
import { readSecretFile } from "./store/secret-file.js";
import { StateDirectory } from "./store/state-directory.js";

export type { RunOptions };

/** A token or a private key of the metrics. */
const secretKind = { code: "CONFIG", maxBytes: 64 << 10, remake: "make a new one" } as const;

/** How often the log says what it held back and nothing else does. */
const sayHeldEveryMs = 10_000;

/** Runs until it is told to stop. */
export async function main(options: RunOptions): Promise<void> {
  const log = openLog();
  const native = loadNative();
  // before any key is read
  kernelErrors("hiding the memory", () => native.memoryHide());
  const config = configOf(options);
  log.set(logSettings(config));
  checkBpffs(native, options.bpffs);
  const closables: (() => void)[] = [];
  let failed = true;
  try {
    const lock = lockNamespace(native, log);
    closables.push(() => lock.close());
    const bpf = BpfDirectory.open(native, options.bpffs);
    closables.push(() => bpf.close(failed));
    const state = StateDirectory.open(options.stateDir, (fd) => native.fileLock(fd));
    closables.push(() => state.close());
    bpf.claim(options.stateDir);
    const removed = await runDaemon(
      { native, log, config, state, run: options },
      () => (failed = false),
    );
    log.say(
      "stopped",
      removed ? "stopped; nothing is attached" : "stopped; what is attached goes on forwarding",
    );
  } finally {
    for (const close of closables.reverse()) close();
  }
  log.flush(true);
}

/** Whether the data plane was removed, by `detach --all`. */
async function runDaemon(options: DaemonOptions, onReady: () => void): Promise<boolean> {
  const { log } = options;
  const daemon = new Daemon(options);
  try {
    process.on("SIGHUP", () => daemon.hangUp());
    setInterval(() => log.flush(), sayHeldEveryMs).unref();
    const stopped = stopSignal(log);
    await daemon.start();
    onReady();
    const removed = await Promise.race([stopped.then(() => false), daemon.removed]);
    daemon.manager.stopping();
    return removed;
  } finally {
    await daemon.stop();
  }
}

interface DaemonOptions {
  native: Native;
  log: AdjustableLog;
  config: DaemonConfig;
  state: StateDirectory;
  run: RunOptions;
}

type Metrics = MetricsServer | undefined;
const metricsKeys = [
  "metricsListen",
  "metricsTokenFile",
  "metricsCertificateFile",
  "metricsKeyFile",
] as const;

const same = (one: unknown, other: unknown): boolean =>
  JSON.stringify(one) === JSON.stringify(other);

class Daemon {
  private controller: Controller | undefined;
  private readonly reloads: Reloads;
  private isReady = false;
  private wasHungUp = false;
  private handlers: Handlers | undefined;
  private readonly api: ApiServer;
  private metrics: Metrics;
  readonly manager: ServiceManager;
  private tellRemoved = (): void => undefined;
  /** resolves with true once `detach --all` was done and answered */
  readonly removed = new Promise<true>((resolve) => {
    // behind the answer, which is written before the loop turns
    this.tellRemoved = () => setImmediate(() => resolve(true));
  });

  constructor(private readonly options: DaemonOptions) {
    const { native, log, run } = options;
    this.manager = new ServiceManager({ native, log, variables: process.env });
    const peerUid = (socket: Socket): number | undefined => uidOf(native, socket);
    const handlers = (): Handlers => {
      if (this.handlers === undefined) throw this.noController();
      return this.handlers;
    };
    const streams = (): StreamHandlers => {
      if (this.controller === undefined) throw this.noController();
      return streamHandlers(this.controller);
    };
    this.api = new ApiServer({ runDir: run.runDir, handlers, streams, log, peerUid });
    const file = run.config ?? defaultPaths.config;
    this.reloads = new Reloads({
      ...{ file, log },
      take: () => this.manager.reloading(() => this.takeConfig()),
      done: (ok) => this.controller?.context.counts.reloaded(ok),
    });
  }

  private noController(): Error {
    if (!this.isReady) return new Error("a request before the start was done");
    return new VnetdError("NO_DAEMON", "the daemon ends, as everything was detached");
  }

  /** The data plane is gone. */
  private onRemoved({ removed, failed }: Removal): void {
    const { log } = this.options;
    this.controller = undefined;
    this.handlers = undefined;
    for (const text of failed) log.say("cleanup_failed", text);
    log.say(
      "detached_all",
      `everything was detached: ${String(removed.length)} hooks, devices and more are removed`,
    );
    this.tellRemoved();
  }

  /** SIGHUP. One that comes during the start is heeded after it. */
  hangUp(): void {
    if (!this.isReady) this.wasHungUp = true;
    // what came of it is in the log and in `vnetd status`
    else this.reloads.reload().catch(() => undefined);
  }

  /** The file as it is now, or everything as it was. */
  private async takeConfig(): Promise<TakenConfig> {
    const { controller } = this;
    if (controller === undefined) throw this.noController();
    const before = controller.context.config;
    const after = configOf(this.options.run);
    const goBack = await this.replaceMetrics(controller, after);
    try {
      kernelErrors("changing the configuration", () => reconfigure(controller, after));
    } catch (error) {
      await goBack();
      throw error;
    }
    this.options.log.set(logSettings(after));
    return { changes: configChanges(before, after), needs: controller.keptLimits() };
  }

  /** The new address is listened on before the old one is given up, where both can be had at once. */
  private async replaceMetrics(
    controller: Controller,
    after: DaemonConfig,
  ): Promise<() => Promise<void>> {
    const before = controller.context.config;
    if (metricsKeys.every((key) => same(before[key], after[key]))) return () => Promise.resolve();
    const old = this.metrics;
    const again = async (): Promise<void> => {
      this.metrics?.close();
      this.metrics = await this.listen(controller, before);
    };
    // one port at two addresses, of which one may stand for all, or with other files
    const isSamePort = before.metricsListen?.port === after.metricsListen?.port;
    if (isSamePort) old?.close();
    const made = await this.listen(controller, after);
    if (made !== undefined && made.problem !== "") {
      made.close();
      if (isSamePort) await again();
      throw new VnetdError("CONFIG", made.problem, {
        hint: "Choose another address or port for metricsListen, or mend the file.",
      });
    }
    old?.close();
    this.metrics = made;
    return again;
  }

  private async listen(controller: Controller, config: DaemonConfig): Promise<Metrics> {
    if (config.metricsListen === null) return undefined;
    const metrics = this.createMetrics(controller, config, config.metricsListen);
    await metrics.listen();
    return metrics;
  }

  async start(): Promise<void> {
    const { log, config, run } = this.options;
    // The socket first: another daemon that has it must not find its data plane changed. No request
    // is read before start() comes back, since it does not wait for anything until then.
    await this.api.listen();
    const controller = kernelErrors("starting", () => this.createController());
    this.controller = controller;
    this.handlers = createHandlers(controller, this.reloads, {
      begins: () => this.manager.stopping(),
      done: (removal) => this.onRemoved(removal),
    });
    controller.addProblems(() => this.reloads.problems());
    kernelErrors("starting", () => controller.start());
    this.metrics = await this.listen(controller, config);
    controller.addProblems(() => [this.metrics?.problem ?? ""].filter((text) => text !== ""));
    const devices = controller.underlays.names().join(", ") || "no device attached";
    const vnets = `${String(controller.vnets.size)} vnets`;
    const ready = `vnetd ${version} ready: ${vnets}, ${devices}, ${run.runDir}`;
    // where both outputs come together, machines read JSON alone
    if (log.form === "json") log.say("ready", ready);
    else process.stdout.write(`${ready}\n`);
    this.manager.ready();
    this.isReady = true;
    if (this.wasHungUp) this.hangUp();
  }

  async stop(): Promise<void> {
    this.metrics?.close();
    await this.api.close();
    this.controller?.stop();
    this.manager.close();
  }

  private createController(): Controller {
    const { native, log, config, state, run } = this.options;
    const objectPath = objectPathOf();
    const options = { native, log, config, state, bpffs: run.bpffs, objectPath };
    // For tests of what older kernels do: hooks as clsact filters where there is TCX.
    const clsact = process.env["VNETD_HOOK_MODE"] === "clsact";
    return new Controller(clsact ? { ...options, hookMode: "clsact" } : options);
  }

  private createMetrics(
    controller: Controller,
    config: DaemonConfig,
    listenOn: ListenAddress,
  ): MetricsServer {
    const { log } = this.options;
    const { metricsTokenFile: token, metricsKeyFile: key } = config;
    const access = new Access(
      { token, certificate: config.metricsCertificateFile, key },
      (path, word) => readSecretFile(path, { ...secretKind, word }),
    );
    const page = new MetricsPage(controller.metrics);
    const notReady = (): string[] => controller.notReady();
    return new MetricsServer({ page, access, notReady, log }, listenOn);
  }
}

function configOf({ config: file, metricsListen, logFormat }: RunOptions): DaemonConfig {
  const config = loadDaemonConfig(file, (name) => readFileSync(name, "utf8"));
  if (logFormat !== undefined)
    config.log.format = parseLogFormat(logFormat, { source: "--log-format" });
  if (metricsListen === undefined) return config;
  return {
    ...config,
    metricsListen: parseListenAddress(metricsListen, { source: "--metrics-listen" }),
  };
}

function logSettings({ log: { format, level } }: DaemonConfig): { form: LogForm; level: LogLevel } {
  const { JOURNAL_STREAM: journalStream, [logFileVariable]: ownFile } = process.env;
  const target = logTarget(process.stderr.fd, { journalStream, ownFile });
  return { form: logFormOf(format, target), level };
}

function openLog(): AdjustableLog {
  const debug = process.env["VNETD_DEBUG"] === "1";
  const path = process.env[logFileVariable];
  const form = logSettings(daemonConfigDefaults()).form;
  if (path === undefined) return createLog({ debug, form });
  return createLog({
    debug,
    form,
    write: (line) => {
      process.stderr.write(line);
      boundLogFile({ path, fd: process.stderr.fd });
    },
  });
}

/** Resolves at the first SIGTERM or SIGINT. */
function stopSignal(log: AdjustableLog): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      process.once(signal, () => {
        log.say("stopping", `${signal}: stopping`);
        resolve();
      });
    }
  });
}

/** Node has no way to ask who is at the other end: the descriptor is behind its internal handle. */
function uidOf(native: Native, socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, "_handle");
  const fd: unknown =
    typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : undefined;
  if (typeof fd !== "number" || fd < 0) return undefined;
  try {
    return native.peerCredentials(fd).uid;
  } catch {
    return undefined;
  }
}

function kernelErrors<T>(what: string, step: () => T): T {
  try {
    return step();
  } catch (error) {
    if (errnoName(error) === "") throw error;
    throw kernelError(what, error);
  }
}
