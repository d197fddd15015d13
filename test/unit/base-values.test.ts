// SPDX-License-Identifier: Apache-2.0
/** Ids, MACs, addresses and names: what is taken, what is refused, and that printing round-trips. */
import { isIP } from "node:net";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  addressBytesFromText,
  addressToText,
  isMappedIpv4,
  isMulticastAddress,
  parseAddress,
} from "../../src/base/address.js";
import { errorParts, formatPlace, VnetdError } from "../../src/base/errors.js";
import { checkDeviceName, deviceNameProblem } from "../../src/base/ifname.js";
import { isGroupMac, macFromBytes, macFromText, macToBytes, parseMac } from "../../src/base/mac.js";
import { version } from "../../src/base/version.js";
import {
  defaultBridgeName,
  defaultVnetifName,
  isVnetIdText,
  parseVnetId,
  shortVnetId,
  vnetIdFromBytes,
  vnetIdToBytes,
} from "../../src/base/vnet-id.js";
import packageJson from "../../package.json" with { type: "json" };

function codeOf(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return errorParts(error).code;
  }
  return "no error";
}

describe("vnet ids", () => {
  const long97 = "0000:0000:0000:0000:0000:0000:0000:0097";
  it.each([
    ["97", long97],
    ["0097", long97],
    ["1e3", "0000:0000:0000:0000:0000:0000:0000:01e3"],
    ["0:0:0:0:0:0:0:97", long97],
    [long97, long97],
    ["FFFF:a:B:c:1:2:3:4", "ffff:000a:000b:000c:0001:0002:0003:0004"],
    ["1:0:0:0:0:0:0:0", "0001:0000:0000:0000:0000:0000:0000:0000"],
    ["1:0:0:0:0:0:0:1", "0001:0000:0000:0000:0000:0000:0000:0001"],
  ])("%s is %s", (text, canonical) => {
    expect(parseVnetId(text)).toBe(canonical);
    expect(isVnetIdText(text)).toBe(true);
  });

  it.each([
    "",
    " 97",
    "97 ",
    "00097",
    "12345",
    "0x61",
    "g",
    "-1",
    "+1",
    "1:2",
    "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9",
    "1::2",
    "::97",
    "1:2:3:4:5:6:7:",
    "9\n",
    "٩",
    "./97",
  ])("%j is no id", (text) => {
    expect(codeOf(() => parseVnetId(text))).toBe("BAD_VNET_ID");
    expect(isVnetIdText(text)).toBe(false);
  });

  it.each(["0", "0000", "0:0:0:0:0:0:0:0", "1", "0001", "0:0:0:0:0:0:0:1"])(
    "%s has an id's form and is refused",
    (text) => {
      expect(isVnetIdText(text)).toBe(true);
      expect(codeOf(() => parseVnetId(text))).toBe("BAD_VNET_ID");
    },
  );

  it("says what to write instead of 0x61, and where", () => {
    const place = { source: "a.yaml", line: 1, column: 5 };
    expect(() => parseVnetId("0x61", place)).toThrow(
      expect.objectContaining({ hint: expect.stringContaining("write 61,") as string, place }),
    );
  });

  it("goes through 16 bytes and back, and names devices by the last field", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
        const id = vnetIdFromBytes(bytes);
        expect(vnetIdToBytes(id)).toEqual(bytes);
        if (bytes.subarray(0, 15).every((byte) => byte === 0) && bytes[15]! < 2) return;
        expect(parseVnetId(id)).toBe(id);
        expect(parseVnetId(shortVnetId(id))).toBe(id);
        expect(defaultVnetifName(id)).toBe(
          `vnif${Buffer.from(bytes.subarray(14)).toString("hex")}`,
        );
      }),
    );
    expect(defaultBridgeName(parseVnetId("97"))).toBe("vnet0097");
    expect(shortVnetId(parseVnetId("97"))).toBe("0097");
    const zero = vnetIdFromBytes(new Uint8Array(16));
    expect(() => parseVnetId(zero)).toThrow(expect.objectContaining({ code: "BAD_VNET_ID" }));
  });
});

