// SPDX-License-Identifier: Apache-2.0
/**
 * Runs in a network namespace and does there what the test asks for over IPC: one operation of
 * the addon a message. What a monitor or ring reports comes back as messages of type "event".
 */
import dgram from "node:dgram";
import { createRequire } from "node:module";

const native = createRequire(import.meta.url)(process.argv[2]);
const open = new Map();
let nextHandle = 1;

function keep(thing) {
  const handle = nextHandle++;
  open.set(handle, thing);
  return handle;
}

/** the daemon's own class, as it was built, with this process's addon */
let espHost;
async function esp() {
  const { EspHost } = await import("../../dist/src/host/esp.js");
  espHost ??= new EspHost(native);
  return espHost;
}

const extra = {
  /** a method of EspHost; keys that were given it come back as they are afterwards */
  async esp(method, ...parameters) {
    const [, , , keys] = parameters;
    const result = (await esp())[method](...parameters);
    return method.startsWith("add") ? keys : result;
  },
  monitor() {
    const handle = nextHandle;
    return keep(native.netlinkMonitor((event) => process.send({ type: "event", handle, event })));
  },
  xfrmEvents() {
    const handle = nextHandle;
    return keep(native.xfrmMonitor((event) => process.send({ type: "event", handle, event })));
  },
  /** adds an SA, and says what is left of the keys that were handed over */
  xfrmAddAndShow(state) {
    const parts = [state.encryption, state.authentication, state.aead];
    const keys = parts.flatMap((part) => (part === undefined ? [] : [part.key]));
    try {
      native.xfrmStateAdd(state);
      return { keys };
    } catch (error) {
      return { keys, error: error.message };
    }
  },
  ring(mapFd) {
    const handle = nextHandle;
    return keep(
      native.ringConsume(mapFd, (event) => process.send({ type: "event", handle, event })),
    );
  },
  watchTcx(ifindexes, programIds, periodMs) {
    const handle = nextHandle;
    const lacking = () => process.send({ type: "event", handle, event: "lacking" });
    return keep(native.tcxWatch(ifindexes, programIds, periodMs, lacking));
  },
  stop(handle) {
    open.get(handle).close();
    open.delete(handle);
  },
  /** makes more link events than any receive buffer holds, without reading one meanwhile */
  block(ifindex) {
    for (let i = 0; i < 12_000; i++) native.linkSet(ifindex, { alias: `${i} ${"x".repeat(240)}` });
  },
  /** a dgram socket on a descriptor of udpSocket; what it hears comes as events */
  async listen(fd) {
    const socket = dgram.createSocket("udp4");
    const handle = keep(socket);
    socket.on("message", (data, from) =>
      process.send({ type: "event", handle, event: { text: data.toString(), from } }),
    );
    await new Promise((resolve, reject) => {
      socket.once("error", reject);
      socket.bind({ fd }, resolve);
    });
    return { handle, address: socket.address() };
  },
  async send(handle, text, port, address) {
    await new Promise((resolve, reject) =>
      open.get(handle).send(text, port, address, (error) => (error ? reject(error) : resolve())),
    );
  },
};

process.on("message", async ({ id, method, parameters }) => {
  try {
    const result = await (extra[method] ?? native[method])(...parameters);
    process.send({ type: "result", id, result });
  } catch (error) {
    const { message, code, errno, operation, detail, name } = error;
    process.send({ type: "error", id, error: { message, code, errno, operation, detail, name } });
  }
});
process.on("disconnect", () => process.exit(0));
