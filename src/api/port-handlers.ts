// SPDX-License-Identifier: Apache-2.0
/** The methods of direct ports: ports, port-add and port-delete. */
import { VnetdError } from "../base/errors.js";
import { checkDeviceName } from "../base/ifname.js";
import { parseVnetId, shortVnetId } from "../base/vnet-id.js";
import type { Controller } from "../controller.js";
import type { StoredPort } from "../store/stored-ports.js";
import type { Method, PortInfo } from "./contract.js";
import { optionalTextField, textField } from "./params.js";
import type { Handlers } from "./server.js";

type PortMethod = Extract<Method, "ports" | "portAdd" | "portDelete">;

export function portHandlers(controller: Controller): Pick<Handlers, PortMethod> {
  return {
    ports: (params) => ports(controller, optionalTextField(params, "vnet")),
    portAdd: (params) => portAdd(controller, portOf(params)),
    portDelete: (params) => portDelete(controller, portOf(params)),
  };
}

function portOf(params: unknown): StoredPort {
  const vnet = parseVnetId(textField(params, "vnet"));
  return { vnet, device: checkDeviceName(textField(params, "device"), "device") };
}

function ports({ vnets, directPorts }: Controller, vnet: string | undefined): PortInfo[] {
  if (vnet === undefined) return directPorts.list();
  return directPorts.list(vnets.find(parseVnetId(vnet)).config.id);
}

/** One that is a port of this vnet already stays so: whoever starts guests may ask twice. */
function portAdd(controller: Controller, port: StoredPort): PortInfo {
  const { directPorts, context } = controller;
  directPorts.check(port);
  const isNew = !isConfigured(controller, port);
  const follow = (): void => directPorts.sync(context.native.linkList());
  const drop = (): void => {
    controller.persist((draft) => {
      draft.ports = draft.ports.filter(({ device }) => device !== port.device);
    });
    follow();
  };
  if (isNew) controller.persist((draft) => void draft.ports.push(port));
  follow();
  const made = directPorts.list(port.vnet).find(({ device }) => device === port.device);
  if (made !== undefined && made.problem === "" && made.state !== "absent") {
    controller.portsChanged();
    return made;
  }
  if (isNew) drop();
  throw new VnetdError("KERNEL", `${port.device}: ${made?.problem ?? "it went away"}`);
}

function portDelete(controller: Controller, port: StoredPort): StoredPort {
  const { vnet, device } = port;
  if (!isConfigured(controller, port)) {
    throw new VnetdError("PORT_NOT_FOUND", `${device} is no port of vnet ${vnet}`, {
      hint: `See: vnetd port-list ${shortVnetId(vnet)}`,
    });
  }
  controller.persist((draft) => {
    draft.ports = draft.ports.filter((each) => each.device !== device);
  });
  controller.directPorts.sync(controller.context.native.linkList());
  controller.portsChanged();
  return port;
}

function isConfigured({ state }: Controller, port: StoredPort): boolean {
  return state.state.ports.some(({ vnet, device }) => vnet === port.vnet && device === port.device);
}