describe("MAC addresses", () => {
  it.each([
    "aa:00:00:01:02:03",
    "AA-00-00-01-02-03",
    "aa00.0001.0203",
    "aa0000010203",
    "aa:0:0:1:2:3",
  ])("%s is taken", (text) => {
    expect(parseMac(text)).toBe("aa:00:00:01:02:03");
  });

  it.each([
    "",
    "aa:00:00:01:02",
    "aa:00:00:01:02:03:04",
    "aa-00:00-01:02-03",
    "aa:00:00:01:02:0g",
    "aa:00:00:01:02:003",
    "eth0",
    "aa00.0001.02",
  ])("%j is refused", (text) => {
    expect(codeOf(() => parseMac(text))).toBe("BAD_MAC");
  });

  it("goes through bytes and back", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 6, maxLength: 6 }), (bytes) => {
        const mac = macFromBytes(bytes);
        expect(macToBytes(mac)).toEqual(bytes);
        expect(macFromText(mac.toUpperCase())).toBe(mac);
        expect(isGroupMac(mac)).toBe(((bytes[0] ?? 0) & 1) === 1);
      }),
    );
  });
});

describe("addresses", () => {
  it("agrees with the standard library on what is an address", () => {
    const part = fc.oneof(
      fc.constantFrom("", ":", "::", ".", "0", "00", "ffff", "255", "256", "1.2.3.4", "%eth0"),
      fc.string({ maxLength: 4 }),
    );
    fc.assert(
      fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
        const text = parts.join("");
        const expected = isIP(text) !== 0 && !text.includes("%");
        expect(addressBytesFromText(text) !== undefined).toBe(expected);
      }),
      { numRuns: 2000 },
    );
    fc.assert(
      fc.property(
        fc.oneof(fc.ipV4(), fc.ipV6()),
        (text) => addressBytesFromText(text) !== undefined,
      ),
    );
  });

  it("prints IPv6 as the URL standard does, and reads it back", () => {
    const sparse = fc.array(fc.constantFrom(0, 0, 0, 1, 255), { minLength: 16, maxLength: 16 });
    fc.assert(
      fc.property(sparse, (values) => {
        const bytes = Uint8Array.from(values);
        const text = addressToText(bytes);
        expect(parseAddress(text)).toEqual(bytes);
        if (!isMappedIpv4(bytes)) expect(new URL(`http://[${text}]`).hostname).toBe(`[${text}]`);
      }),
      { numRuns: 1000 },
    );
  });

  it("maps IPv4, and knows groups", () => {
    const bytes = parseAddress("224.10.0.1");
    expect(Buffer.from(bytes).toString("hex")).toBe("00000000000000000000ffffe00a0001");
    expect(addressToText(bytes)).toBe("224.10.0.1");
    expect(isMulticastAddress(bytes)).toBe(true);
    expect(isMulticastAddress(parseAddress("10.0.0.1"))).toBe(false);
    expect(isMulticastAddress(parseAddress("ff02::1"))).toBe(true);
    expect(codeOf(() => parseAddress("10.0.0.01"))).toBe("BAD_ADDRESS");
  });
});

describe("device names", () => {
  it.each(["a", "vnet97", "vnif0002", "eth0.100", "123456789012345", "ä"])(
    "%s is taken",
    (name) => {
      expect(checkDeviceName(name, "bridge")).toBe(name);
    },
  );

  it.each([
    "",
    ".",
    "..",
    "all",
    "default",
    "1234567890123456",
    "ääääääää",
    "a b",
    "a/b",
    "a:b",
    "a%d",
    "a\tb",
    "a\u0000",
    "a\u001b[",
    "a\u00a0b",
    "\u202e",
    "\ud800",
  ])("%j is refused", (name) => {
    expect(deviceNameProblem(name)).toBeDefined();
    expect(codeOf(() => checkDeviceName(name, "bridge"))).toBe("BAD_NAME");
  });
});

describe("errors and version", () => {
  it("prints places and hides nothing of what is no VnetdError", () => {
    expect(formatPlace({ source: "f", line: 3, column: 5 })).toBe("f:3:5");
    expect(formatPlace({ source: "f", line: 3 })).toBe("f:3");
    expect(formatPlace({ source: "f" })).toBe("f");
    expect(errorParts(new Error("boom"))).toEqual({ code: "INTERNAL", message: "boom" });
    expect(errorParts(new VnetdError("SYNTAX", "m", { hint: "h" }))).toEqual({
      code: "SYNTAX",
      message: "m",
      hint: "h",
    });
  });

  it("is the package's version", () => {
    expect(version).toBe(packageJson.version);
  });
});
